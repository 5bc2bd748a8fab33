"""StyleGAN2's layers, written from the papers (Karras et al. 2020) and from facts of the EG3D format.

Parameter names follow EG3D's state dicts, so that weights move across without a table. Runtime gains
("equalised learning rate"): weights are stored with unit variance and scaled when used.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from head3d_core.config import NoiseMode
from head3d_core.model.filters import (
    Activation,
    bias_act,
    fir,
    layer_epilogue,
    scale_channels,
    upfirdn2d,
    upsample2d,
)
from head3d_core.ops import random


def normalise_2nd_moment(x: Tensor) -> Tensor:
    """x / sqrt(mean(x^2) + 1e-8) over the last dimension."""
    return x * (x.square().mean(-1, keepdim=True) + 1e-8).rsqrt()


class FullyConnected(nn.Module):
    """y = x (W m / sqrt(n))^T + m b, then an activation with its gain.

    Args:
        inputs, outputs: features.
        activation: "linear" or "lrelu".
        lr_multiplier: m; parameters are stored divided by it, so that they learn m times slower.
        bias_init: initial value of the effective bias.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        activation: Activation = "linear",
        lr_multiplier: float = 1.0,
        bias_init: float = 0.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((outputs,), bias_init / lr_multiplier))
        self.activation = activation
        self.lr_multiplier = lr_multiplier

    def effective(self) -> tuple[Tensor, Tensor]:
        """Weight [outputs, inputs] and bias [outputs] with the gains folded in."""
        gain = self.lr_multiplier / math.sqrt(self.weight.shape[1])
        return self.weight * gain, self.bias if self.lr_multiplier == 1 else self.bias * self.lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs] -> [N, outputs]."""
        weight, bias = self.effective()
        y = F.linear(x, weight, bias)
        return y if self.activation == "linear" else bias_act(y, None, self.activation)


class Mapping(nn.Module):
    """w = M(z, p), Eq. 1: latent code and camera to an intermediate code.

    Either input may be absent (z_dim = 0 in the discriminator). Both are normalised to unit second moment
    and concatenated, z first.

    Args:
        z_dim: length of z, or 0.
        w_dim: width of all layers.
        layers: number of fully connected layers (learning rate multiplier 0.01).
    """

    def __init__(self, z_dim: int, w_dim: int, layers: int) -> None:
        super().__init__()
        self.embed = FullyConnected(25, w_dim)
        for i in range(layers):
            inputs = z_dim + w_dim if i == 0 else w_dim
            self.add_module(f"fc{i}", FullyConnected(inputs, w_dim, "lrelu", lr_multiplier=0.01))
        self.layers = layers
        self.z_dim = z_dim
        if z_dim:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, z: Tensor | None, camera: Tensor) -> Tensor:
        """z [N, z_dim] (or None), camera [N, 25] -> w [N, w_dim]."""
        with torch.autocast(camera.device.type, enabled=False):  # small, and the camera needs all its digits
            x = normalise_2nd_moment(self.embed(camera))
            if z is not None:
                x = torch.cat([normalise_2nd_moment(z.to(torch.float32)), x], -1)
            for i in range(self.layers):
                x = self.get_submodule(f"fc{i}")(x)
        return x


def modulated_conv(x: Tensor, weight: Tensor, style: Tensor, up: bool = False) -> Tensor:
    """Convolution whose input channels are scaled per sample and whose output channels are then renormalised.

    W1 = W s;  d[n, o] = (sum_{i,k} W1^2 + 1e-8)^(-1/2);  output = conv(x, W1 d). Computed as
    d conv(x s, W), which shares one weight over the batch and needs no grouped convolution; see also `one_head`.

    Args:
        x: [N, I, H, W].
        weight: [O, I, k, k], k = 1 or 3.
        style: [N, I].
        up: stride-2 transposed convolution (H -> 2H + 1) followed by the FIR filter (-> 2H). Relative to the
            other layers the kernel then appears flipped; EG3D's weights are trained that way.

    Returns:
        [N, O, H', W'].
    """
    weight, style, demod = demodulation(weight, style, x.dtype)
    return scale_channels(scaled_conv(x, weight, style, up), demod)


Modulation = tuple[Tensor, Tensor, Tensor]
"""Weight [O, I, k, k], style [N, I] and demodulation [N, O]."""


def demodulation(weight: Tensor, style: Tensor, dtype: torch.dtype) -> Modulation:
    """Weight and style as a convolution in `dtype` should get them, and d [N, O] of `modulated_conv` for them."""
    if dtype == torch.float16:
        # Keep products inside float16's range; demodulation undoes both factors.
        weight = weight / (weight.abs().amax([1, 2, 3], keepdim=True) * math.sqrt(weight[0].numel()))
        style = style / style.abs().amax(1, keepdim=True)
    energy = style.square() @ weight.square().sum([2, 3]).T
    return weight, style, (energy + 1e-8).rsqrt()


def one_head(x: Tensor) -> bool:
    """True on a CPU for a batch of one: scaling the weight is then cheaper than scaling the activations."""
    return x.is_cpu and len(x) == 1


def pointwise_conv(x: Tensor, weight: Tensor, style: Tensor) -> Tensor:
    """`scaled_conv` for a 1x1 kernel, as a matrix product for each image: x is read once and not written again.

    Outputs are rounded up to 8 channels (the result is then a slice of them) and images cut into parts: products, and
    those of the gradients, are faster so. In float32 it is a matrix product for PyTorch's TF32 settings too.
    """
    n, c, h, w = x.shape
    outputs, parts = len(weight), h * w // 4096 if h * w % 4096 == 0 else 1
    matrix = F.pad((weight[:, :, 0, 0] * style[:, None]).to(x.dtype), (0, 0, 0, -outputs % 8))
    rows = x.permute(0, 2, 3, 1).reshape(n * parts, h * w // parts, c)
    y = rows @ matrix.repeat_interleave(parts, 0).mT
    return y.reshape(n, h, w, matrix.shape[1]).permute(0, 3, 1, 2)[:, :outputs]


def scaled_conv(x: Tensor, weight: Tensor, style: Tensor | None, up: bool = False) -> Tensor:
    """conv(x s, W) of `modulated_conv`, without the demodulation; style None: x is x s already."""
    if style is not None and one_head(x):
        weight = weight * style[0, :, None, None]
    elif style is not None:
        x = scale_channels(x, style)
    kernel = weight.to(x.dtype)
    if up:
        x = F.conv_transpose2d(x, kernel.transpose(0, 1), stride=2)
        return upfirdn2d(x, fir(x.device), padding=(1, 1, 1, 1), gain=4)
    return F.conv2d(x, kernel, padding=weight.shape[-1] // 2)


class SynthesisLayer(nn.Module):
    """Modulated 3x3 convolution, noise, bias, leaky ReLU.

    Args:
        inputs, outputs: channels.
        w_dim: length of its code.
        resolution: side of the output.
        up: doubles the resolution.
        clamp: limit of the output, or None.
        index: which noise stream it draws from.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        w_dim: int,
        resolution: int,
        up: bool = False,
        clamp: float | None = None,
        index: int = 0,
    ) -> None:
        super().__init__()
        self.affine = FullyConnected(w_dim, inputs, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.noise_const: Tensor
        self.resolution = resolution
        self.up = up
        self.clamp = clamp
        self.index = index

    def modulation(self, x: Tensor, w: Tensor) -> Modulation:
        """What `demodulation` makes of w [N, w_dim], for an input of the type that a convolution of x has."""
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        with torch.autocast(device, enabled=False):  # small: casts would cost more than they save
            return demodulation(self.weight, self.affine(w), dtype)

    def forward(
        self,
        x: Tensor,
        w: Tensor,
        noise: NoiseMode = "const",
        seeds: Tensor | None = None,
        given: Modulation | None = None,
        after: Tensor | None = None,
    ) -> Tensor:
        """x [N, inputs, H, W], w [N, w_dim] -> [N, outputs, resolution, resolution].

        Args:
            given: `modulation` of x and w, whose style x has been multiplied with already.
            after: see `filters.layer_epilogue`.
        """
        weight, style, demod = given or self.modulation(x, w)
        scale = None if one_head(x) else demod
        if scale is None:
            weight = weight * demod[0, :, None, None, None]
        x = scaled_conv(x, weight, None if given else style, self.up)
        maps = None
        if noise == "const":
            maps = self.noise_const[None, None]
        elif noise == "random":
            side, stream = self.resolution, random.STREAM_NOISE_MAPS + 2 * self.index
            if seeds is None:
                maps = torch.randn(len(x), 1, side, side, device=x.device)
            else:
                maps = random.normal(seeds, side, side, stream)[:, None]
        strength = None if maps is None else self.noise_strength
        return layer_epilogue(x, scale, maps, strength, self.bias, "lrelu", clamp=self.clamp, after=after)


class ToRGB(nn.Module):
    """1x1 modulated convolution without demodulation, to image or plane channels."""

    def __init__(self, inputs: int, outputs: int, w_dim: int, clamp: float | None = None) -> None:
        super().__init__()
        self.affine = FullyConnected(w_dim, inputs, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.clamp = clamp

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """x [N, inputs, H, W], w [N, w_dim] -> [N, outputs, H, W]."""
        with torch.autocast(x.device.type, enabled=False):
            style = self.affine(w) / math.sqrt(self.weight.shape[1])
        inner = x.is_cuda and x.is_contiguous(memory_format=torch.channels_last)
        conv = pointwise_conv if inner else scaled_conv
        return bias_act(conv(x, self.weight, style), self.bias, clamp=self.clamp)


class SynthesisBlock(nn.Module):
    """Two layers and a ToRGB whose output adds to the up-sampled image so far (skip architecture).

    Args:
        inputs: channels in; 0 for the first block, which starts from a learned constant.
        outputs: channels out.
        w_dim: length of the codes.
        resolution: side of the output.
        image_channels: channels of the accumulated image.
        up: whether the block doubles the resolution (super-resolution blocks may not).
        clamp: limit of all its activations, or None.
        index: number of layers before it, for the noise streams.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        w_dim: int,
        resolution: int,
        image_channels: int,
        up: bool = True,
        clamp: float | None = None,
        index: int = 0,
    ) -> None:
        super().__init__()
        self.up = up
        if inputs == 0:
            self.const = nn.Parameter(torch.randn(outputs, resolution, resolution))
        else:
            self.conv0 = SynthesisLayer(inputs, outputs, w_dim, resolution, up, clamp, index)
            index += 1
        self.conv1 = SynthesisLayer(outputs, outputs, w_dim, resolution, False, clamp, index)
        self.torgb = ToRGB(outputs, image_channels, w_dim, clamp)
        self.first = inputs == 0

    def forward(
        self,
        x: Tensor | None,
        image: Tensor | None,
        ws: Tensor,
        noise: NoiseMode = "const",
        seeds: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """x, image and codes ws [N, 3, w_dim] ([N, 2, w_dim] in the first block) -> x, image."""
        codes = iter(ws.unbind(1))
        if x is None:
            x = self.conv1(
                channels_innermost(self.const.expand(len(ws), -1, -1, -1)), next(codes), noise, seeds
            )
        else:
            x, first, second = channels_innermost(x), next(codes), next(codes)
            # Only conv1 reads what conv0 makes: its style is multiplied in where that is written.
            given = None if one_head(x) else self.conv1.modulation(x, second)
            x = self.conv0(x, first, noise, seeds, after=None if given is None else given[1])
            x = self.conv1(x, second, noise, seeds, given)
        rgb = self.torgb(x, next(codes)).to(torch.float32)
        if image is not None:
            # The image accumulator stays in float32 whatever the layers run in.
            rgb = rgb + (upsample2d(image) if self.up else image)
        return x, rgb


def channels_innermost(x: Tensor) -> Tensor:
    """x [N, C, H, W], on a CPU with its channels innermost, where convolutions and the renderer are faster."""
    return x.contiguous(memory_format=torch.channels_last) if x.is_cpu else x


def channels_at(resolution: int, base: int, maximum: int) -> int:
    """C(r) = min(base // r, maximum)."""
    return min(base // resolution, maximum)


class SynthesisNetwork(nn.Module):
    """StyleGAN2's synthesis network, from a 4x4 constant to `resolution`.

    With a fork (not in StyleGAN2) the last channels of the output leave the common blocks at one resolution and have
    blocks of their own from there on, which take the same codes.

    Args:
        w_dim: length of the codes.
        resolution: side of the output, a power of two, at least 4.
        image_channels: channels of the output (the planes side by side).
        channel_base, channel_max: widths, see `channels_at`.
        clamp: limit of all activations, or None.
        fork: resolution of the first block that the last so many channels have to themselves; (0, 0): no fork.
    """

    def __init__(
        self,
        w_dim: int,
        resolution: int,
        image_channels: int,
        channel_base: int,
        channel_max: int,
        clamp: float | None = None,
        fork: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__()
        self.resolutions = [2**k for k in range(2, resolution.bit_length())]
        self.num_ws = 2 * len(self.resolutions)
        self.fork, own = fork
        inputs = 0
        for k, r in enumerate(self.resolutions):
            outputs, index = channels_at(r, channel_base, channel_max), max(0, 2 * k - 1)
            if self.fork and r >= self.fork:
                block = SynthesisBlock(inputs, outputs, w_dim, r, own, clamp=clamp, index=self.num_ws + index)
                self.add_module(f"own{r}", block)
            channels = image_channels - (own if self.fork and r >= self.fork else 0)
            self.add_module(
                f"b{r}", SynthesisBlock(inputs, outputs, w_dim, r, channels, clamp=clamp, index=index)
            )
            inputs = outputs

    def forward(self, ws: Tensor, noise: NoiseMode = "const", seeds: Tensor | None = None) -> Tensor:
        """ws [N, num_ws, w_dim] -> [N, image_channels, resolution, resolution].

        Block k >= 1 takes codes 2k-1, 2k, 2k+1: its ToRGB shares a code with the next block's first layer.
        """
        x: Tensor | None = None
        image: Tensor | None = None
        own: tuple[Tensor, Tensor] | None = None
        for k, r in enumerate(self.resolutions):
            codes = ws[:, max(0, 2 * k - 1) : 2 * k + 2]
            if r == self.fork:
                assert x is not None
                assert image is not None
                count = self.get_submodule(f"b{r}.torgb").get_parameter("bias").numel()
                image, image_own = image[:, :count], image[:, count:]
                own = x, image_own
            if own is not None:
                own = self.get_submodule(f"own{r}")(*own, codes, noise, seeds)
            x, image = self.get_submodule(f"b{r}")(x, image, codes, noise, seeds)
        assert image is not None
        return image if own is None else torch.cat([image, own[1]], 1)
