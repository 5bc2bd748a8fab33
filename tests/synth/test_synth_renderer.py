"""The renderer against forced answers (a ball whose picture is known) and on a real head. Small pictures: 64 pixels."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import project, refuses
from PIL import Image

from head3d_core.synth import sets
from head3d_core.synth.heads import build_head
from head3d_core.synth.identity import identity
from head3d_core.synth.light import Light, sample_light
from head3d_core.synth.make_data import MakeDataArgs, make_data, render
from head3d_core.synth.renderer import Renderer
from head3d_core.synth.subdivision import grid_triangles
from head3d_core.synth.types import CENTRE, SCALE, EyeMesh, HeadGeometry, Mesh, SkinMesh, SolidMesh

pytestmark = pytest.mark.opengl
SIZE = 64
LIGHT = sample_light(1, "heads")


@pytest.fixture(scope="module")
def renderer() -> Iterator[Renderer]:
    made = Renderer(SIZE)
    yield made
    made.release()


@pytest.fixture(scope="module")
def head() -> HeadGeometry:
    return build_head(identity(4, "heads"))


@pytest.fixture
def loaded(renderer: Renderer, head: HeadGeometry) -> Renderer:
    """The renderer with the head."""
    renderer.load(head, LIGHT)
    return renderer


def ball(centre: tuple[float, float, float], radius: float, material: HeadGeometry) -> HeadGeometry:
    """A sphere (dm) in place of a head: no eyes, no hair, no accessories."""
    theta, phi = np.linspace(0, np.pi, 40)[:, None], np.linspace(0, 2 * np.pi, 64, endpoint=False)
    n = np.stack([np.sin(theta) * np.cos(phi), np.cos(theta) + 0 * phi, np.sin(theta) * np.sin(phi)], -1)
    n = n.reshape(-1, 3).astype(np.float32)
    quads = grid_triangles(40, 64, closed=True)[:, ::-1].astype(np.int32)
    points = (np.asarray(centre) + radius * n).astype(np.float32)
    none = np.zeros((0, 3), np.float32)
    count = len(n)
    return HeadGeometry(
        SkinMesh(points, n, quads, n, points, np.zeros((count, 4), np.float32), np.zeros(count, np.float32)),
        EyeMesh(none, none, np.zeros((0, 3), np.int32), none),
        SolidMesh(none, none, np.zeros((0, 3), np.int32), np.zeros((0, 4), np.float32)),
        Mesh(points, n, quads),
        np.zeros((0, 2, 4), np.float32),
        material.material,
    )


def rays(label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Camera centre [3] and unit directions [SIZE, SIZE, 3] through the pixels' middles, world axes."""
    pose, lens = label[:16].reshape(4, 4).astype(float), label[16:].reshape(3, 3).astype(float)
    at = (np.arange(SIZE) + 0.5) / SIZE
    u, v = np.meshgrid(at, at)
    directions = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(lens).T @ pose[:3, :3].T
    return pose[:3, 3], directions / np.linalg.norm(directions, axis=-1, keepdims=True)


def to_world(p: np.ndarray) -> np.ndarray:
    return (p - np.asarray(CENTRE)) * SCALE


CAMERAS = [(0.0, 0.0), (0.9, 0.3), (-2.5, -0.4), (np.pi / 2, 0.1)]


@pytest.mark.parametrize(("yaw", "pitch"), CAMERAS)
def test_pictures_agree_with_their_label(
    renderer: Renderer, head: HeadGeometry, yaw: float, pitch: float
) -> None:
    label = sets.orbit_camera(yaw, pitch)
    label[[18, 21]] = 0.53, 0.46  # a principal point off the middle shows a wrong sign
    label[16] *= 1.1  # and pixels that are not square a swapped axis
    for centre in ((0.3, 7.6, 0.9), (-0.5, 6.9, 0.2)):
        renderer.load(ball(centre, 0.12, head), LIGHT)
        alpha = renderer.draw(label).alpha.astype(float)
        at = (np.arange(SIZE) + 0.5) / SIZE
        seen = np.array([(alpha.sum(0) * at).sum(), (alpha.sum(1) * at).sum()]) / alpha.sum()
        point = torch.from_numpy(to_world(np.asarray(centre)))[None]
        expected = project(point, torch.from_numpy(label)[None].double())[0].numpy()
        assert np.abs(seen - expected).max() * SIZE < 0.05  # pixels; measured 0.01


@pytest.mark.parametrize(("yaw", "pitch"), CAMERAS)
def test_depth_and_normals_of_a_ball(
    renderer: Renderer, head: HeadGeometry, yaw: float, pitch: float
) -> None:
    centre, radius = (0.2, 7.2, 0.6), 0.9
    renderer.load(ball(centre, radius, head), LIGHT)
    label = sets.orbit_camera(yaw, pitch)
    frame = renderer.draw(label, geometry=True)
    assert frame.depth is not None
    assert frame.normals is not None
    origin, directions = rays(label)
    c, r = to_world(np.asarray(centre)), radius * SCALE
    along = directions @ (c - origin)
    gap = np.linalg.norm(origin + along[..., None] * directions - c, axis=-1)
    inside = gap < 0.95 * r
    expected = along - np.sqrt(np.maximum(r**2 - gap**2, 0))
    assert inside.sum() > 500
    assert np.abs(frame.depth - expected)[inside].max() < 1e-3  # the ball has flat facets: measured 4e-4
    normals = (origin + expected[..., None] * directions - c) / r
    assert (np.sum(frame.normals * normals, -1)[inside]).min() > 0.99
    outside = gap > 1.1 * r
    assert not frame.depth[outside].any()
    assert not frame.normals[outside].any()


def test_depth_of_a_head_lies_on_its_mesh(renderer: Renderer, head: HeadGeometry) -> None:
    from scipy.spatial import cKDTree

    bald = dataclasses.replace(head, hair=np.zeros((0, 2, 4), np.float32))
    renderer.load(bald, LIGHT)
    label = sets.orbit_camera(0.5, 0.1)
    frame = renderer.draw(label, geometry=True)
    assert frame.depth is not None
    origin, directions = rays(label)
    points = (origin + frame.depth[..., None] * directions)[frame.depth > 0]
    meshes = [bald.skin, bald.eyes, *([bald.solids] if bald.solids else [])]
    distance, _ = cKDTree(np.concatenate([to_world(m.vertices) for m in meshes])).query(points)
    assert np.quantile(distance, 0.99) / SCALE < 0.12  # dm; edges are about 0.1 dm long on the shoulders
    assert np.median(distance) / SCALE < 0.04


def test_coverage_depth_and_background_agree(loaded: Renderer) -> None:
    frame = loaded.draw(sets.orbit_camera(0.3, 0.0), geometry=True)
    assert frame.depth is not None
    assert (frame.rgb[frame.alpha == 0] == 255).all()
    assert 0.25 < (frame.alpha > 0).mean() < 0.8
    assert not frame.depth[frame.alpha == 0].any()
    assert (frame.depth[frame.alpha == 255] > 0).all()
    seen = frame.depth[frame.depth > 0]
    assert seen.min() > 2.7 - 0.5
    assert seen.max() < 2.7 + 0.5
    # A sample that is not a number would come out black.
    assert frame.rgb[frame.alpha == 255].sum(-1).min() > 3


def test_the_same_head_gives_the_same_bytes(renderer: Renderer, head: HeadGeometry) -> None:
    label = sets.orbit_camera(-0.6, 0.2)
    renderer.load(head, LIGHT)
    first = renderer.draw(label)
    renderer.load(ball((0, 7, 0), 0.5, head), sample_light(9, "faces"))
    renderer.draw(label)
    renderer.load(head, LIGHT)
    np.testing.assert_array_equal(renderer.draw(label).rgb, first.rgb)
    other = Renderer(SIZE)
    other.load(build_head(identity(4, "heads")), LIGHT)
    np.testing.assert_array_equal(other.draw(label).rgb, first.rgb)
    other.release()


def test_many_views_in_flight_are_the_views_one_by_one(loaded: Renderer) -> None:
    labels = [sets.orbit_camera(yaw, 0.0) for yaw in (0.0, 1.0, 2.0, 3.0, 4.0)]
    together = list(loaded.draw_many(labels))
    assert len(together) == 5
    for label, frame in zip(labels, together, strict=True):
        np.testing.assert_array_equal(loaded.draw(label).rgb, frame.rgb)


def test_light_comes_from_where_it_is_said_to(renderer: Renderer, head: HeadGeometry) -> None:
    def brightness(x: float) -> tuple[float, float]:
        direction = np.array([x, 0.3, 0.7], np.float32)
        light = Light(LIGHT.sky, direction / np.linalg.norm(direction), np.full(3, 1.0, np.float32), 1.0)
        renderer.relight(light)
        frame = renderer.draw(sets.orbit_camera(0.0, 0.0))
        cheeks = frame.rgb[28:40, 20:44].astype(float).mean(-1)
        return cheeks[:, :12].mean(), cheeks[:, 12:].mean()

    renderer.load(dataclasses.replace(head, hair=np.zeros((0, 2, 4), np.float32)), LIGHT)
    left, right = brightness(0.9)  # +x is on the picture's right
    assert right > left + 10
    left, right = brightness(-0.9)
    assert left > right + 10


def test_hair_shades_the_skin_below(renderer: Renderer, head: HeadGeometry) -> None:
    label = sets.orbit_camera(0.0, 0.0)
    strands = np.zeros((4000, 2, 4), np.float32)  # a canopy over the face, out of the picture's middle
    x = np.linspace(-1, 1, 4000)
    strands[:, :, 0], strands[:, :, 1] = x[:, None], 8.6
    strands[:, 0, 2], strands[:, 1, 2], strands[:, :, 3] = 1.5, 2.6, 0.02
    above = Light(LIGHT.sky, np.array([0, 0.8, 0.6], np.float32), np.full(3, 1.0, np.float32), 1.0)
    renderer.load(dataclasses.replace(head, hair=strands[:0]), above)
    bright = renderer.draw(label).rgb[24:44, 24:40].mean()
    renderer.load(dataclasses.replace(head, hair=strands), above)
    assert renderer.draw(label).rgb[24:44, 24:40].mean() < bright - 15


def test_scenes_stand_behind_and_are_textured(loaded: Renderer) -> None:
    label = sets.orbit_camera(0.0, 0.0)
    plain = loaded.draw(label)
    seen = [loaded.draw(label, scene=seed) for seed in range(6)]
    for frame in seen:
        np.testing.assert_array_equal(frame.alpha, plain.alpha)
        full = plain.alpha == 255  # coverage rounds to whole: a trace of the background may remain
        np.testing.assert_allclose(frame.rgb[full].astype(int), plain.rgb[full].astype(int), atol=1)
        assert frame.rgb[plain.alpha == 0].std() > 4
    assert len({frame.rgb.tobytes() for frame in seen}) == 6


@pytest.mark.parametrize("supersample", [1, 5])
def test_other_sample_counts_show_the_same_picture(
    loaded: Renderer, head: HeadGeometry, supersample: int
) -> None:
    label = sets.orbit_camera(0.4, 0.0)
    other = Renderer(SIZE, supersample)
    other.load(head, LIGHT)
    assert np.abs(other.draw(label).rgb - loaded.draw(label).rgb.astype(float)).mean() < 4
    other.release()


@pytest.mark.parametrize(("size", "supersample"), [(0, 3), (64, 2)])
def test_impossible_sizes_are_refused(size: int, supersample: int) -> None:
    refuses("odd supersample", Renderer, size, supersample)


def test_sets_render_alike_in_one_process_and_in_two() -> None:
    alone = render("heads", [0, 1, 96], 32, workers=1)
    assert alone.images.shape == (3, 3, 32, 32)
    assert alone.masks.any()
    np.testing.assert_array_equal(alone.labels[2], sets.example("heads", 96).camera)
    images, labels, _ = render("heads", [0, 1, 96], 32, workers=2)
    np.testing.assert_array_equal(images, alone.images)
    np.testing.assert_array_equal(labels, alone.labels)


def test_a_folder_is_continued_where_it_stopped(tmp_path: Path) -> None:
    args = MakeDataArgs("faces", tmp_path, count=2, resolution=32, workers=1, geometry=True)
    make_data(args)
    first, second = (tmp_path / f"00000/img0000000{k}.png" for k in (0, 1))
    before, written = second.read_bytes(), first.stat().st_mtime_ns
    second.unlink()
    calls: list[tuple[int, int]] = []
    make_data(dataclasses.replace(args, count=3), lambda done, total: calls.append((done, total)))
    assert first.stat().st_mtime_ns == written
    assert second.read_bytes() == before
    assert calls[-1] == (2, 2)
    labels = json.loads((tmp_path / "dataset.json").read_text())["labels"]
    assert [name for name, _ in labels] == [f"00000/img0000000{k}.png" for k in range(3)]
    np.testing.assert_allclose(labels[1][1], sets.example("faces", 1).camera)
    with np.load(tmp_path / "geometry/00000/img00000001.npz") as stored:
        assert stored["mask"].shape == (32, 32)
        assert stored["normals"].dtype == np.int8
        assert stored["depth"].max() < 3.2
    assert Image.open(first).size == (32, 32)
    refuses("resolution 32 -> 64", make_data, dataclasses.replace(args, resolution=64))
