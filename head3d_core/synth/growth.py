"""Guide hairs of each style, grown on the template head.

A style is grown once per process and length (`strands.py` caches it). A guide starts on the scalp and steps along
a direction that is turned by the comb (a field), gravity and noise, and pushed out of the skin's distance field.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from head3d_core.synth import TABLES
from head3d_core.synth.assets import SKULL_CENTRE, Asset
from head3d_core.synth.draws import Draws, normals, stream_key, uniforms
from head3d_core.synth.masks import smoothstep, spherical
from head3d_core.synth.subdivision import Array, unit

DOWN, BACK, FORWARD = np.array([0.0, -1, 0]), np.array([0.0, 0, -1]), np.array([0.0, 0, 1])
STYLES: dict[str, dict[str, Any]] = TABLES["style"]
"""Name -> its row of the table; "bald" has none."""


@dataclass(frozen=True)
class Comb:
    """How strands follow their guides (see `strands.interpolate`)."""

    clump: Array
    """[M] how far each point moves from the mean of three guides to the nearest one."""
    pull: float = 0.8
    """How far strands close in on that guide."""
    frizz: float = 0.01
    curl: float = 0.0
    """Radius of the helix (dm)."""
    turns: float = 0.0
    """Turns per dm."""
    loose: float = 0.3
    """How much neighbours' helices differ in phase."""
    ragged: float = 0.2
    """Largest share of its length a strand may lack."""
    width: float = 0.015
    parting: float | None = None
    """x (dm) of a parting that strands must not cross when they look for guides."""


Guides = tuple[Array, Comb]
"""Guides [G, M, 3] (dm, template space) and their comb."""


@dataclass(frozen=True)
class Scalp:
    """Roots of the guides: points and normals [G, 3] and what styles ask about a place on the head."""

    points: Array
    normals: Array
    key: int
    data: Asset

    @property
    def relative(self) -> Array:
        """[G, 3] from the skull's centre."""
        return self.points - SKULL_CENTRE

    @property
    def elevation(self) -> Array:
        """[G] degrees about the skull's centre."""
        return spherical(self.points, SKULL_CENTRE)[1]

    def tangent(self, v: Array) -> Array:
        """Directions v without their part along the normals, unit length."""
        v = np.broadcast_to(v, self.normals.shape)
        return unit(v - self.normals * (v * self.normals).sum(-1, keepdims=True))

    def noise(self, name: str, *shape: int) -> Array:
        """Standard normals of `shape`."""
        return normals(stream_key(self.key, name), *shape)

    def random(self, name: str) -> Array:
        """[G] uniforms."""
        return uniforms(stream_key(self.key, name), len(self.points))


def grow(
    scalp: Scalp,
    start: Array,
    direction: Array,
    length: Array,
    steps: int,
    gravity: float = 0.0,
    layer: Array | float = 0.0,
    field: Callable[[Array, float], Array] | None = None,
    noise: float = 0.0,
    ceiling: float | None = None,
) -> Array:
    """Guides [G, steps, 3] from `start` [G, 3].

    length [G] in dm; gravity is the weight of "down" against the present direction; a guide keeps at least `layer`
    above the skin, and below `ceiling` on top of the head; field(points, u) adds a direction, u in [0, 1].
    """
    points = np.empty((len(start), steps, 3))
    points[:, 0] = start
    p, d, step = start, unit(direction), (length / (steps - 1))[:, None]
    jitter = noise * scalp.noise("growth", steps, len(start), 3) if noise else None
    for i in range(1, steps):
        u = i / (steps - 1)
        d = d + gravity * DOWN
        if field is not None:
            d = d + field(p, u)
        if jitter is not None:
            d = d + jitter[i]
        q = p + unit(d) * step
        height, out = scalp.data.distance(q)
        q = q + out * np.clip(np.minimum(1, i / 3) * layer - height, 0, 0.15)[:, None]
        if ceiling is not None and u < 0.6:
            q = q - out * (0.7 * np.clip(height - ceiling, 0, 0.3) * (q[:, 1] > 7.75))[:, None]
        d = unit(q - p)
        p = p + d * step
        points[:, i] = p
    return points


def _combed_by(points: Array, fields: dict[str, Any]) -> Guides:
    """Guides [G, M, 3] with the comb of a table's row. Clumping rises from 0 at the root to `clump` at the tip, late if
    `power` is above 1, which keeps partings free of gaps; without `clump` it rises before the tie."""
    fields = dict(fields)
    u, power = np.linspace(0, 1, points.shape[1]), fields.pop("power", 1.0)
    clump = fields.pop("clump") * u**power if "clump" in fields else smoothstep(0.15, 0.48, u)
    return points, Comb(clump, **fields)


def _stubbly(scalp: Scalp, style: str, reach: float, level: int) -> Array:
    """buzz, balding: short hair lying forward and down."""
    direction = scalp.normals + 0.7 * scalp.tangent(0.4 * FORWARD + 0.6 * DOWN)
    return grow(scalp, scalp.points, direction, np.full(len(direction), reach), 6, 0.05)


def _crop(scalp: Scalp, style: str, reach: float, level: int) -> Array:
    """crop: forward on top, down at the sides."""
    top = smoothstep(0.0, 50.0, scalp.elevation)[:, None]
    lengths = reach * (0.45 + 0.55 * top[:, 0])
    comb = 0.9 * top * FORWARD + (1 - top) * (DOWN + 0.35 * BACK) + np.array([0.25, 0, 0]) * top
    direction = 0.62 * scalp.normals + scalp.tangent(comb) + 0.14 * scalp.noise("tousle", *comb.shape)
    return grow(scalp, scalp.points, direction, lengths, 14, 0.10, 0.05 * scalp.random("layer"), noise=0.05)


def _along(comb: Array, p: Array) -> Array:
    """Unit directions [G, 3] of `comb` along the skull at points p [G, 3]."""
    normal = unit(p - SKULL_CENTRE)
    return unit(comb - normal * (comb * normal).sum(1, keepdims=True))


def _combed(scalp: Scalp, style: str, reach: float, level: int) -> Array:
    """side_part, slick, quiff: longer on top than at the sides, with a gradual change between."""
    top = smoothstep(5.0, 55.0, scalp.elevation)[:, None]
    front = smoothstep(0.3, 0.85, scalp.relative[:, 2])[:, None]
    sides = (1 - top) * (0.9 * DOWN + 0.6 * BACK)
    lengths = reach * (0.36 + 0.64 * smoothstep(-5.0, 60.0, scalp.elevation))
    lengths = lengths * (1 - 0.35 * smoothstep(0.1, -0.5, scalp.relative[:, 2]))  # tapered towards the back
    layer = 0.012 + (0.02 + 0.05 * top[:, 0]) * scalp.random("layer") ** 1.5 + 0.03 * top[:, 0]
    if style == "side_part":
        away = np.where(scalp.points[:, 0] > STYLES[style]["parting"][level], 0.9, -1.0)[:, None]
        ahead = smoothstep(-0.5, 0.1, scalp.relative[:, 2])[:, None]  # behind the crown the parting ends
        comb = top * (ahead * (away * [1.0, 0, 0] + np.array([0, -0.1, 0.28])) + (1 - ahead) * BACK) + sides
        direction = (0.42 * top + 0.08) * scalp.normals + scalp.tangent(comb)
    elif style == "slick":
        comb = BACK + 0.25 * (1 - top) * DOWN
        lengths = np.maximum(lengths, 0.36)
        direction = (0.36 * top + 0.05) * scalp.normals + scalp.tangent(comb)
    else:
        rise = np.array([0.18, 0.75, -0.30]) * front + BACK * (1 - front)
        comb = top * rise + (1 - top) * (0.7 * DOWN + 0.6 * BACK)
        direction = (0.65 * top + 0.05) * scalp.normals + 0.8 * comb
    gravity = STYLES[style]["gravity"]
    return grow(
        scalp, scalp.points, direction, lengths, 16, gravity, layer, lambda p, _: 0.22 * _along(comb, p), 0.03
    )


def _falling(comb: Array, fringe: NDArray[np.bool_]) -> Callable[[Array, float], Array]:
    """Where hair is drawn as it grows: along `comb` [G, 3] first, then down, off face and neck unless `fringe` [G]."""

    def field(p: Array, u: float) -> Array:
        face = (p[:, 2] > 0.95) & (p[:, 1] < 7.8) & (np.abs(p[:, 0]) < 0.78) & ~fringe
        neck = (p[:, 2] > 0.5) & (p[:, 1] < 6.6) & (np.abs(p[:, 0]) < 0.72) & ~fringe
        off = np.stack([0.5 * np.sign(p[:, 0]), np.zeros(len(p)), np.full(len(p), -0.55)], 1)
        # Over the shoulders hair falls to the chest or the back instead of spreading sideways.
        wide = smoothstep(0.75, 1.05, np.abs(p[:, 0])) * smoothstep(6.5, 6.1, p[:, 1])
        nape = smoothstep(6.8, 6.2, p[:, 1]) * (p[:, 2] < 0.1)
        inwards = -0.45 * np.sign(p[:, 0]) * wide - 0.12 * np.sign(p[:, 0]) * nape
        fall = np.stack([inwards, np.zeros(len(p)), 0.40 * np.sign(p[:, 2] - 0.25) * wide], 1)
        return max(0.0, 1 - 2.2 * u) * 0.30 * _along(comb, p) + (face | neck)[:, None] * off + fall

    return field


def _draped(scalp: Scalp, style: str, end: float, level: int) -> Array:
    """Hair that falls from a parting to height `end`, off the face; fringe and pixie comb the front forward."""
    points, relative = scalp.points, scalp.relative
    top = smoothstep(5.0, 45.0, scalp.elevation)
    front = smoothstep(0.3, 0.85, relative[:, 2])
    side = np.where(points[:, 0] > STYLES[style]["parting"][level], 1.0, -1.0)
    # The parting ends at the crown: behind it hair falls straight down and closes over the nape.
    parted = smoothstep(-0.45, 0.15, relative[:, 2])
    across = side * parted - 0.25 * points[:, 0] * (1 - parted)
    comb = np.stack([across, -0.35 - 0.5 * (1 - parted), -0.18 - 0.25 * front], 1)
    direction = (0.28 + 0.14 * scalp.random("lift"))[:, None] * scalp.normals + scalp.tangent(comb)
    reach = np.clip(1.05 * (points[:, 1] - end) + 0.30 * top + 0.12, 0.2, None)
    fringe = np.zeros(len(points), bool)
    if style in ("fringe", "pixie"):
        azimuth, _ = spherical(points, SKULL_CENTRE)
        fringe = (relative[:, 2] > 0.5) & (scalp.elevation > 22) & (azimuth < 58)
        aside = 0.35 * points[:, 0] + (0.25 if style == "pixie" else 0.08)
        ahead = np.stack([aside, -0.3 + 0 * side, 1 + 0 * side], 1)
        direction[fringe] = (0.32 * scalp.normals + scalp.tangent(ahead))[fringe]
        comb[fringe] = 0.6 * ahead[fringe]
        # The skin runs steeply down to the brows at y 7.48: end the fringe above them.
        low = 7.60 + 0.05 * scalp.random("fringe ends")
        reach = np.where(fringe, np.clip(0.95 * (points[:, 1] - low) + 0.14, 0.2, 0.85), reach)
    if style == "pixie":
        reach = np.where(fringe, reach, np.clip(0.55 * reach, 0.20, (0.40, 0.48, 0.56)[level]))

    steps = 21 if end < 6 else 18
    layer = (0.02 if style == "pixie" else 0.06) + 0.10 * scalp.random("layer") ** 1.5
    field, gravity = _falling(comb, fringe), STYLES[style]["gravity"]
    return grow(scalp, points, direction, reach, steps, gravity, layer, field, 0.02, ceiling=0.16)


def _over_skull(scalp: Scalp, ties: Array, steps: int) -> Array:
    """Paths [G, steps, 3] along great circles about the skull from the roots to `ties` [G, 3], close to the skin."""
    a, b = unit(scalp.relative), unit(ties - SKULL_CENTRE)
    angle = np.arccos(np.clip((a * b).sum(1), -1, 1))[:, None]
    sine = np.maximum(np.sin(angle), 1e-3)
    near, far = (np.linalg.norm(x - SKULL_CENTRE, axis=1)[:, None] for x in (scalp.points, ties))
    depth = 0.03 + 0.05 * scalp.random("layer") ** 1.5
    path = np.empty((len(a), steps, 3))
    for i in range(steps):
        u = i / (steps - 1)
        q = SKULL_CENTRE + (np.sin((1 - u) * angle) / sine * a + np.sin(u * angle) / sine * b) * (
            near * (1 - u) + far * u
        )
        height, out = scalp.data.distance(q)
        over = 0.012 + depth * np.sin(np.pi * min(u, 0.85))
        hold = float(1 - smoothstep(0.75, 1.0, np.array(u)))
        path[:, i] = q + out * ((over - height) * hold)[:, None]
    path[:, 0] = scalp.points
    path[:, -1] += 0.035 * scalp.noise("tie", len(a), 3)
    return path


def _pulled(scalp: Scalp, style: str, reach: float, level: int) -> Array:
    """Ponytail, bun, topknot, counterpart tails: over the skull to a tie, then a tail or a coil."""
    d = Draws(scalp.key, "tie")
    height = (7.35, 7.6, 7.85)[level]
    tie = {"topknot": [0, 8.50, 0.05], "twin_tails": [0.74, 7.55, -0.05]}.get(style, [0, height, -0.46])
    ties = np.tile(np.array(tie, float), (len(scalp.points), 1))
    if style == "twin_tails":
        ties[:, 0] *= np.where(scalp.points[:, 0] >= 0, 1, -1)
    path = _over_skull(scalp, ties, 11)
    out = unit(ties - SKULL_CENTRE)
    count, steps = len(path), 13
    if style in ("ponytail", "twin_tails"):
        lengths = reach * (0.85 + 0.15 * scalp.random("tail"))
        # Gravity wins soon, so that the tail hangs inside the frame at every yaw.
        direction = 0.55 * out + 0.35 * DOWN + 0.14 * scalp.noise("tail", count, 3)
        layer = 0.06 + 0.05 * scalp.random("tail")
        tail = grow(scalp, path[:, -1], direction, lengths, steps, 0.34, layer, None, 0.03)
    else:
        radius = d.uniform("radius", 0.26, 0.34) * (0.85 if style == "topknot" else 1.0)
        centre = ties + out * radius * 0.7
        e1 = unit(np.cross(out, [0.3, 1, 0.2]))
        e2 = np.cross(out, e1)
        phase, tilt = 2 * np.pi * scalp.random("phase"), 0.5 * scalp.noise("tilt", count)
        layer, latitude = 0.75 + 0.33 * scalp.random("shell"), -0.7 + 1.42 * scalp.random("latitude")
        angle = phase[:, None] + np.linspace(0, 3.6, steps)
        lat = latitude[:, None] + 0.35 * np.sin(angle + tilt[:, None])
        turn = np.cos(angle)[..., None] * e1[:, None] + np.sin(angle)[..., None] * e2[:, None]
        ring = np.cos(lat)[..., None] * turn + 0.8 * np.sin(lat)[..., None] * out[:, None]
        tail = centre[:, None] + (radius * layer)[:, None, None] * ring
        tail[:, 0] = 0.3 * path[:, -1] + 0.7 * tail[:, 0]
    return np.concatenate([path, tail[:, 1:]], 1)


def _tight(scalp: Scalp, style: str, reach: float, level: int) -> Array:
    """afro and curly: outwards from the skull, in small helices."""
    top = smoothstep(5.0, 45.0, scalp.elevation)
    direction = 0.6 * scalp.normals + 0.8 * unit(scalp.relative)
    if style == "afro":
        return grow(scalp, scalp.points, direction, reach * (0.75 + 0.25 * top), 14, 0.02, 0.0, noise=0.10)
    layer = 0.05 + 0.10 * scalp.random("layer") ** 1.5
    return grow(scalp, scalp.points, direction, reach * (0.75 + 0.30 * top), 16, 0.16, layer, noise=0.08)


def _mohawk(scalp: Scalp, style: str, reach: float, level: int) -> Array:
    direction = unit(scalp.relative) + 0.1 * scalp.noise("tousle", len(scalp.points), 3)
    return grow(scalp, scalp.points, direction, np.full(len(direction), reach), 12, 0.01)


_FAMILIES: dict[str, Callable[[Scalp, str, float, int], Array]] = {
    "stubbly": _stubbly,
    "crop": _crop,
    "combed": _combed,
    "draped": _draped,
    "pulled": _pulled,
    "tight": _tight,
    "mohawk": _mohawk,
}
"""Family -> a function of (scalp, style, reach or end, level of length) that grows guides [G, M, 3]."""


def grow_style(scalp: Scalp, style: str, length: int, curl: int) -> Guides:
    """Guides of a style; length and curl as in `identity.Hair`."""
    row = STYLES[style]
    reach = (row.get("reach") or row.get("end") or (0.0, 0.0, 0.0))[length]
    points = _FAMILIES[row["family"]](scalp, style, reach, length)
    parting = {"parting": row["parting"][length]} if "parting" in row else {}
    return _combed_by(points, row["comb"] | (row.get("wave", {}) if curl else {}) | parting)


def grow_baby_hair(scalp: Scalp) -> Guides:
    """Short fine hair along the hairline of pulled-back styles, which would otherwise look combed with a rake."""
    reach = 0.10 + 0.16 * scalp.random("baby")
    lean = scalp.tangent(0.5 * BACK + 0.25 * DOWN + 0.3 * scalp.noise("lean", len(reach), 3))
    points = grow(scalp, scalp.points, 0.35 * scalp.normals + lean, reach, 8, 0.05, 0.01)
    return _combed_by(points, {"clump": 0.1, "frizz": 0.012, "ragged": 0.5, "width": 0.008})
