"""Notebook 15: parametric heads side by side (Fig. 7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from head3d_core.utils.images import from_pixels
from head3d_course import figures
from head3d_course.exercises import choice


def heads_figure(shown: Mapping[str, NDArray[np.uint8]]) -> Any:
    """Fig. 7: a line a model, its heads [N, 3, R, R, 3] (`experiments.parametric.figure7`) from three sides."""
    heads = max(len(pictures) for pictures in shown.values())
    lines = []
    for pictures in shown.values():
        x = from_pixels(pictures).flatten(0, 1)
        lines.append([*x, *torch.ones(3 * heads - len(x), *x.shape[1:])])  # a reader may have fewer heads
    columns = [f"head {k + 1}\n{view}" for k in range(heads) for view in ("front", "side", "behind")]
    rows = [name.replace(" (", "\n(").replace(", as", ",\nas") for name in shown]
    return figures.image_grid(lines, columns, size=1.3, rows=rows)


limit = choice("15.limit")
use = choice("15.use")
