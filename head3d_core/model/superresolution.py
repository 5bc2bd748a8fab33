"""From the volume-rendered feature image to the final image: two StyleGAN2 blocks."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from head3d_core.config import GeneratorConfig, SuperResolutionKind
from head3d_core.model.filters import resize
from head3d_core.model.stylegan2 import SynthesisBlock
from head3d_core.utils.errors import Head3DError


@dataclass(frozen=True)
class SuperResolutionSpec:
    """Fixed properties of one kind of module."""

    factor: int
    """Output size over input size."""
    channels: tuple[int, int]
    """EG3D's widths of the two blocks."""
    first_up: bool
    """Whether the first block doubles the resolution (the second always does)."""
    only_enlarges: bool
    """4x: features larger than the input size are refused rather than shrunk."""
    antialias: bool = True
    """Whether shrinking may use the triangle filter."""


KINDS: dict[SuperResolutionKind, SuperResolutionSpec] = {
    "8xdc": SuperResolutionSpec(4, (256, 128), True, False),
    "8x": SuperResolutionSpec(4, (128, 64), True, False),
    "4x": SuperResolutionSpec(2, (128, 64), False, True),
    "2x": SuperResolutionSpec(2, (128, 64), False, False),
    "deepfp32": SuperResolutionSpec(2, (128, 64), False, True, antialias=False),
}
"""EG3D's modules by their short names (the number is what EG3D calls them, not their factor)."""


class SuperResolution(nn.Module):
    """Resizes features and rgb to its input size, then runs two blocks on the last code of ws.

    Args:
        config: the generator's; uses the `sr_*` fields, `image_resolution` and `decoder_features`.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        spec = KINDS[config.sr_kind]
        widths = config.sr_channels or spec.channels
        w_dim = config.sr_w_dim or config.w_dim
        size = config.image_resolution
        self.block0 = SynthesisBlock(
            config.decoder_features, widths[0], w_dim, size // 2, 3, spec.first_up, config.sr_clamp, index=64
        )
        self.block1 = SynthesisBlock(widths[0], widths[1], w_dim, size, 3, True, config.sr_clamp, index=66)
        self.input_resolution = size // spec.factor
        self.spec = spec
        self.noise = config.sr_noise
        self.antialias = config.sr_antialias and spec.antialias

    def forward(self, features: Tensor, rgb: Tensor, ws: Tensor, seeds: Tensor | None = None) -> Tensor:
        """features [N, F, R, R], rgb [N, 3, R, R], ws [N, num_ws, w_dim] -> image [N, 3, size, size].

        The image has no final clamp. Neither input is changed (EG3D's "4x" and "2x" modules add into rgb in
        place when R equals the input size; we do not).
        """
        if self.spec.only_enlarges and features.shape[-1] > self.input_resolution:
            raise Head3DError(
                f"this super-resolution module takes features up to {self.input_resolution}², "
                f"got {features.shape[-1]}²: render at a lower resolution"
            )
        features = resize(features, self.input_resolution, self.antialias)
        rgb = resize(rgb, self.input_resolution, self.antialias)
        codes = ws[:, -1:].expand(-1, 3, -1)
        x, rgb = self.block0(features, rgb, codes, self.noise, seeds)
        _, image = self.block1(x, rgb, codes, self.noise, seeds)
        return image
