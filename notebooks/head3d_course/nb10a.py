"""Notebook 10a: distances between two sets of pictures, on toys and on faces, and Table 2 in five columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from head3d_core.evaluation.rows import Rows
from head3d_core.evaluation.tables import NAMES, NOT_YET, TABLE_2, load_paper
from head3d_core.metrics.distances import frechet_distance
from head3d_core.metrics.distances import kernel_distance as library_distance
from head3d_core.utils.estimates import NONE, Estimate
from head3d_core.utils.images import from_uint8
from head3d_course import figures
from head3d_course.ablations import BACK, FRONT, JANUS
from head3d_course.exercises import Exercise, random
from head3d_course.figures import MARKERS, PALETTE

# --- distances --------------------------------------------------------------------------------------------------------


def toy_sample(count: int, seed: int, width: int = 2, damage: str = "none") -> Tensor:
    """Points [count, width] around two centres, or of a source that is damaged in one way.

    Args:
        damage: "none", "shifted" (everything moves), "shrunk" (less variety around each centre), "one mode" (the
            second centre is never drawn), "copies" (only six different points).
    """
    generator = torch.Generator().manual_seed(seed)
    side = (torch.rand(count, 1, generator=generator) < 0.5).double() * 2 - 1
    noise = 0.5 * torch.randn(count, width, generator=generator, dtype=torch.float64)
    if damage == "one mode":
        side = torch.ones_like(side)
    if damage == "shrunk":
        noise = 0.3 * noise
    points = noise + side * 1.5 * F.one_hot(torch.tensor(0), width)
    if damage == "shifted":
        points = points + 0.6
    return points[torch.arange(count) % 6] if damage == "copies" else points


def damaged_pictures(images: Tensor, damage: str) -> Tensor:
    """Images uint8 [N, 3, R, R] made worse: "blurred", "noisy", "six people" (repeated) or "mirrored" (no damage)."""
    if damage == "mirrored":
        return images.flip(-1)
    if damage == "six people":
        return images[torch.arange(len(images)) % 6]
    x = images.float()
    if damage == "blurred":
        small = F.interpolate(x, scale_factor=0.25, mode="area")
        x = F.interpolate(small, size=x.shape[-2:], mode="bilinear", align_corners=False)
    elif damage == "noisy":
        x = x + 20 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    return x.round().clamp(0, 255).to(torch.uint8)


def damage_example(images: Tensor, damage: str) -> Tensor:
    """What a damage looks like, [3, R, R] in [-1, 1]: one image, or sixteen of them where the *set* is damaged."""
    damaged = from_uint8(damaged_pictures(images, damage))
    if damage != "six people":
        return damaged[5]
    quarter = images.shape[-1] // 4
    small = F.interpolate(damaged[:16], size=(quarter, quarter), mode="area")
    return small.unflatten(0, (4, 4)).permute(2, 0, 3, 1, 4).reshape(3, 4 * quarter, 4 * quarter)


def distances_of_equal(counts: Sequence[int]) -> list[tuple[Estimate, Estimate]]:
    """Kernel and Fréchet distance of two samples of one toy source, for every N of `counts`."""
    pairs = [[toy_sample(count, seed, 32) for seed in (1, 2)] for count in counts]
    return [(library_distance(a, b, 50), frechet_distance(a, b, 2)) for a, b in pairs]


def floor_figure(counts: Sequence[int], found: Sequence[tuple[Estimate, Estimate]]) -> Any:
    """Both distances of equal sources against N."""
    figure, axes = figures.panels(8.4, 3, 1, 2)
    for k, (axis, name) in enumerate(zip(axes, ("kernel distance", "Fréchet distance"), strict=True)):
        values = [pair[k] for pair in found]
        axis.axhline(0, color="0.6", linewidth=1)
        axis.plot(counts, [e.value for e in values], color=PALETTE[k], marker=MARKERS[k])
        if k == 0:
            band = ([e.low for e in values], [e.high for e in values])
            axis.fill_between(counts, *band, color=PALETTE[k], alpha=0.2)
        axis.set(xscale="log", xlabel="points in each sample, N", title=f"{name} of equal sources")
        axis.set_xticks(counts, [str(c) for c in counts])
        axis.minorticks_off()
    return figure


def toy_figure(samples: Mapping[str, Tensor]) -> Any:
    """Scatter plots of toy samples [N, 2], by name."""
    figure, axes = figures.panels(2.2 * len(samples), 2.4, 1, len(samples), sharex=True, sharey=True)
    for axis, (name, points) in zip(axes, samples.items(), strict=True):
        few = len(points.unique(dim=0)) < 20
        axis.scatter(points[:, 0], points[:, 1], s=60 if few else 8, color=PALETTE[0])
        axis.set(title=name, aspect="equal")
    return figure


# --- Table 2 ----------------------------------------------------------------------------------------------------------


def table_2(records: Rows) -> str:
    """Table 2 in five columns: distances in front and behind, faces behind, and the paper's FID (Markdown)."""
    paper = load_paper()["table 2"]
    lines = ["| | KD front × 100 ↓ | KD back × 100 ↓ | a face behind ↓ | paper: FID ↓ |", "|---" * 5 + "|"]
    for row in TABLE_2:
        values = [m.of(records[row]) if row in records else None for m in (FRONT, BACK, JANUS)]
        cells = [f"{round(e.value, 1) + 0.0:.1f}" if e else NOT_YET for e in values]
        cells[2] += " %" if values[2] else ""
        theirs = paper.get(row, {}).get("FID")
        name = NAMES[row].split(", the ")[-1].split(" (")[0]
        lines.append(f"| {name} | {' | '.join(cells)} | {f'{theirs:.1f}' if theirs else NONE} |")
    return "\n".join(lines)


def kernel_figure(records: Rows) -> Any:
    """Kernel distances of Table 2's rows in front (left) and behind, with intervals."""
    names = [NAMES[row].strip("*") for row in TABLE_2]
    figure, axes = figures.panels(9.5, 0.45 * len(TABLE_2) + 1, 1, 2, sharey=True)
    for axis, measure in zip(axes, (FRONT, BACK), strict=True):
        figures.dots(axis, [measure.of(records[row]) if row in records else None for row in TABLE_2])
        axis.set(title=f"{measure.name} (larger is worse)")
    axes[0].set_yticks(range(len(TABLE_2)), names)
    return figure


# --- exercises --------------------------------------------------------------------------------------------------------


def _mmd(
    x: Tensor, y: Tensor, cross: float = 2.0, own: bool = False, power: int = 3, divide: bool = True
) -> Tensor:
    size = x.shape[1] if divide else 1
    kxx, kyy, kxy = ((a @ b.T / size + 1) ** power for a, b in ((x, x), (y, y), (x, y)))

    def inside(k: Tensor) -> Tensor:
        n = len(k)
        return k.mean() if own else (k.sum() - k.trace()) / (n * (n - 1))

    return inside(kxx) + inside(kyy) - cross * kxy.mean()


kernel_distance = Exercise(
    truth=_mmd,
    cases=[
        (random(0, 6, 3).double(), random(1, 5, 3).double()),
        (random(2, 4, 3).double(), random(3, 8, 3).double() + 1),
        (random(4, 7, 3).double(), random(4, 7, 3).double()),
    ],
    mistakes={
        "pairs of a point with itself are counted: leave them out": lambda x, y: _mmd(x, y, own=True),
        "the mixed term counts twice: a² + b² - 2ab": lambda x, y: _mmd(x, y, cross=1.0),
        "the inner product is divided by the number of features, d": lambda x, y: _mmd(x, y, divide=False),
        "the kernel is cubic: (aᵀb / d + 1)³": lambda x, y: _mmd(x, y, power=2),
        "tables print it times 100; here the plain number is wanted": lambda x, y: 100 * _mmd(x, y),
    },
)


def _frechet(x: Tensor, y: Tensor) -> Tensor:
    return (x.mean() - y.mean()) ** 2 + (x.std() - y.std()) ** 2


frechet_one = Exercise(
    truth=_frechet,
    cases=[
        (random(0, 9), random(1, 7)),
        (3 * random(2, 20) + 1, random(3, 30)),
        (random(4, 5), random(4, 5)),
    ],
    mistakes={
        "the second term takes standard deviations: with one feature, Tr(S + T - 2 (S T)^½) is (s - t)²": lambda x, y: (
            (x.mean() - y.mean()) ** 2 + (x.var() - y.var()) ** 2
        ),
        "the first term is squared": lambda x, y: (x.mean() - y.mean()).abs() + (x.std() - y.std()) ** 2,
        "two sets with one mean may still differ: add the spread": lambda x, y: (x.mean() - y.mean()) ** 2,
    },
)
