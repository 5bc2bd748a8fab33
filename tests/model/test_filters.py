"""FIR resampling, bias and activation, resizing: against loops, with derivatives of both orders."""

from __future__ import annotations

import math

import numpy as np
import plain
import pytest
import torch
from helpers import refuses

from head3d_core.model import filters

USES = {
    "image up-sampling": (2, 1, (2, 1, 2, 1), 4.0),
    "image down-sampling": (1, 2, (1, 1, 1, 1), 1.0),
    "plain filtering": (1, 1, (2, 1, 2, 1), 1.0),
    "after the transposed convolution": (1, 1, (1, 1, 1, 1), 4.0),
    "before the stride-2 convolution": (1, 1, (2, 2, 2, 2), 1.0),
    "lopsided": (3, 2, (0, 3, 1, 2), 0.7),
}


@pytest.mark.parametrize("use", USES)
def test_upfirdn2d_is_the_double_sum(use: str) -> None:
    up, down, pad, gain = USES[use]
    x = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    kernel = torch.randn(4, 4, dtype=torch.float64)  # not symmetric: its orientation shows
    found = filters.upfirdn2d(x, kernel, up, down, pad, gain)
    np.testing.assert_allclose(
        plain.f64(found), plain.upfirdn2d(plain.f64(x), plain.f64(kernel), up, down, pad, gain), atol=1e-10
    )


def test_the_kernel() -> None:
    kernel = filters.fir(torch.device("cpu"))
    np.testing.assert_allclose(plain.f64(kernel), plain.FIR)
    assert float(kernel.sum()) == 1.0


def test_the_kernel_made_in_inference_mode_can_still_be_differentiated_through() -> None:
    filters._fir.cache_clear()
    with torch.inference_mode():
        filters.upsample2d(torch.ones(1, 1, 4, 4))
    x = torch.ones(1, 1, 4, 4, requires_grad=True)
    filters.upsample2d(x).sum().backward()
    assert x.grad is not None
    filters._fir.cache_clear()


def test_resampling_keeps_a_constant_picture() -> None:
    x = torch.full((1, 2, 8, 8), 3.0)
    up, down = filters.upsample2d(x), filters.downsample2d(x)
    assert up.shape == (1, 2, 16, 16)
    assert down.shape == (1, 2, 4, 4)
    torch.testing.assert_close(up[..., 3:-3, 3:-3], torch.full((1, 2, 10, 10), 3.0))
    torch.testing.assert_close(down[..., 1:-1, 1:-1], torch.full((1, 2, 2, 2), 3.0))


@pytest.mark.parametrize("activation", ["linear", "lrelu"])
@pytest.mark.parametrize(("gain", "clamp"), [(1.0, None), (math.sqrt(0.5), 1.5), (2.0, 0.3)])
def test_bias_act_is_the_loop(activation: filters.Activation, gain: float, clamp: float | None) -> None:
    x, bias = torch.randn(2, 3, 4, 5, dtype=torch.float64) * 2, torch.randn(3, dtype=torch.float64)
    for b in (bias, None):
        found = filters.bias_act(x, b, activation, gain, clamp)
        exact = None if b is None else plain.f64(b)
        expected = plain.bias_act(plain.f64(x), exact, activation == "lrelu", gain, clamp)
        np.testing.assert_allclose(plain.f64(found), expected, atol=1e-12)


def test_the_clamp_scales_with_the_gain() -> None:
    x = torch.tensor([[1e6], [-1e6]])
    found = filters.bias_act(x, None, "lrelu", math.sqrt(0.5), 256.0)
    torch.testing.assert_close(found, torch.tensor([[181.0193], [-181.0193]]))


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 5), (0, 4, 2, 2)])
def test_bias_act_of_any_rank(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    assert filters.bias_act(x, torch.ones(4)).shape == shape


@pytest.mark.parametrize("sizes", [(6, 16), (16, 6), (9, 4), (4, 4), (5, 7)])
@pytest.mark.parametrize("antialias", [True, False])
def test_resize_is_the_weighted_sum(sizes: tuple[int, int], antialias: bool) -> None:
    x = torch.randn(1, 2, sizes[0], sizes[0], dtype=torch.float64)
    found = filters.resize(x, sizes[1], antialias)
    np.testing.assert_allclose(plain.f64(found), plain.bilinear(plain.f64(x), sizes[1], antialias), atol=1e-6)


def test_derivatives_of_both_orders() -> None:
    """R1 differentiates twice. Values stay away from the kinks at 0 and at the clamp."""
    x = (torch.randn(1, 2, 4, 4, dtype=torch.float64) + 3).requires_grad_()
    bias = torch.randn(2, dtype=torch.float64, requires_grad=True)
    kernel = torch.randn(3, 3, dtype=torch.float64)

    def act(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return filters.bias_act(a, b, "lrelu", 0.7, 50.0, "reference") ** 2

    def fir(a: torch.Tensor) -> torch.Tensor:
        return filters.upfirdn2d(a, kernel, 2, 1, (2, 1, 2, 1), 1.5, "reference") ** 2

    assert torch.autograd.gradcheck(act, (x, bias))
    assert torch.autograd.gradgradcheck(act, (x, bias))
    assert torch.autograd.gradcheck(fir, (x,))
    assert torch.autograd.gradgradcheck(fir, (x,))


def test_bad_input() -> None:
    for bias in (torch.zeros(2), torch.zeros(1, 3)):
        refuses(r"bias must be \[C\]", filters.bias_act, torch.zeros(1, 3, 2, 2), bias)
    refuses("upfirdn2d takes x", filters.upfirdn2d, torch.zeros(3, 4, 4), torch.zeros(2, 2))
    refuses("upfirdn2d takes x", filters.upfirdn2d, torch.zeros(1, 3, 4, 4), torch.zeros(4))
