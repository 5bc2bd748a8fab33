"""The options of `train`: what a stage needs, with its recipe and networks as they can be changed one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from head3d_core.config import DiscriminatorConfig, GeneratorConfig, Preset, check_fields, preset
from head3d_core.training.numerics import Numerics
from head3d_core.training.recipes import ROWS, STAGES, Recipe, Stage, recipe
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.nested import changed, differences


@dataclass(frozen=True)
class TrainArgs:
    """Train one stage: teacher, whiten, head or distill. Defaults of `recipe`, `generator` and `discriminator`
    depend on stage, preset and row: `of` fills them in."""

    stage: Positional[Stage]
    """teacher, whiten, head or distill."""
    data: str
    """Face set: a folder or zip in EG3D's format, or synth:faces:20000 to render it first. Stage head: the mapping
    cameras come from it."""
    out: Path
    """The run's folder: log.jsonl, grid-*.png, state-*.safetensors, weights/."""
    recipe: Recipe
    """Losses, data and rates of the stage."""
    generator: GeneratorConfig
    """Architecture of the generator."""
    discriminator: DiscriminatorConfig
    """Architecture of the discriminators."""
    heads: str | None = None
    """Head set, likewise (synth:heads:4800), for the stages head and distill."""
    preset: str = "classroom"
    """tiny, classroom or paper."""
    row: str | None = None
    """A row of the comparison, e.g. no-kd, single-d, dft (stage distill)."""
    teacher: Path | None = None
    """Run or weights (EG3D's too) of the face generator to start from and, in distill, to learn from."""
    head: Path | None = None
    """Run or weights of the head generator that distill starts from."""
    back_target: Path | None = None
    """Run or weights whose F_xy the student's xy_back follows (`losses.kd_back`); default: `head`."""
    resume: bool = False
    """Go on from the newest snapshot in `out`; start afresh if there is none."""
    max_minutes: float | None = None
    """Stop cleanly after so long, data included; the command then ends with exit status 75."""
    seed: int = 0
    """Of everything random."""
    device: str = "auto"
    """cuda, cpu, or auto."""
    numerics: Numerics = field(default_factory=Numerics)
    """How the arithmetic is done."""
    stop_at_chance: bool = False
    """Stop as soon as a discriminator tells real from generated no better than chance: G learns nothing from it."""
    report_seconds: float = 15.0
    """Between two lines of progress."""
    grid_minutes: float = 2.0
    """Between two sample grids."""
    snapshot_minutes: float = 4.0
    """Between two snapshots."""
    metric_minutes: float = 10.0
    """Between two kernel distances to the training images, front and back (a trend, no result); 0: never."""
    metric_images: int = 512
    """Images of each view in them."""
    keep: int = 2
    """Snapshots that stay."""
    carry: bool = False
    """With every snapshot also write `carry/`, a small state to take elsewhere: float16, no optimiser, one file a
    network (a run resumed from it warms its learning rates up)."""
    cache: Path | None = None
    """Folder that keeps rendered sets for the next run on this machine."""
    tensorboard: bool = False
    """Also write TensorBoard events, if that package is there."""

    @classmethod
    def of(cls, stage: Stage, data: str, out: Path, preset: str = "classroom",
           changes: Mapping[str, Any] | None = None, **options: Any) -> TrainArgs:  # fmt: skip
        """Arguments with the recipe and the networks of a stage, preset and row.

        Args:
            changes: by dotted name, as on the command line: {"recipe.images": 64, "generator.render.axes": "eg3d"}.
            options: other fields.

        Raises Head3DError for names that do not exist.
        """
        row = options.get("row")
        args = from_command_line([stage, f"--preset={preset}", *([f"--row={row}"] if row else [])])
        return changed(args(stage, data, out, preset=preset, **options), changes or {})

    @property
    def scale(self) -> Preset:
        """The preset with the changes of the command line."""
        return Preset(self.preset, self.generator, self.discriminator)


def from_command_line(tokens: Sequence[str]) -> partial[TrainArgs]:
    """`TrainArgs` with the defaults that belong to the stage, preset and row which a command line names.

    Raises Head3DError for a preset or row that does not exist.
    """
    named: dict[str, str] = {}
    for token, following in zip(tokens, [*tokens[1:], ""], strict=True):
        name, has_value, value = token.partition("=")
        named[name] = value if has_value else following
    stage = next((token for token in tokens if token in STAGES), STAGES[0])
    scale = preset(named.get("--preset", "classroom"))
    own = recipe(stage, scale.name, named.get("--row"))
    return partial(
        TrainArgs,
        recipe=own,
        generator=changed(scale.generator, ROWS[named["--row"]].generator if "--row" in named else {}),
        discriminator=scale.discriminator,
        numerics=Numerics(),
    )


def check_used(args: TrainArgs) -> None:
    """Refuses options that would be ignored or that contradict each other.

    Raises Head3DError with one sentence: an option that this stage does not use, a row without training, numbers
    outside their range.
    """
    own = recipe(args.stage, args.preset, args.row)
    if args.row and ROWS[args.row].untrained:
        raise Head3DError(
            f"row {args.row!r} is not trained: evaluate the head generator with the teacher's F_xy put in"
        )
    starts = {args.recipe.start, *args.recipe.discriminator_starts}
    used = {
        "heads": args.recipe.needs_heads,
        "teacher": "teacher" in starts or args.recipe.losses.any,
        "head": "head" in starts or bool(args.recipe.losses.kd_back),
        "back_target": bool(args.recipe.losses.kd_back),
    }
    for name, needed in used.items():
        if getattr(args, name) is not None and not needed:
            raise Head3DError(f"--{name.replace('_', '-')} has no use in stage {args.stage}: leave it out")
    if args.recipe.stage != args.stage:
        raise Head3DError(
            f"recipe.stage follows the command: train {args.recipe.stage} instead of {args.stage}"
        )
    if args.recipe.losses.kd_back and args.generator.front_slices != 2:
        raise Head3DError("losses.kd_back needs an xy_back to act on: pass --generator.front-slices 2")
    unused = args.recipe.unused()
    for name in differences(own, args.recipe):
        if name in unused:
            raise Head3DError(f"--recipe.{name.replace('_', '-')} has no effect without {unused[name]}")
    if args.recipe.only_discriminator and args.stage not in ("whiten", "head"):
        raise Head3DError(
            "only_discriminator goes with stage whiten (the face generator's) or head (the head generator's), "
            f"not {args.stage}"
        )
    check_fields(args, "at least 1", lambda v: v >= 1, "keep")
