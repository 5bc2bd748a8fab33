"""Weights on disk: one safetensors file per network, whose header carries configuration, notes and a hash.

A folder of weights holds `generator.safetensors` and perhaps `discriminator.safetensors`; the bundled ones are the
folders of `data/weights/`. The file's metadata is one JSON text under the key "head3d", so that the same network makes
the same bytes. EG3D's pickles are read here as well.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
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

FORMAT_VERSION = 2
"""Raised when a file can no longer be read by older code. Version 1 were folders of shards: `convert` reads them."""
Kind = Literal["generator", "discriminator"]
_KEY = "head3d"
_EG3D = {"generator": ("G_ema", "TriPlaneGenerator"), "discriminator": ("D", "DualDiscriminator")}


@dataclass(frozen=True)
class Header:
    """What a file says about itself."""

    kind: str
    """Which network it holds."""
    config: dict[str, Any]
    """Its configuration, as `to_dict` gives it."""
    sha256: str
    """Hash over the names, types, shapes and bytes of its tensors."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Anything JSON that travels with the weights."""
    format_version: int = FORMAT_VERSION
    """Of the file."""


def save_generator(
    model: Generator, path: Path | str, *, half: bool = False, notes: Mapping[str, Any] | None = None
) -> Path:
    """Writes a generator; returns the file written.

    Args:
        model: on any device; it is not changed.
        path: a name that ends in `.safetensors`, or a folder, which gets a `generator.safetensors`.
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
        name_or_path: a bundled name (a folder of `data/weights/`), a `.safetensors` file of ours, a folder that holds
            one, or an EG3D `.pkl`, which is read without executing anything in it (network G_ema).
        device: where the weights go.
        axes: for an EG3D `.pkl` that does not say how its third plane is sampled; others know.

    Raises:
        Head3DError: no such name or file; damaged, truncated or changed file (hash); another architecture or kind; an
            older or newer format; anything in a `.pkl` that is not EG3D's. One sentence each.
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
    """Whether there is a discriminator too; the bundled weights and single files have none."""
    path = _find(name_or_path)
    return is_pickle(path) or (path / "discriminator.safetensors").is_file()


def read_header(name_or_path: Path | str, kind: Kind = "generator") -> Header:
    """Configuration and notes of saved weights, without their tensors. Raises Head3DError as `load_generator` does."""
    path = file_of(name_or_path, kind)
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        if metadata.get("format") == _KEY:
            raise Head3DError(_too_old(path))
        raw = json.loads(metadata.get(_KEY, "{}"))
        if not isinstance(raw, dict) or "format_version" not in raw:
            raise Head3DError(f"{path} was not written by head3d_core: its header has no {_KEY!r}")
        if raw["format_version"] != FORMAT_VERSION:
            raise Head3DError(
                f"{path} has format version {raw['format_version']}, this code reads {FORMAT_VERSION}: "
                "update head3d_core"
            )
        return Header(**raw)
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        if isinstance(error, Head3DError):
            raise
        raise Head3DError(f"{path} is damaged or truncated ({error}): fetch the file again") from error


def read_notes(name_or_path: Path | str, kind: Kind = "generator") -> dict[str, Any]:
    """The `notes` that were saved with the weights."""
    return read_header(name_or_path, kind).notes


def file_of(name_or_path: Path | str, kind: Kind = "generator") -> Path:
    """The `.safetensors` file of a bundled name, a folder or a path; raises Head3DError if there is none."""
    path = _find(name_or_path)
    if path.is_dir():
        if (path / f"{kind}.json").is_file():
            raise Head3DError(_too_old(path))
        if not (path / f"{kind}.safetensors").is_file():
            there = ", ".join(sorted(p.name for p in path.glob("*.safetensors"))) or "nothing of ours"
            raise Head3DError(f"{path} holds no {kind} ({kind}.safetensors is missing; it has {there})")
        return path / f"{kind}.safetensors"
    if path.suffix != ".safetensors":
        raise Head3DError(
            f"{path} is not a weight file: give a .safetensors file, a folder that holds one or an EG3D .pkl"
        )
    return path


def is_pickle(path: Path) -> bool:
    """Whether `path` is taken for an EG3D pickle: a file whose name ends in .pkl."""
    return path.is_file() and path.suffix.lower() in (".pkl", ".pickle")


def build(kind: str, config: dict[str, Any], tensors: Mapping[str, Tensor], where: str) -> nn.Module:
    """The network of a configuration with these tensors, in evaluation mode.

    Raises Head3DError, naming `where` they come from, if one of both cannot be.
    """
    try:
        with torch.device("meta"):
            model: nn.Module = (
                Generator(GeneratorConfig.from_dict(config))
                if kind == "generator"
                else Discriminator(DiscriminatorConfig.from_dict(config))
            )
    except (TypeError, ValueError, AttributeError, RuntimeError, KeyError, OverflowError) as error:
        if isinstance(error, Head3DError):
            raise
        raise Head3DError(
            f"{where} carries a configuration that cannot be built ({error}): fetch the file again"
        ) from error
    load_tensors(model, tensors, where)
    return model.eval()


# --- writing ----------------------------------------------------------------------------------------------------------


def _save(
    model: nn.Module, kind: Kind, path: Path | str, half: bool, notes: Mapping[str, Any] | None
) -> Path:
    path = Path(path)
    if path.suffix in (".pkl", ".pt", ".json"):
        raise Head3DError(f"weights are saved as a .safetensors file or into a folder, got {path.name}")
    if path.suffix != ".safetensors":
        path = path / f"{kind}.safetensors"
    tensors = {name: _stored(name, tensor, half) for name, tensor in sorted(model.state_dict().items())}
    header = Header(kind, cast(Any, model).config.to_dict(), _digest(tensors), dict(notes or {}))
    try:
        text = json.dumps(asdict(header), ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise Head3DError(f"notes must be plain JSON values ({error})") from error
    with files.atomic(path) as temporary:
        save_file(tensors, temporary, metadata={_KEY: text})
    return path


def _stored(name: str, tensor: Tensor, half: bool) -> Tensor:
    tensor = tensor.detach().to("cpu", torch.float32)
    if half:
        small = tensor.to(torch.float16)
        if not torch.equal(torch.isfinite(small), torch.isfinite(tensor)):
            raise Head3DError(f"{name} has values beyond float16's 65504: save without half")
        tensor = small
    return tensor.contiguous()


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {list(tensors[name].shape)}\n".encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


# --- reading ----------------------------------------------------------------------------------------------------------


def _too_old(path: Path) -> str:
    return (
        f"{path} has the format of an older head3d_core (shards, or another header): "
        f"python -m head3d_core convert {path} NEW writes it in this one"
    )


def _find(name_or_path: Path | str) -> Path:
    """An existing path: as given, or of a bundled name."""
    path = Path(name_or_path).expanduser()
    if path.exists():
        return path
    if len(path.parts) == 1 and not path.suffix:
        folder = files.DATA / "weights"
        if (folder / path).is_dir():
            return folder / path
        known = ", ".join(sorted(p.parent.name for p in folder.glob("*/generator.safetensors")))
        raise Head3DError(
            f"no weights called {str(name_or_path)!r}: bundled are "
            f"{known or files.missing_data('weights')}, anything else is given as a path"
        )
    raise Head3DError(
        f"there is no file {path}: give a bundled name, a .safetensors file, a folder or an EG3D .pkl"
    )


def _load(path: Path, kind: Kind) -> nn.Module:
    path = file_of(path, kind)
    files.check_listed(path)
    header = read_header(path, kind)
    if header.kind != kind:
        raise Head3DError(f"{path} holds a {header.kind}, not a {kind}: use load_{header.kind}")
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    except (OSError, ValueError, SafetensorError) as error:
        raise Head3DError(f"{path} is damaged or truncated ({error}): fetch the file again") from error
    if _digest(tensors) != header.sha256:
        raise Head3DError(
            f"{path} does not have the sha256 written in it: it was damaged or changed, fetch it again"
        )
    return build(kind, header.config, tensors, str(path))


def _network(path: Path, kind: Kind) -> Network:
    name, expected = _EG3D[kind]
    network = read_network(path, name)
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
        own = axes_of(network.plane_axes)
        if axes not in (None, own):
            raise Head3DError(
                f"it was trained with axes {own!r}: sampling its planes as {axes!r} would garble it"
            )
        return own
    if axes is None:
        raise Head3DError('it does not say how its planes are sampled: give axes="eg3d" for official weights')
    return axes
