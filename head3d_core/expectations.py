"""What was expected of the weights before they were trained, and whether the records show it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from head3d_core.tables import Records, kernel, load_records

Value = float | None


@dataclass(frozen=True)
class Expectation:
    """A number with a limit."""

    what: str
    needs: tuple[str, ...]
    """Rows that must be recorded."""
    limit: float
    at_least: bool
    value: Callable[[Records], Value]
    percent: bool = False

    def verdict(self, records: Records) -> str:
        """ "met", "not met", or "not recorded yet"."""
        found = self._found(records)
        if found is None:
            return "not recorded yet"
        return "met" if (found >= self.limit if self.at_least else found <= self.limit) else "**not met**"

    def _found(self, records: Records) -> Value:
        return self.value(records) if all(row in records for row in self.needs) else None

    def line(self, records: Records) -> str:
        """A row of the table."""
        found = self._found(records)
        sign = "≥" if self.at_least else "≤"
        return f"| {self.what} | {sign} {self._shown(self.limit)} | {self._shown(found)} | {self.verdict(records)} |"

    def _shown(self, value: Value) -> str:
        if value is None:
            return "–"
        return f"{100 * value:.4g} %" if self.percent else f"{value:.3g}"


def _rate(row: str, side: str) -> Callable[[Records], Value]:
    def read(records: Records) -> Value:
        found = records[row]["detector"][side]
        return None if found is None else float(found["rate"])

    return read


def _ratio(row: str, other: str, side: str) -> Callable[[Records], Value]:
    def read(records: Records) -> Value:
        a, b = kernel(records[row], side), kernel(records[other], side)
        return None if a is None or b is None or b["value"] <= 0 else float(a["value"] / b["value"])

    return read


def _path(row: str, *keys: str) -> Callable[[Records], Value]:
    def read(records: Records) -> Value:
        found: Any = records[row]
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        return None if found is None else float(found)

    return read


def _worst_silhouette(records: Records) -> Value:
    found = records["head3d"].get("silhouettes")
    return max(float(r["rate"]) for r in found.values()) if found else None


EXPECTATIONS = (
    Expectation("teacher: a face in frontal samples", ("face",), 0.97, True, _rate("face", "front"), True),
    Expectation(
        "teacher: near-duplicates",
        ("face",),
        0.001,
        False,
        _path("face", "people", "near_duplicates", "value"),
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
        _path("head3d", "closed", "value"),
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
        _path("head3d", "identity", "auc", "value"),
    ),
    Expectation(
        "same z, teacher and Head3D: TAR at FAR 1 %",
        ("head3d",),
        0.80,
        True,
        _path("head3d", "identity", "tar_at_far_0.01", "value"),
        True,
    ),
)
"""The limits, as they were set before training."""


def expectations_table(records: Records | None = None) -> str:
    """Markdown: what, limit, found, verdict."""
    records = load_records() if records is None else records
    lines = ["| what | limit | found | |", "|---|---|---|---|"]
    return "\n".join([*lines, *(e.line(records) for e in EXPECTATIONS)])
