"""A toy problem for the training tests: coloured discs as faces and heads, at preset tiny, in memory."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import torch
from torch import Tensor

from head3d_core.config import Preset, preset
from head3d_core.model.cameras import orbit
from head3d_core.model.discriminator import Discriminator
from head3d_core.model.generator import Generator
from head3d_core.training.losses import RandomVGG
from head3d_core.training.recipes import Recipe, recipe
from head3d_core.training.stages import make_pools
from head3d_core.training.trainer import Engine

SIDE = 64


def discs(count: int, widest_yaw: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """`count` discs of varied colour on white, uint8 [N, 3, 64, 64], with cameras up to `widest_yaw` radians."""
    generator = torch.Generator().manual_seed(seed)
    colour = torch.rand(count, 3, 1, 1, generator=generator) * 200
    radius = 16 + 8 * torch.rand(count, 1, 1, 1, generator=generator)
    axis = torch.arange(SIDE) - SIDE / 2 + 0.5
    inside = (axis[:, None] ** 2 + axis[None] ** 2)[None, None] < radius**2
    images = torch.where(inside, colour, 255.0).to(torch.uint8)
    yaw = (torch.rand(count, generator=generator) * 2 - 1) * widest_yaw
    return images, orbit(yaw, 0.1 * torch.randn(count, generator=generator))


def faces(count: int = 24) -> tuple[Tensor, Tensor]:
    """Frontal views."""
    return discs(count, 0.6)


def heads(count: int = 24) -> tuple[Tensor, Tensor]:
    """Views all around."""
    return discs(count, math.pi, seed=1)


@functools.cache
def vgg() -> RandomVGG:
    """The perceptual stand-in, drawn once."""
    return RandomVGG()


def smaller(scale: Preset | None = None) -> Preset:
    """Preset tiny with cheaper rays."""
    scale = scale or preset("tiny")
    render = dataclasses.replace(scale.generator.render, depth_resolution=4, depth_resolution_importance=4)
    generator = dataclasses.replace(scale.generator, neural_resolution=8, render=render)
    return dataclasses.replace(scale, generator=generator)


def networks(seed: int = 0) -> tuple[Generator, Discriminator]:
    """Fresh networks of the toy scale."""
    torch.manual_seed(seed)
    return Generator(smaller().generator), Discriminator(smaller().discriminator)


def toy_recipe(stage: str, row: str | None = None, **changes: Any) -> Recipe:
    """A stage's recipe without schedules that start from nothing."""
    changes = {"density_points": 8, "warmup_steps": 0, **changes}
    return dataclasses.replace(recipe(stage, "tiny", row), **changes)


def engine(
    how: Recipe, rank: int = 0, world: int = 1, seed: int = 0, device: str = "cpu", **extra: Any
) -> Engine:
    """An engine on the toy data with fresh networks: student, discriminators and teacher differ."""
    pools, face_pool = make_pools(how, faces(), heads(), torch.device(device))
    student = networks(1)[0]
    discriminators = [networks(2 + k)[1] for k in range(len(how.domains))]
    teacher = networks(9)[0] if how.losses.any else None
    perceptual = vgg() if how.losses.lpips else None
    return Engine(
        smaller(), how, pools, student, discriminators,
        faces=face_pool, teacher=teacher, perceptual=perceptual, seed=seed, rank=rank, world=world, **extra,
    )  # fmt: skip


def weights(module: torch.nn.Module) -> dict[str, Tensor]:
    """A detached copy of all parameters and buffers."""
    return {k: v.detach().clone() for k, v in module.state_dict().items()}
