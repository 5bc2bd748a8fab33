"""Everything that is wrong with a data set, before training on it.

python -m head3d_core validate my_faces --preset classroom
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from torch import Tensor
from tyro.conf import Positional, arg

from head3d_core.config import RenderOptions, preset
from head3d_core.datasets import format
from head3d_core.datasets.camera_checks import Problem, check_set
from head3d_core.utils.errors import Head3DError, printable


@dataclass(frozen=True)
class ValidateArgs:
    """Lists what is wrong with a data set in EG3D's format; status 1 if it cannot be trained on."""

    data: Positional[Annotated[Path, arg(metavar="DATA")]]
    """Folder or zip."""
    preset: Literal["tiny", "classroom", "paper"] = "classroom"
    """Whose resolution and ray interval the set is for."""
    most: int = 3
    """Examples to print of each kind of problem; 0 prints all."""


def ray_interval(render: RenderOptions) -> tuple[float, float] | None:
    """Nearest and farthest sample of the rays, world units; None where the box decides."""
    start, end = render.ray_start, render.ray_end
    return None if isinstance(start, str) or isinstance(end, str) else (start, end)


def check_training_set(cameras: Tensor, render: RenderOptions, name: str) -> list[str]:
    """Before the first step: warnings about a set's cameras, one sentence each.

    Args:
        cameras: [N, 25].
        render: of the generator that is trained.
        name: of the set, for the sentences.

    Raises:
        Head3DError: nothing could be learned from it, for example as the rays would end before the heads.
    """
    problems = check_set(cameras.cpu().numpy(), *(ray_interval(render) or (None, None)))
    if fatal := [p for p in problems if p.fatal]:
        raise Head3DError(f"{name} cannot be trained on: {fatal[0].text}")
    return [f"{name}: {p.text}" for p in problems]


def check_outside(out: Path, *sets: str | None) -> None:
    """Raises Head3DError if a run's folder lies inside a data set, where its grids would be images without labels."""
    for data in filter(None, sets):
        if Path(data).is_dir() and out.resolve().is_relative_to(Path(data).resolve()):
            raise Head3DError(f"{out} lies inside the data set {data}: choose another --out")


def listing(problems: list[Problem], most: int = 3) -> list[str]:
    """Lines for the console: the first `most` problems of every kind, then how many more there are of it."""
    lines, kinds = [], Counter[str]()
    for problem in problems:
        kind = re.sub(r"[-+\d.,]+", "#", problem.text)
        kinds[kind] += 1
        if not most or kinds[kind] <= most:
            lines.append(f"{'error' if problem.fatal else 'warning'}: {problem}")
    more = [
        f"       and {n - most:,} more like {kind[:60]!r}" for kind, n in kinds.items() if most and n > most
    ]
    return lines + more


def run(args: ValidateArgs) -> int:
    """The command `validate`; returns the exit status."""
    generator = preset(args.preset).generator
    problems = format.validate(args.data, generator.image_resolution, ray_interval(generator.render))
    for line in listing(problems, args.most):
        print(printable(line))
    fatal = sum(p.fatal for p in problems)
    images = len(format.image_names(args.data))
    print(f"{args.data}: {images:,} images with labels, {fatal:,} errors, {len(problems) - fatal:,} warnings")
    return int(fatal > 0)
