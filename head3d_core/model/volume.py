"""Volume rendering in PyTorch: the annotated reference that the fused kernels are tested against.

One equation a function, in the order in which `render_rays` uses them (Eq. 3 of the paper; EG3D's two-pass
importance renderer with mid-point marching).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from head3d_core import ops
from head3d_core.config import Backend, RenderOptions
from head3d_core.model.planes import DecoderWeights, check_planes, query
from head3d_core.model.rays import ray_bounds
from head3d_core.ops import random, render
from head3d_core.utils.errors import Head3DError


class RayResult(NamedTuple):
    """What comes back along each ray."""

    features: Tensor
    """[N, R, F] in about [-1, 1]; the first three are rgb."""
    depth: Tensor
    """[N, R], distance along the ray, world units."""
    opacity: Tensor
    """[N, R] in [0, 1]."""


class March(NamedTuple):
    """Result of marching sorted samples; `weights` is kept for importance sampling and for teaching."""

    features: Tensor
    depth: Tensor
    opacity: Tensor
    weights: Tensor
    """[N, R, S - 1], one per interval."""


def stratified_depths(
    near: Tensor, far: Tensor, count: int, offset: Tensor | float = 0.5, disparity: bool = False
) -> Tensor:
    """One sample per stratum, `offset` of a step behind the stratum's start.

    t_i = near + (far - near) (i + offset) / (S - 1), i = 0 .. S-1: the last one may pass `far` by a step.
    With `disparity`, 1/t is interpolated instead.

    Args:
        near, far: [N, R].
        count: S.
        offset: 0.5 (deterministic) or uniforms [N, R, S] in [0, 1).

    Returns:
        depths [N, R, S], ascending.
    """
    index = torch.arange(count, device=near.device, dtype=near.dtype)
    return _depth_at(near, far, (index + offset) / (count - 1), disparity)


def march(features: Tensor, sigma: Tensor, depths: Tensor, white_back: bool = False) -> March:
    """Mid-point ray marching (Eq. 3).

    With delta_i = t_{i+1} - t_i and colour, sigma and depth averaged to the mid-point of each interval:
    density_i = softplus(sigma_i - 1); alpha_i = 1 - exp(-density_i delta_i);
    transmittance_i = prod_{j<i} (1 - alpha_j + 1e-10); weight_i = alpha_i transmittance_i.
    features = 2 sum weight_i colour_i - 1 (after adding 1 - opacity for a white background);
    depth = sum weight_i t_i / opacity, +inf where the ray meets nothing.

    Args:
        features: [N, R, S, F] colour features in [0, 1].
        sigma: [N, R, S, 1], raw.
        depths: [N, R, S], ascending.

    Returns:
        March; depth is not yet clamped (see `clamp_depth`).
    """
    delta = depths[..., 1:] - depths[..., :-1]
    middle = (depths[..., 1:] + depths[..., :-1]) / 2
    colour = (features[..., 1:, :] + features[..., :-1, :]) / 2
    density = F.softplus((sigma[..., 1:, 0] + sigma[..., :-1, 0]) / 2 - 1)
    alpha = 1 - torch.exp(-density * delta)
    through = torch.cumprod(1 - alpha + 1e-10, -1)
    transmittance = torch.cat([torch.ones_like(through[..., :1]), through[..., :-1]], -1)
    weights = alpha * transmittance
    opacity = weights.sum(-1)
    # matmul rather than multiply-and-sum: no [N, R, S, F] product is stored for the backward pass.
    total = (weights[..., None, :] @ colour)[..., 0, :]
    empty = opacity == 0
    # Divided by 1 where nothing was met, so that no 0/0 reaches the backward pass.
    depth = (weights * middle).sum(-1) / torch.where(empty, 1.0, opacity)
    depth = torch.where(empty, torch.inf, depth)
    if white_back:
        total = total + (1 - opacity)[..., None]
    return March(2 * total - 1, depth, opacity, weights)


def importance_depths(depths: Tensor, weights: Tensor, count: int, u: Tensor | None = None) -> Tensor:
    """Inverse-transform samples where the first pass found density. No gradient passes.

    1. Smooth: a_i = max of the neighbouring interval weights (a_0 = w_0, a_{S-1} = w_{S-2}),
       b_i = (a_i + a_{i+1}) / 2 + 0.01.
    2. The pdf is b_1 .. b_{S-3} (+ 1e-5), normalised; the bin edges are the mid-points of `depths`. EG3D's
       bins are shifted by one against the weights and the last edge is never reached; kept for parity.
    3. Each u is looked up in the cumulative distribution and interpolated inside its bin.

    Args:
        depths: [N, R, S], ascending.
        weights: [N, R, S - 1].
        count: samples to draw.
        u: [N, R, count] in [0, 1); None: (j + 0.5) / count for every ray.

    Returns:
        [N, R, count], not sorted against `depths`.
    """
    with torch.no_grad():
        w = weights
        a = torch.cat([w[..., :1], torch.maximum(w[..., :-1], w[..., 1:]), w[..., -1:]], -1)
        b = (a[..., :-1] + a[..., 1:]) / 2 + 0.01
        pdf = b[..., 1:-1] + 1e-5
        pdf = pdf / pdf.sum(-1, keepdim=True)
        cdf = torch.cat([torch.zeros_like(pdf[..., :1]), pdf.cumsum(-1)], -1)
        edges = (depths[..., 1:] + depths[..., :-1]) / 2
        if u is None:
            u = (torch.arange(count, device=depths.device, dtype=depths.dtype) + 0.5) / count
            u = u.expand(*depths.shape[:-1], count)
        k = torch.searchsorted(cdf, u.to(cdf.dtype).contiguous(), right=True)
        low, high = (k - 1).clamp_min(0), k.clamp_max(cdf.shape[-1] - 1)
        cdf_low, cdf_high = cdf.gather(-1, low), cdf.gather(-1, high)
        width = cdf_high - cdf_low
        width = torch.where(width < 1e-5, torch.ones_like(width), width)
        edge_low, edge_high = edges.gather(-1, low), edges.gather(-1, high)
        return edge_low + (u - cdf_low) / width * (edge_high - edge_low)


def clamp_depth(depth: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """Clamps to the range of all sample depths of the batch; an empty ray (+inf) gets the largest.

    Rays that are not finite stay NaN and do not count for the range.

    Args:
        depth: [N, R].
        first, last: nearest and farthest sample of each ray, [N, R].
    """
    if depth.numel() == 0:
        return depth
    nearest = torch.where(torch.isfinite(first), first, torch.inf).amin()
    farthest = torch.where(torch.isfinite(last), last, -torch.inf).amax()
    return torch.minimum(torch.maximum(depth, nearest), farthest)


def render_rays(
    planes: Tensor,
    weights: DecoderWeights,
    ray_origins: Tensor,
    ray_directions: Tensor,
    options: RenderOptions,
    *,
    seeds: Tensor | None = None,
    backend: Backend = "auto",
) -> RayResult:
    """Renders features, depth and opacity along rays: two passes, the second where the first found density.

    Args:
        planes: [N, 3, C, H, W], or [N, 4, C, H, W] with two slices of the xy plane.
        weights: decoder weights with gains folded in.
        ray_origins, ray_directions: [N, R, 3]; directions of unit length.
        options: sampling and marching options.
        seeds: [N] int64, one per sample of the batch, for random offsets and importance samples; None renders
            deterministically (offset 0.5, u = (j + 0.5) / count), so that images and tests repeat.
        backend: "reference" runs the functions of this module, "native" the fused kernel, "auto" the kernel
            where it is built.

    Returns:
        RayResult. A ray with a coordinate that is not finite returns NaN.

    Raises:
        Head3DError: wrong shapes, or backend="native" without the extension.
    """
    _check_rays(planes, ray_origins, ray_directions, seeds)
    # Where sampling starts and ends is not learned: no gradient passes through it.
    near, far = (bound.detach() for bound in ray_bounds(ray_origins, ray_directions, options))
    noisy = seeds is not None and options.density_noise > 0
    if not noisy and ops.use_native(backend, planes):
        return _render_native(planes, weights, ray_origins, ray_directions, near, far, options, seeds)
    if near.numel() == 0:
        return RayResult(near.new_zeros(*near.shape, len(weights.w1) - 1), near, near)

    def along(depths: Tensor, stream: int) -> tuple[Tensor, Tensor]:
        sigma, features = query_along(planes, weights, ray_origins, ray_directions, depths, options)
        if noisy and seeds is not None:
            noise = random.normal(seeds, depths.shape[1], depths.shape[2], stream).to(sigma.dtype)
            sigma = sigma + options.density_noise * noise[..., None]
        return sigma, features

    offset, u = _offset(near, options, seeds), None
    if seeds is not None:
        count = options.depth_resolution_importance
        u = random.uniform(seeds, near.shape[1], count, random.STREAM_IMPORTANCE).to(near.dtype)
    depths = stratified_depths(near, far, options.depth_resolution, offset, options.disparity)
    sigma, features = along(depths, random.STREAM_DENSITY_NOISE)
    result = march(features, sigma, depths, options.white_back)
    if options.depth_resolution_importance > 0:
        fine = importance_depths(depths, result.weights, options.depth_resolution_importance, u)
        fine_sigma, fine_features = along(fine, random.STREAM_DENSITY_NOISE + 2)
        depths, order = torch.cat([depths, fine], -1).sort(-1)
        sigma = _reorder(torch.cat([sigma, fine_sigma], -2), order)
        features = _reorder(torch.cat([features, fine_features], -2), order)
        result = march(features, sigma, depths, options.white_back)
    depth = clamp_depth(result.depth, depths[..., 0], depths[..., -1])
    return RayResult(result.features, depth, result.opacity)


def query_along(
    planes: Tensor,
    weights: DecoderWeights,
    ray_origins: Tensor,
    ray_directions: Tensor,
    depths: Tensor,
    options: RenderOptions,
) -> tuple[Tensor, Tensor]:
    """sigma [N, R, S, 1] and colour features [N, R, S, F] at origin + depth direction, depths [N, R, S]; no kernel."""
    points = ray_origins[..., None, :] + depths[..., None] * ray_directions[..., None, :]
    sigma, features = query(
        planes, weights, points.flatten(1, 2), options.axes, options.box_warp, "reference", options.slices
    )
    return sigma.unflatten(1, depths.shape[1:]), features.unflatten(1, depths.shape[1:])


def _render_native(
    planes: Tensor,
    weights: DecoderWeights,
    ray_origins: Tensor,
    ray_directions: Tensor,
    near: Tensor,
    far: Tensor,
    options: RenderOptions,
    seeds: Tensor | None,
) -> RayResult:
    """The fused kernel, and the clamp of its depths, whose range is the batch's first and last stratified samples."""
    features, depth, opacity = render.render_rays(
        planes, weights, ray_origins, ray_directions, near, far, seeds, options
    )
    last = options.depth_resolution - 1
    # (Built on the device: a copy from the host would stall the stream and break CUDA graphs.)
    step = torch.arange(2, device=near.device, dtype=near.dtype) * last
    offset = _offset(near, options, seeds)
    ends = offset if isinstance(offset, float) else offset[..., ::last]
    at = _depth_at(near, far, (step + ends) / last, options.disparity)
    return RayResult(features, clamp_depth(depth, at[..., 0], at[..., 1]), opacity)


def _offset(near: Tensor, options: RenderOptions, seeds: Tensor | None) -> Tensor | float:
    """Place of each stratified sample in its stratum: [N, R, S] in [0, 1), or the middle without seeds."""
    if seeds is None:
        return 0.5
    return random.uniform(seeds, near.shape[1], options.depth_resolution, random.STREAM_DEPTH).to(near.dtype)


def _depth_at(near: Tensor, far: Tensor, fraction: Tensor, disparity: bool) -> Tensor:
    near, far = near[..., None], far[..., None]
    if disparity:
        return 1.0 / ((1.0 - fraction) / near + fraction / far)
    return near + (far - near) * fraction


def _reorder(values: Tensor, order: Tensor) -> Tensor:
    return values.gather(-2, order[..., None].expand(*order.shape, values.shape[-1]))


def _check_rays(planes: Tensor, ray_origins: Tensor, ray_directions: Tensor, seeds: Tensor | None) -> None:
    check_planes(planes)
    if ray_origins.ndim != 3 or ray_origins.shape[-1] != 3 or ray_origins.shape != ray_directions.shape:
        raise Head3DError(
            "ray_origins and ray_directions must both be [N, R, 3], "
            f"got {list(ray_origins.shape)} and {list(ray_directions.shape)}"
        )
    if ray_origins.shape[0] != planes.shape[0]:
        raise Head3DError(
            f"planes and rays must have one batch size, got {planes.shape[0]} and {ray_origins.shape[0]}"
        )
    if seeds is not None and (seeds.shape != planes.shape[:1] or seeds.dtype != torch.int64):
        raise Head3DError(f"seeds must be [N] int64, got {list(seeds.shape)} {seeds.dtype}")
