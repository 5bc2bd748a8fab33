"""Data sets in EG3D's format: square RGB images and one 25-number camera each, in a folder or a zip.

    faces/dataset.json                    {"labels": [["00000/img00000000.png", [25 numbers]], ...]}
    faces/00000/img00000000.png           8-bit RGB, square, a power of two
    faces/geometry/00000/img00000000.npz  mask, depth and normals of the image, where they are known

The label is the camera of `cameras.py`: cam2world and normalised intrinsics, row-major. `dataset.json` may hold more
keys, which EG3D's own reader leaves alone; ours are "identities" (one number per image) and "about" (where the set
comes from). Ground truth is .npz because that reader takes every *image* file below the root for a training image.

`validate` lists everything that is wrong with a set, one sentence each; the readers refuse a set that has problems.
Writing lives in `dataset_writer.py` and is offered here as well.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from head3d_core.datasets.labels import LABELS, Problem, check_labels, size_problem
from head3d_core.datasets.writer import GEOMETRY, Geometry, geometry_name, image_name, write_dataset
from head3d_core.model.cameras import mirror as mirror_camera
from head3d_core.utils.errors import Head3DError

__all__ = [
    "GEOMETRY",
    "Geometry",
    "HeadDataset",
    "Problem",
    "describe",
    "image_name",
    "image_names",
    "load_arrays",
    "load_geometry",
    "load_identities",
    "validate",
    "write_dataset",
]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_NO_LABELS = "no labels (null or no such file): every image needs its camera, prepare-data estimates them"
_NO_IMAGES = f"no images: expected files ending in {', '.join(IMAGE_SUFFIXES)}"


class _Store:
    """Read access to a folder or a zip: names with forward slashes, bytes by name. Survives pickling to workers."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._zip: zipfile.ZipFile | None = None
        if not self.path.exists():
            raise Head3DError(
                f"no data set at {self.path}: expected a folder or a zip with images and {LABELS}; "
                "make-data and prepare-data write one"
            )
        if self.path.is_file() and not zipfile.is_zipfile(self.path):
            raise Head3DError(
                f"{self.path} is not a readable zip: expected a folder or a zip with {LABELS}; was it cut short?"
            )

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_zip": None}  # an open file cannot be shared with another process

    def _opened(self) -> zipfile.ZipFile:
        if self._zip is None:
            self._zip = zipfile.ZipFile(self.path)
        return self._zip

    def names(self) -> list[str]:
        if self.path.is_dir():
            return sorted(p.relative_to(self.path).as_posix() for p in self.path.rglob("*") if p.is_file())
        return sorted(n for n in self._opened().namelist() if not n.endswith("/"))

    def read(self, name: str) -> bytes:
        """Bytes of a file; raises KeyError (zip) or OSError (folder) if it is not there."""
        return (self.path / name).read_bytes() if self.path.is_dir() else self._opened().read(name)


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith("geometry/")


def _read_json(store: _Store) -> dict[str, Any]:
    try:
        document = json.loads(store.read(LABELS))
    except (KeyError, FileNotFoundError):
        return {"labels": None}
    except ValueError as error:
        raise Head3DError(f"{LABELS} of {store.path} is not valid JSON ({error}): write it again") from None
    if not isinstance(document, dict) or not isinstance(document.get("labels"), list | None):
        raise Head3DError(
            f'{LABELS} of {store.path} must be {{"labels": [[name, 25 numbers], ...]}} or have null labels'
        )
    return document


def _decode(store: _Store, name: str) -> tuple[NDArray[np.uint8] | None, str | None]:
    """(pixels [H, W, 3], None), or (None, what is wrong)."""
    try:
        data = store.read(name)
        with Image.open(io.BytesIO(data)) as picture:
            mode = picture.mode
            if mode != "RGB":
                return None, f"the image has mode {mode}: expected 8-bit RGB without alpha, convert it"
            return np.asarray(picture), None
    except UnidentifiedImageError:
        return None, "not an image that can be read: copy it again"
    except (OSError, SyntaxError, ValueError, zipfile.BadZipFile) as error:
        return None, f"the image is truncated or damaged ({error}): copy it again"


def _entries(store: _Store, document: dict[str, Any]) -> tuple[list[str], list[Any] | None, list[Problem]]:
    """(image names sorted, labels in that order or None if there are none, problems of the pairing)."""
    images = [n for n in store.names() if _is_image(n)]
    if document["labels"] is None:
        return images, None, []
    labels: dict[str, Any] = {}
    problems: list[Problem] = []
    present = set(images)
    for row in document["labels"]:
        if not (isinstance(row, list) and len(row) == 2 and isinstance(row[0], str)):
            problems.append(
                Problem(LABELS, f"the entry {str(row)[:40]!r} is not [name, 25 numbers]: write it again")
            )
            continue
        name = row[0]
        if name in labels:
            problems.append(Problem(name, f"listed twice in {LABELS}: leave one of them out"))
        elif name not in present:
            inside = ".." not in PurePosixPath(name).parts and not PurePosixPath(name).is_absolute()
            what = (
                "the image file is missing: add it or remove its label"
                if inside
                else "the name leads out of the data set"
            )
            problems.append(Problem(name, what))
        labels[name] = row[1]
    problems += [
        Problem(n, f"no label in {LABELS}: add its 25 numbers or remove the image")
        for n in images
        if n not in labels
    ]
    kept = [n for n in images if n in labels]
    return kept, [labels[n] for n in kept], problems


def _scan(
    store: _Store,
    names: Sequence[str],
    resolution: int | None,
    keep: Callable[[int, NDArray[np.uint8]], None] | None = None,
) -> list[Problem]:
    """Decode every image in threads (PIL releases the lock), check it, and hand good ones to `keep(index, pixels)`."""
    sizes: dict[int, tuple[int, ...]] = {}

    def one(index: int) -> Problem | None:
        pixels, text = _decode(store, names[index])
        if pixels is None:
            return Problem(names[index], str(text))
        sizes[index] = pixels.shape
        text = size_problem(pixels.shape, pixels.shape[1], resolution)
        if text is None and keep is not None:
            keep(index, pixels)
        return Problem(names[index], text) if text else None

    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        problems = [p for p in pool.map(one, range(len(names))) if p]
    if resolution is None and sizes:
        usual = Counter(s[1] for s in sizes.values()).most_common(1)[0][0]
        bad = {p.file for p in problems}
        odd = [
            (names[i], size_problem(s, usual, None)) for i, s in sorted(sizes.items()) if names[i] not in bad
        ]
        problems += [Problem(name, text) for name, text in odd if text]
    return problems


def validate(path: str | os.PathLike[str], resolution: int | None = None) -> list[Problem]:
    """Everything that is wrong with the data set at `path`, labels first; empty if it can be trained on.

    Args:
        path: folder or zip.
        resolution: side in pixels that is wanted; None: all images must have the commonest side.

    Raises:
        Head3DError: there is no data set at all, or its dataset.json cannot be read.
    """
    found = _open(path, cameras=True)
    return found.problems + _scan(found.store, found.names, resolution)


@dataclass(frozen=True)
class _Opened:
    """A set whose labels have been read and checked, images not yet."""

    store: _Store
    names: list[str]
    cameras: Tensor
    problems: list[Problem]


def _open(path: str | os.PathLike[str], cameras: bool) -> _Opened:
    store = _Store(path)
    names, labels, problems = _entries(store, _read_json(store))
    if not names and not problems:
        problems.append(Problem(store.path.name, _NO_IMAGES))
    if labels is None:
        if cameras:
            problems.append(Problem(LABELS, _NO_LABELS))
        return _Opened(store, names, torch.zeros(len(names), 0), problems)
    problems += (wrong := check_labels(names, labels))
    values = np.zeros((len(names), 25)) if wrong else np.asarray(labels, np.float64).reshape(-1, 25)
    return _Opened(store, names, torch.from_numpy(values.astype(np.float32)), problems)


def _refuse(store: _Store, problems: list[Problem]) -> None:
    if problems:
        more = len(problems) - 1
        rest = f" (and {more} more problem{'s' * (more > 1)}: dataset.validate lists them)" if more else ""
        raise Head3DError(f"{store.path}: {problems[0]}{rest}")


def _fit(pixels: NDArray[np.uint8], resolution: int | None) -> NDArray[np.uint8]:
    """Area-average down to `resolution` (both powers of two, so every output pixel is a whole block)."""
    factor = 1 if resolution is None else pixels.shape[0] // resolution
    return pixels if factor == 1 else np.asarray(Image.fromarray(pixels).reduce(factor))


def load_arrays(
    path: str | os.PathLike[str], resolution: int | None = None, *, cameras: bool = True
) -> tuple[Tensor, Tensor]:
    """The whole data set in memory, in the order of the sorted file names.

    Args:
        path: folder or zip in EG3D's format.
        resolution: side of the returned images, pixels; larger images are area-averaged. None: as stored.
        cameras: False accepts a set without labels.

    Returns:
        images uint8 [N, 3, H, W] and cameras float32 [N, 25] ([N, 0] for a set without labels).

    Raises:
        Head3DError: the first problem that `validate` would list, and how many there are.
    """
    _check_resolution(resolution)
    found = _open(path, cameras)
    side = resolution or _first_side(found)
    images = torch.empty(len(found.names), 3, side, side, dtype=torch.uint8)
    view = images.numpy()

    def keep(index: int, pixels: NDArray[np.uint8]) -> None:
        fitted = _fit(pixels, resolution)
        if fitted.shape[0] == side:  # an odd one is reported by the scan
            view[index] = fitted.transpose(2, 0, 1)

    _refuse(found.store, found.problems + _scan(found.store, found.names, resolution, keep))
    return images, found.cameras


def _first_side(found: _Opened) -> int:
    """Side of the first image that can be read; 0 if there is none."""
    decoded = (_decode(found.store, name)[0] for name in found.names)
    return next((pixels.shape[0] for pixels in decoded if pixels is not None), 0)


def image_names(path: str | os.PathLike[str]) -> list[str]:
    """Names of the images inside the set, in the order in which the readers return them."""
    return [n for n in _Store(path).names() if _is_image(n)]


def describe(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Where the set comes from: make-data's provenance.json, or "about" of dataset.json; empty if it does not say."""
    store = _Store(path)
    try:
        found = json.loads(store.read("provenance.json"))
    except (KeyError, FileNotFoundError):
        found = _read_json(store).get("about", {})
    return dict(found)


def load_identities(path: str | os.PathLike[str]) -> Tensor:
    """Identity numbers int64 [N] in the order of the images: equal for the views of one head.

    They are listed in dataset.json under "identities", or follow from the numbers in the file names where
    provenance.json says how many views a head has (make-data). Raises Head3DError if the set does not say.
    """
    store = _Store(path)
    names = image_names(path)
    listed = _read_json(store).get("identities")
    views = describe(path).get("views_per_head")
    if listed:
        by_name = {str(name): int(number) for name, number in listed}
    elif views:
        by_name = {n: int(PurePosixPath(n).stem.removeprefix("img")) // int(views) for n in names}
    else:
        raise Head3DError(
            f"{store.path} names no identities: only sets that know who is who (make-data's) do"
        )
    missing = [n for n in names if n not in by_name]
    _refuse(store, [Problem(n, f'missing in "identities" of {LABELS}: write it again') for n in missing])
    return torch.tensor([by_name[n] for n in names], dtype=torch.int64)


def load_geometry(path: str | os.PathLike[str], kind: Geometry, names: Sequence[str] | None = None) -> Tensor:
    """Ground truth of the images `names` (default: all of them), as float32.

    Returns:
        "mask": [N, H, W] coverage in [0, 1]; "depth": [N, H, W] distance along the ray, world units, 0 where nothing
        is; "normals": [N, 3, H, W] unit vectors in world axes, 0 where nothing is.

    Raises:
        Head3DError: the set was written without it.
    """
    if kind not in GEOMETRY:
        raise Head3DError(f"kind must be one of {', '.join(GEOMETRY)}, got {kind!r}")
    store = _Store(path)
    arrays = []
    for name in image_names(path) if names is None else names:
        where = geometry_name(name)
        try:
            with np.load(io.BytesIO(store.read(where)), allow_pickle=False) as archive:
                arrays.append(archive[kind].astype(np.float32))
        except (KeyError, FileNotFoundError):
            raise Head3DError(
                f"{store.path} has no {kind} in {where}: write the set with geometry (make-data --geometry)"
            ) from None
    stored = torch.from_numpy(np.stack(arrays)) if arrays else torch.zeros(0)
    if kind == "depth":
        return stored
    return stored / 255 if kind == "mask" else (stored / 127).movedim(-1, 1)


def _check_resolution(resolution: int | None) -> None:
    if resolution is not None and (resolution < 1 or resolution & (resolution - 1)):
        raise Head3DError(f"resolution must be a power of two, got {resolution}")


class HeadDataset(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """Images and cameras one at a time, decoded on demand; the labels are checked when it is opened.

    Items are (image uint8 [3, H, W], camera float32 [25]). With `mirror=True` items N..2N-1 are the flipped images
    with the mirrored cameras: a face at yaw +20 degrees becomes one at -20 degrees (EG3D's own on-the-fly flip
    forgets the camera).
    """

    def __init__(
        self, path: str | os.PathLike[str], resolution: int | None = None, *, mirror: bool = False
    ) -> None:
        _check_resolution(resolution)
        found = _open(path, cameras=True)
        _refuse(found.store, found.problems)
        self._store, self.names, self.cameras = found.store, found.names, found.cameras
        self.resolution, self.mirror = resolution, mirror

    def __len__(self) -> int:
        return len(self.names) * (2 if self.mirror else 1)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        flipped, index = divmod(index % len(self), len(self.names))
        name = self.names[index]
        pixels, text = _decode(self._store, name)
        if pixels is not None:
            text = size_problem(pixels.shape, pixels.shape[1], self.resolution)
        if pixels is None or text:
            raise Head3DError(f"{self._store.path}: {Problem(name, str(text))}")
        image = torch.from_numpy(_fit(pixels, self.resolution).transpose(2, 0, 1).copy())
        camera = self.cameras[index]
        return (image.flip(-1), mirror_camera(camera)) if flipped else (image, camera.clone())
