"""The camera of five landmarks: exact where the face is canonical, and the crop that belongs to it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers import refused
from hypothesis import given, settings
from hypothesis import strategies as st

from head3d_core.datasets import face_pose
from head3d_core.model import cameras


def photographed(
    yaw: float, pitch: float, roll: float, side: float, centre: tuple[float, float]
) -> np.ndarray:
    """Landmarks of the canonical face in a photograph, by the package's cameras."""
    cam2world, k = cameras.unpack(cameras.orbit(yaw, pitch).double())
    points = torch.from_numpy(np.c_[face_pose.CANONICAL, np.ones(5)])
    pixel = k[0] @ (torch.linalg.inv(cam2world[0]) @ points.T)[:3]
    at = (pixel[:2] / pixel[2]).T.numpy() - 0.5
    turn = np.array([[math.cos(roll), math.sin(roll)], [-math.sin(roll), math.cos(roll)]])
    return side * at @ turn + centre


@settings(max_examples=50, deadline=None)
@given(st.floats(-1, 1), st.floats(-0.5, 0.5), st.floats(-0.7, 0.7), st.floats(60, 2000))
def test_a_canonical_face_is_recovered(yaw: float, pitch: float, roll: float, side: float) -> None:
    pose = face_pose.fit_pose(photographed(yaw, pitch, roll, side, (300.0, 200.0)), level=None)
    assert (pose.yaw, pose.pitch, pose.roll) == pytest.approx((yaw, pitch, roll), abs=1e-5)
    assert pose.side == pytest.approx(side, rel=1e-5)
    assert pose.centre == pytest.approx((300, 200), abs=1e-3 * side)
    assert pose.residual < 1e-6
    torch.testing.assert_close(pose.camera(), cameras.orbit(yaw, pitch), rtol=0, atol=1e-4)


def test_the_prior_pulls_towards_level() -> None:
    points = photographed(0.2, 0.3, 0.0, 256, (128, 128))
    assert 0 < face_pose.fit_pose(points).pitch < face_pose.fit_pose(points, level=None).pitch
    assert face_pose.fit_pose(points, level=1e3).pitch == pytest.approx(0.3, abs=1e-4)
    assert face_pose.fit_pose(points).yaw == pytest.approx(0.2, abs=0.02)


def test_a_mirrored_face_has_the_mirrored_camera() -> None:
    points = photographed(0.4, 0.1, 0.2, 200, (128, 100))
    noisy = points + np.random.default_rng(0).normal(0, 2, (5, 2))
    flipped = (noisy * (-1, 1) + (256, 0))[[1, 0, 2, 4, 3]]
    a, b = face_pose.fit_pose(noisy), face_pose.fit_pose(flipped)
    assert (b.yaw, b.pitch, b.roll) == pytest.approx((-a.yaw, a.pitch, -a.roll), abs=1e-4)
    assert a.residual == pytest.approx(b.residual, abs=1e-6)
    assert a.residual > 0.001


def test_affine_maps_crop_to_photograph() -> None:
    pose = face_pose.FacePose(0.0, 0.0, 0.3, 200.0, (320.0, 240.0), 0.0)
    a, b, c, d, e, f = pose.affine(256)
    assert (a * 128 + b * 128 + c, d * 128 + e * 128 + f) == pytest.approx((320, 240))
    assert math.hypot(a, d) == pytest.approx(200 / 256)
    # The crop's x axis, turned clockwise in the photograph (y down) by the roll.
    assert math.atan2(d, a) == pytest.approx(0.3)
    points = photographed(0.0, 0.0, 0.3, 200, (320, 240))
    upright = photographed(0.0, 0.0, 0.0, 256, (128, 128))
    back = upright @ np.array([[a, d], [b, e]]) + (c, f)
    np.testing.assert_allclose(back, points, atol=1e-9)


@pytest.mark.parametrize("bad", [np.zeros((5, 2)), np.full((5, 2), np.nan), np.zeros((4, 2))])
def test_no_face_is_refused(bad: np.ndarray) -> None:
    with refused("5 distinct finite points"):
        face_pose.fit_pose(bad)
