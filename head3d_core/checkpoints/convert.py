"""EG3D weights, and weights of an older format, to ours: ``python -m head3d_core convert in.pkl out.safetensors``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from tyro.conf import Positional, arg

from head3d_core.checkpoints import weights
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.files import sha256


@dataclass(frozen=True)
class ConvertArgs:
    """Read an EG3D pickle without executing anything in it, and write our format."""

    source: Positional[Annotated[Path, arg(metavar="SOURCE")]]
    """The .pkl file (or weights of ours, of this format or an older one)."""
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
    old = _read_old(args.source, args.network)
    model: Any
    if old is not None:
        model, notes = old
    elif weights.is_pickle(args.source):
        notes = {"source": args.source.name, "source_sha256": sha256(args.source)}
    else:
        notes = weights.read_notes(args.source, args.network)
    if args.network == "discriminator":
        D = model if old is not None else weights.load_discriminator(args.source)
        return weights.save_discriminator(D, args.target, half=args.half, notes=notes)
    G = model if old is not None else weights.load_generator(args.source, axes=args.axes)
    return weights.save_generator(G, args.target, half=args.half, notes=notes)


def _read_old(source: Path, kind: str) -> tuple[nn.Module, dict[str, Any]] | None:
    """Network and notes of version 1: a folder with `<kind>.json` and shards, or one file; None for anything else."""
    index = source / f"{kind}.json" if source.is_dir() else source
    if not index.is_file() or index.suffix not in (".json", ".safetensors"):
        return None
    tensors: dict[str, Tensor] = {}
    try:
        if index.suffix == ".json":
            header = json.loads(index.read_text(encoding="utf8"))
            for shard in header["shards"]:
                path = index.parent / Path(shard["file"]).name
                if not path.is_file() or sha256(path) != shard["sha256"]:
                    raise Head3DError(f"{path} is missing, or not what {index.name} lists: fetch it again")
                tensors |= _tensors(path)
        else:
            with safe_open(index, "pt") as file:
                header = dict(file.metadata() or {})
            if header.get("format_version") != "1":
                return None
            header |= {key: json.loads(header[key]) for key in ("config", "notes")}
            tensors = _tensors(index)
        if header["kind"] != kind:
            raise Head3DError(f"{source} holds a {header['kind']}: give --network {header['kind']}")
        return weights.build(kind, header["config"], tensors, str(source)), header["notes"]
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        if isinstance(error, Head3DError):
            raise
        raise Head3DError(f"{index} is damaged or truncated ({error}): fetch it again") from error


def _tensors(path: Path) -> dict[str, Tensor]:
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)


def run(args: ConvertArgs) -> None:
    """The command: `convert`, and one line on what was written."""
    print(f"wrote {convert(args)}")
