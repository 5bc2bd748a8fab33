"""Repairs non-manifold edges: an edge of four triangles is split in two, so that every edge has two again.

Decimation can press two sheets of a surface onto one edge (behind ears, between strands). Nothing is open there, but
tools that need a manifold (3D printing, trimesh's `is_watertight`) refuse such a mesh.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

if TYPE_CHECKING:
    import trimesh

GAP = 1e-5
"""Distance between parted vertices, world units: too small to see, large enough that programs don't weld them."""


def part_sheets(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """The same surface with every edge shared by two triangles only, where that is possible; no normals or colours.

    An edge with more is split between the solids that meet there or, where these are connected at both its ends,
    between the hollows. Vertices are doubled and moved apart by `GAP`; triangles keep their number and order.

    Args:
        mesh: closed, triangles facing outwards.
    """
    for hollows in (False, True):
        mesh = _part(mesh, hollows)
    return mesh


def _part(mesh: trimesh.Trimesh, hollows: bool) -> trimesh.Trimesh:
    import trimesh

    old = np.asarray(mesh.faces, np.int64)
    points = np.asarray(mesh.vertices, np.float64)
    ends = old[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)  # side k of triangle t is row 3 t + k
    _, of_edge, count = np.unique(np.sort(ends, 1), axis=0, return_inverse=True, return_counts=True)
    crowded = np.flatnonzero(count > 2)
    if not len(crowded):
        return mesh
    joined: dict[int, list[tuple[int, int]]] = {}
    for edge in crowded:
        joined[int(edge)] = _couples(points, old, ends, np.flatnonzero(of_edge == edge), hollows)
    faces = old.copy()
    doubled: list[NDArray[np.float64]] = []
    for vertex in np.unique(ends[np.isin(of_edge, crowded)]):
        for fan in _fans(int(vertex), old, ends, of_edge, joined)[1:]:
            inward = points[old[fan]].mean((0, 1)) - points[vertex]
            faces[fan] = np.where(old[fan] == vertex, len(points) + len(doubled), faces[fan])
            doubled.append(points[vertex] + GAP * _unit(inward))
    moved = np.concatenate([points, np.reshape(doubled, (-1, 3))])
    return trimesh.Trimesh(moved, faces, process=False)


def _unit(v: NDArray[np.float64]) -> NDArray[np.float64]:
    return v / max(float(np.linalg.norm(v)), 1e-30)  # of a triangle without area: any direction will do


def _couples(
    points: NDArray[np.float64],
    faces: NDArray[np.int64],
    ends: NDArray[np.int64],
    sides: NDArray[np.int64],
    hollows: bool,
) -> list[tuple[int, int]]:
    """Triangles around one edge two by two: the two sides of each solid that meets there, or of each hollow."""
    a, b = np.sort(ends[sides[0]])
    axis = _unit(points[b] - points[a])
    apex = faces[sides // 3].sum(1) - a - b
    across = points[apex] - points[a]
    across -= (across @ axis)[:, None] * axis
    u = _unit(across[0])
    order = np.argsort(np.arctan2(across @ np.cross(axis, u), across @ u) % (2 * np.pi))
    forward = ends[sides, 0] == a
    if forward.sum() * 2 != len(sides):  # not closed here: all stay together
        return [(int(sides[0] // 3), int(side // 3)) for side in sides]
    # Turning about the edge, a triangle that runs a -> b ends a solid and begins a hollow. Triangles that lie folded
    # onto each other come in any order: what began last ends first, like brackets.
    begun: list[int] = []
    couples = []
    for side in np.tile(order, 2):
        if forward[side] == hollows:
            begun.append(int(sides[side] // 3))
        elif begun:
            couples.append((begun.pop(), int(sides[side] // 3)))
    return couples


def _fans(
    vertex: int,
    faces: NDArray[np.int64],
    ends: NDArray[np.int64],
    of_edge: NDArray[np.int64],
    joined: dict[int, list[tuple[int, int]]],
) -> list[NDArray[np.int64]]:
    """Triangles around a vertex, grouped by which are connected through edges or couples."""
    mine = np.flatnonzero((faces == vertex).any(1))
    sides = (3 * mine[:, None] + np.arange(3)).ravel()
    sides = sides[(ends[sides] == vertex).any(1)]
    links: list[tuple[int, int]] = []
    for edge in np.unique(of_edge[sides]):
        around = sides[of_edge[sides] == edge] // 3
        links += joined.get(int(edge), [(around[0], around[-1])])
    place = np.searchsorted(mine, links)
    count, group = connected_components(
        coo_matrix((np.ones(len(place)), place.T), (len(mine), len(mine))), directed=False
    )
    return [mine[group == k] for k in range(count)]
