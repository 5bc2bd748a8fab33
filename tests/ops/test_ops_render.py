"""The compiled renderer against its reference: the ladder loop -> reference -> kernel, for values and gradients."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from head3d_core import ops
from head3d_core.config import Slices
from head3d_core.model import planes, volume
from head3d_core.model.planes import DecoderWeights
from head3d_core.utils.errors import Head3DError

sys.path.insert(0, str(Path(__file__).parents[1]))
from ops_scene import Scene, gradients, options, relative, render_one_ray, scene, values_and_gradients

native = pytest.mark.native
one_or_two = pytest.mark.parametrize("slices", [1, 2], ids=["one slice", "two slices"])
SEEDS = torch.tensor([5, 123456789012345])
PATHS = ("avx512", "avx2", "scalar")

# Float64 differs by rounding alone: 4.6e-14 at most was measured over the cases below.
TIGHT = 1e-12
# Float32 against float64, relative to the largest value: 4.2e-6 (values) and 1.2e-5 (gradients) were measured over the
# cases below, on the widest path. Three to five times that is allowed.
SINGLE_VALUE, SINGLE_GRADIENT = 2e-5, 4e-5


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each CPU path in turn, as far as this processor has it."""
    monkeypatch.setenv("HEAD3D_CPU_ISA", request.param)
    if request.param in ("avx512", "avx2") and ops.instruction_set() != request.param:
        pytest.skip(f"this processor has no {request.param}")
    return ops.instruction_set()


# ---------------------------------------------------------------------------------------- ladder


@pytest.mark.parametrize("backend", ["reference", pytest.param("native", marks=native)])
@pytest.mark.parametrize("axes", ["eg3d", "xyz"])
@pytest.mark.parametrize("changes", [{}, {"white_back": True}, {"disparity": True, "ray_start": 1.5}])
@one_or_two
def test_ladder_loop(backend: str, axes: str, changes: dict[str, object], slices: int) -> None:
    """Plain Python loops over one ray: the rung that shares no code with the others."""
    what = scene(rays=3, channels=3, hidden=4, features=2, height=5, width=4, slices=slices)
    how = options(depth_resolution=6, depth_resolution_importance=5, axes=axes, slice_centre=0.05, **changes)
    result = volume.render_rays(
        what.planes, what.weights, what.origins, what.directions, how, backend=backend
    )  # type: ignore[arg-type]
    for image, ray in ((0, 0), (0, 2), (1, 1)):
        expected = render_one_ray(what, how, image, ray)
        for got, want in zip(result, expected, strict=True):
            assert relative(got[image, ray], want) < TIGHT


SHAPES = [{}, {"channels": 8, "hidden": 16, "features": 8}, {"channels": 5, "hidden": 7, "features": 3}]


@native
@pytest.mark.parametrize("shape", SHAPES, ids=["paper", "tiny", "odd"])
@pytest.mark.parametrize("seeds", [None, SEEDS], ids=["fixed", "random"])
@one_or_two
def test_ladder_float64(path: str, shape: dict[str, int], seeds: Tensor | None, slices: int) -> None:
    what = scene(rays=9, slices=slices, **shape)
    how = options(white_back=seeds is None)
    values, grads = values_and_gradients(what, how, "native", seeds)
    expected, expected_grads = values_and_gradients(what, how, "reference", seeds)
    for got, want in zip(values + grads, expected + expected_grads, strict=True):
        assert relative(got, want) < TIGHT


@native
@pytest.mark.parametrize("shape", SHAPES, ids=["paper", "tiny", "odd"])
@pytest.mark.parametrize("seeds", [None, SEEDS], ids=["fixed", "random"])
@one_or_two
def test_ladder_float32(path: str, shape: dict[str, int], seeds: Tensor | None, slices: int) -> None:
    what = scene(slices=slices, **shape)
    how = options(white_back=seeds is not None)
    values, grads = values_and_gradients(what.to(torch.float32), how, "native", seeds)
    expected, expected_grads = values_and_gradients(what, how, "reference", seeds)
    for got, want in zip(values, expected, strict=True):
        assert relative(got, want) < SINGLE_VALUE
    for got, want in zip(grads, expected_grads, strict=True):
        assert relative(got, want) < SINGLE_GRADIENT


@native
@pytest.mark.parametrize(
    "changes",
    [
        {"axes": "eg3d"},
        {"disparity": True},
        {"depth_resolution_importance": 0},
        {"depth_resolution": 4, "depth_resolution_importance": 1},
        {"depth_resolution": 48, "depth_resolution_importance": 48, "box_warp": 0.7},
        {"depth_resolution": 17, "depth_resolution_importance": 40},
        {"ray_start": "auto", "ray_end": "auto"},
        {"slice_half_distance": 0.4, "slice_centre": -0.1},
    ],
    ids=lambda c: "-".join(c),
)
@pytest.mark.parametrize("seeds", [None, SEEDS], ids=["fixed", "random"])
@one_or_two
def test_options(changes: dict[str, object], seeds: Tensor | None, slices: int) -> None:
    what = scene(rays=6, channels=8, hidden=16, features=8, slices=slices)
    how = options(**changes)
    values, grads = values_and_gradients(what, how, "native", seeds)
    expected, expected_grads = values_and_gradients(what, how, "reference", seeds)
    for got, want in zip(values, expected, strict=True):
        assert relative(got, want) < TIGHT
    # With "auto" the reference also moves the bounds; to the kernel they are constants.
    last = 5 if how.ray_start == "auto" else 7
    for got, want in zip(grads[:last], expected_grads[:last], strict=True):
        assert relative(got, want) < TIGHT


@native
@pytest.mark.parametrize("rays", [0, 1, 31, 32, 33, 64])
@pytest.mark.parametrize("n", [0, 1, 3])
@one_or_two
def test_edge_sizes(n: int, rays: int, slices: int) -> None:
    """Nothing at all, one ray, ragged groups; 64 = 8 x 8 rays are visited in blocks."""
    what = scene(n=n, rays=rays, channels=8, hidden=16, features=8, slices=slices)
    values, grads = values_and_gradients(what, options(), "native")
    expected, expected_grads = values_and_gradients(what, options(), "reference")
    for got, want in zip(values + grads, expected + expected_grads, strict=True):
        assert got.shape == want.shape
        assert relative(got, want) < TIGHT


@native
def test_large_square_of_rays_keeps_its_order() -> None:
    """16 x 16 rays are visited in 8 x 8 blocks: the picture must not be."""
    what = scene(n=2, rays=256, channels=8, hidden=16, features=3)
    values, _ = values_and_gradients(what, options(), "native")
    expected, _ = values_and_gradients(what, options(), "reference")
    for got, want in zip(values, expected, strict=True):
        assert relative(got, want) < TIGHT


# ---------------------------------------------------------------------------------------- layouts and odd values


@native
@pytest.mark.parametrize(
    "layout", ["channels last", "image channels last", "every other", "one image", "flipped"]
)
@one_or_two
def test_strides(layout: str, slices: int) -> None:
    what = scene(n=2, rays=5, slices=slices).to(torch.float32)
    p = what.planes
    n, count, c, h, w = p.shape
    if layout == "channels last":
        p = p.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    elif layout == "image channels last":  # a convolution's output, seen as three planes
        p = p.reshape(n, -1, h, w).contiguous(memory_format=torch.channels_last).unflatten(1, (count, c))
    elif layout == "every other":
        p = p.repeat_interleave(2, -1)[..., ::2]
    elif layout == "one image":
        p = p[:1].expand(n, -1, -1, -1, -1)
    else:
        p = p.transpose(-1, -2).contiguous().transpose(-1, -2)
    assert layout == "one image" or torch.equal(p, what.planes)
    dense = Scene(p.contiguous(), what.weights, what.origins, what.directions)
    odd = Scene(p, what.weights, what.origins.mT.contiguous().mT, what.directions)
    for got, want in zip(_outputs(odd), _outputs(dense), strict=True):
        assert torch.equal(got, want)


def _outputs(what: Scene) -> list[Tensor]:
    # no clone of the planes in between, which would make them dense
    leaf = what.planes.detach().requires_grad_()
    result = volume.render_rays(
        leaf, what.weights, what.origins, what.directions, options(), backend="native"
    )
    (gradient,) = torch.autograd.grad(result.features.square().sum(), leaf)
    return [*(out.detach() for out in result), gradient]


@native
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@one_or_two
def test_not_finite_rays_give_nan_and_harm_nobody(dtype: torch.dtype, slices: int) -> None:
    what = scene(rays=8, slices=slices).to(dtype)
    clean = volume.render_rays(
        what.planes, what.weights, what.origins, what.directions, options(), backend="native"
    )
    origins, directions = what.origins.clone(), what.directions.clone()
    origins[0, 3, 1] = torch.nan
    directions[1, 5, 0] = torch.inf
    spoilt = Scene(what.planes, what.weights, origins, directions)
    values, grads = values_and_gradients(spoilt, options(), "native")
    bad = torch.zeros(2, 8, dtype=torch.bool)
    bad[0, 3] = bad[1, 5] = True
    assert values[0][bad].isnan().all()
    assert torch.equal(values[0][~bad], clean.features[~bad])
    assert torch.equal(values[2][~bad], clean.opacity[~bad])
    for grad in grads[:5]:
        assert grad.isfinite().all()


@native
def test_points_outside_read_nothing() -> None:
    """Far away, at infinity or nowhere: zero features, and no texel is touched, not even a NaN."""
    what = scene(n=1, channels=8, hidden=16, features=8).to(torch.float32)
    p = torch.full_like(what.planes, torch.nan)
    away = torch.tensor(
        [[[9.0, 9, 9], [1e30, -1e30, 1e30], [torch.inf, -torch.inf, torch.inf], [torch.nan] * 3]]
    )
    assert torch.equal(planes.sample_planes(p, away, backend="native"), torch.zeros(1, 4, 8))
    sigma, colour = planes.query(p, what.weights, away, backend="native")
    nothing = planes.decode(torch.zeros(1, 4, 8), what.weights)
    torch.testing.assert_close((sigma, colour), nothing, rtol=1e-5, atol=1e-5)


@native
@pytest.mark.parametrize("backend", ["reference", "native"])
def test_slices_read_only_what_weighs(backend: str) -> None:
    """Outside the band one slice is read, so NaN in the other does no harm. NaN in z shows."""
    what = scene(n=1, channels=8, hidden=16, features=8, slices=2).to(torch.float32)
    p, blind = what.planes, what.planes.clone()
    blind[:, 3] = torch.nan
    xy = torch.rand(1, 20, 2) * 0.8 - 0.4
    ahead = torch.cat([xy, torch.linspace(0.1, 0.45, 20)[None, :, None]], -1)
    seen = planes.sample_planes(p, ahead, backend=backend)  # type: ignore[arg-type]
    torch.testing.assert_close(seen, planes.sample_planes(p[:, :3], ahead, backend="reference"))
    if backend == "native":  # the reference multiplies what it has read by 0
        assert torch.equal(planes.sample_planes(blind, ahead, backend="native"), seen)
        blind[:, [0, 3]] = blind[:, [3, 0]]
        behind = ahead * torch.tensor([1, 1, -1])
        assert planes.sample_planes(blind, behind, backend="native").isfinite().all()
    lost = torch.tensor([[[0.1, 0.1, torch.nan], [9.0, 9.0, torch.nan]]])
    assert planes.sample_planes(p, lost, backend=backend).isnan().all()  # type: ignore[arg-type]


@native
def test_skipped_colours_stay_below_the_bound() -> None:
    """An opaque scene, where most samples are hidden: float32 leaves their colours out, float64 does not."""
    what = scene(rays=64, density=40.0)
    how = options(depth_resolution=48, depth_resolution_importance=48, white_back=True)
    single = what.to(torch.float32)
    got = volume.render_rays(
        single.planes, single.weights, single.origins, single.directions, how, backend="native"
    )
    want = volume.render_rays(
        what.planes, what.weights, what.origins, what.directions, how, backend="reference"
    )
    mine = volume.render_rays(
        single.planes, single.weights, single.origins, single.directions, how, backend="reference"
    )
    # Hard edges magnify rounding: the float32 reference is 3e-7 away in the median and 5e-6 at the 99th percentile. The
    # kernel may add the bound on what it leaves out, 3e-6.
    error, usual = ((x.features - want.features).abs().flatten() for x in (got, mine))
    assert (want.opacity > 0.99).double().mean() > 0.3
    assert error.median() < 2 * usual.median() + 3e-6
    assert error.quantile(0.99) < 2 * usual.quantile(0.99) + 3e-6


@native
@pytest.mark.parametrize("backend", ["reference", "native"])
def test_constant_planes(backend: str) -> None:
    """Zero planes: one density everywhere, so opacity has a closed form."""
    what = scene(n=1, rays=4, channels=8, hidden=16, features=3)
    how = options()
    zero = torch.zeros_like(what.planes)
    result = volume.render_rays(zero, what.weights, what.origins, what.directions, how, backend=backend)  # type: ignore[arg-type]
    sigma, colour = planes.decode(torch.zeros(8, dtype=torch.float64), what.weights)
    # 12 samples at (i + 0.5) / 11 of [2.25, 3.3] span one unit of that interval.
    opacity = 1 - torch.exp(-torch.nn.functional.softplus(sigma - 1) * 1.05)
    torch.testing.assert_close(result.opacity, opacity.expand(1, 4), rtol=0, atol=1e-8)
    torch.testing.assert_close(result.features, (2 * opacity * colour - 1).expand(1, 4, 3), rtol=0, atol=1e-8)


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

    def render(origins: Tensor, directions: Tensor, seeds: Tensor | None = None) -> volume.RayResult:
        return volume.render_rays(
            what.planes, what.weights, origins, directions, how, seeds=seeds, backend="native"
        )

    result = render(what.origins, what.directions)
    assert (result.opacity >= 0).all()
    assert (result.opacity <= 1 + 1e-5).all()
    assert (result.features >= -1.003).all()
    assert (result.features <= 1.003).all()
    assert (result.depth >= 2.25).all()

    order = torch.randperm(rays)
    permuted = render(what.origins[:, order], what.directions[:, order])
    assert torch.equal(permuted.features, result.features[:, order])
    assert torch.equal(permuted.opacity, result.opacity[:, order])

    seeds = torch.tensor([seed])
    random = render(what.origins, what.directions, seeds)
    expected = volume.render_rays(
        what.planes, what.weights, what.origins, what.directions, how, seeds=seeds, backend="reference"
    )
    torch.testing.assert_close(random.opacity, expected.opacity, rtol=0, atol=1e-4)
    torch.testing.assert_close(random.features, expected.features, rtol=0, atol=1e-3)


@native
def test_one_image_alone_or_in_a_batch() -> None:
    what = scene(n=2, rays=10).to(torch.float32)
    together, _ = values_and_gradients(what, options(), "native", SEEDS)
    alone = Scene(what.planes[1:], what.weights, what.origins[1:], what.directions[1:])
    single, _ = values_and_gradients(alone, options(), "native", SEEDS[1:])
    for both, one in zip(together[::2], single[::2], strict=True):
        assert torch.equal(both[1:], one)


@native
@one_or_two
def test_the_number_of_threads_changes_nothing(slices: int) -> None:
    what = scene(rays=100, slices=slices).to(torch.float32)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = values_and_gradients(what, options(), "native")
        torch.set_num_threads(3)
        three = values_and_gradients(what, options(), "native")
    finally:
        torch.set_num_threads(before)
    for a, b in zip(one[0] + one[1], three[0] + three[1], strict=True):
        assert torch.equal(a, b)


@native
def test_same_seeds_same_picture() -> None:
    """A seed fixes the picture, and another one changes it."""
    what = scene(rays=64).to(torch.float32)
    a, _ = values_and_gradients(what, options(), "native", SEEDS)
    b, _ = values_and_gradients(what, options(), "native", SEEDS)
    c, _ = values_and_gradients(what, options(), "native", SEEDS + 1)
    reference, _ = values_and_gradients(what, options(), "reference", SEEDS)
    assert torch.equal(a[0], b[0])
    assert (a[0] - c[0]).abs().max() > 1e-2
    assert relative(a[0], reference[0]) < SINGLE_VALUE


# ---------------------------------------------------------------------------------------- points


def _points(n: int, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.rand(n, count, 3, generator=generator, dtype=torch.float64) * 1.4 - 0.7  # some outside


@native
@pytest.mark.parametrize("count", [0, 1, 47, 48, 49, 1000])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@one_or_two
def test_points(path: str, count: int, dtype: torch.dtype, slices: int) -> None:
    what, at = scene(channels=8, hidden=16, features=8, slices=slices), _points(2, count)
    tight = TIGHT if dtype == torch.float64 else SINGLE_GRADIENT

    def results(kind: str, backend: str, kind_dtype: torch.dtype) -> list[Tensor]:
        inputs = [t.to(kind_dtype).requires_grad_() for t in (what.planes, *what.weights, at)]
        if kind == "sample":
            used = [inputs[0], inputs[5]]
            where = Slices(0.2, -0.1)
            outputs = (planes.sample_planes(*used, "eg3d", 1.1, backend, where),)  # type: ignore[arg-type]
        else:
            used = inputs
            outputs = planes.query(inputs[0], DecoderWeights(*inputs[1:5]), inputs[5], backend=backend)  # type: ignore[arg-type]
        generator = torch.Generator().manual_seed(2)
        loss = sum(
            (o * torch.randn(o.shape, generator=generator, dtype=torch.float64).to(o)).sum() for o in outputs
        )
        return [*outputs, *gradients(loss, used)]  # type: ignore[arg-type]

    for kind in ("sample", "query"):
        for got, want in zip(
            results(kind, "native", dtype), results(kind, "reference", torch.float64), strict=True
        ):
            assert got.shape == want.shape
            assert relative(got, want) < tight


# ---------------------------------------------------------------------------------------- derivatives, registration


def _small(slices: int = 1) -> tuple[Scene, Tensor]:
    what = scene(n=1, rays=2, channels=2, hidden=3, features=2, height=4, width=5, slices=slices)
    return what, _points(1, 3)


@native
@one_or_two
def test_gradcheck(slices: int) -> None:
    """Importance samples are placed without gradient, so finite differences see them move: only the first pass here."""
    what, at = _small(slices)
    wide = {"slice_half_distance": 0.45}  # so that some points lie between the slices
    how = options(depth_resolution=5, depth_resolution_importance=0, white_back=True, **wide)

    def render(*t: Tensor) -> tuple[Tensor, ...]:
        return tuple(volume.render_rays(t[0], DecoderWeights(*t[1:5]), t[5], t[6], how, backend="native"))

    assert torch.autograd.gradcheck(render, [t.requires_grad_() for t in what.tensors()])
    leaf = at.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda p, x: planes.sample_planes(p, x, backend="native", slices=how.slices), (what.planes, leaf)
    )
    assert torch.autograd.gradcheck(
        lambda *t: planes.query(t[0], DecoderWeights(*t[1:5]), t[5], backend="native"),
        (what.planes, *what.weights, leaf),
    )


@native
@pytest.mark.parametrize("wanted", [(0,), (1, 3), (2,), (5,), (6,), (0, 6)])
@one_or_two
def test_partial_gradients(wanted: tuple[int, ...], slices: int) -> None:
    """Whatever is not asked for changes nothing about what is."""
    what = scene(rays=20, channels=8, hidden=16, features=8, slices=slices)
    _, everything = values_and_gradients(what, options(), "native")
    inputs = [t.clone().requires_grad_(i in wanted) for i, t in enumerate(what.tensors())]
    result = volume.render_rays(
        inputs[0], DecoderWeights(*inputs[1:5]), inputs[5], inputs[6], options(), backend="native"
    )
    generator = torch.Generator().manual_seed(2)
    loss = sum((o * torch.randn(o.shape, generator=generator, dtype=torch.float64)).sum() for o in result)
    for i, got in zip(wanted, torch.autograd.grad(loss, [inputs[i] for i in wanted]), strict=True):  # type: ignore[arg-type]
        torch.testing.assert_close(got, everything[i], rtol=1e-10, atol=1e-10)


@native
def test_second_derivatives_are_refused() -> None:
    what, _ = _small()
    leaf = what.planes.requires_grad_()
    result = volume.render_rays(
        leaf, what.weights, what.origins, what.directions, options(), backend="native"
    )
    (gradient,) = torch.autograd.grad(result.features.square().sum(), leaf, create_graph=True)
    with pytest.raises(Head3DError, match='once only: use backend="reference"'):
        gradient.square().sum().backward()


@native
@pytest.mark.parametrize("name", ["render_rays", "sample_planes", "query_planes"])
@pytest.mark.parametrize("where", [(), (0.1, 0.0), (0.3, 0.05)], ids=["one slice", "two slices", "elsewhere"])
def test_opcheck(name: str, where: tuple[float, ...]) -> None:
    """(0.1, 0.0) are the arguments' defaults, which the dispatcher leaves out on its way."""
    what, at = _small(2 if where else 1)
    tensors = [t.requires_grad_() for t in what.tensors()]
    bounds = torch.full((1, 2), 2.25, dtype=torch.float64), torch.full((1, 2), 3.3, dtype=torch.float64)
    arguments = {
        "render_rays": (*tensors, *bounds, torch.tensor([7]), 5, 4, 1, 1.0, False, True, 0, *where),
        "sample_planes": (tensors[0], at.requires_grad_(), 0, 1.0, *where),
        "query_planes": (*tensors[:5], at, 1, 1.0, 0, *where),
    }
    assert ops.available()
    torch.library.opcheck(getattr(torch.ops.head3d, name).default, arguments[name])


@native
@pytest.mark.parametrize("where", [(), (0.3, 0.05)], ids=["one slice", "two slices"])
def test_opcheck_backward(where: tuple[float, ...]) -> None:
    what, _ = _small(2 if where else 1)
    bounds = torch.full((1, 2), 2.25, dtype=torch.float64), torch.full((1, 2), 3.3, dtype=torch.float64)
    inputs = (*what.tensors(), *bounds, None, 5, 4, 1, 1.0, False, True, 0)
    assert ops.available()
    outputs = torch.ops.head3d.render_rays(*inputs, *where)
    ones = [torch.ones_like(o) for o in outputs]
    for needs in ((True, True, True), (False, True, False)):
        torch.library.opcheck(
            torch.ops.head3d.render_rays_backward.default, (*inputs, *outputs, *ones, *needs, *where)
        )


@native
@one_or_two
def test_compile(slices: int) -> None:
    """One graph, forward and backward, without a break."""
    what = scene(n=1, rays=4, channels=4, hidden=4, features=3, slices=slices).to(torch.float32)
    how = options()

    def loss(p: Tensor) -> Tensor:
        return volume.render_rays(
            p, what.weights, what.origins, what.directions, how, backend="native"
        ).features.sum()

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    grads = []
    for function in (loss, compiled):
        leaf = what.planes.clone().requires_grad_()
        grads.append(torch.autograd.grad(function(leaf), leaf)[0])
    assert torch.equal(*grads)


@native
def test_autocast_renders_in_float32() -> None:
    what = scene(n=1, rays=4).to(torch.float32)
    plain = volume.render_rays(
        what.planes, what.weights, what.origins, what.directions, options(), backend="native"
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = volume.render_rays(
            what.planes, what.weights, what.origins, what.directions, options(), backend="native"
        )
    assert cast.features.dtype == torch.float32
    assert torch.equal(cast.features, plain.features)


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
    arguments: dict[str, object] = {
        "planes": torch.zeros(1, 3, 4, 4, 4),
        "w0": torch.zeros(8, 4),
        "b0": torch.zeros(8),
        "w1": torch.zeros(4, 8),
        "b1": torch.zeros(4),
        "origins": torch.zeros(1, 2, 3),
        "directions": torch.ones(1, 2, 3),
        "near": torch.zeros(1, 2),
        "far": torch.ones(1, 2),
        "seeds": None,
        "samples": 4,
    }
    arguments.update(change)
    assert ops.available()
    with pytest.raises(RuntimeError, match=message):
        torch.ops.head3d.render_rays(*arguments.values(), 0, 1, 1.0, False, False, 0)
