"""Faces of the compiled operators `torch.ops.head3d.*`, and the choice between them and the reference.

The library (csrc/, built by setup.py) holds the kernels and the schemas. What it does not hold is registered here when
it is first needed: "fakes" (shapes without data, for `torch.compile`) and the derivative formulas. Nothing is
compiled, and nothing is loaded at import.

Environment: HEAD3D_DISABLE_NATIVE=1 hides the library; HEAD3D_LIBRARY names another file than head3d_core/_C*.so;
HEAD3D_CPU_ISA=avx2 or scalar forces a slower CPU path.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from head3d_core.config import SLICES, Axes, Backend, RenderOptions, Slices
from head3d_core.ops import layers
from head3d_core.utils.errors import Head3DError

_log = logging.getLogger(__name__)

_AXES: dict[Axes, int] = {"eg3d": 0, "xyz": 1}
_ACTIVATIONS = {"linear": 0, "lrelu": 1}
_RENDER_TYPES = (torch.float32, torch.float64)
_FILTER_TYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_loaded: bool | None = None  # None: not tried yet


# ------------------------------------------------------------------------------------------------ choosing


def _library() -> Path | None:
    named = os.environ.get("HEAD3D_LIBRARY")
    if named:
        return Path(named)
    found = sorted(
        p for p in Path(__file__).parents[1].glob("_C*") if p.suffix in (".so", ".pyd", ".dylib", ".dll")
    )
    return found[0] if found else None


@torch.compiler.assume_constant_result
def available() -> bool:
    """True if the compiled extension is loaded (the first call tries to) and not hidden by HEAD3D_DISABLE_NATIVE."""
    global _loaded
    if os.environ.get("HEAD3D_DISABLE_NATIVE", "0") not in ("", "0"):
        return False
    if _loaded is None:
        path = _library()
        if path is None:
            _log.info("no compiled extension: everything runs on the reference path")
            _loaded = False
            return False
        try:
            torch.ops.load_library(str(path))
        except OSError as error:
            _log.warning("the compiled extension does not load, so the reference path is used: %s", error)
            _loaded = False
            return False
        _register()
        _loaded = True
        _log.info("compiled extension loaded: CPU path %s, CUDA kernels: %s", instruction_set(), has_cuda())
    return _loaded


@torch.compiler.assume_constant_result
def instruction_set() -> str:
    """The CPU path that the extension takes: "avx512", "avx2", "neon" or "scalar"; "none" without the extension."""
    return str(torch.ops.head3d.instruction_set()) if _loaded or available() else "none"


@torch.compiler.assume_constant_result
def has_cuda() -> bool:
    """True if the extension is loaded and was built with CUDA kernels."""
    return bool(torch.ops.head3d.has_cuda()) if _loaded or available() else False


def use_native(backend: Backend, *tensors: Tensor) -> bool:
    """Whether the compiled operator serves this call.

    Args:
        backend: "reference" never; "native" always, or it raises; "auto" where the extension has a kernel for the
            device and type of every tensor.

    Raises:
        Head3DError: for an unknown backend, or for "native" without the extension or its CUDA kernels.
    """
    if backend not in ("auto", "reference", "native"):
        raise Head3DError(f'backend must be "auto", "reference" or "native", got {backend!r}')
    if backend == "reference":
        return False
    if not available():
        if backend == "native":
            raise Head3DError(
                'backend="native" needs the compiled extension, which is not built: install a C++ compiler and run '
                '`make venv`, or use backend="auto"'
            )
        return False
    for tensor in tensors:
        served = tensor.is_cpu or (tensor.is_cuda and has_cuda())
        if not served or tensor.dtype not in _FILTER_TYPES:
            if backend == "native":
                raise Head3DError(
                    f'backend="native" has no kernel for {tensor.dtype} on {tensor.device.type}: use backend="auto"'
                )
            return False
    return True


def use_native_layers(backend: Backend, x: Tensor) -> bool:
    """`use_native` for `layer_epilogue`, which has a CUDA kernel only."""
    if not x.is_cuda:
        if backend == "native":
            raise Head3DError('backend="native" has no CPU kernel for layer_epilogue: use backend="auto"')
        return False
    return use_native(backend, x) and layers.present()


# ------------------------------------------------------------------------------------------------ rendering


def _precision(planes: Tensor) -> int:
    """1 (mixed: tensor cores) under CUDA autocast, else 0 (strict)."""
    return int(planes.is_cuda and torch.is_autocast_enabled("cuda"))


def _same_type(planes: Tensor, *others: Tensor) -> list[Tensor]:
    """All in float64 if the planes are, else in float32, whatever autocast asks."""
    dtype = planes.dtype if planes.dtype in _RENDER_TYPES else torch.float32
    return [tensor.to(dtype) for tensor in (planes, *others)]


def _slice_arguments(planes: Tensor, slices: Sequence[float]) -> list[float]:
    """Trailing arguments of an operator: where two slices lie. A tri-plane has none."""
    return [float(value) for value in slices] if planes.shape[1] == 4 else []


def sample_planes(
    planes: Tensor, points: Tensor, *, axes: Axes, box_warp: float, slices: Slices = SLICES
) -> Tensor:
    """Native twin of `planes.sample_planes`: [N, P, C, H, W], [N, M, 3] -> [N, M, C]."""
    planes, points = _same_type(planes, points)
    where = _slice_arguments(planes, slices)
    return torch.ops.head3d.sample_planes(planes, points, _AXES[axes], float(box_warp), *where)


def query_planes(
    planes: Tensor,
    w0: Tensor,
    b0: Tensor,
    w1: Tensor,
    b1: Tensor,
    points: Tensor,
    *,
    axes: Axes,
    box_warp: float,
    slices: Slices = SLICES,
) -> tuple[Tensor, Tensor]:
    """Native twin of `planes.query`: sigma [N, M, 1] (raw) and colour features [N, M, F]."""
    mode = _precision(planes)
    planes, w0, b0, w1, b1, points = _same_type(planes, w0, b0, w1, b1, points)
    where = _slice_arguments(planes, slices)
    return torch.ops.head3d.query_planes(
        planes, w0, b0, w1, b1, points, _AXES[axes], float(box_warp), mode, *where
    )


def render_rays(
    planes: Tensor,
    w0: Tensor,
    b0: Tensor,
    w1: Tensor,
    b1: Tensor,
    ray_origins: Tensor,
    ray_directions: Tensor,
    near: Tensor,
    far: Tensor,
    seeds: Tensor | None,
    options: RenderOptions,
) -> tuple[Tensor, Tensor, Tensor]:
    """Native twin of `volume.render_rays`.

    The bounds `near` and `far` [N, R] are constants to its derivative; gradients reach the rays through the points that
    are sampled. It can be differentiated once. In float32, samples whose colours weigh 1e-6 of the ray between them get
    none, which moves a feature by less than 3e-6; float64 leaves nothing out.

    Returns:
        features [N, R, F], depth [N, R] (+inf: nothing met; not clamped), opacity [N, R].
    """
    mode = _precision(planes)
    planes, w0, b0, w1, b1, origins, directions, near, far = _same_type(
        planes, w0, b0, w1, b1, ray_origins, ray_directions, near, far
    )
    return torch.ops.head3d.render_rays(
        planes,
        w0,
        b0,
        w1,
        b1,
        origins,
        directions,
        near.detach(),
        far.detach(),
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


# ------------------------------------------------------------------------------------------------ filters


def bias_act(
    x: Tensor, bias: Tensor | None, activation: str, gain_total: float, limit: float | None
) -> Tensor:
    """Native twin of `filters.bias_act`: clamp(activation(x + bias) gain_total, +-limit); differentiable twice."""
    if bias is not None:
        bias = bias.to(x.dtype)
    return torch.ops.head3d.bias_act(x, bias, _ACTIVATIONS[activation], float(gain_total), limit)


def layer_epilogue(
    x: Tensor,
    scale: Tensor | None,
    noise: Tensor | None,
    strength: Tensor | None,
    bias: Tensor | None,
    activation: str,
    gain_total: float,
    limit: float | None,
) -> Tensor:
    """Native twin of `filters.layer_epilogue`; differentiable once, and not with respect to the noise."""
    return layers.layer_epilogue(x, scale, noise, strength, bias, _ACTIVATIONS[activation], gain_total, limit)


def upfirdn2d(
    x: Tensor, kernel: Tensor, up: int, down: int, padding: tuple[int, int, int, int], gain: float
) -> Tensor:
    """Native twin of `filters.upfirdn2d`; differentiable any number of times with respect to x."""
    return torch.ops.head3d.upfirdn2d(x, kernel, up, down, list(padding), float(gain), False)


# ------------------------------------------------------------------------------------------------ random numbers


def draws_native(seeds: Tensor) -> bool:
    """Whether `uniform` and `normal` have a kernel for these seeds: on a GPU, unless torch.compile fuses them."""
    if not seeds.is_cuda or torch.compiler.is_compiling():
        return False
    return has_cuda() and hasattr(torch.ops.head3d, "normal")


def uniform(seeds: Tensor, rows: int, columns: int, stream: int) -> Tensor:
    """Native twin of `seeding.uniform`, bit for bit: [N] int64 -> [N, rows, columns] float32. CUDA only."""
    return torch.ops.head3d.uniform(seeds, rows, columns, stream)


def normal(seeds: Tensor, rows: int, columns: int, stream: int) -> Tensor:
    """Native twin of `seeding.normal` (to float32 rounding of log and cos). CUDA only."""
    return torch.ops.head3d.normal(seeds, rows, columns, stream)


# ------------------------------------------------------------------------------------------------ shapes without data


def _channels_last(x: Tensor) -> bool:
    """The layout rule of the filters: channels-last stays channels-last, everything else becomes contiguous."""
    return x.ndim == 4 and x.shape[1] > 1 and x.stride(1) == 1


def _empty_image(like: Tensor, shape: list[Any]) -> Tensor:
    layout = torch.channels_last if _channels_last(like) else torch.contiguous_format
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=layout)


def _grad_planes_fake(planes: Tensor, needed: bool) -> Tensor:
    n, count, c, h, w = planes.shape
    return planes.new_empty(n, count, h, w, c) if needed else planes.new_empty(0)


def _plain_like(x: Tensor, needed: bool) -> Tensor:
    return x.new_empty(x.shape) if needed else x.new_empty(0)


def _render_rays_fake(
    planes: Tensor, w0: Tensor, b0: Tensor, w1: Tensor, b1: Tensor, origins: Tensor, *_: Any
) -> Any:
    n, rays = origins.shape[:2]
    return planes.new_empty(n, rays, w1.shape[0] - 1), planes.new_empty(n, rays), planes.new_empty(n, rays)


def _render_rays_backward_fake(*args: Any) -> Any:
    planes, weights, origins, directions = args[0], args[1:5], args[5], args[6]
    needs_planes, needs_weights, needs_rays = args[23:26]
    return (
        _grad_planes_fake(planes, needs_planes),
        *(_plain_like(w, needs_weights) for w in weights),
        _plain_like(origins, needs_rays),
        _plain_like(directions, needs_rays),
    )


def _sample_planes_fake(planes: Tensor, points: Tensor, *_: Any) -> Tensor:
    return planes.new_empty(*points.shape[:2], planes.shape[2])


def _sample_planes_backward_fake(*args: Any) -> Any:
    planes, points = args[:2]
    needs_planes, needs_points = args[5:7]
    return _grad_planes_fake(planes, needs_planes), _plain_like(points, needs_points)


def _query_planes_fake(
    planes: Tensor, w0: Tensor, b0: Tensor, w1: Tensor, b1: Tensor, points: Tensor, *_: Any
) -> Any:
    n, m = points.shape[:2]
    return planes.new_empty(n, m, 1), planes.new_empty(n, m, w1.shape[0] - 1)


def _query_planes_backward_fake(*args: Any) -> Any:
    planes, weights, points = args[0], args[1:5], args[5]
    needs_planes, needs_weights, needs_points = args[11:14]
    return (
        _grad_planes_fake(planes, needs_planes),
        *(_plain_like(w, needs_weights) for w in weights),
        _plain_like(points, needs_points),
    )


def _upfirdn2d_fake(
    x: Tensor, kernel: Tensor, up: int, down: int, padding: list[int], gain: float, flip: bool
) -> Tensor:
    n, c, h, w = x.shape
    out_h = (h * up + padding[2] + padding[3] - kernel.shape[0]) // down + 1
    out_w = (w * up + padding[0] + padding[1] - kernel.shape[1]) // down + 1
    return _empty_image(x, [n, c, out_h, out_w])


def _bias_act_fake(
    x: Tensor, bias: Tensor | None, activation: int, gain: float, limit: float | None
) -> Tensor:
    return _empty_image(x, list(x.shape))


def _bias_act_backward_fake(
    grad: Tensor, output: Tensor, activation: int, gain: float, limit: float | None
) -> Tensor:
    return _empty_image(output, list(output.shape))


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


def _render_rays_grad(
    ctx: Any, grad_features: Tensor, grad_depth: Tensor, grad_opacity: Tensor
) -> tuple[Any, ...]:
    saved = list(ctx.saved_tensors)
    tensors, outputs, seeds = saved[:9], saved[9:12], (saved[12] if len(saved) > 12 else None)
    _check_order(tensors[0])
    planes, weights, rays = (
        ctx.needs_input_grad[0],
        any(ctx.needs_input_grad[1:5]),
        any(ctx.needs_input_grad[5:7]),
    )
    grads = torch.ops.head3d.render_rays_backward(
        *tensors,
        seeds,
        *ctx.settings,
        *outputs,
        grad_features,
        grad_depth,
        grad_opacity,
        planes,
        weights,
        rays,
        *_slice_arguments(tensors[0], ctx.slices),
    )
    return (
        _channels_first(grads[0], planes),
        *(grads[1:5] if weights else [None] * 4),
        *(grads[5:7] if rays else [None] * 2),
        *[None] * (10 + len(ctx.slices)),
    )


def _sample_planes_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    planes, points, ctx.axes, ctx.box_warp, *ctx.slices = inputs
    ctx.save_for_backward(planes, points)


def _sample_planes_grad(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    needs = ctx.needs_input_grad[:2]
    planes, points = ctx.saved_tensors
    _check_order(planes)
    where = _slice_arguments(planes, ctx.slices)
    grads = torch.ops.head3d.sample_planes_backward(
        planes, points, ctx.axes, ctx.box_warp, grad, *needs, *where
    )
    return (
        _channels_first(grads[0], needs[0]),
        grads[1] if needs[1] else None,
        *[None] * (2 + len(ctx.slices)),
    )


def _query_planes_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:6])
    ctx.settings, ctx.slices = inputs[6:9], inputs[9:]


def _query_planes_grad(ctx: Any, grad_sigma: Tensor, grad_features: Tensor) -> tuple[Any, ...]:
    planes, weights, points = ctx.needs_input_grad[0], any(ctx.needs_input_grad[1:5]), ctx.needs_input_grad[5]
    tensors = ctx.saved_tensors
    _check_order(tensors[0])
    where = _slice_arguments(tensors[0], ctx.slices)
    grads = torch.ops.head3d.query_planes_backward(
        *tensors, *ctx.settings, grad_sigma, grad_features, planes, weights, points, *where
    )
    return (
        _channels_first(grads[0], planes),
        *(grads[1:5] if weights else [None] * 4),
        grads[5] if points else None,
        *[None] * (3 + len(ctx.slices)),
    )


def _refuse_setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    """Nothing to keep: the backward refuses."""


def _refuse_grad(ctx: Any, *grads: Tensor) -> Any:
    raise Head3DError(
        'the compiled renderer can be differentiated once only: use backend="reference" for second derivatives'
    )


def _upfirdn2d_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, kernel, ctx.up, ctx.down, ctx.padding, ctx.gain, ctx.flip = inputs
    ctx.save_for_backward(kernel)
    ctx.x_size, ctx.out_size = x.shape[2:], output.shape[2:]


def _upfirdn2d_grad(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    """out[x] = sum_k f[k] u[x down + k - pad] is linear, and its transpose is one too: up and down change places.

    From out[x] to in[j]: d in[j] = sum_k f[K - 1 - k] v[j up + k - (K - 1 - pad)], v = grad with zeros inserted.
    """
    if ctx.needs_input_grad[1]:
        raise Head3DError(
            "upfirdn2d has no derivative with respect to its kernel: pass a kernel without gradient"
        )
    (kernel,) = ctx.saved_tensors
    (h, w), (out_h, out_w) = ctx.x_size, ctx.out_size
    up, down, (left, _, top, _) = ctx.up, ctx.down, ctx.padding
    padding = [
        kernel.shape[1] - 1 - left,
        w * up - out_w * down + left - up + 1,
        kernel.shape[0] - 1 - top,
        h * up - out_h * down + top - up + 1,
    ]
    grad_x = torch.ops.head3d.upfirdn2d(grad, kernel, down, up, padding, ctx.gain, not ctx.flip)
    return grad_x, None, None, None, None, None, None


def _bias_act_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, _, ctx.activation, ctx.gain, ctx.limit = inputs
    ctx.save_for_backward(output)


def _bias_act_grad(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    (output,) = ctx.saved_tensors
    if ctx.needs_input_grad[1] and output.is_cuda and output.ndim == 4 and layers.present():
        both = layers.bias_act_gradients(grad, output, ctx.activation, ctx.gain, ctx.limit)
        return *both, None, None, None
    grad_x = torch.ops.head3d.bias_act_backward(grad, output, ctx.activation, ctx.gain, ctx.limit)
    grad_bias = None
    if ctx.needs_input_grad[1]:
        grad_bias = grad_x.sum([d for d in range(grad_x.ndim) if d != 1])
    return grad_x, grad_bias, None, None, None


def _bias_act_backward_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, out, ctx.activation, ctx.gain, ctx.limit = inputs
    ctx.save_for_backward(out)


def _bias_act_backward_grad(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    # Piecewise linear: the second derivative by x is zero, and by the gradient it is the same factor again.
    (out,) = ctx.saved_tensors
    again = torch.ops.head3d.bias_act_backward(grad, out, ctx.activation, ctx.gain, ctx.limit)
    return again, None, None, None, None


def _register() -> None:
    """Fakes and derivatives of every operator. Called once, after the library is loaded."""
    fakes = {
        "render_rays": _render_rays_fake,
        "render_rays_backward": _render_rays_backward_fake,
        "sample_planes": _sample_planes_fake,
        "sample_planes_backward": _sample_planes_backward_fake,
        "query_planes": _query_planes_fake,
        "query_planes_backward": _query_planes_backward_fake,
        "upfirdn2d": _upfirdn2d_fake,
        "bias_act": _bias_act_fake,
        "bias_act_backward": _bias_act_backward_fake,
    }
    derivatives: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
        "render_rays": (_render_rays_grad, _render_rays_setup),
        "render_rays_backward": (_refuse_grad, _refuse_setup),
        "sample_planes": (_sample_planes_grad, _sample_planes_setup),
        "sample_planes_backward": (_refuse_grad, _refuse_setup),
        "query_planes": (_query_planes_grad, _query_planes_setup),
        "query_planes_backward": (_refuse_grad, _refuse_setup),
        "upfirdn2d": (_upfirdn2d_grad, _upfirdn2d_setup),
        "bias_act": (_bias_act_grad, _bias_act_setup),
        "bias_act_backward": (_bias_act_backward_grad, _bias_act_backward_setup),
    }
    for name, fake in fakes.items():
        torch.library.register_fake(f"head3d::{name}", fake)
    for name, (backward, setup) in derivatives.items():
        torch.library.register_autograd(f"head3d::{name}", backward, setup_context=setup)
    if layers.present():
        layers.register()
