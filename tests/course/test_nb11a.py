"""Notebooks 11a and 11b: what cards and figures are made from, and that missing rows don't stop them."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import pytest
import torch
from helpers import named
from PIL import Image
from test_ablations import row

from head3d_core.course import nb11a, nb11b
from head3d_core.evaluation import ablations
from head3d_core.evaluation.ablations import FULL, FULL_FITTED

ROWS = ["no-kd", "no-gan-front", FULL_FITTED]


def words(figure: object) -> str:
    return " ".join(text.get_text() for text in figure.findobj(mpl.text.Text))  # type: ignore[attr-defined]


def sheet(path: Path, columns: int, side: int = 6) -> None:
    """A grid whose pixel value says row and column: 10 * row + column."""
    cells = torch.tensor([[10 * r + c for c in range(columns)] for r in range(8)], dtype=torch.uint8)
    pixels = cells.repeat_interleave(side, 0).repeat_interleave(side, 1)
    Image.fromarray(pixels.numpy()).convert("RGB").save(path)


def test_recorded_views_are_cut_where_they_belong(tmp_path: Path) -> None:
    sheet(tmp_path / "a_views.png", 8)
    sheet(tmp_path / "f_views.png", 5)
    for name in ("a", "f"):
        (tmp_path / f"{name}_views.png").rename(tmp_path / f"{name}_views.jpg")
    views = nb11a.recorded_views("a", (0.0, 180.0), tmp_path)
    assert views is not None
    assert views.shape == (8, 2, 3, 6, 6)
    number = ((views[:, :, 0, 0, 0] + 1) * 127.5).round().int()
    assert number[:, 0].tolist() == [10 * r for r in range(8)]
    assert number[:, 1].tolist() == [10 * r + 4 for r in range(8)]
    face = nb11a.recorded_views("f", (0.0,), tmp_path)
    assert face is not None
    assert round(float((face[3, 0, 0, 0, 0] + 1) * 127.5)) == 32
    assert nb11a.recorded_views("b", (0.0,), tmp_path) is None
    assert nb11a.all_around(["b"], (0, 1), folder=tmp_path) is None
    assert nb11a.all_around(["b"], (0,), (0.0,), tmp_path) is None
    figure = nb11a.all_around(["b", "a", "c"], (3,), (0.0, 180.0), tmp_path)
    assert figure is not None
    assert len(figure.axes) == 2, "the recorded row alone"
    assert figure.axes[0].get_ylabel() == "a"
    assert "without L_kd" in words(_named(tmp_path))


def _named(folder: Path) -> object:
    (folder / "a_views.jpg").rename(folder / "no-kd_views.jpg")
    figure = nb11a.all_around(["no-kd", "no-gan-front"], (0, 5), folder=folder)
    assert figure is not None
    assert len(figure.axes) == 2
    return figure


def test_numbers_with_a_row_missing() -> None:
    records = named({FULL: row(2.1), FULL_FITTED: row(2.0), "no-kd": row(3.0, 0.6)})
    figure = nb11b.costs_figure(ROWS[:2], ablations.MEASURES, records)
    assert len(figure.axes) == 4
    assert words(figure).count("not recorded yet") == 4
    nb11b.costs_figure(ROWS[:2], ablations.MEASURES, {})
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


def test_what_is_gone_and_what_is_new() -> None:
    place = {"front: F_xy": ["L_kd", "D_front"]}
    text = nb11a.speakers_table({FULL: place, "no-kd": {"front: F_xy": ["D_all", "D_front"]}})
    assert text.splitlines()[-1] == "| without L_kd | ~~L_kd~~, D_front, **D_all** |"


def test_pairs_that_rise_are_solid() -> None:
    low, high = torch.tensor([0.1, 0.5]), torch.tensor([0.3, 0.4])
    lines = nb11b.pairs_figure({"a": low, "b": high}, "cosine").axes[0].lines
    assert [line.get_linestyle() for line in lines[:2]] == ["-", "--"]
    mpl.pyplot.close("all")
