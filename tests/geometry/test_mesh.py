"""Surfaces: where they are and what colour, sheets that touch are parted, and other tools open the files."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import fast_simplification
import numpy as np
import pytest
import torch
import trimesh
from helpers import refuses
from scipy.ndimage import gaussian_filter

from head3d_core.experiments import toys
from head3d_core.geometry import colour, export, mesh
from head3d_core.geometry.manifold import GAP, part_sheets
from head3d_core.model.generator import Generator
from tests.toy_generator import toy_generator


@pytest.fixture(scope="module")
def toy() -> Generator:
    return toy_generator()


@pytest.fixture(scope="module")
def head(toy: Generator) -> trimesh.Trimesh:
    return mesh.extract_mesh(toy, toy.codes, resolution=64, level=0.0)


def ball_grid(slope: float) -> np.ndarray:
    """Sigma of a ball of radius 0.3: `slope` times the depth below its surface."""
    x, y, z = np.meshgrid(*[np.linspace(-0.5, 0.5, 41)] * 3, indexing="ij")
    return (slope * (0.3 - np.sqrt(x**2 + y**2 + z**2))).astype(np.float32)


def test_sphere_has_the_right_radius_and_faces_outwards() -> None:
    ball = mesh.surface(ball_grid(20), box_warp=1.0, level=0.0)
    assert ball.is_watertight
    assert ball.volume == pytest.approx(4 / 3 * math.pi * 0.3**3, rel=0.02)
    assert np.linalg.norm(ball.vertices, axis=1) == pytest.approx(0.3, abs=2e-3)


def test_grid_points_on_the_level_leave_no_holes_after_welding() -> None:
    axis = np.abs(np.arange(-8, 9))
    steps = axis[:, None, None] + axis[None, :, None] + axis[None, None, :]
    diamond = mesh.surface((6 - steps).astype(np.float32), box_warp=1.0, level=2.0)
    count = len(diamond.vertices)
    diamond.merge_vertices(merge_tex=True, merge_norm=True)
    assert diamond.is_watertight
    assert len(diamond.vertices) == count


def test_a_level_outside_the_head_is_refused() -> None:
    grid = np.zeros((16, 16, 16), np.float32)
    grid[8, 8, 8] = 5
    refuses("no surface at level 10: sigma runs from 0 to 5", mesh.surface, grid, 1.0, level=10)
    grid = np.maximum(ball_grid(60), -4)
    grid[3:6, 3:6, 3:6] = -20
    for k in range(3):
        np.moveaxis(grid, k, 0)[[0, -1]] = mesh.OUTSIDE
    assert mesh.surface(grid, 1.0, level=-3.0).extents.max() < 0.8
    below = r"no surface at level -6: .* box would come out; take a level above -4"
    refuses(below, mesh.surface, grid, 1.0, level=-6.0)


def test_no_normal_points_into_the_head() -> None:
    """A bundled head has a rough surface: thin sheets, hollows, bridges."""
    head = mesh.extract_mesh(*export.load_head("head3d", 0, 0.7, "cpu"), 96)
    around = trimesh.Trimesh(head.vertices, head.faces, process=False).vertex_normals
    cosine = np.sum(around * head.vertex_normals, 1)
    assert (cosine <= 0).sum() == 0
    assert np.median(cosine) > 0.99
    assert np.abs(np.linalg.norm(head.vertex_normals, axis=1) - 1).max() < 1e-4


def test_decimation_leaves_no_crumbs(monkeypatch: pytest.MonkeyPatch) -> None:
    # What fast_simplification makes of a rough head: here and there two triangles back to back, nothing between them.
    ball = trimesh.creation.icosphere(subdivisions=3)
    crumb = trimesh.Trimesh([[0, 0, 2], [0.5, 0, 2], [0, 0.5, 2]], [[0, 1, 2], [0, 2, 1]], process=False)
    dust = trimesh.Trimesh(
        [[0, 0, 3], [1, 0, 3], [0, 1, 3], [0, 0, 4]], [[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]]
    )
    made = trimesh.util.concatenate([ball, crumb, dust])
    monkeypatch.setattr("fast_simplification.simplify", lambda *_, **__: (made.vertices, made.faces))
    small = mesh.simplify(trimesh.creation.icosphere(subdivisions=4), 2000)
    assert np.bincount(mesh.pieces(small)).tolist() == [1280, 4], "a tetrahedron is a piece, a crumb is not"
    assert small.is_watertight
    assert len(small.vertices) == len(ball.vertices) + 4


def test_head_stands_where_the_toy_is(head: trimesh.Trimesh) -> None:
    assert head.is_watertight
    low, high = head.bounds
    radii = np.array(toys.TOY_A.radii)
    assert np.abs(high[:2] - radii[:2]).max() < 0.03
    assert high[2] > radii[2] + 0.01, "the nose stands out along +z"
    assert low[2] > -radii[2] - 0.03
    assert head.body_count == 1


def test_normals_and_colours_follow_the_density(head: trimesh.Trimesh) -> None:
    outward = head.vertices / np.linalg.norm(head.vertices, axis=1, keepdims=True)
    assert (np.sum(outward * head.vertex_normals, 1) > 0.3).mean() > 0.95
    colours = head.visual.vertex_colors[:, :3] / 255
    crown = head.vertices[:, 1] > 0.2
    chin = (head.vertices[:, 1] < -0.18) & (head.vertices[:, 2] > 0)
    assert np.abs(np.median(colours[crown], 0) - toys.TOY_A.hair).max() < 0.12
    assert np.abs(np.median(colours[chin], 0) - toys.TOY_A.skin).max() < 0.15


@pytest.mark.parametrize("ending", mesh.ENDINGS)
def test_round_trip(head: trimesh.Trimesh, tmp_path: Path, ending: str) -> None:
    path = mesh.save(head, tmp_path / f"head{ending}")
    again = trimesh.load(path, process=False, force="mesh")
    assert len(again.faces) == len(head.faces)
    assert np.allclose(again.bounds, head.bounds, atol=1e-5), "world units and axes survive"
    assert [p for p in tmp_path.iterdir() if p.suffix == ".tmp"] == []
    expected = np.asarray(head.visual.vertex_colors)[:, :3] / 255
    if ending == ".ply":
        assert np.abs(again.visual.vertex_colors[:, :3] / 255 - expected).max() < 1e-6


def test_a_glb_is_matte_and_its_colours_linear(head: trimesh.Trimesh, tmp_path: Path) -> None:
    path = mesh.save(head, tmp_path / "head.glb")
    (again,) = trimesh.load(path, process=False).geometry.values()
    material = again.visual.material
    assert (material.metallicFactor, material.roughnessFactor) == (0, 1), "glTF's own material is a metal"
    assert np.asarray(material.baseColorFactor).tolist() == [255] * 4
    linear = again.visual.vertex_attributes["color"]
    assert linear.dtype == np.float32
    assert linear.shape == (len(head.vertices), 3)
    assert np.abs(again.vertex_normals - head.vertex_normals).max() < 1e-5
    # Back to sRGB: every one of the 256 shades survives, the dark ones too.
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    assert (srgb * 255).round().astype(int).tolist() == head.visual.vertex_colors[:, :3].tolist()
    plain = trimesh.load(path, process=False, force="mesh", skip_materials=True).visual.vertex_colors[:, :3]
    assert np.abs(plain / 255 - linear).max() < 0.51 / 255
    grey = trimesh.Trimesh(head.vertices, head.faces, process=False)
    (again,) = trimesh.load(mesh.save(grey, tmp_path / "grey.glb"), process=False).geometry.values()
    assert again.visual.material.metallicFactor == 0
    assert "color" not in again.visual.vertex_attributes


def test_texture_agrees_with_vertex_colours(toy: Generator, head: trimesh.Trimesh, tmp_path: Path) -> None:
    small = mesh.simplify(head, 1500)
    assert len(small.faces) <= 1500
    textured = colour.bake_texture(toy, toy.codes, small, size=128)
    image = textured.visual.material.baseColorTexture
    assert image.size == (128, 128)
    shown = textured.visual.to_color().vertex_colors[:, :3] / 255
    crown = textured.vertices[:, 1] > 0.2
    assert np.abs(np.median(shown[crown], 0) - toys.TOY_A.hair).max() < 0.15
    again = trimesh.load(mesh.save(textured, tmp_path / "t.glb"), force="mesh")
    assert again.visual.material.baseColorTexture.size == (128, 128)
    files = {mesh.save(textured, tmp_path / "t.obj").suffix} | {p.suffix for p in tmp_path.glob("*")}
    assert {".obj", ".mtl", ".png"} <= files
    mesh.save(textured, tmp_path / "second one.obj")
    assert {p.name for p in tmp_path.glob("*.png")} == {"t.png", "second_one.png"}
    assert "Kd 1.00000000 1.00000000 1.00000000" in (tmp_path / "t.mtl").read_text().splitlines()
    again = trimesh.load(tmp_path / "second one.obj", force="mesh")
    assert np.abs(again.visual.to_color().vertex_colors[:, :3] / 255 - shown).mean() < 0.01


def test_closed_head_and_open_shell(toy: Generator) -> None:
    planes = toy.planes(toy.codes)
    assert float(mesh.closedness(toy, planes, 500)[0]) > 0.98
    assert float(mesh.closedness(toy, torch.zeros_like(planes), 100)[0]) < 0.02


def test_largest_component_drops_floaters() -> None:
    ball, dust = trimesh.creation.icosphere(radius=0.3), trimesh.creation.icosphere(radius=0.02)
    dust.apply_translation([0.4, 0, 0])
    kept = mesh.largest_component(trimesh.util.concatenate([ball, dust]))
    assert len(kept.faces) == len(ball.faces)


def test_bad_input(toy: Generator, head: trimesh.Trimesh, tmp_path: Path) -> None:
    refuses(r"ends in \.glb, \.obj, \.ply", mesh.save, head, tmp_path / "head.stl")
    refuses("one head", mesh.density_grid, toy, torch.zeros(2, 3, 8, 8, 8), 16)
    (tmp_path / "folder.glb").mkdir()
    refuses("it is a folder", mesh.save, head, tmp_path / "folder.glb")


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
