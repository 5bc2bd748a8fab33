"""Feature planes: projection, sampling, exchange (Eq. 2 of the paper; EG3D's tri-plane).

`planes` is [N, 3, C, H, W] in the order of `config.PLANE_NAMES`. A point p in the cube of side `box_warp` is
projected onto each plane, the plane is read there (bilinear, zero outside) and the three readings are averaged.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from head3d_core import ops
from head3d_core.config import PLANE_NAMES, Axes, Backend
from head3d_core.utils.errors import Head3DError

PROJECTION: dict[Axes, tuple[tuple[int, int], ...]] = {
    "eg3d": ((0, 1), (0, 2), (2, 0)),
    "xyz": ((0, 1), (0, 2), (1, 2)),
}
"""For planes 0, 1, 2: which coordinates are (column, row). "eg3d" never pairs y with z."""


class DecoderWeights(NamedTuple):
    """The decoder's two layers with their gains folded in: y = W x + b."""

    w0: Tensor
    """[hidden, C]"""
    b0: Tensor
    """[hidden]"""
    w1: Tensor
    """[1 + features, hidden]; row 0 gives sigma"""
    b1: Tensor
    """[1 + features]"""


def check_planes(planes: Tensor) -> Tensor:
    """Returns `planes` if it is [N, 3, C, H, W] floating point; raises Head3DError otherwise."""
    if planes.ndim != 5 or planes.shape[1] != 3:
        raise Head3DError(f"planes must be [N, 3, C, H, W], got {list(planes.shape)}")
    if not planes.is_floating_point():
        raise Head3DError(f"planes must be floating point, got {planes.dtype}")
    return planes


def check_points(planes: Tensor, points: Tensor) -> Tensor:
    """Returns `points` if it is [N, M, 3] for the batch of `planes`; raises Head3DError otherwise."""
    if points.ndim != 3 or points.shape[-1] != 3 or points.shape[0] != planes.shape[0]:
        raise Head3DError(
            f"points must be [N, M, 3] with N = {planes.shape[0]} as in planes, got {list(points.shape)}"
        )
    return points


def project(points: Tensor, axes: Axes, box_warp: float) -> Tensor:
    """Plane coordinates of world points.

    (u_k, v_k) = (2 / box_warp) (p[column_k], p[row_k]), so that the cube maps to [-1, 1].

    Args:
        points: [N, M, 3], world units.
        axes: convention, see `PROJECTION`.
        box_warp: side of the cube.

    Returns:
        [N, 3, M, 2]: (column, row) coordinates per plane.
    """
    index = torch.tensor(PROJECTION[axes], device=points.device)
    return (points * (2.0 / box_warp))[..., index].permute(0, 2, 1, 3)


def sample_each_plane(planes: Tensor, points: Tensor, axes: Axes = "xyz", box_warp: float = 1.0) -> Tensor:
    """Bilinear readings of the three planes, not yet averaged.

    Texel j has its centre at u = (2 j + 1) / W - 1; beyond the border texels the plane is 0
    (``align_corners=False``, zero padding).

    Returns [N, 3, M, C].
    """
    n, _, channels, height, width = check_planes(planes).shape
    grid = project(check_points(planes, points), axes, box_warp)
    count = points.shape[1]
    if n == 0 or count == 0:
        return planes.new_zeros(n, 3, count, channels)
    read = F.grid_sample(
        planes.reshape(n * 3, channels, height, width),
        grid.reshape(n * 3, count, 1, 2).to(planes.dtype),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    )
    return read.reshape(n, 3, channels, count).transpose(2, 3)


def sample_planes(
    planes: Tensor, points: Tensor, axes: Axes = "xyz", box_warp: float = 1.0, backend: Backend = "auto"
) -> Tensor:
    """Feature of each point: the mean of its three plane readings (Eq. 2).

    Args:
        planes: [N, 3, C, H, W].
        points: [N, M, 3], world units; points outside the cube read zeros.
        backend: "auto", "reference" or "native".

    Returns:
        [N, M, C].
    """
    check_points(check_planes(planes), points)
    if ops.use_native(backend, planes):
        return ops.sample_planes(planes, points, axes=axes, box_warp=box_warp)
    return sample_each_plane(planes, points, axes, box_warp).mean(1)


def decode(features: Tensor, weights: DecoderWeights) -> tuple[Tensor, Tensor]:
    """The decoder MLP (section 3.1): point features -> raw sigma and colour features.

    h = softplus(W0 x + b0); (sigma, t) = W1 h + b1; colour = 1.002 sigmoid(t) - 0.001.
    The slight widening lets colours reach 0 and 1 exactly.

    Args:
        features: [..., C].

    Returns:
        sigma [..., 1] (raw: density = softplus(sigma - 1)), colour features [..., F] in (-0.001, 1.001).
    """
    hidden = F.softplus(F.linear(features, weights.w0, weights.b0))
    out = F.linear(hidden, weights.w1, weights.b1)
    return out[..., :1], torch.sigmoid(out[..., 1:]) * 1.002 - 0.001


def query(
    planes: Tensor,
    weights: DecoderWeights,
    points: Tensor,
    axes: Axes = "xyz",
    box_warp: float = 1.0,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    """What stands at each point: sigma [N, M, 1] (raw) and colour features [N, M, F] in [0, 1]."""
    check_points(check_planes(planes), points)
    if ops.use_native(backend, planes):
        return ops.query_planes(planes, *weights, points, axes=axes, box_warp=box_warp)
    return decode(sample_planes(planes, points, axes, box_warp, backend="reference"), weights)


def plane_index(name: str) -> int:
    """0, 1 or 2 for "xy", "xz", and "yz" or "zx"."""
    for names in PLANE_NAMES.values():
        if name in names:
            return names.index(name)
    raise Head3DError(f'a plane is called "xy", "xz" or "yz" ("zx" under EG3D\'s axes), got {name!r}')


def swap(planes_a: Tensor, planes_b: Tensor, names: str | Iterable[str]) -> Tensor:
    """`planes_a` with the named plane (or planes) of `planes_b` in place of its own (Fig. 2).

    Both are [N, 3, C, H, W]; neither is changed. Swapping the same plane twice is the identity.
    """
    _check_pair(planes_a, planes_b)
    mixed = planes_a.clone()
    for name in [names] if isinstance(names, str) else names:
        mixed[:, plane_index(name)] = planes_b[:, plane_index(name)]
    return mixed


def blend(planes_a: Tensor, planes_b: Tensor, weights: Iterable[float]) -> Tensor:
    """Per-plane mixture (1 - weight_k) a + weight_k b; `weights` has three entries, usually in [0, 1]."""
    _check_pair(planes_a, planes_b)
    weight = planes_a.new_tensor(list(weights))
    if weight.shape != (3,):
        raise Head3DError(f"blend takes three weights, one per plane, got {weight.numel()}")
    return torch.lerp(planes_a, planes_b, weight[None, :, None, None, None])


def _check_pair(planes_a: Tensor, planes_b: Tensor) -> None:
    check_planes(planes_a)
    check_planes(planes_b)
    if planes_a.shape != planes_b.shape:
        raise Head3DError(
            f"both identities need planes of one shape, got {list(planes_a.shape)} and {list(planes_b.shape)}"
        )
