"""The compiled layers of StyleGAN2: shapes without data and derivatives.

`model.filters` holds the reference and calls them. `bias_act` and `upfirdn2d` run on CPU and CUDA and can be
differentiated twice. `layer_epilogue` and the one-pass gradients of `bias_act` are CUDA only: on a CPU, PyTorch's own
kernels do. Sums over pixels behind the gradients are made in a fixed order: equal inputs, equal bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from head3d_core.utils.errors import Head3DError

# ------------------------------------------------------------------------------------------------ shapes without data


def _image_like(x: Tensor, shape: Sequence[Any] | None = None) -> Tensor:
    """Empty [N, C, ...] under the layout rule: channels-last stays so, everything else becomes contiguous."""
    last = x.ndim == 4 and x.shape[1] > 1 and x.stride(1) == 1
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty(shape or x.shape, dtype=x.dtype, device=x.device, memory_format=layout)


def _upfirdn2d_fake(
    x: Tensor, kernel: Tensor, up: int, down: int, padding: list[int], gain: float, flip: bool
) -> Tensor:
    n, c, h, w = x.shape
    out_h = (h * up + padding[2] + padding[3] - kernel.shape[0]) // down + 1
    out_w = (w * up + padding[0] + padding[1] - kernel.shape[1]) // down + 1
    return _image_like(x, [n, c, out_h, out_w])


def _bias_act_fake(x: Tensor, *_: Any) -> Tensor:
    return _image_like(x)


def _bias_act_backward_fake(grad: Tensor, output: Tensor, *_: Any) -> Tensor:
    return _image_like(output)


def _gradients_fake(grad: Tensor, x: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    return _image_like(x), x.new_empty(4, x.shape[0], x.shape[1], dtype=wide)


# ------------------------------------------------------------------------------------------------ derivatives


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
    ctx.settings = inputs[2:]
    ctx.save_for_backward(output)


def _bias_act_grad(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    (output,) = ctx.saved_tensors
    if ctx.needs_input_grad[1] and output.is_cuda and output.ndim == 4:
        grad_x, sums = torch.ops.head3d.bias_act_gradients(grad, output, *ctx.settings)
        return grad_x, sums[0].sum(0).to(grad.dtype), None, None, None
    grad_x = torch.ops.head3d.bias_act_backward(grad, output, *ctx.settings)
    grad_bias = None
    if ctx.needs_input_grad[1]:
        grad_bias = grad_x.sum([d for d in range(grad_x.ndim) if d != 1])
    return grad_x, grad_bias, None, None, None


def _gradients_setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.settings = inputs[2:]
    ctx.save_for_backward(inputs[1])
    ctx.set_materialize_grads(False)


def _gradients_grad(ctx: Any, grad_x_bar: Tensor | None, sums_bar: Tensor | None = None) -> tuple[Any, ...]:
    """Of `bias_act_backward` and `bias_act_gradients`: bias_act is piecewise linear, so by x all is zero.

    By grad, grad_x = factor(output) grad and sums[0], its sum over pixels, are linear.
    """
    (out,) = ctx.saved_tensors
    total = grad_x_bar
    if sums_bar is not None:
        spread = sums_bar[0].to(out.dtype)[:, :, None, None].expand_as(out)
        total = spread if total is None else total + spread
    if total is None:
        return (None,) * 5
    again = torch.ops.head3d.bias_act_backward(total, out, *ctx.settings)
    return again, None, None, None, None


def _epilogue_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:6])
    ctx.settings = inputs[6:]


def _epilogue_grad(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    needs = ctx.needs_input_grad
    if needs[2]:
        raise Head3DError("layer_epilogue has no derivative with respect to its noise: detach it")
    x, scale, noise, strength, bias, after = ctx.saved_tensors
    grad_x, sums = torch.ops.head3d.layer_epilogue_backward(
        grad, x, scale, noise, strength, bias, after, *ctx.settings
    )
    return (
        grad_x if needs[0] else None,
        sums[1] if needs[1] else None,
        None,
        sums[2].sum().reshape(strength.shape) if needs[3] else None,
        sums[0].sum(0) if needs[4] else None,
        sums[3] if needs[5] else None,
        None,
        None,
        None,
    )


def once_only(what: str, advice: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Derivative and setup of an operator's backward that itself has no derivative: they refuse with advice."""

    def refuse(ctx: Any, *grads: Tensor) -> Any:
        raise Head3DError(
            f"the compiled {what} can be differentiated once only: {advice} for second derivatives"
        )

    return refuse, lambda ctx, inputs, output: None


Rule = tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]
_EPILOGUE_ONCE = once_only("layer_epilogue", "set HEAD3D_DISABLE_NATIVE=1")
RULES: dict[str, Rule] = {
    "upfirdn2d": (_upfirdn2d_fake, _upfirdn2d_grad, _upfirdn2d_setup),
    "bias_act": (_bias_act_fake, _bias_act_grad, _bias_act_setup),
    "bias_act_backward": (_bias_act_backward_fake, _gradients_grad, _gradients_setup),
    "bias_act_gradients": (_gradients_fake, _gradients_grad, _gradients_setup),
    "layer_epilogue": (_bias_act_fake, _epilogue_grad, _epilogue_setup),
    "layer_epilogue_backward": (_gradients_fake, *_EPILOGUE_ONCE),
}
"""Operator -> shapes without data, derivative, and what the derivative keeps."""
