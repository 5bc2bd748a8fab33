"""The command line: one table of commands, each a dataclass of arguments and a function that takes it.

A new command is one line in `GROUPS`. Nothing of a command is imported before it is called, its options are read from
the dataclass by tyro (names, types, defaults and the docstring under each field), and whatever the user can fix is one
sentence on stderr with exit status 2 (the command line) or 1 (what it asked for).
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import sys
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
    function: str = "run"
    """Function in that module that takes an instance of it; an int that it returns is the exit status."""


GROUPS = {
    "make": {
        "make-data": Command("render faces or heads into a data set", "synth.make_data", "MakeDataArgs"),
        "prepare-data": Command(
            "a folder of portraits to a data set with cameras", "datasets.prepare", "PrepareDataArgs"
        ),
        "validate": Command("list what is wrong with a data set", "datasets.validate", "ValidateArgs"),
        "generate": Command("seeds to images", "geometry.sample", "GenerateArgs"),
        "fit": Command("fit planes to renders of one procedural head", "experiments.fit_planes", "FitArgs"),
        "portrait": Command(
            "from one photograph to the nearest head: images, film, surface",
            "experiments.portrait",
            "PortraitArgs",
        ),
        "invert": Command(
            "find held-out heads again from one image each",
            "experiments.known_heads",
            "InvertArgs",
            "run_invert",
        ),
    },
    "train": {
        "train": Command("train one stage: teacher, whiten, head or distill", "training.train", "TrainArgs"),
    },
    "measure": {
        "doctor": Command("what this machine offers, one line each", "doctor", "DoctorArgs"),
        "evaluate": Command(
            "measure a generator: one row of the tables", "evaluation.evaluate", "EvaluateArgs"
        ),
        "ghost": Command(
            "count second faces behind real heads and samples", "evaluation.ghosts", "GhostArgs"
        ),
        "live-check": Command(
            "compare 200 samples with the record of the same number",
            "evaluation.live_check",
            "LiveCheckArgs",
        ),
        "swap-study": Command(
            "exchange planes between heads and tabulate what each plane carries",
            "experiments.swap_study",
            "SwapStudyArgs",
        ),
        "geometry": Command(
            "closed heads, and surfaces against known ones",
            "experiments.known_heads",
            "GeometryArgs",
            "run_geometry",
        ),
        "walk": Command("straight paths in w, and what truncation costs", "experiments.latent", "WalkArgs"),
        "parametric": Command(
            "an explicit and an implicit parametric head model on the 50 heads",
            "experiments.parametric",
            "ParametricArgs",
        ),
    },
    "export": {
        "mesh": Command(
            "the surface of a seed as GLB, OBJ or PLY", "geometry.export", "MeshArgs", "run_mesh"
        ),
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
        "convert": Command(
            "EG3D weights (.pkl) to ours, running nothing that is in them",
            "checkpoints.convert",
            "ConvertArgs",
        ),
    },
}
"""Commands by what they are for."""

COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}
"""Name -> command."""


class _UsageError(Exception):
    """One sentence about the command line."""


def overview() -> str:
    """The list of commands in their groups, as `--help` shows it."""
    width = max(map(len, COMMANDS))
    lines = [f"usage: {PROG} COMMAND [options]"]
    for title, group in GROUPS.items():
        lines += ["", f"{title}:", *(f"  {name:<{width}}  {command.help}" for name, command in group.items())]
    return "\n".join([*lines, "", f"{PROG} COMMAND --help lists the options of one."])


def _sentence(box: str, name: str) -> str:
    """tyro's framed message on stderr as one sentence: what is wrong, and what may have been meant."""
    lines = [line[2:].rstrip("│ ") for line in box.splitlines()[1:]]  # without the title and the frame
    sections = [s.strip("\n") for s in re.split(r"^[─╯-]{3,}$", "\n".join(lines), flags=re.MULTILINE)]
    first, *more = [s for s in sections if s]
    if first.startswith("Missing from"):  # option names are indented by 4, their help texts by 8
        first = f"{name} needs " + ", ".join(re.findall(r"^ {4}(\S.*)$", first, flags=re.MULTILINE))
    kept = [first, *(s for s in more if s.startswith("Perhaps"))]
    text = "; ".join(" ".join(part.split()) for part in kept)
    return f"{text.rstrip('. ')}; see {PROG} {name} --help."


def parse(name: str, args: Sequence[str]) -> tuple[Any, Any]:
    """(instance of the command's dataclass, its function).

    Raises _UsageError with one sentence for options that do not fit; SystemExit(0) after `--help`.
    """
    import tyro

    command = COMMANDS[name]
    module = importlib.import_module(f"head3d_core.{command.module}")
    arguments = getattr(module, command.arguments)
    # Defaults may depend on other options, as a training recipe does on its stage, preset and row.
    fill = getattr(module, "from_command_line", None)
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            parsed = tyro.cli(
                fill(args) if fill else arguments,
                args=list(args),
                prog=f"{PROG} {name}",
                description=command.help,
            )
    except SystemExit as stop:
        if stop.code:
            raise _UsageError(_sentence(errors.getvalue(), name)) from None
        raise
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
    try:
        if name not in COMMANDS:
            raise _UsageError(f"no command {name!r}; choose from {', '.join(COMMANDS)}.")
        parsed, function = parse(name, args[1:])
        result = function(parsed)
        return result if isinstance(result, int) else 0
    except (_UsageError, Head3DError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, _UsageError) else 1
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
