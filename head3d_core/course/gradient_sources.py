"""Which terms of the loss send a gradient to which planes: notebook 11's table of gradient sources."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from head3d_core.config import preset
from head3d_core.model.cameras import frontal, orbit
from head3d_core.model.discriminator import Discriminator
from head3d_core.model.generator import Generator
from head3d_core.training import losses
from head3d_core.training.distillation import Sample, distillation_terms
from head3d_core.training.perceptual import RandomVGG
from head3d_core.training.recipes import recipe


@dataclass(frozen=True)
class TinyNetworks:
    """Networks of preset `tiny`, as they are before any training: enough to see which gradients exist at all."""

    teacher: Generator
    student: Generator
    judge: Discriminator
    perceptual: nn.Module

    @classmethod
    def make(cls, seed: int = 0) -> TinyNetworks:
        """Teacher, student and discriminator with weights of their own, and the offline substitute of LPIPS."""
        scale = preset("tiny")
        torch.manual_seed(seed)
        teacher, student = Generator(scale.generator).eval(), Generator(scale.generator).eval()
        return cls(teacher, student, Discriminator(scale.discriminator), RandomVGG())

    def gradients(self, row: str, yaw: float) -> dict[str, Tensor]:
        """Mean absolute gradient that each weighted term of Eq. 10 sends to the student's planes: [3] by term.

        Args:
            row: of the comparison.
            yaw: of the rendering camera, radians; it decides which discriminator judges and whether the gate is open.
        """
        how, camera, ahead = recipe("distill", "tiny", row), orbit(yaw), frontal(1)
        z = torch.randn(1, self.teacher.z_dim, generator=torch.Generator().manual_seed(0))
        sides = []
        for net in (self.teacher, self.student):
            with torch.no_grad():
                ws = net.mapping(z, ahead)
                planes = net.planes(ws)
            planes.requires_grad_(net is self.student)
            sides.append(Sample(ws, planes, net.render(planes, ws, camera)))
        theirs, ours = sides
        terms = distillation_terms(how, theirs, ours, camera, self.perceptual)
        judge = how.domains[-1 if abs(yaw) > how.split_angle else 0]
        if judge.weight:
            assert ours.output is not None
            logit = self.judge(ours.output.image, ours.output.raw, camera)
            name = "all" if how.one_discriminator else judge.name
            terms[f"D_{name}"] = judge.weight * losses.generator_loss(logit)
        return {name: self._at_planes(term, ours.planes) for name, term in terms.items()}

    @staticmethod
    def _at_planes(term: Tensor, planes: Tensor) -> Tensor:
        if not term.requires_grad:
            return torch.zeros(3)
        (found,) = torch.autograd.grad(term, planes, retain_graph=True, allow_unused=True)
        return torch.zeros(3) if found is None else found.abs().mean([0, 2, 3, 4])


PLACES = ("front: F_xy", "front: F_xz, F_yz", "back: F_xy", "back: F_xz, F_yz")
"""Views and planes of `gradient_sources`."""


def gradient_sources(row: str, nets: TinyNetworks) -> dict[str, list[str]]:
    """Terms whose gradient is not 0 in a frontal view and in one from behind, at F_xy and at the other planes."""
    found = {}
    for side, yaw in (("front", 0.0), ("back", math.pi)):
        gradients = nets.gradients(row, yaw)
        for planes, which in (("F_xy", slice(0, 1)), ("F_xz, F_yz", slice(1, 3))):
            terms = [name for name, pull in gradients.items() if float(pull[which].max()) > 0]
            found[f"{side}: {planes}"] = [t if t.startswith("D_") else f"L_{t}" for t in terms]
    return found
