"""Adaptive discriminator augmentation (StyleGAN2-ADA, Karras et al. 2020), written from the paper for heads.

Every image that D sees, real or generated, is transformed with probability p per kind of transform. p follows the
overfitting of D: r = E[sign D(real)] is controlled to a target. The image and its raw image get the same transform.

Chosen from the paper's list: isotropic and anisotropic scaling, rotation, translation, brightness, contrast, hue,
saturation. Left out: flips (the loader mirrors images together with their cameras), quarter turns and the luma
flip, which would contradict the camera that D is conditioned on or the white background.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from head3d_core.ops import random

SCALE_STD = 0.2
"""Standard deviation of log2 of both scalings."""
ROTATION = math.pi / 12
"""Largest rotation, radians (the paper turns by up to π; heads keep roughly upright)."""
TRANSLATION_STD = 0.125 / 2
"""Standard deviation of translations, in image widths."""
BRIGHTNESS_STD = 0.2
"""Standard deviation of the brightness offset, images in [-1, 1]."""
CONTRAST_STD = 0.5
"""Standard deviation of log2 of the contrast."""
HUE = math.pi / 4
"""Largest hue rotation, radians."""
SATURATION_STD = 1.0
"""Standard deviation of log2 of the saturation."""
INTERVAL = 4
"""Steps between two adjustments of p."""
_KINDS = 8


def draw_transforms(seeds: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """One random transform per sample.

    Args:
        seeds: [N] int64.
        p: scalar tensor in [0, 1], probability of each kind.

    Returns:
        geometry [N, 2, 3]: output coordinates to input coordinates, both in [-1, 1];
        colour [N, 3, 4]: linear map and offset. Where nothing is drawn both are exactly the identity.
    """
    chosen = random.uniform(seeds, 1, _KINDS, stream=0)[:, 0] < p
    gauss = torch.where(chosen, random.normal(seeds, 1, _KINDS, stream=1)[:, 0], 0.0)
    flat = torch.where(chosen, random.uniform(seeds, 1, _KINDS, stream=3)[:, 0] * 2 - 1, 0.0)
    shift_y = torch.where(chosen[:, 3], random.normal(seeds, 1, 1, stream=4)[:, 0, 0], 0.0)

    scale, stretch = torch.exp2(gauss[:, 0] * SCALE_STD), torch.exp2(gauss[:, 1] * SCALE_STD)
    cos, sin = torch.cos(flat[:, 2] * ROTATION), torch.sin(flat[:, 2] * ROTATION)
    across, along = scale * stretch, scale / stretch
    # A translation by t image widths is 2 t in coordinates of [-1, 1].
    row_x = torch.stack([cos * across, -sin * across, gauss[:, 3] * 2 * TRANSLATION_STD], -1)
    row_y = torch.stack([sin * along, cos * along, shift_y * 2 * TRANSLATION_STD], -1)
    geometry = torch.stack([row_x, row_y], 1)

    contrast = torch.exp2(gauss[:, 5] * CONTRAST_STD)
    linear = _rotation_about_grey(flat[:, 6] * HUE)
    # Saturation scales the component perpendicular to the grey axis.
    grey = torch.full((3, 3), 1 / 3, device=seeds.device)
    rest = torch.eye(3, device=seeds.device) - grey
    saturation = grey + rest * torch.exp2(gauss[:, 7] * SATURATION_STD)[:, None, None]
    linear = (saturation[:, :, :, None] * linear[:, None]).sum(2) * contrast[:, None, None]
    offset = (gauss[:, 4] * BRIGHTNESS_STD)[:, None, None].expand(-1, 3, 1)
    return geometry, torch.cat([linear, offset], -1)


def _rotation_about_grey(angle: Tensor) -> Tensor:
    """Rotation of RGB space about (1, 1, 1) by `angle` [N]: a hue shift, [N, 3, 3] (Rodrigues' formula)."""
    cos, sin = torch.cos(angle), torch.sin(angle) / math.sqrt(3)
    a, rest = cos + (1 - cos) / 3, (1 - cos) / 3
    plus, minus = rest + sin, rest - sin
    rows = [a, minus, plus, plus, a, minus, minus, plus, a]
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def apply(x: Tensor, geometry: Tensor, colour: Tensor) -> Tensor:
    """Transforms images [N, 3, H, W] in [-1, 1]; everything outside an image is white.

    Works at any size with one transform, so that image and raw image stay aligned.
    """
    grid = F.affine_grid(geometry, list(x.shape), align_corners=False)
    # White is 1: sample the distance to white with zero padding.
    x = F.grid_sample(x.float() - 1, grid, mode="bilinear", padding_mode="zeros", align_corners=False) + 1
    return torch.baddbmm(colour[:, :, 3:], colour[:, :, :3], x.flatten(2)).unflatten(-1, x.shape[2:])


class AdaptiveProbability:
    """The controller of p: raises it while mean sign(D(real)) is above the target, lowers it below.

    All state stays on the device; nothing is read back.

    Args:
        target: wanted mean sign, 0.6 in the paper.
        images: real images over which p could rise from 0 to 1.
        start: initial p.
    """

    def __init__(self, target: float, images: int, start: float, device: torch.device) -> None:
        self.target = target
        self.images = images
        self.p = torch.full((), float(start), device=device)
        self.signs = torch.zeros(2, device=device)

    def observe(self, real_logits: Tensor) -> None:
        """Adds the signs of real logits [N, 1] to the running sum."""
        signs = real_logits.detach().sign().float()
        self.signs += torch.stack([signs.sum(), torch.ones_like(signs).sum()])

    def adjust(self, batch: int) -> None:
        """One step of p; call every `INTERVAL` steps of `batch` real images with sums already merged over processes."""
        mean = self.signs[0] / self.signs[1].clamp_min(1)
        step = batch * INTERVAL / self.images
        self.p.add_(torch.sign(mean - self.target) * step).clamp_(0, 1)
        self.signs.zero_()
