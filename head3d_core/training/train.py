"""`train STAGE`: data and starting networks in, a trained generator out; stops and resumes at any moment."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from head3d_core.checkpoints import weights
from head3d_core.config import DiscriminatorConfig, GeneratorConfig, Preset, preset
from head3d_core.geometry import turntable
from head3d_core.model.discriminator import Discriminator
from head3d_core.model.generator import Generator
from head3d_core.model.seeds import PSI, heads_of_seeds
from head3d_core.training import snapshots
from head3d_core.training.metric_snapshots import MetricSnapshots
from head3d_core.training.recipes import ROWS, Recipe, recipe
from head3d_core.training.stages import Arriving, TrainArgs, World, build_engine, join_world, memory_estimate
from head3d_core.training.trainer import Engine
from head3d_core.utils import images as grids
from head3d_core.utils.errors import Head3DError

GRID_YAWS = (-35.0, 0.0, 35.0, 90.0, 180.0)
"""Views of the periodic grids, degrees."""
_ALIKE = 0.01
"""Mean standard deviation over samples below which pictures count as all the same (range [-1, 1])."""
_CHANCE, _NEAR, _APART = 2 * math.log(2), 0.01, 0.1
"""Loss of a discriminator that answers 0 to everything; how near to it, and signs how far apart, look like one."""


class Run:
    """A training run in its folder: progress, log, grids, snapshots, stopping."""

    def __init__(self, args: TrainArgs, scale: Preset, how: Recipe, world: World, engine: Engine) -> None:
        self.args, self.scale, self.how, self.world, self.engine = args, scale, how, world, engine
        self.out = Path(args.out)
        self.started = self.reported = self.drawn = self.saved = self.measured = time.monotonic()
        self.reported_images = engine.images_seen
        self.stop_reason: str | None = None
        self.blind: dict[str, int] = {}
        self.arriving: Arriving | None = None
        self.metrics: MetricSnapshots | None = None
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
                    f"training diverged: {broken} is not finite after {self.engine.images_seen} images; the last "
                    f"good snapshot is {snapshots.latest(self.out)}: resume "
                    "from it with a lower learning rate or a higher R1 weight"
                )
            snapshots.save(self.out, self.engine.images_seen, *self.state(), keep=self.args.keep)
        self.saved = time.monotonic()

    def resume(self) -> None:
        """Continues from the newest snapshot in the run's folder, if there is one."""
        if snapshots.latest(self.out) is None:
            return
        tensors, meta = snapshots.load_latest(self.out, set_aside=self.world.rank == 0)
        for name, mine in (("generator", self.scale.generator.to_dict()), ("preset", self.scale.name)):
            if meta[name] != json.loads(json.dumps(mine)):
                raise Head3DError(
                    f"{self.out} was trained with another {name} ({meta['preset']}): use its own, or another --out"
                )
        differing = self._changed_since(meta)
        if differing:
            name = next(iter(differing))
            was, now = differing[name]
            raise Head3DError(
                f"{self.out} was trained with another {', '.join(differing)} ({name} was {was}, is {now}): "
                "use its own, or another --out"
            )
        self.engine.restore(tensors, meta)
        self.reported_images = self.engine.images_seen

    def _changed_since(self, meta: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
        """Fields in which this run differs from the snapshot's, (then, now).

        The number of images and the rates and R1 weights (the cure for divergence) may change in mid-run.
        """
        mine = json.loads(json.dumps({**self.how.to_dict(), "row": self.args.row, "seed": self.args.seed}))
        then = {**meta["recipe"], "row": meta["row"], "seed": meta["seed"]}
        for one in (mine, then):
            one["domains"] = [{k: v for k, v in d.items() if k != "gamma"} for d in one["domains"]]
        fixed = [k for k in mine if k not in ("images", "lr_g", "lr_d", "warmup_steps", "notes")]
        return {k: (then[k], mine[k]) for k in sorted(fixed) if k in then and then[k] != mine[k]}

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
        self.log(
            "progress",
            seconds=round(now - self.started, 2),
            rate=round(rate, 2),
            memory_gib=round(memory, 2),
            **values,
        )
        if self.world.rank == 0:
            shown = " ".join(
                f"{k}={v:.3g}" for k, v in values.items() if k.split("_")[0] in ("g", "d", "kd", "rgb", "r1")
            )
            print(
                f"{images}/{self.how.images} images  {rate:.1f}/s  {_clock(left)} left  {shown}", flush=True
            )
            if self.board:
                for name, value in values.items():
                    self.board.add_scalar(name, value, images)
        self._notice(values)
        if self.arriving:
            self.log("data", real_images=[len(pool) for pool in self.engine.pools])
            if self.arriving.error:
                print(
                    f"note: training goes on with {len(self.engine.pools[0])} pictures: {self.arriving.error}",
                    flush=True,
                )
            if not self.arriving.is_alive():
                self.arriving = None

    def _notice(self, values: dict[str, float]) -> None:
        wrong = sorted(k for k, v in values.items() if not math.isfinite(v))
        if wrong:
            self.log("diverged", names=wrong)
            raise Head3DError(
                f"training diverged: {', '.join(wrong)} is not finite after {self.engine.images_seen} images; "
                f"the last good snapshot is {snapshots.latest(self.out)}"
            )
        if values.get("bad_gradients"):
            self.log("bad_gradients", count=values["bad_gradients"])
            if self.world.rank == 0:
                print(
                    f"note: {values['bad_gradients']:.0f} gradient values were not finite and count as 0",
                    flush=True,
                )
        self._notice_chance(values)

    def _notice_chance(self, values: dict[str, float]) -> None:
        """Says which discriminator no longer tells real from generated, at the second report in a row that shows it.

        G learns nothing from such a one; at a run's beginning every discriminator is.
        """
        if self.engine.images_seen <= self.how.images // 10:
            return
        for name in (d.name for d in self.how.domains):
            loss, *signs = (values.get(f"{k}_{name}", math.nan) for k in ("d_loss", "sign_real", "sign_fake"))
            at_chance = abs(loss - _CHANCE) < _NEAR and abs(signs[0] - signs[1]) < _APART
            self.blind[name] = self.blind.get(name, 0) + 1 if at_chance else 0
            if self.blind[name] == 2:
                self.log("at_chance", discriminator=name)
                if self.world.rank == 0:
                    print(
                        f"warning: D_{name} tells real from generated no better than chance (loss {loss:.3f}, "
                        'signs alike): see "D is too weak" in notebooks/training_guide.md',
                        flush=True,
                    )

    def grid(self) -> None:
        """Samples of the averaged generator from several sides; notices when all look the same."""
        if self.world.rank == 0:
            images = sample_views(self.engine.average, range(6), GRID_YAWS)
            path = self.out / f"grid-{self.engine.images_seen:010d}.png"
            grids.save(grids.montage(images, len(GRID_YAWS)), path)
            front = images[GRID_YAWS.index(0.0) :: len(GRID_YAWS)].clamp(-1, 1)
            spread = float(front.std(0).mean())
            self.log("grid", file=path.name, spread=round(spread, 4))
            if spread < _ALIKE and self.engine.images_seen > self.how.images // 10:
                print(
                    f"warning: samples look all alike (spread {spread:.3f}): the generator may have collapsed",
                    flush=True,
                )
                self.log("collapse", spread=spread)
            if self.args.keep_grids is not None:
                for old in sorted(self.out.glob("grid-*.png"))[: -self.args.keep_grids or None]:
                    old.unlink()
        self.drawn = time.monotonic()

    def measure(self) -> None:
        """Kernel distances of the averaged generator to the training pictures; says once if they cannot be had."""
        if self.world.rank == 0 and self.args.metric_minutes:
            try:
                if self.metrics is None:
                    pools = list({id(p): p for p in self.engine.pools}.values())
                    self.metrics = MetricSnapshots(pools, self.args.metric_images, self.args.seed)
                values = self.metrics.measure(self.engine.average)
                self.log("metrics", count=self.args.metric_images, **values)
                if values:
                    print("  ".join(f"{k}={v:.2f}" for k, v in values.items()), flush=True)
            except Head3DError as error:
                self.log("no_metrics", reason=str(error))
                print(f"note: no metric snapshots: {error}", flush=True)
                self.args = dataclasses.replace(self.args, metric_minutes=0.0)
        self.measured = time.monotonic()

    def _due(self) -> list[bool]:
        """[stop, report, grid, save, measure] as process 0 sees it."""
        now = time.monotonic()
        if self.args.max_minutes is not None and now - self.started > self.args.max_minutes * 60:
            self.stop_reason = self.stop_reason or "time limit"
        a = self.args
        return [
            self.stop_reason is not None,
            now - self.reported > a.report_seconds,
            now - self.drawn > a.grid_minutes * 60,
            now - self.saved > a.snapshot_minutes * 60,
            bool(a.metric_minutes) and now - self.measured > a.metric_minutes * 60,
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
            stop, report, grid, save, measure = due
            if report:
                self.report()
            if grid:
                self.grid()
            if save:
                self.save()
            if measure:
                self.measure()
            if stop:
                return self.stop_reason or "stopped by process 0"
        return "done"


def sample_views(net: Generator, seeds: Sequence[int], yaws: tuple[float, ...], psi: float = PSI) -> Tensor:
    """Samples from each yaw (degrees): [len(seeds) * len(yaws), 3, H, W], the views of one seed together."""
    heads = heads_of_seeds(net, seeds, psi)
    return turntable.views(net, heads.planes, heads.ws, yaws).flatten(0, 1).float()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(min(seconds, 359_999)), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


def resolve(args: TrainArgs) -> tuple[Preset, Recipe]:
    """Preset and recipe with the overrides of the command line."""
    scale = preset(args.preset)
    changed: dict[str, Any] = {k: v for k in ("axes", "white_back") if (v := getattr(args, k)) is not None}
    render = dataclasses.replace(scale.generator.render, **changed)
    g = scale.generator
    wide: dict[str, Any] = {
        "channel_base": round(g.channel_base * args.width),
        "channel_max": round(g.channel_max * args.width),
    }
    scale = dataclasses.replace(scale, generator=dataclasses.replace(g, render=render, **wide))
    how = recipe(args.stage, args.preset, args.row)
    if args.row and ROWS[args.row].untrained:
        raise Head3DError(
            f"row {args.row!r} is not trained: evaluate the head generator with the teacher's F_xy put in"
        )
    changes: dict[str, Any] = {k: v for k in ("images", "batch") if (v := getattr(args, k)) is not None}
    if args.only_discriminator:
        if args.stage not in ("whiten", "head"):
            raise Head3DError(
                "only_discriminator goes with stage whiten (the face generator's) or head (the head generator's), "
                f"not {args.stage}"
            )
        changes["only_discriminator"] = True
        changes["start"] = "teacher" if args.stage == "whiten" else "head"
    of_back: dict[str, Any] = {} if args.gan_back is None else {"weight": args.gan_back}
    if args.side_views:
        of_back["sources"] = ("heads_side",)
    if of_back:
        if all(d.name != "back" for d in how.domains):
            name = "side_views" if args.side_views else "gan_back"
            raise Head3DError(f"{name} needs a discriminator of backs, and {args.row or args.stage} has none")
        changes["domains"] = tuple(
            dataclasses.replace(d, **of_back) if d.name == "back" else d for d in how.domains
        )
    return scale, dataclasses.replace(how, **changes)


def train(args: TrainArgs) -> Path:
    """Runs one stage; returns the run's folder. See `TrainArgs`."""
    scale, how = resolve(args)
    if args.precision not in ("bf16", "fp16", "fp32"):
        raise Head3DError(f"precision must be bf16, fp16 or fp32, got {args.precision!r}")
    if args.keep < 1:
        raise Head3DError(
            f"keep counts the snapshots that stay on disk, so it is at least 1, got {args.keep}"
        )
    world = join_world(args.device)
    began = time.monotonic()
    is_new = not args.out.exists()
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Head3DError(f"cannot write to {args.out} ({error.strerror}): choose another --out") from error
    if not args.resume and snapshots.latest(args.out):
        raise Head3DError(
            f"{args.out} already holds a run: add --resume to continue it, or choose another --out"
        )
    try:
        with _memory_named(scale, how, world):
            engine, arriving = build_engine(args, scale, how, world)
    except BaseException:
        if is_new:  # nothing was begun, so nothing is left behind
            with contextlib.suppress(OSError):
                args.out.rmdir()
        raise
    run = Run(args, scale, how, world, engine)
    run.arriving = arriving
    if arriving:
        arriving.start()
    run.started = began
    if args.resume:
        run.resume()
    previous = {
        s: signal.signal(s, lambda n, _: _request_stop(run, n)) for s in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        run.log(
            "start",
            args=json.loads(json.dumps(dataclasses.asdict(args), default=str)),
            **provenance(engine, how),
        )
        with _memory_named(scale, how, world), engine.on_stream():
            reason = run.loop()
            if run.reported_images != engine.images_seen:
                run.report()
            run.save()
            run.grid()
            run.measure()
        run.log("end", reason=reason, seconds=round(time.monotonic() - began, 1))
        if reason == "done" and world.rank == 0:
            notes = {
                "stage": args.stage,
                "row": args.row,
                "images": engine.images_seen,
                "seed": args.seed,
                "recipe": how.to_dict(),
            }
            weights.save_generator(engine.average, args.out / "weights", half=True, notes=notes)
        if world.rank == 0:
            print(
                f"{reason} at {engine.images_seen} images; state in {snapshots.latest(args.out)}", flush=True
            )
    finally:
        if arriving:
            arriving.stopped.set()
        for number, handler in previous.items():
            signal.signal(number, handler)
        if world.size > 1:
            engine.release_graphs()
            dist.destroy_process_group()
    return args.out


def export(run: Path, out: Path, half: bool = True) -> Path:
    """Averaged generator and first discriminator of a run as weights in `out`, which later stages can start from.

    Much smaller than the training state: two networks in float16.
    """
    tensors, meta = snapshots.load_latest(run)
    generator = Generator(GeneratorConfig.from_dict(meta["generator"]))
    discriminator = Discriminator(DiscriminatorConfig.from_dict(meta["discriminator"]))
    notes = {k: meta[k] for k in ("images", "preset", "recipe", "row", "seed")}
    for net, prefix in ((generator, "average."), (discriminator, "d0.")):
        part = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        net.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in part.items()})
    weights.save_generator(generator, out, half=half, notes=notes)
    return weights.save_discriminator(discriminator, out, half=half, notes=notes)


def _request_stop(run: Run, number: int) -> None:
    run.stop_reason = signal.Signals(number).name


@contextlib.contextmanager
def _memory_named(scale: Preset, how: Recipe, world: World) -> Iterator[None]:
    """Turns a GPU that is too small, wherever it shows, into a sentence with the estimate and what to lower."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        need = memory_estimate(scale, how.batch // world.size)
        total = torch.cuda.mem_get_info()[1] / 2**30
        pictures = 10_000 * 3 * scale.generator.image_resolution**2 / 2**30
        raise Head3DError(
            f"the GPU ({total:.0f} GiB) ran out of memory: preset {scale.name} at batch {how.batch} over "
            f"{world.size} process(es) needs about {need:.0f} GiB each, and {pictures:.1f} GiB for every 10,000 "
            "pictures; lower --batch, spread it over more GPUs, or take fewer pictures or a smaller preset"
        ) from error


def provenance(engine: Engine, how: Recipe) -> dict[str, Any]:
    """What a result was made with: versions, device, recipe, perceptual distance."""
    from head3d_core import ops
    from head3d_core.utils import records

    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": records.code_commit(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if engine.cuda else "cpu",
        "native": ops.available(),
        "world": engine.world,
        "options": dataclasses.asdict(engine.options),
        "perceptual": getattr(engine.perceptual, "name", None),
        "real_images": [len(pool) for pool in engine.pools],
        "recipe": how.to_dict(),
    }
