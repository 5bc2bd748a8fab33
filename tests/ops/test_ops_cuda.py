"""The CUDA kernels against the float64 reference: values, gradients, odd sizes and odd inputs. Needs a GPU."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from head3d_core import ops
from head3d_core.config import RenderOptions, Slices
from head3d_core.model import filters, planes, volume
from head3d_core.model.planes import DecoderWeights
from head3d_core.ops.render import render_rays
from head3d_core.utils.errors import Head3DError

sys.path.insert(0, str(Path(__file__).parents[1]))
from ops_scene import Scene, gradients, options, relative, scene, values_and_gradients

pytestmark = [pytest.mark.native, pytest.mark.gpu]

one_or_two = pytest.mark.parametrize("slices", [1, 2], ids=["one slice", "two slices"])
SEEDS = torch.tensor([5, 123456789012345])
ODD = {"channels": 5, "hidden": 7, "features": 3}
TINY = {"channels": 8, "hidden": 16, "features": 8}

# Float64, plain kernels: rounding alone.
TIGHT = 1e-10
# Strict float32 (TF32 in three products) against float64, largest difference over largest value. The float32 reference
# is as far away: what remains is the rounding of depths and texel coordinates.
STRICT_VALUE, STRICT_GRADIENT = 2e-5, 5e-5
# Mixed precision, ‖difference‖ / ‖expected‖.
MIXED_VALUE, MIXED_GRADIENT = 1e-3, 4e-3
# The gradient of a bilinear reading jumps where a point crosses a texel's centre line. Rounding to half moves a few
# importance samples across one, so gradients of rays (not of planes) differ by that much in scenes of a few dozen rays:
# the float64 reference with planes and weights rounded to half is 5e-3 to 5e-2 away from itself unrounded.
MIXED_RAY_GRADIENT = 0.1


@pytest.fixture(autouse=True)
def _needs_kernels() -> None:
    if not ops.has_cuda():
        pytest.skip("the extension is built without CUDA")


def on_gpu(what: Scene, dtype: torch.dtype = torch.float32) -> Scene:
    p, w0, b0, w1, b1, origins, directions = [t.to("cuda", dtype) for t in what.tensors()]
    return Scene(p, DecoderWeights(w0, b0, w1, b1), origins, directions)


def norm(got: Tensor, expected: Tensor) -> float:
    """‖got - expected‖ / ‖expected‖."""
    if expected.numel() == 0:
        return 0.0 if got.shape == expected.shape else math.inf
    expected = expected.double().cpu()
    return ((got.double().cpu() - expected).norm() / expected.norm().clamp_min(1e-30)).item()


def mixed_limit(index: int, how: RenderOptions) -> float:
    """For result `index` of `both`: features, depth, opacity, then gradients of planes, four weights and the rays."""
    if index < 3:
        return MIXED_VALUE
    return MIXED_RAY_GRADIENT if index > 7 and how.depth_resolution_importance > 0 else MIXED_GRADIENT


def both(
    what: Scene, how: RenderOptions, dtype: torch.dtype, seeds: Tensor | None = None, mixed: bool = False
) -> list[tuple[Tensor, Tensor, bool]]:
    """(CUDA, float64 reference on the CPU, is it a gradient) of every result and gradient."""
    on_device = None if seeds is None else seeds.cuda()
    with torch.autocast("cuda", dtype=torch.float16, enabled=mixed):
        values, grads = values_and_gradients(on_gpu(what, dtype), how, "native", on_device)
    expected, expected_grads = values_and_gradients(what, how, "reference", seeds)
    # With "auto" the reference also moves the bounds; to the kernel they are constants.
    last = 5 if how.ray_start == "auto" else 7
    pairs = [(g.cpu(), e, False) for g, e in zip(values, expected, strict=True)]
    return pairs + [(g.cpu(), e, True) for g, e in zip(grads[:last], expected_grads[:last], strict=True)]


# ---------------------------------------------------------------------------------------- ladder


CASES = [
    {},
    {"axes": "eg3d", "white_back": True},
    {"disparity": True, "ray_start": 1.5},
    {"depth_resolution_importance": 0},
    {"depth_resolution": 8, "depth_resolution_importance": 8},  # 16 samples: the last is a tile's last row
    {"depth_resolution": 4, "depth_resolution_importance": 1},
    {"depth_resolution": 48, "depth_resolution_importance": 48, "white_back": True},
    {"depth_resolution": 17, "depth_resolution_importance": 40},
    {"ray_start": "auto", "ray_end": "auto"},
    {"slice_half_distance": 0.4, "slice_centre": -0.1},
]


def name(changes: dict[str, object]) -> str:
    return "-".join(f"{k[:3]}{k[-5:]}{v}" for k, v in changes.items()) or "default"


@pytest.mark.parametrize("changes", CASES, ids=name)
@pytest.mark.parametrize("seeds", [None, SEEDS], ids=["fixed", "random"])
@one_or_two
def test_float64(changes: dict[str, object], seeds: Tensor | None, slices: int) -> None:
    for shape in ({}, ODD):
        for got, want, _ in both(
            scene(rays=5, slices=slices, **shape), options(**changes), torch.float64, seeds
        ):
            assert relative(got, want) < TIGHT


@pytest.mark.parametrize("changes", CASES, ids=name)
@pytest.mark.parametrize("seeds", [None, SEEDS], ids=["fixed", "random"])
@one_or_two
def test_strict(changes: dict[str, object], seeds: Tensor | None, slices: int) -> None:
    for got, want, is_grad in both(scene(slices=slices), options(**changes), torch.float32, seeds):
        assert relative(got, want) < (STRICT_GRADIENT if is_grad else STRICT_VALUE)


@pytest.mark.parametrize("changes", CASES, ids=name)
@pytest.mark.parametrize("seeds", [None, SEEDS], ids=["fixed", "random"])
@one_or_two
def test_mixed(changes: dict[str, object], seeds: Tensor | None, slices: int) -> None:
    how = options(**changes)
    for i, (got, want, _) in enumerate(both(scene(slices=slices), how, torch.float32, seeds, mixed=True)):
        assert norm(got, want) < mixed_limit(i, how)


@pytest.mark.parametrize("shape", [TINY, ODD], ids=["tiny", "odd"])
@one_or_two
def test_other_decoders_in_float32(shape: dict[str, int], slices: int) -> None:
    for got, want, is_grad in both(scene(slices=slices, **shape), options(), torch.float32, SEEDS):
        assert relative(got, want) < (STRICT_GRADIENT if is_grad else STRICT_VALUE)


@pytest.mark.parametrize("mixed", [False, True], ids=["strict", "mixed"])
@pytest.mark.parametrize("rays", [0, 1, 31, 32, 33, 36])  # 36: a square, whose rows are rendered in pairs
@one_or_two
def test_edge_sizes(rays: int, mixed: bool, slices: int) -> None:
    for n in (0, 1, 3):
        for i, (got, want, is_grad) in enumerate(
            both(scene(n=n, rays=rays, slices=slices), options(), torch.float32, mixed=mixed)
        ):
            assert got.shape == want.shape
            if mixed:
                assert norm(got, want) < mixed_limit(i, options())
            else:
                assert relative(got, want) < (STRICT_GRADIENT if is_grad else STRICT_VALUE)


@one_or_two
def test_opaque_scenes_stop_early_within_the_bound(slices: int) -> None:
    """Behind transmittance 1e-8 (strict) or 1e-5 (mixed) nothing is computed."""
    what = scene(rays=64, density=40.0, slices=slices)
    how = options(depth_resolution=48, depth_resolution_importance=48, white_back=True)
    want = volume.render_rays(
        what.planes, what.weights, what.origins, what.directions, how, backend="reference"
    )
    assert (want.opacity > 0.99).double().mean() > 0.3
    single = on_gpu(what)
    mine = volume.render_rays(
        single.planes, single.weights, single.origins, single.directions, how, backend="reference"
    )
    got = volume.render_rays(
        single.planes, single.weights, single.origins, single.directions, how, backend="native"
    )
    # The hard edges magnify rounding: compare with the float32 reference's own distance.
    error, usual = ((x.features.cpu() - want.features).abs().flatten() for x in (got, mine))
    assert error.median() < 3 * usual.median() + 3e-6
    assert error.quantile(0.99) < 3 * usual.quantile(0.99) + 3e-6


# ---------------------------------------------------------------------------------------- layouts and odd values


@pytest.mark.parametrize(
    "layout", ["channels last", "image channels last", "every other", "one image", "offset"]
)
@one_or_two
def test_strides(layout: str, slices: int) -> None:
    what = on_gpu(scene(n=2, rays=5, slices=slices))
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
    else:  # not on a 16-byte boundary
        flat = torch.empty(p.numel() + 1, device="cuda")
        flat[1:] = p.permute(0, 1, 3, 4, 2).flatten()
        p = flat[1:].view(n, count, h, w, c).permute(0, 1, 4, 2, 3)
    for mixed in (False, True):
        with torch.autocast("cuda", dtype=torch.float16, enabled=mixed):
            for used in (p, p.contiguous()):
                got = volume.render_rays(
                    used, what.weights, what.origins, what.directions, options(), backend="native"
                )
                if used is p:
                    first = got
        for a, b in zip(first, got, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("kind", ["float64", "strict", "mixed"])
@one_or_two
def test_not_finite_rays_give_nan_and_harm_nobody(kind: str, slices: int) -> None:
    dtype = torch.float64 if kind == "float64" else torch.float32
    what = on_gpu(scene(rays=8, slices=slices), dtype)
    with torch.autocast("cuda", dtype=torch.float16, enabled=kind == "mixed"):
        clean = volume.render_rays(
            what.planes, what.weights, what.origins, what.directions, options(), backend="native"
        )
        origins, directions = what.origins.clone(), what.directions.clone()
        origins[0, 3, 1] = torch.nan
        directions[1, 5, 0] = torch.inf
        spoilt = Scene(what.planes, what.weights, origins, directions)
        values, grads = values_and_gradients(spoilt, options(), "native")
    bad = torch.zeros(2, 8, dtype=torch.bool, device="cuda")
    bad[0, 3] = bad[1, 5] = True
    assert values[0][bad].isnan().all()
    assert torch.equal(values[0][~bad], clean.features[~bad])
    assert torch.equal(values[2][~bad], clean.opacity[~bad])
    for grad in grads[:5]:
        assert grad.isfinite().all()


@pytest.mark.parametrize("mixed", [False, True], ids=["strict", "mixed"])
def test_slices_reach_only_their_side(mixed: bool) -> None:
    """Samples in front of both slices give xy_back no gradient; NaN in z gives NaN, even beyond the planes' border."""
    what = on_gpu(scene(n=1, rays=8, slices=2))
    origins = torch.rand(1, 8, 3, device="cuda") * 0.6 - 0.3
    origins[..., 2] = 0.5
    how = options(ray_start=0.0, ray_end=0.3)
    leaf = what.planes.clone().requires_grad_()
    lost = torch.tensor([[[0.1, 0.1, torch.nan], [9.0, 9.0, torch.nan]]], device="cuda")
    with torch.autocast("cuda", dtype=torch.float16, enabled=mixed):
        result = volume.render_rays(leaf, what.weights, origins, what.directions, how, backend="native")
        assert planes.sample_planes(what.planes, lost, backend="native").isnan().all()
        assert planes.query(what.planes, what.weights, lost, backend="native")[0].isnan().all()
    (gradient,) = torch.autograd.grad(result.features.square().sum(), leaf)
    assert (gradient[:, 3] == 0).all()
    assert all((gradient[:, k] != 0).any() for k in range(3))


def test_too_many_elements_are_refused() -> None:
    huge = torch.empty(1, device="cuda").expand(1, 3, 32, 8192, 8192)
    what = on_gpu(scene(n=1, rays=1))
    with pytest.raises(RuntimeError, match=r"less than 2\^31 elements"):
        volume.render_rays(huge, what.weights, what.origins, what.directions, options(), backend="native")


def test_large_batches_index_beyond_two_to_the_31() -> None:
    """Planes of all images together have 2.4e9 elements; the last image must still be the right one."""
    if torch.cuda.mem_get_info()[0] < 24e9:
        pytest.skip("needs 24 GB of GPU memory")
    what = on_gpu(scene(n=1, rays=4, height=512, width=512))
    p = torch.zeros(96, 3, 32, 512, 512, device="cuda", dtype=torch.float32)
    p[95] = what.planes[0]
    rays = (what.origins.expand(96, -1, -1), what.directions.expand(96, -1, -1))
    want = volume.render_rays(
        what.planes, what.weights, what.origins, what.directions, options(), backend="native"
    )
    got = volume.render_rays(p, what.weights, *rays, options(), backend="native")
    assert torch.equal(got.features[95], want.features[0])


def test_another_stream() -> None:
    what = on_gpu(scene(rays=200))
    want = volume.render_rays(
        what.planes, what.weights, what.origins, what.directions, options(), backend="native"
    )
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        got = volume.render_rays(
            what.planes, what.weights, what.origins, what.directions, options(), backend="native"
        )
    stream.synchronize()
    assert torch.equal(got.features, want.features)


def test_graph_capture() -> None:
    """Nothing in the call waits for the GPU or allocates outside PyTorch's pool."""
    what = on_gpu(scene(rays=200))
    near, far = (torch.full_like(what.origins[..., 0], v) for v in (2.25, 3.3))

    def render() -> tuple[Tensor, ...]:
        return render_rays(
            what.planes, what.weights, what.origins, what.directions, near, far, None, options()
        )

    want = render()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = render()
    graph.replay()
    for a, b in zip(got, want, strict=True):
        assert torch.equal(a, b)


# ---------------------------------------------------------------------------------------- points


def points(n: int, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.rand(n, count, 3, generator=generator, dtype=torch.float64) * 1.4 - 0.7  # some outside


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 1000])
@pytest.mark.parametrize("kind", ["float64", "strict", "mixed", "odd"])
@one_or_two
def test_points(kind: str, count: int, slices: int) -> None:
    what, at = scene(slices=slices, **(ODD if kind == "odd" else {})), points(2, count)
    dtype = torch.float64 if kind == "float64" else torch.float32

    def results(op: str, backend: str) -> list[Tensor]:
        device, used_dtype = ("cuda", dtype) if backend == "native" else ("cpu", torch.float64)
        inputs = [t.to(device, used_dtype).requires_grad_() for t in (what.planes, *what.weights, at)]
        used = [inputs[0], inputs[5]] if op == "sample" else inputs
        if op == "sample":
            where = Slices(0.2, -0.1)
            outputs = (planes.sample_planes(*used, "eg3d", 1.1, backend, where),)  # type: ignore[arg-type]
        else:
            outputs = planes.query(inputs[0], DecoderWeights(*inputs[1:5]), inputs[5], backend=backend)  # type: ignore[arg-type]
        generator = torch.Generator().manual_seed(2)
        loss = sum(
            (o * torch.randn(o.shape, generator=generator, dtype=torch.float64).to(o)).sum() for o in outputs
        )
        return [*outputs, *gradients(loss, used)]  # type: ignore[arg-type]

    for op in ("sample", "query"):
        with torch.autocast("cuda", dtype=torch.float16, enabled=kind == "mixed"):
            native = results(op, "native")
        for got, want in zip(native, results(op, "reference"), strict=True):
            assert got.shape == want.shape
            if kind == "mixed":
                assert norm(got, want) < MIXED_GRADIENT
            else:
                assert relative(got.cpu(), want) < (TIGHT if kind == "float64" else STRICT_GRADIENT)


# ---------------------------------------------------------------------------------------- derivatives, registration


def small(slices: int = 1) -> tuple[Scene, Tensor]:
    what = scene(n=1, rays=2, channels=2, hidden=3, features=2, height=4, width=5, slices=slices)
    return on_gpu(what, torch.float64), points(1, 3).cuda()


@one_or_two
def test_gradcheck(slices: int) -> None:
    """Only the first pass: importance samples move under finite differences, but carry no gradient."""
    what, at = small(slices)
    wide = {"slice_half_distance": 0.45}  # so that some points lie between the slices
    how = options(depth_resolution=5, depth_resolution_importance=0, white_back=True, **wide)

    def render(*t: Tensor) -> tuple[Tensor, ...]:
        return tuple(volume.render_rays(t[0], DecoderWeights(*t[1:5]), t[5], t[6], how, backend="native"))

    # Atomics add in any order, so two runs differ in the last bits.
    loose = {"nondet_tol": 1e-10}
    assert torch.autograd.gradcheck(render, [t.requires_grad_() for t in what.tensors()], **loose)
    leaf = at.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda p, x: planes.sample_planes(p, x, backend="native", slices=how.slices),
        (what.planes, leaf),
        **loose,
    )
    assert torch.autograd.gradcheck(
        lambda *t: planes.query(t[0], DecoderWeights(*t[1:5]), t[5], backend="native"),
        (what.planes, *what.weights, leaf),
        **loose,
    )


def test_deterministic_algorithms_are_refused() -> None:
    what, _ = small()
    leaf = what.planes.requires_grad_()
    result = volume.render_rays(
        leaf, what.weights, what.origins, what.directions, options(), backend="native"
    )
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(Head3DError, match="in no fixed order"):
            result.features.sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("where", [(), (0.1, 0.0), (0.3, 0.05)], ids=["one slice", "two slices", "elsewhere"])
def test_opcheck(where: tuple[float, ...]) -> None:
    what, _ = small(2 if where else 1)
    near = torch.full_like(what.origins[..., 0], 2.25)
    seeds = SEEDS[:1].cuda()
    settings = (5, 4, 1, 1.0, False, True, 0)
    leaves = [t.requires_grad_() for t in what.tensors()]
    torch.library.opcheck(
        torch.ops.head3d.render_rays.default,
        (*leaves, near, near + 1, seeds, *settings, *where),
        atol=1e-8,
        rtol=1e-8,
    )
    x = torch.randn(1, 2, 6, 5, device="cuda", dtype=torch.float64, requires_grad=True)
    kernel = filters.fir(x.device)
    torch.library.opcheck(torch.ops.head3d.upfirdn2d.default, (x, kernel, 2, 1, [2, 1, 2, 1], 4.0, False))
    bias = torch.randn(2, device="cuda", dtype=torch.float64, requires_grad=True)
    torch.library.opcheck(torch.ops.head3d.bias_act.default, (x, bias, 1, 1.5, 0.7))


# ---------------------------------------------------------------------------------------- filters


RESAMPLINGS = [(1, 1, (2, 2, 2, 2)), (2, 1, (2, 1, 2, 1)), (2, 1, (1, 2, 3, 0)), (1, 2, (1, 1, 1, 1)),
               (1, 2, (2, 0, 3, 1)), (2, 2, (3, 1, 1, 2)), (3, 1, (2, 2, 2, 2))]  # fmt: skip
TYPES = [(torch.float64, 1e-12), (torch.float32, 2e-6), (torch.float16, 2e-3), (torch.bfloat16, 1.2e-2)]


@pytest.mark.parametrize(("dtype", "limit"), TYPES, ids=lambda v: str(v).removeprefix("torch."))
@pytest.mark.parametrize("last", [False, True], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("resampling", RESAMPLINGS, ids=str)
def test_upfirdn2d(
    resampling: tuple[int, int, tuple[int, int, int, int]], last: bool, dtype: torch.dtype, limit: float
) -> None:
    """Values and first derivative, for sizes on both sides of a strip; an asymmetric kernel shows a missed flip."""
    up, down, padding = resampling
    generator = torch.Generator().manual_seed(3)
    kernel = torch.rand(4, 4, generator=generator, dtype=torch.float64)
    for n, c, h, w in ((1, 1, 5, 4), (2, 3, 17, 33), (2, 6, 40, 19)):
        x = torch.randn(n, c, h, w, generator=generator, dtype=torch.float64).to(dtype)
        layout = torch.channels_last if last else torch.contiguous_format
        mine = x.cuda().to(memory_format=layout).requires_grad_()
        exact = x.double().requires_grad_()
        got = filters.upfirdn2d(mine, kernel.cuda(), up, down, padding, 1.5, backend="native")
        want = filters.upfirdn2d(exact, kernel, up, down, padding, 1.5, backend="reference")
        assert got.dtype == dtype
        assert relative(got.cpu(), want) < limit
        g = torch.randn(want.shape, generator=generator, dtype=torch.float64).to(dtype)
        (got_grad,) = torch.autograd.grad(got, mine, g.cuda())
        (want_grad,) = torch.autograd.grad(want, exact, g.double())
        assert relative(got_grad.cpu(), want_grad) < limit


@pytest.mark.parametrize(("dtype", "limit"), TYPES, ids=lambda v: str(v).removeprefix("torch."))
@pytest.mark.parametrize("last", [False, True], ids=["nchw", "nhwc"])
def test_bias_act(dtype: torch.dtype, limit: float, last: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    for shape in ((2, 3, 5, 7), (2, 8, 4, 4), (3, 16, 9, 9)):
        x = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
        b = torch.randn(shape[1], generator=generator, dtype=torch.float64).to(dtype)
        layout = torch.channels_last if last else torch.contiguous_format
        mine = [x.cuda().to(memory_format=layout).requires_grad_(), b.cuda().requires_grad_()]
        exact = [x.double().requires_grad_(), b.double().requires_grad_()]
        got = filters.bias_act(*mine, "lrelu", 0.7, 1.1, backend="native")
        want = filters.bias_act(*exact, "lrelu", 0.7, 1.1, backend="reference")
        assert relative(got.cpu(), want) < limit
        # Where rounding decides whether a value is clamped, either gradient is right.
        open_end = filters.bias_act(*exact, "lrelu", 0.7, backend="reference")
        clear = (open_end.abs() - 1.1 * 0.7).abs() > 2 * limit
        g = (torch.randn(shape, generator=generator, dtype=torch.float64) * clear).to(dtype)
        for a, e in zip(
            torch.autograd.grad(got, mine, g.cuda()),
            torch.autograd.grad(want, exact, g.double()),
            strict=True,
        ):
            assert relative(a.cpu(), e) < 5 * limit


def test_filters_twice_differentiable() -> None:
    """As R1 needs them: gradgradcheck in float64."""
    x = torch.randn(1, 2, 5, 6, device="cuda", dtype=torch.float64, requires_grad=True)
    bias = torch.randn(2, device="cuda", dtype=torch.float64, requires_grad=True)
    kernel = torch.rand(4, 4, device="cuda", dtype=torch.float64)
    for up, down, padding in RESAMPLINGS[:5]:
        assert torch.autograd.gradgradcheck(
            lambda v, u=up, d=down, p=padding: filters.upfirdn2d(v, kernel, u, d, p, backend="native"), (x,)
        )
    assert torch.autograd.gradgradcheck(
        lambda v, b: filters.bias_act(v, b, "lrelu", 1.0, 1.2, backend="native"), (x, bias)
    )
