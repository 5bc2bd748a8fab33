"""Rays: EG3D's anchors, odd cameras against the inverted matrix, and the box."""

from __future__ import annotations

import math

import numpy as np
import plain
import pytest
import torch
from helpers import refuses
from hypothesis import given, settings
from hypothesis import strategies as st

from head3d_core.config import RenderOptions
from head3d_core.model import cameras, rays


def odd_camera(seed: int) -> torch.Tensor:
    """Anywhere on the sphere, unequal focal lengths, skew, off-centre principal point."""
    g = np.random.default_rng(seed)
    camera = cameras.orbit(float(g.uniform(-3, 3)), float(g.uniform(-1, 1)), float(g.uniform(1, 4)))
    (fx, fy), skew, (cx, cy) = g.uniform(0.5, 5, 2), g.uniform(-0.2, 0.2), g.uniform(0.2, 0.8, 2)
    camera[0, 16:] = torch.tensor([fx, skew, cx, 0, fy, cy, 0, 0, 1])
    return camera


def test_eg3d_anchor() -> None:
    origins, directions = rays.camera_rays(cameras.frontal(), 4)
    expected = {
        0: (-0.087259, 0.087259, -0.992357),
        1: (-0.029185, 0.087556, -0.995732),
        4: (-0.087556, 0.029185, -0.995732),
    }
    for index, direction in expected.items():
        torch.testing.assert_close(directions[0, index], torch.tensor(direction), rtol=0, atol=1e-6)
    assert torch.equal(origins[0], torch.tensor([[0.0, 0.0, 2.7]]).expand(16, 3))


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_odd_cameras_are_the_inverted_matrix(seed: int) -> None:
    camera = odd_camera(seed).double()
    origins, directions = rays.camera_rays(camera, 3)
    for row in range(3):
        for column in range(3):
            origin, direction = plain.pixel_ray(plain.f64(camera[0]), row, column, 3)
            np.testing.assert_allclose(plain.f64(directions[0, 3 * row + column]), direction, atol=1e-9)
            np.testing.assert_allclose(plain.f64(origins[0, 3 * row + column]), origin, atol=1e-12)


@given(seed=st.integers(0, 10_000), resolution=st.integers(1, 9))
@settings(max_examples=20, deadline=None)
def test_directions_are_unit(seed: int, resolution: int) -> None:
    _, directions = rays.camera_rays(odd_camera(seed), resolution)
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones(1, resolution**2), rtol=0, atol=1e-5)


def test_a_batch_is_its_cameras() -> None:
    pair = torch.cat([odd_camera(1), odd_camera(2)])
    _, both = rays.camera_rays(pair, 5)
    for n in range(2):
        assert torch.equal(rays.camera_rays(pair[n : n + 1], 5)[1][0], both[n])


@given(seed=st.integers(0, 10_000), side=st.floats(0.2, 2))
@settings(max_examples=40, deadline=None)
def test_box_is_the_face_by_face_loop(seed: int, side: float) -> None:
    g = torch.Generator().manual_seed(seed)
    origins = torch.randn(1, 12, 3, generator=g, dtype=torch.float64) * 2
    aim = (torch.rand(1, 12, 3, generator=g, dtype=torch.float64) - 0.5) * 2 * side
    directions = torch.nn.functional.normalize(aim - origins, dim=-1)
    directions[0, 0] = torch.tensor([0.0, 0.0, 1.0])  # parallel to four faces
    near, far = rays.box_bounds(origins, directions, side)
    pairs = zip(origins[0], directions[0], strict=True)
    hits = [plain.box_hit(plain.f64(o), plain.f64(d), side) for o, d in pairs]
    nears = [h[0] for h in hits if h is not None]
    for k, hit in enumerate(hits):
        # a ray that misses gets the smallest and the largest *near* of those that hit (EG3D's quirk)
        expected = hit if hit is not None else (min(nears), max(nears)) if nears else (0.0, 0.0)
        assert (float(near[0, k]), float(far[0, k])) == pytest.approx(expected, abs=1e-6)


def test_no_ray_hits() -> None:
    origins = torch.tensor([[[0.0, 0.0, 3.0]]])
    near, far = rays.box_bounds(origins, torch.tensor([[[0.0, 0.0, 1.0]]]), 1.0)
    assert (float(near), float(far)) == (-3.5, -2.5), "a box behind the camera is met at negative distances"
    near, far = rays.box_bounds(origins, torch.tensor([[[1.0, 0.0, 0.0]]]), 1.0)
    assert float(near) == float(far) == 0.0
    assert rays.box_bounds(torch.zeros(1, 0, 3), torch.zeros(1, 0, 3), 1.0)[0].shape == (1, 0)


def test_bounds_follow_the_options() -> None:
    origins, directions = rays.camera_rays(cameras.frontal(2), 3)
    near, far = rays.ray_bounds(origins, directions, RenderOptions())
    assert near.shape == far.shape == (2, 9)
    assert bool((near == 2.25).all())
    assert bool((far == 3.3).all())
    automatic = RenderOptions(ray_start="auto", ray_end="auto", box_warp=1.6)
    near, far = rays.ray_bounds(origins, directions, automatic)
    assert float(near[0, 4]) == pytest.approx(1.9)
    assert float(far[0, 4]) == pytest.approx(3.5)
    assert bool((far - near < 1.6 * math.sqrt(3)).all())


def test_bad_input() -> None:
    refuses("resolution must be at least 1, got 0", rays.camera_rays, cameras.frontal(), 0)
    refuses("camera must be", rays.camera_rays, torch.zeros(1, 16), 4)
