"""Notebook 09: two discriminators."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from head3d_core.training import losses
from head3d_course.exercises import Exercise, choice, random


def _back_share(faces: int, backs: int, share: float, weight: float, together: bool) -> float:
    """Back views' share in what moves the generator."""
    if together:
        return backs / (faces + backs)
    return share * weight / (share * weight + (1 - share))


back_influence = Exercise(
    truth=_back_share,
    cases=[
        (20000, 2400, 0.5, 10.0, True),
        (20000, 2400, 0.5, 10.0, False),
        (1000, 1000, 0.25, 1.0, False),
        (300, 100, 0.5, 1.0, True),
    ],
    mistakes={
        "with two discriminators the sizes of the sets do not count": lambda f, b, s, w, one: b / (f + b),
        "the weight λ of D_back is missing": lambda f, b, s, w, one: b / (f + b) if one else s,
        "the alternation is missing": lambda f, b, s, w, one: b / (f + b) if one else w / (w + 1),
        "divide by all images": lambda f, b, s, w, one: b / f if one else _back_share(f, b, s, w, one),
    },
    tolerance=1e-6,
)


def _d_loss(real: Tensor, fake: Tensor, gradient_norm: Tensor, gamma: float) -> Tensor:
    """Eq. 6 for one discriminator, D high for real, as a loss to minimise."""
    return losses.discriminator_loss(real, fake) + gamma / 2 * gradient_norm.square().mean()


discriminator_loss = Exercise(
    truth=_d_loss,
    cases=[
        (random(18, 4, 1) + 1, random(19, 4, 1) - 1, random(20, 4).abs(), 20.0),
        (torch.zeros(2, 1), torch.zeros(2, 1), torch.ones(2), 1.0),
    ],
    mistakes={
        "real and fake are exchanged: D is high for real images": lambda r, f, *a: _d_loss(f, r, *a),
        "this is Eq. 6 letter by letter, which D would have to maximise": lambda r, f, g, gamma: (
            -F.softplus(-f).mean() - F.softplus(r).mean() + gamma * g.square().mean()
        ),
        "the penalty has the wrong sign: D would be rewarded for steep slopes": lambda r, f, g, w: _d_loss(
            r, f, g, -w
        ),
        "half of gamma is missing: the code adds γ/2 ‖∇D‖²": lambda r, f, g, w: _d_loss(r, f, g, 2 * w),
    },
)

control = choice("09.control")
