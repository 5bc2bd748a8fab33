"""Weights on disk: our own format, and the door through which EG3D's pickles come in.

Ours is safetensors plus a JSON configuration, in one of two shapes:

- one file `model.safetensors`: configuration and a sha256 of the tensors stand in its metadata;
- a folder: `generator.json` (configuration, list of shards with their sha256) and shards of at most 15 MiB. Bundled
  weights are such folders in `data/weights/`; a folder may hold a `discriminator.json` as well.

Neither can carry code. Saves are atomic: shards are named by their hash and the JSON that names them is replaced last,
so that a save that fails leaves what stood there before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from head3d_core.checkpoints.eg3d import (
    axes_of,
    discriminator_from_eg3d,
    generator_from_eg3d,
    load_tensors,
)
from head3d_core.checkpoints.eg3d_pickle import Network, read_network
from head3d_core.config import Axes, DiscriminatorConfig, GeneratorConfig
from head3d_core.model.discriminator import Discriminator
from head3d_core.model.generator import Generator
from head3d_core.utils import files
from head3d_core.utils.errors import Head3DError

__all__ = [
    "FORMAT_VERSION",
    "discriminator_from_eg3d",
    "generator_from_eg3d",
    "load_discriminator",
    "load_generator",
    "read_notes",
    "save_discriminator",
    "save_generator",
]

FORMAT = "head3d"
FORMAT_VERSION = 1
"""Raised when a file can no longer be read by older code."""
SHARD_BYTES = 15 * 2**20
"""Largest shard of a folder."""

Kind = Literal["generator", "discriminator"]
_CONFIGS: dict[str, type[GeneratorConfig] | type[DiscriminatorConfig]] = {
    "generator": GeneratorConfig,
    "discriminator": DiscriminatorConfig,
}
_NETWORK = {"generator": "G_ema", "discriminator": "D"}


@dataclass(frozen=True)
class _Header:
    """What a file says about itself."""

    kind: str
    config: dict[str, Any]
    notes: dict[str, Any]
    sha256: str = ""
    shards: tuple[dict[str, Any], ...] = ()


def save_generator(
    model: Generator, path: Path | str, *, half: bool = False, notes: Mapping[str, Any] | None = None
) -> Path:
    """Writes a generator; returns the path written.

    Args:
        model: on any device; it is not changed.
        path: a name that ends in `.safetensors` makes one file, anything else a folder of shards of up to 15 MiB.
        half: store float16 (half the size; values are float32 again after loading).
        notes: anything JSON that should travel with the weights: training images seen, licence, seed.

    Raises Head3DError if the place cannot be written or a value does not fit float16. Whatever was there stays then.
    """
    return _save(model, "generator", path, half, notes)


def save_discriminator(
    model: Discriminator, path: Path | str, *, half: bool = False, notes: Mapping[str, Any] | None = None
) -> Path:
    """Writes a discriminator; see `save_generator`."""
    return _save(model, "discriminator", path, half, notes)


def load_generator(
    name_or_path: Path | str, device: torch.device | str = "cpu", *, axes: Axes | None = None
) -> Generator:
    """A generator in evaluation mode.

    Args:
        name_or_path: a bundled name (a folder of `data/weights/`), a path of ours (`.safetensors` file, folder, or the
            `generator.json` in it) or an EG3D `.pkl`, which is read without executing anything in it (network G_ema).
        device: where the weights go.
        axes: for an EG3D `.pkl` that does not say how its third plane is sampled; others know.

    Raises:
        Head3DError: no such name or file; damaged, truncated or changed file (hash); another architecture or kind; a
            newer format; anything in a `.pkl` that is not EG3D's. One sentence each.
    """
    path = _find(name_or_path)
    if is_pickle(path):
        network = _network(path, "generator")
        with _about(path):
            model = generator_from_eg3d(
                network.state_dict, network.init_kwargs, _axes(network, axes), network.neural_resolution or 64
            )
        return model.to(device)
    if axes is not None:
        raise Head3DError(f"axes= is for EG3D pickles; {path} carries its own")
    return cast(Generator, _load(path, "generator").to(device))


def load_discriminator(name_or_path: Path | str, device: torch.device | str = "cpu") -> Discriminator:
    """A discriminator in evaluation mode; arguments and errors as in `load_generator` (network D of a `.pkl`)."""
    path = _find(name_or_path)
    if is_pickle(path):
        network = _network(path, "discriminator")
        with _about(path):
            model = discriminator_from_eg3d(network.state_dict, network.init_kwargs)
        return model.to(device)
    return cast(Discriminator, _load(path, "discriminator").to(device))


def holds_discriminator(name_or_path: Path | str) -> bool:
    """Whether there is a discriminator beside the generator; the bundled weights and single files have none."""
    path = _find(name_or_path)
    return is_pickle(path) or (path / "discriminator.json").is_file()


def read_notes(name_or_path: Path | str, kind: Kind = "generator") -> dict[str, Any]:
    """The `notes` that were saved with the weights."""
    return _header(_index(_find(name_or_path), kind)).notes


# --- writing ----------------------------------------------------------------------------------------------------------


def _save(
    model: nn.Module, kind: Kind, path: Path | str, half: bool, notes: Mapping[str, Any] | None
) -> Path:
    path = Path(path)
    tensors = {name: _stored(name, tensor, half) for name, tensor in sorted(model.state_dict().items())}
    config = cast(Any, model).config.to_dict()
    if path.suffix == ".safetensors":
        metadata = {
            "format": FORMAT,
            "format_version": str(FORMAT_VERSION),
            "kind": kind,
            "config": _json(config),
            "notes": _json(dict(notes or {})),
            "sha256": _digest(tensors.items()),
        }
        _write(tensors, path, metadata)
        return path
    if path.suffix in (".pkl", ".pt", ".json"):
        raise Head3DError(f"weights are saved as a .safetensors file or a folder, got {path.name}")
    index = path / f"{kind}.json"
    shards = [_write_shard(part, path, kind) for part in _parts(tensors)]
    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "kind": kind,
        "config": config,
        "notes": dict(notes or {}),
        "shards": shards,
    }
    with files.atomic(index) as temporary:
        temporary.write_text(_json(header, indent=1) + "\n", encoding="utf8")
    keep = {shard["file"] for shard in shards}
    for old in path.glob(f"{kind}-*.safetensors"):
        if old.name not in keep:
            old.unlink()
    return path


def _stored(name: str, tensor: Tensor, half: bool) -> Tensor:
    tensor = tensor.detach().to("cpu", torch.float32)
    if half:
        small = tensor.to(torch.float16)
        if not torch.equal(torch.isfinite(small), torch.isfinite(tensor)):
            raise Head3DError(f"{name} has values beyond float16's 65504: save without half")
        tensor = small
    return tensor.contiguous()


def _parts(tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Consecutive groups below the shard size; a tensor that is larger by itself gets a shard of its own."""
    parts: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        need = tensor.nbytes + len(name) + 128  # its line in the shard's header
        if parts[-1] and size + need > SHARD_BYTES:
            parts.append({})
            size = 0
        parts[-1][name] = tensor
        size += need
    return parts


def _write_shard(tensors: dict[str, Tensor], folder: Path, kind: str) -> dict[str, Any]:
    digest = _digest(tensors.items())
    path = folder / f"{kind}-{digest[:12]}.safetensors"
    _write(tensors, path, {"format": FORMAT, "sha256": digest})
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": files.sha256(path)}


def _write(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    with files.atomic(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def _digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """sha256 over names, types, shapes and bytes, in the order given."""
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _json(value: Any, indent: int | None = None) -> str:
    try:
        return json.dumps(value, indent=indent, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise Head3DError(f"notes must be plain JSON values ({error})") from error


# --- reading ----------------------------------------------------------------------------------------------------------


def _bundled() -> list[str]:
    folder = files.DATA / "weights"
    return sorted(p.parent.name for p in folder.glob("*/generator.json"))


def _find(name_or_path: Path | str) -> Path:
    """An existing path: as given, or of a bundled name."""
    path = Path(name_or_path).expanduser()
    if path.exists():
        return path
    if len(path.parts) == 1 and not path.suffix:
        bundled = files.DATA / "weights" / path
        if bundled.is_dir():
            return bundled
        known = ", ".join(_bundled()) or "none in this copy"
        raise Head3DError(
            f"no weights called {str(name_or_path)!r}: bundled are {known}, anything else is given as a path"
        )
    raise Head3DError(
        f"there is no file {path}: give a bundled name, a .safetensors file, a folder or an EG3D .pkl"
    )


def is_pickle(path: Path) -> bool:
    """Whether `path` is taken for an EG3D pickle: a file whose name ends in .pkl."""
    return path.is_file() and path.suffix.lower() in (".pkl", ".pickle")


def _network(path: Path, kind: Kind) -> Network:
    network = read_network(path, _NETWORK[kind])
    expected = {"generator": "TriPlaneGenerator", "discriminator": "DualDiscriminator"}[kind]
    if network.class_name != expected:
        raise Head3DError(
            f"{path} holds a {network.class_name[:60]}, EG3D's {kind} is a {expected}: it comes from other code"
        )
    return network


@contextmanager
def _about(path: Path) -> Iterator[None]:
    """Puts the file's name before what is wrong with its content."""
    try:
        yield
    except Head3DError as error:
        raise Head3DError(f"{path}: {error}") from None


def _axes(network: Network, axes: Axes | None) -> Axes:
    if network.plane_axes is not None:
        found = axes_of(network.plane_axes)
        if axes not in (None, found):
            raise Head3DError(
                f"it was trained with axes {found!r}: sampling its planes as {axes!r} would garble it"
            )
        return found
    if axes is None:
        raise Head3DError('it does not say how its planes are sampled: give axes="eg3d" for official weights')
    return axes


def _index(path: Path, kind: Kind) -> Path:
    """The file that carries the header: a .safetensors file, or the JSON of a folder."""
    if not path.is_dir():
        return path
    index = path / f"{kind}.json"
    if not index.is_file():
        there = ", ".join(sorted(p.name for p in path.glob("*.json"))) or "nothing of ours"
        raise Head3DError(f"{path} holds no {kind} ({index.name} is missing; it has {there})")
    return index


def _header(path: Path) -> _Header:
    try:
        if path.suffix == ".json":
            raw = json.loads(path.read_text(encoding="utf8"))
        elif path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                raw = dict(file.metadata() or {})
            for name in ("config", "notes", "format_version"):
                raw[name] = json.loads(raw.get(name, "null"))
        else:
            raise Head3DError(
                f"{path} is not a weight file: give a .safetensors file, a folder or an EG3D .pkl"
            )
        if not isinstance(raw, dict) or raw.get("format") != FORMAT or "kind" not in raw:
            raise Head3DError(f"{path} was not written by head3d_core: its header has no format {FORMAT!r}")
        if raw["format_version"] != FORMAT_VERSION:
            raise Head3DError(
                f"{path} has format version {raw['format_version']}, this code reads {FORMAT_VERSION}: "
                "update head3d_core"
            )
        return _Header(
            raw["kind"],
            raw["config"],
            raw.get("notes") or {},
            raw.get("sha256", ""),
            tuple(raw.get("shards", ())),
        )
    except Head3DError:
        raise
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise Head3DError(f"{path} is damaged or truncated ({error}): fetch the file again") from error


def _load(path: Path, kind: Kind) -> nn.Module:
    path = _index(path, kind)
    files.check_listed(path)
    header = _header(path)
    if header.kind != kind:
        raise Head3DError(f"{path} holds a {header.kind}, not a {kind}: use load_{header.kind}")
    try:
        config = _CONFIGS[kind].from_dict(header.config)
        with torch.device("meta"):
            model = Generator(config) if isinstance(config, GeneratorConfig) else Discriminator(config)
    except Head3DError:
        raise
    except (TypeError, ValueError, AttributeError, RuntimeError, KeyError, OverflowError) as error:
        raise Head3DError(
            f"{path} carries a configuration that cannot be built ({error}): fetch the file again"
        ) from error
    if path.suffix == ".json":
        tensors: dict[str, Tensor] = {}
        for shard in header.shards:
            tensors.update(_read_shard(path.parent, shard))
    else:
        tensors = _read(path)
        if _digest(sorted(tensors.items())) != header.sha256:
            raise Head3DError(
                f"{path} does not have the sha256 written in it: it was damaged or changed, fetch it again"
            )
    load_tensors(model, tensors, str(path))
    return model.eval()


def _read_shard(folder: Path, shard: dict[str, Any]) -> dict[str, Tensor]:
    name = shard.get("file", "") if isinstance(shard, dict) else ""
    path = folder / name
    if not name or Path(name).name != name or not path.is_file():
        raise Head3DError(f"{path} is listed but missing: fetch the folder again")
    if path.stat().st_size != shard.get("bytes") or files.sha256(path) != shard.get("sha256"):
        raise Head3DError(
            f"{path} does not have the size and sha256 listed beside it: it was damaged or changed, fetch it again"
        )
    return _read(path)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    except (OSError, ValueError, SafetensorError) as error:
        raise Head3DError(f"{path} is damaged or truncated ({error}): fetch the file again") from error
