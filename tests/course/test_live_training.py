"""Training by hand at preset tiny on the shipped samples."""

from __future__ import annotations

import torch
from helpers import refuses

from head3d_core.datasets import format
from head3d_core.model import cameras
from head3d_core.utils.files import DATA
from head3d_course import live_training


def test_the_samples_are_there_without_opengl() -> None:
    (faces, face_cameras), (heads, head_cameras) = live_training.sample_sets()
    assert faces.shape[1:] == heads.shape[1:] == (3, 64, 64)
    assert len(faces) == len(face_cameras) == 64
    assert len(heads) == len(head_cameras) == 96


def test_stages_follow_each_other() -> None:
    teacher = live_training.small_engine(live_training.small_recipe("teacher", batch=2))
    history = live_training.run_steps(teacher, 3, every=2)
    assert history["images"] == [4.0, 6.0]
    assert all(v is not None and v > 0 for v in history["g_gan_front"])
    head = live_training.small_engine(live_training.small_recipe("head", batch=2), teacher=teacher)
    same = torch.stack([(a == b).all() for a, b in zip(
        head.generator.state_dict().values(), teacher.average.state_dict().values(), strict=True
    )])  # fmt: skip
    assert bool(same.all()), "the head generator starts from the averaged teacher"
    how = live_training.small_recipe("distill", batch=2)
    student = live_training.small_engine(how, teacher=teacher, head=head)
    values = live_training.run_steps(student, 2, every=2)
    assert {"kd", "map", "rgb", "g_gan_front", "g_gan_back"} <= set(values)
    assert "lpips" not in values
    refuses("pass head=", live_training.small_engine, how, teacher=teacher)


def test_the_gap_of_mean_pictures_sees_a_difference() -> None:
    engine = live_training.small_engine(live_training.small_recipe("teacher", batch=2))
    first = live_training.average_picture_gap(engine)
    with torch.no_grad():
        engine.average.superresolution.block1.torgb.bias.sub_(5.0)
    assert live_training.average_picture_gap(engine) > first > 0.1


def test_a_discriminator_memorises_few_images() -> None:
    run = live_training.memorise(4, steps=20)
    assert run["steps"] == [0.0, 10.0, 20.0]
    assert abs(run["shown"][0] - run["held out"][0]) < 0.5
    assert run["shown"][-1] - run["held out"][-1] > 0.3
    refuses("between 1 and 32", live_training.memorise, 40)


def test_the_face_of_a_person_is_its_most_frontal_image() -> None:
    folder = DATA / "samples" / "heads"
    images, camera = format.load_arrays(folder)
    who = format.load_identities(folder)
    face = live_training.face_of(images, camera, who)
    yaw = cameras.yaw_pitch(camera[who == who[0]])[0].abs()
    expected = images[who == who[0]][yaw.argmin()].float() / 127.5 - 1
    assert torch.allclose(face[0], expected, atol=1e-6)
