"""Diagrams that explain the paper and the course: boxes and arrows in matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from head3d_core.course.figures import PALETTE
from head3d_core.experiments.plane_swap import picture
from head3d_core.model.cameras import orbit
from head3d_core.model.generator import Generator
from head3d_core.model.seeds import heads_of_seeds


def _box(
    axis: Any, x: float, y: float, text: str, colour: str, width: float = 1.7, height: float = 0.8
) -> None:
    from matplotlib.patches import FancyBboxPatch

    axis.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2), width, height, boxstyle="round,pad=0.05", facecolor="white",
            edgecolor=colour, linewidth=2,
        )
    )  # fmt: skip
    axis.text(x, y, text, ha="center", va="center", fontsize=10)


def _arrow(
    axis: Any, start: tuple[float, float], end: tuple[float, float], text: str = "", colour: str = "#333333"
) -> None:
    axis.annotate("", xy=end, xytext=start, arrowprops=dict(arrowstyle="-|>", color=colour, linewidth=1.5))
    if text:
        axis.text(
            (start[0] + end[0]) / 2,
            (start[1] + end[1]) / 2 + 0.12,
            text,
            ha="center",
            va="bottom",
            fontsize=10,
            color=colour,
        )


def _canvas(width: float, height: float, size: tuple[float, float]) -> tuple[Any, Any]:
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=size)
    axis.set(xlim=(0, width), ylim=(0, height))
    axis.axis("off")
    return figure, axis


@torch.no_grad()
def turned(nets: Mapping[str, Generator], seed: int, yaws: Sequence[float]) -> dict[str, Tensor]:
    """One random code in several generators: by name, pictures [len(yaws), 3, R, R] from these yaws (degrees)."""
    cameras = orbit(torch.deg2rad(torch.tensor(yaws, dtype=torch.float32)))
    found = {}
    for name, net in nets.items():
        head = heads_of_seeds(net, [seed])
        found[name] = torch.cat([picture(net, head.planes, head.ws, camera[None]) for camera in cameras])
    return found


def method_diagram() -> Any:
    """The method of Head3D: teacher and student, one exchanged plane, two discriminators."""
    figure, axis = _canvas(13.2, 5.6, (12, 5.0))
    blue, red, green, violet = PALETTE[0], PALETTE[1], PALETTE[2], PALETTE[3]
    _box(axis, 1.2, 3.1, "z ~ N(0, 1)\nmapping camera p", "#555555", width=2.1)
    _box(axis, 3.8, 4.8, "teacher G_t\n(frozen, faces)", blue)
    _box(axis, 3.8, 1.4, "student G_s\n(learns, heads)", red)
    for y, colour, names in ((4.8, blue, "F_xy  F_xz  F_yz"), (1.4, red, "F_xy  F_xz  F_yz")):
        _box(axis, 6.7, y, names, colour, width=2.1)
        _arrow(axis, (4.7, y), (5.6, y), "planes")
        _arrow(axis, (7.8, y), (8.9, y), "render")
    _arrow(axis, (1.6, 3.55), (2.9, 4.6))
    _arrow(axis, (1.6, 2.65), (2.9, 1.6))
    _box(axis, 9.9, 4.8, "face, front view", blue, width=1.9)
    _box(axis, 9.9, 1.4, "head, any view", red, width=1.9)
    axis.annotate(
        "",
        xy=(6.1, 1.85),
        xytext=(6.1, 4.35),
        arrowprops=dict(arrowstyle="<|-|>", color=green, linewidth=2, linestyle="--"),
    )
    axis.text(6.0, 3.1, "L_kd\nF_xy only", ha="right", va="center", fontsize=10, color=green)
    axis.annotate(
        "",
        xy=(3.8, 1.85),
        xytext=(3.8, 4.35),
        arrowprops=dict(arrowstyle="<|-|>", color=green, linewidth=2, linestyle="--"),
    )
    axis.text(3.7, 3.1, "L_map\nw", ha="right", va="center", fontsize=10, color=green)
    axis.annotate(
        "",
        xy=(9.9, 1.85),
        xytext=(9.9, 4.35),
        arrowprops=dict(arrowstyle="<|-|>", color=green, linewidth=2, linestyle="--"),
    )
    axis.text(
        9.8, 3.1, "L_rgb, L_lpips\nwhere |yaw| ≤ 45°", ha="right", va="center", fontsize=10, color=green
    )
    _box(axis, 12.2, 2.6, "D_front\n(faces)", violet, width=1.5)
    _box(axis, 12.2, 0.7, "D_back\n(50 heads)", violet, width=1.5)
    _arrow(axis, (10.9, 1.6), (11.4, 2.3), colour=violet)
    _arrow(axis, (10.9, 1.2), (11.4, 0.9), colour=violet)
    axis.text(11.0, 0.25, "alternating", ha="right", va="center", fontsize=10, color=violet)
    return figure


COURSE: tuple[tuple[str, str], ...] = (
    ("00", "start here"),
    ("01", "cameras\nand rays"),
    ("02", "three planes,\none volume"),
    ("03", "the same\nthing, fast"),
    ("04", "faces\nand heads"),
    ("05", "a face\ngenerator"),
    ("06", "plane-swap\nlab"),
    ("07", "fine-tuning"),
    ("08", "feature\ndistillation"),
    ("09", "two dis-\ncriminators"),
    ("10", "how good\nis it?"),
    ("11", "what each\npart buys"),
    ("12", "geometry\nyou can hold"),
    ("13", "walking the\nlatent space"),
)
"""Numbers and short titles of the course's notebooks, in reading order."""


def course_map(available: set[str]) -> Any:
    """The course as a path of boxes; those whose number is in `available` are solid, the others dashed."""
    from matplotlib.patches import FancyBboxPatch

    figure, axis = _canvas(14.6, 4.4, (12, 3.6))
    for k, (number, title) in enumerate(COURSE):
        row, column = divmod(k, 7)
        x, y = 1.1 + 2.05 * column, 3.2 - 2.1 * row
        there = number in available
        axis.add_patch(
            FancyBboxPatch(
                (x - 0.8, y - 0.6), 1.6, 1.2, boxstyle="round,pad=0.05", facecolor="#E8F1FA" if there else "white",
                edgecolor=PALETTE[0] if there else "#888888", linewidth=2, linestyle="-" if there else "--",
            )
        )  # fmt: skip
        axis.text(x, y + 0.32, number, ha="center", va="center", fontsize=12, fontweight="bold")
        axis.text(x, y - 0.2, title, ha="center", va="center", fontsize=10)
        if column < 6 and k + 1 < len(COURSE):
            _arrow(axis, (x + 0.86, y), (x + 1.2, y))
    axis.plot([13.4, 13.4, 1.1, 1.1], [2.54, 2.16, 2.16, 2.0], color="#333333", linewidth=1.5)
    _arrow(axis, (1.1, 2.1), (1.1, 1.75))
    if not available >= {number for number, _ in COURSE}:
        axis.text(0.1, 0.05, "solid: in this release     dashed: to come", fontsize=10, color="#333333")
    return figure
