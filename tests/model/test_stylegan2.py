"""StyleGAN2's layers against plain NumPy, and the facts that EG3D's weights depend on."""

from __future__ import annotations

import functools
import math

import numpy as np
import plain
import pytest
import torch

from head3d_core.model import stylegan2
from head3d_core.model.stylegan2 import (
    FullyConnected,
    Mapping,
    SynthesisBlock,
    SynthesisLayer,
    SynthesisNetwork,
    ToRGB,
    modulated_conv,
    pointwise_conv,
    scaled_conv,
)


@pytest.mark.parametrize(("k", "up"), [(1, False), (3, False), (3, True)])
@pytest.mark.parametrize("demodulate", [False, True])
def test_modulated_conv_is_the_per_sample_loop(up: bool, demodulate: bool, k: int) -> None:
    x, weight = torch.randn(2, 3, 5, 6, dtype=torch.float64), torch.randn(4, 3, k, k, dtype=torch.float64)
    style = torch.randn(2, 3, dtype=torch.float64)
    found = (modulated_conv if demodulate else scaled_conv)(x, weight, style, up)
    expected = plain.modulated_conv(plain.f64(x), plain.f64(weight), plain.f64(style), up, demodulate)
    np.testing.assert_allclose(plain.f64(found), expected, atol=1e-6)  # the FIR kernel itself is float32


@pytest.mark.parametrize("outputs", [3, 8, 96])
@pytest.mark.parametrize("side", [5, 64, 128])
def test_pointwise_conv_is_scaled_conv_with_its_gradients(outputs: int, side: int) -> None:
    """Sizes with and without several parts of an image; it runs on GPUs only, but can anywhere."""
    f64 = {"dtype": torch.float64, "requires_grad": True}
    leaves = (
        torch.randn(2, 6, side, side, **f64),
        torch.randn(outputs, 6, 1, 1, **f64),
        torch.randn(2, 6, **f64),
    )
    assert pointwise_conv(leaves[0][:0], leaves[1], leaves[2][:0]).shape == (0, outputs, side, side)
    found, expected = pointwise_conv(*leaves), scaled_conv(*leaves)
    torch.testing.assert_close(found, expected)
    grad = torch.randn_like(expected)
    torch.testing.assert_close(*(torch.autograd.grad(y, leaves, grad) for y in (found, expected)))


@pytest.mark.parametrize("up", [False, True])
def test_a_head_alone_is_the_head_in_a_batch(up: bool) -> None:
    """Alone, on a CPU, its scales go into the weight; in a batch they are passes over the activations."""
    layer, torgb = SynthesisLayer(6, 5, 8, 16 if up else 8, up), ToRGB(6, 3, 8)
    layer.noise_strength.data.fill_(0.3)
    x, w = torch.randn(2, 6, 8, 8), torch.randn(2, 8)
    for module in (layer, torgb):
        torch.testing.assert_close(module(x[:1], w[:1]), module(x, w)[:1], atol=1e-5, rtol=1e-5)


def test_each_layer_of_a_block_has_its_own_code() -> None:
    """In a batch conv0 multiplies with conv1's style what it writes; a head alone has its styles in the weights."""
    block = SynthesisBlock(6, 5, 8, 16, 3)
    x, image, codes = torch.randn(2, 6, 8, 8), torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8)
    affines = block.conv0.affine.weight, block.conv1.affine.weight
    batch = block(x, image, codes)
    alone = [
        torch.cat(part)
        for part in zip(*(block(x[k, None], image[k, None], codes[k, None]) for k in (0, 1)), strict=True)
    ]
    torch.testing.assert_close(list(batch), alone, atol=2e-5, rtol=1e-4)
    slopes = [torch.autograd.grad(rgb.square().sum(), affines) for rgb in (batch[1], alone[1])]
    torch.testing.assert_close(*slopes, atol=2e-4, rtol=1e-3)


def test_demodulation_gives_unit_variance() -> None:
    x = torch.randn(1, 64, 32, 32)
    y = modulated_conv(x, torch.randn(8, 64, 3, 3) * 17, torch.rand(1, 64) * 5)
    assert float(y[..., 1:-1, 1:-1].std()) == pytest.approx(1, abs=0.05)


def test_demodulation_constant_under_the_root() -> None:
    """Tiny weights: the 1e-8 keeps the result finite and small (the parity file cannot see it)."""
    y = modulated_conv(torch.ones(1, 1, 3, 3), torch.full((1, 1, 1, 1), 1e-5), torch.ones(1, 1))
    torch.testing.assert_close(y, torch.full((1, 1, 3, 3), 1e-5 / math.sqrt(1e-10 + 1e-8)))


def test_half_precision_rescaling_is_neutral() -> None:
    x, weight, style = torch.randn(2, 8, 6, 6), torch.randn(4, 8, 3, 3) * 300, torch.randn(2, 8) * 200
    whole = modulated_conv(x, weight, style)
    half = modulated_conv(x.half(), weight, style)
    assert bool(torch.isfinite(half).all())
    torch.testing.assert_close(half.float(), whole, rtol=2e-2, atol=2e-2)


def test_fully_connected_gains() -> None:
    layer = FullyConnected(9, 4, "lrelu", lr_multiplier=0.01, bias_init=0.5)
    assert float(layer.weight.detach().std()) == pytest.approx(100, rel=0.5)
    torch.testing.assert_close(layer.bias, torch.full((4,), 50.0))
    x = torch.randn(3, 9)
    y = x @ (layer.weight * 0.01 / 3).T + 0.5
    torch.testing.assert_close(layer(x), math.sqrt(2) * torch.where(y > 0, y, 0.2 * y))


def test_mapping_normalises_both_inputs() -> None:
    m = Mapping(8, 16, 2)
    z, camera = torch.randn(3, 8), torch.randn(3, 25)
    torch.testing.assert_close(m(z, camera), m(z * 7, camera), rtol=1e-4, atol=1e-5)
    x = stylegan2.normalise_2nd_moment(torch.randn(3, 8) * 5)
    torch.testing.assert_close(x.square().mean(-1), torch.ones(3))
    assert Mapping(0, 16, 2)(None, camera).shape == (3, 16)
    assert "w_avg" not in dict(Mapping(0, 16, 2).named_buffers())


def test_layer_orders_noise_bias_activation_clamp() -> None:
    layer = SynthesisLayer(3, 4, 5, 6, clamp=0.4)
    with torch.no_grad():
        layer.noise_strength.fill_(0.7)
        layer.bias.normal_()
    x, w = torch.randn(2, 3, 6, 6), torch.randn(2, 5)
    style = plain.affine(layer.affine, plain.f64(w))
    conv = plain.modulated_conv(plain.f64(x), plain.f64(layer.weight), style)
    y = conv + plain.f64(layer.noise_const) * 0.7 + plain.f64(layer.bias)[:, None, None]
    expected = np.clip(np.where(y > 0, y, 0.2 * y) * math.sqrt(2), -0.4, 0.4)
    np.testing.assert_allclose(plain.f64(layer(x, w)), expected, atol=1e-5)


def test_noise_modes() -> None:
    layer = SynthesisLayer(3, 4, 5, 6)
    with torch.no_grad():
        layer.noise_strength.fill_(1.0)
    x, w = torch.randn(2, 3, 6, 6), torch.randn(2, 5)
    seeds = torch.tensor([3, 4])
    none, const = layer(x, w, "none"), layer(x, w, "const")
    assert not torch.allclose(none, const)
    assert torch.equal(layer(x, w, "random", seeds), layer(x, w, "random", seeds))
    assert not torch.allclose(layer(x, w, "random"), layer(x, w, "random"))
    # a sample's noise follows its seed, not its place in the batch
    torch.testing.assert_close(layer(x[1:], w[1:], "random", seeds[1:]), layer(x, w, "random", seeds)[1:])


def test_layers_of_one_network_draw_different_noise() -> None:
    network = SynthesisNetwork(8, 16, 6, 64, 8)
    indices = [m.index for m in network.modules() if isinstance(m, SynthesisLayer)]
    assert sorted(indices) == list(range(5))


def test_torgb_style_gain_and_no_demodulation() -> None:
    layer = ToRGB(4, 6, 5, clamp=2.0)
    x, w = torch.randn(2, 4, 3, 3), torch.randn(2, 5)
    style = plain.affine(layer.affine, plain.f64(w)) / 2
    expected = plain.modulated_conv(plain.f64(x), plain.f64(layer.weight), style, demodulate=False)
    np.testing.assert_allclose(plain.f64(layer(x, w)), np.clip(expected, -2, 2), atol=1e-5)


def test_which_code_goes_where() -> None:
    """Block k takes codes 2k-1, 2k, 2k+1; changing one code changes nothing before it."""
    network = SynthesisNetwork(8, 16, 6, 64, 8).requires_grad_(False)
    assert network.num_ws == 6
    ws = torch.randn(1, 6, 8)
    seen: dict[str, torch.Tensor] = {}
    for r in (4, 8, 16):
        network.get_submodule(f"b{r}").register_forward_hook(
            lambda module, inputs, output, r=r: seen.update({f"x{r}": output[0], f"rgb{r}": output[1]})
        )
    network(ws)
    before = dict(seen)
    for i in range(6):
        other = ws.clone()
        other[:, i] += 1
        network(other)
        changed = [name for name in before if not torch.equal(before[name], seen[name])]
        assert changed == ["x4", "rgb4", "x8", "rgb8", "x16", "rgb16"][i:]


def test_backbone_clamp() -> None:
    free = SynthesisNetwork(8, 16, 6, 64, 8).requires_grad_(False)
    held = SynthesisNetwork(8, 16, 6, 64, 8, clamp=0.1).requires_grad_(False)
    held.load_state_dict(free.state_dict())
    ws = torch.randn(1, 6, 8)
    assert not torch.allclose(free(ws), held(ws))
    assert float(held(ws).abs().max()) < 3 * 4 * 0.1


def test_gradients() -> None:
    weight = torch.randn(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    x = torch.randn(1, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    style = torch.randn(1, 2, dtype=torch.float64, requires_grad=True)
    for up in (False, True):
        call = functools.partial(modulated_conv, up=up)
        assert torch.autograd.gradcheck(call, (x, weight, style), atol=1e-6)
