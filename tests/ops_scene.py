"""Scenes for the tests of the compiled operators, and the lowest rung of the ladder: one ray in plain Python loops."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from head3d_core.config import RenderOptions
from head3d_core.model import volume
from head3d_core.model.planes import PROJECTION, DecoderWeights
from head3d_core.model.volume import RayResult


@dataclass
class Scene:
    """Planes, a decoder and rays, all random but repeatable."""

    planes: Tensor
    weights: DecoderWeights
    origins: Tensor
    directions: Tensor

    def tensors(self) -> list[Tensor]:
        return [self.planes, *self.weights, self.origins, self.directions]

    def to(self, dtype: torch.dtype) -> Scene:
        planes, w0, b0, w1, b1, origins, directions = [t.to(dtype) for t in self.tensors()]
        return Scene(planes, DecoderWeights(w0, b0, w1, b1), origins, directions)


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


def options(**changes: object) -> RenderOptions:
    """12 + 10 samples between 2.25 and 3.3, unless changed."""
    return RenderOptions(**{"depth_resolution": 12, "depth_resolution_importance": 10, **changes})  # type: ignore[arg-type]


def values_and_gradients(
    what: Scene, how: RenderOptions, backend: str, seeds: Tensor | None = None
) -> tuple[list[Tensor], list[Tensor]]:
    """features, depth, opacity; and the gradients of all inputs for one random gradient of the outputs.

    Where there is nothing to render the reference returns constants, whose gradient is zero.
    """
    inputs = [t.clone().requires_grad_() for t in what.tensors()]
    result = volume.render_rays(
        inputs[0],
        DecoderWeights(*inputs[1:5]),
        inputs[5],
        inputs[6],
        how,
        seeds=seeds,
        backend=backend,  # type: ignore[arg-type]
    )
    generator = torch.Generator().manual_seed(2)
    loss = sum(
        (out * torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out)).sum()
        for out in result
    )
    assert isinstance(loss, Tensor)
    return [out.detach() for out in result], gradients(loss, inputs)


def gradients(loss: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    """d loss / d inputs; zeros where nothing depends on them."""
    if not loss.requires_grad:
        return [torch.zeros_like(t) for t in inputs]
    return list(torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True))


def relative(got: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest expected magnitude."""
    if expected.numel() == 0:
        return 0.0 if got.shape == expected.shape else math.inf
    scale = expected.abs().max().item() or 1.0
    return (got.double() - expected.double()).abs().max().item() / scale


def _read_plane(plane: Tensor, column: float, row: float) -> list[float]:
    channels, height, width = plane.shape
    x, y = ((column + 1) * width - 1) / 2, ((row + 1) * height - 1) / 2
    x0, y0 = math.floor(x), math.floor(y)
    out = [0.0] * channels
    for yy, wy in ((y0, y0 + 1 - y), (y0 + 1, y - y0)):
        for xx, wx in ((x0, x0 + 1 - x), (x0 + 1, x - x0)):
            if 0 <= xx < width and 0 <= yy < height:
                for c in range(channels):
                    out[c] += wx * wy * plane[c, yy, xx].item()
    return out


def _decode(x: list[float], weights: DecoderWeights) -> tuple[float, list[float]]:
    def linear(values: list[float], w: Tensor, b: Tensor) -> list[float]:
        return [
            b[j].item() + sum(w[j, k].item() * v for k, v in enumerate(values)) for j in range(w.shape[0])
        ]

    hidden = [math.log1p(math.exp(v)) for v in linear(x, weights.w0, weights.b0)]
    sigma, *logits = linear(hidden, weights.w1, weights.b1)
    return sigma, [1.002 / (1 + math.exp(-t)) - 0.001 for t in logits]


def _march(samples: list[tuple[float, float, list[float]]]) -> tuple[list[float], list[float], float]:
    """(depth, sigma, colour) in order -> weights, colour sum, depth sum."""
    weights, colour, depth, through = [], [0.0] * len(samples[0][2]), 0.0, 1.0
    for (t0, s0, c0), (t1, s1, c1) in itertools.pairwise(samples):
        density = math.log1p(math.exp((s0 + s1) / 2 - 1))
        alpha = 1 - math.exp(-density * (t1 - t0))
        weight = alpha * through
        through *= 1 - alpha + 1e-10
        weights.append(weight)
        colour = [total + weight * (a + b) / 2 for total, a, b in zip(colour, c0, c1, strict=True)]
        depth += weight * (t0 + t1) / 2
    return weights, colour, depth


def render_one_ray(what: Scene, how: RenderOptions, image: int, ray: int) -> RayResult:
    """features [F], depth, opacity of one ray, deterministic sampling, in loops over Python numbers."""
    assert how.ray_start != "auto"
    origin, direction = what.origins[image, ray].tolist(), what.directions[image, ray].tolist()

    def sample(t: float) -> tuple[float, float, list[float]]:
        point = [2 / how.box_warp * (o + t * d) for o, d in zip(origin, direction, strict=True)]
        reads = [
            _read_plane(what.planes[image, k], point[column], point[row])
            for k, (column, row) in enumerate(PROJECTION[how.axes])
        ]
        if what.planes.shape[1] == 4:
            back = _read_plane(what.planes[image, 3], point[0], point[1])
            z = origin[2] + t * direction[2]
            front = min(max(0.5 + (z - how.slice_centre) / (2 * how.slice_half_distance), 0.0), 1.0)
            reads[0] = [front * a + (1 - front) * b for a, b in zip(reads[0], back, strict=True)]
        return (t, *_decode([sum(v) / 3 for v in zip(*reads, strict=True)], what.weights))

    near, far = float(how.ray_start), float(how.ray_end)
    count = how.depth_resolution
    samples = []
    for i in range(count):
        f = (i + 0.5) / (count - 1)
        samples.append(sample(1 / ((1 - f) / near + f / far) if how.disparity else near + (far - near) * f))
    weights, _, _ = _march(samples)
    smooth = [max(weights[max(i - 1, 0)], weights[min(i, count - 2)]) for i in range(count)]
    pdf = [(smooth[i] + smooth[i + 1]) / 2 + 0.01 + 1e-5 for i in range(1, count - 2)]
    cdf = [sum(pdf[:i]) / sum(pdf) for i in range(len(pdf) + 1)]
    extra = []
    for j in range(how.depth_resolution_importance):
        u = (j + 0.5) / how.depth_resolution_importance
        k = sum(c <= u for c in cdf)
        low, high = k - 1, min(k, len(cdf) - 1)
        edges = [(samples[i][0] + samples[i + 1][0]) / 2 for i in (low, high)]
        extra.append(edges[0] + (u - cdf[low]) / (cdf[high] - cdf[low]) * (edges[1] - edges[0]))
    samples = sorted(samples + [sample(t) for t in extra], key=lambda s: s[0])
    weights, colour, depth = _march(samples)
    opacity = sum(weights)
    back = 1 - opacity if how.white_back else 0.0
    features = torch.tensor([2 * (c + back) - 1 for c in colour], dtype=torch.float64)
    return RayResult(features, *torch.tensor([depth / opacity, opacity], dtype=torch.float64))
