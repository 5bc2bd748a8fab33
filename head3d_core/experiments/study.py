"""What the experiments share: gradient descent, the course of a command, and where its numbers come from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from head3d_core.checkpoints.weights import read_notes
from head3d_core.utils import files, records
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.progress import Progress, bar, counted

Args = TypeVar("Args")


def half_cosine(done: float) -> float:
    """From 1 at the start (done = 0) to 0 at the end (done = 1), slowly at both."""
    return 0.5 * (1 + math.cos(math.pi * done))


def descend(
    groups: list[dict[str, Any]],
    loss: Callable[[int], tuple[Tensor, Tensor]],
    steps: int,
    betas: tuple[float, float] = (0.9, 0.999),
    rate: Callable[[float], float] = half_cosine,
    progress: Progress | None = None,
) -> list[float]:
    """Adam with learning rates that fall.

    Args:
        groups: of parameters, with their largest learning rates.
        loss: step -> what is minimised, and what is reported of it.
        rate: share of the steps that is done -> factor on the learning rates.
        progress: called with (done, total) steps.

    Returns:
        The reported loss of every step.

    Raises:
        Head3DError: a loss that is not finite.
    """
    optimiser = torch.optim.Adam(groups, betas=betas)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate(step / steps))
    losses = []
    for step in counted(range(steps), progress):
        objective, reported = loss(step)
        optimiser.zero_grad()
        objective.backward()
        optimiser.step()
        schedule.step()
        losses.append(float(reported.detach()))
        if not math.isfinite(losses[-1]):
            raise Head3DError(f"the loss is {losses[-1]} at step {step + 1}: lower the learning rate")
    return losses


def command(name: str, args: Any) -> str:
    """The command line that gives a dataclass of arguments, without its switches.

    Where it writes is left out, unless that is a record in `data`, which is only written when it is asked for by name.
    """
    words = [f"python -m head3d_core {name}"]
    for field in fields(args):
        value = getattr(args, field.name)
        if isinstance(value, bool) or value in (None, "", ()):
            continue
        if field.name == "out":
            if not Path(value).resolve().is_relative_to(files.DATA):
                continue
            value = Path("data", Path(value).resolve().relative_to(files.DATA)).as_posix()
        if not str(field.type).startswith("Positional"):
            words.append(f"--{field.name.replace('_', '-')}")
        words.extend(map(str, value) if isinstance(value, tuple) else [str(value)])
    return " ".join(words)


def provenance(
    name: str, args: Any, weights: Sequence[str] = (), device: torch.device | None = None
) -> dict[str, Any]:
    """`records.provenance` of the command `name`.

    Args:
        weights: whose notes are recorded.
        device: that was used; None: `args.device`.
    """
    return records.provenance(command(name, args), device or args.device, {w: read_notes(w) for w in weights})


def run(
    args: Args,
    measure: Callable[[Args, Progress], dict[str, Any]],
    lines: Callable[[dict[str, Any]], list[str]],
    unit: str,
) -> None:
    """A command: measures with a progress bar that counts `unit`, writes `args.out`, prints the lines.

    Raises:
        Head3DError: a place that cannot be written or weights that are not there, before anything is measured;
            whatever `measure` raises.
    """
    out = args.out  # type: ignore[attr-defined]
    files.check_writable(out)
    weights = getattr(args, "weights", ())
    for name in [weights] if isinstance(weights, str) else weights:
        read_notes(name)
    with bar(unit) as step:
        record = measure(args, step)
    records.write(out, record)
    print(*lines(record), f"wrote {out}", sep="\n")
