"""Notebook 00: one code turned in two generators; the method and the course as diagrams."""

from __future__ import annotations

import re
import textwrap
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


Course = dict[str, tuple[str, list[str]]]
"""Number of a notebook -> its short title, and the notebooks that it needs."""


def syllabus(text: str) -> Course:
    """The notebooks of a syllabus page: rows `| 02 | [Title](file.ipynb) | question | 00, 01 | ...` of its table."""
    rows = re.findall(r"^\| (\d\d[ab]?) \| \[([^]]+)\]\([^)]*\) \| [^|]* \| ([^|]*) \|", text, re.MULTILINE)
    return {number: (title, re.findall(r"\d\d[ab]?", needs)) for number, title, needs in rows}


def course_map(course: Course) -> Any:
    """The notebooks as a graph of prerequisites, from top to bottom."""
    depth: dict[str, int] = {}
    for number, (_, needs) in course.items():
        depth[number] = 1 + max((depth[n] for n in needs), default=-1)
    levels = [[n for n in course if depth[n] == d] for d in range(1 + max(depth.values()))]
    width, height = 2.6 * max(map(len, levels)), 1.1 * len(levels)
    figure, axis = canvas(width, height, (width, 0.8 * height))
    place = {
        number: (width / 2 + 2.6 * (k - (len(level) - 1) / 2), height - 0.55 - 1.1 * row)
        for row, level in enumerate(levels)
        for k, number in enumerate(level)
    }
    for number, (title, needs) in course.items():
        x, y = place[number]
        text = textwrap.fill(f"{number}  {title}", 23)
        box(axis, x, y, text, PALETTE[0], 2.25, 0.5, facecolor="#E8F1FA")
        for other in needs:
            arrow(axis, (place[other][0], place[other][1] - 0.31), (x, y + 0.3))
    return figure
