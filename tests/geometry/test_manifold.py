"""Sheets that touch are parted: voxels that share an edge become manifolds again."""

from __future__ import annotations

import itertools

import fast_simplification
import numpy as np
import pytest
import trimesh
from scipy.ndimage import gaussian_filter

from head3d_core.geometry import mesh
from head3d_core.geometry.manifold import GAP, part_sheets


def solid(*cells: tuple[int, int, int]) -> trimesh.Trimesh:
    """Unit cubes without the walls between them, triangles facing outwards."""
    quads = []
    for cell, k, step in itertools.product(cells, range(3), (0, 1)):
        beside = tuple(c + (2 * step - 1) * (axis == k) for axis, c in enumerate(cell))
        if beside in cells:
            continue
        u, v = np.eye(3)[[(k + 1) % 3, (k + 2) % 3]]
        corner = np.array(cell, float) + step * np.eye(3)[k]
        quad = [corner, corner + u, corner + u + v, corner + v]
        quads.append(quad if step else quad[::-1])
    corners = np.concatenate(quads)
    count = np.arange(len(quads))[:, None, None] * 4
    triangles = (count + np.array([[0, 1, 2], [0, 2, 3]])).reshape(-1, 3)
    return trimesh.Trimesh(corners, triangles, process=True)


def welded(made: trimesh.Trimesh) -> trimesh.Trimesh:
    return trimesh.Trimesh(made.vertices, made.faces, process=True)


def test_a_plain_surface_stays_as_it_is() -> None:
    cube = solid((0, 0, 0))
    assert part_sheets(cube) is cube


def test_two_cubes_on_one_edge_become_two_pieces() -> None:
    both = solid((0, 0, 0), (1, 1, 0))
    assert not both.is_watertight
    parted = part_sheets(both)
    assert welded(parted).is_watertight
    assert parted.is_winding_consistent
    assert parted.volume == pytest.approx(2, abs=10 * GAP)
    assert len(parted.faces) == len(both.faces)
    assert mesh.pieces(parted).max() == 1
    assert np.abs(parted.triangles - both.triangles).max() <= 1.01 * GAP


def test_solids_that_hang_together_elsewhere_are_parted_between_the_hollows() -> None:
    floors = [(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 2)]
    pillars = solid(*floors, (0, 0, 1), (1, 1, 1))
    assert not pillars.is_watertight
    parted = part_sheets(pillars)
    assert welded(parted).is_watertight
    assert parted.volume == pytest.approx(10, abs=20 * GAP)
    assert mesh.pieces(parted).max() == 0
    assert parted.euler_number == 2, "no tunnel: the pillars are one wall"


def crowded(made: trimesh.Trimesh) -> int:
    count = np.unique(np.sort(made.edges, 1), axis=0, return_counts=True)[1]
    assert count.min() == 2, "no edge is open"
    return int((count > 2).sum())


@pytest.mark.parametrize("seed", range(3))
def test_a_decimated_thicket_is_nearly_a_manifold(seed: int) -> None:
    """Decimated to a twelfth, a random surface touches itself at dozens of edges, at some of them folded."""
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal((40,) * 3), 1.6)
    thicket = np.pad(3 * noise[2:-2, 2:-2, 2:-2] / noise.std(), 2, constant_values=-9).astype(np.float32)
    fine = mesh.surface(thicket, box_warp=1.0, level=0.5)
    few = len(fine.faces) // 12
    points, faces = fast_simplification.simplify(
        np.asarray(fine.vertices, np.float32), np.asarray(fine.faces, np.int32), target_count=few
    )
    touching = crowded(trimesh.Trimesh(points, faces, process=True))
    left = crowded(welded(mesh.simplify(fine, few)))
    assert touching > 20
    assert left <= 1
