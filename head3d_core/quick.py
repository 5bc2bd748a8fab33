"""Volume rendering at the best speed that PyTorch alone gives: for widgets and tables where the extension is missing.

The same formulas as `volume.py`, without random sampling and without gradients. Two things make it several times
faster on a CPU. Planes are read as rows of a table: a texel's channels are neighbours in memory, and one call of
`embedding_bag` fetches the 12 texels of a point, weighs them and adds them up. And what is not asked for is not
decoded: a preview needs three colours, not all features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from head3d_core import ops
from head3d_core.config import Axes, Backend, RenderOptions
from head3d_core.planes import DecoderWeights, check_planes, check_points, decode, project
from head3d_core.rays import ray_bounds
from head3d_core.volume import (
    RayResult,
    clamp_depth,
    importance_depths,
    march,
    render_rays,
    stratified_depths,
)


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
    at = project(check_points(planes, points), axes, box_warp).to(planes.dtype)  # [N, 3, M, 2]
    column, row = (at[..., 0] + 1) * (width / 2) - 0.5, (at[..., 1] + 1) * (height / 2) - 0.5
    left, top = column.floor(), row.floor()
    right_share, lower_share = column - left, row - top
    first = torch.arange(3 * n, device=planes.device).reshape(n, 3, 1) * (height * width)
    index, weight = [], []
    for down in (0, 1):
        for right in (0, 1):
            x, y = left + right, top + down
            share = (right_share if right else 1 - right_share) * (lower_share if down else 1 - lower_share)
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            weight.append(torch.where(inside, share, 0.0))
            texel = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
            index.append(texel.to(torch.int64) + first)
    # [4, N, 3, M] -> [N M, 12]: one bag a point.
    bags = torch.stack(index).permute(1, 3, 0, 2).reshape(-1, 12)
    shares = torch.stack(weight).permute(1, 3, 0, 2).reshape(-1, 12) / 3
    table = planes.permute(0, 1, 3, 4, 2).reshape(-1, channels)
    read = F.embedding_bag(bags, table, mode="sum", per_sample_weights=shares)
    return read.reshape(n, -1, channels)


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
    count = ray_origins.shape[1]

    def look(at: Tensor) -> Tensor:
        """sigma and colours side by side, [N, R, S, 1 + F]."""
        points = ray_origins[..., None, :] + at[..., None] * ray_directions[..., None, :]
        read = sample_rows(planes, points.flatten(1, 2), options.axes, options.box_warp)
        return torch.cat(decode(read, weights), -1).unflatten(1, (count, -1))

    depths = stratified_depths(near, far, options.depth_resolution, 0.5, options.disparity)
    seen = look(depths)
    result = march(seen[..., 1:], seen[..., :1], depths, options.white_back)
    if options.depth_resolution_importance > 0:
        extra = importance_depths(depths, result.weights, options.depth_resolution_importance)
        depths, order = torch.cat([depths, extra], -1).sort(-1)
        merged = torch.cat([seen, look(extra)], -2)
        merged = merged.gather(-2, order[..., None].expand_as(merged))
        result = march(merged[..., 1:], merged[..., :1], depths, options.white_back)
    return RayResult(
        result.features, clamp_depth(result.depth, depths[..., 0], depths[..., -1]), result.opacity
    )


def three_colours(weights: DecoderWeights) -> DecoderWeights:
    """The decoder cut down to sigma and the first three features, rgb: all that a raw picture shows."""
    return DecoderWeights(weights.w0, weights.b0, weights.w1[:4].contiguous(), weights.b1[:4].contiguous())
