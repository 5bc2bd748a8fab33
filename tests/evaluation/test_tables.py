"""Tables say what the records say, and what is not recorded."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from helpers import facts, rate, record

from head3d_core.evaluation import tables
from head3d_core.utils.errors import Head3DError


def test_every_row_of_the_comparison_has_a_name_and_a_command() -> None:
    from head3d_core.training.recipes import ROWS

    assert set(ROWS) <= set(tables.NAMES)
    shown = {*tables.TABLE_2, *tables.TABLE_3, *tables.FIGURE_8}
    assert shown == set(tables.NAMES)
    for row in tables.NAMES:
        assert "python -m head3d_core" in tables.command_of(row)
    assert "--row no-kd" in tables.command_of("no-kd")
    # Bundled weights hold no discriminator, so no row can start from `face` and `head`.
    assert "--teacher runs/teacher --head runs/head" in tables.command_of("no-kd")
    with pytest.raises(Head3DError, match="no row called"):
        tables.command_of("best")


def test_the_papers_numbers() -> None:
    paper = tables.load_paper()
    assert paper["table 2"]["head3d"]["FID"] == 11.34
    assert paper["table 3"]["no-kd"]["ID"] == 0.10
    assert set(paper["table 2"]) <= set(tables.TABLE_2)
    assert set(paper["table 3"]) == set(tables.TABLE_3)
    assert paper["table 1"]["rows"][0][3:] == [0.535, 0.968]


def test_an_empty_table_says_so() -> None:
    text = tables.table_2({})
    assert text.count(tables.NOT_YET) == len(tables.TABLE_2)
    assert "11.34" in text
    assert tables.NOT_YET in tables.figure_5({})


def test_a_recorded_row_shows_its_numbers() -> None:
    text = tables.table_2({"head3d": record(1.234)})
    line = next(x for x in text.splitlines() if "**Head3D**" in x)
    for part in (
        "0.61",
        "1.234 [1.224, 1.244]",
        "98.0 % [97.0, 99.0]",
        "99.5 %",
        "200,000 / 12 min",
        "floor 20.0",
    ):
        assert part in line, part
    lost = copy.deepcopy(record(1.0))
    del lost["identity"], lost["closed"]
    assert "–" in tables.table_3({"no-kd": lost})
    widths = {len(x.split("|")) for x in text.splitlines()}
    assert len(widths) == 1, "every line has as many cells"


def test_the_floor_is_shown_with_its_own_n() -> None:
    """It stands on halves of the real set, so on fewer pictures than the distance beside it."""
    one = record(1.0)
    one["distance"]["front"]["frechet"]["count"] = 5000
    one["distance"]["front"]["frechet_floor"]["count"] = 2500
    assert "60.0 at N = 5,000 (floor 20.0 at N = 2,500)" in tables.table_2({"head3d": one})


def test_every_row_says_how_many_samples_it_has() -> None:
    few = record(1.0)
    few["detector"]["front"] = rate(60, 64)
    for text in (tables.table_2({"head3d": few}), tables.figure_8({"head3d": few})):
        line = next(x for x in text.splitlines() if "**Head3D**" in x)
        assert line.endswith("| 200,000 / 12 min | 1,000 / 64 |")
    real = record(1.0)
    del real["distance"]["front"]
    assert "| real pictures | – | – | – | 1.000 [" in tables.table_2({"real": real})
    lost = record(1.0) | {"missing": {"hats and glasses": "no training pictures"}}
    assert "no training pictures" in tables.figure_5({"head3d": lost})


def test_a_second_seed_stands_below_its_row() -> None:
    rows = {
        "head3d": record(1.0),
        "head3d-seed1": record(1.1) | {"row": "head3d"},
        "dft": record(3.0) | facts("dft"),
    }
    lines = tables.table_2(rows).splitlines()
    assert [line.split("|")[1].strip() for line in lines[-2:]] == ["**Head3D**", "head3d-seed1"]


def test_hats_and_glasses() -> None:
    one = {
        "probe": {"recall": rate(950), "false": rate(12)},
        **{k: rate(v) for k, v in (("teacher", 130), ("again", 940), ("student", 610), ("chance", 80))},
    }
    text = tables.figure_5({"head3d": {"worn": {"hat": one, "glasses": {"missing": "too few"}}}})
    assert "61.0 %" in text
    assert "too few" in text


def test_order_against_the_papers() -> None:
    paper = tables.load_paper()["table 3"]
    values = {"no-kd": 3.0, "no-gan-front": 2.5, "no-rgb-lpips": 1.3, "head3d": 0.6}
    rows = {name: record(v) for name, v in values.items()}
    assert tables.disagreements(tables.TABLE_3, rows, paper) == []
    rows["no-kd"] = record(1.0)
    found = tables.disagreements(tables.TABLE_3, rows, paper)
    assert any("no-kd is better than no-gan-front" in x for x in found)
    rows["no-rgb-lpips"] = record(0.7, spread=0.5)
    assert any("undecided" in x for x in tables.disagreements(tables.TABLE_3, rows, paper))
    assert tables.disagreements(tables.TABLE_3, {}, paper) == []


def test_records_are_read_by_name(tmp_path: Path) -> None:
    assert tables.load_records(tmp_path / "none") == {}
    (tmp_path / "head3d.json").write_text(json.dumps(record(1.0)))
    assert list(tables.load_records(tmp_path)) == ["head3d"]
    (tmp_path / "dft.json").write_text("{")
    with pytest.raises(Head3DError, match="is damaged"):
        tables.load_records(tmp_path)


def test_what_each_whole_head_needed(tmp_path: Path) -> None:
    text = tables.parametric_data()
    assert "| explicit | 50 | 24 | yes | 50 | none |" in text
    assert "| **Head3D** | 50 | 96 | no | none | one picture each, with its camera |" in text
    assert tables.NOT_YET in tables.parametric_data(tmp_path / "nothing.json")


def test_the_digest_changes_with_a_record_or_a_picture(tmp_path: Path) -> None:
    (tmp_path / "evaluation").mkdir()
    found = {tables.digest(tmp_path)}
    for name in ("evaluation/a.json", "evaluation/a.jpg", "parametric.json", "bench.json"):
        (tmp_path / name).write_bytes(b"1\n")
        found.add(tables.digest(tmp_path))
    assert len(found) == 4, "bench.json is not shown there"
    (tmp_path / "evaluation" / "a.json").write_bytes(b"1\r\n")
    assert tables.digest(tmp_path) in found, "line ends of another system"
