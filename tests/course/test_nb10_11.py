"""Notebooks 10a, 11a, 11b and 15, and the evidence that they and notebook 09 show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from helpers import distance, named, record
from PIL import Image
from test_ablations import row

from head3d_core.evaluation.rows import Row, Step
from head3d_core.utils.estimates import Estimate
from head3d_course import ablations, evidence, figures, nb10a, nb11a, nb11b, nb15, recorded
from head3d_course.ablations import COSINE, FRONT, FULL, FULL_FITTED

# --- nb10a ------------------------------------------------------------------------------------------------------------


def test_pictures_get_worse_as_named() -> None:
    images = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8)
    blurred = nb10a.damaged_pictures(images, "blurred").float()
    assert blurred.std() < 0.7 * images.float().std()
    assert not torch.equal(nb10a.damaged_pictures(images, "noisy"), images)
    assert torch.equal(nb10a.damaged_pictures(images, "mirrored").flip(-1), images)
    assert torch.equal(nb10a.damaged_pictures(images, "six people")[6:], images[:2])


def test_table_2_has_five_columns_and_says_what_is_missing() -> None:
    lines = nb10a.table_2({"head3d": record(2.04), "real": record(-0.01)}).splitlines()
    assert len(lines) == 2 + len(nb10a.TABLE_2)
    assert {line.count("|") for line in lines} == {6}
    assert lines[2].startswith("| real pictures | 0.0 |"), "no negative zero"
    assert lines[-1].startswith("| **Head3D** | 2.0 |")
    assert lines[-1].endswith("| 11.3 |")
    assert lines[3].count("not recorded yet") == 3
    axes = nb10a.kernel_figure({"head3d": record(1.0)}).axes
    assert [axis.get_title().split()[1] for axis in axes] == ["front", "back"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where recorded pictures are looked for."""
    monkeypatch.setattr(recorded, "EVALUATION", tmp_path)
    return tmp_path


def test_a_recorded_grid_has_names_or_a_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded.show_recorded("a.jpg", "a picture")
    assert "not recorded yet" in capsys.readouterr().out
    rows, columns = ["sample", "nearest"], ["z 1", "z 2", "z 3"]
    Image.new("RGB", (48, 32), (255, 0, 0)).save(folder / "a.jpg")
    shown: list[Any] = []
    monkeypatch.setattr(figures, "show", lambda figure, alt: shown.append(figure))
    recorded.show_recorded("a.jpg", "a red grid", 200, rows, columns)
    grid = np.array(shown[0].axes).reshape(2, 3)
    assert [axis.get_title() for axis in grid[0]] == columns
    assert [axis.get_ylabel() for axis in grid[:, 0]] == rows
    assert all((axis.images[0].get_array()[..., 0] > 250).all() for axis in grid.flat)


def test_a_damaged_set_is_shown_as_a_set() -> None:
    images = torch.arange(8, dtype=torch.uint8)[:, None, None, None].expand(8, 3, 16, 16) * 20
    sheet = nb10a.damage_example(torch.cat([images, images]), "six people")
    assert sheet.shape == (3, 16, 16)
    shown = ((sheet[0, ::4, ::4] + 1) * 127.5).flatten().round().tolist()
    assert shown == [20.0 * (k % 6) for k in range(16)]
    alone = nb10a.damage_example(images, "mirrored")
    assert torch.equal(alone, images[5].float() / 127.5 - 1)


def test_a_model_with_fewer_heads_leaves_white() -> None:
    shown = {"explicit (PCA mesh, as LYHM)": np.zeros((2, 3, 8, 8, 3), np.uint8)}
    shown["Head3D"] = np.zeros((1, 3, 8, 8, 3), np.uint8)
    axes = np.array(nb15.heads_figure(shown).axes).reshape(2, 6)
    assert [a.get_title() for a in axes[0]][3:] == ["head 2\nfront", "head 2\nside", "head 2\nbehind"]
    assert axes[1, 0].get_ylabel() == "Head3D"
    assert [a.images[0].get_array().max() for a in axes[1]] == [0, 0, 0, 255, 255, 255]


# --- nb11a ------------------------------------------------------------------------------------------------------------


def test_recorded_views_are_cut_where_they_belong(folder: Path) -> None:
    for name, columns in (("no-kd", 8), ("face", 5)):  # a pixel's value is 10 * row + column
        cells = (10 * np.arange(8)[:, None] + np.arange(columns)).astype(np.uint8)
        sheet = Image.fromarray(cells.repeat(6, 0).repeat(6, 1)).convert("RGB")
        sheet.save(folder / f"{name}_views.jpg", "PNG")
    views, face = nb11a.recorded_views("no-kd", (0.0, 180.0)), nb11a.recorded_views("face", (0.0,))
    assert views.shape == (8, 2, 3, 6, 6)
    number = ((views[:, :, 0, 0, 0] + 1) * 127.5).round().int()
    assert number.tolist() == [[10 * r, 10 * r + 4] for r in range(8)]
    assert round(float((face[3, 0, 0, 0, 0] + 1) * 127.5)) == 32
    assert nb11a.recorded_views("b", (0.0,)) is None
    assert nb11a.all_around(["b"], (0, 1)) is None
    figure = nb11a.all_around(["b", "no-kd", "c"], (3,), (0.0, 180.0))
    assert len(figure.axes) == 2, "the recorded row alone"
    assert figure.axes[0].get_ylabel() == "without L_kd"


def test_numbers_with_a_row_missing() -> None:
    records = named({FULL: row(2.1), FULL_FITTED: row(2.0), "no-kd": row(3.0, 0.6)})
    figure = nb11b.costs_figure(["no-kd", "no-gan-front"], ablations.MEASURES, records)
    assert [[text.get_text() for text in axis.texts] for axis in figure.axes] == [["not recorded yet"]] * 4
    nb11b.costs_figure(["no-kd"], ablations.MEASURES, {})
    again = named(records | {"head3d-seed1-fitted": row(2.3, 0.6)})
    figure = nb11b.costs_figure(["no-kd"], ablations.MEASURES[:1], again)
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert names == [
        "no part left out,\nother discriminators",
        "no part left out,\nseed 1",
        "without L_kd",
    ]
    bands = [p.get_x() for p in figure.axes[0].patches]
    assert bands == [pytest.approx(-0.1), pytest.approx(-0.3)], "other start, other seed"
    dots = [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_marker() not in ("None", "")]
    assert dots == [pytest.approx(-0.1), pytest.approx(0.3), pytest.approx(1.0)]
    mpl.pyplot.close("all")


def test_cards_say_what_the_paper_says_and_what_we_find() -> None:
    records = named({FULL: row(2.1), FULL_FITTED: row(2.0), "no-kd": row(3.0, 0.6)})
    text = nb11a.card("no-kd", records)
    assert "KID × 100 3.07 (Head3D 0.61), ID 0.10 (Head3D 0.65)" in text
    assert "4 of 4 in the paper" in text
    line = next(line for line in text.splitlines() if line.startswith("| KD front"))
    assert "+1.0" in line
    assert line.endswith("| suggests worse | worse: agrees |")
    assert nb11a.card_picture("two-sided", {}) is None
    assert nb11a.expected("single-d")[1] == {ablations.JANUS: "worse", nb11a.evidence.BEHIND: "worse"}
    assert nb11a.expected("two-sided") == ("not in the paper", {})


def test_brackets_stay_in_one_line() -> None:
    assert nb11a.short("single-d-seed1-fitted", 26) == "one discriminator\n(fitted\u00a0D,\u00a0seed\u00a01)"
    assert nb11a.short("all-planes-seed1-fitted", 17) == "all planes\ndistilled\n(seed\u00a01)"


def test_pairs_that_rise_are_solid() -> None:
    low, high = torch.tensor([0.1, 0.5]), torch.tensor([0.3, 0.4])
    lines = nb11b.pairs_figure({"a": low, "b": high}, "cosine").axes[0].lines
    assert [line.get_linestyle() for line in lines[:2]] == ["-", "--"]
    mpl.pyplot.close("all")


# --- gradient_sources -------------------------------------------------------------------------------------------------


def test_gradient_sources_of_every_row() -> None:
    """What section 2 of the notebook says."""
    said = {
        "head3d": {"front: F_xy": ["L_kd", "L_rgb", "L_lpips", "D_front"], "back: F_xz, F_yz": ["D_back"]},
        "no-kd": {"front: F_xy": ["L_rgb", "L_lpips", "D_front"], "back: F_xy": ["D_back"]},
        "no-gan-front": {"front: F_xz, F_yz": ["L_rgb", "L_lpips"]},
        "no-rgb-lpips": {"front: F_xz, F_yz": ["D_front"]},
        "all-planes": {"back: F_xz, F_yz": ["L_kd", "D_back"]},
        "single-d": {"back: F_xy": ["L_kd", "D_all"]},
        "dft": {"front: F_xy": ["D_all"]},
    }
    for name, places in said.items():
        heard = nb11a.gradient_sources(name, seed=1)
        assert {place: heard[place] for place in places} == places, name


# --- evidence ---------------------------------------------------------------------------------------------------------


def by_steps(*values: float) -> Row:
    """A row whose distance in steps of 15° from 90° on has these values, give or take 0.5."""
    steps = (Step(90 + 15 * k, 105 + 15 * k, distance(v, 0.5)) for k, v in enumerate(values))
    return Row("head3d", by_yaw=tuple(steps))


def test_steps_count_where_the_intervals_are_apart() -> None:
    rows = {"head3d-seed0-fitted": by_steps(9, 9, 9), "single-d-seed0-fitted": by_steps(9.9, 10.1, 7.0)}
    assert evidence.farther_steps(rows, "one discriminator") == [["105–120°"], []]
    assert evidence.farther_steps(rows, "all planes distilled") == [[], []]
    assert evidence.by_yaw(rows["head3d-seed0-fitted"])[90, 105].high == 9.5


def test_the_figure_has_a_line_a_run() -> None:
    rows = {name: by_steps(9, 10) for pair in evidence.PAIRS.values() for name in pair}
    figure = evidence.yaw_figure(rows, evidence.PAIRS)
    assert len(figure.axes[0].lines) == 6
    looks = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}
    assert len(looks) == 6
    assert figure.axes[0].lines[0].get_xdata().tolist() == [97.5, 112.5]
    assert len(evidence.yaw_figure({}, evidence.PAIRS).axes[0].lines) == 6, (
        "runs that are not recorded leave empty lines"
    )
    mpl.pyplot.close("all")


def ends(*pairs: tuple[float, float]) -> list[Estimate]:
    return [Estimate((low + high) / 2, low, high, 9) for low, high in pairs]


@pytest.mark.parametrize(
    ("found", "says", "where"),
    [
        (ends((0.1, 0.5), (0.2, 0.9)), "shows", "worse"),
        (ends((-0.5, -0.1), (-0.9, -0.2)), "shows", "better"),
        (ends((0.1, 0.5), (-0.2, 0.9)), "suggests", "worse"),
        (ends((0.1, 0.5)), "suggests", "worse"),
        (ends((-0.1, 0.5), (-0.2, 0.9)), "cannot tell", ""),
        (ends((0.1, 0.5), (-0.9, -0.2)), "cannot tell", ""),
        ([], "cannot tell", ""),
    ],
)
def test_verdicts_need_runs_on_one_side(found: list[Estimate], says: str, where: str) -> None:
    assert (evidence.verdict(found), evidence.direction(found)) == (says, where)
    other = {"worse": "better", "better": "worse", "": "worse"}[where]
    assert evidence.agreement(found, other) == ("differs" if where else "cannot tell")


def test_a_table_gives_the_sign_of_the_measure() -> None:
    records = named({FULL_FITTED: row(2.0, 0.8), "no-kd": row(3.0, 0.6)})
    lines = evidence.evidence_table(records, "no-kd", (FRONT, COSINE), {COSINE: "better"}).splitlines()
    assert lines[2].startswith("| KD front × 100 | 2.0 | +1.0 ± ")
    assert "| -0.20 ± " in lines[3], "less similar, not more"
    assert lines[3].endswith("| suggests worse | better: differs |")
    assert evidence.evidence_table({}, "no-kd").count("\n") == 1, "nothing recorded, nothing said"
    assert not evidence.differences({}, "no-kd", ablations.FRONT)


def test_the_measure_behind_is_of_two_steps() -> None:
    found = evidence.BEHIND.of(by_steps(1, 2, 3, 5, 9))
    assert found == Estimate(4.0, 3.5, 4.5, 1000)
    assert evidence.BEHIND.of(Row("a")) is None
    assert evidence.SECOND_FACE.of(Row("a")) is None
