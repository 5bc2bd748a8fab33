"""EG3D weights to ours: ``python -m head3d_core convert in.pkl out.safetensors``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from head3d_core import checkpoint
from head3d_core.errors import Head3DError
from head3d_core.files import sha256


@dataclass(frozen=True)
class ConvertArgs:
    """Read an EG3D pickle without executing it and write our format."""

    source: Path
    """The .pkl file."""
    target: Path
    """Where to write: a path that ends in .safetensors, or a folder for shards of up to 15 MiB."""
    network: Literal["generator", "discriminator"] = "generator"
    """generator takes G_ema, discriminator takes D."""
    axes: Literal["auto", "eg3d", "xyz"] = "auto"
    """How the planes are sampled, for a file that does not say so itself."""
    half: bool = False
    """Store float16: half the size."""


def convert(args: ConvertArgs) -> Path:
    """Converts one network; returns the path written.

    The notes of the new file keep the name and sha256 of the source.
    Raises Head3DError for anything but an EG3D pickle, and for a target that cannot be written.
    """
    if args.source.suffix.lower() not in (".pkl", ".pickle"):
        raise Head3DError(f"convert reads EG3D pickles (.pkl), got {args.source}")
    half = args.half
    if args.network == "discriminator":
        D = checkpoint.load_discriminator(args.source)
        notes = {"source": args.source.name, "source_sha256": sha256(args.source)}
        return checkpoint.save_discriminator(D, args.target, half=half, notes=notes)
    G = checkpoint.load_generator(args.source, axes=None if args.axes == "auto" else args.axes)
    notes = {"source": args.source.name, "source_sha256": sha256(args.source)}
    return checkpoint.save_generator(G, args.target, half=half, notes=notes)


def run(args: ConvertArgs) -> None:
    """The command: `convert`, and one line on what was written."""
    print(f"wrote {convert(args)}")
