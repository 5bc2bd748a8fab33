"""Straight lines, mixed layers and principal directions of w; `invert`, `geometry` and `walk` at toy size."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import refuses, untrained_encoder, visible
from PIL import Image

from head3d_core import cli
from head3d_core.checkpoints import weights as checkpoint
from head3d_core.config import preset
from head3d_core.experiments import known_heads, latent, study
from head3d_core.model import cameras
from head3d_core.model.generator import Generator
from head3d_core.model.seeds import ws_of_seeds
from head3d_core.utils import files


@pytest.fixture(scope="module")
def G() -> Generator:
    return visible()


def test_interpolation_is_a_straight_line() -> None:
    a, b = torch.randn(1, 4, 8), torch.randn(1, 4, 8)
    path = latent.interpolate(a, b, 5)
    assert torch.equal(path[0], a[0])
    assert torch.allclose(path[-1], b[0])
    assert torch.allclose(path[1:] - path[:-1], ((b - a) / 4).expand(4, -1, -1), atol=1e-6)


def test_mixing_takes_the_layers_asked_for() -> None:
    a, b = torch.zeros(2, 6, 3), torch.ones(2, 6, 3)
    mixed = latent.mix_layers(a, b, [0, 5])
    assert mixed[:, :, 0].tolist() == [[1, 0, 0, 0, 0, 1]] * 2
    assert torch.equal(latent.mix_layers(a, b, []), a)
    assert torch.equal(latent.mix_layers(a, b, range(6)), b)
    assert float(a.max()) == 0, "the input is left alone"


@pytest.mark.parametrize("name", ["tiny", "classroom", "paper"])
def test_layer_sides_run_from_4_to_the_planes(name: str) -> None:
    config = preset(name).generator
    sides = latent.layer_sides(config.num_ws)
    assert (len(sides), sides[0], sides[-1]) == (config.num_ws, 4, config.plane_resolution)


def test_layer_sides_match_what_a_code_changes() -> None:
    G, seen = visible(), []
    for block in G.backbone.synthesis.children():
        block.register_forward_hook(lambda module, given, out: seen.append(out[0]))
    one, two = ws_of_seeds(G, [0, 1]).split(1)
    G.planes(one)
    before = seen[:]
    for layer, side in enumerate(latent.layer_sides(G.num_ws)):
        seen.clear()
        G.planes(latent.mix_layers(one, two, [layer]))
        changed = [a.shape[-1] for a, b in zip(before, seen, strict=True) if not torch.equal(a, b)]
        assert min(changed, default=before[-1].shape[-1]) == side


def test_linearity_of_known_paths() -> None:
    angle = torch.linspace(0, 1.0, 11)
    arc = torch.stack([angle.cos(), angle.sin()], 1)
    distance, found = latent.path_linearity(arc)
    assert float(distance[-1]) == pytest.approx(1 - math.cos(1), abs=1e-6)
    bend = float(((1 - angle.cos()) / (1 - math.cos(1)) - angle).abs().max())
    assert found == pytest.approx({"bend": bend, "unevenness": 1, "detour": 1}, abs=1e-5)
    jump = latent.path_linearity(torch.stack([arc[0]] * 5 + [arc[-1]] * 6))[1]
    assert jump == pytest.approx({"bend": 0.5, "unevenness": 10, "detour": 1}, abs=0.01)
    loop = torch.stack([angle.mul(4).cos(), angle.mul(4).sin()], 1)
    assert latent.path_linearity(loop)[1]["detour"] > 1.5


def test_principal_directions_of_a_known_cloud(G: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    scale = torch.ones(G.config.w_dim) * 0.1
    scale[5], scale[2] = 3.0, 2.0

    def mapping(z: torch.Tensor, camera: torch.Tensor) -> torch.Tensor:
        return (z * scale + 7)[:, None].expand(-1, G.num_ws, -1)

    monkeypatch.setattr(G, "mapping", mapping)
    found = latent.principal_directions(G, 4, samples=4000)
    assert found.axes.abs().argmax(1)[:2].tolist() == [5, 2]
    assert float(found.axes[0, 5]) > 0.99, "signs are fixed"
    assert found.deviation[:2].tolist() == pytest.approx([3, 2], rel=0.05)
    assert float(found.share[0]) == pytest.approx(9 / (9 + 4 + 0.01 * (G.config.w_dim - 2)), rel=0.05)
    assert torch.allclose(found.axes @ found.axes.T, torch.eye(4), atol=1e-5)
    ws = torch.zeros(1, G.num_ws, G.config.w_dim)
    moved = found.move(ws, [0.0, 2.0], layers=[1])
    assert float(moved[0, 1, 2]) == pytest.approx(4, rel=0.05)
    assert float(moved[0, 0].abs().max()) == 0
    assert torch.allclose(found.move(found.move(ws, [1.5]), [-1.5]), ws, atol=1e-6)


def test_bad_input(G: Generator) -> None:
    a = torch.zeros(1, 4, 8)
    refuses("at least 2 heads", latent.interpolate, a, a, 1)
    refuses("head by head", latent.interpolate, a, torch.zeros(2, 4, 8), 3)
    refuses("layers must lie in 0 to 3", latent.mix_layers, a, a, [4])
    refuses("same identity", latent.path_linearity, torch.ones(4, 3))
    refuses("at least 3 heads", latent.path_linearity, torch.eye(2))
    refuses("count must be", latent.principal_directions, G, 0)
    refuses("there are 2 directions", latent.principal_directions(G, 2, 64).move, a, [1, 2, 3])


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
    sizes = {"heads": 2, "meshes": 1, "resolution": 16}
    args = known_heads.GeometryArgs(weights=(weights,), **sizes, out=tmp_path / "g.json")
    known_heads.run_geometry(args)
    row = json.loads(args.out.read_text())["models"][weights]
    assert 0 <= row["closedness"]["low"] <= row["closedness"]["value"] <= row["closedness"]["high"] <= 1
    assert len(row["surfaces"]) == 1
    refuses("at least 2 heads", known_heads.run_geometry, replace(args, heads=1))


def test_walk_records_paths_and_truncation(
    weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latent, "load_encoder", lambda device: untrained_encoder())
    certain = lambda images, device: torch.linspace(0, 1, len(images))  # noqa: E731
    monkeypatch.setattr(latent.face_detector, "face_probability", certain)
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


STUDIES = {
    latent.WalkArgs: latent.run,
    known_heads.InvertArgs: known_heads.run_invert,
    known_heads.GeometryArgs: known_heads.run_geometry,
}


@pytest.mark.parametrize("args", STUDIES)
def test_a_place_that_cannot_be_written_shows_before_the_work(
    args: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "bar", lambda _: pytest.fail("the work had begun"))
    (tmp_path / "file").touch()
    refuses("cannot write to", STUDIES[args], args(out=tmp_path / "file" / "record.json"))
    assert args().out.parts[0] == "out"


def test_a_records_command_names_its_place_if_that_is_in_the_data() -> None:
    asked = study.command("walk", latent.WalkArgs(out=files.DATA / "results" / "latent.json"))
    assert asked.startswith("python -m head3d_core walk --weights face head3d --pairs 16")
    assert "--out data/results/latent.json" in asked
    assert "--out" not in study.command("walk", latent.WalkArgs())
