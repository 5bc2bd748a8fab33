"""A 2-D convolution whose second derivatives are ordinary convolutions.

R1 differentiates through the discriminator twice. PyTorch writes the second derivative of a convolution with respect to
its weight as a convolution whose *kernel* is as large as the image, which is several times slower than the whole step.
Here each derivative is one of the three maps below, and those are closed under differentiation:

    y = conv(x, W)        x_bar = conv_input(y_bar, W)        W_bar = conv_weight(y_bar, x)

All three are linear in both arguments, so the derivative of each is made of the other two.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def conv2d(x: Tensor, weight: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
    """Cross-correlation of x [N, I, H, W] with weight [O, I, k, k], differentiable any number of times.

    Under autocast both are cast first, as `torch.nn.functional.conv2d` does.
    """
    device = x.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        x, weight = x.to(dtype), weight.to(dtype)
    result: Tensor = _Conv.apply(x, weight, stride, padding)
    return result


def _grads(
    y_bar: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, mask: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    by_x, by_weight, _ = torch.ops.aten.convolution_backward(
        y_bar, x, weight, None, (stride, stride), (padding, padding), (1, 1), False, (0, 0), 1, (*mask, False)
    )
    return by_x, by_weight


def _placeholder(like: Tensor, shape: torch.Size) -> Tensor:
    """Uninitialised values where only a shape is needed, but in the layout of `like`.

    cuDNN's derivatives are computed in the layout of this tensor: an expanded number would count as
    channels-outermost and turn every channels-last gradient around twice.
    """
    inner = like.is_contiguous(memory_format=torch.channels_last) and not like.is_contiguous()
    layout = torch.channels_last if inner else torch.contiguous_format
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=layout)


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.args = stride, padding
        return F.conv2d(x, weight, stride=stride, padding=padding)

    @staticmethod
    def backward(ctx: Any, y_bar: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        x_bar = _ConvInput.apply(y_bar, weight, x.shape, *ctx.args) if ctx.needs_input_grad[0] else None
        w_bar = _ConvWeight.apply(y_bar, x, weight.shape, *ctx.args) if ctx.needs_input_grad[1] else None
        return x_bar, w_bar, None, None


class _ConvInput(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, y_bar: Tensor, weight: Tensor, shape: torch.Size, stride: int, padding: int
    ) -> Tensor:
        ctx.save_for_backward(y_bar, weight)
        ctx.args = stride, padding
        x = _placeholder(y_bar, shape)
        return _grads(y_bar, x, weight, stride, padding, (True, False))[0]

    @staticmethod
    def backward(ctx: Any, x_bar_bar: Tensor) -> tuple[Tensor | None, ...]:
        y_bar, weight = ctx.saved_tensors
        to_y = _Conv.apply(x_bar_bar, weight, *ctx.args) if ctx.needs_input_grad[0] else None
        to_w = (
            _ConvWeight.apply(y_bar, x_bar_bar, weight.shape, *ctx.args) if ctx.needs_input_grad[1] else None
        )
        return to_y, to_w, None, None, None


class _ConvWeight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y_bar: Tensor, x: Tensor, shape: torch.Size, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(y_bar, x)
        ctx.args = stride, padding
        weight = _placeholder(x, shape)
        return _grads(y_bar, x, weight, stride, padding, (False, True))[1]

    @staticmethod
    def backward(ctx: Any, w_bar_bar: Tensor) -> tuple[Tensor | None, ...]:
        y_bar, x = ctx.saved_tensors
        to_y = _Conv.apply(x, w_bar_bar, *ctx.args) if ctx.needs_input_grad[0] else None
        to_x = _ConvInput.apply(y_bar, w_bar_bar, x.shape, *ctx.args) if ctx.needs_input_grad[1] else None
        return to_y, to_x, None, None, None
