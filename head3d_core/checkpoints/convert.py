"""EG3D's weights in our format: ``python -m head3d_core convert in.pkl out.safetensors``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from head3d_core.checkpoints import weights
from head3d_core.utils.files import sha256


@dataclass(frozen=True)
class ConvertArgs:
    """Read an EG3D pickle without executing anything in it, and write our format."""

    source: Positional[Annotated[Path, arg(metavar="SOURCE")]]
    """The .pkl file (or weights of ours, to be stored in half precision)."""
    target: Positional[Annotated[Path, arg(metavar="TARGET")]]
    """A path that ends in .safetensors, or a folder for it."""
    network: Literal["generator", "discriminator"] = "generator"
    """Which network of the pickle (G_ema or D) or folder."""
    axes: Literal["eg3d", "xyz"] | None = None
    """How the third plane is sampled, for a pickle that does not say; official files are eg3d."""
    half: bool = False
    """Store float16: half the size."""


def convert(args: ConvertArgs) -> Path:
    """Converts one network; returns the path written.

    The notes of the new file keep those of the source and, for a pickle, its name and sha256.
    Raises Head3DError for files that are neither an EG3D pickle nor ours, and for a target that cannot be written.
    """
    notes: dict[str, Any]
    if weights.is_pickle(args.source):
        notes = {"source": args.source.name, "source_sha256": sha256(args.source)}
    else:
        notes = weights.read_notes(args.source, args.network)
    if args.network == "discriminator":
        D = weights.load_discriminator(args.source)
        return weights.save_discriminator(D, args.target, half=args.half, notes=notes)
    G = weights.load_generator(args.source, axes=args.axes)
    return weights.save_generator(G, args.target, half=args.half, notes=notes)


def run(args: ConvertArgs) -> None:
    """The command: `convert`, and one line on what was written."""
    print(f"wrote {convert(args)}")
