"""Lights: a sky of nine spherical-harmonic coefficients per channel and one key light.

Two statistics, as two real data sets differ: `faces` were taken anywhere (one to three bright areas, a key
light of any strength from the front half), `heads` under soft natural light. Both are fixed to the head, not to
the camera, so all views of one head show one lighting.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from head3d_core.synth.draws import Draws
from head3d_core.synth.subdivision import Array, unit

Kind = Literal["faces", "heads"]


@dataclass(frozen=True)
class Light:
    """What the renderer is lit by. Directions are in the head's frame (y up, face along +z)."""

    sky: NDArray[np.float32]
    """[9, 3] radiance coefficients, order 1, y, z, x, xy, yz, 3z²-1, xz, x²-y² (real harmonics, unit norm)."""
    key_direction: NDArray[np.float32]
    """[3] unit vector towards the key light."""
    key_colour: NDArray[np.float32]
    """[3] linear RGB irradiance / pi of the key light on a surface that faces it."""
    exposure: float
    """Factor before the tone curve."""


def fibonacci_sphere(n: int) -> NDArray[np.float64]:
    """[n, 3] unit vectors spread evenly over the sphere (golden-angle spiral about y)."""
    i = np.arange(n) + 0.5
    y = 1 - 2 * i / n
    angle = i * math.pi * (1 + math.sqrt(5))
    r = np.sqrt(1 - y * y)
    return np.stack([r * np.cos(angle), y, r * np.sin(angle)], 1)


def tangents(directions: Array) -> tuple[Array, Array]:
    """Two unit vectors orthogonal to each direction [N, 3] and to each other."""
    up = np.where(np.abs(directions[:, 1:2]) < 0.9, [[0.0, 1.0, 0.0]], [[1.0, 0.0, 0.0]])
    u = unit(np.cross(up, directions))
    return u, np.cross(directions, u)


def harmonics(d: NDArray[np.float64]) -> NDArray[np.float64]:
    """[N, 9] real spherical harmonics up to degree 2 at unit directions [N, 3]."""
    x, y, z = d.T
    first, second = 0.488603, 1.092548
    rows = [np.full_like(x, 0.282095), first * y, first * z, first * x, second * x * y, second * y * z]
    rows += [0.315392 * (3 * z * z - 1), second * x * z, 0.546274 * (x * x - y * y)]
    return np.stack(rows, 1)


_DIRECTIONS = fibonacci_sphere(600)
_HARMONICS = harmonics(_DIRECTIONS)


def _sky(draws: Draws, blobs: int) -> NDArray[np.float32]:
    """A sky above, a warmer ground below, and `blobs` bright areas of the front and upper side."""
    up = _DIRECTIONS[:, 1:2]
    cool = np.array([0.93, 0.98, 1.06]) * draws.uniform("sky", 0.95, 1.05)
    warm = np.array([1.03, 0.98, 0.92])
    radiance = np.where(up > 0, (0.80 + 0.35 * up) * cool, (0.62 + 0.15 * up) * warm)
    for k in range(blobs):
        x, y, z = (draws.normal(f"blob {axis} {k}") for axis in "xyz")
        at = unit(np.array([x, abs(y) * 0.8, abs(z) * 0.6 + 1e-3]))
        tint = 1 + np.array([draws.normal(f"blob tint {k} {c}", 0.06) for c in range(3)])
        strength = draws.uniform(f"blob strength {k}", 0.3, 1.3)
        radiance = radiance + np.exp(5 * (_DIRECTIONS @ at - 1))[:, None] * strength * tint
    sky = (_HARMONICS[..., None] * radiance[:, None]).mean(0) * 4 * math.pi
    # The mean radiance (green) is brought near 1, so exposure and strength vary apart.
    sky *= draws.uniform("level", 0.88, 1.04) * 3.545 / sky[0, 1]
    return sky.astype(np.float32)


def sample_light(seed: int, kind: Kind) -> Light:
    """The light of head `seed`: the same for ever, and independent of every other part of the head."""
    draws = Draws(seed, f"light {kind}")
    if kind == "heads":
        sky = _sky(draws, 1)
        direction = [draws.uniform("key x", -0.5, 0.5), draws.uniform("key y", 0.6, 0.9), 0.7]
        strength = draws.uniform("key", 0.45, 0.75)
    else:
        sky = _sky(draws, 1 + int(draws.uniform("blobs", 0, 3)))
        ranges = {"x": (-0.95, 0.95), "y": (0.2, 0.9), "z": (0.3, 0.9)}
        direction = [draws.uniform(f"key {axis}", *ends) for axis, ends in ranges.items()]
        strength = draws.uniform("key", 0.2, 1.2)
    warmth = draws.uniform("warmth", -0.5, 1.0)
    colour = strength * np.array([1.0, 1 - 0.06 * warmth, 1 - 0.14 * warmth])
    # A photographer (or the camera's meter) opens up for a weak key light and stops down for a strong one.
    exposure = draws.uniform("exposure", 0.92, 1.08) * 1.25 / (1 + 0.5 * strength)
    return Light(sky, unit(np.array(direction)).astype(np.float32), colour.astype(np.float32), exposure)
