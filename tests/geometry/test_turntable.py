"""Turntables: frames, flicker, contact sheets and files."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from helpers import python, refuses, visible

from head3d_core.geometry import mesh, turntable
from head3d_core.model import cameras, seeds
from head3d_core.model.generator import Generator


@pytest.fixture(scope="module")
def G() -> Generator:
    return visible()


@pytest.fixture(scope="module")
def ws(G: Generator) -> torch.Tensor:
    return seeds.ws_of_seeds(G, [0])


@pytest.fixture(scope="module")
def images(G: Generator, ws: torch.Tensor) -> np.ndarray:
    return turntable.frames(G, ws, 12)


def test_frames_turn_and_repeat(images: np.ndarray) -> None:
    assert images.shape == (12, 64, 64, 3)
    assert images.dtype == np.uint8
    assert (np.abs(np.diff(images.astype(int), axis=0)).mean((1, 2, 3)) > 0).all(), "every frame differs"


def test_flicker_finds_a_flash(images: np.ndarray) -> None:
    # A slow brightening and back is smooth; one white frame in it is not.
    level = 100 + 20 * np.sin(np.arange(24) / 24 * 2 * np.pi)
    smooth = np.broadcast_to(level[:, None, None, None], (24, 8, 8, 3)).astype(np.uint8)
    assert turntable.flicker(smooth) < 2.5
    flash = smooth.copy()
    flash[5] = 255
    assert turntable.flicker(flash) > 10


def test_contact_sheet_shows_evenly_spaced_frames() -> None:
    images = np.arange(16, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    sheet = turntable.contact_sheet(images, columns=4)
    assert sheet.shape == (4, 8, 3)
    assert sheet[::2, ::2, 0].tolist() == [[0, 2, 4, 6], [8, 10, 12, 14]]


@pytest.mark.parametrize("ending", turntable.ENDINGS)
def test_files_open_again(images: np.ndarray, tmp_path: Path, ending: str) -> None:
    path = turntable.write(images, tmp_path / f"head{ending}", rate=12)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    read = np.stack(list(imageio.imiter(path)))[..., :3]
    assert read.shape == images.shape
    assert np.abs(read[3].astype(int) - images[3]).mean() < 12


def test_bad_input(images: np.ndarray, tmp_path: Path) -> None:
    refuses(r"ends in \.mp4, \.gif, \.webp", turntable.write, images, tmp_path / "head.avi")
    G = visible()
    refuses("one head", turntable.frames, G, torch.zeros(2, G.num_ws, G.config.w_dim))
    refuses("three frames", turntable.flicker, images[:2])


def test_a_turntable_brings_its_contact_sheet(G: Generator, ws: torch.Tensor, tmp_path: Path) -> None:
    path = turntable.turntable(G, ws, tmp_path / "a.gif", seconds=1, rate=4)
    sheet = imageio.imread(turntable.contact_path(path))
    assert (sheet == turntable.contact_sheet(turntable.frames(G, ws, 4))).all()
    turntable.turntable(G, ws, tmp_path / "b.gif", seconds=1, rate=4, sheet=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.gif", "a_sheet.png", "b.gif"]


def test_places_are_refused_before_rendering(
    G: Generator, ws: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turntable, "frames", lambda *_, **__: pytest.fail("rendered"))
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.gif").mkdir()
    (tmp_path / "taken_sheet.png").mkdir()
    before = sorted(p.name for p in tmp_path.iterdir())
    for name, message in {
        "head.avi": r"ends in \.mp4, \.gif, \.webp",
        "file/head.mp4": "cannot write to",
        "folder.gif": "it is a folder",
        "taken.mp4": "taken_sheet.png: it is a folder",
    }.items():
        refuses(message, turntable.turntable, G, ws, tmp_path / name)
    for seconds, rate in ((0.0, 30), (float("nan"), 30), (1.0, 0)):
        refuses("at least one frame", turntable.turntable, G, ws, tmp_path / "a.mp4", seconds, rate)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


@pytest.mark.skipif(os.name != "posix", reason="needs a limit on the size of files")
def test_a_disk_that_fills_up_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    # A limit on the size of files fails as a full disk does; it must not stay with this process. ffmpeg inherits it.
    code = f"""
import resource, signal
from pathlib import Path
import numpy as np, trimesh
from head3d_core.geometry import mesh, turntable
from head3d_core.utils.errors import Head3DError
images = np.random.default_rng(0).integers(0, 256, (24, 64, 64, 3)).astype(np.uint8)
ball = trimesh.creation.icosphere(subdivisions=5)
ball.visual = trimesh.visual.TextureVisuals(uv=np.zeros((len(ball.vertices), 2)), material=
    trimesh.visual.material.PBRMaterial(baseColorTexture=__import__("PIL.Image").Image.new("RGB", (8, 8))))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (15_000, 15_000))
for name in {(*turntable.ENDINGS, *mesh.ENDINGS)!r}:
    path = Path({str(tmp_path)!r}) / f"a{{name}}"
    try:
        turntable.write(images, path, sheet=True) if name in turntable.ENDINGS else mesh.save(ball, path)
    except Head3DError as error:
        print(error)
"""
    lines = python("-c", code).stdout.splitlines()
    assert len(lines) == 6, lines
    for line, ending in zip(lines, (*turntable.ENDINGS, *mesh.ENDINGS), strict=True):
        assert f"a{ending} was not written" in line
    assert list(tmp_path.iterdir()) == []


def test_a_film_cut_short_is_refused(
    images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert turntable._frame_count(turntable.write(images, tmp_path / "whole.mp4")) == len(images)
    (tmp_path / "half.mp4").write_bytes((tmp_path / "whole.mp4").read_bytes()[:500])
    assert turntable._frame_count(tmp_path / "half.mp4") == 0
    monkeypatch.setattr(turntable, "_frame_count", lambda _: len(images) - 1)
    refuses("came out short", turntable.write, images, tmp_path / "short.mp4")
    assert not (tmp_path / "short.mp4").exists()


def test_heads_are_seen_from_the_distance_they_were_trained_at() -> None:
    """EG3D's ShapeNet networks have their cameras at 1.7 instead of 2.7."""
    G = visible()
    G.config = dataclasses.replace(G.config, camera_radius=1.7)
    heads = seeds.heads_of_seeds(G, [0])
    near = G.render(heads.planes, heads.ws, cameras.orbit(0.0, 0.0, 1.7)).image
    assert torch.equal(turntable.views(G, heads.planes, heads.ws, (0.0,))[:, 0], near)
