"""Feature planes: projection, sampling, exchange (Eq. 2 of the paper; EG3D's tri-plane).

`planes` is [N, P, C, H, W]. P = 3 is the tri-plane, in the order of `config.PLANE_NAMES`. A point p in the cube of
side `box_warp` is projected onto each plane, the plane is read there (bilinear, zero outside) and the readings are
averaged.

P = 4 has two depth slices of the xy plane, (xy_front, xz, yz, xy_back), because (x, y, z) and (x, y, -z) read one
texel of a tri-plane's xy. With B(F; u, v) the bilinear reading and t = clamp(1/2 + (z - z0) / (2 h), 0, 1),

    f(p) = 1/3 [ t B(xy_front; x, y) + (1 - t) B(xy_back; x, y) + B(xz; x, z) + B(yz; y, z) ].

Equal slices give the tri-plane's features.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from head3d_core import ops
from head3d_core.config import PLANE_NAMES, SLICE_NAMES, SLICES, Axes, Backend, Slices
from head3d_core.model.stylegan2 import FullyConnected
from head3d_core.ops import render
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


def check_planes(planes: Tensor, points: Tensor | None = None) -> None:
    """Raises Head3DError unless `planes` is [N, P, C, H, W] floating point with P = 3 or 4, and `points` [N, M, 3]."""
    if planes.ndim != 5 or planes.shape[1] not in (3, 4):
        raise Head3DError(
            "planes must be [N, 3, C, H, W], or [N, 4, C, H, W] with two slices of the xy plane, "
            f"got {list(planes.shape)}"
        )
    if not planes.is_floating_point():
        raise Head3DError(f"planes must be floating point, got {planes.dtype}")
    if points is not None and (points.ndim != 3 or points.shape[::2] != (len(planes), 3)):
        raise Head3DError(
            f"points must be [N, M, 3] with N = {len(planes)} as in planes, got {list(points.shape)}"
        )


def project(points: Tensor, axes: Axes, box_warp: float, count: int = 3) -> Tensor:
    """Plane coordinates of world points.

    (u_k, v_k) = (2 / box_warp) (p[column_k], p[row_k]), so that the cube maps to [-1, 1].

    Args:
        points: [N, M, 3], world units.
        axes: convention, see `PROJECTION`.
        box_warp: side of the cube.
        count: P, 3 or 4; the fourth plane, xy_back, has the coordinates of the first.

    Returns:
        [N, P, M, 2]: (column, row) coordinates per plane.
    """
    pairs = PROJECTION[axes]
    index = torch.tensor([*pairs, pairs[0]][:count], device=points.device)
    return (points * (2.0 / box_warp))[..., index].permute(0, 2, 1, 3)


def front_share(points: Tensor, slices: Slices) -> Tensor:
    """Weight of the front slice, t = clamp(1/2 + (z - centre) / (2 half_distance), 0, 1); NaN stays NaN.

    Args:
        points: [..., 3], world units.

    Returns:
        [...]: 1 in front of the front slice, 0 behind the back slice, linear between them.
    """
    return (0.5 + (points[..., 2] - slices.centre) / (2 * slices.half_distance)).clamp(0, 1)


def sample_each_plane(planes: Tensor, points: Tensor, axes: Axes = "xyz", box_warp: float = 1.0) -> Tensor:
    """Bilinear readings of the planes, not yet averaged.

    Texel j has its centre at u = (2 j + 1) / W - 1; beyond the border texels the plane is 0
    (``align_corners=False``, zero padding).

    Returns [N, P, M, C].
    """
    check_planes(planes, points)
    n, planes_each, channels, height, width = planes.shape
    grid = project(points, axes, box_warp, planes_each)
    count = points.shape[1]
    if n == 0 or count == 0:
        return planes.new_zeros(n, planes_each, count, channels)
    read = F.grid_sample(
        planes.reshape(n * planes_each, channels, height, width),
        grid.reshape(n * planes_each, count, 1, 2).to(planes.dtype),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    )
    return read.reshape(n, planes_each, channels, count).transpose(2, 3)


def sample_planes(
    planes: Tensor,
    points: Tensor,
    axes: Axes = "xyz",
    box_warp: float = 1.0,
    backend: Backend = "auto",
    slices: Slices = SLICES,
) -> Tensor:
    """Feature of each point: the mean of its plane readings, of which the two slices share one (Eq. 2).

    Args:
        planes: [N, 3, C, H, W], or [N, 4, C, H, W] with two slices of the xy plane.
        points: [N, M, 3], world units; points outside the cube read zeros.
        backend: "auto", "reference" or "native".
        slices: where two slices lie.

    Returns:
        [N, M, C].
    """
    check_planes(planes, points)
    if ops.use_native(backend, planes):
        return render.sample_planes(planes, points, axes=axes, box_warp=box_warp, slices=slices)
    readings = sample_each_plane(planes, points, axes, box_warp)
    if planes.shape[1] == 3:
        return readings.mean(1)
    xy_front, xz, yz, xy_back = readings.unbind(1)
    t = front_share(points, slices).to(planes.dtype)[..., None]
    return (t * xy_front + (1 - t) * xy_back + xz + yz) / 3


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


class Decoder(nn.Module):
    """The decoder MLP as a network, C -> hidden (softplus) -> 1 + features; see `decode`.

    Args:
        channels: plane channels C.
        hidden: hidden units.
        features: number of colour features.
        lr_multiplier: learning-rate multiplier of both layers.
    """

    def __init__(self, channels: int, hidden: int, features: int, lr_multiplier: float = 1.0) -> None:
        super().__init__()
        # Index 1 of the format's sequence is the parameter-free softplus, hence layers "0" and "2".
        self.net = nn.ModuleDict(
            {
                "0": FullyConnected(channels, hidden, lr_multiplier=lr_multiplier),
                "2": FullyConnected(hidden, 1 + features, lr_multiplier=lr_multiplier),
            }
        )

    def weights(self) -> DecoderWeights:
        """Both layers with their gains folded in, as the renderer takes them."""
        first, second = self.net["0"], self.net["2"]
        assert isinstance(first, FullyConnected)
        assert isinstance(second, FullyConnected)
        return DecoderWeights(*first.effective(), *second.effective())


def query(
    planes: Tensor,
    weights: DecoderWeights,
    points: Tensor,
    axes: Axes = "xyz",
    box_warp: float = 1.0,
    backend: Backend = "auto",
    slices: Slices = SLICES,
) -> tuple[Tensor, Tensor]:
    """Density and colour at points: sigma [N, M, 1] (raw) and colour features [N, M, F] in [0, 1]."""
    check_planes(planes, points)
    if ops.use_native(backend, planes):
        return render.query_planes(planes, weights, points, axes=axes, box_warp=box_warp, slices=slices)
    return decode(sample_planes(planes, points, axes, box_warp, "reference", slices), weights)


def plane_index(name: str) -> int:
    """0, 1 or 2 for "xy" (or "xy_front"), "xz", and "yz" or "zx"; 3 for "xy_back"."""
    if name in SLICE_NAMES:
        return 3 * SLICE_NAMES.index(name)
    for names in PLANE_NAMES.values():
        if name in names:
            return names.index(name)
    raise Head3DError(
        f'a plane is called "xy", "xz" or "yz" ("zx" under EG3D\'s axes), a slice "xy_front" or "xy_back", got {name!r}'
    )


def widen(planes: Tensor) -> Tensor:
    """[N, 3, C, H, W] -> [N, 4, C, H, W] with both slices equal to the xy plane, which is the same head.

    Four planes come back as they are.
    """
    check_planes(planes)
    return planes if planes.shape[1] == 4 else torch.cat([planes, planes[:, :1]], 1)


def swap(planes_a: Tensor, planes_b: Tensor, names: str | Iterable[str]) -> Tensor:
    """`planes_a` with the named plane (or planes) of `planes_b` in place of its own (Fig. 2).

    Both are [N, P, C, H, W]; neither is changed. Swapping the same plane twice is the identity. With two slices "xy"
    swaps both of them, "xy_front" and "xy_back" one. `widen` makes a tri-plane fit two-slice planes.
    """
    _check_pair(planes_a, planes_b)
    mixed = planes_a.clone()
    for name in [names] if isinstance(names, str) else names:
        k, two_slices = plane_index(name), planes_a.shape[1] == 4
        if name in SLICE_NAMES and not two_slices:
            raise Head3DError(
                f"{name!r} is a slice of 4 planes, got planes {list(planes_a.shape)}: use 'xy' or widen"
            )
        rows = [0, 3] if name == "xy" and two_slices else [k]
        mixed[:, rows] = planes_b[:, rows]
    return mixed


def blend(planes_a: Tensor, planes_b: Tensor, weights: Iterable[float]) -> Tensor:
    """Per-plane mixture (1 - weight_k) a + weight_k b.

    `weights` has three entries, usually in [0, 1], of which the first holds for both slices of the xy plane. With two
    slices it may have four, in the order of the planes.
    """
    _check_pair(planes_a, planes_b)
    each, count = list(weights), planes_a.shape[1]
    if len(each) not in (3, count):
        raise Head3DError(f"blend takes three weights, or one for each of {count} planes, got {len(each)}")
    weight = planes_a.new_tensor([*each, each[0]][:count])
    return torch.lerp(planes_a, planes_b, weight[None, :, None, None, None])


def _check_pair(planes_a: Tensor, planes_b: Tensor) -> None:
    check_planes(planes_a)
    check_planes(planes_b)
    if planes_a.shape != planes_b.shape:
        raise Head3DError(
            f"both identities need planes of one shape, got {list(planes_a.shape)} and {list(planes_b.shape)}"
            + ("" if planes_a.shape[1] == planes_b.shape[1] else ": `planes.widen` makes 4 planes of 3")
        )
