"""The compiled renderer: Python wrappers of `torch.ops.head3d.render_rays`, `sample_planes` and `query_planes`.

The reference is `model.volume` and `model.planes`; csrc/head3d.cpp holds the schemas. Planes are [N, P, C, H, W] with
P = 3, or 4 for two slices of the xy plane. `weights` are the decoder's w0, b0, w1, b1 (`planes.DecoderWeights`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    keep_depths = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    features, depth, opacity, _ = torch.ops.head3d.render_rays(
        *tensors,
        seeds,
        options.depth_resolution,
        options.depth_resolution_importance,
        _AXES[options.axes],
        float(options.box_warp),
        options.disparity,
        options.white_back,
        mode,
        keep_depths,
        *_slice_arguments(planes, options.slices),
    )
    return features, depth, opacity


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


def _backward_fake(at: int, *groups: slice) -> Callable[..., Any]:
    """Gradients of the planes and of each group of tensors; from argument `at` on stands which of them are needed."""

    def fake(*args: Any) -> Any:
        n, count, c, h, w = args[0].shape
        shapes = [(args[0], (n, count, h, w, c), args[at])]
        shapes += [(t, t.shape, args[at + 1 + k]) for k, group in enumerate(groups) for t in args[group]]
        return tuple(tensor.new_empty(shape if needed else 0) for tensor, shape, needed in shapes)

    return fake


def _render_rays_fake(planes: Tensor, w0: Tensor, b0: Tensor, w1: Tensor, b1: Tensor, *rest: Any) -> Any:
    n, rays = rest[0].shape[:2]
    samples, fine_samples, keep_depths = rest[5], rest[6], rest[12]
    depths = planes.new_empty((n, rays, samples + fine_samples) if keep_depths else 0)
    return (
        planes.new_empty(n, rays, w1.shape[0] - 1),
        planes.new_empty(n, rays),
        planes.new_empty(n, rays),
        depths,
    )


def _sample_planes_fake(planes: Tensor, points: Tensor, *_: Any) -> Tensor:
    return planes.new_empty(*points.shape[:2], planes.shape[2])


def _query_planes_fake(planes: Tensor, w0: Tensor, b0: Tensor, w1: Tensor, b1: Tensor, *rest: Any) -> Any:
    n, m = rest[0].shape[:2]
    return planes.new_empty(n, m, 1), planes.new_empty(n, m, w1.shape[0] - 1)


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
    ctx.mark_non_differentiable(output[3])
    ctx.set_materialize_grads(False)  # no zeros for the depths
    ctx.settings, ctx.slices = inputs[10:17], inputs[18:]


def _render_rays_grad(ctx: Any, *incoming: Tensor) -> tuple[Any, ...]:
    saved, needs = list(ctx.saved_tensors), ctx.needs_input_grad
    tensors, outputs, seeds = saved[:9], saved[9:13], (saved[13] if len(saved) > 13 else None)
    _check_order(tensors[0])
    planes, weights, rays = needs[0], any(needs[1:5]), any(needs[5:7])
    incoming = tuple(
        torch.zeros_like(o) if g is None else g for g, o in zip(incoming, outputs[:3], strict=False)
    )
    where = _slice_arguments(tensors[0], ctx.slices)
    grads = torch.ops.head3d.render_rays_backward(
        *tensors, seeds, *ctx.settings, *outputs, *incoming, planes, weights, rays, *where
    )
    return (
        _channels_first(grads[0], planes),
        *(grads[1:5] if weights else [None] * 4),
        *(grads[5:7] if rays else [None] * 2),
        *[None] * (11 + len(ctx.slices)),
    )


def _at_points(name: str, count: int, settings: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Derivative and setup of the operator `name`: planes, weights or none, points; `settings` numbers; the slices."""

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[:count])
        ctx.settings, ctx.slices = inputs[count : count + settings], inputs[count + settings :]

    def grad(ctx: Any, *incoming: Tensor) -> tuple[Any, ...]:
        tensors, needs = ctx.saved_tensors, ctx.needs_input_grad[:count]
        _check_order(tensors[0])
        wanted = [needs[0], *([any(needs[1:-1])] if count > 2 else []), needs[-1]]
        where = _slice_arguments(tensors[0], ctx.slices)
        backward = getattr(torch.ops.head3d, f"{name}_backward")
        first, *rest = backward(*tensors, *ctx.settings, *incoming, *wanted, *where)
        others = [g if needed else None for g, needed in zip(rest, needs[1:], strict=True)]
        return _channels_first(first, needs[0]), *others, *[None] * (settings + len(ctx.slices))

    return grad, setup


_ONCE = once_only("renderer", 'use backend="reference"')
RULES: dict[str, Rule] = {
    "render_rays": (_render_rays_fake, _render_rays_grad, _render_rays_setup),
    "render_rays_backward": (_backward_fake(24, slice(1, 5), slice(5, 7)), *_ONCE),
    "sample_planes": (_sample_planes_fake, *_at_points("sample_planes", 2, 2)),
    "sample_planes_backward": (_backward_fake(5, slice(1, 2)), *_ONCE),
    "query_planes": (_query_planes_fake, *_at_points("query_planes", 6, 3)),
    "query_planes_backward": (_backward_fake(11, slice(1, 5), slice(5, 6)), *_ONCE),
}
"""Operator -> shapes without data, derivative, and what the derivative keeps."""
