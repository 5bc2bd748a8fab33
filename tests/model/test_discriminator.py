"""Dual discrimination: layers against plain NumPy, groups, both inputs, first and second derivatives."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import plain
import pytest
import torch
from helpers import refuses

from head3d_core import config
from head3d_core.model import cameras
from head3d_core.model.discriminator import Conv2d, Discriminator, DiscriminatorBlock, minibatch_std

TINY = config.preset("tiny").discriminator


def make(**changes: Any) -> Discriminator:
    torch.manual_seed(0)
    return Discriminator(dataclasses.replace(TINY, **changes))


def draw(n: int = 4, raw: int = 16) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    camera = cameras.orbit(torch.linspace(-1, 1, n), 0.1)
    return torch.randn(n, 3, 64, 64), torch.randn(n, 3, raw, raw), camera


def conv(layer: Conv2d, x: plain.Array, gain: float = 1.0) -> plain.Array:
    """The layer in NumPy: filter, keep every second sample, cross-correlate, bias, activation."""
    w = plain.f64(layer.weight) / math.sqrt(layer.weight[0].numel())
    k = w.shape[-1]
    if layer.down:
        x = plain.upfirdn2d(x, plain.FIR, 1, 1, (1, 1, 1, 1) if k == 1 else (2, 2, 2, 2))
    y = plain.correlate(x, w, "valid" if layer.down else "same")
    y = y[:, :, ::2, ::2] if layer.down else y
    bias = None if layer.bias is None else plain.f64(layer.bias)
    return plain.bias_act(y, bias, layer.activation == "lrelu", gain, layer.clamp)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize("clamp", [None, 0.5])
def test_conv_is_the_sum_over_taps(kernel: int, down: bool, clamp: float | None) -> None:
    layer = Conv2d(3, 4, kernel, activation="lrelu", down=down, clamp=clamp)
    with torch.no_grad():
        assert layer.bias is not None
        layer.bias.normal_()
    x = torch.randn(2, 3, 6, 6)
    np.testing.assert_allclose(plain.f64(layer(x, 0.7)), conv(layer, plain.f64(x), 0.7), atol=1e-5)


def test_block_clamps_its_branch_but_not_its_skip() -> None:
    block = DiscriminatorBlock(3, 4, 0, clamp=0.05)
    x = torch.randn(2, 3, 8, 8) * 5
    gain = math.sqrt(0.5)
    a = plain.f64(x)
    branch = conv(block.conv1, conv(block.conv0, a), gain)
    skip = conv(block.skip, a, gain)
    np.testing.assert_allclose(plain.f64(block(x)), skip + branch, atol=1e-5)
    assert np.abs(branch).max() <= 0.05 * gain + 1e-9
    assert np.abs(skip).max() > 0.5
    assert block.skip.bias is None
    assert block.skip.clamp is None


@pytest.mark.parametrize(("n", "group"), [(4, 4), (8, 4), (6, 2), (3, 4), (1, 4), (0, 4)])
def test_minibatch_std_is_the_loop(n: int, group: int) -> None:
    x = torch.randn(n, 3, 2, 2)
    found = minibatch_std(x, group)
    assert torch.equal(found[:, :3], x)
    assert found.shape == (n, 4, 2, 2)
    groups = n // min(group, n or 1)
    for s in range(n):
        members = plain.f64(x[[m for m in range(n) if m % groups == s % groups]])
        expected = np.sqrt(members.var(0) + 1e-8).mean()
        np.testing.assert_allclose(plain.f64(found[s, 3]), expected, rtol=1e-5)


@pytest.mark.parametrize("raw", [8, 16, 64, 100])
def test_any_raw_size(raw: int) -> None:
    assert make()(*draw(4, raw)).shape == (4, 1)


def test_both_inputs_and_the_camera_count() -> None:
    D, (image, raw, camera) = make(), draw()
    base = D(image, raw, camera)
    assert not torch.allclose(base, D(image + 0.1, raw, camera))
    assert not torch.allclose(base, D(image, raw + 0.1, camera))
    assert not torch.allclose(base, D(image, raw, camera.roll(1, 0)))
    assert torch.equal(base, D(image, raw, camera))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "last"])
def test_the_image_lies_as_the_weights_do(layout: torch.memory_format) -> None:
    """Else the derivative of the first convolution turns the largest gradient there is around."""
    D, seen = make().to(memory_format=layout), []
    D.get_submodule("b64").register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    inputs = draw()
    torch.testing.assert_close(D(*inputs), make()(*inputs), rtol=1e-4, atol=1e-4)
    assert seen[0].is_contiguous(memory_format=layout)


def test_groups_are_the_only_coupling() -> None:
    """With groups of one, a sample's logit does not depend on its batch."""
    D, (image, raw, camera) = make(group_size=1), draw()
    together = D(image, raw, camera)
    alone = torch.cat([D(image[n : n + 1], raw[n : n + 1], camera[n : n + 1]) for n in range(4)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_camera_noise() -> None:
    D, inputs = make(camera_noise=1.0), draw()

    def noisy(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return D(*inputs)

    first, again, other = noisy(1), noisy(1), noisy(2)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert D(*(x[:1] for x in inputs)).isfinite().all(), "a single camera has no spread to scale with"


def test_second_derivatives_of_a_block() -> None:
    """R1 differentiates gradients. In float64, values and both orders agree with finite differences."""
    block = DiscriminatorBlock(1, 2, 0, clamp=50.0).double()
    names, values = zip(*block.named_parameters(), strict=True)

    def run(x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        own = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(block, own, (x,)) ** 2

    inputs = (torch.randn(1, 1, 4, 4, dtype=torch.float64), *values)
    inputs = tuple(x.detach().clone().requires_grad_() for x in inputs)
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True)


def test_slope_of_the_r1_penalty() -> None:
    """A step in weight space changes the penalty as its gradient says.

    Only after the last convolution: before it the penalty jumps wherever a unit crosses the kink of its activation.
    """
    D, (image, raw, camera) = make(), draw()
    image.requires_grad_()
    raw.requires_grad_()

    def penalty() -> torch.Tensor:
        grads = torch.autograd.grad(D(image, raw, camera).sum(), (image, raw), create_graph=True)
        return sum(g.square().sum([1, 2, 3]) for g in grads).mean()  # type: ignore[union-attr, return-value]

    layer = D.get_parameter("b4.out.weight")
    (slope,) = torch.autograd.grad(penalty(), layer)
    direction, step = slope / slope.norm(), 0.01 * float(layer.detach().norm())
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            layer.add_(direction, alpha=sign * step)
        values.append(float(penalty().detach()))
        with torch.no_grad():
            layer.sub_(direction, alpha=sign * step)
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(float(slope.norm()), rel=1e-3)


def test_clamp_off() -> None:
    inputs = draw()
    big = tuple(x * 1e4 if x.ndim == 4 else x for x in inputs)
    held, free = make(), make(clamp=None)
    torch.testing.assert_close(held(*inputs), free(*inputs))
    assert not torch.allclose(held(*big), free(*big))


def test_bad_input() -> None:
    D, (image, raw, camera) = make(), draw()
    for call, says in (
        (lambda: D(image[..., :32], raw, camera), r"image must be \[N, 3, 64, 64\]"),
        (lambda: D(image[:, :1], raw, camera), "image must be"),
        (lambda: D(image, raw[:2], camera), r"raw must be \[4, 3, R, R\]"),
        (lambda: D(image, raw[..., :8], camera), "raw must be"),
        (lambda: D(image, raw, camera[:, :24]), r"camera must be \[N, 25\]"),
        (lambda: D(image, raw, camera[:3]), "one batch size"),
        (
            lambda: D(*(torch.cat([x[:3], x[:3]]) for x in (image, raw, camera))),
            r"batch \(6\) must be a multiple of",
        ),
    ):
        refuses(says, call)
