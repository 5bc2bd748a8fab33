"""What was expected of the weights before they were trained, and whether the records show it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from head3d_core.tables import Records, kernel, load_records

Figure = Mapping[str, Any]
"""value, low, high (None where there is no interval) and count."""


@dataclass(frozen=True)
class Expectation:
    """A number with a limit."""

    what: str
    needs: tuple[str, ...]
    """Rows that must be recorded."""
    limit: float
    at_least: bool
    figure: Callable[[Records], Figure | None]
    percent: bool = False

    def verdict(self, records: Records) -> str:
        """ "met", "not met", or "not recorded yet"."""
        found = self._found(records)
        if found is None:
            return "not recorded yet"
        value = found["value"]
        return "met" if (value >= self.limit if self.at_least else value <= self.limit) else "**not met**"

    def _found(self, records: Records) -> Figure | None:
        return self.figure(records) if all(row in records for row in self.needs) else None

    def line(self, records: Records) -> str:
        """A row of the table."""
        found = self._found(records)
        limit = f"{'≥' if self.at_least else '≤'} {self._shown(self.limit)}"
        cells = (self.what, limit, self._interval(found), "–" if found is None else f"{found['count']:,}")
        verdict = self.verdict(records)
        if verdict == "met" and found is not None and self._open(found):
            verdict = "met, but the interval spans the limit"
        return f"| {' | '.join(cells)} | {verdict} |"

    def _open(self, found: Figure) -> bool:
        end = found["low" if self.at_least else "high"]
        return end is not None and (end < self.limit if self.at_least else end > self.limit)

    def _interval(self, found: Figure | None) -> str:
        if found is None:
            return "–"
        text = self._shown(found["value"])
        ends = [found[k] for k in ("low", "high") if found[k] is not None]
        return f"{text} [{self._shown(ends[0])}, {self._shown(ends[1])}]" if len(ends) == 2 else text

    def _shown(self, value: float) -> str:
        return f"{100 * value:.3g} %" if self.percent else f"{value:.3g}"


def _of_rate(rate: Mapping[str, Any]) -> Figure:
    return {"value": rate["rate"], **{k: rate[k] for k in ("low", "high", "count")}}


def _rate(row: str, side: str) -> Callable[[Records], Figure | None]:
    def read(records: Records) -> Figure | None:
        found = records[row]["detector"][side]
        return None if found is None else _of_rate(found)

    return read


def _ratio(row: str, other: str, side: str) -> Callable[[Records], Figure | None]:
    def read(records: Records) -> Figure | None:
        a, b = kernel(records[row], side), kernel(records[other], side)
        if a is None or b is None or b["value"] <= 0:
            return None
        count = min(a["count"], b["count"])
        # Of the ends of two 95 % intervals: wider than the ratio's own, which nobody measured.
        low = a["low"] / b["high"]
        high = a["high"] / b["low"] if b["low"] > 0 else math.inf
        return {"value": a["value"] / b["value"], "low": low, "high": high, "count": count}

    return read


def _path(row: str, *keys: str) -> Callable[[Records], Figure | None]:
    def read(records: Records) -> Figure | None:
        found: Any = records[row]
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        return found

    return read


def _worst_silhouette(records: Records) -> Figure | None:
    found = records["head3d"].get("silhouettes")
    return _of_rate(max(found.values(), key=lambda r: float(r["rate"]))) if found else None


EXPECTATIONS = (
    Expectation("teacher: a face in frontal samples", ("face",), 0.97, True, _rate("face", "front"), True),
    Expectation(
        "teacher: near-duplicates",
        ("face",),
        0.001,
        False,
        _path("face", "people", "near_duplicates"),
        True,
    ),
    Expectation("Head3D: a face in frontal samples", ("head3d",), 0.94, True, _rate("head3d", "front"), True),
    Expectation("Head3D: a face behind (Janus)", ("head3d",), 0.03, False, _rate("head3d", "back"), True),
    Expectation(
        "Head3D: frontal distance / teacher's",
        ("head3d", "face"),
        2.0,
        False,
        _ratio("head3d", "face", "front"),
    ),
    Expectation(
        "Head3D: back distance / head generator's",
        ("head3d", "head"),
        1.5,
        False,
        _ratio("head3d", "head", "back"),
    ),
    Expectation(
        "Head3D: directions that are closed",
        ("head3d",),
        0.99,
        True,
        _path("head3d", "closed"),
        True,
    ),
    Expectation(
        "Head3D: silhouettes outside real ones, worst side", ("head3d",), 0.02, False, _worst_silhouette, True
    ),
    Expectation(
        "same z, teacher and Head3D: AUC",
        ("head3d",),
        0.95,
        True,
        _path("head3d", "identity", "auc"),
    ),
    Expectation(
        "same z, teacher and Head3D: TAR at FAR 1 %",
        ("head3d",),
        0.80,
        True,
        _path("head3d", "identity", "tar_at_far_0.01"),
        True,
    ),
)
"""The limits, as they were set before training."""


def expectations_table(records: Records | None = None) -> str:
    """Markdown: what, limit, found with its 95 % interval, of how many samples, verdict.

    A ratio's interval reaches from one low end over the other high end to the opposite: 95 % or more.
    Where the interval spans the limit, more samples may turn the verdict over; the line says so.
    """
    records = load_records() if records is None else records
    lines = ["| what | limit | found | N | |", "|---" * 5 + "|"]
    return "\n".join([*lines, *(e.line(records) for e in EXPECTATIONS)])
