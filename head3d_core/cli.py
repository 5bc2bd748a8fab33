"""The command line: one table of commands, each a dataclass of arguments and a function that takes it.

A new command is one line in `COMMANDS`. Nothing of a command is imported before it is called, options are read from the
dataclass by tyro (names, types, defaults and the docstring under each field), and whatever the user can mend is one
sentence on stderr with exit status 2 (the command line) or 1 (what it asked for).
"""

from __future__ import annotations

import importlib
import os
import sys
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from head3d_core.utils.errors import Head3DError
from head3d_core.utils.files import REFUSALS

PROG = "python -m head3d_core"


@dataclass(frozen=True)
class Command:
    """Where a command's arguments and function live."""

    help: str
    """One line for the list of commands."""
    module: str
    """Module below `head3d_core`."""
    arguments: str
    """Dataclass in that module."""
    function: str
    """Function in that module that takes an instance of it; an int that it returns is the exit status."""
    positional: tuple[str, ...] = ()
    """Fields that are given by place instead of by `--name`."""


COMMANDS = {
    "doctor": Command("what this machine offers, one line each", "doctor", "DoctorArgs", "run"),
    "generate": Command("seeds to pictures", "geometry.sample", "GenerateArgs", "run"),
    "convert": Command(
        "EG3D weights (.pkl) to ours, running nothing that is in them",
        "checkpoints.convert",
        "ConvertArgs",
        "run",
        ("source", "target"),
    ),
    "make-data": Command(
        "render faces or heads into a data set", "synth.make_data", "MakeDataArgs", "run", ("kind",)
    ),
    "swap-study": Command(
        "exchange planes between heads and tabulate what each plane carries",
        "experiments.swap_study",
        "SwapStudyArgs",
        "run",
    ),
    "prepare-data": Command(
        "a folder of portraits to a data set with cameras",
        "datasets.prepare",
        "PrepareDataArgs",
        "run",
        ("source",),
    ),
    "validate": Command(
        "list what is wrong with a data set", "datasets.validate", "ValidateArgs", "run", ("data",)
    ),
    "mesh": Command("the surface of a seed as GLB, OBJ or PLY", "geometry.export", "MeshArgs", "run_mesh"),
    "turntable": Command(
        "one turn of a seed as MP4, GIF or WebP, and a contact sheet",
        "geometry.export",
        "TurntableArgs",
        "run_turntable",
    ),
    "turns": Command(
        "seeds from all around by several generators, as one JPEG",
        "geometry.export",
        "TurnsArgs",
        "run_turns",
    ),
    "geometry": Command(
        "closed heads, and surfaces against known ones", "experiments.known_heads", "GeometryArgs", "run"
    ),
    "fit": Command(
        "planes fitted to pictures of one head of the factory", "experiments.fit_planes", "FitArgs", "run"
    ),
    "walk": Command(
        "straight paths in w, and what truncation costs", "experiments.latent_paths", "WalkArgs", "run"
    ),
    "invert": Command(
        "held-out heads found again from one picture each", "experiments.one_view", "InvertArgs", "run"
    ),
    "parametric": Command(
        "an explicit and an implicit parametric head model on the 50 heads, measured and drawn",
        "experiments.parametric",
        "ParametricArgs",
        "run",
    ),
    "train": Command(
        "train one stage: teacher, whiten, head or distill",
        "training.train",
        "TrainArgs",
        "train",
        ("stage",),
    ),
    "evaluate": Command(
        "measure a generator: one row of the tables",
        "evaluation.evaluate",
        "EvaluateArgs",
        "run",
        ("weights",),
    ),
    "ghost": Command(
        "count second faces behind real heads and samples", "evaluation.ghosts", "GhostArgs", "run"
    ),
    "live-check": Command(
        "compare 200 samples with the record of the same number",
        "evaluation.live_check",
        "LiveCheckArgs",
        "run",
    ),
}


class _UsageError(Exception):
    """One sentence about the command line."""


def overview() -> str:
    """The list of commands, as `--help` shows it."""
    width = max(map(len, COMMANDS))
    rows = [f"  {name:<{width}}  {command.help}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            f"usage: {PROG} COMMAND [options]",
            "",
            *rows,
            "",
            f"{PROG} COMMAND --help lists the options of one.",
        ]
    )


def _sentence(event: Any, name: str) -> str:
    """tyro's description of a rejected command line, as one sentence."""
    see = f"see {PROG} {name} --help"
    kind = type(event).__name__
    argument = getattr(event, "argument", None)
    option = "/".join(argument.lowered.name_or_flags) if argument is not None else ""
    if argument is not None and argument.is_positional():
        option = str(argument.lowered.metavar)
    if kind == "MissingArgs":
        names = [
            "/".join(a.arg.lowered.name_or_flags) or str(a.arg.lowered.metavar)
            for a in event.missing_arguments
        ]
        unknown = (
            f" and does not know {' '.join(event.unrecognized_tokens)}" if event.unrecognized_tokens else ""
        )
        return f"{name} needs {', '.join(names)}{unknown}; {see}."
    if kind == "UnrecognizedArgs":
        return f"{name} does not know {' '.join(event.tokens)}; {see}."
    if kind == "InvalidChoice":
        return f"{option} of {name} must be one of {', '.join(event.choices)}, got {event.value!r}."
    if kind == "BadValue":
        got = "too few values" if event.offending_value is None else repr(event.offending_value)
        return f"{option} of {name} got {got}; {see}."
    message = " ".join(str(getattr(event, "message", kind)).split())
    return f"{option + ': ' if option else ''}{message}; {see}."


def parse(name: str, args: Sequence[str]) -> tuple[Any, Any]:
    """(instance of the command's dataclass, its function).

    Raises _UsageError with one sentence for options that do not fit; SystemExit(0) after `--help`.
    """
    import tyro
    from tyro import _errors  # the hook is not public yet; tyro is pinned below its next minor version

    command = COMMANDS[name]
    module = importlib.import_module(f"head3d_core.{command.module}")
    arguments = getattr(module, command.arguments)
    hints = typing.get_type_hints(arguments, include_extras=True)
    for field in command.positional:  # marked here, so that only this module needs tyro
        arguments.__annotations__[field] = tyro.conf.Positional[hints[field]]  # type: ignore[misc, valid-type]

    def reject(event: Any) -> None:
        raise _UsageError(_sentence(event, name))

    with _errors.on_parse_error(reject):
        parsed = tyro.cli(
            arguments,
            args=list(args),
            prog=f"{PROG} {name}",
            description=command.help,
        )
    return parsed, getattr(module, command.function)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help", "help"):
        print(overview())
        return 0 if args else 2
    if args[0] in ("-V", "--version"):
        from head3d_core import __version__

        print(__version__)
        return 0
    name = args[0]
    if name not in COMMANDS:
        print(f"error: no command {name!r}; choose from {', '.join(COMMANDS)}.", file=sys.stderr)
        return 2
    try:
        parsed, function = parse(name, args[1:])
        result = function(parsed)
        return result if isinstance(result, int) else 0
    except _UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Head3DError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `... | head`: the reader has seen enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (stays open: Python flushes it at exit)
        return 0
    except OSError as error:
        if error.errno not in REFUSALS:  # our mistake: it shows
            raise
        place = f" ({error.filename})" if error.filename else ""
        print(f"error: {error.strerror}{place}: {REFUSALS[error.errno]}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped.", file=sys.stderr)
        return 130
