"""The convolution with cheap second derivatives: same values and derivatives as PyTorch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from head3d_core.ops.conv2d import conv2d

CASES = [(3, 1, 1), (3, 2, 0), (1, 1, 0)]


def _inputs(kernel: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(2, 3, 7, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 3, kernel, kernel, dtype=torch.float64, requires_grad=True)
    return x, weight


@pytest.mark.parametrize(("kernel", "stride", "padding"), CASES)
def test_first_and_second_derivatives(kernel: int, stride: int, padding: int) -> None:
    x, weight = _inputs(kernel)
    assert torch.autograd.gradcheck(lambda a, b: conv2d(a, b, stride, padding), (x, weight))
    assert torch.autograd.gradgradcheck(lambda a, b: conv2d(a, b, stride, padding), (x, weight))


@pytest.mark.parametrize(("kernel", "stride", "padding"), CASES)
def test_r1_gradient_equals_pytorchs(kernel: int, stride: int, padding: int) -> None:
    x, weight = _inputs(kernel)
    found = []
    for conv in (conv2d, lambda a, b, s, p: F.conv2d(a, b, stride=s, padding=p)):
        y = conv(x, weight, stride, padding)
        (grad,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(grad.square().sum(), (x, weight)))
    for ours, theirs in zip(*found, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-10)


def test_autocast_casts_like_pytorch() -> None:
    x, weight = torch.randn(1, 3, 5, 5), torch.randn(2, 3, 3, 3, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, reference = conv2d(x, weight, padding=1), F.conv2d(x, weight, padding=1)
    assert y.dtype == reference.dtype == torch.bfloat16
    assert torch.equal(y, reference)
    y.sum().backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32
