"""Notebooks 10a, 10b and 15: damages, distances, rates, and what their figures are drawn from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import record
from PIL import Image

from head3d_core.course import figures, nb10a, nb15, recorded
from head3d_core.metrics.distances import kernel_distance
from head3d_core.utils.estimates import Estimate


def test_damage_is_seen_by_the_kernel_distance() -> None:
    real = nb10a.toy_sample(400, 0)
    clean = kernel_distance(real, nb10a.toy_sample(400, 1), 20)
    assert abs(clean.value) < 0.2
    for damage in ("shifted", "one mode", "copies"):
        worse = kernel_distance(real, nb10a.toy_sample(400, 1, damage=damage), 20)
        assert worse.value > 3 * abs(clean.value), damage
    assert len(nb10a.toy_sample(30, 1, damage="copies").unique(dim=0)) == 6


def test_frechet_has_a_floor_and_the_kernel_distance_none() -> None:
    small, large = nb10a.distances_of_equal([40, 640], width=16)
    assert small[1].value > 5 * large[1].value > 0
    assert small[0].low < 0 < small[0].high


def test_pictures_get_worse_as_named() -> None:
    images = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8)
    blurred = nb10a.damaged_pictures(images, "blurred").float()
    assert blurred.std() < 0.7 * images.float().std()
    assert not torch.equal(nb10a.damaged_pictures(images, "noisy"), images)
    assert torch.equal(nb10a.damaged_pictures(images, "mirrored").flip(-1), images)
    assert torch.equal(nb10a.damaged_pictures(images, "six people")[6:], images[:2])


def test_figures_are_drawn() -> None:
    figures.dots_figure({"a": Estimate(1, 0.5, 1.5, 10)}, "x")
    counts = [20, 40]
    nb10a.floor_figure(counts, nb10a.distances_of_equal(counts, 4))
    nb10a.toy_figure({"a": torch.randn(4, 2), "b": torch.randn(4, 2)})
    figures.histogram({"a": torch.rand(5), "b": torch.rand(9)}, "x", 0.5)


def test_table_2_has_five_columns_and_says_what_is_missing() -> None:
    lines = nb10a.table_2({"head3d": record(2.04), "real": record(-0.01)}).splitlines()
    assert len(lines) == 2 + len(nb10a.ROWS)
    assert {line.count("|") for line in lines} == {6}
    assert lines[2].startswith("| real pictures | 0.0 |"), "no negative zero"
    assert lines[-1].startswith("| **Head3D** | 2.0 |")
    assert lines[-1].endswith("| 11.3 |")
    assert lines[3].count("not recorded yet") == 3
    axes = nb10a.kernel_figure({"head3d": record(1.0)}).axes
    assert [axis.get_title().split()[1] for axis in axes] == ["front", "back"]


def test_a_recorded_picture_or_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert recorded.recorded_picture("nothing.jpg", tmp_path) is None
    recorded.show_recorded("nothing.jpg", "a picture", folder=tmp_path)
    assert "not recorded yet" in capsys.readouterr().out
    Image.new("RGB", (8, 4), (255, 0, 0)).save(tmp_path / "red.png")
    picture = recorded.recorded_picture("red.png", tmp_path)
    assert picture is not None
    assert picture.shape == (3, 4, 8)
    assert picture[:, 0, 0].tolist() == [1, -1, -1]


def test_a_recorded_grid_has_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, columns = ["sample", "nearest"], ["z 1", "z 2", "z 3"]
    Image.new("RGB", (48, 32), (255, 0, 0)).save(tmp_path / "a.jpg")
    shown: list[Any] = []
    monkeypatch.setattr(figures, "show", lambda figure, alt, **_: shown.append(figure))
    recorded.show_recorded("a.jpg", "a red grid", 200, rows, columns, tmp_path)
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
