"""A toy problem for the training tests: coloured discs as faces and heads, at preset tiny, in memory."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from head3d_core.config import Preset, preset
from head3d_core.model.cameras import orbit
from head3d_core.model.discriminator import Discriminator
from head3d_core.model.generator import Generator
from head3d_core.training import options, recipes, snapshots, stages, train
from head3d_core.training.options import TrainArgs
from head3d_core.training.perceptual import RandomVGG
from head3d_core.training.recipes import Recipe, Stage
from head3d_core.training.stages import make_pools
from head3d_core.training.trainer import Trainer

SIDE = 64
with_toy_data = pytest.mark.usefixtures("toy_data")


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


def smaller(scale: Preset | None = None, slices: int = 1) -> Preset:
    """Preset tiny with cheaper rays."""
    scale = scale or preset("tiny")
    render = dataclasses.replace(scale.generator.render, depth_resolution=4, depth_resolution_importance=4)
    generator = dataclasses.replace(scale.generator, neural_resolution=8, render=render, front_slices=slices)
    return dataclasses.replace(scale, generator=generator)


def networks(seed: int = 0, slices: int = 1) -> tuple[Generator, Discriminator]:
    """Fresh networks of the toy scale."""
    torch.manual_seed(seed)
    return Generator(smaller(slices=slices).generator), Discriminator(smaller().discriminator)


def toy_recipe(stage: str, row: str | None = None, **changes: Any) -> Recipe:
    """A stage's recipe without schedules that start from nothing."""
    changes = {"density_points": 8, "warmup_steps": 0, **changes}
    return dataclasses.replace(recipes.recipe(stage, "tiny", row), **changes)


def trainer(
    recipe: Recipe,
    rank: int = 0,
    world: int = 1,
    seed: int = 0,
    device: str = "cpu",
    slices: int | None = None,
    **extra: Any,
) -> Trainer:
    """A trainer on the toy data with fresh networks: student, discriminators, teacher and head generator differ."""
    slices = slices or (2 if recipe.losses.kd_back else 1)
    pools, face_pool = make_pools(recipe, faces(), heads(), torch.device(device))
    discriminators = [networks(2 + k)[1] for k in range(len(recipe.discriminator_starts))]
    frozen = {
        "teacher": networks(9)[0] if recipe.losses.any else None,
        "head": networks(10, slices)[0] if recipe.losses.kd_back else None,
        "perceptual": vgg() if recipe.losses.lpips else None,
    }
    return Trainer(
        smaller(slices=slices), recipe, pools, networks(1, slices)[0], discriminators,
        faces=face_pool, seed=seed, rank=rank, world=world, **(frozen | extra),
    )  # fmt: skip


def weights(module: torch.nn.Module) -> dict[str, Tensor]:
    """A detached copy of all parameters and buffers."""
    return {k: v.detach().clone() for k, v in module.state_dict().items()}


def use_toy_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """`train` reads the toy sets instead of folders, at a scale that is quick."""

    def load(source: str, resolution: int, cache: Path | None = None) -> tuple[Tensor, Tensor]:
        return heads() if "heads" in source else faces()

    monkeypatch.setattr(stages, "load_images", load)
    monkeypatch.setattr(stages, "load_cameras", lambda source: load(source, SIDE)[1])
    monkeypatch.setattr(options, "preset", lambda name: smaller())
    monkeypatch.setattr(stages, "preset", lambda name: smaller())
    monkeypatch.setattr(train, "GRID_YAWS", (0.0, 90.0))


def arguments(
    stage: Stage, out: Path, images: int = 8, changes: Mapping[str, Any] | None = None, **values: Any
) -> TrainArgs:
    """Arguments of a short run; `changes` as on the command line."""
    defaults = {"device": "cpu", "report_seconds": 0.0, "metric_minutes": 0.0}
    all_changes = {"recipe.images": images, **(changes or {})}
    return TrainArgs.of(stage, "faces", out, "tiny", all_changes, **(defaults | values))


def run(stage: Stage, out: Path, **values: Any) -> Path:
    """Trains that; returns the run's folder."""
    train.train(arguments(stage, out, **values))
    return out


def state_of(out: Path) -> dict[str, Tensor]:
    """All tensors of a run's newest snapshot."""
    return snapshots.load_latest(out)[0]


def same(one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> bool:
    """Whether two states are equal bit for bit."""
    return one.keys() == two.keys() and all(torch.equal(value, two[name]) for name, value in one.items())


def log(out: Path, event: str | None = None) -> list[dict[str, Any]]:
    """The lines of a run's log, of one kind of event or all."""
    return [line for line in snapshots.read_log(out)[0] if event in (None, line["event"])]
