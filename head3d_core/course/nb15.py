"""Notebook 15: parametric heads side by side (Fig. 7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from head3d_core.course import figures
from head3d_core.course.exercises import Choice
from head3d_core.utils.images import from_pixels


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


limit = Choice(
    right="D",
    replies={
        "A": "the second face stops those rays too: the teacher has 100 %",
        "B": "the teacher's fronts are its best side: 100 %",
        "C": "the teacher is its own student: 1.0, and every distilled row passes as well",
        "D": "the only one of the four that the teacher fails, and yet it misses faces that no detector sees",
    },
)
use = Choice(
    right="C",
    replies={
        "A": "a decision at a limit that strangers set: the two encoders agree on most of these",
        "B": "near-duplicates lie far above strangers: that is a decision too",
        "C": "among strangers the order of cosines is not shared by an encoder that saw other people",
        "D": "AUC compares same with different pairs, and both encoders have it near 1",
    },
)
