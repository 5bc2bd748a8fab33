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
    compare,
    compare_points,
    equal,
    every_kind,
    fixed_or_random,
    one_or_two,
    options,
    points,
    scene,
    small,
)
from torch import Tensor

from head3d_core.model import planes
from head3d_core.ops.render import render_rays

pytestmark = [pytest.mark.native, pytest.mark.gpu, pytest.mark.usefixtures("kernels")]


def on_gpu(what: Scene) -> Scene:
    return what.to(torch.float32, "cuda")


# ---------------------------------------------------------------------------------------- ladder


@every_kind
@pytest.mark.parametrize("changes", ops_scene.CASES, ids=ops_scene.name_of_case)
@fixed_or_random
@one_or_two
def test_options_on_a_gpu(kind: str, changes: dict[str, object], seeds: Tensor | None, slices: int) -> None:
    for shape in ({"rays": 5}, {"rays": 5, **ODD}) if kind == "float64" else ({},):
        compare(scene(slices=slices, **shape), options(**changes), kind, seeds, "cuda")


@pytest.mark.parametrize("shape", [TINY, ODD], ids=["tiny", "odd"])
@one_or_two
def test_other_decoders_in_float32(shape: dict[str, int], slices: int) -> None:
    compare(scene(slices=slices, **shape), options(), "float32", SEEDS, "cuda")


@pytest.mark.parametrize("kind", ["float32", "mixed"])
@pytest.mark.parametrize("rays", [0, 1, 31, 32, 33, 36])  # 36: a square, whose rows are rendered in pairs
@one_or_two
def test_edge_sizes_on_a_gpu(rays: int, kind: str, slices: int) -> None:
    for n in (0, 1, 3):
        compare(scene(n=n, rays=rays, slices=slices), options(), kind, None, "cuda")


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 1000])
@pytest.mark.parametrize(
    ("kind", "shape"), [("float64", {}), ("float32", {}), ("mixed", {}), ("float32", ODD)]
)
@one_or_two
def test_points_on_a_gpu(kind: str, shape: dict[str, int], count: int, slices: int) -> None:
    compare_points(scene(slices=slices, **shape), points(2, count), kind, "cuda")


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
