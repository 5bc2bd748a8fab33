"""From weights to vertices: macro shape, feature and expression targets, alignment, eyeballs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from head3d_core.synth.identity import Identity, Person

if TYPE_CHECKING:
    from head3d_core.synth.assets import Asset
    from head3d_core.synth.subdivision import Array, Index

TEMPLATE = Person(years=31.5, gender=0.5, ancestry=(1 / 3, 1 / 3, 1 / 3), muscle=0.5, weight=0.5)
"""The average adult on which hair is grown."""
UPPER_TEETH_SHIFT = (0.0, -0.095, 0.03)
LOWER_TEETH_SHIFT = (0.0, 0.03, 0.0)
"""The base mesh's teeth sit too deep: an open mouth would be a black hole (dm)."""
HEIGHT_KEPT = 0.2
"""Share of the difference in face height that alignment leaves."""
EYE_RINGS, EYE_SECTORS = 20, 28


def mesh_age(years: float) -> float:
    """Age as MakeHuman counts it: 12 years 0.1875 (child), 25 years 0.5 (young), 90 years 1 (old)."""
    if years < 25:
        return 0.5 - 0.3125 * (25 - max(years, 12)) / 13
    return 0.5 + 0.5 * min((years - 25) / 65, 1.0)


def macro_weights(person: Person) -> dict[str, float]:
    """Weights of MakeHuman's ancestry-gender-age and muscle-weight targets; they multiply (a product of hats)."""
    age = mesh_age(person.years)
    t = (0.5 - age) / 0.3125
    ages = {"child": t, "young": 1 - t} if age < 0.5 else {"young": 2 - 2 * age, "old": 2 * age - 1}
    genders = {"female": 1 - person.gender, "male": person.gender}

    def hat(x: float, name: str) -> dict[str, float]:
        return {
            f"min{name}": max(0.0, 1 - 2 * x),
            f"average{name}": 1 - abs(2 * x - 1),
            f"max{name}": max(0.0, 2 * x - 1),
        }

    weights = {}
    for a, wa in ages.items():
        for g, wg in genders.items():
            for name, share in zip(("african", "asian", "caucasian"), person.ancestry, strict=True):
                weights[f"{name}-{g}-{a}"] = wa * wg * share
            for m, wm in hat(person.muscle, "muscle").items():
                for k, wk in hat(person.weight, "weight").items():
                    weights[f"universal-{g}-{a}-{m}-{k}"] = wa * wg * wm * wk
    return weights


def blend(base: Array, targets: sp.csc_matrix, names: tuple[str, ...], weights: dict[str, float]) -> Array:
    """base [B, 3] moved by the weighted targets; names without a target (the average body) count nothing."""
    w = np.array([weights.get(name, 0.0) for name in names])
    return base + (targets @ w).reshape(base.shape)


def base_shape(identity: Identity, data: Asset) -> Array:
    """The identity's base vertices [B, 3] (dm), aligned to the template."""
    weights = macro_weights(identity.person)
    for name, w in (*identity.features, *identity.expression):
        weights[name] = weights.get(name, 0.0) + w
    vertices = blend(data.base, data.targets, data.target_names, weights)
    upper, lower = data.teeth_vertices
    vertices[upper] += UPPER_TEETH_SHIFT
    vertices[lower] += LOWER_TEETH_SHIFT
    return align(vertices, data)


def align(vertices: Array, data: Asset) -> Array:
    """Moves and scales a head so that eyes, jaw and crown sit as on the template; 80 % of the height goes."""

    def frame(v: Array) -> tuple[Array, float]:
        left, right, _, crown, _, jaw, _ = v[data.joints].mean(1)
        return (left + right + crown + jaw) / 4, float(np.linalg.norm(crown - jaw))

    centre, height = frame(data.template_base)
    own_centre, own_height = frame(vertices)
    return (vertices - own_centre) * (height / own_height) ** (1 - HEIGHT_KEPT) + centre


@dataclass(frozen=True)
class Sphere:
    """Template of an eyeball: unit points [E, 3] with +z the gaze, and triangles."""

    points: Array
    triangles: Index


def eye_sphere() -> Sphere:
    """The front three quarters of a sphere, rings around the gaze axis."""
    theta = np.linspace(0, 0.75 * np.pi, EYE_RINGS)[:, None]
    phi = np.linspace(0, 2 * np.pi, EYE_SECTORS, endpoint=False)[None]
    points = np.stack(
        np.broadcast_arrays(np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)), -1
    )
    return Sphere(points.reshape(-1, 3), grid_triangles(EYE_RINGS, EYE_SECTORS, closed=True))


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
