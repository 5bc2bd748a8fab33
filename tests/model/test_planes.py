"""Planes: projection, sampling against a scalar loop, forced answers, exchange."""

from __future__ import annotations

import numpy as np
import plain
import pytest
import torch
from helpers import refused, refuses
from hypothesis import given, settings
from hypothesis import strategies as st
from ops_scene import decoder

from head3d_core.config import PLANE_NAMES, SLICES, Slices
from head3d_core.model import planes
from head3d_core.model.planes import DecoderWeights

AXES = ("eg3d", "xyz")


@pytest.mark.parametrize("axes", AXES)
def test_names_agree_with_the_projection(axes: planes.Axes) -> None:
    names = tuple("xyz"[u] + "xyz"[v] for u, v in planes.PROJECTION[axes])
    assert names == PLANE_NAMES[axes]


@pytest.mark.parametrize("axes", AXES)
def test_which_plane_sees_which_coordinate(axes: planes.Axes) -> None:
    """Under EG3D's axes the height y enters through plane 0 alone (the missing y-z plane)."""
    P = torch.randn(1, 3, 2, 8, 8)
    base = torch.tensor([[[0.11, -0.07, 0.05]]])
    sees = {}
    for k, name in enumerate("xyz"):
        moved = base.clone()
        moved[..., k] += 0.13
        change = planes.sample_each_plane(P, moved, axes) - planes.sample_each_plane(P, base, axes)
        sees[name] = [i for i in range(3) if float(change[0, i].abs().max()) > 1e-6]
    expected = {"eg3d": ([0, 1, 2], [0], [1, 2]), "xyz": ([0, 1], [0, 2], [1, 2])}
    assert sees == dict(zip("xyz", expected[axes], strict=True))


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize(
    ("count", "box_warp", "slices"),
    [(3, 1.0, SLICES), (3, 1.6, SLICES), (4, 1.0, SLICES), (4, 1.6, Slices(0.25, -0.1))],
)
def test_sampling_is_the_scalar_loop(axes: planes.Axes, count: int, box_warp: float, slices: Slices) -> None:
    P = torch.randn(2, count, 3, 6, 5, dtype=torch.float64)
    points = (torch.rand(2, 50, 3, dtype=torch.float64) - 0.5) * 1.3 * box_warp  # some fall outside the cube
    found = planes.sample_planes(P, points, axes, box_warp, "reference", slices)
    for n in range(2):
        for m in range(50):
            expected = plain.point_feature(plain.f64(P[n]), plain.f64(points[n, m]), axes, box_warp, slices)
            np.testing.assert_allclose(plain.f64(found[n, m]), expected, atol=1e-12)


def test_share_of_the_front_slice() -> None:
    """1 from the front slice on, 0 behind the back one, half in the middle; a NaN stays one."""
    z = torch.tensor([0.5, 0.3, 0.2, 0.1, 0.05, 0.0, -0.5, torch.nan])
    points = torch.stack([torch.zeros(8), torch.zeros(8), z], -1)
    expected = torch.tensor([1, 1, 0.75, 0.5, 0.375, 0.25, 0, torch.nan])
    found = planes.front_share(points, Slices(half_distance=0.2, centre=0.1))
    torch.testing.assert_close(found, expected, equal_nan=True)


def test_equal_slices_are_the_tri_plane() -> None:
    P, points = torch.randn(2, 3, 4, 8, 8), torch.rand(2, 50, 3) - 0.5
    wide = planes.widen(P)
    assert wide.shape == (2, 4, 4, 8, 8)
    assert planes.widen(wide) is wide
    for backend in ("reference", "auto"):
        torch.testing.assert_close(
            planes.sample_planes(wide, points, backend=backend),  # type: ignore[arg-type]
            planes.sample_planes(P, points, backend="reference"),
        )


@pytest.mark.parametrize("backend", ["reference", "auto"])
def test_gradients_reach_the_right_slice(backend: planes.Backend) -> None:
    """In front of both slices only xy_front learns, behind both only xy_back, half-way both alike."""
    for z, front, back in ((0.2, 1.0, 0.0), (-0.2, 0.0, 1.0), (0.0, 0.5, 0.5), (0.05, 0.75, 0.25)):
        P = torch.randn(1, 4, 2, 8, 8, dtype=torch.float64, requires_grad=True)
        at = torch.tensor([[[0.11, -0.07, z]]], dtype=torch.float64)
        planes.sample_planes(P, at, backend=backend).sum().backward()
        assert P.grad is not None
        reached = P.grad.sum((0, 2, 3, 4))  # the bilinear weights of two channels sum to 2
        expected = torch.tensor([front, 1, 1, back], dtype=torch.float64) * 2 / 3
        torch.testing.assert_close(reached, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("backend", ["reference", "auto"])
def test_moving_in_depth_exchanges_the_slices(backend: planes.Backend) -> None:
    """df/dz = (B(xy_front) - B(xy_back)) / (6 h) between the slices if xz and yz are constant; 0 elsewhere."""
    P = torch.ones(1, 4, 1, 8, 8, dtype=torch.float64)
    P[:, 0], P[:, 3] = 5.0, 2.0
    at = torch.tensor(
        [[[0.1, 0.1, z] for z in (0.3, 0.05, -0.05, -0.3)]], dtype=torch.float64, requires_grad=True
    )
    planes.sample_planes(P, at, backend=backend).sum().backward()
    assert at.grad is not None
    expected = torch.tensor([0, 3 / 0.6, 3 / 0.6, 0], dtype=torch.float64)
    torch.testing.assert_close(at.grad[0, :, 2], expected, rtol=0, atol=1e-9)


def test_constant_planes_and_their_border() -> None:
    """Inside: the constant. Half a texel outside the cube: zero."""
    P = torch.ones(1, 3, 1, 16, 16)
    inside = torch.rand(1, 50, 3) * 0.9 - 0.45
    torch.testing.assert_close(planes.sample_planes(P, inside), torch.ones(1, 50, 1))
    outside = torch.tensor([[[0.5 + 1 / 32 + 1e-4, 0.6, -0.7]]])
    assert float(planes.sample_planes(P, outside)) == 0.0
    edge = torch.tensor([[[0.5, 0.0, 0.0]]])  # on a face: halfway between a texel and the zeros around
    assert float(planes.sample_each_plane(P, edge)[0, 0, 0, 0]) == pytest.approx(0.5)


def test_ramp_planes_return_the_coordinate() -> None:
    size = 32
    ramp = (torch.arange(size) + 0.5) / size * 2 - 1
    P = torch.zeros(1, 3, 2, size, size)
    P[:, :, 0], P[:, :, 1] = ramp[None, None, None, :], ramp[None, None, :, None]
    points = torch.rand(1, 20, 3) * 0.9 - 0.45
    for axes in AXES:
        read, at = planes.sample_each_plane(P, points, axes), planes.project(points, axes, 1.0)
        torch.testing.assert_close(read, at, rtol=0, atol=1e-5)


def test_decoder_is_the_scalar_loop() -> None:
    w = decoder(dtype=torch.float64)
    x = torch.randn(6, 4, dtype=torch.float64) * 3
    sigma, colour = planes.decode(x, w)
    for m in range(6):
        s, c = plain.decode(plain.f64(x[m]), w)
        assert float(sigma[m]) == pytest.approx(s)
        np.testing.assert_allclose(plain.f64(colour[m]), c, atol=1e-12)


def test_colours_reach_black_and_white() -> None:
    w = decoder()._replace(w1=torch.zeros(4, 5), b1=torch.tensor([0.0, 50.0, -50.0, 0.0]))
    _, colour = planes.decode(torch.randn(1, 4), w)
    torch.testing.assert_close(colour[0], torch.tensor([1.001, -0.001, 0.5]))


def test_query_shapes_and_gradients() -> None:
    P = torch.randn(2, 3, 4, 5, 5, dtype=torch.float64)
    points = torch.rand(2, 3, 3, dtype=torch.float64) * 0.7 - 0.35
    w = decoder(dtype=torch.float64)
    sigma, features = planes.query(P, w, points, backend="reference")
    assert sigma.shape == (2, 3, 1)
    assert features.shape == (2, 3, 3)

    def run(p: torch.Tensor, x: torch.Tensor, *layers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return planes.query(p, DecoderWeights(*layers), x, "eg3d", backend="reference")

    inputs = (P[:1, :, :2, :3, :3].clone(), points[:1].clone(), *decoder(2, 2, 2, torch.float64))
    assert torch.autograd.gradcheck(run, [t.requires_grad_() for t in inputs], atol=1e-6)


@pytest.mark.parametrize("count", [0, 1])
def test_empty_requests(count: int) -> None:
    P = torch.randn(count, 3, 4, 5, 5)
    sigma, features = planes.query(P, decoder(), torch.zeros(count, 0, 3), backend="reference")
    assert sigma.shape == (count, 0, 1)
    assert features.shape == (count, 0, 3)


# --- exchange -----------------------------------------------------------------------------------------------------


@given(name=st.sampled_from(["xy", "xz", "yz", "zx"]), seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_swapping_twice_is_the_identity(name: str, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, 1, 3, 2, 4, 4, generator=generator)
    copy = a.clone()
    mixed = planes.swap(a, b, name)
    k = planes.plane_index(name)
    assert torch.equal(mixed[:, k], b[:, k])
    assert all(torch.equal(mixed[:, j], a[:, j]) for j in range(3) if j != k)
    assert torch.equal(planes.swap(mixed, a, name), a)
    assert torch.equal(a, copy), "the input was changed"


@pytest.mark.parametrize("count", [3, 4])
def test_swapping_all_planes_gives_the_other(count: int) -> None:
    a, b = torch.randn(2, 2, count, 2, 4, 4)
    assert torch.equal(planes.swap(a, b, ["xy", "xz", "yz"]), b)
    assert torch.equal(planes.swap(a, b, []), a)


def test_swapping_slices() -> None:
    """ "xy" exchanges both slices, the slices' own names one each."""
    a, b = torch.randn(2, 1, 4, 2, 4, 4)
    for name, changed in (("xy", {0, 3}), ("xy_front", {0}), ("xy_back", {3}), ("xz", {1}), ("yz", {2})):
        mixed = planes.swap(a, b, name)
        assert {k for k in range(4) if torch.equal(mixed[:, k], b[:, k])} == changed
        assert {k for k in range(4) if torch.equal(mixed[:, k], a[:, k])} == {0, 1, 2, 3} - changed
    torch.testing.assert_close(planes.blend(a, b, [1, 0, 0]), planes.swap(a, b, "xy"))
    torch.testing.assert_close(planes.blend(a, b, [0, 0, 0, 1]), planes.swap(a, b, "xy_back"))
    narrow = torch.randn(1, 3, 2, 4, 4)
    assert torch.equal(planes.swap(planes.widen(narrow), b, "xy")[:, 0], b[:, 0])
    torch.testing.assert_close(planes.blend(narrow, b[:, :3], [0.5] * 3), (narrow + b[:, :3]) / 2)
    assert torch.equal(planes.blend(a, b, [0, 0, 0]), a)


# --- bad input ----------------------------------------------------------------------------------------------------


def test_bad_input() -> None:
    P, points = torch.zeros(2, 3, 4, 8, 8), torch.zeros(2, 5, 3)
    for wrong, says in (
        (torch.zeros(2, 96, 8, 8), r"planes must be \[N, 3, C, H, W\], .* got \[2, 96, 8, 8\]"),
        (torch.zeros(2, 2, 4, 8, 8), r"planes must be .* two slices of the xy plane, got \[2, 2, 4, 8, 8\]"),
        (torch.zeros(2, 3, 4, 8, 8, dtype=torch.int64), "planes must be floating point"),
    ):
        refuses(says, planes.sample_planes, wrong, points)
    for wrong in (torch.zeros(5, 3), torch.zeros(1, 5, 3), torch.zeros(2, 5, 2)):
        refuses(r"points must be \[N, M, 3\] with N = 2", planes.query, P, decoder(), wrong)
    refuses('a plane is called "xy"', planes.swap, P, P, "front")
    refuses("planes of one shape", planes.swap, P, P[:1], "xy")
    with refused(r"got \[2, 3, .*\] and \[2, 4, .*\]: `planes.widen` makes 4 planes of 3"):
        planes.swap(P, planes.widen(P), "xy")
    refuses(r"'xy_back' is a slice of 4 planes, got planes \[2, 3, 4, 8, 8\]", planes.swap, P, P, "xy_back")
    refuses("three weights, or one for each of 3 planes, got 2", planes.blend, P, P, [1, 0])
    refuses("one for each of 4 planes, got 2", planes.blend, planes.widen(P), planes.widen(P), [1, 0])
    with refused("backend must be"):
        planes.sample_planes(P, points, backend="fast")  # type: ignore[arg-type]
