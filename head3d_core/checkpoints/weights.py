"""Weights on disk: one safetensors file per network, whose header carries configuration, notes and a hash.

A folder of weights holds `generator.safetensors` and perhaps `discriminator.safetensors`; the bundled ones are the
folders of `data/weights/`. The file's metadata is one JSON text under the key "head3d", so that the same network makes
the same bytes. The identity encoder and fitted planes are files of the same form (`write`, `read`). EG3D's pickles are
read here as well.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from head3d_core.checkpoints.eg3d import (
    axes_of,
    discriminator_config,
    generator_config,
    load_tensors,
    network_from_eg3d,
)
from head3d_core.checkpoints.eg3d_pickle import read_network
from head3d_core.config import Axes, DiscriminatorConfig, GeneratorConfig
from head3d_core.model.discriminator import Discriminator
from head3d_core.model.generator import Generator
from head3d_core.utils import files
from head3d_core.utils.errors import Head3DError

FORMAT_VERSION = 2
"""Raised when a file can no longer be read by older code."""
Kind = Literal["generator", "discriminator"]
_KEY = "head3d"
_NETWORKS: dict[Kind, tuple[Any, Any, str, str]] = {
    "generator": (Generator, GeneratorConfig, "G_ema", "TriPlaneGenerator"),
    "discriminator": (Discriminator, DiscriminatorConfig, "D", "DualDiscriminator"),
}
"""Our network and its configuration; its name and its class in an EG3D pickle."""


@dataclass(frozen=True)
class Header:
    """What a file says about itself."""

    kind: str
    """What it holds: "generator", "discriminator", "identity encoder", "fitted head" or "training state"."""
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
    return cast(Generator, _load(_find(name_or_path), "generator", axes).to(device).eval())


def load_discriminator(name_or_path: Path | str, device: torch.device | str = "cpu") -> Discriminator:
    """A discriminator in evaluation mode; arguments and errors as in `load_generator` (network D of a `.pkl`)."""
    return cast(Discriminator, _load(_find(name_or_path), "discriminator").to(device).eval())


def holds_discriminator(name_or_path: Path | str) -> bool:
    """Whether there is a discriminator too; the bundled weights and single files have none."""
    path = _find(name_or_path)
    return is_pickle(path) or (path / "discriminator.safetensors").is_file()


def read_header(name_or_path: Path | str, kind: Kind = "generator") -> Header:
    """Configuration and notes of saved weights, without their tensors. Raises Head3DError as `load_generator` does."""
    return _open(_file_of(_find(name_or_path), kind), kind)[0]


def read_notes(name_or_path: Path | str, kind: Kind = "generator") -> dict[str, Any]:
    """The `notes` that were saved with the weights."""
    return read_header(name_or_path, kind).notes


def is_pickle(path: Path) -> bool:
    """Whether `path` is taken for an EG3D pickle: a file whose name ends in .pkl."""
    return path.is_file() and path.suffix.lower() in (".pkl", ".pickle")


def write(
    path: Path,
    kind: str,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    half: bool = False,
    notes: Mapping[str, Any] | None = None,
) -> Path:
    """Writes tensors of one kind with their configuration; floating-point ones as float16 if `half`.

    Raises Head3DError as `save_generator` does.
    """
    stored = {name: _stored(name, tensor, half) for name, tensor in sorted(tensors.items())}
    header = Header(kind, dict(config), digest(stored), dict(notes or {}))
    try:
        text = json.dumps(asdict(header), ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise Head3DError(f"notes must be plain JSON values ({error})") from error
    with files.atomic(path) as temporary:
        save_file(stored, temporary, metadata={_KEY: text})
    return path


def read(path: Path, kind: str) -> tuple[Header, dict[str, Tensor]]:
    """Header and tensors of a file that `write` wrote.

    Raises:
        Head3DError: a damaged, truncated or changed file (its own hash, or the one in the manifest of data/), or one of
            another kind or format.
    """
    files.check_listed(path)
    header, tensors = _open(path, kind, with_tensors=True)
    if digest(tensors) != header.sha256:
        raise Head3DError(
            f"{path} does not have the sha256 written in it: it was damaged or changed, fetch it again"
        )
    return header, tensors


# --- writing ----------------------------------------------------------------------------------------------------------


def _save(
    model: nn.Module, kind: Kind, path: Path | str, half: bool, notes: Mapping[str, Any] | None
) -> Path:
    path = Path(path)
    if path.suffix in (".pkl", ".pt", ".json"):
        raise Head3DError(f"weights are saved as a .safetensors file or into a folder, got {path.name}")
    if path.suffix != ".safetensors":
        path = path / f"{kind}.safetensors"
    return write(path, kind, cast(Any, model).config.to_dict(), model.state_dict(), half, notes)


def _stored(name: str, tensor: Tensor, half: bool) -> Tensor:
    whole = tensor.detach().cpu()
    stored = whole.half() if half and whole.is_floating_point() else whole
    if stored.dtype != whole.dtype and not torch.equal(stored.isfinite(), whole.isfinite()):
        raise Head3DError(f"{name} has values beyond float16's 65504: save without half")
    return stored.contiguous()


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes of tensors on the CPU."""
    sha256 = hashlib.sha256()
    for name in sorted(tensors):
        sha256.update(f"{name} {tensors[name].dtype} {list(tensors[name].shape)}\n".encode())
        sha256.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return sha256.hexdigest()


# --- reading ----------------------------------------------------------------------------------------------------------


def _find(name_or_path: Path | str) -> Path:
    """An existing path: as given (of a run's folder its `weights/`), or of a bundled name."""
    path = Path(name_or_path).expanduser()
    if path.exists():
        return path / "weights" if (path / "weights").is_dir() else path
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


def _file_of(path: Path, kind: Kind) -> Path:
    """The `.safetensors` file at a path, or in the folder there."""
    if path.is_dir():
        if not (path / f"{kind}.safetensors").is_file():
            there = ", ".join(sorted(p.name for p in path.glob("*.safetensors"))) or "nothing of ours"
            if (path / "log.jsonl").is_file():
                there += ": the training run has not ended, go on with train --resume"
            raise Head3DError(f"{path} holds no {kind} ({kind}.safetensors is missing; it has {there})")
        return path / f"{kind}.safetensors"
    if path.suffix != ".safetensors":
        raise Head3DError(
            f"{path} is not a weight file: give a .safetensors file, a folder that holds one or an EG3D .pkl"
        )
    return path


def _open(path: Path, kind: str, with_tensors: bool = False) -> tuple[Header, dict[str, Tensor]]:
    """Header and, if asked for, tensors of a file; checks format and kind."""
    if path.exists() and not (path.is_file() and os.access(path, os.R_OK)):  # a pipe would be waited for
        raise Head3DError(f"{path} cannot be opened: expected a file that you may read")
    try:
        with safe_open(path, "pt") as file:
            raw = json.loads((file.metadata() or {}).get(_KEY, "{}"))
            names = file.keys() if with_tensors else ()
            tensors = {name: file.get_tensor(name) for name in names}
        if not isinstance(raw, dict) or "format_version" not in raw:
            raise Head3DError(
                f"{path} was not written by this head3d_core (no {_KEY!r} in its header): "
                "weights of older code must be exported again"
            )
        if raw["format_version"] != FORMAT_VERSION:
            raise Head3DError(
                f"{path} has format version {raw['format_version']}, this code reads {FORMAT_VERSION}: "
                "update head3d_core"
            )
        header = Header(**raw)
    except Head3DError:
        raise
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise Head3DError(f"{path} is damaged or truncated ({error}): fetch the file again") from error
    if header.kind != kind:
        advice = f": use load_{header.kind}" if header.kind in _NETWORKS else ""
        raise Head3DError(f"{path} has {header.kind} weights, not {kind} weights{advice}")
    return header, tensors


def _load(path: Path, kind: Kind, axes: Axes | None = None) -> nn.Module:
    """The network at a path, of our format or EG3D's."""
    if is_pickle(path):
        return _load_eg3d(path, kind, axes)
    if axes is not None:
        raise Head3DError(f"axes= is for EG3D pickles; {path} carries its own")
    path = _file_of(path, kind)
    header, tensors = read(path, kind)
    network, config, *_ = _NETWORKS[kind]
    try:
        with torch.device("meta"):
            model: nn.Module = network(config.from_dict(header.config))
    except Head3DError:
        raise
    except (TypeError, ValueError, AttributeError, RuntimeError, KeyError, OverflowError) as error:
        raise Head3DError(
            f"{path} carries a configuration that cannot be built ({error}): fetch the file again"
        ) from error
    load_tensors(model, tensors, str(path))
    return model


def _load_eg3d(path: Path, kind: Kind, axes: Axes | None) -> Any:
    *_, name, expected = _NETWORKS[kind]
    network = read_network(path, name)
    try:
        if network.class_name != expected:
            raise Head3DError(
                f"it holds a {network.class_name[:60]}, EG3D's {kind} is a {expected}: it comes from other code"
            )
        if kind == "discriminator":
            return network_from_eg3d(discriminator_config(network.init_kwargs), network.state_dict)
        own = None if network.plane_axes is None else axes_of(network.plane_axes)
        if own and axes not in (None, own):
            raise Head3DError(
                f"it was trained with axes {own!r}: sampling its planes as {axes!r} would garble it"
            )
        known = own or axes
        if known is None:
            raise Head3DError(
                'it does not say how its planes are sampled: give axes="eg3d" for official weights'
            )
        config = generator_config(network.init_kwargs, known, network.neural_resolution or 64)
        return network_from_eg3d(config, network.state_dict)
    except Head3DError as error:
        raise Head3DError(f"{path}: {error}") from None
