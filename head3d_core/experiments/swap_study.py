"""Table 1 with intervals, and what the paper did not measure: colour, silhouette, depth, and both axes conventions.

    python -m head3d_core swap-study --weights face --count 100 --out data/results/swap_study_xyz.json

The cosine is printed everywhere with (1 + cos) / 2, the only scale on which the paper's Table 1 fits its
Table 3. "Carried" is the share of a difference that travels with one plane: the mean distance from ID 1 to ID 1 with
that plane of ID 2, over the mean distance from ID 1 to ID 2; 0 for a plane that carries nothing, 1 for all of it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from head3d_core.checkpoints import weights as checkpoint
from head3d_core.experiments import plane_swap, study
from head3d_core.experiments.plane_swap import Array, Changes
from head3d_core.metrics.identity_encoder import Encoder, load_encoder
from head3d_core.metrics.verification import as_share
from head3d_core.model.generator import Generator
from head3d_core.model.seeds import PSI, heads_of_seeds
from head3d_core.utils.devices import usable_device
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.estimates import Estimate, bootstrap_weights, percentiles
from head3d_core.utils.progress import Progress

PAPER_TABLE_1: tuple[tuple[tuple[str, str, str], float, float], ...] = (
    (("ID 2", "ID 1", "ID 1"), 0.535, 0.968),
    (("ID 1", "ID 2", "ID 1"), 0.977, 0.534),
    (("ID 1", "ID 1", "ID 2"), 0.988, 0.532),
    (("ID 1", "ID 1", "ID 1"), 1.000, 0.531),
    (("ID 2", "ID 2", "ID 2"), 0.531, 1.000),
)
"""Where F_xy, F_xz and F_yz come from, similarity to ID 1 and to ID 2, as printed in the paper."""


@dataclass(frozen=True)
class SwapStudyArgs:
    """Exchanges every plane within every ordered pair of identities and tabulates what each plane carries."""

    weights: str = "face"
    """A bundled name, or a path of ours or of an EG3D .pkl."""
    out: Path = Path("out/swap_study.json")
    """File to write."""
    second: str = ""
    """Another generator, fine-tuned from the first or the reverse: exchange between the two, seed by seed (Fig. 3)."""
    count: int = 100
    """Identities."""
    first_seed: int = 0
    """Seeds are first_seed, first_seed + 1, ..."""
    truncation_psi: float = PSI
    """1: everything the generator knows; 0: the average head."""
    batch: int = 32
    """Mixtures rendered at a time."""
    finished: bool = True
    """Read identity from the finished image as well as from the raw one."""
    encoder: Literal["auto", "ours", "facenet"] = "auto"
    """Identity network."""
    device: str = "auto"
    """cpu, cuda, or auto: a GPU where there is one."""


def pair_mean(values: Array, replicates: int = 1000) -> Estimate:
    """Mean of values[i, j] over ordered pairs i != j, or of values[i], with a bootstrap interval over identities.

    Pairs share people, so pairs are not independent: redrawing them would give an interval that is far too narrow. A
    replicate redraws the N identities; a pair then counts as often as both of its people were drawn.

    Args:
        values: [N, N], whose diagonal is ignored, or [N]; NaN leaves a pair out.
    """
    return pair_ratio(values, np.ones_like(values), replicates)


def pair_ratio(above: Array, below: Array, replicates: int = 1000) -> Estimate:
    """Ratio of two means over ordered pairs, numerator and denominator redrawn together; as `pair_mean`."""
    count = len(above)
    if above.shape not in ((count, count), (count,)) or count < 2:
        raise Head3DError(f"values must be of pairs [N, N] or of heads [N], N >= 2, got {list(above.shape)}")
    usable = np.isfinite(above) & np.isfinite(below)
    if above.ndim == 2:
        usable &= ~np.eye(count, dtype=bool)
    if not usable.any():
        raise Head3DError("no pair has a finite value: the images are empty, or the model has diverged")
    drawn = np.concatenate([np.ones((1, count)), bootstrap_weights(count, replicates)])
    terms = "ri,ij,rj->r" if above.ndim == 2 else "ri,i->r"
    up, down = (
        np.einsum(terms, drawn, np.where(usable, x, 0.0), *[drawn] * (x.ndim - 1), optimize=True)
        for x in (above, below)
    )
    ratio = up / np.where(down > 0, down, np.nan)
    return percentiles(float(ratio[0]), ratio[1:], count)


def table_rows(changes: Changes, measure: str = plane_swap.FINISHED) -> list[dict[str, Any]]:
    """The five rows of Table 1 as cosines: which identity each plane comes from, similarity to ID 1 and to ID 2.

    The last two rows are the heads as they are: 1 to themselves by definition, and the mean between two identities.
    """
    rows: list[tuple[dict[str, str], Estimate, Estimate]] = []
    for k in range(3):
        source = {name: "ID 2" if j == k else "ID 1" for j, name in enumerate(changes.names)}
        first, second = (pair_mean(1 - d[measure][k]) for d in (changes.to_first, changes.to_second))
        rows.append((source, first, second))
    apart = pair_mean(1 - changes.apart[measure])
    same = Estimate(1.0, 1.0, 1.0, len(changes.apart[measure]))
    rows.append((dict.fromkeys(changes.names, "ID 1"), same, apart))
    rows.append((dict.fromkeys(changes.names, "ID 2"), apart, same))
    return [
        {
            "from": source,
            "to ID 1": first.to_dict(),
            "to ID 2": second.to_dict(),
            "to ID 1, (1+cos)/2": as_share(first).to_dict(),
            "to ID 2, (1+cos)/2": as_share(second).to_dict(),
        }
        for source, first, second in rows
    ]


def tables(changes: Changes) -> dict[str, Any]:
    """What is recorded of exchanges: planes, number of heads, every measure, and Table 1 where heads meet in pairs.

    Of a measure: the distance between two heads, and per plane the distances of its exchange and its share. Between
    identities, pairs are averaged and people redrawn; between generators, seeds are independent and redrawn.
    """
    apart = next(iter(changes.apart.values()))
    about = {"planes": list(changes.names), "identities": len(apart)}
    if apart.ndim == 1:
        return about | {"measures": _measures(changes, "to first", "to second")}
    read = [name for name in (plane_swap.FINISHED, plane_swap.RAW) if name in changes.apart]
    table_1 = {name: table_rows(changes, name) for name in read}
    return about | {"table_1": table_1, "measures": _measures(changes, "to ID 1", "to ID 2")}


def _measures(changes: Changes, first_name: str, second_name: str) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for measure, apart in changes.apart.items():
        per_plane = {}
        for k, name in enumerate(changes.names):
            first, second = changes.to_first[measure][k], changes.to_second[measure][k]
            per_plane[name] = {
                first_name: pair_mean(first).to_dict(),
                second_name: pair_mean(second).to_dict(),
                "carried": pair_ratio(first, apart).to_dict(),
            }
        record[measure] = {"apart": pair_mean(apart).to_dict(), "planes": per_plane}
    return record


def measure(args: SwapStudyArgs, progress: Progress | None = None) -> dict[str, Any]:
    """What the command records, as a JSON-able dictionary.

    Raises:
        Head3DError: weights, encoder or device that cannot be had, or fewer than two identities.
    """
    device = usable_device(args.device)
    start = time.monotonic()
    G = checkpoint.load_generator(args.weights, device=device)
    encoder = load_encoder(args.encoder, device)
    seeds = range(args.first_seed, args.first_seed + args.count)
    record: dict[str, Any] = {"axes": G.config.render.axes}
    if args.second:
        other = checkpoint.load_generator(args.second, device=device)
        changes = plane_swap.between_generators(
            G, other, encoder, seeds, args.truncation_psi, args.batch, args.finished, progress
        )
        record |= {"first": args.weights, "second": args.second}
    else:
        heads = heads_of_seeds(G, seeds, args.truncation_psi)
        changes = plane_swap.swap_changes(G, encoder, heads, args.batch, args.finished, progress)
        record["ordered_pairs"] = args.count * (args.count - 1)
    record |= tables(changes)
    # An EG3D pickle carries no notes on its training.
    noted = [n for n in (args.weights, args.second) if n and not checkpoint.is_pickle(Path(n))]
    record["provenance"] = study.provenance("swap-study", args, noted, device) | {
        "seconds": round(time.monotonic() - start, 1),
        "encoder": encoder.name,
        "image_resolution": G.config.image_resolution,
        "raw_resolution": G.config.neural_resolution,
        "intervals": "95 %, bootstrap over identities (pairs share people), 1000 replicates",
    }
    return record


def as_text(record: dict[str, Any], measure: str = plane_swap.FINISHED) -> str:
    """Table 1 as text: one line a row, cosine and (1 + cos) / 2 with 95 % intervals."""
    lines = [
        "  ".join(f"F_{name:4s}" for name in record["planes"])
        + "      to ID 1  (1+cos)/2    to ID 2  (1+cos)/2"
    ]
    for row in record["table_1"][measure]:
        cells = "  ".join(f"{row['from'][name]:6s}" for name in record["planes"])
        for side in ("to ID 1", "to ID 2"):
            cells += f"    {row[side]['value']:7.3f}    {row[f'{side}, (1+cos)/2']['value']:7.3f}"
        lines.append(cells)
    return "\n".join(lines)


def _shares(record: dict[str, Any], measure: str) -> str:
    rows = record["measures"][measure]["planes"]
    shares = [rows[name]["carried"] for name in record["planes"]]
    return "".join(f"{s['value']:8.2f} [{s['low']:.2f}, {s['high']:.2f}]" for s in shares)


def carried_text(record: dict[str, Any]) -> str:
    """Share of each measure's difference that travels with each plane, with intervals, one line a measure."""
    width = max(map(len, record["measures"]))
    lines = [" " * width + "".join(f"{'F_' + name:>22s}" for name in record["planes"])]
    return "\n".join(lines + [f"{name:<{width}}{_shares(record, name)}" for name in record["measures"]])


def carried_by_axes(studies: Sequence[dict[str, Any]], measure: str = plane_swap.FINISHED) -> str:
    """`carried_text` of one measure for several studies: a line each, with axes, images the generator saw, people."""
    lines = [f"axes  {'images':>9s}  people" + "".join(f"{n:>22s}" for n in ("F_xy", "F_xz", "third plane"))]
    for record in studies:
        seen = next(iter(record["provenance"]["weights"].values()))["images"]
        start = f"{record['axes']:4s}  {seen:>9,}  {record['identities']:>6}"
        lines.append(f"{start}{_shares(record, measure)}  F_{record['planes'][2]}")
    return "\n".join(lines)


def strongest(record: dict[str, Any], measure: str) -> tuple[str, bool]:
    """The plane with which most of a measure's difference travels, and whether its interval lies above the others'."""
    shares = {name: row["carried"] for name, row in record["measures"][measure]["planes"].items()}
    best = max(shares, key=lambda name: shares[name]["value"])
    clear = all(shares[best]["low"] > s["high"] for name, s in shares.items() if name != best)
    return best, clear


def live_study(G: Generator, encoder: Encoder, count: int) -> dict[str, Any]:
    """The same tables for a few identities, at the raw resolution: what a notebook can afford."""
    return tables(plane_swap.swap_changes(G, encoder, heads_of_seeds(G, range(count)), 4, finished=False))


def lines(record: dict[str, Any]) -> list[str]:
    """The record as text: Table 1 if there is one, and what each plane carries."""
    tables = [f"{name}\n{as_text(record, name)}\n" for name in record.get("table_1", {})]
    return [*tables, carried_text(record)]


run = partial(study.run, measure=measure, lines=lines, unit="batches of mixtures")
"""The command `swap-study`."""
