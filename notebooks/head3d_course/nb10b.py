"""Notebook 10b: is it the same person, and is there a second face? Limits, rates, and the score of eyes behind."""

from __future__ import annotations

import math

from torch import Tensor

from head3d_course.exercises import Exercise, random


def _tar(same: Tensor, different: Tensor, rate: float, strict: bool = True) -> Tensor:
    ordered = different.sort().values
    limit = ordered[max(0, math.ceil((1 - rate) * len(ordered)) - 1)]
    return ((same > limit) if strict else (same >= limit)).double().mean()


def _scores(seed: int, count: int, mean: float) -> Tensor:
    return (0.2 * random(seed, count).double() + mean).round(decimals=2)


true_accept_rate = Exercise(
    truth=_tar,
    cases=[
        (_scores(0, 40, 0.5), _scores(1, 200, 0.0), 0.01),
        (_scores(2, 40, 0.3), _scores(3, 200, 0.0), 0.05),
        (_scores(4, 40, 0.2), _scores(5, 200, 0.0), 0.1),
    ],
    mistakes={
        "the limit comes from the different pairs": lambda s, d, r: _tar(s, s, r),
        "the limit is at the wrong end of the different pairs": lambda s, d, r: _tar(s, d, 1 - r),
        "this is the false accept rate: ask how many same pairs pass": lambda s, d, r: _tar(d, d, r),
        "this is the share that is turned away": lambda s, d, r: 1 - _tar(s, d, r),
        "a limit of 0.5 means nothing: it follows from the rate": lambda s, d, r: (s > 0.5).double().mean(),
    },
)

at_most = Exercise(
    truth=lambda count: 1 - 0.05 ** (1 / count),
    cases=[(10,), (50,), (300,)],
    mistakes={
        "0 of n does not mean never: 1 % shows nothing in 50 three times in five": lambda n: 0.0,
        "a rate of 1 / n shows nothing in a third of such samples: ask for 5 %": lambda n: 1 / n,
        "this is for *all* found; none found has probability (1 - r)^n": lambda n: 0.05 ** (1 / n),
        "solve (1 - r)^n = 0.05 for r: the root is of 0.05, not of 0.95": lambda n: 1 - 0.95 ** (1 / n),
    },
    tolerance=1e-6,
)
