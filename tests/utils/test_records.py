"""Records: written whole, read back with their types, and named where they are missing."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from helpers import refuses

from head3d_core.utils import nested, records


@dataclass(frozen=True)
class Share:
    """A rate."""

    found: int
    rate: float


@dataclass(frozen=True)
class Row:
    """A row of a table."""

    name: str
    shares: dict[str, Share]
    kind: Literal["fitted", "scratch"] = "scratch"
    sizes: tuple[int, ...] = ()
    limit: float | None = None


ROW = Row("dft", {"front": Share(3, 0.5)}, sizes=(1, 2))


def test_what_is_written_is_read_back_with_its_types(tmp_path: Path) -> None:
    path = records.write(tmp_path / "new" / "row.json", asdict(ROW))
    assert records.load(path, "make it", Row) == ROW
    assert records.load(path, "make it") == json.loads(path.read_text())
    assert '"front": {"found": 3, "rate": 0.5}' in path.read_text().replace("{ ", "{").replace(" }", "}")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": 3}, "row.name must be a text, got 3"),
        ({"shares": {"front": {"found": 1.5, "rate": 1}}}, "row.shares.front.found must be a whole number, got 1.5"),
        ({"shares": {"front": {"found": True, "rate": 1}}}, "must be a whole number, got True"),
        ({"shares": {"front": 3}}, "Share is read from a dictionary of its fields, got int"),
        ({"kind": "other"}, "row.kind must be 'fitted' or 'scratch', got 'other'"),
        ({"sizes": [1, "x"]}, "row.sizes.1 must be a whole number, got 'x'"),
        ({"limit": "x"}, "row.limit must be a number or null, got 'x'"),
        ({"colour": 1}, "Row has no field colour"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    path = records.write(tmp_path / "row.json", {**asdict(ROW), **changes})
    refuses(says, records.load, path, "make it", Row)


def test_missing_and_damaged_records_say_how_to_make_them(tmp_path: Path) -> None:
    refuses(r"row.json is not recorded yet: run `make it`", records.load, tmp_path / "row.json", "make it")
    refuses(
        "run `python -m head3d_core x --out data/results/no.json`",
        records.read,
        "no",
        "python -m head3d_core x",
    )
    (tmp_path / "row.json").write_text("{")
    refuses(r"row.json is damaged .*: run `make it` again", records.load, tmp_path / "row.json", "make it")
    (tmp_path / "row.json").write_text('{"name": "x"}')
    refuses("Row lacks a field", records.load, tmp_path / "row.json", "make it", Row)


def test_whole_numbers_become_floats_where_floats_are_meant() -> None:
    share = nested.parsed(Share, {"found": 1, "rate": 1})
    assert isinstance(share.rate, float)
    assert nested.parsed(Row, ROW) is ROW


def test_provenance_names_what_numbers_come_from() -> None:
    found = records.provenance("a command", weights={"head3d": {"images": 3}}, encoder=None)
    assert {"command", "date", "commit", "device", "torch", "python"} <= set(found)
    assert found["weights"] == {"head3d": {"images": 3}}
    assert found["encoder"] is None
    assert not {"command", "weights"} & set(records.provenance(None))
