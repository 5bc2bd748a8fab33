"""Cameras: EG3D's anchors, round trips, mirroring, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import project, refused, refuses
from hypothesis import given, settings
from hypothesis import strategies as st

from head3d_core.model import cameras

angles = st.floats(-3.1, 3.1)
pitches = st.floats(-1.5, 1.5)


def test_the_frontal_camera() -> None:
    expected = [1, 0, 0, 0, 0, -1, 0, 0, 0, 0, -1, 2.7, 0, 0, 0, 1]
    camera = cameras.frontal(3)
    assert camera.shape == (3, 25)
    torch.testing.assert_close(camera[1, :16], torch.tensor(expected, dtype=torch.float32))
    torch.testing.assert_close(camera[0, 16:].reshape(3, 3), cameras.intrinsics())
    assert camera[0, 16] == pytest.approx(4.2647, abs=1e-4)


@given(yaw=angles, pitch=pitches, radius=st.floats(0.5, 5))
@settings(max_examples=60, deadline=None)
def test_orbit_round_trip(yaw: float, pitch: float, radius: float) -> None:
    camera = cameras.orbit(yaw, pitch, radius)
    found_yaw, found_pitch = cameras.yaw_pitch(camera)
    assert float(found_yaw) == pytest.approx(yaw, abs=2e-3 / max(math.cos(pitch), 0.05))
    assert float(found_pitch) == pytest.approx(pitch, abs=2e-3)
    pose, _ = cameras.unpack(camera)
    rotation = pose[0, :3, :3].double()
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(3).double(), rtol=0, atol=1e-5)
    assert float(torch.linalg.det(rotation)) == pytest.approx(1, abs=1e-5)
    assert float(pose[0, :3, 3].norm()) == pytest.approx(radius, rel=1e-5)
    # the optical axis meets the origin, and the picture is upright
    torch.testing.assert_close(pose[0, :3, 3] + radius * pose[0, :3, 2], torch.zeros(3), rtol=0, atol=1e-4)
    assert float(pose[0, 1, 1]) <= 0


def test_directions_of_the_angles() -> None:
    assert bool((cameras.orbit(0.3, 0.2)[0, [3, 7, 11]] > 0).all())
    assert float(cameras.orbit(math.pi, 0.0)[0, 11]) == pytest.approx(-2.7)
    poles = cameras.orbit(torch.zeros(2), torch.tensor([math.pi / 2, -math.pi / 2]))
    assert bool(torch.isfinite(poles).all())


def test_pack_and_good_cameras() -> None:
    camera = cameras.orbit(torch.linspace(-1, 1, 5), 0.1)
    assert camera.shape == (5, 25)
    assert torch.equal(cameras.pack(*cameras.unpack(camera)), camera)
    assert cameras.check_camera(camera) is camera
    assert cameras.check_camera(torch.zeros(0, 25)).shape == (0, 25)
    refuses("cam2world must be", cameras.pack, torch.zeros(1, 3, 4), torch.zeros(1, 3, 3))


@given(yaw=angles, pitch=pitches)
@settings(max_examples=30, deadline=None)
def test_mirror_is_the_pose_at_minus_yaw(yaw: float, pitch: float) -> None:
    camera = cameras.orbit(yaw, pitch)
    torch.testing.assert_close(cameras.mirror(camera), cameras.orbit(-yaw, pitch), rtol=0, atol=2e-5)
    assert torch.equal(cameras.mirror(cameras.mirror(camera)), camera)


def test_mirror_of_odd_intrinsics() -> None:
    """A point in front of the mirrored camera lands at 1 - x."""
    camera = cameras.orbit(0.4, -0.2)
    camera[0, 16:] = torch.tensor([4.0, 0.03, 0.45, 0, 4.5, 0.55, 0, 0, 1.0])

    point = torch.tensor([0.1, -0.05, 0.2])
    (here,) = project(point, camera)
    (there,) = project(point * torch.tensor([-1.0, 1, 1]), cameras.mirror(camera))
    torch.testing.assert_close(there, torch.stack([1 - here[0], here[1]]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c[:, :24], r"camera must be \[N, 25\]"),
        (lambda c: c[0], r"camera must be \[N, 25\]"),
        (lambda c: c.int(), "floating point"),
        (lambda c: c * torch.tensor(float("nan")), "not finite"),
        (lambda c: torch.where(torch.arange(25) == 3, torch.inf, c), "not finite"),
        (lambda c: torch.cat([c[:, :16], c[:, 16:] * 512], 1), "divide pixels by the width"),
    ],
)
def test_bad_cameras(change: object, says: str) -> None:
    with refused(says):
        cameras.check_camera(change(cameras.frontal()))  # type: ignore[operator]


@settings(max_examples=40, deadline=None)
@given(yaw=st.floats(-1e4, 1e4), pitch=st.floats(-1e4, 1e4))
def test_degrees_taken_for_radians_are_noticed(yaw: float, pitch: float) -> None:
    """Up to two turns and the poles a camera comes; beyond, and for what is no number, a sentence."""
    good = abs(yaw) <= 4 * math.pi and abs(pitch) <= math.pi / 2
    if good:
        assert cameras.orbit(yaw, pitch).isfinite().all()
    else:
        refuses(r"(yaw|pitch) must be within \d+ degrees, got .*radians", cameras.orbit, yaw, pitch)
    refuses("got nan", cameras.orbit, torch.tensor([0.0, math.nan]))
    assert cameras.orbit(2 * math.pi, math.pi / 2).shape == (1, 25)
