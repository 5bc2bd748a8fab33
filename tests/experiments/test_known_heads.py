"""The studies `invert`, `geometry` and `walk` at toy size: what they record, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import refuses, untrained_encoder, visible
from PIL import Image

from head3d_core import cli
from head3d_core.checkpoints import weights as checkpoint
from head3d_core.experiments import known_heads, latent, study
from head3d_core.model import cameras
from head3d_core.utils import records


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    return str(checkpoint.save_generator(visible(3), path, notes={"images": 12}))


def test_errors_are_grouped_by_side() -> None:
    errors = torch.tensor([0.1, 0.3, 0.5, 0.7])
    groups = known_heads.by_side(torch.tensor([0.0, 45.0, 90.0, 180.0]), errors)
    assert list(groups.values()) == [0.3, 0.5, 0.7], "the fitted view is not one of the others"
    assert known_heads.by_side(torch.tensor([0.01]), errors[:1]) == {}


def test_bundled_heads_are_views_of_one_head() -> None:
    images, camera = known_heads.sample_head(2)
    assert images.shape == (12, 3, 256, 256)
    assert camera.shape == (12, 25)
    assert float(images.amax()) <= 1
    assert bool((images[:, :, 0, 0] > 0.9).all()), "white behind"
    yaw = cameras.yaw_pitch(camera)[0]
    assert float(yaw.min()) < -2 < 2 < float(yaw.max()), "from all sides"
    refuses("8 bundled heads", known_heads.sample_head, 8)


@pytest.mark.opengl
def test_invert_records_codes_cameras_and_surfaces(weights: str, tmp_path: Path) -> None:
    out = tmp_path / "inversion.json"
    words = (
        f"invert --weights {weights} --heads 1 --steps 3 --layer-steps 3 --candidates 2 --out {out}".split()
    )
    assert cli.main(words) == 0
    found = json.loads(out.read_text())
    row = found["models"][weights]["known camera"][0]
    assert len(row["loss"]) == 6
    assert set(row["layers"]["by side"]) == set(known_heads.SIDES)
    assert set(row["w"]["by side"]) == set(known_heads.SIDES)
    assert row["w"]["surface"]["chamfer"] > 0
    unknown = found["models"][weights]["unknown camera"][0]
    assert len(unknown["yaw error"]) == 6
    assert found["provenance"]["weights"][weights] == {"images": 12}
    with Image.open(out.with_suffix(".jpg")) as picture:
        shown = np.asarray(picture)
    assert shown.shape[0] == 30 + 3 * known_heads.CELL, "the truth, w and layers"
    assert shown.shape[1] > 5 * known_heads.CELL, "five sides, with names beside them"


def test_geometry_records_closedness_and_surfaces(weights: str, tmp_path: Path) -> None:
    args = known_heads.GeometryArgs(
        weights=(weights,),
        heads=2,
        meshes=1,
        resolution=16,
        out=tmp_path / "g.json",
    )
    known_heads.run_geometry(args)
    row = json.loads(args.out.read_text())["models"][weights]
    assert 0 <= row["closedness"]["low"] <= row["closedness"]["value"] <= row["closedness"]["high"] <= 1
    assert len(row["surfaces"]) == 1
    refuses(
        "at least 2 heads",
        known_heads.measure_geometry,
        known_heads.GeometryArgs(weights=(weights,), heads=1),
    )


def test_walk_records_paths_and_truncation(
    weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latent, "load_encoder", lambda device: untrained_encoder())
    monkeypatch.setattr(
        latent.face_detector,
        "face_probability",
        lambda images, device: torch.linspace(0, 1, len(images)),
    )
    args = latent.WalkArgs(
        weights=(weights,), pairs=2, steps=5, psi=(0.0, 1.0), heads=3, out=tmp_path / "l.json"
    )
    latent.run(args)
    found = json.loads(args.out.read_text())
    row = found["models"][weights]
    curve = row["path"]["mean curve"]
    assert len(curve) == 5
    assert curve[0] == pytest.approx(0, abs=1e-3)
    assert curve[-1] == pytest.approx(1, abs=1e-3)
    assert [r["psi"] for r in row["truncation"]] == [0.0, 1.0]
    assert row["truncation"][0]["diversity"]["value"] < row["truncation"][1]["diversity"]["value"]
    assert sorted(row["variance share"], reverse=True) == row["variance share"]
    refuses("at least 2 pairs", latent.measure, latent.WalkArgs(weights=(weights,), pairs=1))


def test_a_missing_record_names_the_command_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records.files, "DATA", tmp_path)
    command = r"run `python -m head3d_core walk --out data/results/other.json`"
    refuses(command, records.read, "other", "python -m head3d_core walk")


@pytest.mark.parametrize(
    ("module", "run", "args"),
    [
        (latent, "run", latent.WalkArgs),
        (known_heads, "run_invert", known_heads.InvertArgs),
        (known_heads, "run_geometry", known_heads.GeometryArgs),
    ],
)
def test_a_place_that_cannot_be_written_shows_before_the_work(
    module: Any, run: str, args: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.study, "bar", lambda _: pytest.fail("the work had begun"))
    (tmp_path / "file").touch()
    refuses("cannot write to", getattr(module, run), args(out=tmp_path / "file" / "record.json"))


def test_records_are_only_written_when_asked_for_by_name() -> None:
    for args in (latent.WalkArgs, known_heads.InvertArgs, known_heads.GeometryArgs):
        assert args().out.parts[0] == "out"
    asked = latent.WalkArgs(out=records.files.DATA / "results" / "latent.json")
    assert study.command("walk", asked).startswith(
        "python -m head3d_core walk --weights face head3d --pairs 16"
    )
    assert "--out data/results/latent.json" in study.command("walk", asked)
    assert "--out" not in study.command("walk", latent.WalkArgs())
