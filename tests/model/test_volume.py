"""The reference renderer: scalar loops, forced answers, closed forms, properties."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import plain
import pytest
import torch
from helpers import refuses
from hypothesis import given, settings
from hypothesis import strategies as st
from ops_scene import Scene, decoder
from torch import Tensor

from head3d_core.config import Backend, RenderOptions
from head3d_core.model import cameras, rays, volume
from head3d_core.model.planes import DecoderWeights, widen

SHORT = RenderOptions(depth_resolution=6, depth_resolution_importance=5)


def scene(batch: int = 2, resolution: int = 3, dtype: torch.dtype = torch.float64, slices: int = 1) -> Scene:
    planes = torch.randn(batch, 2 + slices, 4, 8, 8, dtype=dtype) * 3
    camera = cameras.orbit(torch.linspace(-0.4, 0.9, batch), 0.2, focal=2.5).to(dtype)
    return Scene(planes, decoder(dtype=dtype), *rays.camera_rays(camera, resolution))


def empty(what: DecoderWeights) -> Scene:
    """Two images of nine rays through planes of zeros."""
    return replace(scene(dtype=torch.float32), planes=torch.zeros(2, 3, 4, 8, 8), weights=what)


def constant(sigma: float, colours: tuple[float, ...] = (0.2, 0.5, 0.8)) -> DecoderWeights:
    """A decoder that answers the same everywhere."""
    logits = [math.log((c + 0.001) / (1.001 - c)) for c in colours]
    nothing = torch.zeros(2, 4), torch.zeros(2), torch.zeros(4, 2)
    return DecoderWeights(*nothing, torch.tensor([sigma, *logits]))


def sigma_of(density: Tensor) -> Tensor:
    """Raw decoder output whose density it is: the inverse of softplus(sigma - 1)."""
    return torch.log(torch.expm1(density)) + 1


# --- the ladder ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("white", [False, True])
def test_march_is_the_scalar_loop(white: bool) -> None:
    depths = torch.rand(2, 3, 7, dtype=torch.float64).cumsum(-1) + 2
    features, sigma = torch.rand(2, 3, 7, 4).double(), torch.randn(2, 3, 7, 1).double() * 4
    found = volume.march(features, sigma, depths, white)
    for n in range(2):
        for r in range(3):
            ray = (plain.f64(t) for t in (features[n, r], sigma[n, r, :, 0], depths[n, r]))
            colour, depth, opacity, w = plain.march(*ray, white)
            np.testing.assert_allclose(plain.f64(found.features[n, r]), colour, atol=1e-12)
            assert float(found.depth[n, r]) == pytest.approx(depth)
            assert float(found.opacity[n, r]) == pytest.approx(opacity)
            np.testing.assert_allclose(plain.f64(found.weights[n, r]), w, atol=1e-12)


@pytest.mark.parametrize("count", [1, 9])
@pytest.mark.parametrize("samples", [4, 5, 12])
def test_importance_is_the_scalar_loop(samples: int, count: int) -> None:
    depths = torch.rand(2, 3, samples, dtype=torch.float64).cumsum(-1) + 2
    w = torch.rand(2, 3, samples - 1, dtype=torch.float64) ** 4
    w[0, 0] = 0
    u = torch.rand(2, 3, count, dtype=torch.float64)
    u[0, 0, 0] = 0
    for given_u in (u, None):
        found = volume.importance_depths(depths, w, count, given_u)
        for n in range(2):
            for r in range(3):
                us = (np.arange(count) + 0.5) / count if given_u is None else plain.f64(u[n, r])
                expected = plain.importance(plain.f64(depths[n, r]), list(plain.f64(w[n, r])), us)
                np.testing.assert_allclose(plain.f64(found[n, r]), expected, atol=1e-9)


OPTIONS = {
    "two passes": {},
    "eg3d axes": {"axes": "eg3d"},
    "one pass": {"depth_resolution_importance": 0},
    "one importance sample": {"depth_resolution_importance": 1},
    "white background": {"white_back": True},
    "disparity": {"disparity": True},
    "larger box": {"box_warp": 1.6},
    "automatic bounds": {"ray_start": "auto", "ray_end": "auto"},
    "distant slices": {"slice_half_distance": 0.3, "slice_centre": 0.1},
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("slices", [1, 2], ids=["one slice", "two slices"])
def test_render_is_the_scalar_loop(name: str, slices: int) -> None:
    options = RenderOptions(**{"depth_resolution": 6, "depth_resolution_importance": 5, **OPTIONS[name]})
    what = scene(slices=slices)
    result = what.render(options, "reference")
    near, far = rays.ray_bounds(what.origins, what.directions, options)
    for n in range(2):
        for r in range(9):
            ray = plain.f64(what.origins[n, r]), plain.f64(what.directions[n, r])
            bounds = float(near[n, r]), float(far[n, r])
            exact = plain.f64(what.planes[n])
            features, _, opacity = plain.render_ray(exact, what.weights, *ray, *bounds, options)
            np.testing.assert_allclose(plain.f64(result.features[n, r]), features, atol=1e-9)
            assert float(result.opacity[n, r]) == pytest.approx(opacity, abs=1e-10)


@pytest.mark.parametrize("backend", ["reference", "auto"])
def test_equal_slices_give_the_picture_of_the_tri_plane(backend: Backend) -> None:
    what = scene()
    two = replace(what, planes=widen(what.planes)).render(SHORT, backend)
    torch.testing.assert_close(what.render(SHORT, "reference"), two, rtol=0, atol=1e-11)


@pytest.mark.parametrize("backend", ["reference", "auto"])
def test_pixels_in_front_of_both_slices_cannot_change_the_back(backend: Backend) -> None:
    """All samples have z >= h: xy_back gets no gradient at all, and the picture does not depend on it."""
    what = scene(slices=2)
    origins = torch.rand(2, 9, 3, dtype=torch.float64) * 0.6 - 0.3
    origins[..., 2] = 0.5
    directions = torch.nn.functional.normalize(torch.randn(2, 9, 3, dtype=torch.float64), dim=-1)
    options = replace(SHORT, ray_start=0.0, ray_end=0.3)  # samples end at most 0.35 from z = 0.5
    what = replace(what, origins=origins, directions=directions)
    out = replace(what, planes=what.planes.requires_grad_()).render(options, backend)
    (gradient,) = torch.autograd.grad(out.features.square().sum() + out.depth.sum(), what.planes)
    assert bool((gradient[:, 3] == 0).all())
    assert all(bool((gradient[:, k] != 0).any()) for k in range(3))
    other = what.planes.detach().clone()
    other[:, 3] = torch.randn_like(other[:, 3])
    assert torch.equal(replace(what, planes=other).render(options, backend).features, out.features)


def test_depth_is_clamped_by_the_batch() -> None:
    """The limits are the nearest and farthest sample of the whole batch: depth depends on its neighbours."""
    depth = torch.tensor([[2.0, torch.inf], [5.0, 3.0]])
    first, last = torch.tensor([[2.5, 2.5], [2.4, 2.5]]), torch.tensor([[3.5, 3.5], [3.5, 4.0]])
    found = volume.clamp_depth(depth, first, last)
    torch.testing.assert_close(found, torch.tensor([[2.4, 4.0], [4.0, 3.0]]))
    alone = volume.clamp_depth(depth[:1], first[:1], last[:1])
    torch.testing.assert_close(alone, torch.tensor([[2.5, 3.5]]))
    assert volume.clamp_depth(torch.zeros(1, 0), torch.zeros(1, 0), torch.zeros(1, 0)).shape == (1, 0)


# --- forced answers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["reference", "auto"])
@pytest.mark.parametrize("white", [False, True])
def test_uniform_fog(white: bool, backend: Backend) -> None:
    """Constant density along a stretch of length 1.05: opacity = 1 - exp(-density length), whatever the samples."""
    options = RenderOptions(depth_resolution=9, depth_resolution_importance=7, white_back=white)
    out = empty(constant(2.0)).render(options, backend)
    opacity = 1 - math.exp(-math.log1p(math.exp(1.0)) * 1.05)
    torch.testing.assert_close(out.opacity, torch.full_like(out.opacity, opacity), rtol=1e-5, atol=1e-5)
    background = 1 - opacity if white else 0.0
    for k, colour in enumerate((0.2, 0.5, 0.8)):
        expected = 2 * (opacity * colour + background) - 1
        torch.testing.assert_close(out.features[..., k], torch.full((2, 9), expected), rtol=0, atol=1e-5)


def test_nothing_there() -> None:
    """An empty ray is black (or white), has opacity 0 and the largest depth of the batch."""
    for white in (False, True):
        options = RenderOptions(depth_resolution=8, depth_resolution_importance=4, white_back=white)
        out = empty(constant(-200.0)).render(options, "reference")
        assert bool((out.opacity == 0).all())
        assert bool((out.features == (1.0 if white else -1.0)).all())
        torch.testing.assert_close(out.depth, torch.full_like(out.depth, 2.25 + 1.05 * 7.5 / 7))


def test_opaque_slab() -> None:
    """A wall at z <= 0.1, seen from the front: opaque, and as far away as it stands."""
    size = 64
    z = (torch.arange(size) + 0.5) / size - 0.5
    planes = torch.zeros(1, 3, 4, size, size)
    planes[:, 1, 0] = 3 * torch.where(z <= 0.1, 1.0, 0.0)[:, None]  # rows of the xz plane are z
    w = DecoderWeights(torch.zeros(2, 4), torch.zeros(2), torch.zeros(4, 2), torch.tensor([-1000.0, 0, 0, 0]))
    w.w0[0, 0], w.w1[0, 0] = 1e4, 1e2  # sigma = 100 softplus(1e4 x) - 1000
    origins, directions = rays.camera_rays(cameras.frontal(), 5)
    options = RenderOptions(depth_resolution=64, depth_resolution_importance=64)
    out = Scene(planes, w, origins, directions).render(options, "reference")
    torch.testing.assert_close(out.opacity, torch.ones(1, 25), rtol=0, atol=1e-4)
    wall = (2.7 - 0.1) / -directions[..., 2]
    assert float((out.depth - wall).abs().max()) < 0.02  # one coarse step is 0.0167


@pytest.mark.parametrize("width", [0.05, 0.1])
def test_gaussian_blob_has_a_closed_form(width: float) -> None:
    """density = A exp(-(t - m)^2 / 2 s^2): opacity = 1 - exp(-A s sqrt(2 pi)); depth of a thin one is m."""
    depths = torch.linspace(2.0, 3.4, 801, dtype=torch.float64)[None, None]
    for strength in (0.01, 3.0):
        density = strength * torch.exp(-((depths - 2.7) ** 2) / (2 * width**2)) + 1e-12
        found = volume.march(torch.rand(1, 1, 801, 2).double(), sigma_of(density)[..., None], depths)
        integral = strength * width * math.sqrt(2 * math.pi)
        assert float(found.opacity) == pytest.approx(1 - math.exp(-integral), rel=5e-4)
        if strength < 0.1:  # optically thin: the mean depth is the centre
            assert float(found.depth) == pytest.approx(2.7, abs=2e-3)


def test_midpoint_rule_converges_quadratically() -> None:
    errors = []
    for samples in (33, 65, 129):
        depths = torch.linspace(2.0, 3.4, samples, dtype=torch.float64)[None, None]
        density = 2 * torch.exp(-((depths - 2.7) ** 2) / 0.02) + 1e-12
        # the mid-point of sigma, not of density, is taken: exact only in the limit
        found = volume.march(torch.zeros(1, 1, samples, 1).double(), sigma_of(density)[..., None], depths)
        errors.append(abs(float(found.opacity) - (1 - math.exp(-2 * 0.1 * math.sqrt(2 * math.pi)))))
    assert errors[0] > 2.5 * errors[1] > 6 * errors[2]


def test_stratified_depths() -> None:
    near, far = torch.full((1, 1), 2.0), torch.full((1, 1), 3.0)
    middle = volume.stratified_depths(near, far, 5)[0, 0]
    torch.testing.assert_close(middle, torch.tensor([2.125, 2.375, 2.625, 2.875, 3.125]))
    zero = volume.stratified_depths(near, far, 5, 0.0)[0, 0]
    assert float(zero[0]) == 2.0
    assert float(zero[-1]) == 3.0
    disparity = volume.stratified_depths(near, far, 5, 0.0, disparity=True)[0, 0]
    torch.testing.assert_close(1 / disparity, torch.linspace(0.5, 1 / 3, 5))


# --- properties ---------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 10_000), samples=st.integers(4, 20), scale=st.floats(0.1, 100))
@settings(max_examples=50, deadline=None)
def test_weights_sum_to_at_most_one(seed: int, samples: int, scale: float) -> None:
    g = torch.Generator().manual_seed(seed)
    depths = torch.rand(1, 4, samples, generator=g).cumsum(-1) + 2
    colours, sigma = (draw(1, 4, samples, n, generator=g) for draw, n in ((torch.rand, 3), (torch.randn, 1)))
    found = volume.march(colours, sigma * scale, depths)
    assert bool((found.weights >= 0).all())
    assert bool((found.opacity <= 1 + 1e-5).all())
    assert bool((found.features <= 1 + 1e-4).all())
    hit = found.opacity > 1e-6
    assert bool((found.depth >= depths[..., 0] - 1e-3)[hit].all())
    assert bool((found.depth <= depths[..., -1] + 1e-3)[hit].all())


@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_permuting_rays_permutes_the_output(seed: int) -> None:
    torch.manual_seed(seed)
    what, order = scene(1), torch.randperm(9)
    permuted = replace(what, origins=what.origins[:, order], directions=what.directions[:, order])
    for left, right in zip(what.render(SHORT, "reference"), permuted.render(SHORT, "reference"), strict=True):
        torch.testing.assert_close(left[:, order], right, rtol=0, atol=1e-12)


@given(seed=st.integers(0, 10_000), seeded=st.booleans())
@settings(max_examples=15, deadline=None)
def test_a_batch_of_one_is_the_first_of_two(seed: int, seeded: bool) -> None:
    """For fixed bounds. Random numbers follow the sample, not the batch (distributed training relies on it);
    only the depth of nearly empty rays looks at its neighbours, through the clamp."""
    torch.manual_seed(seed)
    what = scene(2)
    seeds = torch.tensor([seed, seed + 1]) if seeded else None
    both = what.render(SHORT, "reference", seeds)
    for n in range(2):
        part = slice(n, n + 1)
        alone = Scene(what.planes[part], what.weights, what.origins[part], what.directions[part])
        one = alone.render(SHORT, "reference", None if seeds is None else seeds[part])
        torch.testing.assert_close(one.features, both.features[part], rtol=0, atol=1e-12)
        torch.testing.assert_close(one.opacity, both.opacity[part], rtol=0, atol=1e-12)


def test_seeds_change_the_samples_and_repeat() -> None:
    what, noisy = scene(2), replace(SHORT, density_noise=0.5)
    keys = ([1, 2], [1, 2], [1, 3])
    first, again, other = (what.render(noisy, "auto", torch.tensor(seeds)) for seeds in keys)
    calm = what.render(SHORT, "reference", torch.tensor([1, 2]))
    assert torch.equal(first.features, again.features)
    assert torch.equal(first.features[0], other.features[0])
    assert not torch.equal(first.features[1], other.features[1])
    assert not torch.allclose(first.features, calm.features), "density noise changes nothing"


def test_gradients() -> None:
    """Values and slopes agree; importance samples carry no gradient, so there are none here."""
    options = RenderOptions(depth_resolution=4, depth_resolution_importance=0)
    what = scene(1, 2)
    small = replace(what, planes=what.planes[:, :, :2, :3, :3], weights=decoder(2, 2, 2, torch.float64))
    assert torch.autograd.gradcheck(
        lambda *t: tuple(Scene.of(*t).render(options, "reference")),
        [t.detach().clone().requires_grad_() for t in small.tensors()],
        atol=1e-5,
    )


def test_no_gradient_through_the_importance_samples() -> None:
    depths, w = torch.rand(1, 1, 6).cumsum(-1), torch.rand(1, 1, 5, requires_grad=True)
    assert not volume.importance_depths(depths, w, 4).requires_grad


@pytest.mark.parametrize("shape", [(0, 5), (2, 0), (2, 1), (1, 33)])
def test_edge_sizes(shape: tuple[int, int]) -> None:
    n, r = shape
    origins = torch.tensor([0.0, 0.0, 2.7]).expand(n, r, 3)
    directions = torch.tensor([0.0, 0.0, -1.0]).expand(n, r, 3)
    out = Scene(torch.randn(n, 3, 4, 8, 8), decoder(), origins, directions).render(SHORT, "reference")
    assert out.features.shape == (n, r, 3)
    assert out.depth.shape == out.opacity.shape == (n, r)


def test_bad_input() -> None:
    what = scene(2, dtype=torch.float32)
    for changes, says in (
        ({"planes": what.planes[0]}, "planes must be"),
        ({"origins": what.origins[0], "directions": what.directions[0]}, r"must both be \[N, R, 3\]"),
        ({"directions": what.directions[:, :4]}, r"must both be \[N, R, 3\]"),
        ({"planes": what.planes[:1]}, "one batch size, got 1 and 2"),
    ):
        refuses(says, replace(what, **changes).render, SHORT)
    for seeds in (torch.tensor([1]), torch.tensor([1.0, 2.0]), torch.tensor([1, 2], dtype=torch.int32)):
        refuses(r"seeds must be \[N\] int64", what.render, SHORT, seeds=seeds)


def test_rays_that_are_not_finite_stay_visible() -> None:
    what = scene(1, dtype=torch.float32)
    what.directions[0, 4] = torch.nan
    good = torch.arange(9) != 4
    for options in (SHORT, replace(SHORT, ray_start="auto", ray_end="auto")):
        for value in what.render(options, "reference"):
            assert bool(torch.isfinite(value[0, good]).all()), "one bad ray spoils the others"
            assert bool(torch.isnan(value[0, 4]).all())


def test_rays_that_meet_nothing_have_finite_gradients() -> None:
    depths = torch.linspace(1, 2, 5, requires_grad=True)
    sigma = torch.full((1, 1, 5, 1), -300.0, requires_grad=True)
    found = volume.march(torch.rand(1, 1, 5, 3), sigma, depths.expand(1, 1, 5))
    assert float(found.opacity.detach()) == 0
    assert bool(torch.isinf(found.depth).all())
    volume.clamp_depth(found.depth, depths[:1, None], depths[-1:, None]).sum().backward()
    assert sigma.grad is not None
    assert bool(torch.isfinite(sigma.grad).all())


def test_no_gradient_through_where_sampling_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    what = scene(1)
    options = replace(SHORT, ray_start="auto", ray_end="auto", depth_resolution_importance=0)

    def gradient() -> Tensor:
        leaf = what.origins.detach().requires_grad_()
        result = replace(what, origins=leaf).render(options, "reference")
        return torch.autograd.grad(result.features.sum(), leaf)[0]

    found = gradient()
    constant = rays.ray_bounds(what.origins.detach(), what.directions, options)
    monkeypatch.setattr(volume, "ray_bounds", lambda *_: constant)
    assert torch.equal(found, gradient())
