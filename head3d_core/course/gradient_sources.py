"""Which terms of the loss send a gradient to which planes: notebook 11a's table of gradient sources."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from head3d_core.config import preset
from head3d_core.model.cameras import frontal, orbit
from head3d_core.model.discriminator import Discriminator
from head3d_core.model.generator import Generator
from head3d_core.training import losses
from head3d_core.training.distillation import Sample, distillation_terms
from head3d_core.training.perceptual import RandomVGG
from head3d_core.training.recipes import recipe

PLACES = ("front: F_xy", "front: F_xz, F_yz", "back: F_xy", "back: F_xz, F_yz")
"""Views and planes of `gradient_sources`."""


def terms_and_planes(row: str, yaw: float, seed: int = 0) -> tuple[dict[str, Tensor], Tensor]:
    """Every weighted term of Eq. 10 for one sample, and the student's planes that they depend on.

    Networks of preset `tiny`, not trained at all, are enough to see which gradients exist.

    Args:
        row: of the comparison.
        yaw: of the rendering camera, radians; it decides which discriminator judges and whether the gate is open.
    """
    scale, how = preset("tiny"), recipe("distill", "tiny", row)
    camera, ahead = orbit(yaw), frontal(1)
    torch.manual_seed(seed)
    nets = [Generator(scale.generator).eval() for _ in range(2)]
    judge, z, sides = Discriminator(scale.discriminator), torch.randn(1, nets[0].z_dim), []
    for net, learns in zip(nets, (False, True), strict=True):
        with torch.no_grad():
            ws = net.mapping(z, ahead)
            planes = net.planes(ws)
        planes.requires_grad_(learns)
        sides.append(Sample(ws, planes, net.render(planes, ws, camera)))
    terms = distillation_terms(how, sides[0], sides[1], camera, RandomVGG())
    terms = {f"L_{name}": term for name, term in terms.items()}
    domain = how.domains[-1 if abs(yaw) > how.split_angle else 0]
    if domain.weight:
        output = sides[1].output
        assert output is not None
        loss = losses.generator_loss(judge(output.image, output.raw, camera))
        terms[f"D_{'all' if how.one_discriminator else domain.name}"] = domain.weight * loss
    return terms, sides[1].planes


def gradient_sources(row: str, seed: int = 0) -> dict[str, list[str]]:
    """Terms whose gradient is not 0 in a frontal view and in one from behind, at F_xy and at the other planes."""
    found: dict[str, list[str]] = {place: [] for place in PLACES}
    for side, yaw in (("front", 0.0), ("back", math.pi)):
        terms, planes = terms_and_planes(row, yaw, seed)
        for name, term in terms.items():
            if not term.requires_grad:
                continue
            (pull,) = torch.autograd.grad(term, planes, retain_graph=True, allow_unused=True)
            for which, part in (("F_xy", slice(0, 1)), ("F_xz, F_yz", slice(1, 3))):
                if pull is not None and bool(pull[:, part].any()):
                    found[f"{side}: {which}"].append(name)
    return found
