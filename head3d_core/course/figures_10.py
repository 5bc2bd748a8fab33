"""Toy distributions and figures of notebooks 10 and 11."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from head3d_core.course.figures import PALETTE
from head3d_core.evaluation.pictures import FACE_YAWS, TURN
from head3d_core.evaluation.tables import EVALUATION, NAMES, NOT_YET, RESULTS, Records, kernel_name
from head3d_core.metrics.distances import KD_SCALE, Estimate, frechet_distance, kernel_distance
from head3d_core.utils.images import from_pixels, from_uint8

MARKERS = "osD^vPX"


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
    """Pictures uint8 [N, 3, R, R] made worse: "blurred", "noisy", "six people" (repeated) or "mirrored" (no damage)."""
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
    """What a damage looks like, [3, R, R] in [-1, 1]: one picture, or sixteen of them where the *set* is damaged."""
    damaged = from_uint8(damaged_pictures(images, damage))
    if damage != "six people":
        return damaged[5]
    side = images.shape[-1]
    small = F.interpolate(damaged[:16], size=(side // 4, side // 4), mode="area")
    return small.unflatten(0, (4, 4)).permute(2, 0, 3, 1, 4).reshape(3, side // 4 * 4, side // 4 * 4)


def distances_of_equal(counts: Sequence[int], width: int = 32) -> list[tuple[Estimate, Estimate]]:
    """Kernel and Fréchet distance of two samples of one toy source, for every N of `counts`."""
    found = []
    for count in counts:
        a, b = (toy_sample(count, seed, width) for seed in (1, 2))
        found.append((kernel_distance(a, b, 50), frechet_distance(a, b, 2)))
    return found


def floor_figure(counts: Sequence[int], found: Sequence[tuple[Estimate, Estimate]]) -> Any:
    """Both distances of equal sources against N."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(8.4, 3), layout="constrained")
    for k, (axis, name) in enumerate(zip(axes, ("kernel distance", "Fréchet distance"), strict=True)):
        values = [pair[k] for pair in found]
        axis.axhline(0, color="0.6", linewidth=1)
        axis.plot(counts, [e.value for e in values], color=PALETTE[k], marker=MARKERS[k])
        if k == 0:
            low, high = ([getattr(e, end) for e in values] for end in ("low", "high"))
            axis.fill_between(counts, low, high, color=PALETTE[k], alpha=0.2)
        axis.set(xscale="log", xlabel="points in each sample, N", title=f"{name} of equal sources")
        axis.set_xticks(counts, [str(c) for c in counts])
        axis.minorticks_off()
    return figure


def toy_figure(samples: Mapping[str, Tensor]) -> Any:
    """Scatter plots of toy samples [N, 2], by name."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, len(samples), figsize=(2.2 * len(samples), 2.4), sharex=True, sharey=True, layout="constrained"
    )
    for axis, (name, points) in zip(axes, samples.items(), strict=True):
        few = len(points.unique(dim=0)) < 20
        axis.scatter(points[:, 0], points[:, 1], s=60 if few else 8, color=PALETTE[0])
        axis.set_title(name)
        axis.set_aspect("equal")
    return figure


def bar_figure(values: Mapping[str, Estimate], label: str) -> Any:
    """Estimates as dots with their intervals, one a line."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6.4, 0.45 * len(values) + 0.9), layout="constrained")
    for k, e in enumerate(values.values()):
        axis.plot([e.low, e.high], [k, k], color=PALETTE[0], linewidth=2)
        axis.plot(e.value, k, MARKERS[0], color=PALETTE[1])
    axis.axvline(0, color="0.6", linewidth=1)
    axis.set(xlabel=label, ylim=(len(values) - 0.5, -0.5))
    axis.set_yticks(range(len(values)), list(values))
    return figure


def roc_figure(curves: Mapping[str, Mapping[str, Any]]) -> Any:
    """ROC curves by name, as `verification.Verification.to_dict` writes them; the false rate is logarithmic."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6.2, 3.6), layout="constrained")
    least = 1.0
    for k, (name, found) in enumerate(curves.items()):
        false, true = (np.array(found["roc"][which]) for which in ("false_accept", "true_accept"))
        there = false >= 1e-4
        (line,) = axis.plot(false[there], true[there], color=PALETTE[k], linewidth=2, label=name)
        line.set_linestyle(("-", "--", ":")[k % 3])
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
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(5.6, 2.6), layout="constrained")
    bins = np.linspace(-1, 1, 41).tolist()
    axis.hist(different.numpy(), bins, density=True, color=PALETTE[4], label="different people")
    axis.hist(
        same.numpy(),
        bins,
        density=True,
        histtype="step",
        linewidth=2,
        color=PALETTE[1],
        label="the same person",
    )
    axis.axvline(limit, color="black", linestyle="--", linewidth=1)
    axis.set(xlabel="cosine", ylabel="density")
    axis.legend()
    return figure


def _present(at: Sequence[float], values: Sequence[Any]) -> list[tuple[float, Any]]:
    return [(x, value) for x, value in zip(at, values, strict=True) if value is not None]


def yaw_figure(records: Records, rows: Sequence[str]) -> Any | None:
    """Kernel distance, detections and agreement with the own front against |yaw|, with 95 % intervals as bands.

    None if no row has them.
    """
    import matplotlib.pyplot as plt

    there = [row for row in rows if row in records and records[row].get("by_yaw")]
    if not there:
        return None
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.8), layout="constrained")
    counts: tuple[set[int], ...] = (set(), set(), set())
    for k, row in enumerate(there):
        steps, name = records[row]["by_yaw"], kernel_name(records[row])
        at = [(s["low"] + s["high"]) / 2 for s in steps]
        curves = (
            [(s["distance"][name], "value") if "distance" in s else None for s in steps],
            [(s["detected"], "rate") if s.get("detected") else None for s in steps],
            [(s["consistency"], "value") if "consistency" in s else None for s in steps],
        )
        for panel, (axis, values) in enumerate(zip(axes, curves, strict=True)):
            kept = [(x, found[key], found) for x, (found, key) in _present(at, values)]
            if not kept:
                continue
            x, y, found = zip(*kept, strict=True)
            axis.plot(x, y, color=PALETTE[k], marker=MARKERS[k], markersize=5, label=NAMES[row].strip("*"))
            low, high = ([f[end] for f in found] for end in ("low", "high"))
            axis.fill_between(x, low, high, color=PALETTE[k], alpha=0.13, linewidth=0)
            counts[panel].update(f["count"] for f in found)
    titles = ("KD × 100 to real people", "a face is found", "cosine to the own front")
    for axis, title, seen in zip(axes, titles, counts, strict=True):
        people = " to ".join(map(str, sorted({min(seen), max(seen)}))) if seen else "0"
        axis.set(title=f"{title} (N = {people})", xlabel="|yaw|, degrees", xticks=range(0, 181, 45))
        axis.title.set_fontsize(10.5)
    figure.legend(*axes[-1].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def kernel_figure(records: Records, rows: Sequence[str], side: str = "front") -> Any | None:
    """Kernel distances of the recorded rows with their intervals; None if none is recorded."""
    values = {
        NAMES[row].strip("*"): Estimate(**records[row]["distance"][side][kernel_name(records[row])])
        for row in rows
        if row in records and side in records[row].get("distance", {})
    }
    return bar_figure(values, f"{side} kernel distance × {KD_SCALE:g}") if values else None


def recorded_picture(name: str, folder: Path = EVALUATION) -> Tensor | None:
    """A recorded grid [3, H, W] in [-1, 1], or None if it is not there."""
    from PIL import Image

    path = next((p for p in (folder / name, RESULTS / name) if p.is_file()), None)
    if path is None:
        return None
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    return from_pixels(pixels)


def grid_names(name: str, width: int, height: int) -> tuple[list[str], list[str]] | None:
    """Names of the rows and columns of a recorded grid of `width` x `height` pixels; None for an unknown kind.

    >>> grid_names("parametric_explicit.jpg", 768, 512)
    (['head 1', 'head 2'], ['front', 'side', 'behind'])
    """
    stem = name.rsplit(".", 1)[0]
    sides = ["front", "side", "behind"]
    if stem.endswith("_same_z"):
        own = stem.removesuffix("_same_z")
        rows = ["teacher", "head", own, f"{own},\nbehind"]
        return rows, [f"z {k + 1}" for k in range(len(rows) * width // height)]
    if stem.endswith("_worn"):
        rows = ["teacher", *(f"{stem.removesuffix('_worn')},\n{side}" for side in sides)]
        return rows, [f"z {k + 1}" for k in range(len(rows) * width // height)]
    if stem.endswith("_nearest"):
        return ["sample", "nearest in\ntraining set"], [f"z {k + 1}" for k in range(2 * width // height)]
    if stem.endswith("_views"):
        columns = [f"{yaw}°" for yaw in (FACE_YAWS if stem == "face_views" else TURN)]
    elif stem == "parametric_reconstructions":
        columns = [f"{who}\n{side}" for who in ("real", "explicit", "implicit") for side in sides]
    elif stem.startswith("parametric_"):
        columns = sides
    else:
        return None
    return [f"head {k + 1}" for k in range(len(columns) * height // width)], columns


def heads_figure(shown: Mapping[str, NDArray[np.uint8]], size: float = 1.3) -> Any:
    """Fig. 7: a line a model, its heads [N, 3, R, R, 3] (`parametric_pictures.figure7`) from front, side and back."""
    from head3d_core.course.figures_training import view_grid

    heads = max(len(pictures) for pictures in shown.values())
    lines = []
    for pictures in shown.values():
        x = from_pixels(pictures).flatten(0, 1)
        white = torch.ones(3 * heads - len(x), *x.shape[1:])  # a reader may have fewer heads
        lines.append(torch.cat([x, white]))
    columns = [f"head {k + 1}\n{view}" for k in range(heads) for view in ("front", "side", "behind")]
    return view_grid(
        lines, [name.replace(" (", "\n(").replace(", as", ",\nas") for name in shown], columns, size
    )


def grid_figure(picture: Tensor, rows: Sequence[str], columns: Sequence[str], width: int) -> Any:
    """A recorded grid [3, H, W] in [-1, 1], `width` pixels wide, with a name beside each row and above each column."""
    import matplotlib.pyplot as plt

    from head3d_core.course import figures

    _, high, wide = picture.shape
    figure, axis = plt.subplots(figsize=(width / 100, width / 100 * high / wide))
    axis.imshow(figures.to_pixels(picture), interpolation="bilinear", aspect="equal")
    axis.set_xticks([(k + 0.5) * wide / len(columns) for k in range(len(columns))], columns)
    axis.set_yticks([(k + 0.5) * high / len(rows) for k in range(len(rows))], rows)
    axis.tick_params(length=0, labelsize=11, top=False, labeltop=True, bottom=False, labelbottom=False)
    axis.set_position((0, 0, 1, 1))
    for spine in axis.spines.values():
        spine.set_visible(False)
    return figure


def show_recorded(name: str, alt: str, width: int = 800, folder: Path = EVALUATION) -> None:
    """Shows a recorded grid with named rows and columns, or says that it is not recorded yet; prints its name and size.

    As JPEG: a notebook with many grids stays small.

    Args:
        width: of the grid, pixels, without the names of its rows.
    """
    import matplotlib.pyplot as plt
    from IPython.display import Image as Shown
    from IPython.display import display

    picture = recorded_picture(name, folder)
    if picture is None:
        print(f"{name}: {NOT_YET}")
        return
    rows, columns = grid_names(name, picture.shape[2], picture.shape[1]) or ([], [])
    figure = grid_figure(picture, rows, columns, width)
    buffer = io.BytesIO()
    options = {"quality": 72, "optimize": True, "progressive": True}
    figure.savefig(buffer, format="jpeg", dpi=100, bbox_inches="tight", facecolor="white", pil_kwargs=options)
    plt.close(figure)
    display(Shown(data=buffer.getvalue(), format="jpeg", alt=alt))
    print(f"{name}: {picture.shape[2]} x {picture.shape[1]} pixels")
