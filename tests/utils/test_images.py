"""The one conversion between [-1, 1] and bytes, grids of images and image files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import refuses
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from head3d_core.utils import images
from head3d_core.utils.errors import Head3DError


def test_levels_are_rounded_to_the_nearest_and_clamped() -> None:
    x = torch.tensor([-2.0, -1.0, 0.0, 0.5, 1.0, 2.0])
    assert images.to_uint8(x).tolist() == [0, 0, 128, 191, 255, 255]
    assert images.to_uint8(x.half()).tolist() == [0, 0, 128, 191, 255, 255]
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(images.to_uint8(images.from_uint8(every)), every)
    assert images.from_uint8(every)[[0, 255]].tolist() == [-1.0, 1.0]


@given(st.floats(-1.5, 1.5, width=32))
def test_no_level_is_nearer_than_the_one_chosen(value: float) -> None:
    chosen = int(images.to_uint8(torch.tensor([value])))
    distance = np.abs(np.clip(value, -1, 1) - (np.arange(256) / 127.5 - 1))
    assert distance[chosen] <= distance.min() + 1e-6


def test_what_is_not_finite_is_refused() -> None:
    with pytest.raises(Head3DError, match="1 of 2 images are not finite"):
        images.to_uint8(torch.stack([torch.zeros(3, 2, 2), torch.full((3, 2, 2), float("inf"))]))
    refuses("not finite", images.to_pixels, torch.full((3, 2, 2), float("nan")))


def test_pixels_have_their_channels_last() -> None:
    x = torch.rand(2, 3, 4, 5, requires_grad=True)
    pixels = images.to_pixels(x)
    assert pixels.shape == (2, 4, 5, 3)
    assert pixels.flags["C_CONTIGUOUS"]
    assert pixels[1, 2, 3].tolist() == images.to_uint8(x)[1, :, 2, 3].tolist()
    assert images.to_pixels(x[0]).tolist() == pixels[0].tolist()
    torch.testing.assert_close(images.from_pixels(pixels), x.detach(), atol=1 / 255 + 1e-6, rtol=0)


def test_a_montage_goes_row_by_row_and_ends_in_white() -> None:
    cells = torch.tensor([-1.0, -0.5, 0.0])[:, None, None, None].expand(3, 3, 2, 4)
    sheet = images.montage(cells, 2)
    assert sheet.shape == (4, 8, 3)
    assert sheet[::2, ::4, 0].tolist() == [[0, 64], [128, 255]]


def test_names_stand_outside_the_cells() -> None:
    sheet = np.zeros((40, 60, 3), np.uint8)
    named = images.with_names(sheet, ["first", "second"], ["0°", "90°", "180°"])
    assert named.shape[0] > 40
    assert named.shape[1] > 60
    assert (named[-40:, -60:] == 0).all()
    assert (named[:-40] < 128).any()
    assert (named[:, :-60] < 128).any()


def test_shrink_averages_areas() -> None:
    x = torch.arange(48.0).reshape(1, 3, 4, 4)
    assert images.shrink(x, 2)[0, 0, 0, 0] == x[0, 0, :2, :2].mean()
    for wrong in (x, x[0], x[:, :2]):
        refuses("at least 8", images.shrink, wrong, 8)


def test_files_are_png_or_jpeg_by_their_ending(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (16, 24, 3), np.uint8)
    path = images.save(pixels, tmp_path / "new" / "a.png")
    assert np.array_equal(np.asarray(Image.open(path)), pixels)
    small, large = (images.save(pixels, tmp_path / f"{q}.jpg", q) for q in (20, 95))
    assert Image.open(small).format == "JPEG"
    assert small.stat().st_size < large.stat().st_size
    refuses("folder", images.save, pixels, tmp_path / "new")
