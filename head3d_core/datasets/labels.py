"""What can be wrong with labels and images of a data set: one sentence each.

A label is the camera of `cameras.py` as it stands in a file: cam2world and normalised intrinsics, row-major, 25 numbers
(strings of numbers are accepted: some published sets have them).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LABELS = "dataset.json"
_PIXEL_FOCAL = 40.0


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a data set."""

    file: str
    """Name inside the set."""
    text: str
    """One sentence: what was expected, what came, what to do."""

    def __str__(self) -> str:
        return f"{self.file}: {self.text}"


def check_label(numbers: object) -> str | None:
    """What is wrong with one label (25 numbers, or strings of numbers), as one sentence; None if nothing is.

    The checks follow the mistakes people make: world2cam or transposed matrices, OpenGL's axes (the camera looks along
    -z, so it would look away from the head), intrinsics in pixels, mirrored or scaled rotations.
    """
    try:
        label = np.asarray(numbers, np.float64).reshape(-1)
    except (TypeError, ValueError):
        return "the label has entries that are not numbers: expected 25 numbers (cam2world 16, intrinsics 9)"
    if label.size != 25:
        return f"the label has {label.size} numbers: expected 25 (cam2world 16, intrinsics 9, row-major)"
    if not np.isfinite(label).all():
        return "the label has values that are not finite: estimate this camera again or leave the image out"
    matrix, k = label[:16].reshape(4, 4), label[16:].reshape(3, 3)
    if np.abs(matrix[3] - (0, 0, 0, 1)).max() > 1e-3:
        turned = np.abs(matrix[:, 3] - (0, 0, 0, 1)).max() < 1e-3
        do = "it looks transposed, write it row-major" if turned else "write the 4 x 4 matrix row-major"
        return f"the last row of cam2world is {np.round(matrix[3], 3).tolist()}, expected [0, 0, 0, 1]: {do}"
    return _check_rotation(matrix) or _check_intrinsics(k)


def _check_rotation(matrix: NDArray[np.float64]) -> str | None:
    rotation, position = matrix[:3, :3], matrix[:3, 3]
    error = float(np.abs(rotation.T @ rotation - np.eye(3)).max())
    if error > 1e-2:
        return f"the rotation of cam2world is not orthonormal (off by {error:.2g}): scaled or sheared, normalise it"
    if np.linalg.det(rotation) < 0:
        return "cam2world is mirrored (determinant -1): one axis has the wrong sign (cameras.mirror flips a camera)"
    if np.linalg.norm(position) < 1e-3:
        return "the camera stands in the world origin, where the head is: expected about 2.7 away"
    if rotation[:, 2] @ position > 0:
        return (
            "the camera looks away from the origin, as with OpenGL's or Blender's axes: expected OpenCV's "
            "(x right, y down, z forward), convert with conventions.from_opengl"
        )
    return None


def _check_intrinsics(k: NDArray[np.float64]) -> str | None:
    if np.abs(k[:2]).max() > _PIXEL_FOCAL:
        return (
            f"the intrinsics are in pixels (focal {k[0, 0]:g}): expected them divided by the image width "
            "(focal about 4.26, centre 0.5)"
        )
    if k[0, 0] <= 0 or k[1, 1] <= 0:
        return f"the focal lengths are {k[0, 0]:g} and {k[1, 1]:g}: expected positive numbers (4.26 for EG3D's faces)"
    if np.abs(k[2] - (0, 0, 1)).max() > 1e-3:
        return f"the last row of the intrinsics is {np.round(k[2], 3).tolist()}, expected [0, 0, 1]"
    if np.abs(k[:2, 2] - 0.5).max() > 1:
        return f"the principal point is at {k[0, 2]:g}, {k[1, 2]:g}: expected fractions of the image (middle: 0.5)"
    return None


def size_problem(shape: tuple[int, ...], expected: int, resolution: int | None) -> str | None:
    height, width = shape[:2]
    if height != width:
        return f"the image is {width} x {height}: expected a square, crop it"
    if width & (width - 1):
        return f"the image is {width} x {width}: expected a power of two, resize it to {1 << width.bit_length() - 1}"
    if resolution is not None and width < resolution:
        return (
            f"the image is {width} x {width}: smaller than the {resolution} asked for, use a lower resolution"
        )
    if resolution is None and width != expected:
        return f"the image is {width} x {width}, most others are {expected} x {expected}: resize it"
    return None


def check_labels(names: Sequence[str], labels: Sequence[Any]) -> list[Problem]:
    texts = [(name, check_label(label)) for name, label in zip(names, labels, strict=True)]
    problems = [Problem(name, text) for name, text in texts if text]
    if not problems and len(labels) > 7:
        cameras = np.asarray(labels, np.float64)
        still, turning = (
            np.ptp(cameras[:, [3, 7, 11]], 0).max() < 1e-4,
            np.ptp(cameras[:, [2, 6, 10]], 0).max() > 0.05,
        )
        if still and turning:
            text = "all cameras stand in one place but turn, as world2cam matrices do: expected cam2world, invert them"
            problems.append(Problem(LABELS, text))
    return problems
