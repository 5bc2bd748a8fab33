"""Figures of the training notebooks (05, 07, 08, 09): recorded curves, grids of views, Fig. 4 of the paper redrawn."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from head3d_core.course.figures import PALETTE, to_pixels
from head3d_core.course.figures_00 import _arrow, _box, _canvas
from head3d_core.metrics.verification import most_alike
from head3d_core.training.curves import trained_on
from head3d_core.training.recipes import LossWeights, Recipe, recipe
from head3d_core.utils.files import DATA
from head3d_core.utils.images import from_uint8

RESULTS = DATA / "results"
STYLES = ("-", "--", "-.", ":")
_MARKERS = ("o", "s", "^", "D")

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


# -- records -------------------------------------------------------------------------------------------------------


def record(name: str) -> dict[str, Any] | None:
    """`data/results/NAME.json`, or None if it has not been recorded yet."""
    path = RESULTS / f"{name}.json"
    return dict(json.loads(path.read_text(encoding="utf8"))) if path.is_file() else None


def record_line(found: Mapping[str, Any]) -> str:
    """One line on the run behind a record of `curves`: what, how long, on what, when."""
    p = found["provenance"]
    what = p["stage"] + (f", row {p['row']}" if p.get("row") else "")
    planned = found["recipe"].get("images", p["images"])
    part = "" if p["images"] >= planned else f" of {planned:,} planned"
    return (
        f"{what}: preset {p['preset']}, seed {p['seed']}, {p['images']:,}{part} images "
        f"in {p['seconds'] / 60:.0f} minutes, {trained_on(p)}, {p['date']}, commit {p['commit']}"
    )


def how_to_record(stage: str, row: str | None = None) -> str:
    """What to say where a curve has not been recorded yet: the two commands that make it."""
    name = row or stage
    more = " --heads synth:heads:4800 --teacher runs/teacher" if stage != "teacher" else ""
    more += " --head runs/head" if stage == "distill" else ""
    more += f" --row {row}" if row else ""
    return (
        "not recorded yet: run\n"
        f"  python -m head3d_core train {stage} --data synth:faces:20000{more} --out runs/{name}\n"
        f"  python -m head3d_core.training.curves runs/{name} --out data/results/curves_{name}.json"
    )


def values(found: Mapping[str, Any], name: str) -> tuple[np.ndarray, np.ndarray]:
    """(images, values) of one curve of a record, without the spans in which it was not measured."""
    pairs = [
        (x, y) for x, y in zip(found["images"], found["series"].get(name, []), strict=False) if y is not None
    ]
    return np.array([x for x, _ in pairs], float), np.array([y for _, y in pairs], float)


def panels_for(domain: str, panels: Sequence[Panel] = GAN_PANELS) -> tuple[Panel, ...]:
    """`panels` for one discriminator: "front", "back" or "all"."""
    return tuple(
        (f"{title} (D_{domain})", tuple((f"{name}_{domain}", label) for name, label in curves))
        for title, curves in panels
    )


LOG_FROM = 30.0
"""Largest over smallest value of a panel from which its axis is logarithmic."""


def training_curves(found: Mapping[str, Any], panels: Sequence[Panel], columns: int = 3) -> Any:
    """Recorded curves against real images shown, one panel each; every curve has its own line style and label.

    Panels whose positive curves span more than a factor of `LOG_FROM` get a logarithmic axis: small terms stay visible.
    A probability keeps its linear one.
    """
    import matplotlib.pyplot as plt

    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.9 * columns, 2.9 * rows), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    few = max(found["images"], default=0) < 5000
    for axis, (title, names) in zip(axes.flat, panels, strict=False):
        for k, (name, label) in enumerate(names):
            x, y = values(found, name)
            axis.plot(
                x if few else x / 1000, y, STYLES[k % 4], marker=_MARKERS[k % 4], markersize=3,
                markevery=max(1, len(x) // 8), color=PALETTE[k], label=label, linewidth=1.6,
            )  # fmt: skip
        drawn = np.concatenate([values(found, name)[1] for name, _ in names] or [np.zeros(0)])
        chance = all(name.startswith("ada_p") for name, _ in names)
        if len(drawn) and drawn.min() > 0 and drawn.max() > LOG_FROM * drawn.min() and not chance:
            axis.set_yscale("log")
        axis.set_title(title, fontsize=11)
        axis.set_xlabel("real images shown" + ("" if few else " (thousands)"))
        axis.grid(alpha=0.3)
        if len(names) == 1:  # one curve needs no legend
            axis.set_ylabel("" if names[0][1] == title else names[0][1])
        elif any(len(values(found, n)[0]) for n, _ in names):
            axis.legend(fontsize=9)
    return figure


def measured(found: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[Panel, ...]] | None:
    """Distances that a run measured to its own pictures now and then, for `training_curves`; None if it did not."""
    metrics = found.get("metrics")
    if not metrics:
        return None
    names = sorted(metrics["series"])
    return dict(metrics), (("distance to real pictures", tuple((n, n.replace("_", " ")) for n in names)),)


def live_record(history: Mapping[str, Sequence[float | None]]) -> dict[str, Any]:
    """What `workbench.run_steps` returns, in the shape that `training_curves` draws."""
    return {"images": history["images"], "series": {k: list(v) for k, v in history.items() if k != "images"}}


def early_and_late(found: Mapping[str, Any], name: str, share: float = 0.15) -> tuple[float, float]:
    """Mean of a curve over its first and over its last `share` of spans."""
    _, y = values(found, name)
    count = max(1, int(len(y) * share))
    return float(y[:count].mean()), float(y[-count:].mean())


def progress_picture(found: Mapping[str, Any], size: float = 1.15) -> Any:
    """Samples of a recorded run over time, from the front and from behind; None if no grids were kept."""
    import matplotlib.pyplot as plt

    about = found.get("pictures", {}).get("progress")
    path = RESULTS / about["file"] if about else None
    if path is None or not path.is_file():
        return None
    with Image.open(path) as opened:
        sheet = np.asarray(opened.convert("RGB"))
    rows, samples = len(about["images"]), about["samples"]
    side = sheet.shape[0] // rows
    figure, axes = plt.subplots(
        rows, 2, figsize=(size * 2 * samples + 0.8, size * rows + 0.3), squeeze=False, layout="constrained"
    )
    for row, images in enumerate(about["images"]):
        for half, title in enumerate(("from the front", "the same, from behind")):
            axis = axes[row, half]
            across = slice(half * samples * side, (half + 1) * samples * side)
            axis.imshow(sheet[row * side : (row + 1) * side, across], interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            if row == 0:
                axis.set_title(title, fontsize=11)
        axes[row, 0].set_ylabel(f"{images / 1000:,.0f} k\nimages", fontsize=9)
    return figure


def last_cells(found: Mapping[str, Any]) -> Tensor | None:
    """The last sample grid of a recorded run as [samples, yaws, 3, side, side] in [-1, 1]; None if none was kept."""
    about = found.get("pictures", {}).get("last")
    path = RESULTS / about["file"] if about else None
    if path is None or not path.is_file():
        return None
    with Image.open(path) as opened:
        sheet = torch.from_numpy(np.array(opened.convert("RGB")))
    side = sheet.shape[1] // len(about["yaws"])
    cells = sheet.reshape(-1, side, len(about["yaws"]), side, 3).permute(0, 2, 4, 1, 3)
    return from_uint8(cells)


def last_picture(found: Mapping[str, Any], size: float = 1.4, samples: int = 3) -> Any:
    """The last sample grid of a recorded run, a sample a row, a yaw a column; None if none was kept."""
    cells = last_cells(found)
    if cells is None:
        return None
    cells, yaws = cells[:samples], found["pictures"]["last"]["yaws"]
    return view_grid(
        list(cells), [f"sample {k}" for k in range(len(cells))], [f"{y:.0f}°" for y in yaws], size
    )


# -- pictures ------------------------------------------------------------------------------------------------------


def view_grid(
    rows: Sequence[Tensor], row_names: Sequence[str], column_names: Sequence[str], size: float = 1.3
) -> Any:
    """Pictures with a name beside each row and above each column; rows are [V, 3, H, W] in [-1, 1].

    Args:
        size: of a picture, inches; it is stored with 100 pixels an inch, and with 112 at least.
    """
    import matplotlib.pyplot as plt

    columns, side = len(column_names), max(112, round(100 * size))
    figure, axes = plt.subplots(
        len(rows),
        columns,
        figsize=(size * columns + 0.9, size * len(rows) + 0.3),
        squeeze=False,
        layout="constrained",
    )
    for r, pictures in enumerate(rows):
        for c in range(columns):
            axis = axes[r, c]
            axis.set(xticks=[], yticks=[])
            for spine in axis.spines.values():
                spine.set_visible(False)
            axis.imshow(to_pixels(_at_most(pictures[c], side)), interpolation="nearest")
            if r == 0:
                axis.set_title(column_names[c], fontsize=10)
        axes[r, 0].set_ylabel(row_names[r], fontsize=10)
    return figure


def alike_figure(
    crowd: Mapping[str, Tensor], faces: Mapping[str, Tensor], count: int = 3, size: float = 1.6
) -> Any:
    """The pairs of samples that an identity encoder takes most for one person; a row of pairs for each generator.

    Args:
        crowd: generator -> pictures [N, 3, H, W] in [-1, 1].
        faces: generator -> their embeddings [N, d].
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        len(crowd),
        3 * count - 1,  # a pair, a gap, a pair, ...
        figsize=((2 * count + 0.2 * (count - 1)) * size, (size + 0.35) * len(crowd)),
        squeeze=False,
        gridspec_kw={"width_ratios": ([1, 1, 0.2] * count)[:-1], "wspace": 0.02, "hspace": 0.35},
    )
    for axis in axes.flat:
        axis.axis("off")
    for row, (name, pictures) in zip(axes, crowd.items(), strict=True):
        for k, (i, j, cosine) in enumerate(most_alike(faces[name], count)):
            for axis, sample in zip(row[3 * k :], (i, j), strict=False):
                axis.imshow(to_pixels(_at_most(pictures[sample], 112)), interpolation="nearest")
                axis.set_title(f"{name} {sample + 1}", fontsize=10)
            row[3 * k].text(
                1.01, -0.02, f"cosine {cosine:.2f}", transform=row[3 * k].transAxes, ha="center", va="top"
            )
    return figure


def _at_most(picture: Tensor, side: int) -> Tensor:
    """Shrinks a picture [3, H, W] to at most `side` pixels, so that stored notebooks stay small."""
    if picture.shape[-1] <= side:
        return picture
    small = F.interpolate(picture[None].float(), size=(side, side), mode="bilinear", antialias=True)
    return small[0]


def loss_shapes() -> Any:
    """The generator's loss and its slope against D's logit: saturating and not."""
    import matplotlib.pyplot as plt

    x = torch.linspace(-6, 6, 121, requires_grad=True)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for k, (name, loss) in enumerate(
        (("saturating: −softplus(D)", -F.softplus(x)), ("ours: softplus(−D)", F.softplus(-x)))
    ):
        (slope,) = torch.autograd.grad(loss.sum(), x)
        style = dict(color=PALETTE[k], linestyle=STYLES[k], linewidth=2, label=name)
        axes[0].plot(x.detach().numpy(), loss.detach().numpy(), **style)
        axes[1].plot(x.detach().numpy(), slope.numpy(), **style)
    for axis, title in zip(axes, ("loss of G", "slope: what G learns from"), strict=True):
        axis.set(xlabel="logit D(I) of a generated picture  (low: D is sure it is false)", title=title)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=9)  # in the right panel it would lie over the curves
    return figure


def memory_curves(runs: Mapping[str, Mapping[str, Sequence[float]]]) -> Any:
    """Mean logits of shown, held-out and fake pictures against steps, one panel a run of `workbench.memorise`."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, len(runs), figsize=(3.7 * len(runs), 3.1), sharey=True, squeeze=False, layout="constrained"
    )
    names = (("shown", "real, shown"), ("held out", "real, held out"), ("fake", "called fake"))
    for axis, (title, run) in zip(axes[0], runs.items(), strict=True):
        for k, (name, label) in enumerate(names):
            axis.plot(
                run["steps"],
                run[name],
                STYLES[k],
                marker=_MARKERS[k],
                markersize=4,
                color=PALETTE[k],
                label=label,
            )
        axis.axhline(0, color="#888888", linewidth=0.8)
        axis.set(title=title, xlabel="step of D")
        axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("mean logit (high: D says real)")
    axes[0, 0].legend(fontsize=9)
    return figure


def gradient_bars(weights: Mapping[str, Tensor]) -> Any:
    """Mean absolute gradient that reaches each of the student's planes, one group of bars for each loss term.

    Args:
        weights: term -> [3], for F_xy, F_xz, F_yz.
    """
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7.5, 3.1), layout="constrained")
    planes, hatches = ("F_xy", "F_xz", "F_yz"), ("", "//", "..")
    for k, plane in enumerate(planes):
        x = np.arange(len(weights)) + 0.26 * (k - 1)
        share = [float(v[k] / v.sum().clamp_min(1e-30)) for v in weights.values()]
        axis.bar(x, share, 0.24, color=PALETTE[k], hatch=hatches[k], edgecolor="white", label=plane)
    axis.set_xticks(range(len(weights)), list(weights))
    axis.set(ylabel="share of the gradient", ylim=(0, 1.05))
    axis.legend(ncols=3, fontsize=9)
    return figure


# -- tables and diagrams -------------------------------------------------------------------------------------------


def recipe_table(stages: Sequence[str], preset: str = "classroom") -> list[str]:
    """The numbers of section 4.1 as lines of text, one column a stage; read from the recipes themselves."""

    def row(name: str, show: Any) -> str:
        return f"{name:28s}" + "".join(f"{show(recipe(s, preset))!s:>22s}" for s in stages)

    def each(how: Recipe, field: str) -> str:
        return ", ".join(f"{d.name} {getattr(d, field):g}" for d in how.domains)

    def weights(how: Recipe) -> str:
        w: LossWeights = how.losses
        return f"{w.kd:g} {w.map:g} {w.rgb:g} {w.lpips:g}" if w.any else "-"

    return [
        f"{'':28s}" + "".join(f"{s:>22s}" for s in stages),
        row("starts from", lambda r: r.start),
        row("real pictures of D", lambda r: ", ".join("+".join(d.sources) for d in r.domains)),
        row("real images shown", lambda r: f"{r.images:,}"),
        row("batch", lambda r: r.batch),
        row("rates of G, D", lambda r: f"{r.lr_g:g}, {r.lr_d:g}"),
        row("R1 weight γ", lambda r: each(r, "gamma")),
        row("weight of L_gan", lambda r: each(r, "weight")),
        row("λ kd, map, rgb, lpips", weights),
        row("augmentation's target", lambda r: r.ada_target or "-"),
        row("mapping camera", lambda r: "face set" if r.mapping_camera == "faces" else "rendering, swapped"),
    ]


def _plane_stack(axis: Any, x: float, y: float, highlighted: bool, colour: str) -> None:
    from matplotlib.patches import Rectangle

    for k, name in enumerate(("F_yz", "F_xz", "F_xy")):
        left, low = x - 0.45 + 0.24 * (2 - k), y - 0.4 - 0.27 * (k - 1)
        front = name == "F_xy"
        axis.add_patch(
            Rectangle(
                (left, low), 0.95, 0.62, facecolor="#DDF3EA" if front and highlighted else "white",
                edgecolor=PALETTE[2] if front and highlighted else colour,
                linewidth=2.2 if front else 1.2, zorder=3 + k,
            )
        )  # fmt: skip
        axis.text(
            left + 0.08, low + 0.47, name, fontsize=8, zorder=3.5 + k, color="#111111", ha="left", va="center"
        )


def distillation_diagram() -> Any:
    """Fig. 4 of the paper, redrawn: what teacher and student share, and where each loss of Eq. 10 acts."""
    figure, axis = _canvas(14.4, 6.6, (12, 5.6))
    blue, red, green, violet = PALETTE[0], PALETTE[1], PALETTE[2], PALETTE[3]
    top, low = 5.2, 1.9
    _box(axis, 0.95, 3.55, "z ~ N(0, 1)", "#555555", width=1.4, height=0.6)
    _box(axis, 0.95, 2.5, "mapping\ncamera p\n(face set)", "#555555", width=1.4, height=1.0)
    for y, colour, who in ((top, blue, "G_t, frozen"), (low, red, "G_s, learns")):
        _box(axis, 3.15, y, "mapping M", colour, width=1.35, height=0.6)
        _box(axis, 5.1, y, "synthesis", colour, width=1.25, height=0.6)
        _plane_stack(axis, 6.9, y, True, colour)
        _box(axis, 9.2, y, "render +\nsuper-resolve", colour, width=1.5)
        _arrow(axis, (1.75, 3.1), (2.4, y), colour="#555555")
        _arrow(axis, (3.9, y), (4.4, y), "w")
        _arrow(axis, (5.8, y), (6.3, y))
        _arrow(axis, (7.75, y), (8.38, y))
        _arrow(axis, (10.0, y), (10.45, y))
        axis.text(
            4.1,
            y + (0.55 if y == top else -0.75),
            who,
            ha="center",
            fontsize=11,
            color=colour,
            fontweight="bold",
        )
    _box(axis, 11.2, top, "I, I_raw\n(faces)", blue, width=1.3)
    _box(axis, 11.2, low, "I, I_raw\n(heads)", red, width=1.3)
    for x, text in (
        (4.1, "L_map (Eq. 7)\n|w_t − w_s|"),
        (6.9, "L_kd (Eq. 5)\nF_xy only"),
        (11.2, "L_rgb (8), L_lpips (9)\nwhere |yaw| ≤ 45°"),
    ):
        arrow = dict(arrowstyle="<|-|>", color=green, linewidth=2, linestyle="--")
        axis.annotate("", xy=(x, low + 0.65), xytext=(x, top - 0.65), arrowprops=arrow)
        axis.text(x + 0.1, 3.55, text, ha="left", va="center", fontsize=10, color="#00694D")
    _box(axis, 13.5, 2.6, "D_front\nreal: faces", violet, width=1.4, height=0.75)
    _box(axis, 13.5, 1.1, "D_back\nreal: backs\nof heads", violet, width=1.4, height=0.95)
    _arrow(axis, (11.95, 2.05), (12.7, 2.5), colour=violet)
    _arrow(axis, (11.95, 1.75), (12.7, 1.25), colour=violet)
    axis.text(12.9, 0.2, "L_gan (Eq. 6), in turns", ha="center", fontsize=10, color="#8A4A70")
    axis.text(
        9.2, 0.6, "camera of the picture:\nface camera or back camera, in turns", ha="center", fontsize=9
    )
    _arrow(axis, (9.2, 1.0), (9.2, 1.42), colour="#555555")
    return figure
