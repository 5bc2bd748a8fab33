"""Estimates: their text, Wilson's interval, the bootstrap of a mean, and intervals of differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
from helpers import refuses
from scipy.optimize import brentq

from head3d_core.utils.estimates import NONE, Estimate, bootstrap_mean, bootstrap_weights, share


def test_estimates_scale_and_print() -> None:
    e = Estimate(0.02, 0.01, 0.03, 7).times(100)
    assert str(e) == "2 [1, 3] (N = 7)"
    assert e.to_dict() == {"value": 2.0, "low": 1.0, "high": 3.0, "count": 7}
    assert Estimate.of(e.to_dict()) == e
    nothing = Estimate.of({"value": 0.5, "low": None, "high": None, "count": 3})
    assert nothing.text(1) == "0.5"
    assert Estimate(math.nan, 0, 1, 0).text() == NONE


@pytest.mark.parametrize(("found", "count"), [(98, 100), (0, 50), (50, 50), (1, 3)])
def test_wilson_solves_its_equation(found: int, count: int) -> None:
    """The bounds are where |found/count - p| = z sqrt(p (1 - p) / count)."""
    got = share(found, count)
    z, rate = 1.959964, found / count

    def gap(p: float) -> float:
        return abs(rate - p) - z * math.sqrt(p * (1 - p) / count)

    low = 0.0 if found == 0 else brentq(gap, 1e-12, rate - 1e-9)
    high = 1.0 if found == count else brentq(gap, rate + 1e-9, 1 - 1e-12)
    assert got.low == pytest.approx(low, abs=1e-6)
    assert got.high == pytest.approx(high, abs=1e-6)
    assert got.low <= got.value <= got.high


def test_wilson_of_nothing() -> None:
    none = share(0, 0)
    assert math.isnan(none.value)
    assert (none.low, none.high) == (0.0, 1.0)
    refuses("3 of 2", share, 3, 2)


def test_a_mean_needs_two_values() -> None:
    refuses("at least 2 finite values", bootstrap_mean, np.array([1.0]))


def test_intervals_of_means_and_differences_cover() -> None:
    """95 % intervals of the mean of 60 skewed values, and of the difference of two such means: 2,000 simulations."""
    random = np.random.default_rng(0)
    simulations, count = 2000, 60
    weights = bootstrap_weights(count, 400, 1) / count
    values = random.gamma(3, 1, (2, simulations, count))
    ends = np.quantile(values @ weights.T, [0.025, 0.975], axis=-1)  # [2 ends, 2 sets, simulations]
    hits = (ends[0] <= 3) & (ends[1] >= 3)
    assert hits.mean() >= 0.93
    one = bootstrap_mean(values[0, 0], 400, seed=1)
    assert [one.low, one.high] == pytest.approx(ends[:, 0, 0])
    means = values.mean(-1)
    pairs = (
        Estimate(*x, count).minus(Estimate(*y, count))
        for x, y in zip(*(np.stack([means[k], *ends[:, k]], 1).tolist() for k in (0, 1)), strict=True)
    )
    assert np.mean([not found.decided for found in pairs]) >= 0.93


def test_wilsons_interval_covers() -> None:
    """Coverage averaged over shares from 1 % to 99 %, 50 tries: 95 % within what 20,000 simulations can tell."""
    random = np.random.default_rng(0)
    truth = random.uniform(0.01, 0.99, 20_000)
    ends = [share(k, 50) for k in range(51)]
    low, high = (np.array([getattr(e, end) for e in ends]) for end in ("low", "high"))
    found = random.binomial(50, truth)
    assert 0.93 <= np.mean((low[found] <= truth) & (truth <= high[found])) <= 0.97
