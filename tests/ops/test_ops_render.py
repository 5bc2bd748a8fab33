"""The compiled renderer against its reference: the ladder loop -> reference -> kernel, for values and gradients.

What CUDA adds (precisions, streams, graphs) is in test_ops_cuda.py.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import ops_scene
import plain
import pytest
import torch
from helpers import refuses
from hypothesis import given, settings
from hypothesis import strategies as st
from ops_scene import (
    SEEDS,
    TINY,
    Scene,
    compare,
    compare_points,
    equal,
    every_kind,
    fixed_or_random,
    gradients,
    native,
    one_or_two,
    options,
    points,
    rays_arguments,
    relative,
    scene,
    small,
    values_and_gradients,
    weighted_sum,
)
from torch import Tensor

from head3d_core import ops
from head3d_core.config import Backend
from head3d_core.model import planes, volume
from head3d_core.model.planes import DecoderWeights

# ---------------------------------------------------------------------------------------- ladder


@native
@pytest.mark.parametrize("axes", ["eg3d", "xyz"])
@pytest.mark.parametrize("changes", [{}, {"white_back": True}, {"disparity": True, "ray_start": 1.5}])
@one_or_two
def test_ladder_loop(axes: str, changes: dict[str, object], slices: int) -> None:
    """Plain loops over one ray: the rung that shares no code with the others (model/test_volume.py: the reference)."""
    what = scene(rays=3, channels=3, hidden=4, features=2, height=5, width=4, slices=slices)
    how = options(depth_resolution=6, depth_resolution_importance=5, axes=axes, slice_centre=0.05, **changes)
    features, depth, opacity = what.render(how)
    near, far = float(how.ray_start), float(how.ray_end)
    for image, ray in ((0, 0), (0, 2), (1, 1)):
        place = (plain.f64(t[image, ray]) for t in (what.origins, what.directions))
        expected = plain.render_ray(plain.f64(what.planes[image]), what.weights, *place, near, far, how)
        np.testing.assert_allclose(plain.f64(features[image, ray]), expected[0], rtol=0, atol=1e-12)
        assert float(depth[image, ray]) == pytest.approx(expected[1], rel=1e-12)
        assert float(opacity[image, ray]) == pytest.approx(expected[2], rel=1e-12)


@native
@pytest.mark.usefixtures("cpu_path")
@pytest.mark.parametrize(("kind", "rays"), [("float64", 9), ("float32", 33)])
@pytest.mark.parametrize("shape", [{}, TINY, ops_scene.ODD], ids=["paper", "tiny", "odd"])
@fixed_or_random
@one_or_two
def test_kernels_follow_the_reference(
    kind: str, rays: int, shape: dict[str, int], seeds: Tensor | None, slices: int
) -> None:
    how = options(white_back=(seeds is None) == (kind == "float64"))
    compare(scene(rays=rays, slices=slices, **shape), how, kind, seeds)


@native
@pytest.mark.parametrize("changes", [*ops_scene.CASES, {"box_warp": 0.7}], ids=ops_scene.name_of_case)
@fixed_or_random
@one_or_two
def test_options(changes: dict[str, object], seeds: Tensor | None, slices: int) -> None:
    compare(scene(rays=6, slices=slices, **TINY), options(**changes), "float64", seeds)


@native
@pytest.mark.parametrize("rays", [0, 1, 31, 32, 33, 64, 256])
@pytest.mark.parametrize("n", [0, 1, 3])
@one_or_two
def test_edge_sizes(n: int, rays: int, slices: int) -> None:
    """Nothing at all, one ray, ragged groups; 64 and 256 are squares of rays, which are visited in blocks of 8 x 8."""
    compare(scene(n=n, rays=rays, slices=slices, **TINY), options(), "float64")


# ---------------------------------------------------------------------------------------- layouts and odd values


@native
@pytest.mark.parametrize("layout", ops_scene.LAYOUTS)
@one_or_two
def test_strides(device: str, layout: str, slices: int) -> None:
    """Planes and rays are read where they are, in full and in mixed precision."""
    dense = scene(n=2, rays=5, slices=slices).to(torch.float32, device)
    odd = replace(
        dense, planes=ops_scene.in_layout(dense.planes, layout), origins=dense.origins.mT.contiguous().mT
    )
    assert layout == "one image" or torch.equal(odd.planes, dense.planes)
    dense = replace(dense, planes=odd.planes.contiguous())
    for mixed in (False, True) if device == "cuda" else (False,):
        with torch.autocast("cuda", dtype=torch.float16, enabled=mixed):
            equal(odd.render(options()), dense.render(options()))
    if device == "cpu":  # on a GPU the order of sums differs from run to run
        equal(*(_gradient_of_planes(what) for what in (odd, dense)))


def _gradient_of_planes(what: Scene) -> list[Tensor]:
    leaf = what.planes.detach().requires_grad_()  # not cloned, which would make it dense
    return gradients(replace(what, planes=leaf).render(options()).features.square().sum(), [leaf])


@native
@every_kind
@one_or_two
def test_not_finite_rays_give_nan_and_harm_nobody(device: str, kind: str, slices: int) -> None:
    what = scene(rays=8, slices=slices).to(torch.float64 if kind == "float64" else torch.float32, device)
    spoilt, bad = what.with_bad_rays()
    with torch.autocast(device, dtype=torch.bfloat16, enabled=kind == "mixed"):
        clean = what.render(options())
        (features, _, opacity), grads = values_and_gradients(spoilt, options())
    assert features[bad].isnan().all()
    equal((features[~bad], opacity[~bad]), (clean.features[~bad], clean.opacity[~bad]))
    assert all(grad.isfinite().all() for grad in grads[:5])


@native
def test_points_outside_read_nothing() -> None:
    """Far away, at infinity or nowhere: zero features, and no texel is touched, not even a NaN."""
    what = scene(n=1, **TINY).to(torch.float32)
    p = torch.full_like(what.planes, torch.nan)
    far, never = [torch.inf, -torch.inf, torch.inf], [torch.nan] * 3
    away = torch.tensor([[[9.0, 9, 9], [1e30, -1e30, 1e30], far, never]])
    assert torch.equal(planes.sample_planes(p, away, backend="native"), torch.zeros(1, 4, 8))
    sigma, colour = planes.query(p, what.weights, away, backend="native")
    nothing = planes.decode(torch.zeros(1, 4, 8), what.weights)
    torch.testing.assert_close((sigma, colour), nothing, rtol=1e-5, atol=1e-5)


@native
@pytest.mark.parametrize("backend", ["reference", "native"])
def test_slices_read_only_what_weighs(backend: Backend) -> None:
    """Outside the band one slice is read, so NaN in the other does no harm. NaN in z shows."""
    p = scene(n=1, slices=2, **TINY).planes.float()
    blind = p.clone()
    blind[:, 3] = torch.nan
    xy = torch.rand(1, 20, 2) * 0.8 - 0.4
    ahead = torch.cat([xy, torch.linspace(0.1, 0.45, 20)[None, :, None]], -1)
    seen = planes.sample_planes(p, ahead, backend=backend)
    torch.testing.assert_close(seen, planes.sample_planes(p[:, :3], ahead, backend="reference"))
    if backend == "native":  # the reference multiplies what it has read by 0
        assert torch.equal(planes.sample_planes(blind, ahead, backend="native"), seen)
        blind[:, [0, 3]] = blind[:, [3, 0]]
        behind = ahead * torch.tensor([1, 1, -1])
        assert planes.sample_planes(blind, behind, backend="native").isfinite().all()
    lost = torch.tensor([[[0.1, 0.1, torch.nan], [9.0, 9.0, torch.nan]]])
    assert planes.sample_planes(p, lost, backend=backend).isnan().all()


@native
@one_or_two
def test_skipped_colours_stay_below_the_bound(device: str, slices: int) -> None:
    """An opaque scene, where most samples are hidden: float32 leaves their colours out, float64 does not.

    On a GPU nothing is computed behind a transmittance of 1e-8.
    """
    what = scene(rays=64, density=40.0, slices=slices)
    how = options(depth_resolution=48, depth_resolution_importance=48, white_back=True)
    want, single = what.render(how, "reference"), what.to(torch.float32, device)
    # Hard edges magnify rounding: the float32 reference is 3e-7 away in the median and 5e-6 at the 99th percentile. The
    # kernel may add the bound on what it leaves out, 3e-6.
    error, usual = (
        (single.render(how, backend).features.cpu() - want.features).abs().flatten()
        for backend in ("native", "reference")
    )
    factor = 2 if device == "cpu" else 3
    assert (want.opacity > 0.99).double().mean() > 0.3
    assert error.median() < factor * usual.median() + 3e-6
    assert error.quantile(0.99) < factor * usual.quantile(0.99) + 3e-6


# ---------------------------------------------------------------------------------------- properties


@native
@settings(max_examples=20, deadline=None)
@given(
    rays=st.integers(1, 40),
    samples=st.integers(4, 20),
    fine=st.integers(0, 20),
    density=st.floats(0.1, 30),
    seed=st.integers(-(2**63), 2**63 - 1),
)
def test_properties(rays: int, samples: int, fine: int, density: float, seed: int) -> None:
    what = scene(n=1, rays=rays, channels=4, hidden=8, features=3, density=density).to(torch.float32)
    how = options(depth_resolution=samples, depth_resolution_importance=fine)
    result = what.render(how)
    assert (result.opacity >= 0).all()
    assert (result.opacity <= 1 + 1e-5).all()
    assert (result.features.abs() <= 1.003).all()
    assert (result.depth >= 2.25).all()

    order = torch.randperm(rays)
    permuted = replace(what, origins=what.origins[:, order], directions=what.directions[:, order]).render(how)
    equal((permuted.features, permuted.opacity), (result.features[:, order], result.opacity[:, order]))

    key = torch.tensor([seed])
    random, expected = (what.render(how, backend, key) for backend in ("native", "reference"))
    torch.testing.assert_close(random.opacity, expected.opacity, rtol=0, atol=1e-4)
    torch.testing.assert_close(random.features, expected.features, rtol=0, atol=1e-3)


@native
def test_one_image_alone_or_in_a_batch() -> None:
    what = scene(n=2, rays=10).to(torch.float32)
    together = what.render(options(), seeds=SEEDS)
    alone = Scene(what.planes[1:], what.weights, what.origins[1:], what.directions[1:])
    single = alone.render(options(), seeds=SEEDS[1:])
    equal((single.features, single.opacity), (together.features[1:], together.opacity[1:]))


@native
@one_or_two
def test_the_number_of_threads_changes_nothing(slices: int) -> None:
    what = scene(rays=100, slices=slices).to(torch.float32)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            values, grads = values_and_gradients(what, options())
            results.append(values + grads)
    finally:
        torch.set_num_threads(before)
    equal(*results)


@native
def test_same_seeds_same_image() -> None:
    """A seed fixes the image, and another one changes it."""
    what = scene(rays=64).to(torch.float32)
    a, b, c = (what.render(options(), seeds=seeds).features for seeds in (SEEDS, SEEDS, SEEDS + 1))
    assert torch.equal(a, b)
    assert (a - c).abs().max() > 1e-2
    assert relative(a, what.render(options(), "reference", SEEDS).features) < 2e-5


# ---------------------------------------------------------------------------------------- points


@native
@pytest.mark.usefixtures("cpu_path")
@pytest.mark.parametrize("count", [0, 1, 47, 48, 49, 1000])
@pytest.mark.parametrize("kind", ["float64", "float32"])
@one_or_two
def test_points(count: int, kind: str, slices: int) -> None:
    compare_points(scene(slices=slices, **TINY), points(2, count), kind)


# ---------------------------------------------------------------------------------------- derivatives, registration


@native
@one_or_two
def test_gradcheck(device: str, slices: int) -> None:
    """Importance samples are placed without gradient, so finite differences see them move: only the first pass here."""
    what, at = small(slices, device)
    # So far apart that some points lie between the slices.
    one_pass = {"depth_resolution": 5, "depth_resolution_importance": 0}
    how = options(**one_pass, white_back=True, slice_half_distance=0.45)
    leaf = at.requires_grad_()
    for function, inputs in (
        (lambda *t: tuple(Scene.of(*t).render(how)), [t.requires_grad_() for t in what.tensors()]),
        (lambda p, x: planes.sample_planes(p, x, backend="native", slices=how.slices), [what.planes, leaf]),
        (
            lambda *t: planes.query(t[0], DecoderWeights(*t[1:5]), t[5], backend="native"),
            [what.planes, *what.weights, leaf],
        ),
    ):  # on a GPU atomics add in any order, so two runs differ in the last bits
        assert torch.autograd.gradcheck(function, inputs, nondet_tol=0 if device == "cpu" else 1e-10)


@native
@pytest.mark.parametrize("wanted", [(0,), (1, 3), (2,), (5,), (6,), (0, 6)])
@one_or_two
def test_partial_gradients(wanted: tuple[int, ...], slices: int) -> None:
    """Whatever is not asked for changes nothing about what is."""
    what = scene(rays=20, slices=slices, **TINY)
    _, everything = values_and_gradients(what, options())
    inputs = [t.clone().requires_grad_(i in wanted) for i, t in enumerate(what.tensors())]
    loss = weighted_sum(Scene.of(*inputs).render(options()))
    for i, got in zip(wanted, torch.autograd.grad(loss, [inputs[i] for i in wanted]), strict=True):
        torch.testing.assert_close(got, everything[i], rtol=1e-10, atol=1e-10)


@native
def test_second_derivatives_are_refused() -> None:
    what, _ = small()
    leaf = what.planes.requires_grad_()
    (gradient,) = torch.autograd.grad(what.render(options()).features.square().sum(), leaf, create_graph=True)
    refuses('once only: use backend="reference"', gradient.square().sum().backward)


@native
@pytest.mark.parametrize("name", ["render_rays", "sample_planes", "query_planes"])
@pytest.mark.parametrize("where", [(), (0.1, 0.0), (0.3, 0.05)], ids=["one slice", "two slices", "elsewhere"])
def test_opcheck(device: str, name: str, where: tuple[float, ...]) -> None:
    """(0.1, 0.0) are the arguments' defaults, which the dispatcher leaves out on its way."""
    what, at = small(2 if where else 1, device)
    tensors = [t.requires_grad_() for t in what.tensors()]
    arguments = {
        "render_rays": rays_arguments(what, torch.tensor([7], device=device), *where),
        "sample_planes": (tensors[0], at.requires_grad_(), 0, 1.0, *where),
        "query_planes": (*tensors[:5], at, 1, 1.0, 0, *where),
    }
    assert ops.available()
    operator = getattr(torch.ops.head3d, name).default
    torch.library.opcheck(operator, arguments[name], atol=1e-8, rtol=1e-8)


@native
@one_or_two
@fixed_or_random
def test_kept_depths_are_the_references(
    device: str, slices: int, seeds: Tensor | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stratified and importance samples in order, where the caller asks for them; the backward pass needs them."""
    what, _ = small(slices, device)
    seeds = None if seeds is None else seeds[:1].to(device)
    how = options(depth_resolution=5, depth_resolution_importance=4, axes="xyz", ray_start=2.25, ray_end=3.25)
    marched: list[Tensor] = []

    def march(features: Tensor, sigma: Tensor, depths: Tensor, white_back: bool) -> volume.March:
        marched.append(depths)
        return original(features, sigma, depths, white_back)

    original = volume.march
    monkeypatch.setattr(volume, "march", march)
    what.render(how, "reference", seeds)
    *arguments, _ = rays_arguments(what, seeds)
    *outputs, kept = torch.ops.head3d.render_rays(*arguments, True)
    torch.testing.assert_close(kept, marched[-1], rtol=1e-10, atol=1e-10)
    *_, nothing = torch.ops.head3d.render_rays(*arguments, False)
    assert nothing.numel() == 0
    incoming = [torch.ones_like(o) for o in outputs]
    with pytest.raises(
        RuntimeError, match=r"depths must be \[N, R, samples \+ fine_samples\] = \[1, 2, 9\] as render_rays"
    ):
        torch.ops.head3d.render_rays_backward(*arguments, *outputs, nothing, *incoming, True, True, True)


@native
@pytest.mark.parametrize("where", [(), (0.3, 0.05)], ids=["one slice", "two slices"])
def test_opcheck_backward(where: tuple[float, ...]) -> None:
    assert ops.available()
    *arguments, keep_depths = rays_arguments(small(2 if where else 1)[0], None)
    outputs = torch.ops.head3d.render_rays(*arguments, keep_depths, *where)
    incoming = [torch.ones_like(o) for o in outputs[:3]]
    for needs in ((True, True, True), (False, True, False)):
        torch.library.opcheck(
            torch.ops.head3d.render_rays_backward.default, (*arguments, *outputs, *incoming, *needs, *where)
        )


@native
@one_or_two
def test_compile(slices: int) -> None:
    """One graph, forward and backward, without a break."""
    what = scene(n=1, rays=4, channels=4, hidden=4, features=3, slices=slices).to(torch.float32)
    how = options()

    def loss(p: Tensor) -> Tensor:
        return replace(what, planes=p).render(how).features.sum()

    grads = []
    for function in (loss, torch.compile(loss, backend="aot_eager", fullgraph=True)):
        leaf = what.planes.clone().requires_grad_()
        grads += gradients(function(leaf), [leaf])
    assert torch.equal(*grads)


@native
def test_autocast_renders_in_float32() -> None:
    what = scene(n=1, rays=4).to(torch.float32)
    plainly = what.render(options())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = what.render(options())
    assert cast.features.dtype == torch.float32
    assert torch.equal(cast.features, plainly.features)


@native
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"planes": torch.zeros(1, 2, 4, 4, 4)},
            r"planes must be \[N, 3, C, H, W\] or, with two slices, .*, got \[1, 2, 4, 4, 4\]",
        ),
        ({"w0": torch.zeros(8, 5)}, r"w0 must be \[hidden, C\] with C = 4 as in planes, got \[8, 5\]"),
        ({"b1": torch.zeros(3)}, r"b1 must be \[1 \+ features\] = \[4\], got \[3\]"),
        ({"near": torch.zeros(1, 3)}, r"near must be \[N, R\] = \[1, 2\], got \[1, 3\]"),
        ({"far": torch.zeros(1, 2, dtype=torch.float64)}, "far must have the type of planes"),
        ({"seeds": torch.zeros(2, dtype=torch.int64)}, r"seeds must be \[N\] int64"),
        ({"samples": 3}, "samples must be 4 to 4096, got 3"),
    ],
    ids=lambda c: next(iter(c)) if isinstance(c, dict) else "",
)
def test_wrong_inputs_are_told_in_one_sentence(change: dict[str, object], message: str) -> None:
    shapes = {"planes": (1, 3, 4, 4, 4), "w0": (8, 4), "b0": 8, "w1": (4, 8), "b1": 4, "origins": (1, 2, 3)}
    shapes |= {"directions": (1, 2, 3), "near": (1, 2), "far": (1, 2)}
    arguments = {name: torch.zeros(shape) for name, shape in shapes.items()}
    arguments |= {"seeds": None, "samples": 4, **change}
    assert ops.available()
    with pytest.raises(RuntimeError, match=message):
        torch.ops.head3d.render_rays(*arguments.values(), 0, 1, 1.0, False, False, 0, False)
