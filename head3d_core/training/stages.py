"""What a stage starts from: its images, its networks, and the engine that holds both."""

from __future__ import annotations

import json
import math
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from tyro.conf import Positional, arg

from head3d_core.checkpoints import weights
from head3d_core.config import Preset
from head3d_core.datasets import format
from head3d_core.model.cameras import yaw_pitch
from head3d_core.model.discriminator import Discriminator
from head3d_core.model.generator import Generator
from head3d_core.training import snapshots
from head3d_core.training.losses import perceptual_distance
from head3d_core.training.parts import EngineOptions, Pool
from head3d_core.training.recipes import Recipe, Source, Start
from head3d_core.training.trainer import Engine
from head3d_core.utils import files
from head3d_core.utils.devices import usable_device
from head3d_core.utils.errors import Head3DError


@dataclass(frozen=True)
class TrainArgs:
    """Train one stage: teacher, whiten, head or distill."""

    stage: Positional[Annotated[str, arg(metavar="STAGE")]]
    """teacher, whiten, head or distill."""
    data: str
    """Face set: a folder or zip in EG3D's format, or synth:faces:20000 to render it first. Stage head: the mapping
    cameras come from it."""
    out: Path
    """The run's folder: log.jsonl, grid-*.png, state-*/, weights/."""
    heads: str | None = None
    """Head set, likewise (synth:heads:4800), for the stages head and distill."""
    preset: str = "classroom"
    """tiny, classroom or paper."""
    row: str | None = None
    """A row of the comparison, e.g. no-kd, single-d, dft (stage distill)."""
    teacher: Path | None = None
    """Run (or weights) of the face generator to start from and, in distill, to learn from."""
    head: Path | None = None
    """Run (or weights) of the head generator that distill starts from."""
    resume: bool = False
    """Go on from the newest snapshot in `out`; start afresh if there is none."""
    max_minutes: float | None = None
    """Stop cleanly after so long, data included."""
    images: int | None = None
    """Real images to show in all; default: the recipe's."""
    batch: int | None = None
    """Global batch; default: the recipe's."""
    gan_back: float | None = None
    """λ_gan_back of Eq. 10 (stage distill); default: the recipe's (the paper's 10; 1 at `classroom`)."""
    only_discriminator: bool = False
    """Hold the generator still and fit only its discriminator, for weights that come without one, as the bundled
    ones do: stage whiten with --teacher WEIGHTS, stage head with --head WEIGHTS and --teacher RUN."""
    side_views: bool = False
    """D_back also judges side views of the head set, which no one sees otherwise (stage distill)."""
    width: float = 1.0
    """Generator channels, as a multiple of the preset's (the check of width; weights of other widths don't mix)."""
    axes: str | None = None
    """"xyz" or "eg3d" instead of the preset's."""
    white_back: bool | None = None
    """Composite over white, or not (a teacher of faces before scenes: --data synth:scenes:20000 --white-back False)."""
    seed: int = 0
    """Of everything random."""
    device: str = "auto"
    """cuda, cpu, or auto."""
    precision: str = "bf16"
    """bf16, fp16 or fp32, on a GPU."""
    channels_last: bool = True
    """Channels-innermost layout on a GPU."""
    graphs: bool = True
    """CUDA graphs."""
    compile: bool = False
    """torch.compile of the generator's convolutions."""
    report_seconds: float = 15.0
    """Between two lines of progress."""
    grid_minutes: float = 2.0
    """Between two sample grids."""
    snapshot_minutes: float = 4.0
    """Between two snapshots."""
    metric_minutes: float = 10.0
    """Between two kernel distances to the training pictures, front and back (a trend, no result); 0: never."""
    metric_images: int = 512
    """Pictures of each view in them."""
    keep: int = 2
    """Snapshots that stay."""
    keep_grids: int | None = None
    """Grids that stay; default: all."""
    carry: bool = False
    """Small snapshots: float16 and no optimiser state (a resumed run then warms its learning rates up)."""
    cache: Path | None = None
    """Folder that keeps rendered sets for the next run on this machine."""
    stream: int = 0
    """Start when so many rendered faces are there; the rest arrive while training (synth: data and one process; what is
    drawn then depends on the clock, so runs don't repeat exactly). 0: render everything first."""
    tensorboard: bool = False
    """Also write TensorBoard events, if that package is there."""


@dataclass(frozen=True)
class World:
    """This process among all of them."""

    rank: int
    size: int
    device: torch.device


def join_world(device: str) -> World:
    """Reads torchrun's environment; starts NCCL (GPU) or gloo (CPU) if there is more than one process."""
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda"):
        if not torch.cuda.is_available():
            raise Head3DError(f"device {device} was asked for, but torch sees no GPU: use --device cpu")
        local = int(os.environ.get("LOCAL_RANK", 0)) if size > 1 else torch.device(device).index or 0
        torch.cuda.set_device(local)
        device = f"cuda:{local}"
    else:
        device = str(usable_device(device))
    if size > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return World(rank, size, torch.device(device))


# -- data ----------------------------------------------------------------------------------------------------------


def _rendered(source: str) -> tuple[str, int]:
    """Name and count of `synth:NAME:COUNT`."""
    parts = source.split(":")
    if len(parts) != 3 or not parts[2].isdecimal() or int(parts[2]) < 1:
        raise Head3DError(
            f"a rendered set is called synth:NAME:COUNT, as in synth:faces:20000, got {source!r}"
        )
    return parts[1], int(parts[2])


def _stem(source: str, resolution: int, cache: Path | None) -> Path | None:
    """Where `cache` keeps a rendered set; another version of the sampler draws other people."""
    from head3d_core.synth.draws import SAMPLER_VERSION

    name, count = _rendered(source)
    return cache / f"{name}-{count}-{resolution}-v{SAMPLER_VERSION}" if cache else None


def _load_kept(stem: Path, count: int, resolution: int) -> tuple[Tensor, Tensor]:
    """A rendered set that `load_images` kept. Raises Head3DError for files that are not what their name says."""
    paths = [stem.with_suffix(end) for end in (".images.npy", ".labels.npy")]
    try:
        images, labels = (np.load(path) for path in paths)
    except (OSError, ValueError, EOFError) as error:
        raise Head3DError(f"{paths[0]} or {paths[1].name} cannot be read ({error}): delete both") from None
    if images.shape != (count, 3, resolution, resolution) or labels.shape != (count, 25):
        raise Head3DError(
            f"{paths[0]} and {paths[1].name} hold {list(images.shape)} and {list(labels.shape)}, not {count} pictures "
            f"of {resolution}²: delete both"
        )
    return torch.from_numpy(images), torch.from_numpy(labels)


def load_images(source: str, resolution: int, cache: Path | None = None) -> tuple[Tensor, Tensor]:
    """Images uint8 [N, 3, R, R] and cameras [N, 25] of a folder, a zip, or `synth:NAME:COUNT` rendered now.

    Raises Head3DError for a data set that cannot be trained on, or a malformed `synth:` name.
    """
    if not source.startswith("synth:"):
        return format.load_arrays(source, resolution)
    name, count = _rendered(source)
    stem = _stem(source, resolution, cache)
    if stem and stem.with_suffix(".labels.npy").is_file():
        return _load_kept(stem, count, resolution)
    from head3d_core.synth.make_data import render_set

    start = time.monotonic()
    images, labels = render_set(name, range(count), resolution)
    print(f"rendered {count} pictures of {name} in {time.monotonic() - start:.0f} s", flush=True)
    if stem:
        stem.parent.mkdir(parents=True, exist_ok=True)
        # Labels last: their presence says that both are whole.
        for end, array in ((".images.npy", images), (".labels.npy", labels)):
            with files.atomic(stem.with_suffix(end)) as temporary, temporary.open("wb") as file:
                np.save(file, array)
    return torch.from_numpy(images), torch.from_numpy(labels)


def load_cameras(source: str) -> Tensor:
    """Cameras [N, 25] alone; nothing is rendered for `synth:NAME:COUNT`."""
    if not source.startswith("synth:"):
        return format.load_arrays(source)[1]
    from head3d_core.synth.sets import example

    name, count = _rendered(source)
    return torch.from_numpy(np.stack([example(name, k).camera for k in range(count)])).float()


class Arriving(threading.Thread):
    """Renders the rest of a set into a pool, a few thousand pictures at a time, while training goes on.

    Args:
        pool: holds the first pictures and has room for all.
        source: `synth:NAME:COUNT`.
        resolution: pixels per side.
    """

    def __init__(self, pool: Pool, source: str, resolution: int, chunk: int = 2000) -> None:
        super().__init__(daemon=True)
        self.pool, self.resolution, self.chunk = pool, resolution, chunk
        self.name_, self.count = _rendered(source)
        self.error: Exception | None = None
        self.stopped = threading.Event()

    def run(self) -> None:
        """Works until the set is complete, an error (kept in `.error`) or `stopped`."""
        from head3d_core.synth.make_data import render_set

        try:
            while (start := len(self.pool)) < self.count and not self.stopped.is_set():
                end = min(start + self.chunk, self.count)
                images, labels = render_set(self.name_, range(start, end), self.resolution)
                self.pool.extend(torch.from_numpy(images), torch.from_numpy(labels))
        except Exception as error:  # reported by the main thread, which goes on with what is there
            self.error = error


def _load_shared(source: str, resolution: int, cache: Path | None, world: World) -> tuple[Tensor, Tensor]:
    """`load_images`, with rendered sets drawn once and sent to the other processes."""
    if world.size == 1 or not source.startswith("synth:"):
        return load_images(source, resolution, cache)
    count = int(source.split(":")[2]) if source.split(":")[-1].isdecimal() else 0
    if world.rank == 0:
        images, labels = load_images(source, resolution, cache)
        images, labels = images.to(world.device), labels.to(world.device)
    else:
        images = torch.empty(count, 3, resolution, resolution, dtype=torch.uint8, device=world.device)
        labels = torch.empty(count, 25, device=world.device)
    dist.broadcast(images, 0)
    dist.broadcast(labels, 0)
    return images, labels


def make_pools(
    how: Recipe,
    faces: tuple[Tensor, Tensor],
    heads: tuple[Tensor, Tensor] | None,
    device: torch.device,
    capacity: int = 0,
) -> tuple[list[Pool], Pool]:
    """One pool per discriminator of the recipe, and the face set for mapping cameras.

    `capacity` leaves room for more faces to arrive. Raises Head3DError if the recipe needs heads and none were
    given, or a source is empty.
    """
    face_pool = Pool(*faces, device, how.mirror, capacity)
    if how.needs_heads and heads is None:
        raise Head3DError(f"stage {how.stage} needs the head set: pass --heads DATA (or synth:heads:4800)")

    def of(source: Source) -> tuple[Tensor, Tensor]:
        if source == "faces" or heads is None:
            return faces
        if source == "heads":
            return heads
        yaw = yaw_pitch(heads[1].cpu())[0].abs()
        widest = float(yaw_pitch(faces[1].cpu())[0].abs().max())
        side = min(max(widest, how.tau), how.split_angle)
        chosen = (yaw > (how.split_angle if source == "heads_back" else side)).to(heads[0].device)
        if not bool(chosen.any()):
            raise Head3DError(
                f"the head set has no view beyond {math.degrees(how.split_angle):.0f}° of yaw: render it all around"
            )
        return heads[0][chosen], heads[1][chosen]

    pools = []
    for domain in how.domains:
        if domain.sources == ("faces",):
            pools.append(face_pool)
            continue
        parts = [of(source) for source in domain.sources]
        images, cameras = (torch.cat([p[k].to(device) for p in parts]) for k in (0, 1))
        pools.append(Pool(images, cameras.cpu(), device, how.mirror))
    return pools, face_pool


# -- networks ------------------------------------------------------------------------------------------------------


def _architecture(config: dict[str, Any]) -> dict[str, Any]:
    """What weights depend on: everything but how rays are sampled."""
    flat: dict[str, Any] = json.loads(json.dumps(config))
    render = flat.pop("render", {})
    return flat | {f"render.{k}": render[k] for k in ("axes", "box_warp") if k in render}


def _check_same(
    path: Path, scale: Preset, generator: dict[str, Any], discriminator: dict[str, Any] | None
) -> None:
    pairs = {"generator": (scale.generator.to_dict(), generator)}
    if discriminator is not None:
        pairs["discriminator"] = (scale.discriminator.to_dict(), discriminator)
    for kind, configs in pairs.items():
        mine, theirs = map(_architecture, configs)
        differing = sorted(k for k, v in mine.items() if theirs.get(k) != v)
        if differing:
            k = differing[0]
            raise Head3DError(
                f"the {kind} of {path} differs in {', '.join(differing)} ({theirs.get(k)} and {mine[k]}): "
                "use the preset, axes and width it was trained with"
            )


def starting_point(path: Path, scale: Preset) -> tuple[Generator, Discriminator | None]:
    """Averaged generator and first discriminator of a run, or of weights; None where weights hold no discriminator.

    Raises Head3DError if there is nothing to read or the architecture is another.
    """
    if snapshots.latest(path) is None:
        generator = weights.load_generator(path)
        own = weights.load_discriminator(path) if weights.holds_discriminator(path) else None
        _check_same(path, scale, generator.config.to_dict(), own.config.to_dict() if own else None)
        return generator, own
    tensors, meta = snapshots.load_latest(path)
    _check_same(path, scale, meta["generator"], meta["discriminator"])
    generator, discriminator = Generator(scale.generator), Discriminator(scale.discriminator)
    for module, prefix in ((generator, "average."), (discriminator, "d0.")):
        part = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
        module.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in part.items()})
    return generator, discriminator


def _load_pools(
    args: TrainArgs, side: int, how: Recipe, world: World
) -> tuple[list[Pool], Pool, Arriving | None]:
    """Pools of the recipe, the face pool, and what still arrives (not started)."""
    shows = [domain.sources for domain in how.domains if "faces" in domain.sources]
    wait_for = args.data
    may_arrive = args.data.startswith("synth:") and world.size == 1 and all(s == ("faces",) for s in shows)
    if args.stream and may_arrive:
        name, count = _rendered(args.data)
        kept = _stem(args.data, side, args.cache)
        if not (kept and kept.with_suffix(".labels.npy").is_file()):
            wait_for = f"synth:{name}:{min(args.stream, count)}"
    if shows:
        faces = _load_shared(wait_for, side, args.cache, world)
    else:  # only mapping cameras come from the face set
        cameras = load_cameras(args.data)
        faces, wait_for = (torch.empty(len(cameras), 0, 0, 0, dtype=torch.uint8), cameras), args.data
    heads = _load_shared(args.heads, side, args.cache, world) if args.heads else None
    capacity = _rendered(args.data)[1] if wait_for != args.data else 0
    pools, face_pool = make_pools(how, faces, heads, world.device, capacity)
    return pools, face_pool, Arriving(face_pool, args.data, side) if capacity else None


def _judge(
    how: Recipe, found: Discriminator | None, start: Start, scale: Preset, args: TrainArgs
) -> Discriminator:
    """A discriminator of its own for one domain, from the one `found` at its starting point."""
    if found is None and not how.only_discriminator:
        raise Head3DError(
            f"{getattr(args, start)} holds no discriminator to start from: fit one first "
            f"(train {'whiten' if start == 'teacher' else 'head'} --only-discriminator --{start} "
            f"{getattr(args, start)} ...) and pass that run"
        )
    torch.manual_seed(args.seed)
    discriminator = Discriminator(scale.discriminator)
    if found is not None:
        discriminator.load_state_dict(found.state_dict())
    return discriminator


def build_engine(args: TrainArgs, scale: Preset, how: Recipe, world: World) -> tuple[Engine, Arriving | None]:
    """Loads data and starting networks and puts everything on the device; also what still has to arrive."""
    side = scale.generator.image_resolution
    points: dict[Start, tuple[Generator, Discriminator | None]] = {}
    wanted: set[Start] = {how.start, *(d.start for d in how.domains)}
    if how.losses.any:
        wanted.add("teacher")
    for start in sorted(wanted):
        path = {"teacher": args.teacher, "head": args.head}.get(start)
        if start == "scratch":
            torch.manual_seed(args.seed)
            points[start] = Generator(scale.generator), Discriminator(scale.discriminator)
        elif path is None:
            raise Head3DError(f"stage {how.stage} starts from a {start} run: pass --{start} RUN")
        else:
            points[start] = starting_point(path, scale)
    judges = [_judge(how, points[d.start][1], d.start, scale, args) for d in how.domains]
    pools, face_pool, arriving = _load_pools(args, side, how, world)
    generator = Generator(scale.generator)
    generator.load_state_dict(points[how.start][0].state_dict())
    engine = Engine(
        scale, how, pools, generator, judges,
        faces=face_pool,
        teacher=points["teacher"][0] if how.losses.any else None,
        perceptual=perceptual_distance() if how.losses.lpips else None,
        seed=args.seed, rank=world.rank, world=world.size,
        options=EngineOptions(args.precision, args.channels_last, args.graphs, args.compile),
    )  # fmt: skip
    return engine, arriving


def memory_estimate(scale: Preset, batch: int) -> float:
    """About how many GiB a step needs: parameters with optimiser and averages, and activations in bfloat16.

    Within 30 % of what PyTorch reserved on an H100 with CUDA graphs: 16.7 GiB at 512² (batch 8; 10.1 in use at a
    time), 9.1 at 256² (16), 6.6 at 128² (32), 7.4 for classroom (32).
    """
    g, d = Generator, Discriminator
    with torch.device("meta"):
        parameters = sum(
            p.numel() for net in (g(scale.generator), d(scale.discriminator)) for p in net.parameters()
        )
    c, e = scale.generator, scale.discriminator
    side = c.image_resolution
    width = sum(
        5 * min(e.channel_base // r, e.channel_max) * r * r for r in (side >> k for k in range(6)) if r >= 4
    )
    planes = sum(
        6 * min(c.channel_base // r, c.channel_max) * r * r
        for r in (c.plane_resolution >> k for k in range(5))
    )
    activations = batch * (3 * width + 2 * planes + 8 * 3 * c.plane_channels * c.plane_resolution**2) * 2
    return (parameters * 20 + activations) / 2**30 + 1.0
