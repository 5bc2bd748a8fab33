"""Builds the trainer of a stage from its images and its starting networks."""

from __future__ import annotations

import dataclasses
import math
import re
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from head3d_core.config import DiscriminatorConfig, GeneratorConfig, Preset, RenderOptions, preset
from head3d_core.datasets import format
from head3d_core.datasets.validate import check_outside, check_training_set
from head3d_core.model.cameras import yaw_pitch
from head3d_core.model.discriminator import Discriminator
from head3d_core.model.generator import Generator
from head3d_core.model.superresolution import KINDS
from head3d_core.training.numerics import World
from head3d_core.training.options import TrainArgs
from head3d_core.training.parts import Pool
from head3d_core.training.perceptual import perceptual_distance
from head3d_core.training.recipes import Recipe, Source, Start
from head3d_core.training.snapshots import open_run
from head3d_core.training.trainer import Trainer
from head3d_core.utils import files
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.nested import differences, flat

# -- images --------------------------------------------------------------------------------------------------------


def _rendered(source: str) -> tuple[str, int]:
    """Name and count of `synth:NAME:COUNT`."""
    named = re.fullmatch(r"synth:([^:]*):([0-9]*[1-9][0-9]*)", source)
    if not named:
        raise Head3DError(
            f"a rendered set is called synth:NAME:COUNT, as in synth:faces:20000, got {source!r}"
        )
    return named[1], int(named[2])


def load_images(source: str, resolution: int, cache: Path | None = None) -> tuple[Tensor, Tensor]:
    """Images uint8 [N, 3, R, R] and cameras [N, 25] of a folder, a zip, or `synth:NAME:COUNT` rendered now.

    Args:
        source: the data set.
        resolution: R.
        cache: folder that keeps rendered sets, one file each; another version of the sampler draws different people.

    Raises Head3DError for a data set that cannot be trained on, a damaged file in `cache`, a malformed `synth:` name.
    """
    if not source.startswith("synth:"):
        return format.load_arrays(source, resolution)
    from head3d_core.synth.draws import SAMPLER_VERSION
    from head3d_core.synth.make_data import render

    name, count = _rendered(source)
    kept = cache / f"{name}-{count}-{resolution}-v{SAMPLER_VERSION}.npz" if cache else None
    if kept and kept.is_file():
        try:
            with np.load(kept) as arrays:
                return torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["cameras"])
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
            raise Head3DError(f"{kept} cannot be read ({error}): delete it") from None
    start = time.monotonic()
    images, cameras, _ = render(name, range(count), resolution)
    print(f"rendered {count} images of {name} in {time.monotonic() - start:.0f} s", flush=True)
    if kept:
        with files.atomic(kept) as temporary, temporary.open("wb") as file:
            np.savez(file, images=images, cameras=cameras)
    return torch.from_numpy(images), torch.from_numpy(cameras)


def load_cameras(source: str) -> Tensor:
    """Cameras [N, 25] alone; nothing is rendered for `synth:NAME:COUNT`."""
    if not source.startswith("synth:"):
        return format.load_arrays(source)[1]
    from head3d_core.synth.sets import example

    name, count = _rendered(source)
    return torch.from_numpy(np.stack([example(name, k).camera for k in range(count)])).float()


def _load_shared(source: str, resolution: int, cache: Path | None, world: World) -> tuple[Tensor, Tensor]:
    """`load_images`, with rendered sets drawn once and sent to the other processes."""
    if world.size == 1 or not source.startswith("synth:"):
        return load_images(source, resolution, cache)
    count = _rendered(source)[1]
    images = torch.empty(count, 3, resolution, resolution, dtype=torch.uint8, device=world.device)
    cameras = torch.empty(count, 25, device=world.device)
    if world.rank == 0:
        for shared, own in zip((images, cameras), load_images(source, resolution, cache), strict=True):
            shared.copy_(own)
    dist.broadcast(images, 0)
    dist.broadcast(cameras, 0)
    return images, cameras


def make_pools(
    recipe: Recipe, faces: tuple[Tensor, Tensor], heads: tuple[Tensor, Tensor] | None, device: torch.device
) -> tuple[list[Pool], Pool]:
    """One pool per domain of the recipe, and the face set for mapping cameras.

    Raises Head3DError if the recipe needs heads and none were given, or a source is empty.
    """
    face_pool = Pool(*faces, device, recipe.mirror)
    if recipe.needs_heads and heads is None:
        raise Head3DError(f"stage {recipe.stage} needs the head set: pass --heads DATA (or synth:heads:4800)")

    def of(source: Source) -> tuple[Tensor, Tensor]:
        if source == "faces" or heads is None:
            return faces
        if source == "heads":
            return heads
        yaw = yaw_pitch(heads[1].cpu())[0].abs()
        widest = float(yaw_pitch(faces[1].cpu())[0].abs().max())
        side = min(max(widest, recipe.tau), recipe.split_angle)
        chosen = (yaw > (recipe.split_angle if source == "heads_back" else side)).to(heads[0].device)
        if not bool(chosen.any()):
            raise Head3DError(
                f"the head set has no view beyond {math.degrees(recipe.split_angle):.0f}° of yaw: "
                "render it all around"
            )
        return heads[0][chosen], heads[1][chosen]

    pools = []
    for domain in recipe.domains:
        if domain.sources == ("faces",):
            pools.append(face_pool)
            continue
        parts = [of(source) for source in domain.sources]
        images, cameras = (torch.cat([part[k].to(device) for part in parts]) for k in (0, 1))
        pools.append(Pool(images, cameras.cpu(), device, recipe.mirror))
    return pools, face_pool


def _load_pools(args: TrainArgs, world: World, render: RenderOptions) -> tuple[list[Pool], Pool]:
    side = args.generator.image_resolution
    check_outside(args.out, args.data, args.heads)
    if any("faces" in domain.sources for domain in args.recipe.domains):
        faces = _load_shared(args.data, side, args.cache, world)
    else:  # only mapping cameras come from the face set
        cameras = load_cameras(args.data)
        faces = torch.empty(len(cameras), 0, 0, 0, dtype=torch.uint8), cameras
    heads = _load_shared(args.heads, side, args.cache, world) if args.heads else None
    for name, loaded in ((args.data, faces), (args.heads, heads)):
        for warning in check_training_set(loaded[1], render, str(name)) if loaded else ():
            print(f"warning: {warning}", flush=True)
    return make_pools(args.recipe, faces, heads, world.device)


# -- networks ------------------------------------------------------------------------------------------------------

_PLACE = ("ray_start", "ray_end", "box_warp")
"""Rendering options that say where a generator's heads are; later stages keep them."""


def _architecture(config: GeneratorConfig | DiscriminatorConfig) -> dict[str, Any]:
    """What weights depend on, by name; settings that mean the same are written the same."""
    if isinstance(config, GeneratorConfig):
        widths = config.sr_channels or KINDS[config.sr_kind].channels
        config = dataclasses.replace(config, sr_channels=widths, sr_w_dim=config.sr_w_dim or config.w_dim)
    free = ("neural_resolution", "front_slices", "back_blocks", "camera_radius", "group_size", "camera_noise")
    return {
        name: value
        for name, value in flat(config).items()
        if name not in free and (not name.startswith("render.") or name == "render.axes")
    }


def starting_point(path: Path, scale: Preset) -> tuple[Generator, Discriminator | None]:
    """Averaged generator and last discriminator (of a distillation D_back) of a run or of weights; None without one.

    Raises Head3DError if there is nothing to read, or the architecture is another, with the options that name it.
    """
    run = open_run(path, axes=scale.generator.render.axes)
    own = next(reversed(run.discriminators), None)
    pairs: dict[str, tuple[Any, Any]] = {"generator": (scale.generator, run.generator.config)}
    if own:
        pairs["discriminator"] = (scale.discriminator, own.config)
    for kind, (wanted, given) in pairs.items():
        differing = differences(_architecture(wanted), _architecture(given))
        if differing:
            (mine, theirs) = next(iter(differing.values()))
            options = " ".join(f"--{kind}.{k.replace('_', '-')} {v[1]}" for k, v in differing.items())
            raise Head3DError(
                f"the {kind} of {path} differs in {', '.join(differing)} ({theirs} and {mine}): "
                f"use the preset it was trained with, or {options}"
            )
    return run.generator, own


def _fresh(args: TrainArgs) -> tuple[Generator, Discriminator]:
    torch.manual_seed(args.seed)
    return Generator(args.generator), Discriminator(args.discriminator)


def _discriminator(own: Discriminator | None, start: Start, args: TrainArgs) -> Discriminator:
    """A network for one domain, or for all, with the weights of `own`, the one at its starting point."""
    if own is None and not (args.recipe.only_discriminator or args.recipe.discriminator_first):
        path = args.teacher if start == "teacher" else args.head
        fit = "whiten" if start == "teacher" else "head --recipe.start head"
        raise Head3DError(
            f"{path} holds no discriminator to start from: fit one first "
            f"(train {fit} --recipe.only-discriminator --{start} {path} ...) and pass that run"
        )
    torch.manual_seed(args.seed)
    discriminator = Discriminator(args.discriminator)
    if own is not None:
        discriminator.load_state_dict(own.state_dict())
    return discriminator


def copy_of(own: Generator, config: GeneratorConfig) -> Generator:
    """A network of `config` with the weights of `own`, which is widened if `config` has more slices or back_blocks.

    Raises Head3DError, with both numbers, if `own` has more slices or other back_blocks.
    """
    slices, blocks = own.config.front_slices, own.config.back_blocks
    if slices > config.front_slices:
        raise Head3DError(
            f"the run to start from has {slices} slices of F_xy and this one {config.front_slices}: "
            f"pass --generator.front-slices {slices}"
        )
    if blocks and blocks != config.back_blocks:
        raise Head3DError(
            f"the run to start from has back_blocks {blocks} and this one {config.back_blocks}: "
            f"pass --generator.back-blocks {blocks}"
        )
    generator = Generator(config)
    same = (slices, blocks) == (config.front_slices, config.back_blocks)
    generator.load_state_dict((own if same else own.widened(config.back_blocks)).state_dict())
    return generator


def _target(own: Generator, config: GeneratorConfig) -> Generator:
    """A frozen network that the student follows: rendered as the student is, with its own slices and blocks."""
    slices = {name: getattr(own.config, name) for name in ("front_slices", "back_blocks")}
    return copy_of(own, dataclasses.replace(config, **slices))


def _keep_place(args: TrainArgs, own: GeneratorConfig) -> GeneratorConfig:
    """`args.generator` with the ray interval and box of the network that it starts from, unless options name others."""
    given, default = args.generator.render, preset(args.preset).generator.render
    if any(getattr(given, name) != getattr(default, name) for name in _PLACE):
        return args.generator
    kept = dataclasses.replace(given, **{name: getattr(own.render, name) for name in _PLACE})
    return dataclasses.replace(args.generator, render=kept)


def build_trainer(args: TrainArgs, world: World) -> Trainer:
    """Loads data and starting networks and puts everything on the device.

    Raises Head3DError for whatever is missing or does not fit.
    """
    recipe = args.recipe
    points: dict[Start, tuple[Generator, Discriminator | None]] = {}
    wanted: set[Start] = {recipe.start, *recipe.discriminator_starts}
    if recipe.losses.any:
        wanted.add("teacher")
    if recipe.losses.kd_back:
        wanted.add("head")
    for start in sorted(wanted):
        path = {"teacher": args.teacher, "head": args.head}.get(start)
        if start != "scratch" and path is None:
            raise Head3DError(f"stage {recipe.stage} starts from a {start} run: pass --{start} RUN")
        points[start] = starting_point(path, args.scale) if path else _fresh(args)
    back = points["head"][0] if recipe.losses.kd_back else None
    if args.back_target:
        back = starting_point(args.back_target, args.scale)[0]
    own = points[recipe.start][0]
    config = _keep_place(args, own.config)
    discriminators = [_discriminator(points[s][1], s, args) for s in recipe.discriminator_starts]
    pools, face_pool = _load_pools(args, world, config.render)
    return Trainer(
        dataclasses.replace(args.scale, generator=config), recipe, pools, copy_of(own, config), discriminators,
        faces=face_pool,
        teacher=_target(points["teacher"][0], config) if recipe.losses.any else None,
        head=copy_of(back, config) if back else None,
        perceptual=perceptual_distance(recipe.perceptual) if recipe.losses.lpips else None,
        seed=args.seed, rank=world.rank, world=world.size, numerics=args.numerics,
    )  # fmt: skip


def memory_estimate(scale: Preset, batch: int) -> float:
    """About how many GiB a step needs: parameters with optimiser and averages, and activations in bfloat16.

    Within 30 % of what PyTorch reserved on an H200 with CUDA graphs: 15.2 GiB at 512² (batch 8; 8.0 in use at a
    time), 7.4 at 256² (16), 7.0 at 128² (32), 7.6 for classroom (32).
    """
    c, e = scale.generator, scale.discriminator
    with torch.device("meta"):
        networks = Generator(c), Discriminator(e)
    parameters = sum(p.numel() for net in networks for p in net.parameters())
    side, texels = c.image_resolution, c.plane_resolution
    width = sum(
        5 * min(e.channel_base // r, e.channel_max) * r * r for r in (side >> k for k in range(6)) if r >= 4
    )
    planes = sum(
        6 * min(c.channel_base // r, c.channel_max) * r * r * (2 if 0 < c.back_blocks <= r else 1)
        for r in (texels >> k for k in range(5))
    )
    activations = batch * (3 * width + 2 * planes + 8 * c.plane_count * c.plane_channels * texels**2) * 2
    return (parameters * 20 + activations) / 2**30 + 1.0
