"""What the weights must show: numbers with limits, each with a recorded model that fails it.

A limit that nothing fails says nothing. So every `Limit` names a row that must not meet it (the teacher for backs, the
untrained swap for identity), and a test holds it to that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from head3d_core.evaluation.rows import Row, Rows
from head3d_core.evaluation.tables import GHOSTS, NOT_YET, kernel, markdown, repetitions
from head3d_core.utils.estimates import NONE, Estimate

Reader = Callable[[Row, Rows], Estimate | None]
"""Of a row, beside all others: the number that has a limit."""
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
    fails: str
    """A recorded row that does not meet it."""
    percent: bool = False
    rows: tuple[str, ...] = FULL
    """Whose number it is."""

    def of(self, records: Rows, name: str) -> Estimate | None:
        """The number of a record; None where it is not recorded."""
        found = self.read(records[name], records) if name in records else None
        return found if found is not None and math.isfinite(found.value) else None

    def verdict(self, records: Rows, name: str) -> str:
        """ "met", "not met", "met, open" where the interval spans the limit, or "not recorded yet"."""
        found = self.of(records, name)
        if found is None:
            return NOT_YET
        if not self._holds(found.value):
            return NOT_MET
        end = found.low if self.at_least else found.high
        return MET if not math.isfinite(end) or self._holds(end) else f"{MET}, open"

    def _holds(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit

    def text(self, value: float) -> str:
        """A number in this limit's unit."""
        value = round(100 * value if self.percent else value, 3) + 0.0  # no -0
        return f"{value:.3g} %" if self.percent else f"{value:.3g}"

    def judged(self, records: Rows, name: str) -> str:
        """The number of a record with its interval and the verdict."""
        if (found := self.of(records, name)) is None:
            return NOT_YET
        ends = [self.text(end) for end in (found.low, found.high) if math.isfinite(end)]
        interval = f" [{', '.join(ends)}]" if len(ends) == 2 else ""
        return f"{self.text(found.value)}{interval}: {self.verdict(records, name)}"


def _ratio(other: str, side: str) -> Reader:
    """The recorded paired ratio, else that of two distances: its interval is wider than the ratio's own would be."""

    def read(row: Row, records: Rows) -> Estimate | None:
        if (paired := row.ratios.get(f"{side} / {other}")) is not None:
            return paired
        theirs = records.get(other, row)
        a, b = kernel(row, side), kernel(theirs, side)
        if theirs is row or a is None or b is None or b.value <= 0:
            return None
        if row.distance[side].real_heads != theirs.distance[side].real_heads:
            return None
        low, high = a.low / b.high, a.high / b.low if b.low > 0 else math.inf
        return Estimate(a.value / b.value, low, high, min(a.count, b.count))

    return read


def _front(row: Row, _: Rows) -> Estimate | None:
    return row.detector.get("front")


def _same_z(row: Row, _: Rows) -> Estimate | None:
    return row.identity.tar if row.identity and row.cosine else None


def _near_duplicates(row: Row, _: Rows) -> Estimate | None:
    return row.people.near_duplicates if row.people else None


def _ghost(score: str) -> Reader:
    return lambda row, _: row.second_faces(score)


LIMITS = (
    Limit("teacher: a face in frontal samples", 0.97, True, _front, "dft", True, ("face",)),
    Limit("teacher: near-duplicates", 0.001, False, _near_duplicates, "head", True, ("face",)),
    Limit("a face in frontal samples", 0.94, True, _front, "dft", True),
    Limit("a face behind (Janus)", 0.03, False, lambda row, _: row.detector.get("back"), "face", True),
    Limit("frontal distance / teacher's", 2.0, False, _ratio("face", "front"), "fh"),
    Limit("the same, both at truncation 0.7", 2.0, False, _ratio("face", "front, truncated"), "fh"),
    Limit("back distance / head generator's", 1.5, False, _ratio("head", "back"), "face"),
    Limit(
        "silhouettes outside real ones, worst side", 0.02, False, lambda r, _: r.outside, "plane-swap", True
    ),
    Limit("same z as the teacher: TAR at FAR 1 %", 0.90, True, _same_z, "plane-swap", True),
    Limit("same z as the teacher: mean cosine", 0.80, True, lambda row, _: row.cosine, "plane-swap"),
    *(Limit(f"{what} (ghost)", 0.10, False, _ghost(score), "face", True) for score, what in GHOSTS.items()),
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
        judged = limit.rows if limit.rows != FULL else tuple(runs)
        cells = [f"{'≥' if limit.at_least else '≤'} {limit.text(limit.limit)}"]
        for name in (*runs, *BESIDE):
            found = limit.of(records, name) if name in BESIDE else None
            beside = NONE if found is None else limit.text(found.value)
            cells.append(limit.judged(records, name) if name in judged else beside)
        lines.append([limit.what, *cells])
    return markdown(heads, lines)
