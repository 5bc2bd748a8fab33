"""Writing a data set in EG3D's format: file names, encodings and an atomic `write_dataset`."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from head3d_core.datasets.labels import LABELS, check_labels, size_problem
from head3d_core.utils import files
from head3d_core.utils.errors import Head3DError

Geometry = Literal["mask", "depth", "normals"]
GEOMETRY: tuple[Geometry, ...] = ("mask", "depth", "normals")
"""Ground truth that may lie beside an image, in one .npz below the folder `geometry`."""


def geometry_name(image: str) -> str:
    """Where the ground truth of an image lies.

    >>> geometry_name("00000/img00000012.png")
    'geometry/00000/img00000012.npz'
    """
    return f"geometry/{PurePosixPath(image).with_suffix('.npz')}"


def image_name(index: int) -> str:
    """Name of image `index`: 12345 -> "00012/img00012345.png"."""
    digits = f"{index:08d}"
    return f"{digits[:5]}/img{digits}.png"


def encode_png(image: Tensor | NDArray[np.uint8], level: int = 6) -> bytes:
    """uint8 [3, H, W] -> PNG bytes; `level` is zlib's (0 is fast and large)."""
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[0] != 3:
        raise Head3DError(f"images must be uint8 [3, H, W], got {pixels.dtype} {list(pixels.shape)}")
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(buffer, "PNG", compress_level=level)
    return buffer.getvalue()


def encode_geometry(values: dict[Geometry, Tensor | NDArray[Any]]) -> bytes:
    """Ground truth of one image, in the units of `dataset.load_geometry` -> the bytes of its .npz.

    Masks are kept in 8 bits, normals in 8 bits per axis, depth as float32.
    """
    stored: dict[str, NDArray[Any]] = {}
    for kind, value in values.items():
        array = np.asarray(value, np.float32)
        if kind == "mask":
            stored[kind] = np.rint(array.clip(0, 1) * 255).astype(np.uint8)
        elif kind == "depth":
            stored[kind] = np.where(np.isfinite(array), array, 0).astype(np.float32)
        else:
            stored[kind] = np.rint(np.moveaxis(array, 0, -1).clip(-1, 1) * 127).astype(np.int8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **stored)  # type: ignore[arg-type]  # its stub takes the names for its own options
    return buffer.getvalue()


def labels_json(
    names: Sequence[str],
    cameras: Tensor | None,
    identities: Sequence[int] | None = None,
    about: dict[str, Any] | None = None,
) -> str:
    """The text of `dataset.json`. Raises Head3DError for cameras that a reader would refuse."""
    document: dict[str, Any] = {"labels": None}
    if cameras is not None:
        if tuple(cameras.shape) != (len(names), 25):
            raise Head3DError(f"cameras must be [{len(names)}, 25], got {list(cameras.shape)}")
        rows = [[float(f"{x:.7g}") for x in row] for row in cameras.double().tolist()]
        problems = check_labels(names, rows)
        if problems:
            raise Head3DError(f"not written, {problems[0]}")
        document["labels"] = [list(pair) for pair in zip(names, rows, strict=True)]
    if identities is not None:
        document["identities"] = [[n, int(i)] for n, i in zip(names, identities, strict=True)]
    if about:
        document["about"] = about
    return json.dumps(document, separators=(",", ":"))


def write_dataset(
    path: str | os.PathLike[str],
    images: Iterable[Tensor | NDArray[np.uint8]],
    cameras: Tensor | None,
    *,
    identities: Sequence[int] | None = None,
    geometry: dict[Geometry, Iterable[Tensor | NDArray[Any]]] | None = None,
    about: dict[str, Any] | None = None,
    level: int = 6,
) -> None:
    """Write a data set in EG3D's format: a stored (uncompressed) zip if `path` ends in .zip, else a folder.

    Everything goes to a temporary neighbour first, so a run that fails leaves nothing at `path`.

    Args:
        path: must not exist yet.
        images: uint8 [3, H, W] each, or a tensor [N, 3, H, W]; square, a power of two.
        cameras: [N, 25], or None for null labels.
        identities: one number per image.
        geometry: kind ("mask", "depth", "normals") -> one array per image, in the units of `load_geometry`.
        about: where the set comes from (licence, generator, seeds), kept in dataset.json.
        level: zlib level of the PNG files.
    """
    target = Path(path)
    if target.exists():
        raise Head3DError(f"{target} exists already: remove it or choose another name")
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        with files.writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.suffix == ".zip":
                with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
                    _write(archive.writestr, images, cameras, identities, geometry or {}, about, level)
            else:
                partial.mkdir()
                _write(
                    lambda n, data: _put(partial / n, data),
                    images,
                    cameras,
                    identities,
                    geometry or {},
                    about,
                    level,
                )
            partial.replace(target)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        else:
            partial.unlink(missing_ok=True)


def _put(file: Path, data: bytes | str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data.encode() if isinstance(data, str) else data)


def _write(
    put: Callable[[str, bytes | str], None],
    images: Iterable[Tensor | NDArray[np.uint8]],
    cameras: Tensor | None,
    identities: Sequence[int] | None,
    geometry: dict[Geometry, Iterable[Tensor | NDArray[Any]]],
    about: dict[str, Any] | None,
    level: int,
) -> None:
    names: list[str] = []
    side = None
    for image in images:
        name = image_name(len(names))
        shape = tuple(image.shape)
        text = size_problem(shape[1:], side or shape[-1], None) if len(shape) == 3 else None
        if text:
            raise Head3DError(f"not written, {name}: {text}")
        side = shape[-1]
        put(name, encode_png(image, level))
        names.append(name)
    for name, values in zip(names, zip(*geometry.values(), strict=True), strict=True) if geometry else ():
        put(geometry_name(name), encode_geometry(dict(zip(geometry, values, strict=True))))
    put(LABELS, labels_json(names, cameras, identities, about))
