"""Toy heads: analytic shapes, and planes fitted to them in seconds on a laptop.

The first notebooks need volumes that show something real before any GAN is trained. A toy head is an ellipsoid
with a nose, two eyes and a cap of hair; `fit_planes` finds planes and a decoder that reproduce it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from head3d_core.config import Axes, RenderOptions
from head3d_core.experiments.study import descend
from head3d_core.model.planes import Decoder, DecoderWeights, query
from head3d_core.model.rays import camera_rays
from head3d_core.model.volume import RayResult, render_rays
from head3d_core.utils.errors import Head3DError

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class ToyHead:
    """Parameters of an analytic head; lengths in world units, colours in [0, 1]."""

    radii: tuple[float, float, float] = (0.20, 0.27, 0.23)
    """Half axes of the skull along x, y, z."""
    nose: float = 0.055
    """Length of the nose."""
    hair_line: float = 0.08
    """Height (at the front) above which there is hair."""
    skin: Colour = (0.86, 0.66, 0.54)
    hair: Colour = (0.22, 0.13, 0.08)
    eyes: Colour = (0.10, 0.20, 0.35)


TOY_A = ToyHead()
"""Long face, dark hair."""
TOY_B = ToyHead(
    radii=(0.24, 0.23, 0.25), nose=0.035, hair_line=0.03, skin=(0.55, 0.36, 0.25), hair=(0.80, 0.62, 0.25)
)
"""Round face, fair hair."""

SHARPNESS = 60.0
"""Raw sigma per unit of relative distance to the surface."""


def toy_field(head: ToyHead, points: Tensor) -> tuple[Tensor, Tensor]:
    """Sigma and colour at each point of a toy head.

    sigma = clamp(60 (1 - r), -12, 12) with r the distance relative to the surface (1 on it), so that
    density = softplus(sigma - 1) jumps from about 0 to 11 across the skin.

    Args:
        points: [..., 3], world units.

    Returns:
        sigma [..., 1] and rgb [..., 3] in [0, 1].
    """
    x, y, z = points.unbind(-1)
    radii = points.new_tensor(head.radii)
    skull = (points / radii).norm(dim=-1)
    tip = points.new_tensor([0.0, -0.03, head.radii[2]])
    nose = ((points - tip) / points.new_tensor([0.030, 0.045, head.nose])).norm(dim=-1)
    relative = torch.minimum(skull, 1 + (nose - 1) * 0.3)
    sigma = (SHARPNESS * (1 - relative)).clamp(-12, 12)
    # The hairline falls towards the back, where the hair reaches down to the neck.
    hair = y > head.hair_line + 0.9 * (z - 0.10)
    eye = ((x.abs() - 0.075).square() + (y - 0.03).square() < 0.024**2) & (z > 0.05)
    mouth = (x.abs() < 0.06) & ((y + 0.13 - 1.5 * x.square()).abs() < 0.013) & (z > 0.05)
    rgb = points.new_tensor(head.skin).expand(*points.shape[:-1], 3).clone()
    rgb[mouth] = points.new_tensor((0.70, 0.25, 0.25))
    rgb[eye] = points.new_tensor(head.eyes)
    rgb[hair] = points.new_tensor(head.hair)
    return sigma[..., None], rgb


@dataclass(frozen=True)
class ToyFit:
    """Planes and a shared decoder fitted to one or more toy heads."""

    planes: Tensor
    """[N, 3, C, H, W]"""
    weights: DecoderWeights
    options: RenderOptions
    losses: list[float]
    """Mean squared error every tenth step: sigma (in units of 12) plus colour near the surface."""

    def render(self, camera: Tensor, resolution: int = 64, planes: Tensor | None = None) -> RayResult:
        """Rays of `planes` (default: the fitted ones) seen from camera [N, 25]; features are rgb."""
        origins, directions = camera_rays(camera, resolution)
        chosen = self.planes if planes is None else planes
        return render_rays(chosen, self.weights, origins, directions, self.options)


def fit_planes(
    heads: list[ToyHead],
    axes: Axes = "xyz",
    steps: int = 300,
) -> ToyFit:
    """Fits planes [N, 3, 8, 32, 32] and one decoder to N toy heads; repeats itself.

    Adam on random points: half uniform in the cube, half near the surfaces, where it matters.

    Args:
        heads: one or more targets; they share the decoder, so that their planes can be exchanged.
        axes: which coordinates each plane sees.
        steps: optimiser steps.

    Raises:
        Head3DError: without heads.
    """
    if not heads:
        raise Head3DError("fit_planes needs at least one toy head, got none")
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        decoder = Decoder(8, 16, 3)
    planes = (0.1 * torch.randn((len(heads), 3, 8, 32, 32), generator=generator)).requires_grad_()

    def loss(step: int) -> tuple[Tensor, Tensor]:
        where = _training_points(len(heads), 4096, generator)
        target = [toy_field(head, p) for head, p in zip(heads, where, strict=True)]
        sigma, rgb = query(planes, decoder.weights(), where, axes)
        true_sigma = torch.stack([t[0] for t in target])
        solid = (true_sigma > -6).to(rgb.dtype)
        error = ((sigma - true_sigma) / 12).square().mean()
        error = error + (solid * (rgb - torch.stack([t[1] for t in target])).square()).mean()
        return error, error

    groups = [{"params": [planes], "lr": 0.05}, {"params": decoder.parameters(), "lr": 0.02}]
    losses = descend(groups, loss, steps)[::10]
    options = RenderOptions(depth_resolution=48, depth_resolution_importance=48, axes=axes, white_back=True)
    weights = DecoderWeights(*(w.detach() for w in decoder.weights()))
    return ToyFit(planes.detach(), weights, options, losses)


def _training_points(count: int, points: int, generator: torch.Generator) -> Tensor:
    # Somewhat beyond the cube, so that the decoder learns that zeros read outside mean empty space.
    anywhere = 1.8 * (torch.rand(count, points // 2, 3, generator=generator) - 0.5)
    direction = torch.randn(count, points - points // 2, 3, generator=generator)
    direction = direction / direction.norm(dim=-1, keepdim=True)
    shell = direction * (0.18 + 0.14 * torch.rand(count, points - points // 2, 1, generator=generator))
    return torch.cat([anywhere, shell], 1)


def field_error(fit: ToyFit, heads: list[ToyHead]) -> Tensor:
    """Share of random points near each head whose inside/outside (sigma > 1) the fit gets wrong, [N]."""
    where = _training_points(len(heads), 20_000, torch.Generator().manual_seed(1))
    sigma, _ = query(fit.planes, fit.weights, where, fit.options.axes)
    true = torch.stack([toy_field(head, p)[0] for head, p in zip(heads, where, strict=True)])
    return ((sigma > 1) != (true > 1)).to(torch.float32).mean([1, 2])
