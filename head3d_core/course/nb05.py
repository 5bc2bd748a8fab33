"""Notebook 05: a face generator and the game that it learns from."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from head3d_core.course import figures
from head3d_core.course.exercises import Exercise, random, wrong
from head3d_core.course.figures import PALETTE, STYLES
from head3d_core.model import stylegan2
from head3d_core.training import losses


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


def _demodulation(weight: Tensor, style: Tensor) -> Tensor:
    """d [O] of one sample: weight [O, I, k, k], style [I]."""
    return stylegan2.demodulation(weight, style[None], torch.float32)[2][0]


def _energy(weight: Tensor, style: Tensor) -> Tensor:
    return (weight * style[:, None, None]).square().sum([1, 2, 3])


demodulation = Exercise(
    truth=_demodulation,
    cases=[
        (random(0, 4, 3, 3, 3), random(1, 3)),
        (random(2, 2, 5, 1, 1), 3 * random(3, 5)),
        (torch.ones(1, 2, 3, 3), torch.tensor([1.0, 0.0])),
    ],
    mistakes=wrong(
        "the style is missing: scale the weight by s first, or the output grows with the style",
        lambda w, s: (w.square().sum([1, 2, 3]) + 1e-8).rsqrt(),
        "a standard deviation is a root: d is one over the square root of the sum of squares",
        lambda w, s: 1 / (_energy(w, s) + 1e-8),
        "that is the size of the output: d divides by it",
        lambda w, s: (_energy(w, s) + 1e-8).sqrt(),
        "sum over input channels and taps, not their mean: unit variance comes in at every one of them",
        lambda w, s: (_energy(w, s) / w[0].numel() + 1e-8).rsqrt(),
        "the style belongs inside the square: (s w)^2, not s w^2",
        lambda w, s: ((w.square() * s[:, None, None]).sum([1, 2, 3]).abs() + 1e-8).rsqrt(),
    ),
)


_LOGITS = torch.tensor([[-4.0], [-0.5], [0.0], [3.0]])


generator_loss = Exercise(
    truth=losses.generator_loss,
    cases=[(_LOGITS,), (_LOGITS - 3,), (torch.zeros(2, 1),)],
    mistakes=wrong(
        "this is the saturating form: its slope vanishes exactly where D is sure that the picture is false",
        lambda d: -F.softplus(d).mean(),
        "the sign of the logit is wrong: this trains G to look false, as D's own loss does",
        lambda d: F.softplus(d).mean(),
        "that is the Wasserstein loss: here G minimises softplus(-D)",
        lambda d: -d.mean(),
        "take the mean: a sum makes the step depend on the batch size",
        lambda d: F.softplus(-d).sum(),
    ),
)


def _r1(gradient_image: Tensor, gradient_raw: Tensor, gamma: float) -> Tensor:
    """γ/2 times the batch mean of the squared norm, both inputs together."""
    both = gradient_image.square().sum([1, 2, 3]) + gradient_raw.square().sum([1, 2, 3])
    return gamma / 2 * both.mean()


r1_term = Exercise(
    truth=_r1,
    cases=[
        (random(4, 2, 3, 4, 4), random(5, 2, 3, 2, 2), 1.0),
        (random(6, 4, 3, 2, 2), random(7, 4, 3, 2, 2), 20.0),
    ],
    mistakes=wrong(
        "half of gamma is missing: the code adds γ/2 ‖∇D‖²",
        lambda a, b, g: 2 * _r1(a, b, g),
        "D is given two pictures: the gradient with respect to the raw image counts as well",
        lambda a, b, g: _r1(a, torch.zeros_like(b), g),
        "sum over the pixels of a sample, then take the mean over samples: γ is tuned for sums",
        lambda a, b, g: g / 2 * (a.square().mean() + b.square().mean()),
        "the norm is squared: without the square the penalty has a kink at zero",
        lambda a, b, g: g / 2 * (a.square().sum([1, 2, 3]) + b.square().sum([1, 2, 3])).sqrt().mean(),
    ),
)
