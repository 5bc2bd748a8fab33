"""Notebook 05a: what a face generator is made of, and why its planes confuse front and back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from head3d_core.model import stylegan2
from head3d_course.exercises import Exercise, choice, random
from head3d_course.figures import PALETTE, arrow, canvas


def same_texel() -> Any:
    """A head from the side: a point of the face and one of the back project to one texel of F_xy."""
    from matplotlib.patches import Ellipse

    figure, axis = canvas(10, 4, (7.5, 3.0))
    axis.add_patch(Ellipse((4.6, 2), 4.2, 3.4, facecolor="0.92", edgecolor="0.4"))
    axis.plot([8.6, 8.6], [0.2, 3.8], color=PALETTE[0], linewidth=4)
    axis.text(8.8, 3.5, "F_xy", color=PALETTE[0], fontsize=12)
    for x, name in ((6.5, "(x, y, z)"), (2.7, "(x, y, −z)")):
        axis.plot(x, 2.4, "o", color=PALETTE[1], markersize=8)
        axis.text(x, 1.9, name, ha="center", va="top", fontsize=11)
    arrow(axis, (2.7, 2.4), (8.5, 2.4))
    axis.plot(8.6, 2.4, "s", color=PALETTE[1], markersize=10)
    axis.text(8.8, 2.3, "one texel", fontsize=11)
    axis.text(1.6, 0.2, "back", fontsize=11)
    axis.text(6.9, 0.2, "face", fontsize=11)
    return figure


# --- exercises --------------------------------------------------------------------------------------------------------


def _energy(weight: Tensor, style: Tensor) -> Tensor:
    return (weight * style[:, None, None]).square().sum([1, 2, 3])


demodulation = Exercise(
    truth=lambda weight, style: stylegan2.demodulation(weight, style[None], torch.float32)[2][0],
    cases=[
        (random(0, 4, 3, 3, 3), random(1, 3)),
        (random(2, 2, 5, 1, 1), 3 * random(3, 5)),
        (torch.ones(1, 2, 3, 3), torch.tensor([1.0, 0.0])),
    ],
    mistakes={
        "the style is missing in the sum": lambda w, s: (w.square().sum([1, 2, 3]) + 1e-8).rsqrt(),
        "d is one over the square *root* of the sum of squares": lambda w, s: 1 / (_energy(w, s) + 1e-8),
        "that is the size of the output: d divides by it": lambda w, s: (_energy(w, s) + 1e-8).sqrt(),
        "sum over channels and taps, not a mean": lambda w, s: (_energy(w, s) / w[0].numel() + 1e-8).rsqrt(),
        "the style belongs inside the square: (s w)^2, not s w^2": lambda w, s: (
            (w.square() * s[:, None, None]).sum([1, 2, 3]).abs() + 1e-8
        ).rsqrt(),
    },
)

without_demodulation = choice("05a.without_demodulation")


back_view = Exercise(
    truth=lambda front: front.flip(-1),
    cases=[(random(8, 3, 4, 6),), (random(9, 3, 5, 5),)],
    mistakes={
        "the camera behind has its right side at -x: columns change places": lambda front: front,
        "the rows stay: up is up for both cameras": lambda front: front.flip(-2),
        "turning around the vertical axis flips columns, not rows": lambda front: front.flip(-1, -2),
    },
)
