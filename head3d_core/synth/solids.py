"""Small solid meshes: tubes, surfaces of revolution, and their joining."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from head3d_core.synth.shape import grid_triangles
from head3d_core.synth.subdivision import Array, Index, corner_matrix, unit, vertex_normals


@dataclass(frozen=True)
class Solid:
    """vertices, normals [V, 3] (dm), triangles [T, 3], colour [V, 4] (linear RGB, roughness)."""

    vertices: Array
    normals: Array
    triangles: Index
    colour: Array


def paint(colour: Array, roughness: float, count: int) -> Array:
    """[count, 4] of one colour."""
    return np.tile(np.append(colour, roughness), (count, 1))


def tube(path: Array, radius: float, colour: Array, roughness: float, closed: bool, sides: int = 8) -> Solid:
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
    return Solid(vertices, normals.reshape(-1, 3), triangles, paint(colour, roughness, len(vertices)))


def sheet(grid: Array, colour: Array, closed: bool) -> Solid:
    """A surface through grid [R, C, 3], facing away from its middle; colour [R C, 4]; `closed` joins columns' ends."""
    rows, columns = grid.shape[:2]
    vertices, triangles = grid.reshape(-1, 3), grid_triangles(rows, columns, closed)
    normals = vertex_normals(vertices, triangles, corner_matrix(triangles, len(vertices)))
    if ((vertices - vertices.mean(0)) * normals).sum() < 0:
        triangles, normals = triangles[:, ::-1], -normals
    return Solid(vertices, normals, triangles, colour)


def join(solids: Sequence[Solid]) -> Solid:
    """One mesh of several."""
    shifts = np.cumsum([0, *(len(s.vertices) for s in solids)])
    return Solid(
        np.concatenate([s.vertices for s in solids]),
        np.concatenate([s.normals for s in solids]),
        np.concatenate([s.triangles + k for s, k in zip(solids, shifts, strict=False)]),
        np.concatenate([s.colour for s in solids]),
    )
