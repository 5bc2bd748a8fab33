"""Exercises of notebook 13: a straight line in w, truncation, mixed layers."""

from __future__ import annotations

import torch
from torch import Tensor

from head3d_core.course.exercises import Exercise, Mistake

_DRAW = torch.Generator().manual_seed(7)


def _code(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=_DRAW)


def _truncate(w: Tensor, average: Tensor, psi: float) -> Tensor:
    return average + psi * (w - average)


truncate = Exercise(
    truth=_truncate,
    cases=[(_code(5), _code(5), 0.7), (_code(3), _code(3), 0.0), (_code(4), _code(4), 1.0)],
    mistakes=[
        Mistake(
            lambda w, a, p: p * w,
            "that pulls towards zero; truncation pulls towards the average w, which is not zero",
        ),
        Mistake(lambda w, a, p: w + p * (a - w), "psi is reversed: 1 leaves w alone, 0 gives the average"),
        Mistake(
            lambda w, a, p: torch.clamp(w, -p, p),
            "w is not cut off: the whole of it is moved towards the average",
        ),
    ],
)


def _mix(ws_a: Tensor, ws_b: Tensor, first: int) -> Tensor:
    return torch.cat([ws_a[:, :first], ws_b[:, first:]], 1)


mix = Exercise(
    truth=_mix,
    cases=[(_code(1, 6, 2), _code(1, 6, 2), 2), (_code(2, 4, 3), _code(2, 4, 3), 3)],
    mistakes=[
        Mistake(
            lambda a, b, f: _mix(b, a, f), "A and B are exchanged: the coarse layers, below `first`, stay A's"
        ),
        Mistake(
            lambda a, b, f: torch.cat([a[..., :f], b[..., f:]], -1),
            "that splits the numbers of each code; layers are the second axis of ws",
        ),
        Mistake(
            lambda a, b, f: (a + b) / 2,
            "that is the middle of a line: every layer changes, none is exchanged",
        ),
    ],
)


def _bend(distance: Tensor) -> float:
    t = torch.linspace(0, 1, len(distance))
    return float((distance / distance[-1] - t).abs().max())


bend = Exercise(
    truth=_bend,
    cases=[
        (torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4]),),
        (torch.tensor([0.0, 0.02, 0.3, 0.5, 0.6]),),
        (torch.tensor([0.0, 0.5, 0.7]),),
    ],
    mistakes=[
        Mistake(
            lambda d: float((d - torch.linspace(0, 1, len(d))).abs().max()),
            "divide by the distance at the end first: the line to compare with ends at 1",
        ),
        Mistake(
            lambda d: float((d / d[-1] - torch.linspace(0, 1, len(d))).abs().mean()),
            "that is the mean deviation; the bend is the largest one",
        ),
        Mistake(
            lambda d: float((d / d[-1] - torch.linspace(0, 1, len(d))).max()),
            "a path may run below the line too: take the absolute value",
        ),
    ],
)
