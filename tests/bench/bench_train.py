"""Throughput and memory of full GAN steps: G, D, R1 every 16th and density regularisation every 4th.

    python tests/bench/bench_train.py                     # all settings and variants on this machine's GPU
    python tests/bench/bench_train.py --settings 512 --variants graphs --json out.json
    torchrun --nproc-per-node 2 tests/bench/bench_train.py --settings 512 --variants graphs   # one number for all GPUs

The three anchored settings are the ones at which EG3D's released code ran at 17.1, 65.6 and 123.8 images/s on one H100.
"""

from __future__ import annotations

import dataclasses
import gc
import math
import os
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common  # noqa: F401  (before torch)
import torch
import torch.distributed as dist
import tyro

from head3d_core import ops
from head3d_core.config import PRESETS, DiscriminatorConfig, GeneratorConfig, Preset, RenderOptions
from head3d_core.model.cameras import orbit
from head3d_core.model.discriminator import Discriminator
from head3d_core.model.generator import Generator
from head3d_core.training.numerics import Numerics, World, join_world
from head3d_core.training.parts import Phase, Pool
from head3d_core.training.recipes import recipe
from head3d_core.training.stages import memory_estimate
from head3d_core.training.trainer import Trainer
from head3d_core.utils import records


@dataclass(frozen=True)
class Setting:
    """One measured configuration."""

    preset: Preset
    batch: int
    eg3d: float | None = None
    """Images/s of EG3D's code on one H100."""
    target: float | None = None
    """Images/s that we want."""


def _anchored(side: int, rays: int, samples: int, planes: int, width: int, kind: str) -> Preset:
    base, widest = 32768 // width, 512 // width
    render = RenderOptions(depth_resolution=samples, depth_resolution_importance=samples, white_back=True)
    generator = GeneratorConfig(
        image_resolution=side, neural_resolution=rays, plane_resolution=planes,
        channel_base=base, channel_max=widest, sr_kind=kind, render=render,  # type: ignore[arg-type]
    )  # fmt: skip
    return Preset(str(side), generator, DiscriminatorConfig(side, base, widest))


SETTINGS = {
    "512": Setting(_anchored(512, 128, 48, 256, 1, "8xdc"), 8, 17.1, 43),
    "256": Setting(_anchored(256, 64, 48, 256, 2, "4x"), 16, 65.6, 230),
    "128": Setting(_anchored(128, 64, 24, 128, 2, "2x"), 32, 123.8, 430),
    "classroom": Setting(PRESETS["classroom"], 32),
    "tiny": Setting(PRESETS["tiny"], 8),
}
"""By name; tiny is for a CPU, with `--variants fp32`."""

VARIANTS = {
    "fp32": Numerics("fp32", channels_last=False, graphs=False),
    "bf16": Numerics("bf16", channels_last=False, graphs=False),
    "channels-last": Numerics("bf16", channels_last=True, graphs=False),
    "graphs": Numerics("bf16", channels_last=True, graphs=True),
    "graphs-fp16": Numerics("fp16", channels_last=True, graphs=True),
    "graphs-contiguous": Numerics("bf16", channels_last=False, graphs=True),
    "compile": Numerics("bf16", channels_last=True, graphs=True, compile=True),
}
"""Each adds something to the one before; "compile" is slow to start and off by default."""


def build(setting: Setting, options: Numerics, world: World) -> Trainer:
    """A trainer on random images: the arithmetic does not depend on what they show."""
    own = setting.preset.name if setting.preset.name in PRESETS else "classroom"
    how = dataclasses.replace(
        recipe("teacher", own), batch=setting.batch * world.size, blur_sigma=0.0, neural_resolution=None
    )
    side = setting.preset.generator.image_resolution
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (64, 3, side, side), dtype=torch.uint8, generator=generator)
    pool = Pool(images, orbit(torch.linspace(-0.6, 0.6, 64)), world.device)
    torch.manual_seed(0)
    nets = Generator(setting.preset.generator), [Discriminator(setting.preset.discriminator)]
    place = {"rank": world.rank, "world": world.size}
    return Trainer(setting.preset, how, [pool], *nets, faces=pool, **place, numerics=options)


def synchronise(device: torch.device) -> None:
    """Waits for the GPU, if there is one."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def measure(setting: Setting, options: Numerics, world: World, steps: int) -> dict[str, Any]:
    """Milliseconds of each phase, images/s of whole steps and peak memory.

    On a CPU that is the most the process held, PyTorch's own 0.5 GiB included.
    """
    device = world.device
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    trainer = build(setting, options, world)
    repeats = 5 if device.type == "cuda" else 1
    phases: dict[str, float] = {}
    for timed in (False, True):  # the first round compiles, tunes convolutions and captures graphs
        for phase in Phase:
            synchronise(device)
            start = time.perf_counter()
            for _ in range(repeats):
                trainer.run_phase(phase, 0)
            synchronise(device)
            if timed:
                phases[phase.name.lower()] = (time.perf_counter() - start) / repeats * 1e3
    synchronise(device)
    start = time.perf_counter()
    for _ in range(steps):
        trainer.step()
    synchronise(device)
    seconds = (time.perf_counter() - start) / steps
    result = {
        "phase_ms": {k: round(v, 2) for k, v in phases.items()},
        "step_ms": round(seconds * 1e3, 2),
        "images_per_s": round(trainer.recipe.batch / seconds, 1),
        # What the anchors count: G + D + R1 / 16, without the density regularisation.
        "images_per_s_as_anchored": round(
            trainer.recipe.batch * 1e3 / (phases["g_main"] + phases["d_main"] + phases["d_reg"] / 16), 1
        ),
        "parameters_m": [
            round(sum(p.numel() for p in n.parameters()) / 1e6, 1)
            for n in (trainer.generator, trainer.discriminators[0])
        ],
        "batch": trainer.recipe.batch,
        "world": world.size,
        "finite": trainer.broken_parameter() is None,
    }
    if device.type == "cuda":
        result["memory_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        result["reserved_gib"] = round(torch.cuda.max_memory_reserved() / 2**30, 2)
        result["estimate_gib"] = round(memory_estimate(setting.preset, setting.batch), 2)
    else:
        # KiB, on macOS bytes
        unit = 2**30 if sys.platform == "darwin" else 2**20
        result["memory_gib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 2)
    trainer.device_queue.release()
    return result


def line(name: str, variant: str, found: dict[str, Any]) -> str:
    """A line of the table. "anchor" is G + D + R1 / 16, as EG3D's figures are, without the density regularisation."""
    if "error" in found:
        return f"{name:<10} {variant:<18} {found['error'][:150]}"
    rates = [found["step_ms"], found["images_per_s"], found["images_per_s_as_anchored"]]
    numbers = [*found["phase_ms"].values(), *rates, SETTINGS[name].target or math.nan, found["memory_gib"]]
    return f"{name:<10} {variant:<18} {' '.join(f'{n:>7.1f}' for n in numbers)}  {found['parameters_m']}"


def main(
    settings: tuple[str, ...] = ("512", "256", "128", "classroom"),
    variants: tuple[str, ...] = ("fp32", "bf16", "channels-last", "graphs"),
    steps: int = 32,
    device: str = "auto",
    json: Path | None = None,
) -> None:
    """Runs the chosen settings and variants, prints a table, writes JSON; a multiple of 16 steps covers R1 evenly."""
    world = join_world(device)
    report: dict[str, Any] = {
        "provenance": {
            **records.provenance(
                " ".join(["python", "tests/bench/bench_train.py", *sys.argv[1:]]), world.device
            ),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "threads": torch.get_num_threads(),
            "native": ops.available(),
            "native_cuda": ops.has_cuda(),
        },
        "results": {},
    }
    names = ["G ms", "G reg", "D", "R1", "step", "img/s", "anchor", "target", "GiB"]
    head = f"{'setting':<10} {'variant':<18} {' '.join(f'{n:>7}' for n in names)}  params M"
    if world.rank == 0:
        print(report["provenance"], head, sep="\n", flush=True)
    for name in settings:
        for variant in variants:
            try:
                found = measure(SETTINGS[name], VARIANTS[variant], world, steps)
            except (RuntimeError, torch.OutOfMemoryError) as error:
                found = {"error": str(error).splitlines()[0]}
            report["results"].setdefault(name, {})[variant] = found
            if world.rank == 0:
                print(line(name, variant, found), flush=True)
                if json:  # after each, so that an interrupted run keeps what it has
                    records.write(json, report)
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    tyro.cli(main)
