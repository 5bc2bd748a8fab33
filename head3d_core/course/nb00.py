"""Notebook 00: one code turned in two generators; the method and the course as diagrams."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageSequence
from torch import Tensor

from head3d_core.course.figures import PALETTE, arrow, box, canvas, ties
from head3d_core.experiments.plane_swap import picture
from head3d_core.model.cameras import orbit
from head3d_core.model.generator import Generator
from head3d_core.model.seeds import heads_of_seeds
from head3d_core.utils import files


@torch.no_grad()
def turned(nets: Mapping[str, Generator], seed: int, yaws: Sequence[float]) -> dict[str, Tensor]:
    """One random code in several generators: by name, images [len(yaws), 3, R, R] from these yaws (degrees)."""
    cameras = orbit(torch.deg2rad(torch.tensor(yaws, dtype=torch.float32)))
    heads = {name: heads_of_seeds(net, [seed]) for name, net in nets.items()}
    return {
        name: torch.cat([picture(net, heads[name].planes, heads[name].ws, c[None]) for c in cameras])
        for name, net in nets.items()
    }


def stored_turn() -> Callable[[float], NDArray[np.uint8]]:
    """A function yaw (degrees) -> the nearest stored frames of one code, [R, 2 R, 3]: face generator, Head3D."""
    films = []
    for name in ("face", "head3d"):
        with Image.open(files.DATA / "samples" / "turns" / f"{name}.webp") as film:
            films.append([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(film)])
    both = [np.concatenate(pair, 1) for pair in zip(*films, strict=True)]
    return lambda yaw: both[round(yaw * len(both) / 360) % len(both)]


def method_diagram() -> Any:
    """The method of Head3D: teacher and student, one exchanged plane, two discriminators."""
    figure, axis = canvas(13.2, 5.6, (12, 5.0))
    blue, red, green, violet = PALETTE[:4]
    box(axis, 1.2, 3.1, "z ~ N(0, 1)\nmapping camera p", "#555555", width=2.1)
    box(axis, 3.8, 4.8, "teacher G_t\n(frozen, faces)", blue)
    box(axis, 3.8, 1.4, "student G_s\n(learns, heads)", red)
    for y, colour in ((4.8, blue), (1.4, red)):
        box(axis, 6.7, y, "F_xy  F_xz  F_yz", colour, width=2.1)
        arrow(axis, (4.7, y), (5.6, y), "planes")
        arrow(axis, (7.8, y), (8.9, y), "render")
    arrow(axis, (1.6, 3.55), (2.9, 4.6))
    arrow(axis, (1.6, 2.65), (2.9, 1.6))
    box(axis, 9.9, 4.8, "face, front view", blue, width=1.9)
    box(axis, 9.9, 1.4, "head, any view", red, width=1.9)
    for x, text in ((6.1, "L_kd\nF_xy only"), (3.8, "L_map\nw"), (9.9, "L_rgb, L_lpips\nwhere |yaw| ≤ 45°")):
        ties(axis, x, 1.85, 4.35)
        axis.text(x - 0.1, 3.1, text, ha="right", va="center", fontsize=10, color=green)
    box(axis, 12.2, 2.6, "D_front\n(faces)", violet, width=1.5)
    box(axis, 12.2, 0.7, "D_back\n(50 heads)", violet, width=1.5)
    arrow(axis, (10.9, 1.6), (11.4, 2.3), colour=violet)
    arrow(axis, (10.9, 1.2), (11.4, 0.9), colour=violet)
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
    figure, axis = canvas(14.6, 4.4, (12, 3.6))
    for k, (number, title) in enumerate(COURSE):
        row, column = divmod(k, 7)
        x, y = 1.1 + 2.05 * column, 3.2 - 2.1 * row
        there = number in available
        style = {"facecolor": "#E8F1FA" if there else "white", "linestyle": "-" if there else "--"}
        box(axis, x, y, "", PALETTE[0] if there else "#888888", 1.6, 1.2, **style)
        axis.text(x, y + 0.32, number, ha="center", va="center", fontsize=12, fontweight="bold")
        axis.text(x, y - 0.2, title, ha="center", va="center", fontsize=10)
        if column < 6 and k + 1 < len(COURSE):
            arrow(axis, (x + 0.86, y), (x + 1.2, y))
    axis.plot([13.4, 13.4, 1.1, 1.1], [2.54, 2.16, 2.16, 2.0], color="#333333", linewidth=1.5)
    arrow(axis, (1.1, 2.1), (1.1, 1.75))
    if not available >= {number for number, _ in COURSE}:
        axis.text(0.1, 0.05, "solid: in this release     dashed: to come", fontsize=10, color="#333333")
    return figure
