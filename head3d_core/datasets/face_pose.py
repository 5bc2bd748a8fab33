"""The camera of a portrait from five landmarks: PnP on a canonical face.

A detector gives five points of a face in pixels. We look for the camera on EG3D's sphere (radius 2.7, focal length
4.2647 image widths, looking at the origin) and for the crop of the photograph - where, how large, how turned - such
that the canonical face, seen by that camera, falls on those points. Six unknowns (yaw, pitch, roll, side, centre) meet
ten numbers, so what does not fit remains as a residual.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from head3d_core.model.cameras import FOCAL, RADIUS, orbit
from head3d_core.utils.errors import Head3DError

Array = NDArray[np.float64]

CANONICAL: Array = np.array(
    [
        [-0.0500, 0.0012, 0.1485],
        [0.0500, 0.0012, 0.1485],
        [0.0, -0.0579, 0.1971],
        [-0.0419, -0.1058, 0.1494],
        [0.0419, -0.1058, 0.1494],
    ]
)
"""[5, 3] eyes, nose, mouth corners in world units, the subject's right before its left: where MTCNN sees them on
average over faces of the head factory: the points closest to all rays through its landmarks, made symmetric."""
MIRRORED = (1, 0, 2, 4, 3)
"""Which point of a mirrored face is which."""
_NOISE = 0.01
"""Standard deviation of a landmark about its canonical place, crop widths (faces differ by more than detectors err)."""
_WEIGHTS = np.array([1.0, 1.0, 2.0, 1.0, 1.0])
"""Of the points' residuals: the nose stands out, so it says most about yaw."""
LEVEL = 0.2
"""Standard deviation of the prior on the pitch, radians; wider than portraits' 0.13, so that steep views survive."""


@dataclass(frozen=True)
class FacePose:
    """Camera and crop that explain five landmarks."""

    yaw: float
    pitch: float
    """Of the camera on its sphere, radians, as in `cameras.orbit`."""
    roll: float
    """By which the crop is turned in the photograph, radians, clockwise."""
    side: float
    """Of the square crop, in pixels of the photograph."""
    centre: tuple[float, float]
    """Of the crop, in pixels of the photograph."""
    residual: float
    """Root mean square distance between landmarks and canonical face, in crop widths."""

    def camera(self) -> Tensor:
        """[1, 25]."""
        return orbit(self.yaw, self.pitch)

    def affine(self, resolution: int) -> tuple[float, float, float, float, float, float]:
        """(a, b, c, d, e, f): pixel (x, y) of the crop lies at (a x + b y + c, d x + e y + f) in the photograph."""
        scale, half = self.side / resolution, resolution / 2
        cos, sin = scale * math.cos(self.roll), scale * math.sin(self.roll)
        x, y = self.centre
        return cos, -sin, x - half * (cos - sin), sin, cos, y - half * (sin + cos)


def project(points: Array, yaw: float, pitch: float) -> Array:
    """World points [P, 3] seen from (yaw, pitch) on the sphere -> [P, 2] in image widths, the middle at (0, 0)."""
    sy, cy, sp, cp = math.sin(yaw), math.cos(yaw), math.sin(pitch), math.cos(pitch)
    right, down = np.array([cy, 0.0, -sy]), np.array([sy * sp, -cp, cy * sp])
    forward = np.array([-sy * cp, -sp, -cy * cp])
    depth = RADIUS + points @ forward
    return FOCAL * np.stack([points @ right, points @ down], -1) / depth[:, None]


def _weak_perspective(landmarks: Array) -> Array:
    """Start values (yaw, pitch, roll, log side, x, y) from the best scaled orthographic view of the canonical face."""
    middle = CANONICAL.mean(0)
    matrix, *_ = np.linalg.lstsq(np.c_[CANONICAL - middle, np.ones(5)], landmarks, rcond=None)
    # Rows: image x and y axes in the world, times scale.
    u, s, vt = np.linalg.svd(matrix[:3].T, full_matrices=False)
    right, down = u @ vt
    forward = np.cross(right, down)
    yaw, pitch = math.atan2(-forward[0], -forward[2]), math.asin(min(1.0, max(-1.0, -forward[1])))
    level = np.array([math.cos(yaw), 0.0, -math.sin(yaw)])
    roll = math.atan2(float(down @ level), float(right @ level))
    side = float(s.mean()) * RADIUS / FOCAL
    centre = matrix[3] - matrix[:3].T @ middle
    return np.array([yaw, pitch, -roll, math.log(side), *centre])


def _residuals(unknown: Array, landmarks: Array, level: float | None) -> Array:
    """Weighted distances in units of their noise; last, the pitch in units of its prior."""
    yaw, pitch, roll, log_side, x, y = unknown
    cos, sin, side = math.cos(roll), math.sin(roll), math.exp(log_side)
    seen = side * project(CANONICAL, yaw, pitch) @ np.array([[cos, sin], [-sin, cos]]) + (x, y)
    apart = (seen - landmarks) / (side * _NOISE) * _WEIGHTS[:, None]
    return np.append(apart.ravel(), pitch / level if level else 0.0)


def fit_pose(landmarks: Array, level: float | None = LEVEL) -> FacePose:
    """The camera on the sphere, and the crop, that put the canonical face on `landmarks`.

    Gauss-Newton with a trust region (Levenberg-Marquardt) from the weak-perspective solution. A long chin and a camera
    from above look much alike in five points, so by default level portraits are taken to be likelier (a Gaussian prior
    on the pitch); this lowers the mean error and pulls steep views towards level.

    Args:
        landmarks: [5, 2] pixels of a photograph, in the order of `CANONICAL`.
        level: standard deviation of that prior, radians; None: landmarks alone.

    Raises:
        Head3DError: the landmarks are not five finite, distinct points.
    """
    from scipy.optimize import least_squares

    landmarks = np.asarray(landmarks, np.float64)
    if landmarks.shape != (5, 2) or not np.isfinite(landmarks).all() or np.ptp(landmarks, 0).max() < 1e-6:
        raise Head3DError(
            f"landmarks must be 5 distinct finite points [5, 2] (eyes, nose, mouth corners), got {landmarks.tolist()}"
        )
    start = _weak_perspective(landmarks)
    scale = math.exp(start[3])
    step = np.array([1.0, 1.0, 1.0, 1.0, scale, scale])
    found = least_squares(
        partial(_residuals, landmarks=landmarks, level=level), start, method="lm", x_scale=step
    )
    yaw, pitch, roll, log_side, x, y = (float(v) for v in found.x)
    apart = found.fun[:10].reshape(5, 2) * _NOISE / _WEIGHTS[:, None]
    residual = math.sqrt(float((apart**2).sum(1).mean()))
    return FacePose(yaw, pitch, roll, math.exp(log_side), (x, y), residual)
