"""Files that only say that they are large."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image


def _write(path: Path, width: int, height: int) -> None:
    Image.new("RGB", (8, 8)).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    path.write_bytes(data)


@pytest.fixture
def huge_png() -> Callable[[Path, int, int], None]:
    """Writes a PNG whose header claims a size: write(path, width, height)."""
    return _write
