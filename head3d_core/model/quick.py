"""Volume rendering at the best speed that PyTorch alone gives: for widgets and tables where the extension is missing.

The same formulas as `volume.py`, without random sampling and without gradients. Two things make it several times
faster on a CPU. Planes are read as rows of a table: a texel's channels are neighbours in memory, and one call of
`embedding_bag` fetches the 12 texels of a point, weighs them and adds them up. And what is not seen is not decoded:
first sigma of all samples, then the colours of those that light reaches (of these three only, for a preview).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from head3d_core import ops
from head3d_core.config import Axes, Backend, RenderOptions
from head3d_core.model.planes import DecoderWeights, check_planes, check_points, project
from head3d_core.model.rays import ray_bounds
from head3d_core.model.volume import (
    RayResult,
    clamp_depth,
    importance_depths,
    march,
    render_rays,
    stratified_depths,
)

NEGLIGIBLE = 1e-6
"""Share of a ray's light below which a sample's colour is left out: 48 of them change a colour by less than 1e-4."""


def sample_rows(planes: Tensor, points: Tensor, axes: Axes = "xyz", box_warp: float = 1.0) -> Tensor:
    """`planes.sample_planes`, by rows of a table: the mean of three bilinear readings (Eq. 2).

    A reading at (u, v) is sum_c w_c F[row_c, column_c] over the four texels around it, w_c the bilinear weights and 0
    beyond the border; the twelve terms of a point are one bag.

    Args:
        planes: [N, 3, C, H, W]; channels innermost in memory is fastest, as `Generator.planes` returns them.
        points: [N, M, 3], world units.

    Returns:
        [N, M, C].
    """
    n, _, channels, height, width = check_planes(planes).shape
    at = project(check_points(planes, points), axes, box_warp).to(planes.dtype)
    at = at.permute(3, 0, 2, 1).contiguous()  # [2, N, M, 3], (column, row)
    column, across = _ends(at[0], width)
    row, down = _ends(at[1], height)
    first = torch.arange(3 * n, device=planes.device, dtype=torch.int32).reshape(n, 1, 3, 1, 1)
    bags = (row * width + first[..., 0] * (height * width))[..., None] + column[..., None, :]
    shares = down[..., None] * (across / 3)[..., None, :]
    table = planes.permute(0, 1, 3, 4, 2).reshape(-1, channels)
    read = F.embedding_bag(bags.reshape(-1, 12), table, mode="sum", per_sample_weights=shares.reshape(-1, 12))
    return read.reshape(n, -1, channels)


def _ends(at: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The two texels around coordinates in [-1, 1] along one axis, [..., 2] int32, and their shares, 0 if outside."""
    at = (at + 1) * (size / 2) - 0.5
    low = at.floor()
    share = at - low
    shares = torch.stack(
        [
            torch.where((low >= 0) & (low < size), 1 - share, 0.0),
            torch.where((low >= -1) & (low < size - 1), share, 0.0),
        ],
        -1,
    )
    low = low.to(torch.int32)
    return torch.stack([low.clamp(0, size - 1), (low + 1).clamp(0, size - 1)], -1), shares


@torch.no_grad()
def quick_rays(
    planes: Tensor,
    weights: DecoderWeights,
    ray_origins: Tensor,
    ray_directions: Tensor,
    options: RenderOptions,
    backend: Backend = "auto",
) -> RayResult:
    """`volume.render_rays` without randomness or gradients, as fast as this machine can.

    Args:
        planes: [N, 3, C, H, W].
        weights: of the decoder; with the rows of `three_colours` only rgb is computed.
        ray_origins, ray_directions: [N, R, 3].
        backend: "auto" and "native" take the kernel where it is built and applies; "reference" this module's formulas.
    """
    if ops.use_native(backend, planes):
        return render_rays(planes, weights, ray_origins, ray_directions, options, backend=backend)
    near, far = ray_bounds(ray_origins, ray_directions, options)
    n, count = ray_origins.shape[:2]

    def look(at: Tensor) -> tuple[Tensor, Tensor]:
        """sigma [N, R, S, 1] and the hidden layer [N R S, H], from which colours may still be computed."""
        points = ray_origins[..., None, :] + at[..., None] * ray_directions[..., None, :]
        read = sample_rows(planes, points.flatten(1, 2), options.axes, options.box_warp).flatten(0, 1)
        hidden = F.softplus(F.linear(read, weights.w0, weights.b0))
        return F.linear(hidden, weights.w1[:1], weights.b1[:1]).reshape(n, count, -1, 1), hidden

    depths = stratified_depths(near, far, options.depth_resolution, 0.5, options.disparity)
    sigma, hidden = look(depths)
    order, layers = None, [(depths.shape[-1], hidden)]
    result = march(sigma.new_zeros(*sigma.shape[:-1], 0), sigma, depths)
    if options.depth_resolution_importance > 0:
        extra = importance_depths(depths, result.weights, options.depth_resolution_importance)
        fine_sigma, fine_hidden = look(extra)
        layers.append((extra.shape[-1], fine_hidden))
        depths, order = torch.cat([depths, extra], -1).sort(-1)
        sigma = torch.cat([sigma, fine_sigma], -2)[..., 0].gather(-1, order)[..., None]
        result = march(sigma.new_zeros(*sigma.shape[:-1], 0), sigma, depths)
    # An interval's colour is the mean of its ends, so a sample counts with half of the intervals on either side.
    half = F.pad(result.weights, (1, 1)) / 2
    part = half[..., 1:] + half[..., :-1]
    if order is not None:
        part = torch.zeros_like(part).scatter(-1, order, part)
    colours = _weighted_colours(weights, part, layers)
    if options.white_back:
        colours = colours + (1 - result.opacity)[..., None]
    depth = clamp_depth(result.depth, depths[..., 0], depths[..., -1])
    return RayResult(2 * colours - 1, depth, result.opacity)


def _weighted_colours(weights: DecoderWeights, part: Tensor, layers: list[tuple[int, Tensor]]) -> Tensor:
    """Sum of colours along each ray, [N, R, F]; samples that count for less than `NEGLIGIBLE` are not decoded.

    Args:
        part: [N, R, S] what each sample counts for; the passes' samples follow each other.
        layers: (samples per ray, hidden layer [N R samples, H]) of each pass.
    """
    n, count, _ = part.shape
    total = part.new_zeros(n * count, weights.w1.shape[0] - 1)
    for (samples, hidden), share in zip(layers, part.split([s for s, _ in layers], -1), strict=True):
        flat = share.reshape(-1)
        where = (flat > NEGLIGIBLE).nonzero()[:, 0]
        seen = torch.sigmoid(F.linear(hidden[where], weights.w1[1:], weights.b1[1:])) * 1.002 - 0.001
        total.index_add_(0, where // samples, seen * flat[where, None])
    return total.unflatten(0, (n, count))


def three_colours(weights: DecoderWeights) -> DecoderWeights:
    """The decoder cut down to sigma and the first three features, rgb: all that a raw picture shows."""
    return DecoderWeights(weights.w0, weights.b0, weights.w1[:4].contiguous(), weights.b1[:4].contiguous())
