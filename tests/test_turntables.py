"""Turntables: frames, flicker, contact sheets and files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from head3d_core import turntables
from head3d_core.config import preset
from head3d_core.errors import Head3DError
from head3d_core.generator import Generator


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    torch.manual_seed(0)
    G = Generator(preset("tiny").generator).eval()
    ws = torch.randn(1, G.num_ws, G.config.w_dim)
    return turntables.frames(G, ws, 12)


def test_frames_turn_and_repeat(pictures: np.ndarray) -> None:
    assert pictures.shape == (12, 64, 64, 3)
    assert pictures.dtype == np.uint8
    assert (np.abs(np.diff(pictures.astype(int), axis=0)).mean((1, 2, 3)) > 0).all(), "every frame differs"


def test_flicker_finds_a_flash(pictures: np.ndarray) -> None:
    # A slow brightening and back is smooth; one white frame in it is not.
    level = 100 + 20 * np.sin(np.arange(24) / 24 * 2 * np.pi)
    smooth = np.broadcast_to(level[:, None, None, None], (24, 8, 8, 3)).astype(np.uint8)
    assert turntables.flicker(smooth) < 2.5
    flash = smooth.copy()
    flash[5] = 255
    assert turntables.flicker(flash) > 10


def test_contact_sheet_shows_evenly_spaced_frames() -> None:
    pictures = np.arange(16, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    sheet = turntables.contact_sheet(pictures, columns=4)
    assert sheet.shape == (4, 8, 3)
    assert sheet[::2, ::2, 0].tolist() == [[0, 2, 4, 6], [8, 10, 12, 14]]


@pytest.mark.parametrize("ending", turntables.ENDINGS)
def test_files_open_again(pictures: np.ndarray, tmp_path: Path, ending: str) -> None:
    path = turntables.write(pictures, tmp_path / f"head{ending}", rate=12)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    if ending == ".mp4":
        import imageio.v2 as imageio

        read = [np.asarray(f) for f in imageio.get_reader(path)]
        assert len(read) == len(pictures)
        assert np.abs(read[3].astype(int) - pictures[3]).mean() < 12
    else:
        from PIL import Image

        with Image.open(path) as image:
            assert getattr(image, "n_frames", 1) == len(pictures)
            assert image.size == (64, 64)


def test_bad_input(pictures: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(Head3DError, match=r"ends in \.mp4, \.gif, \.webp"):
        turntables.write(pictures, tmp_path / "head.avi")
    G = Generator(preset("tiny").generator)
    with pytest.raises(Head3DError, match="one head"):
        turntables.frames(G, torch.zeros(2, G.num_ws, G.config.w_dim))
    with pytest.raises(Head3DError, match="three frames"):
        turntables.flicker(pictures[:2])


def test_a_film_cut_short_is_refused(
    pictures: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert turntables._frame_count(turntables.write(pictures, tmp_path / "whole.mp4")) == len(pictures)
    (tmp_path / "half.mp4").write_bytes((tmp_path / "whole.mp4").read_bytes()[:500])
    assert turntables._frame_count(tmp_path / "half.mp4") == 0
    monkeypatch.setattr(turntables, "_frame_count", lambda _: len(pictures) - 1)
    with pytest.raises(Head3DError, match="came out short"):
        turntables.write(pictures, tmp_path / "short.mp4")
    assert not (tmp_path / "short.mp4").exists()
