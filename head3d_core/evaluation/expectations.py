"""What was expected of the weights before they were trained, and whether the records show it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from head3d_core.evaluation.tables import Records, kernel, load_records

Figure = Mapping[str, Any]
"""value, low, high (None where there is no interval) and count."""


BESIDE = {"real": "real", "head": "head", "single-d": "one discriminator"}
"""Rows whose numbers stand beside, and what they are called."""


@dataclass(frozen=True)
class Expectation:
    """A number with a limit."""

    what: str
    row: str
    """Whose number it is."""
    limit: float
    at_least: bool
    figure: Callable[[Records, str], Figure | None]
    """Of a row that is recorded."""
    percent: bool = False

    def verdict(self, records: Records) -> str:
        """ "met", "not met", or "not recorded yet"."""
        found = self.of(records, self.row)
        if found is None:
            return "not recorded yet"
        value = found["value"]
        return "met" if (value >= self.limit if self.at_least else value <= self.limit) else "**not met**"

    def of(self, records: Records, row: str) -> Figure | None:
        """The same number of any row; None where it is not recorded."""
        return self.figure(records, row) if row in records else None

    def line(self, records: Records) -> str:
        """A row of the table."""
        found = self.of(records, self.row)
        limit = f"{'≥' if self.at_least else '≤'} {self._shown(self.limit)}"
        count = 0 if found is None else found["count"]
        verdict = self.verdict(records)
        if verdict == "met" and found is not None and self._open(found):
            verdict = "met, but the interval spans the limit"
        beside = [self._beside(self.of(records, row), count) for row in BESIDE]
        cells = (self.what, limit, self._interval(found), f"{count:,}" if count else "–", verdict, *beside)
        return f"| {' | '.join(cells)} |"

    def _open(self, found: Figure) -> bool:
        end = found["low" if self.at_least else "high"]
        return end is not None and (end < self.limit if self.at_least else end > self.limit)

    def _interval(self, found: Figure | None) -> str:
        if found is None:
            return "–"
        text = self._shown(found["value"])
        ends = [found[k] for k in ("low", "high") if found[k] is not None]
        return f"{text} [{self._shown(ends[0])}, {self._shown(ends[1])}]" if len(ends) == 2 else text

    def _beside(self, found: Figure | None, count: int) -> str:
        """Another row's number, with how many samples it stands on where these are fewer than `count`."""
        if found is None:
            return "–"
        return self._shown(found["value"]) + (f" ({found['count']:,})" if found["count"] < count else "")

    def _shown(self, value: float) -> str:
        value = round(100 * value if self.percent else value, 3) + 0.0  # no -0
        return f"{value:.3g} %" if self.percent else f"{value:.3g}"


def _of_rate(rate: Mapping[str, Any]) -> Figure:
    return {"value": rate["rate"], **{k: rate[k] for k in ("low", "high", "count")}}


Reader = Callable[[Records, str], Figure | None]


def _rate(side: str) -> Reader:
    def read(records: Records, row: str) -> Figure | None:
        found = records[row]["detector"][side]
        return None if found is None else _of_rate(found)

    return read


def _ratio(other: str, side: str) -> Reader:
    def read(records: Records, row: str) -> Figure | None:
        if other not in records or other == row:
            return None
        a, b = kernel(records[row], side), kernel(records[other], side)
        if a is None or b is None or b["value"] <= 0:
            return None
        count = min(a["count"], b["count"])
        # Of the ends of two 95 % intervals: wider than the ratio's own, which nobody measured.
        low = a["low"] / b["high"]
        high = a["high"] / b["low"] if b["low"] > 0 else math.inf
        return {"value": a["value"] / b["value"], "low": low, "high": high, "count": count}

    return read


def _path(*keys: str) -> Reader:
    def read(records: Records, row: str) -> Figure | None:
        found: Any = records[row]
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        return found

    return read


def _worst_silhouette(records: Records, row: str) -> Figure | None:
    rates = [r for r in records[row].get("silhouettes", {}).values() if "rate" in r]
    return _of_rate(max(rates, key=lambda r: float(r["rate"]))) if rates else None


EXPECTATIONS = (
    Expectation("teacher: a face in frontal samples", "face", 0.97, True, _rate("front"), True),
    Expectation("teacher: near-duplicates", "face", 0.001, False, _path("people", "near_duplicates"), True),
    Expectation("Head3D: a face in frontal samples", "head3d", 0.94, True, _rate("front"), True),
    Expectation("Head3D: a face behind (Janus)", "head3d", 0.03, False, _rate("back"), True),
    Expectation("Head3D: frontal distance / teacher's", "head3d", 2.0, False, _ratio("face", "front")),
    Expectation("the same, both at truncation 0.7", "head3d", 2.0, False, _ratio("face", "front, truncated")),
    Expectation("Head3D: back distance / head generator's", "head3d", 1.5, False, _ratio("head", "back")),
    Expectation("Head3D: directions that are closed", "head3d", 0.99, True, _path("closed"), True),
    Expectation(
        "Head3D: silhouettes outside real ones, worst side", "head3d", 0.02, False, _worst_silhouette, True
    ),
    Expectation("same z, teacher and Head3D: AUC", "head3d", 0.95, True, _path("identity", "auc")),
    Expectation(
        "same z, teacher and Head3D: TAR at FAR 1 %",
        "head3d",
        0.80,
        True,
        _path("identity", "tar_at_far_0.01"),
        True,
    ),
)
"""The limits, as they were set before training."""


def expectations_table(records: Records | None = None) -> str:
    """Markdown: what, limit, found with its 95 % interval, of how many samples, verdict, and other rows' numbers.

    A ratio's interval reaches from one low end over the other high end to the opposite: 95 % or more.
    Where the interval spans the limit, more samples may turn the verdict over; the line says so. Real people's AUC and
    TAR are those of two pictures of one person.
    """
    records = load_records() if records is None else records
    heads = ["what", "limit", "found", "N", "", *BESIDE.values()]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    return "\n".join([*lines, *(e.line(records) for e in EXPECTATIONS)])
