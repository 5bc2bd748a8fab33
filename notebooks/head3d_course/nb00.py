"""Notebook 00: stored views of one code in two generators; the course as a graph."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from head3d_core.utils import files
from head3d_course.figures import PALETTE, arrow, box, canvas


def stored_turn() -> Callable[[float], NDArray[np.uint8]]:
    """A function yaw (degrees) -> the nearest stored frames of one code, [R, 2 R, 3]: face generator, Head3D."""
    films = []
    for name in ("face", "head3d"):
        with Image.open(files.DATA / "samples" / "turns" / f"{name}.webp") as film:
            films.append([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(film)])
    both = [np.concatenate(pair, 1) for pair in zip(*films, strict=True)]
    return lambda yaw: both[round(yaw * len(both) / 360) % len(both)]


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
