"""What the weights must show: numbers with limits, each with a recorded model that fails it.

A limit that nothing fails says nothing. So every `Limit` names a row that must not meet it (the teacher for backs, the
untrained swap for identity), and a test holds it to that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from head3d_core.evaluation.rows import Row, Rows
from head3d_core.evaluation.tables import NOT_YET, kernel, markdown, repetitions
from head3d_core.metrics.ghost import SCORES
from head3d_core.utils.estimates import NONE, Estimate

Reader = Callable[[Rows, str], Estimate | None]
FULL = ("head3d", "two-sided")
"""Rows of the full method: every recorded run of them is judged."""
BESIDE = {
    "real": "real",
    "face": "teacher",
    "head": "head generator",
    "single-d-seed0-fitted": "one discriminator",
}
"""Rows whose numbers stand beside, and what they are called."""
MET, NOT_MET = "met", "**not met**"


@dataclass(frozen=True)
class Limit:
    """A number with a limit."""

    what: str
    limit: float
    at_least: bool
    read: Reader
    """Of a row that is recorded."""
    fails: str
    """A recorded row that does not meet it."""
    percent: bool = False
    rows: tuple[str, ...] = FULL
    """Whose number it is."""

    def of(self, records: Rows, name: str) -> Estimate | None:
        """The number of a record; None where it is not recorded."""
        return self.read(records, name) if name in records else None

    def verdict(self, records: Rows, name: str) -> str:
        """ "met", "not met", "met, open" where the interval spans the limit, or "not recorded yet"."""
        found = self.of(records, name)
        if found is None or not math.isfinite(found.value):
            return NOT_YET
        if not self._holds(found.value):
            return NOT_MET
        end = found.low if self.at_least else found.high
        return MET if not math.isfinite(end) or self._holds(end) else f"{MET}, open"

    def _holds(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit

    def shown(self, found: Estimate | None, interval: bool = True) -> str:
        """A number in this limit's unit."""
        if found is None or not math.isfinite(found.value):
            return NONE
        ends = [self._text(end) for end in (found.low, found.high) if interval and math.isfinite(end)]
        return self._text(found.value) + (f" [{', '.join(ends)}]" if len(ends) == 2 else "")

    def _text(self, value: float) -> str:
        value = round(100 * value if self.percent else value, 3) + 0.0  # no -0
        return f"{value:.3g} %" if self.percent else f"{value:.3g}"


def _rate(side: str) -> Reader:
    return lambda records, name: records[name].detector.get(side)


def _ratio(other: str, side: str) -> Reader:
    def read(records: Rows, name: str) -> Estimate | None:
        if (paired := records[name].ratios.get(f"{side} / {other}")) is not None:
            return paired
        if other not in records or other == name:
            return None
        a, b = kernel(records[name], side), kernel(records[other], side)
        seen = {records[n].distance[side].real_heads for n in (name, other) if side in records[n].distance}
        if a is None or b is None or b.value <= 0 or len(seen) > 1:  # to other heads: no ratio
            return None
        # Of the ends of two 95 % intervals: wider than the ratio's own, which was not measured.
        low, high = a.low / b.high, a.high / b.low if b.low > 0 else math.inf
        return Estimate(a.value / b.value, low, high, min(a.count, b.count))

    return read


def _of_row(read: Callable[[Row], Estimate | None]) -> Reader:
    return lambda records, name: read(records[name])


def _ghost(score: str) -> Reader:
    return _of_row(lambda r: r.second_faces(score))


LIMITS = (
    Limit("teacher: a face in frontal samples", 0.97, True, _rate("front"), "dft", True, ("face",)),
    Limit(
        "teacher: near-duplicates",
        0.001,
        False,
        _of_row(lambda r: r.people.near_duplicates if r.people else None),
        "head",
        True,
        ("face",),
    ),
    Limit("a face in frontal samples", 0.94, True, _rate("front"), "dft", True),
    Limit("a face behind (Janus)", 0.03, False, _rate("back"), "face", True),
    Limit("frontal distance / teacher's", 2.0, False, _ratio("face", "front"), "fh"),
    Limit("the same, both at truncation 0.7", 2.0, False, _ratio("face", "front, truncated"), "fh"),
    Limit("back distance / head generator's", 1.5, False, _ratio("head", "back"), "face"),
    Limit(
        "silhouettes outside real ones, worst side",
        0.02,
        False,
        _of_row(lambda r: r.outside),
        "plane-swap",
        True,
    ),
    Limit(
        "same z as the teacher: TAR at FAR 1 %",
        0.90,
        True,
        _of_row(lambda r: r.identity.tar if r.identity and r.cosine else None),
        "plane-swap",
        True,
    ),
    Limit(
        "same z as the teacher: mean cosine",
        0.80,
        True,
        _of_row(lambda r: r.cosine),
        "plane-swap",
    ),
    *(
        Limit(f"{what} (ghost)", 0.10, False, _ghost(score), "face", True)
        for what, score in zip(("eyes behind", "sockets behind", "own relief behind"), SCORES, strict=True)
    ),
)
"""The first five, the back ratio, silhouettes and TAR (then 80 %) were set before the first training; truncation after
the first results; cosine and ghosts after the one-slice results and before two-slice weights. Left out, as no recorded
model fails them: closed heads, an AUC of 0.95, profiles at most 1.3 times as far as the steps of yaw beside them."""


def limits_table(records: Rows) -> str:
    """Markdown: what, limit, every run of the full method with its 95 % interval and verdict, other rows' numbers.

    "open": the interval spans the limit, so more samples may turn the verdict. A ratio's interval is a paired
    bootstrap where that was recorded, else it reaches from low / high to high / low of the two. Real people's TAR is
    that of two images of one person. Back distances of older records are to 50 held-out heads, those whose ratio is
    paired to 500.
    """
    runs = [name for row in FULL if row in records for name in (row, *repetitions(row, records))] or [FULL[0]]
    heads = ["what", "limit", *runs, *BESIDE.values()]
    lines = []
    for limit in LIMITS:
        bound = f"{'≥' if limit.at_least else '≤'} {limit._text(limit.limit)}"
        judged = limit.rows if limit.rows != FULL else tuple(runs)
        cells = [_judged(limit, records, name) if name in judged else NONE for name in runs]
        for name in BESIDE:
            text = limit.shown(limit.of(records, name), interval=False)
            cells.append(_judged(limit, records, name) if name in judged else text)
        lines.append([limit.what, bound, *cells])
    return markdown(heads, lines)


def _judged(limit: Limit, records: Rows, name: str) -> str:
    verdict, found = limit.verdict(records, name), limit.of(records, name)
    return verdict if verdict == NOT_YET else f"{limit.shown(found)}: {verdict}"
