"""Exercises of notebook 06: exchanging a plane, averaging over pairs, and which plane sees what."""

from __future__ import annotations

import torch
from torch import Tensor

from head3d_core.course.exercises import Exercise, Mistake
from head3d_core.model.planes import PROJECTION

Pairs = tuple[tuple[int, int], ...]


def _exchange(planes_1: Tensor, planes_2: Tensor, k: int) -> Tensor:
    mixed = planes_1.clone()
    mixed[:, k] = planes_2[:, k]
    return mixed


def _channel(planes_1: Tensor, planes_2: Tensor, k: int) -> Tensor:
    mixed = planes_1.clone()
    mixed[:, :, k] = planes_2[:, :, k]
    return mixed


_generator = torch.Generator().manual_seed(6)
_some, _others = (torch.randn(2, 3, 4, 5, 5, generator=_generator) for _ in range(2))

exchange_plane = Exercise(
    truth=_exchange,
    cases=[(_some, _others, k) for k in range(3)],
    mistakes=[
        Mistake(
            lambda a, b, k: _exchange(b, a, k),
            "that is ID 2 with one plane of ID 1: start from planes_1 and take plane k of planes_2",
        ),
        Mistake(
            _channel,
            "that exchanges channel k of every plane: planes are [N, 3, C, H, W], the plane comes second",
        ),
        Mistake(
            lambda a, b, k: torch.cat([a[:, :k], b[:, k:]], 1),
            "that takes plane k and all planes after it from ID 2: exchange plane k only",
        ),
        Mistake(
            lambda a, b, k: (_exchange(a, b, k) + a) / 2, "half of plane k is still that of ID 1: replace it"
        ),
    ],
    keeps_inputs=True,
)


def _pair_mean(values: Tensor) -> Tensor:
    count = len(values)
    return (values.sum() - values.diagonal().sum()) / (count * (count - 1))


pair_mean = Exercise(
    truth=_pair_mean,
    cases=[
        (torch.tensor([[1.0, 0.2, 0.4], [0.1, 1.0, 0.3], [0.6, 0.5, 1.0]], dtype=torch.float64),),
        (torch.tensor([[1.0, -0.5], [0.25, 1.0]], dtype=torch.float64),),
        (torch.eye(5, dtype=torch.float64) * 7 + torch.arange(25.0, dtype=torch.float64).reshape(5, 5) / 9,),
    ],
    mistakes=[
        Mistake(
            lambda v: v.mean(),
            "the diagonal compares people with themselves: leave it out, or the mean is too high",
        ),
        Mistake(
            lambda v: v[torch.triu(torch.ones_like(v), 1) > 0].mean(),
            "ordered pairs: (1, 2) puts a plane of 2 into 1 and (2, 1) the reverse; average both triangles",
        ),
        Mistake(
            lambda v: (v.sum() - v.diagonal().sum()) / len(v) ** 2,
            "N (N - 1) pairs are left when the diagonal is gone, not N²",
        ),
    ],
)


def _seen_by(projection: Pairs, coordinate: int) -> int:
    return sum(coordinate in pair for pair in projection)


planes_that_see = Exercise(
    truth=_seen_by,
    cases=[(PROJECTION[axes], coordinate) for axes in ("xyz", "eg3d") for coordinate in range(3)],
    mistakes=[
        Mistake(
            lambda p, c: sum(pair[0] == c for pair in p),
            "a plane sees two coordinates, its column and its row: you counted the columns only",
        ),
        Mistake(
            lambda p, c: 2,
            "true for xyz; under EG3D's axes the third pair is (z, x), so y is seen by one plane and z by two",
        ),
        Mistake(
            lambda p, c: len({frozenset(pair) for pair in p if c in pair}),
            "count planes, not different pairs: (x, z) and (z, x) are two planes with contents of their own",
        ),
    ],
)
