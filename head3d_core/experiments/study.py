"""What all studies share: a progress bar, a record with its provenance, a summary as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from head3d_core.checkpoints.weights import read_notes
from head3d_core.utils import files, records
from head3d_core.utils.progress import Progress as Progress
from head3d_core.utils.progress import bar as bar

Args = TypeVar("Args")


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
    name: str, args: Any, weights: Sequence[str] = (), device: str | None = None
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
