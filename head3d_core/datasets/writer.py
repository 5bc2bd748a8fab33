"""The one writer of data sets in EG3D's format: file names, encodings, dataset.json. It needs no torch."""

from __future__ import annotations

import io
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from head3d_core.datasets.camera_checks import LABELS, check_labels
from head3d_core.utils import files
from head3d_core.utils.errors import Head3DError

if TYPE_CHECKING:
    from torch import Tensor

    Values = Tensor | NDArray[Any]

Geometry = Literal["mask", "depth", "normals"]
"""Ground truth that may lie beside an image, in one .npz below the folder `geometry`."""
_PER_FOLDER = 1000


def image_name(index: int, ending: str = "png") -> str:
    """EG3D's name of image `index`.

    >>> image_name(12345)
    '00012/img00012345.png'
    """
    return f"{index // _PER_FOLDER:05d}/img{index:08d}.{ending}"


def geometry_name(image: str) -> str:
    """Where the ground truth of an image lies.

    >>> geometry_name("00000/img00000012.png")
    'geometry/00000/img00000012.npz'
    """
    return f"geometry/{PurePosixPath(image).with_suffix('.npz')}"


def encode_image(pixels: NDArray[np.uint8], ending: str = "png", level: int = 6) -> bytes:
    """uint8 [H, W, 3] -> the bytes of a PNG of zlib's `level` (0 is fast and large), or of a JPEG of quality 95."""
    buffer = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if ending == "jpg":
        image.save(buffer, "JPEG", quality=95, subsampling=0, optimize=True, progressive=True)
    else:
        image.save(buffer, "PNG", compress_level=level)
    return buffer.getvalue()


def encode_geometry(values: Mapping[Geometry, Values]) -> bytes:
    """Ground truth of one image -> the bytes of its .npz.

    Args:
        values: "mask" [H, W], coverage in [0, 1], kept as uint8 times 255 (and may come so); "depth" [H, W], distance
            along the ray, world units, kept as float32, 0 where nothing is; "normals" [3, H, W] or [H, W, 3], unit
            vectors in world axes, kept as int8 [H, W, 3] times 127.
    """
    stored: dict[str, NDArray[Any]] = {}
    for kind, value in values.items():
        array = np.asarray(value)
        if kind == "mask":
            whole = array if array.dtype == np.uint8 else np.rint(array.clip(0, 1).astype(np.float32) * 255)
            stored[kind] = whole.astype(np.uint8)
        elif kind == "depth":
            stored[kind] = np.where(np.isfinite(array), array, 0).astype(np.float32)
        else:
            axes = array if array.shape[-1] == 3 else np.moveaxis(array, 0, -1)
            stored[kind] = np.rint(axes.astype(np.float32).clip(-1, 1) * 127).astype(np.int8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **stored)  # type: ignore[arg-type]  # its stub takes the names for its own options
    return buffer.getvalue()


def labels_json(names: Sequence[str], cameras: Values, about: Mapping[str, Any] | None = None) -> str:
    """The text of `dataset.json`. Raises Head3DError for cameras that a reader would refuse."""
    array = np.asarray(cameras, np.float32)
    if array.shape != (len(names), 25):
        raise Head3DError(f"cameras must be [{len(names)}, 25], got {list(array.shape)}")
    rows = [[float(str(x)) for x in row] for row in array]  # the shortest text of each float32
    problems = [p for p in check_labels(names, rows) if p.fatal]
    if problems:
        raise Head3DError(f"not written, {problems[0]}")
    document = {"labels": [list(pair) for pair in zip(names, rows, strict=True)]}
    return json.dumps(document | ({"about": dict(about)} if about else {}), separators=(",", ":"))


def size_problem(shape: Sequence[int], expected: int, resolution: int | None) -> str | None:
    """What is wrong with the size of an image [H, W, ...], as one sentence.

    Args:
        expected: side of most images of the set, pixels.
        resolution: side that is wanted; None: `expected`.
    """
    height, width = shape[:2]
    better = max(1 << max(width.bit_length() - 1, 0), resolution or 1)
    text = f"the image is {width} x {height}"
    if height != width:
        return f"{text}: expected a square, crop it"
    if width < 1 or width & (width - 1):
        return f"{text}: expected a power of two, resize it to {better}"
    if resolution is not None and width < resolution:
        return f"{text}: smaller than the {resolution} asked for, use a lower resolution"
    if resolution is None and width != expected:
        return f"{text}, most others are {expected} x {expected}: resize it"
    return None


Add = Callable[..., str]
"""add(image, camera, geometry=None) -> the name that the image got."""


@contextmanager
def writing_dataset(path: str | os.PathLike[str], *, about: Mapping[str, Any] | None = None) -> Iterator[Add]:
    """Write a data set image by image: a stored (uncompressed) zip if `path` ends in .zip, else a folder.

    Gives a function `add(image, camera, geometry=None)`: image uint8 [3, H, W], square, a power of two; camera [25];
    geometry a dictionary as `encode_geometry` takes it. It returns the image's name.
    Everything goes to a temporary neighbour, which takes its place when the block ends without an error.

    Args:
        path: must not exist yet, and must be writable, which is tried out first.
        about: where the set comes from (licence, generator, seeds), kept in dataset.json.
    """
    target = Path(path)
    if target.exists():
        raise Head3DError(f"{target} exists already: remove it or choose another name")
    files.check_writable(target)
    names: list[str] = []
    cameras: list[Any] = []
    sides: list[int] = []
    with files.writing(target), ExitStack() as stack:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = stack.enter_context(tempfile.TemporaryDirectory(".partial", target.name, target.parent))
        partial = Path(folder) / target.name
        archive = stack.enter_context(zipfile.ZipFile(partial, "w")) if target.suffix == ".zip" else None

        def put(name: str, data: bytes) -> None:
            if archive:
                return archive.writestr(name, data)
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            (partial / name).write_bytes(data)

        def add(image: Values, camera: Values, geometry: Mapping[Geometry, Values] | None = None) -> str:
            name, pixels = image_name(len(names)), np.asarray(image)
            if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[0] != 3:
                raise Head3DError(f"images must be uint8 [3, H, W], got {pixels.dtype} {list(pixels.shape)}")
            if text := size_problem(pixels.shape[1:], sides[0] if sides else pixels.shape[-1], None):
                raise Head3DError(f"not written, {name}: {text}")
            sides.append(pixels.shape[-1])
            put(name, encode_image(pixels.transpose(1, 2, 0)))
            if geometry:
                put(geometry_name(name), encode_geometry(geometry))
            names.append(name)
            cameras.append(np.asarray(camera))
            return name

        yield add
        put(LABELS, labels_json(names, np.stack(cameras), about).encode())
        if archive:
            archive.close()
        partial.replace(target)


def write_dataset(
    path: str | os.PathLike[str],
    images: Sequence[Values] | Tensor,
    cameras: Values,
    *,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write a whole data set; see `writing_dataset`.

    Args:
        path: must not exist yet.
        images: uint8 [3, H, W] each, or a tensor [N, 3, H, W].
        cameras: [N, 25].
        about: as there.
    """
    with writing_dataset(path, about=about) as add:
        if len(images) != len(cameras):
            raise Head3DError(f"cameras must be [{len(images)}, 25], got {list(cameras.shape)}")
        for image, camera in zip(images, cameras, strict=True):
            add(image, camera)
