"""Numbers with their uncertainty: an estimate, its 95 % interval, what it was measured on, and its one text form."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from head3d_core.utils.errors import Head3DError

Array = NDArray[np.float64]
LEVEL = 0.95
"""Confidence level of every interval."""
NONE = "–"
"""Entry of a table where nothing was measured."""


@dataclass(frozen=True)
class Estimate:
    """A number, its 95 % confidence interval and what it was measured on; NaN where something is not known."""

    value: float
    low: float
    high: float
    count: int
    """Independent things behind it (images, heads, identities)."""

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}] (N = {self.count})"

    def text(self, digits: int = 2, percent: bool = False) -> str:
        """Value and interval for a table.

        >>> Estimate(0.6149, 0.55, 0.699, 9).text(), share(98, 100).text(1, percent=True)
        ('0.61 [0.55, 0.70]', '98.0 % [93.0, 99.4]')
        """
        if not math.isfinite(self.value):
            return NONE
        shown, low, high = (
            f"{(100 if percent else 1) * x:.{digits}f}" for x in (self.value, self.low, self.high)
        )
        known = math.isfinite(self.low) and math.isfinite(self.high)
        return shown + (" %" if percent else "") + (f" [{low}, {high}]" if known else "")

    def times(self, factor: float) -> Estimate:
        """The same in other units; `factor` > 0."""
        return Estimate(self.value * factor, self.low * factor, self.high * factor, self.count)

    def minus(self, other: Estimate) -> Estimate:
        """The difference with a 95 % interval from the two intervals alone (Zou and Donner 2008; rates: Newcombe 1998).

        As if both had been measured on different samples. Where they share samples, `paired` is narrower.

        >>> Estimate(3, 2, 4, 9).minus(Estimate(1, 1, 1, 9))
        Estimate(value=2, low=1.0, high=3.0, count=9)
        """
        value = self.value - other.value
        below = math.hypot(self.value - self.low, other.high - other.value)
        above = math.hypot(self.high - self.value, other.value - other.low)
        return Estimate(value, value - below, value + above, min(self.count, other.count))

    @property
    def found(self) -> int:
        """Of a share: how many of the `count`."""
        return round(self.value * self.count) if self.count else 0

    @property
    def decided(self) -> bool:
        """Whether the whole interval is on one side of 0."""
        return self.low > 0 or self.high < 0

    def to_dict(self) -> dict[str, float]:
        """Plain JSON-able dictionary."""
        return asdict(self)

    @staticmethod
    def of(recorded: Mapping[str, Any]) -> Estimate:
        """From a record; null is NaN."""
        value, low, high = (
            math.nan if recorded[k] is None else float(recorded[k]) for k in ("value", "low", "high")
        )
        return Estimate(value, low, high, int(recorded["count"]))


def share(hits: int, count: int) -> Estimate:
    """`hits` of `count` with Wilson's score interval, right for shares near 0 and 1 too; NaN in [0, 1] of none."""
    if not 0 <= hits <= count:
        raise Head3DError(f"hits must lie in [0, count], got {hits} of {count}")
    if count == 0:
        return Estimate(math.nan, 0.0, 1.0, 0)
    from scipy.stats import binomtest

    interval = binomtest(hits, count).proportion_ci(LEVEL, "wilson")
    return Estimate(hits / count, float(interval.low), float(interval.high), count)


def bootstrap_weights(count: int, replicates: int, seed: int = 0) -> Array:
    """How often each of `count` things is drawn in each replicate: [replicates, count], rows sum to `count`.

    A bootstrap replicate draws `count` things with replacement (Efron 1979).
    """
    generator = np.random.default_rng(seed)
    return generator.multinomial(count, np.full(count, 1 / count), size=replicates).astype(np.float64)


def percentiles(value: float, replicates: Array, count: int, expanded: bool = False) -> Estimate:
    """The estimate with the bootstrap's percentile interval; replicates that are NaN are left out.

    Args:
        expanded: widen the interval of few things (Hesterberg 2015): with n things the plain bootstrap's
            variance is (n − 1) / n of what it should be, and its percentiles are normal ones where t's are due.
    """
    known = replicates[~np.isnan(replicates)] if expanded else replicates[np.isfinite(replicates)]
    tail = (1 - LEVEL) / 2
    if expanded and count > 1:
        from scipy.stats import norm, t

        tail = float(norm.cdf(math.sqrt(count / (count - 1)) * t.ppf(tail, count - 1)))
    method: Literal["linear", "nearest"] = "linear" if np.isfinite(known).all() else "nearest"
    low, high = np.quantile(known, [tail, 1 - tail], method=method) if len(known) else (math.nan,) * 2
    return Estimate(float(value), float(low), float(high), count)


def bootstrap_mean(values: Array | Any, replicates: int = 1000, seed: int = 0) -> Estimate:
    """Mean of independent values [N] (array or tensor) with its percentile bootstrap interval.

    >>> print(bootstrap_mean(np.full(20, 0.25)))
    0.25 [0.25, 0.25] (N = 20)
    """
    x = np.asarray(values, np.float64).ravel()
    if len(x) < 2 or not np.isfinite(x).all():
        raise Head3DError(
            f"a mean with an interval needs at least 2 finite values, got {len(x)} "
            f"({int((~np.isfinite(x)).sum())} of them not finite)"
        )
    return percentiles(x.mean(), bootstrap_weights(len(x), replicates, seed) @ x / len(x), len(x))


def correlation(a: Array, b: Array, weights: Array) -> Array:
    """Weighted Pearson correlation of a and b [N] under each row of weights [R, N]: [R]; NaN without spread."""
    total = weights.sum(1)
    mean_a, mean_b, aa, bb, ab = (weights @ v / total for v in (a, b, a * a, b * b, a * b))
    spread = np.sqrt(np.maximum((aa - mean_a**2) * (bb - mean_b**2), 0))
    return np.divide(ab - mean_a * mean_b, spread, where=spread > 0, out=np.full_like(spread, math.nan))
