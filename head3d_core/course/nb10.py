"""Notebook 10: distances on toy samples, verification, and the rows of Table 2."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from head3d_core.course import figures
from head3d_core.course.exercises import Exercise, wrong
from head3d_core.course.figures import MARKERS, PALETTE, STYLES
from head3d_core.evaluation.tables import NAMES, Records, kernel
from head3d_core.metrics.distances import KD_SCALE, frechet_distance
from head3d_core.metrics.distances import kernel_distance as library_distance
from head3d_core.utils.estimates import Estimate
from head3d_core.utils.images import from_pixels, from_uint8

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


def distances_of_equal(counts: Sequence[int], width: int = 32) -> list[tuple[Estimate, Estimate]]:
    """Kernel and Fréchet distance of two samples of one toy source, for every N of `counts`."""
    pairs = [[toy_sample(count, seed, width) for seed in (1, 2)] for count in counts]
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


# --- verification -----------------------------------------------------------------------------------------------------


def roc_figure(curves: Mapping[str, Mapping[str, Any]]) -> Any:
    """ROC curves by name, as `verification.Verification.to_dict` writes them; the false rate is logarithmic."""
    figure, axis = figures.panels(6.2, 3.6)
    least = 1.0
    for k, (name, found) in enumerate(curves.items()):
        false, true = (np.array(found["roc"][which]) for which in ("false_accept", "true_accept"))
        there = false >= 1e-4
        axis.plot(false[there], true[there], color=PALETTE[k], linestyle=STYLES[k], linewidth=2, label=name)
        least = min(least, *true[there].tolist())
    start = float(np.clip(np.floor(10 * least) / 10, 0, 0.9))  # good curves are looked at closely
    axis.axvline(0.01, color="0.6", linewidth=1)
    axis.text(0.011, start + 0.05 * (1 - start), "FAR 1 %")
    from_where = f" (axis begins at {start:.1f})" if start else ""
    axis.set(xscale="log", xlabel="false accept rate", ylim=(start, 1 + 0.03 * (1 - start)))
    axis.set_ylabel(f"true accept rate{from_where}")
    axis.legend(loc="lower right")
    return figure


def score_figure(same: Tensor, different: Tensor, limit: float) -> Any:
    """Histograms of the cosines of same and different pairs, and the limit between them."""
    figure, axis = figures.panels(5.6, 2.6)
    bins = np.linspace(-1, 1, 41).tolist()
    axis.hist(different.numpy(), bins, density=True, color=PALETTE[4], label="different people")
    outline: dict[str, Any] = {"histtype": "step", "linewidth": 2, "color": PALETTE[1]}
    axis.hist(same.numpy(), bins, density=True, label="the same person", **outline)
    axis.axvline(limit, color="black", linestyle="--", linewidth=1)
    axis.set(xlabel="cosine", ylabel="density")
    axis.legend()
    return figure


# --- rows -------------------------------------------------------------------------------------------------------------


def yaw_figure(records: Records, rows: Sequence[str]) -> Any | None:
    """Kernel distance, detections and agreement with the own front against |yaw|, with 95 % intervals as bands.

    None if no row has them.
    """
    there = [row for row in rows if row in records and records[row].get("by_yaw")]
    if not there:
        return None
    figure, axes = figures.panels(10.5, 3.8, 1, 3)
    titles = ("KD × 100 to real people", "a face is found", "cosine to the own front")
    for panel, (axis, title) in enumerate(zip(axes, titles, strict=True)):
        counts = []
        for k, row in enumerate(there):
            points = [_by_yaw(step) for step in records[row]["by_yaw"]]
            kept = [(x, each[panel]) for x, each in points if each[panel]]
            if kept:
                x, values = zip(*kept, strict=True)
                y, low, high = ([v[key] for v in values] for key in ("value", "low", "high"))
                axis.plot(
                    x, y, color=PALETTE[k], marker=MARKERS[k], markersize=5, label=NAMES[row].strip("*")
                )
                axis.fill_between(x, low, high, color=PALETTE[k], alpha=0.13, linewidth=0)
                counts += [v["count"] for v in values]
        people = " to ".join(map(str, sorted({min(counts), max(counts)}))) if counts else "0"
        axis.set(title=f"{title} (N = {people})", xlabel="|yaw|, degrees", xticks=range(0, 181, 45))
        axis.title.set_fontsize(10.5)
    figure.legend(*axes[-1].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _by_yaw(step: dict[str, Any]) -> tuple[float, list[dict[str, float]]]:
    """The middle of a step of |yaw| and what the three panels show there; empty where it was not measured."""
    panels = [step.get("distance", {}).get("kernel"), step.get("detected"), step.get("consistency")]
    return (step["low"] + step["high"]) / 2, [panel or {} for panel in panels]


def kernel_figure(records: Records, rows: Sequence[str], side: str = "front") -> Any | None:
    """Kernel distances of the recorded rows with their intervals; None if none is recorded."""
    values = {
        NAMES[row].strip("*"): Estimate.of(found)
        for row in rows
        if row in records and (found := kernel(records[row], side))
    }
    return figures.dots_figure(values, f"{side} kernel distance × {KD_SCALE:g}") if values else None


def heads_figure(shown: Mapping[str, NDArray[np.uint8]], size: float = 1.3) -> Any:
    """Fig. 7: a line a model, its heads [N, 3, R, R, 3] (`experiments.parametric.figure7`) from three sides."""
    heads = max(len(pictures) for pictures in shown.values())
    lines = []
    for pictures in shown.values():
        x = from_pixels(pictures).flatten(0, 1)
        lines.append([*x, *torch.ones(3 * heads - len(x), *x.shape[1:])])  # a reader may have fewer heads
    columns = [f"head {k + 1}\n{view}" for k in range(heads) for view in ("front", "side", "behind")]
    rows = [name.replace(" (", "\n(").replace(", as", ",\nas") for name in shown]
    return figures.image_grid(lines, columns, size=size, rows=rows)


# --- exercises --------------------------------------------------------------------------------------------------------


def _points(seed: int, count: int, shift: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, generator=generator, dtype=torch.float64) + shift


def _kernel(a: Tensor, b: Tensor, power: int = 3, divide: bool = True) -> Tensor:
    return (a @ b.T / (a.shape[1] if divide else 1) + 1) ** power


def _mmd(
    x: Tensor, y: Tensor, cross: float = 2.0, own: bool = False, power: int = 3, divide: bool = True
) -> Tensor:
    kxx, kyy, kxy = (_kernel(a, b, power, divide) for a, b in ((x, x), (y, y), (x, y)))

    def inside(k: Tensor) -> Tensor:
        n = len(k)
        return k.mean() if own else (k.sum() - k.trace()) / (n * (n - 1))

    return inside(kxx) + inside(kyy) - cross * kxy.mean()


kernel_distance = Exercise(
    truth=_mmd,
    cases=[
        (_points(0, 6), _points(1, 5)),
        (_points(2, 4), _points(3, 8, 1.0)),
        (_points(4, 7), _points(4, 7)),
    ],
    mistakes=wrong(
        "pairs of a point with itself are counted: they make the distance of equal sources positive",
        lambda x, y: _mmd(x, y, own=True),
        "the mixed term counts twice: a² + b² - 2ab",
        lambda x, y: _mmd(x, y, cross=1.0),
        "the inner product is divided by the number of features, d",
        lambda x, y: _mmd(x, y, divide=False),
        "the kernel is cubic: (aᵀb / d + 1)³",
        lambda x, y: _mmd(x, y, power=2),
        "tables print it times 100; here the plain number is wanted",
        lambda x, y: 100 * _mmd(x, y),
    ),
)


def _tar(same: Tensor, different: Tensor, rate: float, strict: bool = True) -> Tensor:
    ordered = different.sort().values
    limit = ordered[max(0, math.ceil((1 - rate) * len(ordered)) - 1)]
    return ((same > limit) if strict else (same >= limit)).double().mean()


def _scores(seed: int, apart: float) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    same = (0.2 * torch.randn(40, generator=generator, dtype=torch.float64) + apart).round(decimals=2)
    different = (0.2 * torch.randn(200, generator=generator, dtype=torch.float64)).round(decimals=2)
    return same, different


_TAR_CASES = [(*_scores(0, 0.5), 0.01), (*_scores(1, 0.3), 0.05), (*_scores(2, 0.2), 0.1)]


true_accept_rate = Exercise(
    truth=_tar,
    cases=_TAR_CASES,
    mistakes=wrong(
        "the limit comes from the different pairs: they are what must not be accepted",
        lambda s, d, r: _tar(s, s, r),
        "the limit lies at the wrong end: only the most alike of the different pairs may pass",
        lambda s, d, r: _tar(s, d, 1 - r),
        "this is the false accept rate: ask how many same pairs pass",
        lambda s, d, r: _tar(d, d, r),
        "this is the share that is turned away",
        lambda s, d, r: 1 - _tar(s, d, r),
        "a limit of 0.5 means nothing: it follows from the rate",
        lambda s, d, r: (s > 0.5).double().mean(),
    ),
)


def _kept(teacher: Tensor, twin: Tensor) -> Tensor:
    return (teacher & twin).double().sum() / teacher.double().sum()


def _wears(*numbers: int) -> Tensor:
    return torch.tensor([n == 1 for n in numbers])


kept_share = Exercise(
    truth=_kept,
    cases=[
        (_wears(1, 1, 1, 0, 0, 0, 0, 0), _wears(1, 0, 1, 0, 1, 0, 0, 0)),
        (_wears(1, 0, 0, 1, 1), _wears(1, 1, 0, 0, 0)),
        (_wears(0, 0, 1, 1), _wears(1, 1, 1, 1)),
    ],
    mistakes=wrong(
        "divide by the teacher's wearers, not by all heads: who has nothing on cannot lose it",
        lambda a, b: (a & b).double().mean(),
        "two bare heads agree as well, and most heads are bare: look at the wearers only",
        lambda a, b: (a == b).double().mean(),
        "this asks how many of the twin's hats the teacher has; the question is the other way round",
        lambda a, b: _kept(b, a),
        "hats that the twin invented are counted as kept: both must wear one",
        lambda a, b: b.double().sum() / a.double().sum(),
    ),
)
