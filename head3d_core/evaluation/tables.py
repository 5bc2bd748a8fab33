"""Tables from what was recorded, beside the paper's numbers: nothing in them is typed by hand.

`evaluate` records a row in `data/results/evaluation/<row>.json`; `paper.json` holds what the paper prints. A row that
was not run yet says so, and which command makes it.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from head3d_core.evaluation.rows import Row, Rows
from head3d_core.evaluation.rows import load_rows as load_rows
from head3d_core.utils import files
from head3d_core.utils.estimates import NONE, Estimate
from head3d_core.utils.records import load

RESULTS = files.DATA / "results"
NOT_YET = "not recorded yet"

NAMES = {
    "real": "real pictures",
    "face": "EG3D on white, the teacher (face)",
    "head": "head generator, fine-tuned (head)",
    "head3d": "**Head3D**",
    "dft": "DFT",
    "fh": "FH",
    "no-kd": "without L_kd",
    "no-gan-front": "without L_gan_front",
    "no-rgb-lpips": "without L_rgb and L_lpips",
    "single-d": "one discriminator",
    "single-d-pooled": "one discriminator, one pool",
    "all-planes": "all planes distilled",
    "plane-swap": "teacher's F_xy put in, untrained",
    "two-sided": "**Head3D, two slices**",
    "two-sided-shared": "two slices, shared blocks",
    "two-sided-single-d": "two slices, shared blocks, one discriminator",
}
"""What a row is called in a table."""
TABLE_2 = ("real", "face", "head", "dft", "fh", "head3d")
TABLE_3 = ("no-kd", "no-gan-front", "no-rgb-lpips", "head3d")
FIGURE_8 = (
    *("plane-swap", "all-planes", "single-d", "single-d-pooled"),
    *("two-sided", "two-sided-shared", "two-sided-single-d", "head3d"),
)


def load_paper(path: Path = RESULTS / "paper.json") -> dict[str, Any]:
    """The paper's numbers: "table 1", "table 2", "table 3", "cost"."""
    return dict(load(path, "git checkout data/results/paper.json"))


def shown(found: Estimate | None, digits: int = 2, percent: bool = False) -> str:
    """An estimate as `Estimate.text`; a dash where there is none.

    >>> shown(Estimate(0.6149, 0.55, 0.699, 9)), shown(None)
    ('0.61 [0.55, 0.70]', '–')
    """
    return found.text(digits, percent) if found is not None else NONE


def rate(found: Estimate | None) -> str:
    """A rate in per cent with its interval."""
    return shown(found, 1, percent=True)


def kernel(row: Row, side: str = "front") -> Estimate | None:
    """The kernel distance × 100 of a side ("front", "back", ...), or None where it was not measured."""
    found = row.distance.get(side)
    return None if found is None else found.kernel


def _few_heads(row: Row) -> str:
    found = row.distance.get("back")
    return shown(found.kernel if found and (found.real_heads or 0) <= 50 else None, 3)


def many_heads(row: Row) -> str:
    """The back distance to the most held-out heads, which must be more than the 50 of older records."""
    backs = [d for name, d in row.distance.items() if name in ("back", f"back, {d.real_heads} heads")]
    most = max(backs, key=lambda d: d.real_heads or 0, default=None)
    return shown(most.kernel if most and (most.real_heads or 0) > 50 else None, 3)


def _frechet(row: Row) -> str:
    found = row.distance.get("front")
    if found is None or found.frechet is None or found.frechet_floor is None:
        return NONE
    value, floor = (f"{e.value:.1f} at N = {e.count:,}" for e in (found.frechet, found.frechet_floor))
    return f"{value} (floor {floor})"


def _training(row: Row) -> str:
    images, minutes = row.weights.get("images"), row.weights.get("minutes")
    text = NONE if images is None else f"{images:,}"
    return text if minutes is None else f"{text} / {minutes:.0f} min"


def sample_counts(row: Row) -> tuple[int, int]:
    """How many samples (or real images or heads, if fewer) the distances, and the detector's rates, stand on."""
    sides = [found.kernel.count for name, found in row.distance.items() if name in ("front", "back")]
    return max(sides, default=0), row.detector["front"].count if "front" in row.detector else 0


Column = tuple[str, Callable[[Row], str]]
DISTANCES: tuple[Column, ...] = (
    ("KD front × 100", lambda r: shown(kernel(r), 3)),
    ("KD back × 100, 50 heads", _few_heads),
    ("KD back × 100, more heads", many_heads),
)
DETECTOR: tuple[Column, ...] = (
    ("face in front", lambda r: rate(r.detector.get("front"))),
    ("face behind (Janus)", lambda r: rate(r.detector.get("back"))),
)
IDENTITY: tuple[Column, ...] = (
    ("same z, cosine", lambda r: shown(r.cosine)),
    ("AUC", lambda r: shown(r.identity.auc if r.identity else None, 3)),
    ("AUC, dlib", lambda r: shown(r.identity_dlib.auc if r.identity_dlib else None, 3)),
)
SAMPLES: tuple[Column, ...] = (
    ("start of D", lambda r: NONE if r.start == "none" else r.start),
    ("images / GPU", _training),
    ("N: KD / detector", lambda r: " / ".join(f"{n:,}" for n in sample_counts(r))),
)
GHOSTS = {"eye_pair": "eyes behind", "relief_pair": "sockets behind", "front_relief": "own relief behind"}
"""What the scores of the ghost measure are called in tables."""


def ghosts(records: Rows) -> tuple[Column, ...]:
    """Shares of backs above the 95th percentile of real backs; fresh real backs' own share stands in the heading."""

    def column(name: str) -> Column:
        real = rate(records["real"].second_faces(name)) if "real" in records else NONE
        return f"{GHOSTS[name]} (real: {real})", lambda r: rate(r.second_faces(name))

    return tuple(map(column, GHOSTS))


def repetitions(row: str, records: Rows) -> list[str]:
    """Names of the recorded repetitions of a row, those of one start together."""
    found = (name for name, record in records.items() if record.row == row and name != row)
    return sorted(found, key=lambda name: (records[name].start, name))


def table(
    names: Sequence[str], records: Rows, columns: Sequence[Column], paper: Mapping[str, Any] | None = None
) -> str:
    """Markdown table of rows; `paper` adds its numbers of these rows, in columns of their own.

    A row without a record keeps the paper's numbers and says "not recorded yet". Repetitions with another seed or
    start, recorded as `<row>-seed1-fitted` and so on, stand below their row.
    """
    theirs = paper or {}
    printed = list(dict.fromkeys(k for row in theirs.values() for k in row if k != "name"))
    heads = ["row", *(f"paper: {k.replace('x100', '× 100')}" for k in printed), *dict(columns)]
    lines = []
    for row in itertools.chain.from_iterable((r, *repetitions(r, records)) for r in names):
        numbers = [f"{theirs[row][k]:.2f}" if k in theirs.get(row, {}) else NONE for k in printed]
        ours = [show(records[row]) for _, show in columns] if row in records else [NOT_YET]
        ours += [""] * (len(columns) - len(ours))
        lines.append([NAMES.get(row, row), *numbers, *ours])
    return markdown(heads, lines)


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    head, *lines = (f"| {' | '.join(cells)} |" for cells in (heads, *rows))
    return "\n".join([head, "|---" * len(heads) + "|", *lines])


def table_2(records: Rows) -> str:
    """Table 2: the teacher, the baselines and Head3D, with what the paper does not print."""
    columns = (*DISTANCES, ("FD front", _frechet), *DETECTOR, *ghosts(records), *SAMPLES)
    return table(TABLE_2, records, columns, load_paper()["table 2"])


def table_3(records: Rows) -> str:
    """Table 3: what each loss buys, and where our encoder and dlib's disagree."""
    columns = (*DISTANCES, *IDENTITY, DETECTOR[1], *ghosts(records), *SAMPLES)
    whole = table(TABLE_3, records, columns, load_paper()["table 3"])
    return f"{whole}\n\n{second_opinion(records)}"


def figure_8(records: Rows) -> str:
    """Fig. 8 in numbers: planes and discriminators."""
    return table(FIGURE_8, records, (*DISTANCES, *DETECTOR, *IDENTITY, *ghosts(records), *SAMPLES))


def second_opinion(records: Rows) -> str:
    """Where our identity encoder and dlib's, which never saw our people, disagree about rows: a sentence or two."""
    both = {n: (r.identity, r.identity_dlib) for n, r in records.items()}
    aucs = {n: (ours.auc, theirs.auc) for n, (ours, theirs) in both.items() if ours and theirs}
    models = [n for n in aucs if records[n].row != "real"]
    if not models:
        return f"Identity by dlib's encoder: {NOT_YET}."
    said = [f"{n} {ours.text(3)} by ours and {dlib.text(3)} by dlib's" for n, (ours, dlib) in aucs.items()]
    against, open_, pairs = [], 0, list(itertools.combinations(models, 2))
    for a, b in pairs:
        ours, dlib = (one.minus(other) for one, other in zip(aucs[a], aucs[b], strict=True))
        if not (ours.decided and dlib.decided):
            open_ += 1
        elif (ours.value > 0) != (dlib.value > 0):
            against.append(f"{a} and {b}")
    opposite = f"they order {'; '.join(against)} in opposite ways"
    verdict = opposite if against else "they contradict each other in none"
    return (
        f"Same z told from other z, AUC: {'; '.join(said)}. Of {len(pairs)} pairs of rows measured with both encoders "
        f"{verdict}, and {open_} are open by one or both."
    )


def backs(records: Rows) -> str:
    """Heads from straight behind: second faces, hair colour and diversity, real heads and people beside generators."""
    real = records["real"].behind_of if "real" in records else {}
    lines = {f"real {'people' if kind == 'faces' else kind}, fresh": found for kind, found in real.items()}
    lines |= {NAMES.get(n, n): r.behind for n, r in records.items() if r.behind is not None and n != "real"}
    if not lines:
        return f"Heads from behind: {NOT_YET} (`python -m head3d_core evaluate head3d`)."

    def hair(found: Mapping[str, Estimate]) -> list[str]:
        return [shown(found.get(name)) for name in ("L*", "a*", "b*")]

    heads = ["", *GHOSTS.values(), "hair L*, front and back", "a*", "b*", "without hats: L*", "a*", "b*"]
    heads += ["hats", "diversity of backs", "N"]
    text = []
    for name, found in lines.items():
        shares = [rate(found.ghost[k].above) if k in found.ghost else NONE for k in GHOSTS]
        cells = [*shares, *hair(found.hair), *hair(found.hair_without_hats), rate(found.hats)]
        cells += [shown(found.diversity, 3), f"{max(map(len, found.scores.values()), default=0):,}"]
        text.append([name, *cells])
    return markdown(heads, text)


def parametric_data(path: Path = RESULTS / "parametric.json") -> str:
    """Fig. 7 in numbers: what data each way to a whole head was given."""
    if not path.is_file():
        return f"Parametric models: {NOT_YET} (`python -m head3d_core parametric --out data/results`)."
    columns = {"heads": "heads", "views_per_head": "views of each", "depth": "with depth"}
    columns |= {"registered_meshes": "registered meshes", "faces": "faces besides"}
    lines = []
    for name, model in load(path, "python -m head3d_core parametric")["models"].items():
        given = model["data"]
        lines.append([NAMES.get(name, name), *(_said(given.get(key, "none")) for key in columns)])
    return markdown(["", *columns.values()], lines)


def _said(value: Any) -> str:
    """A recorded fact in words.

    >>> _said(True), _said(0), _said(4800)
    ('yes', 'none', '4,800')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) and value else str(value or "none")


RECORDS = ("evaluation/*", "parametric*", "identity_roc.json", "cross_check.json", "detector_rates.json")
"""What the evaluation's notebook shows, below `data/results`."""


def digest(results: Path = RESULTS) -> str:
    """Eight letters that change with any record or picture of `RECORDS`: printed, they date a notebook's figures."""
    whole = hashlib.sha256()
    for path in sorted({p for pattern in RECORDS for p in results.glob(pattern)}):
        whole.update(path.name.encode() + path.read_bytes().replace(b"\r\n", b"\n"))
    return whole.hexdigest()[:8]
