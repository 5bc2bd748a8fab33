"""Grids of pictures as PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from head3d_core.utils import files
from head3d_core.utils.errors import Head3DError


def to_bytes(images: Tensor) -> NDArray[np.uint8]:
    """[N, 3, H, W] in [-1, 1] -> [N, H, W, 3] uint8, rounded to the nearest of 256 levels."""
    levels = (images.detach().float() * 127.5 + 127.5).round().clamp(0, 255)
    return levels.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def montage(images: Tensor, columns: int) -> NDArray[np.uint8]:
    """Pictures [N, 3, H, W] row by row as one [rows * H, columns * W, 3]; the last row is filled with white."""
    cells = to_bytes(images)
    n, h, w, _ = cells.shape
    rows = -(-n // columns)
    sheet = np.full((rows * columns, h, w, 3), 255, np.uint8)
    sheet[:n] = cells
    return sheet.reshape(rows, columns, h, w, 3).swapaxes(1, 2).reshape(rows * h, columns * w, 3)


def with_names(sheet: NDArray[np.uint8], rows: Sequence[str], columns: Sequence[str]) -> NDArray[np.uint8]:
    """A sheet [H, W, 3] of equal cells with a name beside each row and above each column, in black on white."""
    high, wide, _ = sheet.shape
    font = ImageFont.load_default(size=20)
    left = 16 + round(max(font.getlength(name) for name in rows))
    top = 30
    drawn = Image.new("RGB", (left + wide, top + high), "white")
    drawn.paste(Image.fromarray(sheet), (left, top))
    pen = ImageDraw.Draw(drawn)
    for k, name in enumerate(rows):
        pen.text((left - 8, top + (k + 0.5) * high / len(rows)), name, "black", font, anchor="rm")
    for k, name in enumerate(columns):
        pen.text((left + (k + 0.5) * wide / len(columns), top / 2), name, "black", font, anchor="mm")
    return np.array(drawn)


def save_grid(images: Tensor, columns: int, path: Path | str) -> Path:
    """Writes the montage of [N, 3, H, W] as PNG (JPEG for .jpg); returns the path."""
    return save_sheet(montage(images, columns), path)


def save_sheet(sheet: NDArray[np.uint8], path: Path | str) -> Path:
    """Writes a sheet [H, W, 3] as PNG (JPEG for .jpg); returns the path."""
    with files.atomic(path) as temporary:
        kind = "JPEG" if Path(path).suffix.lower() in (".jpg", ".jpeg") else "PNG"
        Image.fromarray(sheet).save(temporary, kind)
    return Path(path)


def shrink(image: Tensor, side: int) -> Tensor:
    """[N, 3, H, W] averaged to [N, 3, side, side]; raises Head3DError if it is smaller than that."""
    if image.ndim != 4 or image.shape[1] != 3 or image.shape[2] != image.shape[3] or image.shape[2] < side:
        raise Head3DError(f"pictures must be [N, 3, R, R] with R of at least {side}, got {list(image.shape)}")
    return F.interpolate(image.float(), size=(side, side), mode="area")
