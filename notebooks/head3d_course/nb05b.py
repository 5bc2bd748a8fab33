"""Notebook 05b: the game that a face generator learns from, and what is behind the face."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from head3d_course import figures
from head3d_course.exercises import Exercise, choice, random
from head3d_course.figures import PALETTE, STYLES


def loss_shapes() -> Any:
    """The generator's loss and its slope against D's logit: saturating and not."""
    x = torch.linspace(-6, 6, 121, requires_grad=True)
    figure, axes = figures.panels(9, 3.2, 1, 2)
    shapes = {"saturating: −softplus(D)": -F.softplus(x), "ours: softplus(−D)": F.softplus(-x)}
    for k, (name, loss) in enumerate(shapes.items()):
        (slope,) = torch.autograd.grad(loss.sum(), x)
        for axis, y in zip(axes, (loss, slope), strict=True):
            style = dict(color=PALETTE[k], linestyle=STYLES[k], linewidth=2, label=name)
            axis.plot(x.detach().numpy(), y.detach().numpy(), **style)
    for axis, title in zip(axes, ("loss of G", "slope: what G learns from"), strict=True):
        axis.set(xlabel="logit D(I) of a generated picture  (low: D is sure it is false)", title=title)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=9)  # in the right panel it would lie over the curves
    return figure


# --- exercises --------------------------------------------------------------------------------------------------------


def _squares(image: Tensor, raw: Tensor) -> Tensor:
    return image.square().sum([1, 2, 3]) + raw.square().sum([1, 2, 3])


def _r1(gradient_image: Tensor, gradient_raw: Tensor, gamma: float) -> Tensor:
    return gamma / 2 * _squares(gradient_image, gradient_raw).mean()


r1_term = Exercise(
    truth=_r1,
    cases=[
        (random(4, 2, 3, 4, 4), random(5, 2, 3, 2, 2), 1.0),
        (random(6, 4, 3, 2, 2), random(7, 4, 3, 2, 2), 20.0),
    ],
    mistakes={
        "half of gamma is missing: the code adds γ/2 ‖∇D‖²": lambda a, b, g: 2 * _r1(a, b, g),
        "D is given two images: the raw one counts as well": lambda a, b, g: _r1(a, torch.zeros_like(b), g),
        "sum over pixels, mean over samples": lambda a, b, g: g / 2 * (a.square().mean() + b.square().mean()),
        "the norm is squared: without the square the penalty has a kink at zero": lambda a, b, g: (
            g / 2 * _squares(a, b).sqrt().mean()
        ),
    },
)

read_curves = choice("05b.read_curves")
silent_discriminator = choice("05b.silent_discriminator")
fool_the_score = choice("05b.fool_the_score")
