"""Gradient descent with a progress bar's callback and a loss that must stay finite: what every fit here runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from head3d_core.utils.errors import Head3DError
from head3d_core.utils.progress import Progress


def half_cosine(done: float) -> float:
    """From 1 at the start (done = 0) to 0 at the end (done = 1), slowly at both."""
    return 0.5 * (1 + math.cos(math.pi * done))


def descend(
    groups: list[dict[str, Any]],
    loss: Callable[[int], tuple[Tensor, Tensor]],
    steps: int,
    betas: tuple[float, float] = (0.9, 0.999),
    rate: Callable[[float], float] = half_cosine,
    progress: Progress | None = None,
) -> list[float]:
    """Adam with learning rates that fall.

    Args:
        groups: of parameters, with their largest learning rates.
        loss: step -> what is minimised, and what is reported of it.
        rate: share of the steps that is done -> factor on the learning rates.
        progress: called with (done, total) steps.

    Returns:
        The reported loss of every step.

    Raises:
        Head3DError: a loss that is not finite.
    """
    optimiser = torch.optim.Adam(groups, betas=betas)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate(step / steps))
    losses = []
    for step in range(steps):
        objective, reported = loss(step)
        optimiser.zero_grad()
        objective.backward()
        optimiser.step()
        schedule.step()
        losses.append(float(reported.detach()))
        if not math.isfinite(losses[-1]):
            raise Head3DError(f"the loss is {losses[-1]} at step {step + 1}: lower the learning rate")
        if progress:
            progress(step + 1, steps)
    return losses
