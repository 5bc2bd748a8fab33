"""Scenes and comparisons for the tests of the compiled operators."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from head3d_core.config import Backend, RenderOptions, Slices
from head3d_core.model import planes, volume
from head3d_core.model.planes import DecoderWeights
from head3d_core.model.volume import RayResult

SEEDS = torch.tensor([5, 123456789012345])
TINY = {"channels": 8, "hidden": 16, "features": 8}
ODD = {"channels": 5, "hidden": 7, "features": 3}
native = pytest.mark.native
every_kind = pytest.mark.parametrize("kind", ["float64", "float32", "mixed"])
one_or_two = pytest.mark.parametrize("slices", [1, 2], ids=["one slice", "two slices"])
fixed_or_random = pytest.mark.parametrize("seeds", [None, SEEDS], ids=["fixed", "random"])


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers, float64, the same for the same seed."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def relative(got: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest expected magnitude."""
    if expected.numel() == 0:
        return 0.0 if got.shape == expected.shape else math.inf
    assert got.shape == expected.shape
    expected = expected.double().cpu()
    return (got.double().cpu() - expected).abs().max().item() / (expected.abs().max().item() or 1.0)


def norm(got: Tensor, expected: Tensor) -> float:
    """‖got - expected‖ / ‖expected‖."""
    if expected.numel() == 0:
        return 0.0 if got.shape == expected.shape else math.inf
    expected = expected.double().cpu()
    return ((got.double().cpu() - expected).norm() / expected.norm().clamp_min(1e-30)).item()


def close(got: Iterable[Tensor], expected: Iterable[Tensor], limit: float) -> None:
    """Asserts that each tensor differs by less than `limit`, see `relative`."""
    for k, (a, b) in enumerate(zip(got, expected, strict=True)):
        assert relative(a, b) < limit, f"result {k}"


def equal(got: Iterable[Tensor], expected: Iterable[Tensor]) -> None:
    """Asserts that all tensors are equal bit for bit."""
    for k, (a, b) in enumerate(zip(got, expected, strict=True)):
        assert torch.equal(a, b), f"result {k}"


def weighted_sum(outputs: Iterable[Tensor]) -> Tensor:
    """A loss with a random gradient for each output, always the same one."""
    generator = torch.Generator().manual_seed(2)
    draws = (torch.randn(o.shape, generator=generator, dtype=torch.float64).to(o) * o for o in outputs)
    return sum((d.sum() for d in draws), torch.zeros(()))


def gradients(loss: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    """d loss / d inputs; zeros where nothing depends on them."""
    if not loss.requires_grad:
        return [torch.zeros_like(t) for t in inputs]
    return list(torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True))


@dataclass
class Scene:
    """Planes, a decoder and rays, all random but repeatable."""

    planes: Tensor
    weights: DecoderWeights
    origins: Tensor
    directions: Tensor

    def tensors(self) -> list[Tensor]:
        return [self.planes, *self.weights, self.origins, self.directions]

    @staticmethod
    def of(planes: Tensor, w0: Tensor, b0: Tensor, w1: Tensor, b1: Tensor, *rays: Tensor) -> Scene:
        """Inverse of `tensors`."""
        return Scene(planes, DecoderWeights(w0, b0, w1, b1), *rays)

    def to(self, dtype: torch.dtype, device: str = "cpu") -> Scene:
        return Scene.of(*(t.to(device, dtype) for t in self.tensors()))

    def render(
        self, how: RenderOptions, backend: Backend = "native", seeds: Tensor | None = None
    ) -> RayResult:
        return volume.render_rays(
            self.planes, self.weights, self.origins, self.directions, how, seeds=seeds, backend=backend
        )

    def with_bad_rays(self) -> tuple[Scene, Tensor]:
        """Two of the rays not finite, and which these are, bool [N, R]; needs 2 images and 6 rays."""
        origins, directions = self.origins.clone(), self.directions.clone()
        origins[0, 3, 1], directions[1, 5, 0] = torch.nan, torch.inf
        bad = torch.zeros(origins.shape[:2], dtype=torch.bool, device=origins.device)
        bad[0, 3] = bad[1, 5] = True
        return replace(self, origins=origins, directions=directions), bad


def scene(
    n: int = 2,
    rays: int = 33,
    channels: int = 32,
    hidden: int = 64,
    features: int = 32,
    height: int = 24,
    width: int = 20,
    density: float = 2.0,
    slices: int = 1,
) -> Scene:
    """float64; rays from a sphere of radius 2.7 to around the centre, so that some miss the cube.

    `slices`: 1 or 2 of the xy plane.
    """
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    weights = DecoderWeights(
        normal(hidden, channels) * 1.5 / math.sqrt(channels),
        normal(hidden) * 0.3,
        normal(1 + features, hidden) * density / math.sqrt(hidden),
        normal(1 + features) * 0.3,
    )
    planes = normal(n, 2 + slices, channels, height, width)
    origins = torch.nn.functional.normalize(normal(n, rays, 3), dim=-1) * 2.7
    directions = torch.nn.functional.normalize(0.25 * normal(n, rays, 3) - origins, dim=-1)
    return Scene(planes, weights, origins, directions)


def decoder(
    channels: int = 4, hidden: int = 5, features: int = 3, dtype: torch.dtype = torch.float32
) -> DecoderWeights:
    """Random decoder weights of torch's current random state."""
    shapes = ((hidden, channels), (hidden,), (1 + features, hidden), (1 + features,))
    return DecoderWeights(*(torch.randn(shape, dtype=dtype) for shape in shapes))


def options(**changes: Any) -> RenderOptions:
    """12 + 10 samples between 2.25 and 3.3, unless changed."""
    return RenderOptions(**{"depth_resolution": 12, "depth_resolution_importance": 10, **changes})


CASES: list[dict[str, Any]] = [
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
"""Rendering options that take different ways through the kernels."""


def name_of_case(changes: dict[str, Any]) -> str:
    """A short id of options."""
    return "-".join(f"{k[:3]}{k[-5:]}{v}" for k, v in changes.items()) or "default"


LAYOUTS = ("channels last", "image channels last", "every other", "one image", "flipped", "offset")


def in_layout(p: Tensor, layout: str) -> Tensor:
    """The planes (of "one image": those of the first, repeated) with the strides that `layout` names."""
    n, count, c, h, w = p.shape
    if layout == "channels last":
        return p.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    if layout == "image channels last":  # a convolution's output, seen as three planes
        return p.reshape(n, -1, h, w).contiguous(memory_format=torch.channels_last).unflatten(1, (count, c))
    if layout == "every other":
        return p.repeat_interleave(2, -1)[..., ::2]
    if layout == "one image":
        return p[:1].expand(n, -1, -1, -1, -1)
    if layout == "flipped":
        return p.transpose(-1, -2).contiguous().transpose(-1, -2)
    flat = torch.empty(p.numel() + 1, dtype=p.dtype, device=p.device)  # not on a 16-byte boundary
    flat[1:] = p.permute(0, 1, 3, 4, 2).flatten()
    return flat[1:].view(n, count, h, w, c).permute(0, 1, 4, 2, 3)


def values_and_gradients(
    what: Scene, how: RenderOptions, backend: Backend = "native", seeds: Tensor | None = None
) -> tuple[list[Tensor], list[Tensor]]:
    """features, depth, opacity; and the gradients of all inputs for one random gradient of the outputs.

    Where there is nothing to render the reference returns constants, whose gradient is zero. With automatic bounds the
    reference also moves these, which are constants to the kernel: the gradients of the rays are then left out.
    """
    inputs = [t.clone().requires_grad_() for t in what.tensors()]
    result = Scene.of(*inputs).render(how, backend, seeds)
    learned = inputs[: 5 if how.ray_start == "auto" else 7]
    return [out.detach() for out in result], gradients(weighted_sum(result), learned)


# Largest difference to the float64 reference on the CPU over the largest value, of values and of gradients.
# float64 differs by rounding alone (4.6e-14 at most was measured); CUDA's plain kernels add in another order. float32
# (CUDA: TF32 in three products) is as far away as the float32 reference: the rounding of depths and texel coordinates.
LIMITS = {
    ("cpu", "float64"): (1e-12, 1e-12),
    ("cpu", "float32"): (2e-5, 4e-5),
    ("cuda", "float64"): (1e-10, 1e-10),
    ("cuda", "float32"): (2e-5, 5e-5),
}
# Mixed precision, ‖difference‖ / ‖expected‖ of values, of gradients, and of the rays' gradients. The gradient of a
# bilinear reading jumps where a point crosses a texel's centre line. Rounding to half moves a few importance samples
# across one, so gradients of rays (not of planes) differ by that much in scenes of a few dozen rays: the float64
# reference with planes and weights rounded to half is 5e-3 to 5e-2 away from itself unrounded.
MIXED_VALUE, MIXED_GRADIENT, MIXED_RAY_GRADIENT = 1e-3, 4e-3, 0.1


def compare(
    what: Scene, how: RenderOptions, kind: str, seeds: Tensor | None = None, device: str = "cpu"
) -> None:
    """Values and gradients of the kernel in "float64", "float32" or "mixed" precision against the reference's."""
    given = what.to(torch.float64 if kind == "float64" else torch.float32, device)
    with torch.autocast(device, dtype=torch.float16, enabled=kind == "mixed"):
        values, grads = values_and_gradients(
            given, how, "native", None if seeds is None else seeds.to(device)
        )
    expected, expected_grads = values_and_gradients(what, how, "reference", seeds)
    if kind != "mixed":
        close(values, expected, LIMITS[device, kind][0])
        close(grads, expected_grads, LIMITS[device, kind][1])
        return
    for got, want in zip(values, expected, strict=True):
        assert norm(got, want) < MIXED_VALUE
    for k, (got, want) in enumerate(zip(grads, expected_grads, strict=True)):
        of_rays = k > 4 and how.depth_resolution_importance > 0
        assert norm(got, want) < (MIXED_RAY_GRADIENT if of_rays else MIXED_GRADIENT)


def compare_points(what: Scene, at: Tensor, kind: str, device: str = "cpu") -> None:
    """The same of `sample_planes` and `query` at points."""
    dtype = torch.float64 if kind == "float64" else torch.float32
    for op in ("sample", "query"):
        with torch.autocast(device, dtype=torch.float16, enabled=kind == "mixed"):
            got = point_results(what.to(dtype, device), at.to(device, dtype), op, "native")
        want = point_results(what, at, op, "reference")
        if kind == "mixed":
            assert max(norm(a, b) for a, b in zip(got, want, strict=True)) < MIXED_GRADIENT
        else:
            close(got, want, LIMITS[device, kind][1])


def points(n: int, count: int) -> Tensor:
    """[n, count, 3] float64; some lie outside the cube."""
    generator = torch.Generator().manual_seed(4)
    return torch.rand(n, count, 3, generator=generator, dtype=torch.float64) * 1.4 - 0.7


def point_results(what: Scene, at: Tensor, op: str, backend: Backend) -> list[Tensor]:
    """Outputs and gradients of `sample_planes` (op "sample") or `query` at points."""
    inputs = [t.clone().requires_grad_() for t in (what.planes, *what.weights, at)]
    if op == "sample":
        used = [inputs[0], inputs[5]]
        outputs: tuple[Tensor, ...] = (
            planes.sample_planes(inputs[0], inputs[5], "eg3d", 1.1, backend, Slices(0.2, -0.1)),
        )
    else:
        used = inputs
        outputs = planes.query(inputs[0], DecoderWeights(*inputs[1:5]), inputs[5], backend=backend)
    return [*(o.detach() for o in outputs), *gradients(weighted_sum(outputs), used)]


def small(slices: int = 1, device: str = "cpu") -> tuple[Scene, Tensor]:
    """A scene of two rays and three points, float64: for finite differences."""
    what = scene(n=1, rays=2, channels=2, hidden=3, features=2, height=4, width=5, slices=slices)
    return what.to(torch.float64, device), points(1, 3).to(device)


def rays_arguments(what: Scene, seeds: Tensor | None, *where: float) -> tuple[Any, ...]:
    """Arguments of the operator `render_rays`: 5 + 4 samples over a white background, depths kept."""
    near = torch.full_like(what.origins[..., 0], 2.25)
    return (*what.tensors(), near, near + 1, seeds, 5, 4, 1, 1.0, False, True, 0, True, *where)
