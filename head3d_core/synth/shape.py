"""From weights to vertices: macro shape, feature and expression targets, alignment, eyeballs."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from head3d_core.synth.assets import Asset
from head3d_core.synth.identity import Identity
from head3d_core.synth.subdivision import Array, Index
from head3d_core.synth.targets import blend, macro_weights

UPPER_TEETH_SHIFT = (0.0, -0.095, 0.03)
LOWER_TEETH_SHIFT = (0.0, 0.03, 0.0)
"""The base mesh's teeth sit too deep: an open mouth would be a black hole (dm)."""
HEIGHT_KEPT = 0.2
"""Share of the difference in face height that alignment leaves."""
EYE_RINGS, EYE_SECTORS = 20, 28


def base_shape(identity: Identity, data: Asset) -> Array:
    """The identity's base vertices [B, 3] (dm), aligned to the template."""
    weights = macro_weights(identity.person)
    for name, w in (*identity.features, *identity.expression):
        weights[name] = weights.get(name, 0.0) + w
    vertices = blend(data.base, data.targets, data.target_names, weights)
    vertices[data.vertices_of[3]] += UPPER_TEETH_SHIFT
    vertices[data.vertices_of[4]] += LOWER_TEETH_SHIFT
    return align(vertices, data)


def align(vertices: Array, data: Asset) -> Array:
    """Moves and scales a head so that eyes, jaw and crown sit as on the template; 80 % of the height goes."""

    def frame(v: Array) -> tuple[Array, float]:
        left, right, _, crown, _, jaw, _ = v[data.joints].mean(1)
        return (left + right + crown + jaw) / 4, float(np.linalg.norm(crown - jaw))

    centre, height = frame(data.template_base)
    own_centre, own_height = frame(vertices)
    return (vertices - own_centre) * (height / own_height) ** (1 - HEIGHT_KEPT) + centre


@lru_cache(maxsize=1)
def eye_sphere() -> tuple[Array, Index]:
    """An eyeball: unit points [E, 3] in the front three quarters of a sphere, +z the gaze, and triangles."""
    theta = np.linspace(0, 0.75 * np.pi, EYE_RINGS)[:, None]
    phi = np.linspace(0, 2 * np.pi, EYE_SECTORS, endpoint=False)[None]
    points = np.stack(
        np.broadcast_arrays(np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)), -1
    )
    return points.reshape(-1, 3), grid_triangles(EYE_RINGS, EYE_SECTORS, closed=True)


def grid_triangles(rows: int, columns: int, closed: bool) -> Index:
    """Triangles [T, 3] of a rows x columns grid of vertices (row-major); `closed` joins last column to first."""
    i = np.arange(rows - 1)[:, None] * columns
    j = np.arange(columns if closed else columns - 1)[None]
    k = (j + 1) % columns
    a, b, c, d = i + j, i + k, i + columns + j, i + columns + k
    return np.concatenate([np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)])


def gaze_rotation(yaw: float, pitch: float) -> Array:
    """[3, 3] rotation of +z by yaw (about y) and pitch (about x), radians."""
    cy, sy, cp, sp_ = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    return turn @ np.array([[1, 0, 0], [0, cp, -sp_], [0, sp_, cp]])
