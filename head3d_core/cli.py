"""The command line: one table of commands, each a dataclass of arguments and a function that takes it.

A new command is one line in `GROUPS`. Nothing of a command is imported before it is called, its options are read from
the dataclass by tyro (names, types, defaults and the docstring under each field), and whatever the user can fix is one
sentence on stderr with exit status 2 (the command line) or 1 (what it asked for).
"""

from __future__ import annotations

import codecs
import contextlib
import importlib
import io
import math
import os
import re
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from head3d_core.utils.errors import Head3DError, printable
from head3d_core.utils.files import REFUSALS

PROG = "python -m head3d_core"


@dataclass(frozen=True)
class Command:
    """Where a command's arguments and function live."""

    place: str
    """`module:Arguments` or `module:Arguments:function` below head3d_core; the function is called `run` by default."""
    help: str
    """One line for the list of commands."""

    def load(self) -> tuple[Any, Any, Any]:
        """Module, dataclass, and the function that takes an instance of it; an int it returns is the exit status."""
        module, arguments, function = [*self.place.split(":"), "run"][:3]
        loaded = importlib.import_module(f"head3d_core.{module}")
        return loaded, getattr(loaded, arguments), getattr(loaded, function)


GROUPS = {
    "make": {
        "make-data": Command("synth.make_data:MakeDataArgs", "render faces or heads into a data set"),
        "prepare-data": Command(
            "datasets.prepare:PrepareDataArgs", "a folder of portraits to a data set with cameras"
        ),
        "validate": Command("datasets.validate:ValidateArgs", "list what is wrong with a data set"),
        "generate": Command("geometry.export:GenerateArgs:generate", "seeds to images"),
        "fit": Command("experiments.fit_planes:FitArgs", "fit planes to renders of one procedural head"),
        "portrait": Command(
            "experiments.portrait:PortraitArgs",
            "from one photograph to the nearest head: images, film, surface",
        ),
        "invert": Command(
            "experiments.known_heads:InvertArgs:run_invert", "find held-out heads again from one image each"
        ),
    },
    "train": {
        "train": Command("training.train:TrainArgs", "train one stage: teacher, whiten, head or distill"),
    },
    "measure": {
        "doctor": Command("doctor:DoctorArgs", "what this machine offers, one line each"),
        "evaluate": Command("evaluation.evaluate:EvaluateArgs", "measure a generator: one row of the tables"),
        "live-check": Command(
            "evaluation.live_check:LiveCheckArgs",
            "measure bundled generators on a few samples and compare with the record",
        ),
        "swap-study": Command(
            "experiments.swap_study:SwapStudyArgs",
            "exchange planes between heads and tabulate what each plane carries",
        ),
        "geometry": Command(
            "experiments.known_heads:GeometryArgs:run_geometry",
            "closed heads, and surfaces against known ones",
        ),
        "walk": Command("experiments.latent:WalkArgs", "straight paths in w, and what truncation costs"),
        "parametric": Command(
            "experiments.parametric:ParametricArgs",
            "an explicit and an implicit parametric head model on the 50 heads",
        ),
    },
    "export": {
        "mesh": Command("geometry.export:MeshArgs:export_mesh", "the surface of a seed as GLB, OBJ or PLY"),
        "turntable": Command(
            "geometry.export:TurntableArgs:export_turntable",
            "one turn of a seed as MP4, GIF or WebP, and a contact sheet",
        ),
        "turns": Command(
            "geometry.export:TurnsArgs:turns", "seeds from all around by several generators, as one JPEG"
        ),
        "convert": Command(
            "checkpoints.convert:ConvertArgs", "EG3D weights (.pkl) to ours, running nothing that is in them"
        ),
    },
}
"""Commands by what they are for."""

COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}
"""Name -> command."""


PACKAGES = {"PIL": "pillow", "skimage": "scikit-image", "facenet_pytorch": "facenet-pytorch==2.5.3"}
"""What to install for a module of another name."""


class _UsageError(Exception):
    """One sentence about the command line."""


def overview() -> str:
    """The list of commands in their groups, as `--help` shows it."""
    width = max(map(len, COMMANDS))
    lines = [f"usage: {PROG} COMMAND [options]"]
    for title, group in GROUPS.items():
        lines += ["", f"{title}:", *(f"  {name:<{width}}  {command.help}" for name, command in group.items())]
    return "\n".join([*lines, "", f"{PROG} COMMAND --help lists the options of one."])


_SPELT = {
    "≤": "<=",
    "≥": ">=",
    "–": "-",
    "−": "-",
    "─": "-",
    "│": "|",
    "→": "->",
    "×": "x",
    "°": " deg",
    "’": "'",
}
"""Characters that our text uses, for consoles that cannot print them."""


def _spell(error: UnicodeError) -> tuple[str, int]:
    """The error handler of our consoles: λ becomes lambda, é becomes e, ≤ becomes <=, the rest `?`."""

    def one(character: str) -> str:
        plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
        name = unicodedata.name(character, "").replace("LAMDA", "LAMBDA").split()
        return _SPELT.get(character) or plain or (name[-1].lower() if name[:1] == ["GREEK"] else "?")

    assert isinstance(error, UnicodeEncodeError)
    return "".join(map(one, error.object[error.start : error.end])), error.end


codecs.register_error("head3d.spell", _spell)


def _check_values(name: str, args: Any, prefix: str = "--") -> None:
    """What no command takes, before any work: numbers that are not finite, whole ones below 0, unknown devices.

    Raises _UsageError, or Head3DError for a device.
    """
    from head3d_core.utils.devices import usable_device

    for field in fields(args):
        value, option = getattr(args, field.name), prefix + field.name.replace("_", "-")
        if is_dataclass(value):
            _check_values(name, value, f"{option}.")
        if field.name == "device":
            usable_device(value)
        for number in value if isinstance(value, tuple) else (value,):
            wanted = "a finite number" if isinstance(number, float) else "0 or more"
            if isinstance(number, int | float) and not (
                math.isfinite(number) if isinstance(number, float) else number >= 0
            ):
                raise _UsageError(f"{option} must be {wanted}, got {number}; see {PROG} {name} --help.")


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
    module, arguments, function = command.load()
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
    _check_values(name, parsed)
    return parsed, function


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    args = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="head3d.spell")
    name = args[0] if args else "help"
    try:
        if name in ("-h", "--help", "help"):
            print(overview(), flush=True)
            return 0 if args else 2
        if name in ("-V", "--version"):
            from head3d_core import __version__

            print(__version__, flush=True)
            return 0
        if name not in COMMANDS:
            raise _UsageError(f"no command {name!r}; choose from {', '.join(COMMANDS)}.")
        parsed, function = parse(name, args[1:])
        result = function(parsed)
        return result if isinstance(result, int) else 0
    except (_UsageError, Head3DError) as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 2 if isinstance(error, _UsageError) else 1
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package in ("", "head3d_core") or sys.modules.get(package):  # our mistake: it shows
            raise
        print(
            f"error: {name} needs {package}, which is missing: pip install {PACKAGES.get(package, package)}.",
            file=sys.stderr,
        )
        return 1
    except BrokenPipeError:  # `... | head`: the reader has seen enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (stays open: Python flushes it at exit)
        return 0
    except OSError as error:
        if error.errno not in REFUSALS:  # our mistake: it shows
            raise
        place = f" ({printable(str(error.filename))})" if error.filename else ""
        print(f"error: {error.strerror}{place}: {REFUSALS[error.errno]}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped.", file=sys.stderr)
        return 130
