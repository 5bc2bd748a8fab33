"""The compiled operators around a convolution: `layer_epilogue`, and the gradients of `bias_act` in one pass.

CUDA only: on a CPU, PyTorch's own kernels do. `filters.layer_epilogue` is the reference; `ops` calls `register` when
it loads the library. The sums over pixels behind the gradients are made in a fixed order: equal inputs, equal bits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from head3d_core.utils.errors import Head3DError


def present() -> bool:
    """Whether the loaded library has these operators."""
    return hasattr(torch.ops.head3d, "layer_epilogue")


def layer_epilogue(
    x: Tensor,
    scale: Tensor | None,
    noise: Tensor | None,
    strength: Tensor | None,
    bias: Tensor | None,
    activation: int,
    gain: float,
    limit: float | None,
) -> Tensor:
    """Native twin of `filters.layer_epilogue`; everything but x is computed with in float32 (float64 if x is)."""
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    parts = [None if t is None else t.to(wide) for t in (scale, noise, strength, bias)]
    return torch.ops.head3d.layer_epilogue(x, *parts, activation, float(gain), limit)


def bias_act_gradients(
    grad: Tensor, output: Tensor, activation: int, gain: float, limit: float | None
) -> tuple[Tensor, Tensor]:
    """Gradients of `ops.bias_act` by x [N, C, H, W] and by the bias [C], in one pass; differentiable once more."""
    grad_x, sums = torch.ops.head3d.bias_act_gradients(grad, output, activation, gain, limit)
    return grad_x, sums[0].sum(0).to(grad.dtype)


# ------------------------------------------------------------------------------------------------ shapes without data


def _image_like(x: Tensor) -> Tensor:
    last = x.ndim == 4 and x.shape[1] > 1 and x.stride(1) == 1
    return torch.empty(
        x.shape,
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.channels_last if last else torch.contiguous_format,
    )


def _epilogue_fake(x: Tensor, *_: Any) -> Tensor:
    return _image_like(x)


def _gradients_fake(grad: Tensor, x: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    return _image_like(x), x.new_empty(3, x.shape[0], x.shape[1], dtype=wide)


# ------------------------------------------------------------------------------------------------ derivatives


def _epilogue_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:5])
    ctx.settings = inputs[5:]


def _epilogue_grad(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    needs = ctx.needs_input_grad
    if needs[2]:
        raise Head3DError("layer_epilogue has no derivative with respect to its noise: detach it")
    x, scale, noise, strength, bias = ctx.saved_tensors
    grad_x, sums = torch.ops.head3d.layer_epilogue_backward(
        grad, x, scale, noise, strength, bias, *ctx.settings
    )
    return (
        grad_x if needs[0] else None,
        sums[1] if needs[1] else None,
        None,
        sums[2].sum().reshape(strength.shape) if needs[3] else None,
        sums[0].sum(0) if needs[4] else None,
        None,
        None,
        None,
    )


def _refuse_setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    """Nothing to keep: the backward refuses."""


def _refuse_grad(ctx: Any, *grads: Tensor) -> Any:
    raise Head3DError(
        "the compiled layer_epilogue can be differentiated once only: set HEAD3D_DISABLE_NATIVE=1 for second "
        "derivatives"
    )


def _gradients_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, out, ctx.activation, ctx.gain, ctx.limit = inputs
    ctx.save_for_backward(out)
    ctx.set_materialize_grads(False)


def _gradients_grad(ctx: Any, grad_x_bar: Tensor | None, sums_bar: Tensor | None) -> tuple[Any, ...]:
    # grad_x = factor(output) grad and sums[0] = the sum of grad_x over pixels, both linear in grad.
    (out,) = ctx.saved_tensors
    total = grad_x_bar
    if sums_bar is not None:
        spread = sums_bar[0].to(out.dtype)[:, :, None, None].expand_as(out)
        total = spread if total is None else total + spread
    if total is None:
        return (None,) * 5
    again = torch.ops.head3d.bias_act_backward(total, out, ctx.activation, ctx.gain, ctx.limit)
    return again, None, None, None, None


def register() -> None:
    """Fakes and derivatives; called once, after the library is loaded."""
    torch.library.register_fake("head3d::layer_epilogue", _epilogue_fake)
    torch.library.register_fake("head3d::layer_epilogue_backward", _gradients_fake)
    torch.library.register_fake("head3d::bias_act_gradients", _gradients_fake)
    for name, backward, setup in (
        ("layer_epilogue", _epilogue_grad, _epilogue_setup),
        ("layer_epilogue_backward", _refuse_grad, _refuse_setup),
        ("bias_act_gradients", _gradients_grad, _gradients_setup),
    ):
        torch.library.register_autograd(f"head3d::{name}", backward, setup_context=setup)
