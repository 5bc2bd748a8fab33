"""Figures and records of the training notebooks: drawn from what is recorded, and a sentence about what is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import refuses
from PIL import Image

from head3d_core.metrics.verification import most_alike
from head3d_core.utils import files
from head3d_course import figures, nb07, recorded


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A small record with a gap in one curve and two pictures."""
    found = {
        "provenance": {
            "stage": "distill", "row": "no-kd", "preset": "tiny", "seed": 1, "images": 4000, "seconds": 120.0,
            "device": "cpu", "date": "2026-01-02", "commit": "abc", "batch": 4,
        },
        "recipe": {"images": 8000},
        "images": [1000, 2000, 3000, 4000],
        "series": {"g_gan_front": [4.0, 3.0, 2.0, 1.0], "r1_front": [1.0, None, 3.0, None]},
        "pictures": {
            "progress": {"file": "p.jpg", "images": [1000, 4000], "samples": 2},
            "last": {"file": "l.jpg", "images": 4000, "yaws": [0.0, 180.0]},
        },
    }  # fmt: skip
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "curves_x.json").write_text(json.dumps(found))
    Image.fromarray(np.zeros((32, 64, 3), np.uint8)).save(tmp_path / "results" / "p.jpg")
    sheet = np.zeros((48, 32, 3), np.uint8)
    sheet[:, 16:] = 255
    Image.fromarray(sheet).save(tmp_path / "results" / "l.jpg", quality=95)
    monkeypatch.setattr(recorded, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(files, "DATA", tmp_path)
    return found


def test_a_record_is_read_and_a_missing_one_is_told(found: dict[str, Any]) -> None:
    assert recorded.record("curves_x") == found
    refuses("curves_y", recorded.record, "curves_y")
    line = recorded.record_line(found)
    for part in ("distill, row no-kd", "4,000 of 8,000 planned", "2 minutes", "cpu", "abc"):
        assert part in line
    found["provenance"]["processes"] = [2, 1]
    assert "2 minutes, 1 and 2 × cpu," in recorded.record_line(found)


def test_gaps_are_left_out_and_ends_averaged(found: dict[str, Any]) -> None:
    x, y = recorded.values(found, "r1_front")
    assert (x.tolist(), y.tolist()) == ([1000.0, 3000.0], [1.0, 3.0])
    assert recorded.early_and_late(found, "g_gan_front", 0.5) == (3.5, 1.5)
    assert len(recorded.values(found, "nothing")[0]) == 0


def test_curves_have_labels_and_styles_of_their_own(found: dict[str, Any]) -> None:
    figure = recorded.training_curves(found, (*recorded.panels_for("front"), *recorded.DISTILL_PANELS))
    lines = figure.axes[0].get_lines()
    assert [line.get_label() for line in lines] == ["generator", "discriminator"]
    assert len({line.get_linestyle() for line in lines}) == 2, "not by colour alone"
    assert lines[0].get_markevery() == 1, "single points are seen"
    assert lines[0].get_xdata().tolist() == [1000.0, 2000.0, 3000.0, 4000.0]
    found["images"] = [10_000, 20_000, 30_000, 40_000]
    in_thousands = recorded.training_curves(found, recorded.panels_for("front")).axes[0]
    assert in_thousands.get_lines()[0].get_xdata().tolist() == [10.0, 20.0, 30.0, 40.0]
    assert "thousands" in in_thousands.get_xlabel()
    live = {"images": [4.0, 8.0], "series": {"kd": [2.0, 1.0]}}
    assert recorded.values(live, "kd")[1].tolist() == [2.0, 1.0]


def test_pictures_of_a_record(found: dict[str, Any]) -> None:
    assert len(recorded.progress_picture(found).axes) == 8
    cells = recorded.last_cells(found)
    assert cells.shape == (3, 2, 3, 16, 16)
    assert cells[:, 0].max() < -0.9
    assert cells[:, 1].min() > 0.9
    assert len(recorded.last_picture(found).axes) == 6
    found["pictures"]["last"]["file"] = "gone.jpg"
    refuses("is missing: run git restore", recorded.last_picture, found)


def test_images_are_stored_as_large_as_they_are_shown() -> None:
    for size, side in ((1.3, 130), (0.5, 112)):
        grid = figures.image_grid([torch.zeros(2, 3, 256, 256)], ["a", "b"], size=size, rows=["row"])
        assert grid.axes[0].get_images()[0].get_array().shape == (side, side, 3)


def test_alike_pairs_carry_their_cosines() -> None:
    random = torch.Generator().manual_seed(0)
    crowd = {name: torch.rand(6, 3, 16, 16, generator=random) for name in ("face", "head")}
    faces = {name: torch.randn(6, 4, generator=random) for name in crowd}
    figure = nb07.alike_figure(crowd, faces, count=2)
    pairs = [pair for name in crowd for pair in most_alike(faces[name], 2)]
    titles = [axis.get_title() for axis in figure.axes if axis.images]
    assert len(titles) == 8
    assert [t.split("\n")[0] for t in titles[:2]] == [f"face {k + 1}" for k in pairs[0][:2]]
    for title, (*_, cosine) in zip(titles[::2], pairs, strict=True):
        assert f"cosine {cosine:.2f}" in title


@pytest.mark.parametrize("path", sorted((files.DATA / "results").glob("curves_*.json")), ids=lambda p: p.stem)
def test_shipped_records_are_whole(path: Path) -> None:
    found = recorded.record(path.stem)
    assert recorded.record_line(found)
    assert all(len(v) == len(found["images"]) for v in found["series"].values())
    for picture in found.get("pictures", {}).values():
        assert (path.parent / picture["file"]).is_file()


def test_only_panels_that_span_decades_are_logarithmic() -> None:
    """A small term beside a large one would be a flat line; signs and distances that cross 0 must stay linear."""
    found = {
        "images": [1, 2, 3],
        "series": {
            "kd": [60.0, 5.0, 0.7],
            "sign": [-1.0, 0.5, 60.0],
            "rgb": [0.4, 0.3, 0.2],
            "ada_p_all": [0.001, 0.1, 0.2],
        },
    }
    panels = [(name, ((name, f"of {name}"),)) for name in found["series"]]
    axes = recorded.training_curves(found, panels, columns=4).axes
    assert [axis.get_yscale() for axis in axes] == ["log", "linear", "linear", "linear"]
    assert [axis.get_ylabel() for axis in axes] == [f"of {name}" for name in found["series"]], (
        "instead of a legend"
    )
