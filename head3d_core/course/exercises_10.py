"""Exercise checks of notebooks 10 and 11, in the manner of `checks.py`: distances, verification, comparing rows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from head3d_core.course.exercises import Exercise, Mistake


def _points(seed: int, count: int, shift: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, generator=generator, dtype=torch.float64) + shift


def _kernel(a: Tensor, b: Tensor, power: int = 3, divide: bool = True) -> Tensor:
    return (a @ b.T / (a.shape[1] if divide else 1) + 1) ** power


def _mmd(
    x: Tensor, y: Tensor, cross: float = 2.0, own: bool = False, power: int = 3, divide: bool = True
) -> Tensor:
    kxx, kyy, kxy = (_kernel(a, b, power, divide) for a, b in ((x, x), (y, y), (x, y)))

    def inside(k: Tensor) -> Tensor:
        n = len(k)
        return k.mean() if own else (k.sum() - k.trace()) / (n * (n - 1))

    return inside(kxx) + inside(kyy) - cross * kxy.mean()


kernel_distance = Exercise(
    truth=_mmd,
    cases=[
        (_points(0, 6), _points(1, 5)),
        (_points(2, 4), _points(3, 8, 1.0)),
        (_points(4, 7), _points(4, 7)),
    ],
    mistakes=[
        Mistake(
            lambda x, y: _mmd(x, y, own=True),
            "pairs of a point with itself are counted: they make the distance of equal sources positive",
        ),
        Mistake(lambda x, y: _mmd(x, y, cross=1.0), "the mixed term counts twice: a² + b² - 2ab"),
        Mistake(
            lambda x, y: _mmd(x, y, divide=False), "the inner product is divided by the number of features, d"
        ),
        Mistake(lambda x, y: _mmd(x, y, power=2), "the kernel is cubic: (aᵀb / d + 1)³"),
        Mistake(lambda x, y: 100 * _mmd(x, y), "tables print it times 100; here the plain number is wanted"),
    ],
)


def _tar(same: Tensor, different: Tensor, rate: float, strict: bool = True) -> Tensor:
    ordered = different.sort().values
    limit = ordered[max(0, math.ceil((1 - rate) * len(ordered)) - 1)]
    return ((same > limit) if strict else (same >= limit)).double().mean()


def _scores(seed: int, apart: float) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    same = (0.2 * torch.randn(40, generator=generator, dtype=torch.float64) + apart).round(decimals=2)
    different = (0.2 * torch.randn(200, generator=generator, dtype=torch.float64)).round(decimals=2)
    return same, different


_TAR_CASES = [(*_scores(0, 0.5), 0.01), (*_scores(1, 0.3), 0.05), (*_scores(2, 0.2), 0.1)]

true_accept_rate = Exercise(
    truth=_tar,
    cases=_TAR_CASES,
    mistakes=[
        Mistake(
            lambda s, d, r: _tar(s, s, r),
            "the limit comes from the different pairs: they are what must not be accepted",
        ),
        Mistake(
            lambda s, d, r: _tar(s, d, 1 - r),
            "the limit lies at the wrong end: only the most alike of the different pairs may pass",
        ),
        Mistake(lambda s, d, r: _tar(d, d, r), "this is the false accept rate: ask how many same pairs pass"),
        Mistake(lambda s, d, r: 1 - _tar(s, d, r), "this is the share that is turned away"),
        Mistake(
            lambda s, d, r: (s > 0.5).double().mean(),
            "a limit of 0.5 means nothing: it follows from the rate",
        ),
    ],
)


def _kept(teacher: Tensor, twin: Tensor) -> Tensor:
    return (teacher & twin).double().sum() / teacher.double().sum()


def _wears(*numbers: int) -> Tensor:
    return torch.tensor([n == 1 for n in numbers])


kept_share = Exercise(
    truth=_kept,
    cases=[
        (_wears(1, 1, 1, 0, 0, 0, 0, 0), _wears(1, 0, 1, 0, 1, 0, 0, 0)),
        (_wears(1, 0, 0, 1, 1), _wears(1, 1, 0, 0, 0)),
        (_wears(0, 0, 1, 1), _wears(1, 1, 1, 1)),
    ],
    mistakes=[
        Mistake(
            lambda a, b: (a & b).double().mean(),
            "divide by the teacher's wearers, not by all heads: who has nothing on cannot lose it",
        ),
        Mistake(
            lambda a, b: (a == b).double().mean(),
            "two bare heads agree as well, and most heads are bare: look at the wearers only",
        ),
        Mistake(
            lambda a, b: _kept(b, a),
            "this asks how many of the twin's hats the teacher has; the question is the other way round",
        ),
        Mistake(
            lambda a, b: b.double().sum() / a.double().sum(),
            "hats that the twin invented are counted as kept: both must wear one",
        ),
    ],
)


def _decided(a_low: float, a_high: float, b_low: float, b_high: float) -> bool:
    return a_high < b_low or b_high < a_low


rows_differ = Exercise(
    truth=_decided,
    cases=[
        (1.0, 1.2, 1.3, 1.5),
        (1.3, 1.5, 1.0, 1.2),
        (1.0, 1.4, 1.3, 1.5),
        (1.0, 2.0, 1.4, 1.5),
        (1.4, 1.5, 1.0, 2.0),
        (0.2, 0.9, 0.1, 0.3),
    ],
    mistakes=[
        Mistake(
            lambda al, ah, bl, bh: ah < bl,
            "row a may also be the worse one: look whether b ends before a begins, too",
        ),
        Mistake(
            lambda al, ah, bl, bh: bh < al,
            "row a may also be the better one: look whether a ends before b begins, too",
        ),
        Mistake(
            lambda al, ah, bl, bh: (al + ah) / 2 != (bl + bh) / 2,
            "two measured numbers always differ: ask whether their intervals are apart",
        ),
        Mistake(
            lambda al, ah, bl, bh: not (al >= bl and ah <= bh),
            "intervals overlap without one lying inside the other",
        ),
    ],
)


def _kendall(ours: Tensor, theirs: Tensor, neighbours: bool = False) -> Tensor:
    a, b = (x[:, None] - x[None, :] for x in (ours, theirs))
    agree = torch.sign(a) * torch.sign(b)
    if neighbours:
        return agree.diagonal(1).mean()
    first, second = torch.triu_indices(len(ours), len(ours), 1)
    return agree[first, second].mean()


def _positions(x: Tensor) -> Tensor:
    return x.argsort().argsort()


def _concordant(ours: Tensor, theirs: Tensor) -> Tensor:
    return (_kendall(ours, theirs) + 1) / 2


def _numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


rank_agreement = Exercise(
    truth=_kendall,
    cases=[
        (_numbers(3.1, 2.4, 1.9, 0.6), _numbers(44.8, 29.8, 19.5, 11.3)),
        (_numbers(0.2, 2.4, 1.9, 9.6), _numbers(44.8, 29.8, 19.5, 11.3)),
        (_numbers(2.0, 1.0, 4.0, 3.0, 5.0), _numbers(10.0, 20.0, 30.0, 40.0, 90.0)),
        (_numbers(1.0, 5.0, 2.0), _numbers(0.3, 0.1, 0.2)),
    ],
    mistakes=[
        Mistake(
            _concordant,
            "this is the share of pairs in the same order, ½ for unrelated rows: subtract the pairs in the other order",
        ),
        Mistake(
            lambda a, b: (_positions(a) == _positions(b)).double().mean(),
            "two orders can agree though every row has moved by one place: compare pairs, not places",
        ),
        Mistake(
            lambda a, b: torch.corrcoef(torch.stack([a, b]))[0, 1],
            "this compares sizes, and the two scales have nothing to do with each other: use the order alone",
        ),
        Mistake(
            lambda a, b: _kendall(a, b, neighbours=True),
            "only neighbours are compared: take every pair of rows",
        ),
        Mistake(lambda a, b: -_kendall(a, b), "the sign: a pair in the same order counts +1"),
    ],
)


def _half_width(a: Tensor, b: Tensor) -> Tensor:
    return 1.96 * (a - b).std() / math.sqrt(len(a))


def _twins(seed: int, count: int, common: float) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shared, one, other = torch.randn(3, count, generator=generator, dtype=torch.float64)
    return 0.5 + 0.1 * (common * shared + one), 0.3 + 0.1 * (common * shared + other)


paired_half_width = Exercise(
    truth=_half_width,
    cases=[_twins(0, 12, 2.0), _twins(1, 30, 1.0), _twins(2, 5, 0.0)],
    tolerance=1e-5,
    mistakes=[
        Mistake(
            lambda a, b: 1.96 * ((a.var() + b.var()) / len(a)).sqrt(),
            "this forgets the pairs: take the difference for each z first, then its spread",
        ),
        Mistake(
            lambda a, b: 1.96 * (a.std() + b.std()) / math.sqrt(len(a)),
            "adding the two half-widths is too wide even for strangers: take the spread of the differences",
        ),
        Mistake(
            lambda a, b: 1.96 * (a - b).std(),
            "this is the spread of single heads; the mean of n of them is √n times surer",
        ),
        Mistake(
            lambda a, b: 1.96 * (a - b).std(correction=0) / math.sqrt(len(a)),
            "the spread of n values around their own mean is divided by n − 1",
        ),
        Mistake(
            lambda a, b: 2 * _half_width(a, b),
            "this is the whole width: half of it lies on either side of the mean",
        ),
        Mistake(
            lambda a, b: _half_width(a, b) / 1.96, "this is the standard error: 95 % lie within 1.96 of it"
        ),
    ],
)
