"""Recorded runs and sample grids as figures; what has not been recorded yet is said in a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from head3d_core.evaluation.rows import FOLDER as EVALUATION
from head3d_core.evaluation.rows import load_row, load_rows
from head3d_core.evaluation.tables import NOT_YET
from head3d_core.utils import files, records
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.estimates import Estimate
from head3d_core.utils.images import from_pixels
from head3d_core.utils.records import trained_on
from head3d_course import figures

RESULTS = files.DATA / "results"
GHOST = "eye_pair"
"""The ghost score that the course uses: two places as dark as eyes behind the head."""

Panel = tuple[str, tuple[tuple[str, str], ...]]
"""A panel's title and its curves: (name in the record, label)."""

GAN_PANELS: tuple[Panel, ...] = (
    ("losses", (("g_gan", "generator"), ("d_loss", "discriminator"))),
    ("mean sign of the logits", (("sign_real", "real pictures"), ("sign_fake", "generated"))),
    ("R1: squared slope of D", (("r1", "R1"),)),
)
"""What every stage records for each of its discriminators."""
DISTILL_PANELS: tuple[Panel, ...] = (
    ("planes and codes", (("kd", "λ L_kd"), ("map", "λ L_map"))),
    ("pictures", (("rgb", "λ L_rgb"), ("lpips", "λ L_lpips"))),
)
"""What distillation adds."""
LOG_FROM = 30.0
"""Largest over smallest value of a panel from which its axis is logarithmic."""


# --- records ----------------------------------------------------------------------------------------------------------


def record(name: str) -> dict[str, Any]:
    """`data/results/NAME.json`; raises Head3DError where it is missing."""
    return records.read(name, "git restore data/results")


def record_line(found: Mapping[str, Any]) -> str:
    """One line on the run behind a record of `data/scripts/curves.py`: what, how long, on what, when."""
    p = found["provenance"]
    what = p["stage"] + (f", row {p['row']}" if p.get("row") else "")
    planned = found["recipe"].get("images", p["images"])
    part = "" if p["images"] >= planned else f" of {planned:,} planned"
    return (
        f"{what}: preset {p['preset']}, seed {p['seed']}, {p['images']:,}{part} images "
        f"in {p['seconds'] / 60:.0f} minutes, {trained_on(p)}, {p['date']}, commit {p['commit']}"
    )


@dataclass(frozen=True)
class SecondFaces:
    """One group of heads seen from straight behind (`metrics.ghost`)."""

    scores: np.ndarray
    """[N], of those that could be measured."""
    above: Estimate
    """Share of scores above the limit that real heads set."""


def ghost_limit(score: str = GHOST) -> float:
    """The limit of a ghost score: 5 % of the real heads that set it are above."""
    return load_row(EVALUATION / "real.json").limits[score]


def second_faces() -> dict[str, SecondFaces]:
    """Fresh real heads and people, then every bundled generator whose second faces are recorded."""
    recorded = load_rows(EVALUATION)
    real = recorded["real"].behind_of
    groups = {"real heads": real["heads"], "real people": real["faces"]}
    bundled = ((name, recorded[name]) for name in ("face", "head", "head3d", "two-sided") if name in recorded)
    groups |= {name: row.behind for name, row in bundled if row.behind is not None}
    scores = {name: [x for x in found.scores[GHOST] if x is not None] for name, found in groups.items()}
    return {
        name: SecondFaces(np.array(scores[name]), found.ghost[GHOST].above) for name, found in groups.items()
    }


def above_limit(row: str, score: str = GHOST) -> Estimate:
    """Share of a row's backs above the limit of real ones."""
    known = load_rows(EVALUATION)
    found = known[row].second_faces(score) if row in known else None
    if found is None:
        raise Head3DError(f"{row} has no second faces on record: run git restore data/results")
    return found


def second_faces_figure() -> Any:
    """Every score as a dot, a group a line, against the limit that real heads set."""
    figure, axis = figures.panels(7.2, 3.2)
    groups = second_faces()
    for k, group in enumerate(groups.values()):
        jitter = k + 0.5 * (np.arange(len(group.scores)) % 7 / 6 - 0.5)
        axis.plot(group.scores, jitter, figures.MARKERS[k], color=figures.PALETTE[k], markersize=4, alpha=0.7)
    axis.axvline(ghost_limit(), color="0.2", linestyle="--")
    shares = [f"{name}\n{group.above.text(0, percent=True)}" for name, group in groups.items()]
    axis.set_yticks(range(len(groups)), shares)
    axis.set(xlabel="second face behind, score (dashed: limit)", ylim=(len(groups) - 0.5, -0.5))
    return figure


# --- curves -----------------------------------------------------------------------------------------------------------


def values(found: Mapping[str, Any], name: str) -> tuple[np.ndarray, np.ndarray]:
    """(images, values) of one curve of a record, without the spans in which it was not measured."""
    both = zip(found["images"], found["series"].get(name, []), strict=False)
    pairs = np.array([(x, y) for x, y in both if y is not None], float).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def panels_for(domain: str) -> tuple[Panel, ...]:
    """`GAN_PANELS` for one discriminator: "front", "back" or "all"."""
    return tuple(
        (f"{title} (D_{domain})", tuple((f"{name}_{domain}", label) for name, label in curves))
        for title, curves in GAN_PANELS
    )


def training_curves(found: Mapping[str, Any], panels: Sequence[Panel], columns: int = 3) -> Any:
    """Recorded curves against real images shown, one panel each; every curve has its own line style and label.

    Panels whose positive curves span more than a factor of `LOG_FROM` get a logarithmic axis: small terms stay visible.
    A probability keeps its linear one.
    """
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = figures.panels(3.9 * columns, 2.9 * rows, rows, columns, squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    few = max(found["images"], default=0) < 5000
    for axis, (title, names) in zip(axes.flat, panels, strict=False):
        curves = {label: values(found, name) for name, label in names}
        for k, (label, (x, y)) in enumerate(curves.items()):
            figures.curve(axis, k, x if few else x / 1000, y, label, markersize=3)
        drawn = np.concatenate([y for _, y in curves.values()] or [np.zeros(0)])
        chance = all(name.startswith("ada_p") for name, _ in names)
        if len(drawn) and drawn.min() > 0 and drawn.max() > LOG_FROM * drawn.min() and not chance:
            axis.set_yscale("log")
        axis.set(title=title, xlabel="real images shown" + ("" if few else " (thousands)"))
        axis.grid(alpha=0.3)
        if len(names) == 1:  # one curve needs no legend
            axis.set_ylabel("" if names[0][1] == title else names[0][1])
        elif len(drawn):
            axis.legend(fontsize=9)
    return figure


def early_and_late(found: Mapping[str, Any], name: str, share: float = 0.15) -> tuple[float, float]:
    """Mean of a curve over its first and over its last `share` of spans."""
    _, y = values(found, name)
    count = max(1, int(len(y) * share))
    return float(y[:count].mean()), float(y[-count:].mean())


# --- images -----------------------------------------------------------------------------------------------------------


def recorded_picture(name: str) -> Tensor | None:
    """A recorded grid [3, H, W] in [-1, 1], or None if it is not there."""
    path = next((p for p in (EVALUATION / name, RESULTS / name) if p.is_file()), None)
    if path is None:
        return None
    with Image.open(path) as picture:
        return from_pixels(np.asarray(picture.convert("RGB")))


def cells(sheet: Tensor, rows: int, columns: int) -> Tensor:
    """A grid [3, rows * h, columns * w] as its images [rows, columns, 3, h, w]."""
    return sheet.unflatten(1, (rows, -1)).unflatten(3, (columns, -1)).permute(1, 3, 0, 2, 4)


def larger(images: Tensor, side: int = 112) -> Tensor:
    """Images [N, 3, h, w] in [-1, 1], enlarged smoothly (or shrunk) to `side`."""
    return F.interpolate(images, size=(side, side), mode="bicubic", antialias=True).clamp(-1, 1)


def _sheet(about: Mapping[str, Any]) -> Tensor:
    sheet = recorded_picture(about["file"])
    if sheet is None:
        raise Head3DError(f"data/results/{about['file']} is missing: run git restore data/results")
    return sheet


def progress_picture(found: Mapping[str, Any], size: float = 1.15) -> Any:
    """Samples of a recorded run over time, from the front and from behind."""
    about = found["pictures"]["progress"]
    images = cells(_sheet(about), len(about["images"]), 2 * about["samples"])
    names = [f"{count / 1000:,.0f} k\nimages" for count in about["images"]]
    titles = [f"{k + 1}, {side}" for side in ("front", "behind") for k in range(about["samples"])]
    return figures.image_grid(images, titles, size=size, rows=names)


def last_cells(found: Mapping[str, Any]) -> Tensor:
    """The last sample grid of a recorded run as [samples, yaws, 3, side, side] in [-1, 1]."""
    about = found["pictures"]["last"]
    sheet, columns = _sheet(about), len(about["yaws"])
    return cells(sheet, sheet.shape[1] * columns // sheet.shape[2], columns)


def last_picture(found: Mapping[str, Any], size: float = 1.4) -> Any:
    """Three of the last samples of a recorded run, a sample a row, a yaw a column."""
    last = last_cells(found)[:3]
    titles = [f"{y:.0f}°" for y in found["pictures"]["last"]["yaws"]]
    return figures.image_grid(last, titles, size=size, rows=[f"sample {k}" for k in range(len(last))])


def show_recorded(
    name: str, alt: str, width: int = 800, rows: Sequence[str] = ("",), columns: Sequence[str] = ("",)
) -> None:
    """Shows a recorded grid with named rows and columns, or says that it is not recorded yet; prints its name and size.

    Args:
        width: of the grid, pixels, without the names of its rows.
    """
    sheet = recorded_picture(name)
    if sheet is None:
        print(f"{name}: {NOT_YET}")
        return
    images, size = cells(sheet, len(rows), len(columns)), width // len(columns)
    lines = [larger(line, size) if line.shape[-1] < size else line for line in images]
    figure = figures.image_grid(lines, columns, size=size / 100, rows=rows)
    figures.show(figure, alt)
    print(f"{name}: {sheet.shape[2]} x {sheet.shape[1]} pixels")
