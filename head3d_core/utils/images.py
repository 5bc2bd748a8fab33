"""Images as bytes: the one conversion between [-1, 1] and 0 to 255, grids of images, and image files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from head3d_core.utils import files
from head3d_core.utils.errors import Head3DError


def to_uint8(images: Tensor) -> Tensor:
    """Images in [-1, 1] (clamped) as uint8 of the same shape, rounded to the nearest of 256 levels.

    >>> to_uint8(torch.tensor([-1.0, 0.0, 1.0, 9.0]))
    tensor([  0, 128, 255, 255], dtype=torch.uint8)

    Raises:
        Head3DError: a value is not finite.
    """
    images = images.detach().float()
    if not bool(images.isfinite().all()):
        bad = int((~images.isfinite()).flatten(1).any(1).sum()) if images.ndim == 4 else 1
        count = len(images) if images.ndim == 4 else 1
        raise Head3DError(f"{bad} of {count} images are not finite: the model that made them has diverged")
    return (images * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)


def from_uint8(pixels: Tensor) -> Tensor:
    """uint8 (or floats from 0 to 255) as float32 in [-1, 1]; the inverse of `to_uint8` up to its rounding."""
    return pixels.float() / 127.5 - 1


def to_pixels(images: Tensor) -> NDArray[np.uint8]:
    """[..., 3, H, W] in [-1, 1] -> [..., H, W, 3] uint8 on the CPU, as Pillow and Matplotlib take images."""
    return np.ascontiguousarray(to_uint8(images).movedim(-3, -1).cpu().numpy())


def from_pixels(pixels: NDArray[np.uint8]) -> Tensor:
    """[..., H, W, 3] uint8 -> [..., 3, H, W] in [-1, 1]."""
    return from_uint8(torch.tensor(pixels).movedim(-1, -3))


def shrink(image: Tensor, side: int) -> Tensor:
    """[N, 3, R, R] averaged over areas to [N, 3, side, side]; raises Head3DError if R is smaller than `side`."""
    if image.ndim != 4 or image.shape[1] != 3 or image.shape[2] != image.shape[3] or image.shape[2] < side:
        raise Head3DError(f"images must be [N, 3, R, R] with R of at least {side}, got {list(image.shape)}")
    return F.interpolate(image.float(), size=(side, side), mode="area")


def montage(images: Tensor, columns: int) -> NDArray[np.uint8]:
    """Images [N, 3, H, W] row by row as one [rows * H, columns * W, 3]; the last row is filled with white."""
    cells = to_pixels(images)
    n, h, w, _ = cells.shape
    rows = -(-n // columns)
    sheet = np.full((rows * columns, h, w, 3), 255, np.uint8)
    sheet[:n] = cells
    return sheet.reshape(rows, columns, h, w, 3).swapaxes(1, 2).reshape(rows * h, columns * w, 3)


def with_names(sheet: NDArray[np.uint8], rows: Sequence[str], columns: Sequence[str]) -> NDArray[np.uint8]:
    """A sheet [H, W, 3] of equal cells with a name at the left of each row and above each column, in black on white."""
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


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The bytes of an image file; `options` are those of Pillow's writer of that kind."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def save(pixels: NDArray[np.uint8], path: Path | str, quality: int | None = None) -> Path:
    """Writes [H, W, 3] as PNG, or as JPEG for .jpg and .jpeg, whole or not at all; returns the path.

    Args:
        quality: of a JPEG, 1 to 95, which is then optimised and progressive; None: Pillow's defaults.
    """
    path = Path(path)
    small = {} if quality is None else {"quality": quality, "optimize": True, "progressive": True}
    with files.atomic(path) as temporary:
        kind = "JPEG" if path.suffix.lower() in (".jpg", ".jpeg") else "PNG"
        Image.fromarray(pixels).save(temporary, kind, **small)
    return path
