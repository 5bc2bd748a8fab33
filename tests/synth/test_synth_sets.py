"""The sets: cameras, seeds, lights and work lists. Nothing here needs OpenGL."""

from __future__ import annotations

import json
import math
import operator
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import SAMPLES, refuses
from PIL import Image

from head3d_core.datasets.writer import image_name
from head3d_core.model import cameras
from head3d_core.synth import gl, make_data, pool, sets
from head3d_core.synth.light import fibonacci_sphere, harmonics, sample_light, tangents


def test_orbit_is_the_packages_orbit() -> None:
    for yaw, pitch in ((0.0, 0.0), (0.7, -0.3), (-2.9, 0.43)):
        expected = cameras.orbit(yaw, pitch).reshape(-1).numpy()
        np.testing.assert_allclose(sets.orbit_camera(yaw, pitch), expected, atol=1e-6)


def test_faces_look_like_portraits_taken_in_the_wild() -> None:
    angles = np.array([sets.face_angles(seed) for seed in range(3000)])
    yaw, pitch = angles.T
    assert abs(yaw.mean()) < 0.02
    assert yaw.std() == pytest.approx(sets.FACE_YAW, abs=0.02)
    assert pitch.std() == pytest.approx(sets.FACE_PITCH, abs=0.01)
    assert np.abs(yaw).max() <= 0.8  # no view from behind: the imbalance which the head set exists to mend
    assert np.abs(pitch).max() <= sets.FACE_PITCH_LIMIT + 1e-9


def test_heads_are_seen_from_everywhere() -> None:
    angles = np.array([sets.head_angles(seed, view) for seed in range(10) for view in range(sets.HEAD_VIEWS)])
    counts, _ = np.histogram(angles[:, 0], bins=8, range=(-math.pi, math.pi))
    assert counts.min() > 0.85 * len(angles) / 8
    assert np.abs(angles[:, 1]).max() <= math.radians(25)
    assert angles[:, 1].std() == pytest.approx(math.radians(50) / math.sqrt(12), rel=0.05)
    for seed in (0, 7):  # the first views alone already go round
        yaw = np.sort([sets.head_angles(seed, view)[0] for view in range(12)])
        gaps = np.diff(np.append(yaw, yaw[0] + 2 * math.pi))
        assert gaps.max() < math.radians(65)


def test_scenes_are_the_faces_with_pictures_behind() -> None:
    faces, scenes = sets.example("faces", 5), sets.example("scenes", 5)
    np.testing.assert_array_equal(faces.camera, scenes.camera)
    assert faces.seed == scenes.seed
    assert faces.scene is None
    assert len({sets.example("scenes", i).scene for i in range(50)}) == 50


def test_held_out_identities_are_in_no_training_set() -> None:
    assert not set(sets.SETS["heads"].seeds) & set(sets.SETS["held_out_heads"].seeds)
    faces, held_out = sets.SETS["faces"].seeds, sets.SETS["held_out_faces"].seeds
    assert faces.stop <= held_out.start


def test_the_views_of_one_head_share_identity_and_light() -> None:
    items = [sets.example("heads", i, views=12) for i in range(12, 24)]
    assert {item.seed for item in items} == {1}
    assert len({item.camera.tobytes() for item in items}) == 12
    np.testing.assert_array_equal(items[0].light().key_direction, items[-1].light().key_direction)


@pytest.mark.parametrize(("name", "index"), [("heads", 4800), ("faces", -1), ("profiles", 0)])
def test_impossible_examples_are_refused(name: str, index: int) -> None:
    refuses(r"must lie in|no set", sets.example, name, index)


def test_the_two_lights_differ_as_real_sets_do() -> None:
    faces, heads = (
        np.array([sample_light(k, kind).key_colour[0] for k in range(300)]) for kind in ("faces", "heads")
    )
    assert faces.std() > 2.5 * heads.std()
    assert heads.min() >= 0.45
    assert heads.max() <= 0.75
    light = sample_light(3, "faces")
    assert np.linalg.norm(light.key_direction) == pytest.approx(1, abs=1e-6)
    assert light.key_direction[2] > 0  # never from behind: the face is always lit


def test_harmonics_are_orthonormal_and_tangents_make_a_frame() -> None:
    values = harmonics(fibonacci_sphere(4000))
    np.testing.assert_allclose(values.T @ values / 4000 * 4 * math.pi, np.eye(9), atol=2e-3)
    directions = np.array([[0.0, 1.0, 0.0], [0.6, 0.0, 0.8], [0.0, 0.0, -1.0]])
    frames = np.stack([*tangents(directions), directions], 1)
    np.testing.assert_allclose(frames @ frames.transpose(0, 2, 1), np.tile(np.eye(3), (3, 1, 1)), atol=1e-12)


@pytest.mark.parametrize("name", ["faces", "heads"])
def test_work_is_shared_out_completely_and_heads_stay_together(name: str) -> None:
    pairs = [(slot, index) for slot, index in enumerate(range(100, 400))]
    tasks = make_data.share_out(name, pairs, views=96, chunk=8)
    assert sorted(pair for task in tasks for pair in task) == pairs
    assert name == "faces" or all(len({index // 96 for _, index in task}) == 1 for task in tasks)


def test_a_folder_of_another_set_is_not_mixed(tmp_path: Path) -> None:
    (tmp_path / "provenance.json").write_text(json.dumps({"set": "heads", "resolution": 64}))
    refuses("holds another set", make_data.make_data, make_data.MakeDataArgs("faces", tmp_path, 1, 64))


@pytest.mark.parametrize("wrong", [{"count": 0}, {"format": "bmp"}, {"first": -1}, {"views": 0}])
def test_impossible_arguments_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    refuses("Expected format", make_data.make_data, make_data.MakeDataArgs("faces", tmp_path, **wrong))


def test_without_moderngl_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "moderngl", None)
    refuses("pip install moderngl", gl.create_context)


def test_without_a_driver_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    moderngl = pytest.importorskip("moderngl")
    create = partial(moderngl.create_standalone_context, 430)
    monkeypatch.setattr(moderngl, "create_standalone_context", lambda **_: create(backend="no such back end"))
    refuses("libegl1", gl.create_context)


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_back_with_their_tasks_and_errors_as_their_sentence(workers: int) -> None:
    tasks = [[(0, 5), (1, 6)], [(2, 7)]]
    calls: list[tuple[int, int]] = []
    twice = pool.run_tasks(partial(int, 2), operator.mul, tasks, workers, lambda *done: calls.append(done))
    assert sorted(twice) == [(task, 2 * task) for task in tasks]
    assert calls[-1] == (3, 3)
    failing = partial(sets.spec, "nowhere")
    refuses("no set 'nowhere'", list, pool.run_tasks(failing, operator.mul, tasks, workers))


def test_shaders_are_found_and_includes_put_in_place() -> None:
    source = gl.shader_source("shade.comp.glsl")
    assert "#include" not in source
    assert "vec3 shade_skin" in source


@pytest.mark.parametrize(("name", "count", "views"), [("faces", 64, 1), ("heads", 96, 12)])
def test_the_samples_are_the_sets_first_pictures(name: str, count: int, views: int) -> None:
    labels = json.loads((SAMPLES / name / "dataset.json").read_text())["labels"]
    assert len(labels) == count
    for index, (file, camera) in enumerate(labels):
        assert file == image_name(index, "jpg")
        np.testing.assert_allclose(camera, sets.example(name, index, views).camera, atol=1e-6)
        with Image.open(SAMPLES / name / file) as image:
            pixels = np.asarray(image)
        assert pixels.shape == (256, 256, 3)
        assert (pixels[:8, :8] == 255).all()  # a white corner
        assert 0.15 < (pixels.min(-1) < 250).mean() < 0.85  # and a head


def test_heads_and_scenes_come_with_geometry_unless_told_otherwise(tmp_path: Path) -> None:
    wanted = [kind for kind in sets.SETS if make_data.MakeDataArgs(kind, tmp_path).with_geometry]
    assert wanted == ["scenes", "heads", "held_out_heads"]
    assert make_data.MakeDataArgs("faces", tmp_path, geometry=True).with_geometry
    assert not make_data.MakeDataArgs("heads", tmp_path, geometry=False).with_geometry
