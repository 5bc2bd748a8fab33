"""Small solid meshes (tubes, sheets), their colours, and glasses fitted to the eyes, nose and ears of a head."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np

from head3d_core.synth import TABLES
from head3d_core.synth.assets import Asset
from head3d_core.synth.subdivision import Array, corner_matrix, grid_triangles, unit, vertex_normals
from head3d_core.synth.types import SolidMesh
from head3d_core.synth.wardrobe import GLASSES, Glasses, Hsv
from head3d_core.utils.srgb import linear_light

COLOURS = TABLES["colours"]
RIM_POINTS = 44
WRAP = 0.24
"""How far a frame bends back towards the temples (dm at |x| about 1.2)."""


def srgb_hex(text: str) -> Array:
    """Linear RGB [3] of "rrggbb"."""
    return linear_light(np.array(list(bytes.fromhex(text))) / 255)


def fabric(hsv: Hsv) -> Array:
    """Linear RGB [3] of a (hue, saturation, value) triple."""
    return linear_light(np.array(colorsys.hsv_to_rgb(*hsv)))


def paint(colour: Array, roughness: float, count: int) -> Array:
    """[count, 4] of one colour."""
    return np.tile(np.append(colour, roughness), (count, 1))


def tube(
    path: Array, radius: float, colour: Array, roughness: float, closed: bool, sides: int = 8
) -> SolidMesh:
    """A round tube along `path` [N, 3]."""
    tangent: Array = np.roll(path, -1, 0) - np.roll(path, 1, 0)
    if not closed:
        tangent[0], tangent[-1] = path[1] - path[0], path[-1] - path[-2]
    tangent = unit(tangent)
    up = np.where(np.abs(tangent[:, 2:]) > 0.9, [[0, 1.0, 0]], [[0, 0, 1.0]])
    a = unit(np.cross(tangent, up))
    b = np.cross(a, tangent)
    angle = np.linspace(0, 2 * np.pi, sides, endpoint=False)[None, :, None]
    normals = np.cos(angle) * a[:, None] + np.sin(angle) * b[:, None]
    if closed:  # repeat the first ring: one grid, no special seam
        normals, path = np.concatenate([normals, normals[:1]]), np.concatenate([path, path[:1]])
    vertices = (path[:, None] + radius * normals).reshape(-1, 3)
    triangles = grid_triangles(len(path), sides, closed=True)
    return SolidMesh(vertices, normals.reshape(-1, 3), triangles, paint(colour, roughness, len(vertices)))


def sheet(grid: Array, colour: Array, closed: bool) -> SolidMesh:
    """A surface through grid [R, C, 3], facing away from its middle; colour [R C, 4]; `closed` joins columns' ends."""
    rows, columns = grid.shape[:2]
    vertices, triangles = grid.reshape(-1, 3), grid_triangles(rows, columns, closed)
    normals = vertex_normals(vertices, triangles, corner_matrix(triangles, len(vertices)))
    if ((vertices - vertices.mean(0)) * normals).sum() < 0:
        triangles, normals = triangles[:, ::-1], -normals
    return SolidMesh(vertices, normals, triangles, colour)


def join(solids: Sequence[SolidMesh]) -> SolidMesh:
    """One mesh of several."""
    shifts = np.cumsum([0, *(len(s.vertices) for s in solids)])
    return SolidMesh(
        np.concatenate([s.vertices for s in solids]),
        np.concatenate([s.normals for s in solids]),
        np.concatenate([s.triangles + k for s, k in zip(solids, shifts, strict=False)]),
        np.concatenate([s.colour for s in solids]),
    )


def _lens(glasses: Glasses, centre: Array, side: int, front: float) -> Array:
    """Outline of one lens [RIM_POINTS, 3], starting at the outer end."""
    power, wide, high, droop = GLASSES[glasses.kind]
    angle = np.linspace(0, 2 * np.pi, RIM_POINTS, endpoint=False)
    c, s = np.cos(angle), np.sin(angle)
    x = side * glasses.width * wide * np.sign(c) * np.abs(c) ** (2 / power)
    y = glasses.height * high * np.sign(s) * np.abs(s) ** (2 / power)
    y = y - droop * np.clip(-s, 0, 1) * glasses.height * (1 + 0.5 * c)
    x = centre[0] + side * 0.03 + x
    return np.stack([x, centre[1] - 0.03 + y, front - WRAP * np.clip(np.abs(x) - 0.25, 0, None) ** 1.6], 1)


def _tinted(outline: Array, colour: Array) -> SolidMesh:
    """A dark lens filling an outline, slightly domed by its normals."""
    middle = outline.mean(0) + [0, 0, 0.012]
    vertices = np.concatenate([middle[None], outline])
    lean = vertices - middle
    normals = unit(np.stack([0.6 * lean[:, 0], 0.6 * lean[:, 1], np.full(len(vertices), 0.5)], 1))
    k = np.arange(len(outline))
    triangles = np.stack([0 * k, 1 + k, 1 + (k + 1) % len(outline)], 1)
    return SolidMesh(vertices, normals, triangles, paint(0.04 * colour + 0.004, 0.12, len(vertices)))


def build_glasses(glasses: Glasses, base: Array, skin: Array, data: Asset) -> SolidMesh:
    """The frame (and dark lenses of sunglasses) for a head's base vertices [B, 3] and skin [V, 3]."""
    eyes = data.eyeballs(base)
    colour = srgb_hex(COLOURS["frames"][glasses.colour])
    metal = glasses.colour in ("silver", "gold")
    rim = min(glasses.rim, 0.011) if metal or glasses.kind == "aviator" else glasses.rim
    gloss = 0.22 if metal else 0.30
    (left, radius), _ = eyes
    on_bridge = data.body & (np.abs(data.rest[:, 0]) < 0.06) & (np.abs(data.rest[:, 1] - 7.28) < 0.09)
    front = max(left[2] + radius + 0.10, float(skin[on_bridge, 2].max()) + 0.02)
    brow = data.body & (np.abs(data.rest[:, 0]) < 0.55) & (np.abs(data.rest[:, 1] - 7.40) < 0.10)
    front = max(front, float(np.quantile(skin[brow, 2], 0.9)) - 0.01)
    parts, inner, upper = [], [], []
    for side, (centre, _) in zip((1, -1), eyes, strict=True):
        outline = _lens(glasses, centre, side, front)
        if glasses.kind == "browline":
            parts.append(tube(outline[: RIM_POINTS // 2 + 1], 1.5 * rim, colour, gloss, closed=False))
            parts.append(
                tube(outline, 0.006, srgb_hex(COLOURS["frames"]["silver"]), 0.22, closed=True, sides=6)
            )
        else:
            parts.append(tube(outline, rim, colour, gloss, closed=True))
        if glasses.kind == "sunglasses":
            parts.append(_tinted(outline, colour))
        parts.append(_temple(outline, side, rim, colour, gloss, skin, data))
        inner.append(outline[RIM_POINTS // 2 - 3])
        upper.append(outline[RIM_POINTS // 2 - 8])
    (a, b), lift = inner, np.array([0, 0.035, 0.02])
    bridges = [np.stack([a, 0.7 * a + 0.3 * b + lift, 0.3 * a + 0.7 * b + lift, b])]
    if glasses.kind == "aviator":  # a second bridge
        a, b = upper
        bridges.append(np.stack([a, 0.5 * (a + b) + [0, 0.02, 0.01], b]))
    return join([*parts, *(tube(path, rim, colour, gloss, closed=False) for path in bridges)])


def _temple(
    outline: Array, side: int, rim: float, colour: Array, gloss: float, skin: Array, data: Asset
) -> SolidMesh:
    """The arm from the outer end of a lens over the ear, outside the skin of the temple."""
    ear = skin[(data.ears > 0.3) & (side * data.rest[:, 0] > 0)]
    end = np.array([side * (np.abs(ear[:, 0]).min() + 0.045), ear[:, 1].max() - 0.10, np.median(ear[:, 2])])
    start = outline[3]
    hinge = start + [side * 0.035, 0.0, -0.03]
    t = np.linspace(0, 1, 6)[:, None]
    bow = np.array([side * 0.06, 0.02, 0.0]) * np.sin(np.pi * t)
    path = np.concatenate([start[None], hinge * (1 - t) + end * t + bow, (end + [0, -0.13, -0.12])[None]])
    return tube(path, 0.9 * rim, colour, gloss, closed=False, sides=6)
