"""Condensing logs: what a resume throws away, half-written lines, thinning, pictures, and the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import refuses
from PIL import Image

import curves
from head3d_core.training.train import GRID_YAWS


def start(images: int, **changes: Any) -> dict[str, Any]:
    return {
        "event": "start",
        "images": images,
        "args": {"stage": "head", "preset": "tiny", "seed": 3, "row": None, **changes},
        "device": "cpu",
        "recipe": {"batch": 4},
    }


def progress(images: int, seconds: float, **values: float) -> dict[str, Any]:
    return {"event": "progress", "images": images, "seconds": seconds, **values}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two sessions: the first was killed at 300 images, the second resumed from the snapshot at 200."""
    lines = [
        start(0),
        *(progress(n, n / 10, kd=float(n), rate=10.0) for n in (100, 200, 300)),
        {"event": "metrics", "images": 150, "count": 50, "KD x100 front": 9.0},
        {"event": "metrics", "images": 300, "count": 50, "KD x100 front": 8.0},
        start(200),
        *(progress(n, (n - 200) / 10, kd=-1.0, rate=20.0) for n in (300, 400)),
        {"event": "end", "images": 400, "reason": "done", "seconds": 25.0},
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def test_a_resume_replaces_what_the_interrupted_session_did(run: Path) -> None:
    found = curves.condense(run)
    assert found["images"] == [100, 200, 300, 400]
    assert found["series"]["kd"] == [100.0, 200.0, -1.0, -1.0], "the first session's 300 is gone"
    about = found["provenance"]
    assert about["images"] == 400
    assert about["seconds"] == 30.0 + 25.0, "but its time was spent"
    assert about["sessions"] == 2
    assert (about["stage"], about["preset"], about["seed"]) == ("head", "tiny", 3)
    assert about["commit"] == "not recorded", "an old log"
    assert about["ended"] == "done"
    assert about["processes"] == []
    assert about["axes"] is None
    assert found["metrics"] == {"images": [150], "series": {"KD x100 front": [9.0]}}


def test_every_session_names_its_commit_and_how_many_worked_together(run: Path) -> None:
    """Two sessions on other code and another number of GPUs: the last one's alone would be wrong for most images."""
    path = run / "log.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    starts = [e for e in lines if e["event"] == "start"]
    for line, commit, world in zip(starts, ("abc", "def"), (2, 1), strict=True):
        line |= {"commit": commit, "world": world}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    about = curves.condense(run)["provenance"]
    assert about["commit"] == "abc, def"
    assert about["processes"] == [1, 2]


def test_half_written_lines_are_counted(run: Path) -> None:
    with open(run / "log.jsonl", "a", encoding="utf8") as file:
        file.write('{"event": "progr')
    assert curves.condense(run)["half_written_lines"] == 1


def test_thinning_keeps_means_over_equal_spans() -> None:
    lines = [progress(n, 0.0, a=float(n), **({"b": 1.0} if n == 100 else {})) for n in range(10, 101, 10)]
    found = curves.thin(lines, points=2)
    assert found == {"images": [40, 100], "series": {"a": [25.0, 75.0], "b": [None, 1.0]}}


def test_values_that_are_not_finite_are_left_out() -> None:
    found = curves.thin([progress(1, 0, a=float("nan")), progress(2, 0, a=2.0)], points=1)
    assert found["series"]["a"] == [2.0]


def test_pictures_and_command(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for k, images in enumerate((100, 200, 300, 400, 500)):
        grid = np.full((6 * 16, len(GRID_YAWS) * 16, 3), 40 * k, np.uint8)
        Image.fromarray(grid).save(run / f"grid-{images:010d}.png")
    out = run / "curves_head.json"
    curves.run(run, out, points=2)
    assert "400 images, 2 points" in capsys.readouterr().out
    found = json.loads(out.read_text())
    assert found["pictures"]["progress"]["images"] == [100, 200, 400, 500]
    with Image.open(run / found["pictures"]["progress"]["file"]) as sheet:
        assert sheet.size == (8 * 112, 4 * 112)
        pixels = np.asarray(sheet, np.int64)
    assert abs(pixels[:112]).max() < 5, "the first grid is black"
    assert abs(pixels[-112:] - 160).max() < 5
    with Image.open(run / found["pictures"]["last"]["file"]) as sheet:
        assert sheet.size == (len(GRID_YAWS) * 128, 4 * 128)
    curves.run(run, out, side=96)
    with Image.open(run / found["pictures"]["last"]["file"]) as sheet:
        assert sheet.size == (len(GRID_YAWS) * 96, 4 * 96)
    refuses("at least 8 pixels", curves.run, run, out, side=0)


def test_a_run_without_a_log_is_one_sentence(tmp_path: Path) -> None:
    refuses("there is no log", curves.condense, tmp_path)
    (tmp_path / "log.jsonl").write_text(json.dumps(start(0)) + "\n")
    refuses("has the run trained at all", curves.condense, tmp_path)
    refuses("has the run trained at all", curves.run, tmp_path, tmp_path / "x.json")
    assert not (tmp_path / "x.json").exists()
