"""The discriminator with dual discrimination: final image and up-sampled raw image, six channels."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from head3d_core.config import DiscriminatorConfig
from head3d_core.model.cameras import check_camera
from head3d_core.model.filters import Activation, bias_act, fir, resize, upfirdn2d
from head3d_core.model.stylegan2 import FullyConnected, Mapping, channels_at
from head3d_core.ops.conv2d import conv2d
from head3d_core.utils.errors import Head3DError


class Conv2d(nn.Module):
    """Convolution with a run-time gain 1/sqrt(fan-in), optional down-sampling, bias and activation.

    Args:
        inputs, outputs: channels.
        kernel: 1 or 3.
        bias: whether it has one.
        activation: "linear" or "lrelu".
        down: FIR filter and stride 2.
        clamp: limit of the output (scaled by the call's gain), or None.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        bias: bool = True,
        activation: Activation = "linear",
        down: bool = False,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.activation = activation
        self.down = down
        self.clamp = clamp

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        """[N, inputs, H, W] -> [N, outputs, H', W']."""
        size = self.weight.shape[-1]
        scale = 1 / math.sqrt(self.weight[0].numel())
        linear = self.bias is None and self.activation == "linear" and self.clamp is None
        if linear:
            scale *= gain  # on the weight it costs nothing
        weight = (self.weight * scale).to(x.dtype)
        if not self.down:
            x = conv2d(x, weight, padding=size // 2)
        elif size == 1:
            x = conv2d(upfirdn2d(x, fir(x.device), down=2, padding=(1, 1, 1, 1)), weight)
        else:
            x = conv2d(upfirdn2d(x, fir(x.device), padding=(2, 2, 2, 2)), weight, stride=2)
        return x if linear else bias_act(x, self.bias, self.activation, gain, self.clamp)


class DiscriminatorBlock(nn.Module):
    """Residual block that halves the resolution; the top one starts from the six-channel image."""

    def __init__(self, inputs: int, outputs: int, image_channels: int, clamp: float | None) -> None:
        super().__init__()
        if image_channels:
            self.fromrgb = Conv2d(image_channels, inputs, 1, activation="lrelu", clamp=clamp)
        self.conv0 = Conv2d(inputs, inputs, 3, activation="lrelu", clamp=clamp)
        self.conv1 = Conv2d(inputs, outputs, 3, activation="lrelu", down=True, clamp=clamp)
        self.skip = Conv2d(inputs, outputs, 1, bias=False, down=True)
        self.top = image_channels > 0

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs (or image channels), H, W] -> [N, outputs, H/2, W/2]."""
        if self.top:
            x = self.fromrgb(x)
        gain = math.sqrt(0.5)
        return self.skip(x, gain) + self.conv1(self.conv0(x), gain)


def minibatch_std(x: Tensor, group_size: int) -> Tensor:
    """Appends one channel with the mean standard deviation of each group of samples.

    Sample n belongs to group n mod (N / G), with G = min(group_size, N).

    Args:
        x: [N, C, H, W]; N must be divisible by G.

    Returns:
        [N, C + 1, H, W].
    """
    n, _, height, width = x.shape
    group = min(group_size, n)
    if n == 0:
        return x.new_zeros(0, x.shape[1] + 1, height, width)
    if n % group:
        raise Head3DError(f"the batch ({n}) must be a multiple of the minibatch-std group ({group})")
    y = x.to(torch.float32).unflatten(0, (group, n // group))
    std = (y.var(0, unbiased=False) + 1e-8).sqrt().mean([1, 2, 3])
    channel = std.repeat(group)[:, None, None, None].expand(n, 1, height, width)
    return torch.cat([x, channel.to(x.dtype)], 1)


class Epilogue(nn.Module):
    """4x4 features and the camera embedding to one logit: projection discriminator."""

    def __init__(self, channels: int, group_size: int, clamp: float | None) -> None:
        super().__init__()
        self.conv = Conv2d(channels + 1, channels, 3, activation="lrelu", clamp=clamp)
        self.fc = FullyConnected(channels * 16, channels, "lrelu")
        self.out = FullyConnected(channels, channels)
        self.group_size = group_size

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x [N, C, 4, 4], embedding [N, C] -> logit [N, 1]."""
        x = self.conv(minibatch_std(x, self.group_size)).to(torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            x = self.out(self.fc(x.flatten(1)))
        return (x * embedding).sum(1, keepdim=True) / math.sqrt(x.shape[1])


class Discriminator(nn.Module):
    """D_front and D_back alike: judges an image, its raw image and whether both fit the camera.

    Args:
        config: architecture; kept as `.config`.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        top = config.image_resolution
        self.resolutions = [top >> k for k in range((top // 4).bit_length() - 1)]
        for r in self.resolutions:
            inputs = channels_at(r, config.channel_base, config.channel_max)
            outputs = channels_at(r // 2, config.channel_base, config.channel_max)
            block = DiscriminatorBlock(inputs, outputs, 6 if r == top else 0, config.clamp)
            self.add_module(f"b{r}", block)
        channels = channels_at(4, config.channel_base, config.channel_max)
        self.mapping = Mapping(0, channels, config.mapping_layers)
        self.b4 = Epilogue(channels, config.group_size, config.clamp)

    def forward(
        self, image: Tensor, raw: Tensor, camera: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Logit of each picture: high for real.

        Args:
            image: [N, 3, resolution, resolution] in [-1, 1].
            raw: [N, 3, R, R] in [-1, 1], any R; resized to the image's size and concatenated.
            camera: [N, 25], the true camera of the picture.
            generator: for `camera_noise`, if the configuration has any.

        Returns:
            [N, 1].
        """
        size = self.config.image_resolution
        if image.ndim != 4 or image.shape[1:] != (3, size, size):
            raise Head3DError(f"image must be [N, 3, {size}, {size}], got {list(image.shape)}")
        if raw.ndim != 4 or raw.shape[:2] != image.shape[:2] or raw.shape[2] != raw.shape[3]:
            raise Head3DError(f"raw must be [{len(image)}, 3, R, R], got {list(raw.shape)}")
        if len(check_camera(camera)) != len(image):
            raise Head3DError(
                f"image and camera must have one batch size, got {len(image)} and {len(camera)}"
            )
        if self.config.camera_noise > 0 and len(camera) > 1:  # one camera has no spread
            noise = torch.randn(camera.shape, generator=generator, device=camera.device)
            camera = camera + noise * camera.std(0) * self.config.camera_noise
        x = torch.cat([image, resize(raw, size).to(image.dtype)], 1)
        for r in self.resolutions:
            x = self.get_submodule(f"b{r}")(x)
        return self.b4(x, self.mapping(None, camera))
