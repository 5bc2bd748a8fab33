"""Head shape: macro weights, symmetry, alignment, eyes, the whole build."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from head3d_core.synth.assets import asset
from head3d_core.synth.heads import align, base_shape, build_head, eye_sphere, gaze_rotation
from head3d_core.synth.identity import Kind, Person, identity
from head3d_core.synth.subdivision import grid_triangles
from head3d_core.synth.targets import TEMPLATE, macro_weights, mesh_age
from head3d_core.synth.types import CENTRE, SCALE, Mesh

GOLDEN_GEOMETRY = {
    (0, "faces"): (
        [[-0.325990, 7.342475, 1.394515], [-0.635514, 6.154370, -0.166646]],
        [[-0.022551, 6.728719, -0.199482, 0.014500], [-0.233314, 7.525019, 1.457811, -0.003000]],
    ),
    (16, "heads"): (
        [[-0.324942, 7.364743, 1.342268], [-0.569178, 5.970516, -0.123118]],
        [[-0.112667, 5.046682, -0.682894, 0.015000], [-0.757580, 5.074733, 1.027324, 0.015000]],
    ),
}
"""Vertices 0 and 9000, and the tips of strands 0 and 12000 (dm): the same on every machine."""


@pytest.mark.parametrize(
    ("years", "age"), [(10, 0.1875), (12, 0.1875), (18.5, 0.34375), (25, 0.5), (57.5, 0.75), (90, 1)]
)
def test_mesh_age_at_its_knots(years: float, age: float) -> None:
    assert mesh_age(years) == pytest.approx(age)


@pytest.mark.parametrize(
    "person", [TEMPLATE, Person(14, 0.1, (0.2, 0.3, 0.5), 0.8, 0.3), Person(70, 0.9, (1, 0, 0), 0.5, 1.0)]
)
def test_macro_weights_are_partitions_of_one(person: Person) -> None:
    weights = macro_weights(person)
    assert min(weights.values()) >= 0
    for body in (True, False):
        parts = [w for name, w in weights.items() if name.startswith("universal") == body]
        assert sum(parts) == pytest.approx(1)


def test_a_symmetric_face_is_mirror_symmetric() -> None:
    data = asset()
    person = identity(3)
    sides = {name: w for name, w in person.features if not name.startswith("asym")}
    plain = replace(person, features=tuple(sides.items()), expression=())
    skin = data.subdivide @ base_shape(plain, data)
    # the sculpted targets themselves are symmetric to a few thousandths
    assert np.abs(skin[data.mirror] * [-1, 1, 1] - skin).max() < 0.02
    lopsided = replace(plain, features=(*plain.features, ("asym-jaw-1-l", 1.0)))
    skin = data.subdivide @ base_shape(lopsided, data)
    assert np.abs(skin[data.mirror] * [-1, 1, 1] - skin).max() > 0.05


def test_alignment_undoes_a_move_and_most_of_a_scale() -> None:
    data = asset()
    moved = align(data.template_base * 1.2 + [1, 2, 3], data)
    kept = 1.2**0.2
    centre = data.template_base[data.joints[[0, 1, 3, 5]]].mean((0, 1))
    np.testing.assert_allclose(moved, (data.template_base - centre) * kept + centre, atol=1e-9)


def test_heads_fit_the_frame_of_the_dataset_camera() -> None:
    """EG3D's camera sees +-0.3166 world units about the centre: heads, hats and hair stay inside."""
    reach = 0.3166 / SCALE
    for seed in range(24):
        head = build_head(identity(seed))
        above_neck = head.skin.rest[:, 1] > 6.0
        box = head.skin.vertices[above_neck] - np.array(CENTRE)
        low, high = box.min(0), box.max(0)
        assert np.abs([low[0], high[0]]).max() < 1.1
        assert -1.6 < low[1] < -1.2
        assert 0.95 < high[1] < 1.35
        assert -1.25 < low[2] < -0.6
        assert 1.0 < high[2] < 1.45
        hair = head.hair[..., :3] - np.array(CENTRE, np.float32)
        assert np.abs(hair[..., [0, 2]]).max() < reach
        assert hair[..., 1].max() < reach


def test_no_nan_anywhere_and_the_types_of_the_interface() -> None:
    for seed in (0, 1, 2, 5, 8):
        head = build_head(identity(seed))
        for mesh in (head.skin, head.eyes, head.solids, head.occluder):
            assert isinstance(mesh, Mesh)
            assert mesh.triangles.dtype == np.int32
            assert mesh.triangles.min() >= 0
            assert mesh.triangles.max() < len(mesh.vertices)
            for name, values in vars(mesh).items():
                if name != "triangles":
                    assert values.dtype == np.float32, name
                    assert len(values) == len(mesh.vertices)
                    assert np.isfinite(values).all(), name
        used = np.unique(head.skin.triangles)
        np.testing.assert_allclose(np.linalg.norm(head.skin.normals[used], axis=1), 1, atol=1e-4)
        assert head.skin.mask[:, 1:].min() >= 0
        assert head.skin.mask.max() <= 1
        assert head.hair.dtype == np.float32
        assert np.isfinite(head.hair).all()
        assert 0 < len(head.hair) <= 16384
        for values in map(np.array, vars(head.material).values()):
            assert np.isfinite(values).all()
            assert values.min() >= 0
            assert not values.ndim or values.max() <= 1


def test_eyes_sit_in_their_sockets_and_look_ahead() -> None:
    data = asset()
    head = build_head(identity(9))
    (left, radius), (right, _) = data.eyeballs(base_shape(identity(9), data))
    n = len(head.eyes.vertices) // 2
    distances = np.linalg.norm(head.eyes.vertices[:n] - left, axis=1)
    np.testing.assert_allclose(distances, radius, atol=1e-5)
    assert left[0] > 0 > right[0]
    pupil = head.eyes.normals[np.argmax(head.eyes.local[:, 2])]
    assert pupil[2] > 0.95


def test_gaze_turns_left_and_up() -> None:
    forward = np.array([0.0, 0, 1])
    np.testing.assert_allclose(gaze_rotation(0.3, 0) @ forward, [np.sin(0.3), 0, np.cos(0.3)])
    assert (gaze_rotation(0, -0.2) @ forward)[1] > 0
    np.testing.assert_allclose(np.linalg.norm(eye_sphere()[0], axis=1), 1)


def test_grid_triangles_cover_the_grid_once() -> None:
    v = np.stack(np.meshgrid([0.0, 1, 2], [0.0, 1], indexing="ij"), -1).reshape(-1, 2)
    triangles = grid_triangles(3, 2, closed=False)
    a, b, c = (v[triangles[:, k]] for k in range(3))
    area = 0.5 * ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0])
    assert len(triangles) == 4
    assert abs(area.sum()) == pytest.approx(2)
    assert (np.sign(area) == np.sign(area[0])).all()
    assert len(grid_triangles(3, 5, closed=True)) == 20


@pytest.mark.parametrize(("seed", "kind"), GOLDEN_GEOMETRY)
def test_vertices_and_strands_are_the_same_on_every_machine(seed: int, kind: Kind) -> None:
    head = build_head(identity(seed, kind))
    vertices, tips = GOLDEN_GEOMETRY[seed, kind]
    np.testing.assert_allclose(head.skin.vertices[[0, 9000]], vertices, rtol=0, atol=1e-5)
    np.testing.assert_allclose(head.hair[[0, 12000], -1], tips, rtol=0, atol=1e-5)
