"""The command line: one table of commands, each a dataclass of arguments and a function that takes it.

A new command is one line in `COMMANDS`. Nothing of a command is imported before it is called, options are read from the
dataclass by tyro (names, types, defaults and the docstring under each field), and whatever the user can mend is one
sentence on stderr with exit status 2 (the command line) or 1 (what it asked for).
"""

from __future__ import annotations

import importlib
import math
import os
import sys
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from head3d_core.errors import Head3DError

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
    """Function in that module that takes an instance of it; may return an exit status."""
    positional: tuple[str, ...] = ()
    """Fields that are given by place instead of by `--name`."""


COMMANDS = {
    "doctor": Command("what this machine offers, one line each", "doctor", "DoctorArgs", "run"),
    "generate": Command("seeds to pictures", "cli", "GenerateArgs", "generate"),
    "convert": Command(
        "EG3D weights (.pkl) to ours, running nothing that is in them",
        "cli",
        "ConvertArgs",
        "convert",
        ("source", "target"),
    ),
    "prepare-data": Command(
        "a folder of portraits to a data set with cameras", "prepare", "PrepareDataArgs", "run", ("source",)
    ),
}


@dataclass(frozen=True)
class GenerateArgs:
    """Pictures of seeds: one PNG per seed, its views side by side."""

    seeds: tuple[str, ...] = ("0-3",)
    """Seeds or ranges of them: 0 5 10-19."""
    weights: str = "head3d"
    """A bundled name, or a path of ours or of an EG3D .pkl."""
    out: Path = Path("out/generate")
    """Folder for the pictures; made if missing."""
    yaw: tuple[float, ...] = (0.0,)
    """Views, degrees: 0 is the front, 90 the side, 180 the back."""
    pitch: float = 0.0
    """Degrees, up is positive."""
    truncation_psi: float = 0.7
    """1: everything the generator knows; 0: the average head."""
    device: str = "cpu"
    """Where to run: cpu, cuda, cuda:1, ..."""


@dataclass(frozen=True)
class ConvertArgs:
    """Read an EG3D pickle without executing it and write our format."""

    source: Path
    """The .pkl file (or weights of ours, to store them differently)."""
    target: Path
    """A path that ends in .safetensors for one file, anything else for a folder of shards."""
    network: Literal["generator", "discriminator"] = "generator"
    """Which network of the pickle: G_ema or D."""
    axes: Literal["eg3d", "xyz"] | None = None
    """How the third plane is sampled, for a pickle that does not say; official files are eg3d."""
    half: bool = False
    """Store float16: half the size."""


def parse_seeds(words: Sequence[str]) -> list[int]:
    """["0", "5", "10-12"] -> [0, 5, 10, 11, 12].

    >>> parse_seeds(["3", "10-12"])
    [3, 10, 11, 12]

    Raises Head3DError for anything else.
    """
    seeds: list[int] = []
    for word in words:
        first, _, last = word.partition("-")
        if not first.isdigit() or not (last or first).isdigit() or int(last or first) < int(first):
            raise Head3DError(f"a seed must be a number or a range such as 10-19, got {word!r}")
        seeds.extend(range(int(first), int(last or first) + 1))
    return seeds


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
        return int(function(parsed) or 0)
    except _UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Head3DError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `... | head`: the reader has seen enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (stays open: Python flushes it at exit)
        return 0
    except KeyboardInterrupt:
        print("stopped.", file=sys.stderr)
        return 130


def z_of_seeds(seeds: Sequence[int], z_dim: int) -> Any:
    """z [len(seeds), z_dim], one independent draw per seed.

    Drawn as EG3D's tools do (NumPy's legacy generator), so that a seed means the same head here and there.
    """
    import numpy as np
    import torch

    rows = [np.random.RandomState(seed).randn(z_dim) for seed in seeds]
    return torch.from_numpy(np.stack(rows)).float()


def generate(args: GenerateArgs) -> None:
    """Write `seed0000.png` for every seed."""
    import torch
    from tqdm import tqdm

    from head3d_core import cameras, checkpoint

    seeds = parse_seeds(args.seeds)
    G = checkpoint.load_generator(args.weights, device=args.device)
    degrees = torch.tensor(args.yaw)
    views = cameras.orbit(torch.deg2rad(degrees), math.radians(args.pitch)).to(args.device)
    args.out.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        for seed in tqdm(seeds, desc="generate", unit="head"):
            z = z_of_seeds([seed], G.z_dim).to(args.device)
            ws = G.mapping(z, cameras.frontal(1, z.device), truncation_psi=args.truncation_psi)
            planes = G.planes(ws)
            row = [G.render(planes, ws, view[None]).image[0] for view in views]
            save_png(args.out / f"seed{seed:04d}.png", torch.cat(row, -1))
    print(f"{len(seeds)} pictures in {args.out}")


def save_png(path: Path, image: Any) -> None:
    """Write image [3, H, W] in [-1, 1] as PNG."""
    from PIL import Image

    from head3d_core import files

    pixels = (image.clamp(-1, 1) * 127.5 + 127.5).round().byte().permute(1, 2, 0).cpu().numpy()
    with files.atomic(path) as partial:
        Image.fromarray(pixels).save(partial, format="PNG")


def convert(args: ConvertArgs) -> None:
    """Load weights, an EG3D pickle through the restricted reader, and save them in our format."""
    from head3d_core import checkpoint

    if args.network == "generator":
        G = checkpoint.load_generator(args.source, axes=args.axes)
        written = checkpoint.save_generator(G, args.target, half=args.half)
    else:
        written = checkpoint.save_discriminator(
            checkpoint.load_discriminator(args.source), args.target, half=args.half
        )
    print(f"wrote {written}")
