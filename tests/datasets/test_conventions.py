"""Round trips between camera conventions, and points that must land on the same pixel under each."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from head3d_core.datasets import conventions
from head3d_core.model import cameras
from head3d_core.utils.errors import Head3DError

YAW = torch.linspace(-math.pi, math.pi, 13)
_POSITION = cameras.orbit(YAW, torch.linspace(-0.6, 0.6, 13))[:, [3, 7, 11]].double()
CAMERAS = cameras.pack(
    cameras.pose_looking_at(_POSITION, torch.zeros_like(_POSITION)),
    cameras.intrinsics().double().expand(13, 3, 3),
)
"""All around the head, rotations exact to float64."""
POINT = torch.tensor([0.12, -0.2, 0.31], dtype=torch.float64)


def project(camera: Tensor, point: Tensor) -> Tensor:
    """The reference: pixel of a world point, in image widths [N, 2]."""
    cam2world, k = cameras.unpack(camera)
    local = torch.linalg.inv(cam2world) @ torch.cat([point, torch.ones(1, dtype=point.dtype)])
    pixel = (k @ local[:, :3, None])[..., 0]
    return pixel[:, :2] / pixel[:, 2:]


def test_opengl_round_trip_and_pixels() -> None:
    cam2world, k = cameras.unpack(CAMERAS)
    gl = conventions.to_opengl(cam2world)
    torch.testing.assert_close(conventions.from_opengl(gl), cam2world, rtol=0, atol=0)
    # A GL camera looks along -z: normalised device coordinates with y up, perspective division by -z.
    local = (torch.linalg.inv(gl) @ torch.cat([POINT, torch.ones(1, dtype=torch.float64)]))[:, :3]
    assert (local[:, 2] < 0).all()
    f = k[0, 0, 0]
    x, y = 0.5 + f * local[:, 0] / -local[:, 2], 0.5 - f * local[:, 1] / -local[:, 2]
    torch.testing.assert_close(torch.stack([x, y], -1), project(CAMERAS, POINT), rtol=0, atol=1e-12)


def test_blender_round_trip_and_front() -> None:
    cam2world, _ = cameras.unpack(CAMERAS)
    blender = conventions.to_blender(cam2world)
    torch.testing.assert_close(conventions.from_blender(blender), cam2world, rtol=0, atol=1e-15)
    # Blender's front view stands on -y and looks along +y, with z up.
    front = conventions.to_blender(cameras.unpack(cameras.frontal())[0])[0]
    torch.testing.assert_close(front[:3, 3], torch.tensor([0.0, -2.7, 0.0]), rtol=0, atol=1e-6)
    torch.testing.assert_close(-front[:3, 2], torch.tensor([0.0, 1.0, 0.0]), rtol=0, atol=1e-6)
    torch.testing.assert_close(front[:3, 1], torch.tensor([0.0, 0.0, 1.0]), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("width", "height"), [(512, 512), (640, 480)])
def test_colmap_round_trip_and_pixels(width: int, height: int) -> None:
    views = conventions.to_colmap(CAMERAS, width, height)
    torch.testing.assert_close(conventions.from_colmap(views), CAMERAS, rtol=0, atol=1e-12)
    assert (views.quaternion[:, 0] >= 0).all()
    local = conventions.quaternion_to_rotation(views.quaternion) @ POINT + views.translation
    fx, fy, cx, cy = views.params.unbind(-1)
    pixel = torch.stack([fx * local[:, 0] / local[:, 2] + cx, fy * local[:, 1] / local[:, 2] + cy], -1)
    ours = project(CAMERAS, POINT) * torch.tensor([width, height])
    torch.testing.assert_close(pixel, ours, rtol=0, atol=1e-9)


def test_colmap_known_numbers() -> None:
    """The frontal camera is half a turn about x: q = (0, 1, 0, 0), t = (0, 0, 2.7)."""
    views = conventions.to_colmap(cameras.frontal(), 512)
    torch.testing.assert_close(views.quaternion[0], torch.tensor([0.0, 1.0, 0.0, 0.0]), rtol=0, atol=1e-6)
    torch.testing.assert_close(views.translation[0], torch.tensor([0.0, 0.0, 2.7]), rtol=0, atol=1e-6)
    torch.testing.assert_close(
        views.params[0], torch.tensor([2183.526, 2183.526, 256.0, 256.0]), rtol=1e-6, atol=0
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda q: sum(x * x for x in q) > 1e-3))
def test_quaternions(parts: list[float]) -> None:
    q = torch.tensor([parts], dtype=torch.float64)
    rotation = conventions.quaternion_to_rotation(q)
    identity = torch.eye(3, dtype=torch.float64)[None]
    torch.testing.assert_close(rotation @ rotation.mT, identity, rtol=0, atol=1e-12)
    assert torch.linalg.det(rotation).item() == pytest.approx(1)
    again = conventions.quaternion_to_rotation(conventions.rotation_to_quaternion(rotation))
    torch.testing.assert_close(again, rotation, rtol=0, atol=1e-12)


def test_lens_and_field_of_view() -> None:
    assert math.degrees(conventions.focal_to_fov(cameras.FOCAL)) == pytest.approx(13.374, abs=1e-3)
    assert conventions.fov_to_focal(conventions.focal_to_fov(1.7)) == pytest.approx(1.7)
    assert conventions.lens_to_focal(conventions.focal_to_lens(1.7)) == pytest.approx(1.7)
    assert conventions.focal_to_lens(1.0) == 36.0


def test_what_cannot_be_converted() -> None:
    skewed = CAMERAS.clone()
    skewed[0, 17] = 0.1
    with pytest.raises(Head3DError, match="no skew"):
        conventions.to_colmap(skewed, 512)
    with pytest.raises(Head3DError, match=r"\[N, 4, 4\], got \[13, 3, 4\]"):
        conventions.to_opengl(cameras.unpack(CAMERAS)[0][:, :3])
    views = conventions.to_colmap(CAMERAS, 512)
    with pytest.raises(Head3DError, match="length zero"):
        conventions.from_colmap(dataclasses.replace(views, quaternion=views.quaternion * 0))
