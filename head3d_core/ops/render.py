"""The compiled renderer: Python wrappers of `torch.ops.head3d.render_rays`, `sample_planes` and `query_planes`.

The reference is `model.volume` and `model.planes`; csrc/head3d.cpp holds the schemas. Planes are [N, P, C, H, W] with
P = 3, or 4 for two slices of the xy plane. `weights` are the decoder's w0, b0, w1, b1 (`planes.DecoderWeights`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from head3d_core.config import SLICES, Axes, RenderOptions, Slices
from head3d_core.ops.layers import Rule, once_only
from head3d_core.utils.errors import Head3DError

_AXES: dict[Axes, int] = {"eg3d": 0, "xyz": 1}


def sample_planes(
    planes: Tensor, points: Tensor, *, axes: Axes, box_warp: float, slices: Slices = SLICES
) -> Tensor:
    """Native form of `planes.sample_planes`: planes and points [N, M, 3] -> features [N, M, C]."""
    planes, points = _same_type(planes, points)
    where = _slice_arguments(planes, slices)
    return torch.ops.head3d.sample_planes(planes, points, _AXES[axes], float(box_warp), *where)


def query_planes(
    planes: Tensor,
    weights: Sequence[Tensor],
    points: Tensor,
    *,
    axes: Axes,
    box_warp: float,
    slices: Slices = SLICES,
) -> tuple[Tensor, Tensor]:
    """Native form of `planes.query`: sigma [N, M, 1] (raw) and colour features [N, M, F] at points [N, M, 3]."""
    settings = _AXES[axes], float(box_warp), _precision(planes)
    tensors = _same_type(planes, *weights, points)
    return torch.ops.head3d.query_planes(*tensors, *settings, *_slice_arguments(planes, slices))


def render_rays(
    planes: Tensor,
    weights: Sequence[Tensor],
    ray_origins: Tensor,
    ray_directions: Tensor,
    near: Tensor,
    far: Tensor,
    seeds: Tensor | None,
    options: RenderOptions,
) -> tuple[Tensor, Tensor, Tensor]:
    """Native form of `volume.render_rays`.

    The bounds `near` and `far` [N, R] are constants to its derivative; gradients reach the rays through the points that
    are sampled. It can be differentiated once. In float32, samples whose colours weigh 1e-6 of the ray between them get
    none, which moves a feature by less than 3e-6; float64 leaves nothing out.

    Returns:
        features [N, R, F], depth [N, R] (+inf: nothing met; not clamped), opacity [N, R].
    """
    mode = _precision(planes)
    tensors = _same_type(planes, *weights, ray_origins, ray_directions, near.detach(), far.detach())
    return torch.ops.head3d.render_rays(
        *tensors,
        seeds,
        options.depth_resolution,
        options.depth_resolution_importance,
        _AXES[options.axes],
        float(options.box_warp),
        options.disparity,
        options.white_back,
        mode,
        *_slice_arguments(planes, options.slices),
    )


def _precision(planes: Tensor) -> int:
    """1 (mixed: tensor cores) under CUDA autocast, else 0 (strict)."""
    return int(planes.is_cuda and torch.is_autocast_enabled("cuda"))


def _same_type(planes: Tensor, *others: Tensor) -> list[Tensor]:
    """All in float64 if the planes are, else in float32, whatever autocast asks."""
    dtype = torch.float64 if planes.dtype == torch.float64 else torch.float32
    return [tensor.to(dtype) for tensor in (planes, *others)]


def _slice_arguments(planes: Tensor, slices: Sequence[float]) -> list[float]:
    """Trailing arguments of an operator: where two slices lie. A tri-plane has none."""
    return [float(value) for value in slices] if planes.shape[1] == 4 else []


# ------------------------------------------------------------------------------------------------ shapes without data


def _grad_like(needed: bool, *tensors: Tensor) -> list[Tensor]:
    return [t.new_empty(t.shape) if needed else t.new_empty(0) for t in tensors]


def _grad_planes_fake(planes: Tensor, needed: bool) -> Tensor:
    n, count, c, h, w = planes.shape
    return planes.new_empty(n, count, h, w, c) if needed else planes.new_empty(0)


def _render_rays_fake(planes: Tensor, w0: Tensor, b0: Tensor, w1: Tensor, b1: Tensor, *rest: Any) -> Any:
    n, rays = rest[0].shape[:2]
    return planes.new_empty(n, rays, w1.shape[0] - 1), planes.new_empty(n, rays), planes.new_empty(n, rays)


def _render_rays_backward_fake(*args: Any) -> Any:
    needs_planes, needs_weights, needs_rays = args[23:26]
    weights, rays = _grad_like(needs_weights, *args[1:5]), _grad_like(needs_rays, *args[5:7])
    return _grad_planes_fake(args[0], needs_planes), *weights, *rays


def _sample_planes_fake(planes: Tensor, points: Tensor, *_: Any) -> Tensor:
    return planes.new_empty(*points.shape[:2], planes.shape[2])


def _sample_planes_backward_fake(*args: Any) -> Any:
    needs_planes, needs_points = args[5:7]
    return _grad_planes_fake(args[0], needs_planes), *_grad_like(needs_points, args[1])


def _query_planes_fake(planes: Tensor, w0: Tensor, b0: Tensor, w1: Tensor, b1: Tensor, *rest: Any) -> Any:
    n, m = rest[0].shape[:2]
    return planes.new_empty(n, m, 1), planes.new_empty(n, m, w1.shape[0] - 1)


def _query_planes_backward_fake(*args: Any) -> Any:
    needs_planes, needs_weights, needs_points = args[11:14]
    weights, points = _grad_like(needs_weights, *args[1:5]), _grad_like(needs_points, args[5])
    return _grad_planes_fake(args[0], needs_planes), *weights, *points


# ------------------------------------------------------------------------------------------------ derivatives


def _channels_first(grad: Tensor, needed: bool) -> Tensor | None:
    """[N, P, H, W, C] as the kernels write it -> [N, P, C, H, W]."""
    return grad.permute(0, 1, 4, 2, 3) if needed else None


def _check_order(planes: Tensor) -> None:
    """On CUDA gradients are summed with atomics, whose order, and so the last bits, differ from run to run."""
    strict = (
        torch.are_deterministic_algorithms_enabled()
        and not torch.is_deterministic_algorithms_warn_only_enabled()
    )
    if planes.is_cuda and strict:
        raise Head3DError(
            "the CUDA kernels sum gradients in no fixed order, but torch.use_deterministic_algorithms(True) asks "
            "for one: turn it off, or train on the CPU"
        )


def _render_rays_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, seeds = inputs[:10]
    ctx.save_for_backward(*tensors, *output, *([] if seeds is None else [seeds]))
    ctx.settings, ctx.slices = inputs[10:17], inputs[17:]


def _render_rays_grad(ctx: Any, *incoming: Tensor) -> tuple[Any, ...]:
    saved, needs = list(ctx.saved_tensors), ctx.needs_input_grad
    tensors, outputs, seeds = saved[:9], saved[9:12], (saved[12] if len(saved) > 12 else None)
    _check_order(tensors[0])
    planes, weights, rays = needs[0], any(needs[1:5]), any(needs[5:7])
    where = _slice_arguments(tensors[0], ctx.slices)
    grads = torch.ops.head3d.render_rays_backward(
        *tensors, seeds, *ctx.settings, *outputs, *incoming, planes, weights, rays, *where
    )
    return (
        _channels_first(grads[0], planes),
        *(grads[1:5] if weights else [None] * 4),
        *(grads[5:7] if rays else [None] * 2),
        *[None] * (10 + len(ctx.slices)),
    )


def _sample_planes_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.settings, ctx.slices = inputs[2:4], inputs[4:]


def _sample_planes_grad(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    (planes, points), needs = ctx.saved_tensors, ctx.needs_input_grad[:2]
    _check_order(planes)
    where = _slice_arguments(planes, ctx.slices)
    grads = torch.ops.head3d.sample_planes_backward(planes, points, *ctx.settings, grad, *needs, *where)
    by_points = grads[1] if needs[1] else None
    return _channels_first(grads[0], needs[0]), by_points, *[None] * (2 + len(ctx.slices))


def _query_planes_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:6])
    ctx.settings, ctx.slices = inputs[6:9], inputs[9:]


def _query_planes_grad(ctx: Any, *incoming: Tensor) -> tuple[Any, ...]:
    tensors, needs = ctx.saved_tensors, ctx.needs_input_grad
    _check_order(tensors[0])
    planes, weights, points = needs[0], any(needs[1:5]), needs[5]
    where = _slice_arguments(tensors[0], ctx.slices)
    grads = torch.ops.head3d.query_planes_backward(
        *tensors, *ctx.settings, *incoming, planes, weights, points, *where
    )
    return (
        _channels_first(grads[0], planes),
        *(grads[1:5] if weights else [None] * 4),
        grads[5] if points else None,
        *[None] * (3 + len(ctx.slices)),
    )


_ONCE = once_only("renderer", 'use backend="reference"')
RULES: dict[str, Rule] = {
    "render_rays": (_render_rays_fake, _render_rays_grad, _render_rays_setup),
    "render_rays_backward": (_render_rays_backward_fake, *_ONCE),
    "sample_planes": (_sample_planes_fake, _sample_planes_grad, _sample_planes_setup),
    "sample_planes_backward": (_sample_planes_backward_fake, *_ONCE),
    "query_planes": (_query_planes_fake, _query_planes_grad, _query_planes_setup),
    "query_planes_backward": (_query_planes_backward_fake, *_ONCE),
}
"""Operator -> shapes without data, derivative, and what the derivative keeps."""
