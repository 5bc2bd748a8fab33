"""The CUDA kernels against the float64 reference on the CPU. Needs a GPU.

Tests of the renderer that are the same on both devices are in test_ops_render.py.
"""

from __future__ import annotations

from dataclasses import replace

import ops_scene
import pytest
import torch
from helpers import refuses
from ops_scene import (
    ODD,
    SEEDS,
    TINY,
    Scene,
    close,
    draw,
    equal,
    fixed_or_random,
    norm,
    one_or_two,
    options,
    points,
    relative,
    scene,
    small,
    values_and_gradients,
)
from torch import Tensor

from head3d_core.config import RenderOptions
from head3d_core.model import filters, planes
from head3d_core.ops.render import render_rays

pytestmark = [pytest.mark.native, pytest.mark.gpu, pytest.mark.usefixtures("kernels")]

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
every_case = pytest.mark.parametrize("changes", ops_scene.CASES, ids=ops_scene.name_of_case)


def on_gpu(what: Scene, dtype: torch.dtype = torch.float32) -> Scene:
    return what.to(dtype, "cuda")


def compare(what: Scene, how: RenderOptions, kind: str, seeds: Tensor | None = None) -> None:
    """Values and gradients on the GPU in "float64", "strict" or "mixed" precision against the reference's."""
    single = on_gpu(what, torch.float64 if kind == "float64" else torch.float32)
    with torch.autocast("cuda", dtype=torch.float16, enabled=kind == "mixed"):
        values, grads = values_and_gradients(single, how, "native", None if seeds is None else seeds.cuda())
    expected, expected_grads = values_and_gradients(what, how, "reference", seeds)
    if kind != "mixed":
        close(values, expected, TIGHT if kind == "float64" else STRICT_VALUE)
        close(grads, expected_grads, TIGHT if kind == "float64" else STRICT_GRADIENT)
        return
    for got, want in zip(values, expected, strict=True):
        assert norm(got, want) < MIXED_VALUE
    for k, (got, want) in enumerate(zip(grads, expected_grads, strict=True)):
        of_rays = k > 4 and how.depth_resolution_importance > 0
        assert norm(got, want) < (MIXED_RAY_GRADIENT if of_rays else MIXED_GRADIENT)


# ---------------------------------------------------------------------------------------- ladder


@every_case
@fixed_or_random
@one_or_two
def test_float64(changes: dict[str, object], seeds: Tensor | None, slices: int) -> None:
    for shape in ({}, ODD):
        compare(scene(rays=5, slices=slices, **shape), options(**changes), "float64", seeds)


@every_case
@fixed_or_random
@one_or_two
def test_strict(changes: dict[str, object], seeds: Tensor | None, slices: int) -> None:
    compare(scene(slices=slices), options(**changes), "strict", seeds)


@every_case
@fixed_or_random
@one_or_two
def test_mixed(changes: dict[str, object], seeds: Tensor | None, slices: int) -> None:
    compare(scene(slices=slices), options(**changes), "mixed", seeds)


@pytest.mark.parametrize("shape", [TINY, ODD], ids=["tiny", "odd"])
@one_or_two
def test_other_decoders_in_float32(shape: dict[str, int], slices: int) -> None:
    compare(scene(slices=slices, **shape), options(), "strict", SEEDS)


@pytest.mark.parametrize("kind", ["strict", "mixed"])
@pytest.mark.parametrize("rays", [0, 1, 31, 32, 33, 36])  # 36: a square, whose rows are rendered in pairs
@one_or_two
def test_edge_sizes(rays: int, kind: str, slices: int) -> None:
    for n in (0, 1, 3):
        compare(scene(n=n, rays=rays, slices=slices), options(), kind)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 1000])
@pytest.mark.parametrize("kind", ["float64", "strict", "mixed", "odd"])
@one_or_two
def test_points(kind: str, count: int, slices: int) -> None:
    what, at = scene(slices=slices, **(ODD if kind == "odd" else {})), points(2, count)
    dtype = torch.float64 if kind == "float64" else torch.float32
    for op in ("sample", "query"):
        with torch.autocast("cuda", dtype=torch.float16, enabled=kind == "mixed"):
            got = ops_scene.point_results(on_gpu(what, dtype), at.to("cuda", dtype), op, "native")
        want = ops_scene.point_results(what, at, op, "reference")
        if kind == "mixed":
            assert max(norm(a, b) for a, b in zip(got, want, strict=True)) < MIXED_GRADIENT
        else:
            close(got, want, TIGHT if kind == "float64" else STRICT_GRADIENT)


# ---------------------------------------------------------------------------------------- sizes, streams, order


@pytest.mark.parametrize("mixed", [False, True], ids=["strict", "mixed"])
def test_slices_reach_only_their_side(mixed: bool) -> None:
    """Samples in front of both slices give xy_back no gradient; NaN in z gives NaN, even beyond the planes' border."""
    what = on_gpu(scene(n=1, rays=8, slices=2))
    origins = torch.rand(1, 8, 3, device="cuda") * 0.6 - 0.3
    origins[..., 2] = 0.5
    leaf = what.planes.clone().requires_grad_()
    lost = torch.tensor([[[0.1, 0.1, torch.nan], [9.0, 9.0, torch.nan]]], device="cuda")
    with torch.autocast("cuda", dtype=torch.float16, enabled=mixed):
        result = replace(what, planes=leaf, origins=origins).render(options(ray_start=0.0, ray_end=0.3))
        assert planes.sample_planes(what.planes, lost, backend="native").isnan().all()
        assert planes.query(what.planes, what.weights, lost, backend="native")[0].isnan().all()
    (gradient,) = torch.autograd.grad(result.features.square().sum(), leaf)
    assert (gradient[:, 3] == 0).all()
    assert all((gradient[:, k] != 0).any() for k in range(3))


def test_too_many_elements_are_refused() -> None:
    huge = torch.empty(1, device="cuda").expand(1, 3, 32, 8192, 8192)
    with pytest.raises(RuntimeError, match=r"less than 2\^31 elements"):
        replace(on_gpu(scene(n=1, rays=1)), planes=huge).render(options())


def test_large_batches_index_beyond_two_to_the_31() -> None:
    """Planes of all images together have 2.4e9 elements; the last image must still be the right one."""
    if torch.cuda.mem_get_info()[0] < 24e9:
        pytest.skip("needs 24 GB of GPU memory")
    what = on_gpu(scene(n=1, rays=4, height=512, width=512))
    p = torch.zeros(96, 3, 32, 512, 512, device="cuda", dtype=torch.float32)
    p[95] = what.planes[0]
    many = Scene(p, what.weights, what.origins.expand(96, -1, -1), what.directions.expand(96, -1, -1))
    assert torch.equal(many.render(options()).features[95], what.render(options()).features[0])


def test_another_stream() -> None:
    what = on_gpu(scene(rays=200))
    want = what.render(options())
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        got = what.render(options())
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
    equal(got, want)


def test_deterministic_algorithms_are_refused() -> None:
    what, _ = small(device="cuda")
    result = replace(what, planes=what.planes.requires_grad_()).render(options())
    torch.use_deterministic_algorithms(True)
    try:
        refuses("in no fixed order", result.features.sum().backward)
    finally:
        torch.use_deterministic_algorithms(False)


# ---------------------------------------------------------------------------------------- filters


RESAMPLINGS = [(1, 1, (2, 2, 2, 2)), (2, 1, (2, 1, 2, 1)), (2, 1, (1, 2, 3, 0)), (1, 2, (1, 1, 1, 1)),
               (1, 2, (2, 0, 3, 1)), (2, 2, (3, 1, 1, 2)), (3, 1, (2, 2, 2, 2))]  # fmt: skip
TYPES = [(torch.float64, 1e-12), (torch.float32, 2e-6), (torch.float16, 2e-3), (torch.bfloat16, 1.2e-2)]
every_type = pytest.mark.parametrize(("dtype", "limit"), TYPES, ids=lambda v: str(v).removeprefix("torch."))
every_layout = pytest.mark.parametrize(
    "layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"]
)


@every_type
@every_layout
@pytest.mark.parametrize("resampling", RESAMPLINGS, ids=str)
def test_upfirdn2d(
    resampling: tuple[int, int, tuple[int, int, int, int]],
    layout: torch.memory_format,
    dtype: torch.dtype,
    limit: float,
) -> None:
    """Values and first derivative, for sizes on both sides of a strip; an asymmetric kernel shows a missed flip."""
    kernel = torch.rand(4, 4, dtype=torch.float64)
    for shape in ((1, 1, 5, 4), (2, 3, 17, 33), (2, 6, 40, 19)):
        x = draw(*shape).to(dtype)
        mine, exact = x.cuda().to(memory_format=layout).requires_grad_(), x.double().requires_grad_()
        got = filters.upfirdn2d(mine, kernel.cuda(), *resampling, 1.5, backend="native")
        want = filters.upfirdn2d(exact, kernel, *resampling, 1.5, backend="reference")
        assert got.dtype == dtype
        grad = draw(*want.shape, seed=1).to(dtype)
        close((got, *torch.autograd.grad(got, mine, grad.cuda())),
              (want, *torch.autograd.grad(want, exact, grad.double())), limit)  # fmt: skip


@every_type
@every_layout
def test_bias_act(dtype: torch.dtype, limit: float, layout: torch.memory_format) -> None:
    for shape in ((2, 3, 5, 7), (2, 8, 4, 4), (3, 16, 9, 9)):
        x, b = draw(*shape).to(dtype), draw(shape[1], seed=1).to(dtype)
        mine = [x.cuda().to(memory_format=layout).requires_grad_(), b.cuda().requires_grad_()]
        exact = [x.double().requires_grad_(), b.double().requires_grad_()]
        got = filters.bias_act(*mine, "lrelu", 0.7, 1.1, backend="native")
        want = filters.bias_act(*exact, "lrelu", 0.7, 1.1, backend="reference")
        assert relative(got, want) < limit
        # Where rounding decides whether a value is clamped, either gradient is right.
        open_end = filters.bias_act(*exact, "lrelu", 0.7, backend="reference")
        clear = (open_end.abs() - 1.1 * 0.7).abs() > 2 * limit
        grad = (draw(*shape, seed=2) * clear).to(dtype)
        close(torch.autograd.grad(got, mine, grad.cuda()),
              torch.autograd.grad(want, exact, grad.double()), 5 * limit)  # fmt: skip


def test_filters_twice_differentiable() -> None:
    """As R1 needs them: gradgradcheck in float64, and what torch asks of an operator."""
    x, bias = draw(1, 2, 5, 6).cuda().requires_grad_(), draw(2, seed=1).cuda().requires_grad_()
    kernel = torch.rand(4, 4, device="cuda", dtype=torch.float64)
    for resampling in RESAMPLINGS[:5]:
        assert torch.autograd.gradgradcheck(
            lambda v, r=resampling: filters.upfirdn2d(v, kernel, *r, backend="native"), (x,)
        )
    assert torch.autograd.gradgradcheck(
        lambda v, b: filters.bias_act(v, b, "lrelu", 1.0, 1.2, backend="native"), (x, bias)
    )
    fir = filters.fir(x.device)
    torch.library.opcheck(torch.ops.head3d.upfirdn2d.default, (x, fir, 2, 1, [2, 1, 2, 1], 4.0, False))
    torch.library.opcheck(torch.ops.head3d.bias_act.default, (x, bias, 1, 1.5, 0.7))
