"""Tables say what the records say, and what is not recorded."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
from helpers import behind, distance, estimate, identity, rate, record, refuses

import results_page
from head3d_core.evaluation import rows, tables
from head3d_core.evaluation.rows import Accessory, Probe, Row
from head3d_core.utils.estimates import share


def test_every_row_of_the_comparison_has_a_name_and_a_command() -> None:
    from head3d_core.training.recipes import ROWS

    assert set(ROWS) <= set(tables.NAMES)
    shown = {*tables.TABLE_2, *tables.TABLE_3, *tables.FIGURE_8}
    assert shown == set(tables.NAMES)
    for row in tables.NAMES:
        assert "python -m head3d_core" in results_page.command_of(row)
    assert "--row no-kd" in results_page.command_of("no-kd")
    # Bundled weights hold no discriminator, so no row can start from `face` and `head`.
    assert "--teacher runs/teacher --head runs/head" in results_page.command_of("no-kd")
    images_of = {"two-sided": 250_000, "two-sided-shared": 200_000, "two-sided-single-d": 200_000}
    for row, images in images_of.items():
        assert f"--recipe.images {images} " in results_page.command_of(row), "as recorded"


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
    assert tables.NOT_YET in results_page.figure_5({})


def test_a_recorded_row_shows_its_numbers() -> None:
    text = tables.table_2({"head3d": record(1.234)})
    line = next(x for x in text.splitlines() if "**Head3D**" in x)
    shown = ("0.61", "1.234 [1.224, 1.244]", "98.0 % [97.0, 99.0]", "5.0 % [4.0, 6.0]", "200,000 / 12 min")
    for part in (*shown, "floor 20.0"):
        assert part in line, part
    assert "–" in tables.table_3({"no-kd": record(1.0, identity=None, behind=None)})
    widths = {len(x.split("|")) for x in text.splitlines()}
    assert len(widths) == 1, "every line has as many cells"


def test_the_floor_is_shown_with_its_own_n() -> None:
    """It stands on halves of the real set, so on fewer pictures than the distance beside it."""
    found = {"frechet": estimate(60.0, count=5000), "frechet_floor": estimate(20.0, count=2500)}
    one = record(1.0, distance={"front": distance(1.0, **found)})
    assert "60.0 at N = 5,000 (floor 20.0 at N = 2,500)" in tables.table_2({"head3d": one})


def test_every_row_says_how_many_samples_it_has() -> None:
    few = record(1.0, detector={"front": rate(60, 64), "back": rate(1, 64)})
    for text in (tables.table_2({"head3d": few}), tables.figure_8({"head3d": few})):
        line = next(x for x in text.splitlines() if "**Head3D**" in x)
        assert line.endswith("| 200,000 / 12 min | 1,000 / 64 |")
    real = record(1.0, distance={"back": distance(1.0, real_heads=50)})
    assert "| real pictures | – | – | – | 1.000 [" in tables.table_2({"real": real})
    lost = record(1.0, missing={"hats and glasses": "no training pictures"})
    assert "no training pictures" in results_page.figure_5({"head3d": lost})


def test_a_second_seed_stands_below_its_row() -> None:
    found = {"head3d": record(1.0), "head3d-seed1": record(1.1), "dft": record(3.0, row="dft")}
    lines = tables.table_2(found).splitlines()
    assert [line.split("|")[1].strip() for line in lines[-2:]] == ["**Head3D**", "head3d-seed1"]


def test_hats_and_glasses() -> None:
    """Of finds at about the probe's own false rate half are false, which the table says."""
    shares = {k: rate(v) for k, v in (("again", 940), ("student", 610), ("chance", 80))}
    hat = Accessory(None, Probe(rate(1000), rate(14), 0.99, 0.117), teacher=rate(28), **shares)
    lost = Accessory("too few")
    text = results_page.figure_5({"head3d": record(1.0, accessories={"hat": hat, "glasses": lost})})
    assert "61.0 %" in text
    assert "| 11.7 % | 2.8 % [1.8, 3.8] | 51 % |" in text
    assert "too few" in text
    assert results_page.likely_true(0.0254, 1.0, 0.001) == pytest.approx(0.961, abs=1e-3)
    assert results_page.likely_true(0.0, 1.0, 0.001) is None


def test_backs_to_more_heads_stand_in_a_column_of_their_own() -> None:
    old = record(1.0, back=7.0)
    old.distance["back, 500 heads"] = distance(6.5, real_heads=500)
    new = record(1.0, distance={"front": distance(1.0), "back": distance(6.4, real_heads=500)})
    for row, cells in ((old, "7.000 [6.990, 7.010] | 6.500"), (new, "– | 6.400")):
        assert cells in tables.figure_8({"head3d": row})


def test_second_faces_stand_beside_real_heads_own_rate() -> None:
    records = {"head3d": record(1.0, behind=behind(700)), "real": record(0.0, behind=behind(51), row="real")}
    for text in (tables.table_2(records), tables.table_3(records), tables.figure_8(records)):
        assert "eyes behind (real: 5.1 % [4.1, 6.1])" in text
        assert "70.0 % [69.0, 71.0]" in text
    kinds = {"heads": behind(40), "faces": behind(60)}
    records["real"] = dataclasses.replace(records["real"], behind_of=kinds)
    text = tables.backs(records)
    assert "| real heads, fresh | 4.0 %" in text
    assert "| real people, fresh | 6.0 %" in text
    assert tables.NOT_YET in tables.backs({})


def test_mapping_cameras_stand_side_by_side() -> None:
    row = record(2.0, ratios={"front, rendering / frontal": estimate(0.8)})
    row.distance["front, rendering"] = distance(1.6)
    text = results_page.mapping_cameras({"head3d": row, "dft": record(3.0, row="dft")})
    assert "| 2.000 [1.990, 2.010] | 1.600 [1.590, 1.610]; 0.80 [0.79, 0.81] × |" in text
    assert "DFT" not in text
    assert tables.NOT_YET in results_page.mapping_cameras({})


def test_two_encoders_that_disagree_are_named() -> None:
    def row(ours: float, dlib: float) -> Row:
        return record(1.0, identity=identity(auc=ours), identity_dlib=identity(auc=dlib))

    alike = {"head3d": row(0.99, 0.9), "dft": row(0.7, 0.6), "fh": row(0.695, 0.5)}
    text = tables.second_opinion(alike)
    assert "they contradict each other in none, and 1 are open" in text
    against = alike | {"dft": row(0.7, 0.95)}
    assert "they order head3d and dft in opposite ways" in tables.second_opinion(against)
    assert tables.NOT_YET in tables.second_opinion({"a": record(1.0)})


def test_records_are_read_by_name(tmp_path: Path) -> None:
    assert rows.load_rows(tmp_path / "none") == {}
    one = record(1.0, closed=share(0, 0))
    written = rows.write_row(tmp_path / "head3d.json", one)
    assert math.isnan(written.closed.value if written.closed else 0), "null is no number"
    first = dataclasses.replace(written, closed=None)
    assert rows.write_row(tmp_path / "head3d.json", first) == first, "six digits, once"
    assert first.distance["front"].kernel == one.distance["front"].kernel
    assert rows.load_rows(tmp_path).keys() == {"head3d"}
    (tmp_path / "dft.json").write_text("{")
    refuses("is damaged", rows.load_rows, tmp_path)
    (tmp_path / "dft.json").write_text('{"row": "dft", "fid": 3}')
    refuses("no field fid", rows.load_rows, tmp_path)


def test_every_stored_record_is_a_row() -> None:
    stored = rows.load_rows()
    assert {"real", "face", "head", "head3d", "plane-swap"} <= stored.keys()
    for name, row in stored.items():
        assert row.provenance["command"].startswith("python -m head3d_core evaluate"), name


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
