"""What can be wrong with the cameras of a data set, one label at a time and over the whole set.

A label is the camera of `model/cameras.py` as a file holds it: cam2world and normalised intrinsics, row-major, 25
numbers (strings of numbers are accepted: some published sets have them). One label shows whether its matrix is a pose
at all. Only the set shows whether poses are world2cam matrices, which way is up, and where faces look.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LABELS = "dataset.json"
_PIXEL_FOCAL = 40.0
HEAD = 0.25
"""Depth of a head on either side of its centre, world units: the ray interval must hold it."""
FOCAL_RANGE = (1.0, 20.0)
"""Focal lengths in image widths that occur; EG3D's ShapeNet cars have 1.03, its faces 4.26."""
CENTRE = 0.25
"""How far a set's median principal point may lie from the middle, image widths."""
_FLIP = np.diag([1.0, -1.0, -1.0, 1.0])
"""OpenGL's camera axes in OpenCV's, and back."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a data set."""

    file: str
    """Name inside the set."""
    text: str
    """One sentence: what was expected, what came, what to do."""
    fatal: bool = True
    """False: worth a warning, but the set can be trained on."""

    def __str__(self) -> str:
        return f"{self.file}: {self.text}"


# -- one label -----------------------------------------------------------------------------------------------------


def check_label(numbers: object) -> str | None:
    """What is wrong with one label (25 numbers, or strings of numbers), as one sentence; None if nothing is.

    The checks follow the mistakes people make: transposed matrices, OpenGL's axes (the camera looks along -z, so it
    would look away from the head), intrinsics in pixels, mirrored or scaled rotations.
    """
    try:
        label = np.asarray(numbers, np.float64).reshape(-1)
    except (TypeError, ValueError, OverflowError):
        return "the label has entries that are not numbers: expected 25 numbers (cam2world 16, intrinsics 9)"
    if label.size != 25:
        return f"the label has {label.size} numbers: expected 25 (cam2world 16, intrinsics 9, row-major)"
    if not np.isfinite(label).all() or np.abs(label).max() > 1e30:
        return "the label has values that are not finite: estimate this camera again or leave the image out"
    matrix, k = label[:16].reshape(4, 4), label[16:].reshape(3, 3)
    if np.abs(matrix[3] - (0, 0, 0, 1)).max() > 1e-3:
        turned = np.abs(matrix[:, 3] - (0, 0, 0, 1)).max() < 1e-3
        do = "it looks transposed, write it row-major" if turned else "write the 4 x 4 matrix row-major"
        return f"the last row of cam2world is {np.round(matrix[3], 3).tolist()}, expected [0, 0, 0, 1]: {do}"
    return _check_rotation(matrix) or _check_intrinsics(k)


def _check_rotation(matrix: Array) -> str | None:
    rotation, position = matrix[:3, :3], matrix[:3, 3]
    error = float(np.abs(rotation.T @ rotation - np.eye(3)).max())
    if error > 1e-2:
        return f"the rotation of cam2world is not orthonormal (off by {error:.2g}): scaled or sheared, normalise it"
    if np.linalg.det(rotation) < 0:
        return "cam2world is mirrored (determinant -1): one axis has the wrong sign (cameras.mirror flips a camera)"
    if np.linalg.norm(position) < 1e-3:
        return "the camera stands in the world origin, where the head is: expected about 2.7 away"
    return None


def _check_intrinsics(k: Array) -> str | None:
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


_AWAY = (
    "looks away from the origin, as with OpenGL's or Blender's axes: expected OpenCV's (x right, y down, z forward), "
    "change the signs of columns 1 and 2 of cam2world"
)


_CONVENTIONS = ("every camera", "the set holds")
"""How sentences about a whole set's convention begin."""


def check_labels(names: Sequence[str], labels: Sequence[Any]) -> list[Problem]:
    """Problems of single labels, in their order, then those of the set of all that are poses."""
    texts = [check_label(label) for label in labels]
    good = [k for k, text in enumerate(texts) if text is None]
    cameras = np.array([np.asarray(labels[k], np.float64).reshape(25) for k in good]).reshape(-1, 25)
    of_set = check_set(cameras)
    if not any(p.text.startswith(_CONVENTIONS) for p in of_set):  # else one sentence stands for all of them
        away = (cameras[:, [2, 6, 10]] * cameras[:, [3, 7, 11]]).sum(1) > 0
        for k in np.asarray(good, int)[away]:
            texts[k] = f"the camera {_AWAY}"
    return [Problem(name, text) for name, text in zip(names, texts, strict=True) if text] + of_set


# -- the whole set -------------------------------------------------------------------------------------------------


def looking_past(poses: Array) -> float:
    """Median angle between a camera's viewing direction and the way to the origin, degrees.

    Args:
        poses: cam2world [N, 4, 4] with OpenCV's camera axes. EG3D's portraits look at (0, 0, 0.2), so up to 4 degrees
            past the origin.
    """
    forward, way = poses[:, :3, 2], -poses[:, :3, 3]
    lengths = np.linalg.norm(forward, axis=1) * np.linalg.norm(way, axis=1)
    cosine = (forward * way).sum(1) / np.maximum(lengths, 1e-12)
    return float(np.degrees(np.median(np.arccos(cosine.clip(-1, 1)))))


def _convention(poses: Array) -> tuple[str | None, Array]:
    """(what the matrices are and how to convert them, or None; the converted poses)."""
    inverses: Array = np.asarray(np.linalg.inv(poses), np.float64)
    others: dict[str, Array] = {
        "the set holds world2cam matrices: expected cam2world, invert each matrix": inverses,
        f"every camera {_AWAY}": poses @ _FLIP,
        "the set holds world2cam matrices with OpenGL's axes: expected cam2world with OpenCV's, invert each matrix and "
        "change the signs of columns 1 and 2": inverses @ _FLIP,
    }
    mine = looking_past(poses)
    text, best = min(others.items(), key=lambda item: looking_past(item[1]))
    rest = looking_past(best)
    if mine > 2 * rest + 2:
        return (
            f"{text} (the head is {mine:.0f} degrees off the viewing direction, {rest:.0f} afterwards)",
            best,
        )
    return None, poses


_UP = {
    (0, 1): ("x", "rows (-y, x, z)", np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])),
    (0, -1): ("-x", "rows (y, -x, z)", np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])),
    (2, 1): ("z, as in Blender", "rows (x, z, -y)", np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])),
    (2, -1): ("-z", "rows (x, -z, y)", np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])),
}
"""(axis, sign) that is up -> its name, the new rows of cam2world, and the rotation that does it."""


def _upright(poses: Array) -> tuple[str | None, Array]:
    """(which way the heads lie and how to convert the poses, or None; the converted poses)."""
    up = -poses[:, :3, 1].mean(0)
    axis = int(np.abs(up).argmax())
    if abs(up[axis]) < 0.4 or (axis == 1 and up[1] > 0):
        return None, poses
    new = poses.copy()
    if axis == 1 and poses[:, 2, 3].mean() < 0:
        new[:, 1:3] *= -1
        return (
            "the heads are upside down and face -z, as in a world with y down and z forward (COLMAP's): "
            "change the signs of rows 1 and 2 of cam2world"
        ), new
    if axis == 1:
        new[:, :, :2] *= -1
        return (
            "the heads are upside down, as with PyTorch3D's camera axes (x left, y up): change the signs of columns 0 "
            "and 1 of cam2world, or of rows 0 and 1 if it is the world whose y points down"
        ), new
    name, rows, turn = _UP[axis, int(np.sign(up[axis]))]
    new[:, :3] = turn @ poses[:, :3]
    return f"the heads lie on their side, up is {name}: expected y, write {rows} of cam2world", new


def _front(poses: Array) -> str | None:
    """Where the cameras stand if that is not in front; None too if they stand all around."""
    way = poses[:, :3, 3] / np.linalg.norm(poses[:, :3, 3], axis=1, keepdims=True)
    x, _, z = way.mean(0)
    yaw = float(np.degrees(np.arctan2(x, z)))
    if np.hypot(x, z) < 0.5 or abs(yaw) < 60:
        return None
    if abs(yaw) > 135:
        return (
            f"the cameras stand behind the head (mean yaw {yaw:.0f} degrees): if the images show faces, they look "
            "along -z where +z is expected, change the signs of rows 0 and 2 of cam2world"
        )
    return (
        f"the cameras stand beside the head (mean yaw {yaw:.0f} degrees): if the images show faces from the front, "
        f"turn the world by {-yaw:.0f} degrees about y"
    )


def _intrinsics(k: Array) -> list[str]:
    """What is wrong with the median intrinsics [N, 3, 3]."""
    focal, centre = float(np.median(k[:, 0, 0])), np.median(k[:, :2, 2], 0)
    texts = []
    if np.abs(centre - 0.5).max() > CENTRE:
        do = "measure it from the corner"
        if np.abs(centre).max() < 0.1:
            do = "as in NDC, add 0.5 (PyTorch3D's: also halve the focal lengths)"
        x, y = centre
        texts.append(f"the principal point is at {x:.3g}, {y:.3g}: expected the middle, 0.5, {do}")
    low, high = FOCAL_RANGE
    if not low <= focal <= high:
        text = f"the focal length is {focal:.3g} image widths, expected {low:g} to {high:g}"
        if focal < low:
            text += f": it may be a field of view in radians, {0.5 / np.tan(focal / 2):.3g} then"
        texts.append(text)
    return texts


def _distance(poses: Array, near: float, far: float) -> Problem | None:
    """Whether rays from `near` to `far` meet the heads."""
    away = np.linalg.norm(poses[:, :3, 3], axis=1)
    outside = (away < near + HEAD) | (away > far - HEAD)
    if not outside.any():
        return None
    typical, middle = float(np.median(away)), 0.5 * (near + far)
    rays = f"rays run from {near:g} to {far:g}"
    if near + HEAD <= typical <= far - HEAD:
        count = int(outside.sum())
        text = (
            f"{count:,} of {len(away):,} cameras are {away[outside][0]:.3g} or so from the head, but {rays}"
        )
        return Problem(LABELS, f"{text}: those images stay partly blank, leave them out", fatal=False)
    text = f"the cameras are {typical:.4g} from the head (median), but {rays}, so images would stay blank"
    return Problem(LABELS, f"{text}: multiply the translations by {middle / typical:.3g}")


def check_set(cameras: Array, near: float | None = None, far: float | None = None) -> list[Problem]:
    """What is wrong with a set as a whole, in the order in which it has to be mended.

    The limits let EG3D's portraits pass (cameras that look at (0, 0, 0.2), jitter of a few hundredths) and views of
    heads from all around. Two or three degrees of views tell nothing, and nothing is said of them.

    Args:
        cameras: [N, 25] whose labels pass `check_label`.
        near, far: the ray interval, world units; None does not look at distances.
    """
    if not len(cameras):
        return []
    cameras = np.asarray(cameras, np.float64)
    poses, k = cameras[:, :16].reshape(-1, 4, 4), cameras[:, 16:].reshape(-1, 3, 3)
    text, poses = _convention(poses)
    problems = [Problem(LABELS, text)] if text else []
    past = looking_past(poses)
    if past > 20:
        text = f"the cameras look {past:.0f} degrees past the origin: expected the head's centre there, move the world"
        return [*problems, Problem(LABELS, text)]
    text, poses = _upright(poses)
    problems += [Problem(LABELS, text)] if text else []
    text = _front(poses)
    problems += [Problem(LABELS, text, fatal=False)] if text else []
    problems += [Problem(LABELS, t) for t in _intrinsics(k)]
    if near is not None and far is not None and (problem := _distance(poses, near, far)):
        problems.append(problem)
    return problems
