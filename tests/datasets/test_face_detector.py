"""Rates with intervals, and MTCNN on pictures where the answer is known."""

from __future__ import annotations

import numpy as np
import torch
from helpers import refused
from torch import Tensor

from head3d_core.datasets import face_detector


def astronaut() -> np.ndarray:
    from skimage import data

    return data.astronaut()


def portrait() -> Tensor:
    """The astronaut's head and shoulders, [3, 256, 256]."""
    return torch.from_numpy(astronaut()[0:256, 96:352].copy()).movedim(-1, 0)


def test_a_photograph_and_pictures_without_a_face() -> None:
    noise = torch.randint(
        0, 256, (3, 256, 256), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    images = torch.stack([portrait(), torch.full((3, 256, 256), 255, dtype=torch.uint8), noise])
    probability = face_detector.face_probability(images)
    assert probability[0] > 0.99
    assert (probability[1:] < face_detector.THRESHOLD).all()
    rate = face_detector.detection_rate(images)
    assert (rate.found, rate.count) == (1, 3)
    assert face_detector.detection_rate(images[:0]).count == 0


def test_landmarks_are_on_the_face_and_in_order() -> None:
    (face,) = face_detector.find_faces(portrait()[None])[0]
    right_eye, left_eye, nose, right_mouth, left_mouth = face.landmarks
    assert face.landmarks.dtype == np.float64
    assert right_eye[0] < nose[0] < left_eye[0]
    assert right_mouth[0] < left_mouth[0]
    assert max(right_eye[1], left_eye[1]) < nose[1] < min(right_mouth[1], left_mouth[1])
    left, top, right, bottom = face.box
    assert ((face.landmarks > (left, top)) & (face.landmarks < (right, bottom))).all()


def test_sizes() -> None:
    """Arrays of several sizes go one by one; tensors of another size are judged at 256²."""
    whole, part = face_detector.find_faces([astronaut(), portrait().movedim(0, -1).numpy()])
    assert len(whole) >= 1
    assert len(part) == 1
    np.testing.assert_allclose(whole[0].landmarks - (96, 0), part[0].landmarks, atol=3)
    large = torch.nn.functional.interpolate(portrait()[None].float(), scale_factor=2, mode="nearest").byte()
    assert face_detector.face_probability(large)[0] > 0.99


def test_wrong_input() -> None:
    with refused(r"uint8 \[N, 3, H, W\]"):
        face_detector.find_faces(torch.zeros(1, 3, 256, 256))
    with refused(r"uint8 \[N, 3, H, W\]"):
        face_detector.detection_rate(torch.zeros(3, 256, 256, dtype=torch.uint8))
