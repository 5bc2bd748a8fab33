"""`train STAGE`: data and starting networks in, a trained generator out; stops and resumes at any moment."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from head3d_core import checkpoint, dataset, grids, snapshots
from head3d_core.cameras import frontal, orbit, yaw_pitch
from head3d_core.config import Preset, preset
from head3d_core.discriminator import Discriminator
from head3d_core.engine import Engine, EngineOptions, Pool
from head3d_core.errors import Head3DError
from head3d_core.generator import Generator
from head3d_core.losses import perceptual_distance
from head3d_core.recipes import ROWS, Recipe, Source, Start, recipe

GRID_YAWS = (-35.0, 0.0, 35.0, 90.0, 180.0)
"""Views of the periodic grids, degrees."""
_ALIKE = 0.01
"""Mean standard deviation over samples below which pictures count as all the same (range [-1, 1])."""


@dataclass(frozen=True)
class TrainArgs:
    """Train one stage: teacher, whiten, head or distill."""

    stage: str
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
    axes: str | None = None
    """"xyz" or "eg3d" instead of the preset's."""
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
    keep: int = 2
    """Snapshots that stay."""
    keep_grids: int | None = None
    """Grids that stay; default: all."""
    carry: bool = False
    """Small snapshots: float16 and no optimiser state (a resumed run then warms its learning rates up)."""
    cache: Path | None = None
    """Folder that keeps rendered sets for the next run on this machine."""
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
    if size > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return World(rank, size, torch.device(device))


# -- data ----------------------------------------------------------------------------------------------------------


def load_images(source: str, resolution: int, cache: Path | None = None) -> tuple[Tensor, Tensor]:
    """Images uint8 [N, 3, R, R] and cameras [N, 25] of a folder, a zip, or `synth:NAME:COUNT` rendered now.

    Raises Head3DError for a data set that cannot be trained on, or a malformed `synth:` name.
    """
    if not source.startswith("synth:"):
        return dataset.load_arrays(source, resolution)
    parts = source.split(":")
    if len(parts) != 3 or not parts[2].isdecimal() or int(parts[2]) < 1:
        raise Head3DError(f"a rendered set is called synth:NAME:COUNT, as in synth:faces:20000, got {source!r}")
    name, count = parts[1], int(parts[2])
    stem = cache / f"{name}-{count}-{resolution}" if cache else None
    if stem and stem.with_suffix(".labels.npy").is_file():
        images, labels = np.load(stem.with_suffix(".images.npy")), np.load(stem.with_suffix(".labels.npy"))
        return torch.from_numpy(images), torch.from_numpy(labels)
    from head3d_core.synth.make_data import render_set

    start = time.monotonic()
    images, labels = render_set(name, range(count), resolution)
    print(f"rendered {count} pictures of {name} in {time.monotonic() - start:.0f} s", flush=True)
    if stem:
        stem.parent.mkdir(parents=True, exist_ok=True)
        np.save(stem.with_suffix(".images.npy"), images)
        np.save(stem.with_suffix(".labels.npy"), labels)  # last: its presence says that both are whole
    return torch.from_numpy(images), torch.from_numpy(labels)


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
    how: Recipe, faces: tuple[Tensor, Tensor], heads: tuple[Tensor, Tensor] | None, device: torch.device
) -> tuple[list[Pool], Pool]:
    """One pool per discriminator of the recipe, and the face set for mapping cameras.

    Raises Head3DError if the recipe needs heads and none were given, or a source is empty.
    """
    face_pool = Pool(*faces, device, how.mirror)
    if how.needs_heads and heads is None:
        raise Head3DError(f"stage {how.stage} needs the head set: pass --heads DATA (or synth:heads:4800)")

    def of(source: Source) -> tuple[Tensor, Tensor]:
        if source == "faces" or heads is None:
            return faces
        if source == "heads":
            return heads
        yaw = yaw_pitch(heads[1].cpu())[0].abs()
        widest = float(yaw_pitch(faces[1].cpu())[0].abs().max())
        chosen = (yaw > (how.split_angle if source == "heads_back" else min(widest, how.split_angle))).to(heads[0].device)
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


def starting_point(path: Path, scale: Preset) -> tuple[Generator, Discriminator]:
    """Averaged generator and first discriminator of a run, or of weights that hold both.

    Raises Head3DError if there is nothing to read or the architecture is another.
    """
    if snapshots.latest(path) is None:
        return checkpoint.load_generator(path), checkpoint.load_discriminator(path)
    tensors, meta = snapshots.load_latest(path)
    mine = {"generator": scale.generator.to_dict(), "discriminator": scale.discriminator.to_dict()}
    for kind, config in mine.items():
        differing = sorted(k for k, v in json.loads(json.dumps(config)).items() if meta[kind].get(k) != v)
        if differing:
            k = differing[0]
            raise Head3DError(
                f"the {kind} of {path} differs in {', '.join(differing)} ({meta[kind].get(k)} and {config[k]}): use the preset it was trained with ({meta['preset']})"
            )
    generator, discriminator = Generator(scale.generator), Discriminator(scale.discriminator)
    for module, prefix in ((generator, "average."), (discriminator, "d0.")):
        part = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
        module.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in part.items()})
    return generator, discriminator


def build_engine(args: TrainArgs, scale: Preset, how: Recipe, world: World) -> Engine:
    """Loads data and starting networks and puts everything on the device."""
    side = scale.generator.image_resolution
    points: dict[Start, tuple[Generator, Discriminator]] = {}
    wanted = {how.start, *(d.start for d in how.domains)} | ({"teacher"} if how.losses.any else set())
    for start in sorted(wanted):
        path = {"teacher": args.teacher, "head": args.head}.get(start)
        if start == "scratch":
            torch.manual_seed(args.seed)
            points[start] = Generator(scale.generator), Discriminator(scale.discriminator)
        elif path is None:
            raise Head3DError(f"stage {how.stage} starts from a {start} run: pass --{start} RUN")
        else:
            points[start] = starting_point(path, scale)
    faces = _load_shared(args.data, side, args.cache, world)
    heads = _load_shared(args.heads, side, args.cache, world) if args.heads else None
    pools, face_pool = make_pools(how, faces, heads, world.device)
    copy_of = {start: (g, d) for start, (g, d) in points.items()}
    generator = Generator(scale.generator)
    generator.load_state_dict(copy_of[how.start][0].state_dict())
    discriminators = []
    for domain in how.domains:
        discriminator = Discriminator(scale.discriminator)
        discriminator.load_state_dict(copy_of[domain.start][1].state_dict())
        discriminators.append(discriminator)
    return Engine(
        scale, how, pools, generator, discriminators,
        faces=face_pool,
        teacher=points["teacher"][0] if how.losses.any else None,
        perceptual=perceptual_distance() if how.losses.lpips else None,
        seed=args.seed, rank=world.rank, world=world.size,
        options=EngineOptions(args.precision, args.channels_last, args.graphs, args.compile),
    )  # fmt: skip


# -- the loop ------------------------------------------------------------------------------------------------------


class Run:
    """A training run in its folder: progress, log, grids, snapshots, stopping."""

    def __init__(self, args: TrainArgs, scale: Preset, how: Recipe, world: World, engine: Engine) -> None:
        self.args, self.scale, self.how, self.world, self.engine = args, scale, how, world, engine
        self.out = Path(args.out)
        self.started = self.reported = self.drawn = self.saved = time.monotonic()
        self.reported_images = engine.images_seen
        self.stop_reason: str | None = None
        self.board: Any = None
        if args.tensorboard and world.rank == 0:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(self.out / "tensorboard"))

    def log(self, event: str, **values: Any) -> None:
        """One line of JSON in log.jsonl (process 0 only)."""
        if self.world.rank == 0:
            with open(self.out / "log.jsonl", "a", encoding="utf8") as file:
                file.write(json.dumps({"event": event, "images": self.engine.images_seen, **values}) + "\n")

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything a resumed run needs."""
        tensors = self.engine.tensors(optimiser=not self.args.carry)
        meta = {
            **self.engine.counters(),
            "images": self.engine.images_seen,
            "optimiser": not self.args.carry,
            "preset": self.scale.name,
            "generator": self.scale.generator.to_dict(),
            "discriminator": self.scale.discriminator.to_dict(),
            "recipe": self.how.to_dict(),
            "row": self.args.row,
            "seed": self.args.seed,
        }
        return (snapshots.halve(tensors) if self.args.carry else tensors), meta

    def save(self) -> None:
        """Writes a snapshot, unless a weight is not finite."""
        if self.world.rank == 0:
            broken = self.engine.broken_parameter()
            if broken:
                raise Head3DError(
                    f"training diverged: {broken} is not finite after {self.engine.images_seen} images; the last good snapshot is {snapshots.latest(self.out)}: resume from it with a lower learning rate or higher R1 weight"
                )
            snapshots.save(self.out, self.engine.images_seen, *self.state(), keep=self.args.keep)
        self.saved = time.monotonic()

    def resume(self) -> None:
        """Continues from the newest snapshot in the run's folder, if there is one."""
        if snapshots.latest(self.out) is None:
            return
        tensors, meta = snapshots.load_latest(self.out)
        for name, mine in (("generator", self.scale.generator.to_dict()), ("preset", self.scale.name)):
            if meta[name] != json.loads(json.dumps(mine)):
                raise Head3DError(f"{self.out} was trained with another {name} ({meta['preset']}): use its own, or another --out")
        if meta["recipe"]["batch"] != self.how.batch or meta["recipe"]["stage"] != self.how.stage:
            raise Head3DError(
                f"{self.out} holds stage {meta['recipe']['stage']} at batch {meta['recipe']['batch']}, this is {self.how.stage} at {self.how.batch}: use another --out"
            )
        self.engine.restore(tensors, meta)
        self.reported_images = self.engine.images_seen

    def report(self) -> None:
        """One line of progress with rate and remaining time; checks for divergence."""
        values = self.engine.read_metrics()
        now = time.monotonic()
        images = self.engine.images_seen
        rate = (images - self.reported_images) / max(now - self.reported, 1e-9)
        self.reported, self.reported_images = now, images
        left = (self.how.images - images) / max(rate, 1e-9)
        if self.args.max_minutes is not None:
            left = min(left, max(0.0, self.args.max_minutes * 60 - (now - self.started)))
        memory = torch.cuda.max_memory_allocated() / 2**30 if self.engine.cuda else 0.0
        self.log("progress", seconds=round(now - self.started, 2), rate=round(rate, 2), memory_gib=round(memory, 2), **values)
        if self.world.rank == 0:
            shown = " ".join(f"{k}={v:.3g}" for k, v in values.items() if k.split("_")[0] in ("g", "d", "kd", "rgb", "r1"))
            print(f"{images}/{self.how.images} images  {rate:.1f}/s  {_clock(left)} left  {shown}", flush=True)
            if self.board:
                for name, value in values.items():
                    self.board.add_scalar(name, value, images)
        self._notice(values)

    def _notice(self, values: dict[str, float]) -> None:
        wrong = sorted(k for k, v in values.items() if not math.isfinite(v))
        if wrong:
            self.log("diverged", names=wrong)
            raise Head3DError(
                f"training diverged: {', '.join(wrong)} is not finite after {self.engine.images_seen} images; the last good snapshot is {snapshots.latest(self.out)}"
            )
        if values.get("bad_gradients"):
            self.log("bad_gradients", count=values["bad_gradients"])
            if self.world.rank == 0:
                print(f"note: {values['bad_gradients']:.0f} gradient values were not finite and count as 0", flush=True)

    def grid(self) -> None:
        """Samples of the averaged generator from several sides; notices when all look the same."""
        if self.world.rank == 0:
            images = sample_views(self.engine.average, 6, GRID_YAWS, self.args.seed)
            path = self.out / f"grid-{self.engine.images_seen:010d}.png"
            grids.save_grid(images, len(GRID_YAWS), path)
            front = images[GRID_YAWS.index(0.0) :: len(GRID_YAWS)].clamp(-1, 1)
            spread = float(front.std(0).mean())
            self.log("grid", file=path.name, spread=round(spread, 4))
            if spread < _ALIKE and self.engine.images_seen > self.how.images // 10:
                print(f"warning: samples look all alike (spread {spread:.3f}): the generator may have collapsed", flush=True)
                self.log("collapse", spread=spread)
            if self.args.keep_grids is not None:
                for old in sorted(self.out.glob("grid-*.png"))[: -self.args.keep_grids or None]:
                    old.unlink()
        self.drawn = time.monotonic()

    def _due(self) -> list[bool]:
        """[stop, report, grid, save] as process 0 sees it."""
        now = time.monotonic()
        if self.args.max_minutes is not None and now - self.started > self.args.max_minutes * 60:
            self.stop_reason = self.stop_reason or "time limit"
        a = self.args
        return [
            self.stop_reason is not None,
            now - self.reported > a.report_seconds,
            now - self.drawn > a.grid_minutes * 60,
            now - self.saved > a.snapshot_minutes * 60,
        ]

    def loop(self) -> str:
        """Trains until done, out of time or told to stop; returns which."""
        while self.engine.images_seen < self.how.images:
            self.engine.step()
            if self.world.size > 1 and self.engine.step_count % 16:
                continue  # processes agree on what is due every 16 steps
            due = self._due()
            if self.world.size > 1:
                flags = torch.tensor(due, dtype=torch.int32, device=self.world.device)
                dist.broadcast(flags, 0)
                due = [bool(f) for f in flags.tolist()]
            stop, report, grid, save = due
            if report:
                self.report()
            if grid:
                self.grid()
            if save:
                self.save()
            if stop:
                return self.stop_reason or "stopped by process 0"
        return "done"


def sample_views(net: Generator, count: int, yaws: tuple[float, ...], seed: int, psi: float = 0.7) -> Tensor:
    """`count` samples from each yaw (degrees): [count * len(yaws), 3, H, W], one sample a row."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(count, net.z_dim, generator=generator).to(net.device)
    with torch.no_grad():
        ws = net.mapping(z, frontal(count, net.device), psi)
        planes = net.planes(ws)
        views = []
        for yaw in yaws:
            camera = orbit(math.radians(yaw)).to(net.device).expand(count, 25)
            views.append(net.render(planes, ws, camera).image.float())
    return torch.stack(views, 1).flatten(0, 1)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(min(seconds, 359_999)), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


def resolve(args: TrainArgs) -> tuple[Preset, Recipe]:
    """Preset and recipe with the overrides of the command line."""
    scale = preset(args.preset)
    if args.axes is not None:
        render = dataclasses.replace(scale.generator.render, axes=args.axes)  # type: ignore[arg-type]
        scale = dataclasses.replace(scale, generator=dataclasses.replace(scale.generator, render=render))
    how = recipe(args.stage, args.preset, args.row)
    if args.row and ROWS[args.row].untrained:
        raise Head3DError(f"row {args.row!r} is not trained: evaluate the head generator with the teacher's F_xy put in")
    changes: dict[str, Any] = {k: v for k in ("images", "batch") if (v := getattr(args, k)) is not None}
    return scale, dataclasses.replace(how, **changes)


def train(args: TrainArgs) -> Path:
    """Runs one stage; returns the run's folder. See `TrainArgs`."""
    scale, how = resolve(args)
    if args.precision not in ("bf16", "fp16", "fp32"):
        raise Head3DError(f"precision must be bf16, fp16 or fp32, got {args.precision!r}")
    world = join_world(args.device)
    began = time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)
    if not args.resume and snapshots.latest(args.out):
        raise Head3DError(f"{args.out} already holds a run: add --resume to continue it, or choose another --out")
    engine = build_engine(args, scale, how, world)
    run = Run(args, scale, how, world, engine)
    run.started = began
    if args.resume:
        run.resume()
    previous = {s: signal.signal(s, lambda n, _: _request_stop(run, n)) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        run.log("start", args=json.loads(json.dumps(dataclasses.asdict(args), default=str)), **provenance(engine, how))
        with engine.on_stream():
            reason = _guarded(run)
            if run.reported_images != engine.images_seen:
                run.report()
            run.save()
            run.grid()
        run.log("end", reason=reason, seconds=round(time.monotonic() - began, 1))
        if reason == "done" and world.rank == 0:
            notes = {"stage": args.stage, "row": args.row, "images": engine.images_seen, "seed": args.seed, "recipe": how.to_dict()}
            checkpoint.save_generator(engine.average, args.out / "weights", half=True, notes=notes)
        if world.rank == 0:
            print(f"{reason} at {engine.images_seen} images; state in {snapshots.latest(args.out)}", flush=True)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        if world.size > 1:
            dist.destroy_process_group()
    return args.out


def _request_stop(run: Run, number: int) -> None:
    run.stop_reason = signal.Signals(number).name


def _guarded(run: Run) -> str:
    try:
        return run.loop()
    except torch.OutOfMemoryError as error:
        need, total = memory_estimate(run.scale, run.how.batch // run.world.size), torch.cuda.mem_get_info()[1] / 2**30
        raise Head3DError(
            f"the GPU ({total:.0f} GiB) ran out of memory: preset {run.scale.name} at batch {run.how.batch} per {run.world.size} process(es) needs about {need:.0f} GiB; lower --batch, spread it over more GPUs, or take a smaller preset"
        ) from error


def memory_estimate(scale: Preset, batch: int) -> float:
    """About how many GiB a step needs: parameters with optimiser and averages, and activations in bfloat16."""
    g, d = Generator, Discriminator
    with torch.device("meta"):
        parameters = sum(p.numel() for net in (g(scale.generator), d(scale.discriminator)) for p in net.parameters())
    c, e = scale.generator, scale.discriminator
    side = c.image_resolution
    width = sum(5 * min(e.channel_base // r, e.channel_max) * r * r for r in (side >> k for k in range(6)) if r >= 4)
    planes = sum(6 * min(c.channel_base // r, c.channel_max) * r * r for r in (c.plane_resolution >> k for k in range(5)))
    activations = batch * (3 * width + 2 * planes + 8 * 3 * c.plane_channels * c.plane_resolution**2) * 2
    return (parameters * 20 + activations) / 2**30 + 1.0


def provenance(engine: Engine, how: Recipe) -> dict[str, Any]:
    """What a result was made with: versions, device, recipe, perceptual distance."""
    from head3d_core import ops

    return {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if engine.cuda else "cpu",
        "native": ops.available(),
        "world": engine.world,
        "options": dataclasses.asdict(engine.options),
        "perceptual": getattr(engine.perceptual, "name", None),
        "real_images": [len(pool) for pool in engine.pools],
        "recipe": how.to_dict(),
    }
