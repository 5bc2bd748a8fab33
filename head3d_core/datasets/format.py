"""Data sets in EG3D's format: square RGB images and one 25-number camera each, in a folder or a zip.

    faces/dataset.json                    {"labels": [["00000/img00000000.png", [25 numbers]], ...]}
    faces/00000/img00000000.png           8-bit RGB, square, a power of two
    faces/geometry/00000/img00000000.npz  mask, depth and normals of the image, where they are known

The label is the camera of `model/cameras.py`: cam2world and normalised intrinsics, row-major. `dataset.json` may hold
more keys, which EG3D's own reader leaves alone; ours is "about" (where the set comes from). Ground truth is .npz
because that reader takes every *image* file below the root for a training image.

`validate` lists everything that is wrong with a set, one sentence each; the readers refuse a set that has problems.
Labels of images that are not there are left alone, so that a part of a set can be trained on. Hidden files are skipped.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from head3d_core.datasets.camera_checks import LABELS, Problem, check_labels, check_set
from head3d_core.datasets.storage import IMAGE_SUFFIXES, OTHER_SUFFIXES, Store, clean_name, decode, is_image
from head3d_core.datasets.writer import size_problem
from head3d_core.datasets.writer import write_dataset as write_dataset
from head3d_core.utils.errors import Head3DError

_NO_LABELS = "no labels (null or no such file): every image needs its camera, prepare-data estimates them"
_NO_IMAGES = f"no images: expected files ending in {', '.join(IMAGE_SUFFIXES)}"
_FORM = '{"labels": [[name, 25 numbers], ...]} or have null labels'


# -- names and labels ----------------------------------------------------------------------------------------------


def _json(store: Store, name: str) -> dict[str, Any]:
    """A JSON object of the set. Raises FileNotFoundError, or Head3DError with a sentence for what is damaged."""
    try:
        document = json.loads(store.read(name))
    except Head3DError as error:
        raise Head3DError(f"{name} of {store.path}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise Head3DError(f"{name} of {store.path} is not valid JSON ({error}): write it again") from None
    if not isinstance(document, dict):
        raise Head3DError(f"{name} of {store.path} must be a JSON object, got {type(document).__name__}")
    return document


def _read_labels(store: Store) -> dict[str, Any]:
    """dataset.json with its key "labels", a list or None; null labels where there is no such file."""
    try:
        document = _json(store, LABELS)
    except FileNotFoundError:
        return {"labels": None}
    if "labels" not in document:
        keys = ", ".join(map(repr, list(document)[:3])) or "nothing"
        raise Head3DError(f"{LABELS} of {store.path} must be {_FORM}, it has {keys}")
    if not isinstance(document["labels"], list | None):
        raise Head3DError(f"{LABELS} of {store.path} must be {_FORM}")
    return document


def _absent(store: Store, name: str) -> Problem | None:
    """What is wrong with a label whose image is not among the images; None if the image is just not there."""
    if ".." in PurePosixPath(name).parts or PurePosixPath(name).is_absolute():
        return Problem(name, "the name leads out of the data set")
    if name in store.files:
        return Problem(name, f"expected an image ending in {', '.join(IMAGE_SUFFIXES)}: convert it")
    return None


def _entries(store: Store, rows: list[Any] | None) -> tuple[list[str], list[Any] | None, list[Problem]]:
    """(image names sorted, labels in that order or None if there are none, problems of the pairing)."""
    images = [n for n in store.files if is_image(n)]
    several = "several files have this name (in either Unicode form): rename all but one"
    problems: list[Problem | None] = [Problem(n, several) for n in store.twice]
    if rows is None:
        return images, None, [p for p in problems if p]
    labels: dict[str, Any] = {}
    present = set(images)
    for row in rows:
        if not (isinstance(row, list) and len(row) == 2 and isinstance(row[0], str)):
            text = f"the entry {str(row)[:40]!r} is not [name, 25 numbers]: write it again"
            problems.append(Problem(LABELS, text))
            continue
        name = clean_name(row[0])
        if name in labels:
            problems.append(Problem(name, f"listed twice in {LABELS}: leave one of them out"))
        elif name not in present:
            problems.append(_absent(store, name))
        labels[name] = row[1]
    others = [n for n in store.files if is_image(n, OTHER_SUFFIXES) and n not in labels]
    text = f"no label in {LABELS}: add its 25 numbers or remove the image"
    problems += [Problem(n, text) for n in [*images, *others] if n not in labels]
    kept = [n for n in images if n in labels]
    if labels and images and not kept:
        text = f"none of the {len(labels):,} names is an image of the set, {next(iter(labels))!r} for one: rename"
        problems.insert(0, Problem(LABELS, text))
    return kept, [labels[n] for n in kept], [p for p in problems if p]


def _open(path: str | os.PathLike[str]) -> tuple[Store, list[str], Tensor, list[Problem]]:
    """A set whose labels have been read and checked, images not yet: names, cameras [N, 25], problems so far."""
    store = Store(path)
    names, labels, problems = _entries(store, _read_labels(store)["labels"])
    if not names and not problems:
        problems.append(Problem(store.path.name, _NO_IMAGES))
    if labels is None:
        problems.append(Problem(LABELS, _NO_LABELS))
        return store, names, torch.zeros(len(names), 0), problems
    of_labels = check_labels(names, labels)
    problems += of_labels
    wrong = any(p.file != LABELS for p in of_labels)
    values = np.zeros((len(names), 25)) if wrong else np.asarray(labels, np.float64).reshape(-1, 25)
    return store, names, torch.from_numpy(values.astype(np.float32)), problems


# -- images --------------------------------------------------------------------------------------------------------


def _scan(
    store: Store,
    names: Sequence[str],
    resolution: int | None,
    keep: Callable[[int, NDArray[np.uint8]], None] | None = None,
) -> list[Problem]:
    """Decode every image in threads (PIL releases the lock), check it, and hand good ones to `keep(index, pixels)`."""
    sizes: dict[int, tuple[int, ...]] = {}

    def one(index: int) -> Problem | None:
        try:
            pixels = decode(store.read(names[index]))
        except Head3DError as error:
            return Problem(names[index], str(error))
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
        odd = ((names[i], size_problem(s, usual, None)) for i, s in sorted(sizes.items()))
        problems += [Problem(name, text) for name, text in odd if text and name not in bad]
    return problems


def validate(
    path: str | os.PathLike[str],
    resolution: int | None = None,
    rays: tuple[float, float] | None = None,
) -> list[Problem]:
    """Everything that is wrong with the data set at `path`, labels first; empty if it can be trained on.

    Args:
        path: folder or zip.
        resolution: side in pixels that is wanted; None: all images must have the commonest side.
        rays: nearest and farthest sample of the generator to train, world units; None does not look at distances.

    Raises:
        Head3DError: there is no data set at all, or its dataset.json cannot be read.
    """
    store, names, cameras, problems = _open(path)
    if rays is not None and not any(p.fatal for p in problems):
        problems = problems + [p for p in check_set(cameras.numpy(), *rays) if p not in problems]
    return problems + _scan(store, names, resolution)


def load_arrays(path: str | os.PathLike[str], resolution: int | None = None) -> tuple[Tensor, Tensor]:
    """The whole data set in memory, in the order of the sorted file names.

    Args:
        path: folder or zip in EG3D's format.
        resolution: side of the returned images, pixels; larger images are area-averaged. None: as stored.

    Returns:
        images uint8 [N, 3, H, W] and cameras float32 [N, 25].

    Raises:
        Head3DError: the first problem that `validate` would list, and how many there are.
    """
    if resolution is not None and (resolution < 1 or resolution & (resolution - 1)):
        raise Head3DError(f"resolution must be a power of two, got {resolution}")
    store, names, cameras, problems = _open(path)
    side = resolution or _first_side(store, names)
    images = torch.empty(len(names), 3, side, side, dtype=torch.uint8)
    view = images.numpy()

    def keep(index: int, pixels: NDArray[np.uint8]) -> None:
        # Powers of two: whole blocks are averaged.
        factor = pixels.shape[0] // resolution if resolution else 1
        fitted = np.asarray(Image.fromarray(pixels).reduce(factor))
        if fitted.shape[0] == side:  # an odd one is reported by the scan
            view[index] = fitted.transpose(2, 0, 1)

    problems += _scan(store, names, resolution, keep)
    if fatal := [p for p in problems if p.fatal]:
        more = len(fatal) - 1
        rest = f" (and {more} more problem{'s' * (more > 1)}: the command validate lists them)" * bool(more)
        raise Head3DError(f"{store.path}: {fatal[0]}{rest}")
    return images, cameras


def _first_side(store: Store, names: list[str]) -> int:
    """Side of the first image that can be read; 0 if there is none."""
    for name in names:
        try:
            return decode(store.read(name)).shape[0]
        except Head3DError:  # reported by the scan
            continue
    return 0


# -- what else a set may say ---------------------------------------------------------------------------------------


def image_names(path: str | os.PathLike[str]) -> list[str]:
    """Names of the images inside the set, in the order in which the readers return them."""
    store = Store(path)
    return _entries(store, _read_labels(store)["labels"])[0]


def load_identities(path: str | os.PathLike[str]) -> Tensor:
    """Identity numbers int64 [N] in the order of the images: equal for the views of one head.

    They follow from the numbers in the file names where provenance.json says how many views a head has (make-data).
    Raises Head3DError if the set does not say.
    """
    store = Store(path)
    names = _entries(store, _read_labels(store)["labels"])[0]
    try:
        views = int(_json(store, "provenance.json")["views_per_head"])
        numbers = [int(PurePosixPath(name).stem.removeprefix("img")) // views for name in names]
    except (FileNotFoundError, KeyError):
        raise Head3DError(
            f"{store.path} names no identities: only sets that know who is who (make-data's) do"
        ) from None
    except (TypeError, ValueError, ArithmeticError) as error:
        raise Head3DError(f"provenance.json or the names of {store.path} are damaged ({error})") from None
    return torch.tensor(numbers, dtype=torch.int64)
