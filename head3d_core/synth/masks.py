"""Where hair grows, written in rest coordinates (base mesh, dm): the same lines on every face.

Every function takes rest points [N, 3] and returns weights [N] in [0, 1].
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

from head3d_core.synth import TABLES
from head3d_core.synth.subdivision import Array

REST_CENTRE = np.array([0.0, 7.45, 0.55])
"""Middle of the base mesh's skull (dm): the hairline is an elevation as a function of azimuth about it."""
HAIRLINE = {name: np.array(row, float) for name, row in TABLES["hairline"].items()}
"""Knots of the hairline: azimuth from the front, elevation, and how far each moves up per degree of recession."""
T = TypeVar("T", float, Array)


def smoothstep(low: float, high: float, x: T) -> T:
    """3t^2 - 2t^3 between low and high, clipped; descending if low > high."""
    t: Any = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def spherical(points: Array, centre: Array = REST_CENTRE) -> tuple[Array, Array]:
    """|azimuth| from the front and elevation [N], degrees, about `centre`."""
    d = points - centre
    azimuth = np.degrees(np.abs(np.arctan2(d[..., 0], d[..., 2])))
    return azimuth, np.degrees(np.arctan2(d[..., 1], np.hypot(d[..., 0], d[..., 2])))


def above_hairline(azimuth: Array, elevation: Array, recession: float = 0.0, peak: float = 0.0) -> Array:
    """Degrees by which places (azimuth, elevation about REST_CENTRE, degrees) lie above the hairline."""
    knots = HAIRLINE["elevation"] + recession * HAIRLINE["recession"]
    knots[0] -= peak
    return elevation - np.interp(azimuth, HAIRLINE["azimuth"], knots)


def scalp(
    rest: Array, place: tuple[Array, Array], recession: float = 0, peak: float = 0, softness: float = 5
) -> Array:
    """The hairy scalp, without the ears, at points whose azimuth and elevation are `place` (see `spherical`).

    `softness` is half the width of its edge in degrees.
    """
    inside = smoothstep(-softness, softness, above_hairline(*place, recession, peak))
    ear = (np.abs(rest[:, 0]) > 0.80) & (rest[:, 1] < 7.38)
    return inside * (rest[:, 1] > 6.5) * ~ear


def crown(rest: Array) -> Array:
    """The part of the scalp that goes bald: 1 at the crown, 0 at the wreath of hair that stays."""
    d = rest - REST_CENTRE
    _, elevation = spherical(rest)
    reach = np.hypot(d[:, 0] / 0.62, d[:, 2] / np.where(d[:, 2] > 0, 1.6, 1.05)) + 0.6 * (
        1 - smoothstep(14.0, 26.0, elevation)
    )
    return 1 - smoothstep(0.75, 1.15, reach)


def beard(rest: Array, lips: Array | None = None) -> Array:
    """Cheeks below the beard line, chin, jaw and moustache; `lips` [N] (lip mask) is cut out."""
    a, y, z = np.abs(rest[:, 0]), rest[:, 1], rest[:, 2]
    cheek_line = 6.60 + 0.52 * np.clip((a - 0.28) / 0.5, 0, 1) ** 1.4
    jaw_line = 6.08 + 0.36 * (1 - smoothstep(0.62, 1.25, z))
    mask = smoothstep(-0.05, 0.05, cheek_line - y) * smoothstep(-0.06, 0.06, y - jaw_line)
    mask = mask * smoothstep(0.42, 0.60, z)
    mask = np.maximum(mask, moustache(rest))
    inside_mouth = (y > 6.35) & (y < 6.8) & (a < 0.24) & (z < 1.28)
    mask = mask * ~inside_mouth * (z >= 0.45)
    return mask if lips is None else mask * (1 - np.clip(1.6 * lips, 0, 1))


def moustache(rest: Array) -> Array:
    """Between nose and upper lip."""
    a, y, z = np.abs(rest[:, 0]), rest[:, 1], rest[:, 2]
    band = smoothstep(6.66, 6.70, y) * (1 - smoothstep(6.79, 6.84, y)) * smoothstep(1.40, 1.45, z)
    return np.exp(-((a / 0.30) ** 4)) * band


def goatee(rest: Array) -> Array:
    """Chin and below the lower lip."""
    a, y, z = np.abs(rest[:, 0]), rest[:, 1], rest[:, 2]
    width = 0.20 + 0.10 * smoothstep(6.2, 6.6, y)
    return smoothstep(0.05, -0.05, a - width) * smoothstep(6.12, 6.18, y) * (z > 1.1) * (y < 6.62)


def circle(rest: Array) -> Array:
    """Goatee and moustache joined beside the mouth."""
    a, y = np.abs(rest[:, 0]), rest[:, 1]
    side = smoothstep(0.42, 0.36, a) * (y < 6.72)
    return np.maximum(side * (y > 6.12), moustache(rest))


def brow(rest: Array, thickness: float, arch: float, gap: float, length: float, height: float) -> Array:
    """The brow, from its inner end at |x| = gap outwards (dm)."""
    mask = np.zeros(len(rest))
    near = np.flatnonzero((np.abs(rest[:, 1] - 7.5) < 0.2) & (rest[:, 2] > 0.95))
    t = (np.abs(rest[near, 0]) - gap) / length
    s = np.clip(t, 0, 1)
    centre = 7.478 + height + 0.8 * arch * np.sin(0.8 * np.pi * s)
    centre = centre - 0.035 * np.clip(t - 0.65, 0, 1) / 0.35 + 0.016 * (1 - np.clip(t / 0.35, 0, 1)) ** 2
    half = thickness * (1 - 0.65 * s)
    along = smoothstep(-0.12, 0.08, t) * (1 - smoothstep(0.88, 1.05, t))
    mask[near] = along * np.exp(-(((rest[near, 1] - centre) / half) ** 4))
    return mask
