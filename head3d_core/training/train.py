"""The command `train`: trains one stage, with log, sample grids and snapshots; stops and resumes at any moment."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import math
import re
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from head3d_core import ops
from head3d_core.checkpoints import weights
from head3d_core.config import DiscriminatorConfig, GeneratorConfig
from head3d_core.geometry import turntable
from head3d_core.model.generator import Generator
from head3d_core.model.seeds import heads_of_seeds
from head3d_core.training import snapshots
from head3d_core.training.metric_snapshots import MetricSnapshots
from head3d_core.training.numerics import World, join_world
from head3d_core.training.options import TrainArgs, check_used, from_command_line
from head3d_core.training.stages import build_trainer, memory_estimate
from head3d_core.training.trainer import Trainer
from head3d_core.utils import files, records
from head3d_core.utils import images as grids
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.nested import differences

__all__ = ["TrainArgs", "from_command_line", "run", "train"]

INTERRUPTED = 75
"""Exit status of a run that stopped before its last image: the same command with --resume goes on."""
GRID_YAWS = (-35.0, 0.0, 35.0, 90.0, 180.0)
"""Views of the periodic grids, degrees."""
_COLLAPSED = 0.01
"""Mean standard deviation over samples below which images count as all the same (range [-1, 1])."""
_CHANCE, _NEAR, _APART = 2 * math.log(2), 0.01, 0.1
"""Loss of a discriminator that answers 0 to everything; how near to it, and signs how far apart, look like one."""
_MAY_CHANGE = re.compile(r"sources\..*|recipe\.(images|lr_g|lr_d|warmup_steps|notes|domains\.\d\.gamma)")
"""Settings that a resumed run may change: where its data are, its length, and the cures for divergence."""


class Run:
    """A training run in its folder: progress, log, grids, snapshots, stopping."""

    def __init__(self, args: TrainArgs, world: World, trainer: Trainer, started: float) -> None:
        self.args, self.world, self.trainer = args, world, trainer
        self.recipe, self.out = args.recipe, args.out
        self.first = world.rank == 0
        self.started, self.reported = started, time.monotonic()
        self.reported_images = trainer.images_seen
        self.periodic: dict[Callable[[], None], float] = {
            self.report: args.report_seconds,
            self.grid: args.grid_minutes * 60,
            self.save: args.snapshot_minutes * 60,
            self.measure: args.metric_minutes * 60 or math.inf,
        }
        self.last = dict.fromkeys(self.periodic, self.reported)
        self.stop_reason: str | None = None
        self.reports_at_chance: dict[str, int] = {}
        self.metrics: MetricSnapshots | None = None
        self.board: Any = None
        if args.tensorboard and self.first:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                print("no TensorBoard events: pip install tensorboard", flush=True)
            else:
                self.board = SummaryWriter(str(self.out / "tensorboard"))

    def log(self, event: str, **values: Any) -> None:
        """One line of JSON in log.jsonl (process 0 only)."""
        if self.first:
            line = json.dumps({"event": event, "images": self.trainer.images_seen, **values}, default=str)
            with open(self.out / "log.jsonl", "a", encoding="utf8") as file:
                file.write(line + "\n")

    def say(self, text: str) -> None:
        """One line on the terminal (process 0 only)."""
        if self.first:
            print(text, flush=True)

    # -- snapshots -------------------------------------------------------------------------------------------

    def settings(self) -> dict[str, Any]:
        """Settings of the run that a snapshot records."""
        return {
            "preset": self.args.preset,
            "generator": self.trainer.preset.generator.to_dict(),
            "discriminator": self.args.discriminator.to_dict(),
            "recipe": dataclasses.asdict(self.recipe),
            "row": self.args.row,
            "seed": self.args.seed,
            "sources": {
                name: str(getattr(self.args, name))
                for name in ("data", "heads", "teacher", "head", "back_target")
            },
        }

    def save(self) -> None:
        """Writes a snapshot, unless a weight is not finite."""
        if self.first:
            self._refuse_diverged(filter(None, [self.trainer.broken_parameter()]))
            meta = {**self.trainer.counters(), **self.settings()}
            tensors = self.trainer.tensors()
            snapshots.save(self.out, self.trainer.images_seen, tensors, meta, keep=self.args.keep)
            if self.args.carry:
                snapshots.save_carry(self.out, tensors, meta)

    def resume(self) -> None:
        """Continues from the newest snapshot in the run's folder, if there is one.

        Raises Head3DError if this command would train another thing; says which of the permitted changes it makes.
        """
        if snapshots.latest(self.out) is None:
            return
        tensors, meta = snapshots.load_latest(self.out, set_aside=self.first)
        then = {name: meta[name] for name in self.settings() if name in meta}
        for name, kind in (("generator", GeneratorConfig), ("discriminator", DiscriminatorConfig)):
            then[name] = kind.from_dict(then[name]).to_dict()  # older runs lack fields that came later
        changes = differences(then, json.loads(json.dumps(self.settings())))
        refused = [name for name in changes if not _MAY_CHANGE.fullmatch(name)]
        if refused:
            was, now = changes[refused[0]]
            raise Head3DError(
                f"{self.out} was trained with another {', '.join(refused)} ({refused[0]} was {was}, is {now}): "
                "use its own, or another --out"
            )
        for name, (was, now) in changes.items():
            self.say(f"note: {name} was {was} and is {now} from here on")
        self.trainer.restore(tensors, meta)
        self.reported_images = self.trainer.images_seen

    # -- progress --------------------------------------------------------------------------------------------

    def report(self) -> None:
        """One line of progress with rate and remaining time; checks for divergence."""
        values = self.trainer.read_metrics()
        now, images = time.monotonic(), self.trainer.images_seen
        rate = (images - self.reported_images) / max(now - self.reported, 1e-9)
        self.reported, self.reported_images = now, images
        left = (self.recipe.images - images) / max(rate, 1e-9)
        if self.args.max_minutes is not None:
            left = min(left, max(0.0, self.args.max_minutes * 60 - (now - self.started)))
        memory = torch.cuda.max_memory_allocated() / 2**30 if self.trainer.cuda else 0.0
        numbers = {"seconds": now - self.started, "rate": rate, "memory_gib": memory}
        self.log("progress", **{name: round(value, 2) for name, value in numbers.items()}, **values)
        progress = (
            f"{images}/{self.recipe.images} images  {rate:.1f}/s  {timedelta(seconds=round(left))} left"
        )
        losses = [
            f"{k}={v:.3g}" for k, v in values.items() if k.split("_")[0] in ("g", "d", "kd", "rgb", "r1")
        ]
        self.say(f"{progress}  {' '.join(losses)}")
        if self.board:
            for name, value in values.items():
                self.board.add_scalar(name, value, images)
        self._check_divergence(values)
        if self._under_way:  # at a run's beginning every discriminator is at chance
            self._check_chance(values)

    @property
    def _under_way(self) -> bool:
        return self.trainer.images_seen > self.recipe.images // 10

    def _refuse_diverged(self, names: Iterable[str]) -> None:
        if wrong := sorted(names):
            self.log("diverged", names=wrong)
            raise Head3DError(
                f"training diverged: {', '.join(wrong)} is not finite after {self.trainer.images_seen} images; the "
                f"last good snapshot is {snapshots.latest(self.out)}: resume from it with a lower learning rate or a "
                "higher R1 weight"
            )

    def _check_divergence(self, values: dict[str, float]) -> None:
        self._refuse_diverged(k for k, v in values.items() if not math.isfinite(v))
        if values.get("bad_gradients"):
            self.log("bad_gradients", count=values["bad_gradients"])
            self.say(f"note: {values['bad_gradients']:.0f} gradient values were not finite and count as 0")

    def _check_chance(self, values: dict[str, float]) -> None:
        """Says which discriminator no longer tells real from generated, at the second report in a row that shows it."""
        for name in (domain.name for domain in self.recipe.domains):
            loss, *signs = (values.get(f"{k}_{name}", math.nan) for k in ("d_loss", "sign_real", "sign_fake"))
            at_chance = abs(loss - _CHANCE) < _NEAR and abs(signs[0] - signs[1]) < _APART
            self.reports_at_chance[name] = self.reports_at_chance.get(name, 0) + 1 if at_chance else 0
            if self.reports_at_chance[name] == 2:
                self.log("at_chance", discriminator=name)
                self.say(
                    f"warning: D_{name} tells real from generated no better than chance (loss {loss:.3f}, "
                    'equal signs): see "D is too weak" in notebooks/training_guide.md'
                )
                if self.args.stop_at_chance:
                    self.stop_reason = f"D_{name} at chance"

    def grid(self) -> None:
        """Samples of the averaged generator from several sides; says when all look the same."""
        if self.first:
            images = sample_views(self.trainer.average, range(6), GRID_YAWS)
            path = self.out / f"grid-{self.trainer.images_seen:010d}.png"
            grids.save(grids.montage(images, len(GRID_YAWS)), path)
            front = images[GRID_YAWS.index(0.0) :: len(GRID_YAWS)].clamp(-1, 1)
            spread = float(front.std(0).mean())
            self.log("grid", file=path.name, spread=round(spread, 4))
            if spread < _COLLAPSED and self._under_way:
                self.say(f"warning: all samples look the same (spread {spread:.3f}): mode collapse")
                self.log("collapse", spread=spread)

    def measure(self) -> None:
        """Kernel distances of the averaged generator to the training images; says once if they cannot be measured."""
        if self.first and self.args.metric_minutes:
            try:
                if self.metrics is None:
                    pools = list({id(pool): pool for pool in self.trainer.pools}.values())
                    self.metrics = MetricSnapshots(pools, self.args.metric_images, self.args.seed)
                values = self.metrics.measure(self.trainer.average)
                self.log("metrics", count=self.args.metric_images, **values)
                if values:
                    self.say("  ".join(f"{k}={v:.2f}" for k, v in values.items()))
            except Head3DError as error:
                self.log("no_metrics", reason=str(error))
                self.say(f"note: no metric snapshots: {error}")
                self.args = dataclasses.replace(self.args, metric_minutes=0.0)
                self.periodic[self.measure] = math.inf

    # -- the loop --------------------------------------------------------------------------------------------

    def _schedule(self) -> list[bool]:
        """Which of `periodic` to do now, and whether to stop, as process 0 sees it."""
        now, limit = time.monotonic(), self.args.max_minutes
        if limit is not None and now - self.started > limit * 60:
            self.stop_reason = self.stop_reason or "time limit"
        due = [now - self.last[act] > seconds for act, seconds in self.periodic.items()]
        return [*due, self.stop_reason is not None]

    def loop(self) -> str:
        """Trains until done, out of time or stopped by a signal; returns which."""
        while self.trainer.images_seen < self.recipe.images:
            self.trainer.step()
            if self.world.size > 1 and self.trainer.step_count % 16:
                continue  # processes agree on the schedule every 16 steps
            schedule = self._schedule()
            if self.world.size > 1:
                flags = torch.tensor(schedule, dtype=torch.int32, device=self.world.device)
                dist.broadcast(flags, 0)
                schedule = [bool(flag) for flag in flags.tolist()]
            for act in itertools.compress(list(self.periodic), schedule):
                act()
                self.last[act] = time.monotonic()
            if schedule[-1]:
                return self.stop_reason or "stopped by process 0"
        return "done"

    def request_stop(self, number: int, _frame: Any = None) -> None:
        """Signal handler: stops after this step."""
        self.stop_reason = signal.Signals(number).name

    def finish(self, reason: str) -> None:
        """Writes the last report, snapshot and grid, and the weights of a run that is done."""
        if self.reported_images != self.trainer.images_seen:
            self.report()
        self.save()
        self.grid()
        self.measure()
        self.log("end", reason=reason, seconds=round(time.monotonic() - self.started, 1))
        if reason == "done" and self.first:
            notes: dict[str, Any] = {name: getattr(self.args, name) for name in ("stage", "row", "seed")}
            notes |= {"images": self.trainer.images_seen, "recipe": dataclasses.asdict(self.recipe)}
            weights.save_generator(self.trainer.average, self.out / "weights", half=True, notes=notes)
        self.say(f"{reason} at {self.trainer.images_seen} images; state in {snapshots.latest(self.out)}")


def sample_views(net: Generator, seeds: Sequence[int], yaws: tuple[float, ...]) -> Tensor:
    """Samples from each yaw (degrees): [len(seeds) * len(yaws), 3, H, W], the views of one seed together."""
    heads = heads_of_seeds(net, seeds)
    return turntable.views(net, heads.planes, heads.ws, yaws).flatten(0, 1).float()


def run(args: TrainArgs) -> int:
    """The command `train`; returns `INTERRUPTED` if it stopped before its last image, so that `A && B` stops too."""
    return 0 if train(args) == "done" else INTERRUPTED


def train(args: TrainArgs) -> str:
    """Runs one stage, see `TrainArgs`; returns "done", or why it stopped.

    Raises Head3DError for whatever the reader can fix: missing data, another architecture, a full disk, divergence.
    """
    check_used(args)
    world = join_world(args.device)
    began = time.monotonic()
    files.check_writable(args.out / "log.jsonl")
    if not args.resume and snapshots.latest(args.out):
        raise Head3DError(
            f"{args.out} already holds a run: add --resume to continue it, or choose another --out"
        )
    with _memory_named(args, world):
        trainer = build_trainer(args, world)
    args.out.mkdir(parents=True, exist_ok=True)  # not before: a refused start leaves nothing behind
    run = Run(args, world, trainer, began)
    if args.resume:
        run.resume()
    previous = {number: signal.signal(number, run.request_stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        origin = records.provenance(
            None,
            trainer.device,
            native=ops.available(),
            world=world.size,
            options=dataclasses.asdict(args.numerics),
            perceptual=getattr(trainer.perceptual, "name", None),
            real_images=[len(pool) for pool in trainer.pools],
            recipe=dataclasses.asdict(args.recipe),
        )
        run.log("start", args=dataclasses.asdict(args), **origin)
        if 0 < args.recipe.images <= args.recipe.planes_first:
            run.say("note: nothing is rendered in this run, as planes_first covers all its images")
        with _memory_named(args, world), trainer.device_queue.stream():
            reason = run.loop()
            run.finish(reason)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        if world.size > 1:
            trainer.device_queue.release()
            dist.destroy_process_group()
    return reason


@contextlib.contextmanager
def _memory_named(args: TrainArgs, world: World) -> Iterator[None]:
    """Turns a GPU that is too small, wherever it shows, into a sentence with the estimate and what to lower."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        batch = args.recipe.batch
        need = memory_estimate(args.scale, batch // world.size)
        total = torch.cuda.mem_get_info()[1] / 2**30
        held = 10_000 * 3 * args.generator.image_resolution**2 / 2**30
        raise Head3DError(
            f"the GPU ({total:.0f} GiB) ran out of memory: preset {args.preset} at batch {batch} over "
            f"{world.size} process(es) needs about {need:.0f} GiB each, and {held:.1f} GiB for every 10,000 images; "
            "lower --recipe.batch, spread it over more GPUs, or take fewer images or a smaller preset"
        ) from error
