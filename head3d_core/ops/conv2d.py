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

Rule = tuple[str, Tensor, Tensor, torch.Size | None]
"""One of the three maps, its two arguments, and the shape of its result where they do not tell it."""


def conv2d(x: Tensor, weight: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
    """Cross-correlation of x [N, I, H, W] with weight [O, I, k, k], differentiable any number of times.

    Under autocast both are cast first, as `torch.nn.functional.conv2d` does.
    """
    device = x.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        x, weight = x.to(dtype), weight.to(dtype)
    result: Tensor = _Map.apply("conv", x, weight, None, stride, padding)
    return result


def _placeholder(like: Tensor, shape: torch.Size) -> Tensor:
    """Uninitialised values where only a shape is needed, but in the layout of `like`.

    cuDNN's derivatives are computed in the layout of this tensor: an expanded number would count as
    channels-outermost and turn every channels-last gradient around twice.
    """
    inner = like.is_contiguous(memory_format=torch.channels_last) and not like.is_contiguous()
    layout = torch.channels_last if inner else torch.contiguous_format
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=layout)


def _compute(rule: Rule, stride: int, padding: int) -> Tensor:
    name, first, second, shape = rule
    if shape is None:
        return F.conv2d(first, second, stride=stride, padding=padding)
    by_x = name == "conv_input"
    unknown = _placeholder(first if by_x else second, shape)
    x, weight = (unknown, second) if by_x else (second, unknown)
    how = (stride, stride), (padding, padding), (1, 1), False, (0, 0), 1
    both = torch.ops.aten.convolution_backward(first, x, weight, None, *how, (by_x, not by_x, False))
    found: Tensor = both[0 if by_x else 1]
    return found


def _derivatives(rule: Rule, grad: Tensor) -> tuple[Rule, Rule]:
    """By the first argument and by the second."""
    name, first, second, _ = rule
    if name == "conv":
        return ("conv_input", grad, second, first.shape), ("conv_weight", grad, first, second.shape)
    if name == "conv_input":
        return ("conv", grad, second, None), ("conv_weight", first, grad, second.shape)
    return ("conv", second, grad, None), ("conv_input", first, grad, second.shape)


class _Map(torch.autograd.Function):
    """One of the three maps, and its derivatives."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        name, first, second, shape, *ctx.how = arguments
        ctx.save_for_backward(first, second)
        ctx.name = name
        return _compute((name, first, second, shape), *ctx.how)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rules = _derivatives((ctx.name, *ctx.saved_tensors, None), grad)
        wanted = zip(rules, ctx.needs_input_grad[1:3], strict=True)
        return (
            None,
            *(_Map.apply(*rule, *ctx.how) if needed else None for rule, needed in wanted),
            *[None] * 3,
        )
