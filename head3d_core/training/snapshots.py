"""Training state on disk, written atomically, and the one way to open a run or to read its log again.

A snapshot is one file `<run>/state-<images>.safetensors` of `weights.write`: every tensor of the run, and in its
header the run's counters and settings. A process that is killed at any moment leaves the previous snapshot as it was
and no half-written one under a valid name. `<run>/carry/` holds the same in float16 and without Adam's moments, one
file a network: small enough to be taken to another machine, where the run goes on or later stages start from it.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from head3d_core.checkpoints import weights
from head3d_core.config import Axes, DiscriminatorConfig, GeneratorConfig
from head3d_core.model.discriminator import Discriminator
from head3d_core.model.generator import Generator
from head3d_core.utils.errors import Head3DError

Event = dict[str, Any]
"""One line of a run's log: there is one every few seconds, and one "start" for every session."""
_KIND = "training state"
_NAME = re.compile(r"state-(\d{10})\.safetensors")
_NETWORKS = re.compile(r"generator|average|d\d")


def save(
    run: Path | str, images: int, tensors: dict[str, Tensor], meta: dict[str, Any], keep: int = 2
) -> Path:
    """Writes one snapshot and removes all but the newest `keep`.

    Args:
        run: the run's folder; made if missing.
        images: images seen so far; names the snapshot.
        tensors: by name, on any device.
        meta: JSON-able counters and settings.
        keep: how many snapshots stay, at least 1.

    Returns:
        The snapshot's file.

    Raises:
        Head3DError: the disk is full or the folder cannot be written; older snapshots are intact.
    """
    run = Path(run)
    target = run / f"state-{images:010d}.safetensors"
    for leftover in (*run.glob(".state-*.tmp"), *run.glob(".tmp*")):  # ours, and those of safetensors
        leftover.unlink(missing_ok=True)
    try:
        weights.write(target, _KIND, {}, tensors, notes=meta)
    except Head3DError as error:
        newest = latest(run)
        intact = f"the last good snapshot is {newest}" if newest else "there is no earlier snapshot"
        raise Head3DError(f"{error}; {intact}, and --resume goes on from there") from error
    # Never the one just written, even if others are newer (of a run that went back to an older snapshot).
    for old in [path for path in all_snapshots(run) if path != target][keep - 1 :]:
        old.unlink(missing_ok=True)
    return target


def save_carry(run: Path | str, tensors: dict[str, Tensor], meta: dict[str, Any]) -> Path:
    """Writes the small state `<run>/carry/`, one file a network, in place of the one before; returns the folder."""
    target = Path(run) / "carry"
    partial = target.with_name("carry.partial")
    shutil.rmtree(partial, ignore_errors=True)
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        network = name.partition(".")[0]
        groups.setdefault(network if _NETWORKS.fullmatch(network) else "rest", {})[name] = tensor
    rest = {name: t for name, t in groups.pop("rest", {}).items() if not name.startswith("adam.")}
    for network, group in groups.items():
        weights.write(partial / f"{network}.safetensors", _KIND, {}, group, half=True, notes=meta)
    # Sums over many images, which float16 cannot hold.
    weights.write(partial / "rest.safetensors", _KIND, {}, rest, notes=meta)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    return target


def all_snapshots(run: Path | str) -> list[Path]:
    """Complete snapshots of a run, newest first (their contents are checked by `load`)."""
    named = [path for path in Path(run).glob("state-*") if _NAME.fullmatch(path.name)]
    return sorted((path for path in named if _is_complete(path)), reverse=True)


def latest(run: Path | str) -> Path | None:
    """The newest complete snapshot of a run, else its small state, else None."""
    carry = Path(run) / "carry"
    return next(iter(all_snapshots(run)), carry if (carry / "generator.safetensors").is_file() else None)


def _is_complete(path: Path) -> bool:
    try:
        with safe_open(path, "pt"):
            return True
    except (OSError, SafetensorError):
        return False


def load(path: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and meta of one snapshot, or of a small state (a folder).

    Raises Head3DError if it is incomplete, of another version, or not what was written.
    """
    path = Path(path)
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    parts = [weights.read(file, _KIND) for file in files]
    if not parts or any(header.notes != parts[0][0].notes for header, _ in parts):
        raise Head3DError(f"{path} does not hold the networks of one moment: copy the folder again, whole")
    return {name: tensor for _, tensors in parts for name, tensor in tensors.items()}, parts[0][0].notes


def load_latest(run: Path | str, set_aside: bool = False) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The newest snapshot of a run that can be read in full, else its small state.

    Args:
        run: the run's folder.
        set_aside: rename damaged ones that are newer to `<name>.damaged`, so that a run that goes on from the older
            one can neither take them for its newest nor lose a good one to make room for them.

    Raises Head3DError if there is none.
    """
    run = Path(run)
    damaged: dict[Path, str] = {}
    for path in [*all_snapshots(run), *([run / "carry"] if (run / "carry").is_dir() else [])]:
        try:
            state = load(path)
        except Head3DError as error:
            damaged[path] = str(error)
            continue
        for bad in damaged if set_aside else ():
            with contextlib.suppress(OSError):  # another process of the same run may have been quicker
                bad.replace(bad.with_name(f"{bad.name}.damaged"))
        return state
    why = f" ({next(iter(damaged.values()))})" if damaged else ""
    raise Head3DError(f"{run} holds no readable snapshot{why}: give the --out folder of a training run")


@dataclass(frozen=True)
class OpenRun:
    """The networks of a training run, or of weights."""

    generator: Generator
    """The averaged one, in evaluation mode."""
    discriminators: tuple[Discriminator, ...]
    """In the order of the recipe's domains; empty where weights come without one."""
    notes: dict[str, Any]
    """What is known about them: stage, recipe, images, seed, ..."""


def open_run(path: Path | str, device: torch.device | str = "cpu", axes: Axes | None = None) -> OpenRun:
    """Opens a run's folder (its newest snapshot, else its small state, else its `weights/`), or weights.

    Args:
        path: a folder that `train --out` named, its `carry/`, or anything that `load_generator` reads.
        device: where the networks go.
        axes: for an EG3D pickle that does not say how its planes are sampled.

    Raises:
        Head3DError: there is nothing to read, or it is damaged.
    """
    folder = Path(path)
    if folder.is_dir() and (folder / "average.safetensors").is_file():
        return _networks(*load(folder), device)
    if folder.is_dir() and latest(folder):
        return _networks(*load_latest(folder), device)
    is_pickle = folder.suffix.lower() in (".pkl", ".pickle")
    generator = weights.load_generator(path, device, axes=axes if is_pickle else None)
    own = (weights.load_discriminator(path, device),) if weights.holds_discriminator(path) else ()
    return OpenRun(generator, own, {} if is_pickle else weights.read_notes(path))


def _networks(tensors: dict[str, Tensor], meta: dict[str, Any], device: torch.device | str) -> OpenRun:
    def part(name: str) -> dict[str, Tensor]:
        own = {k.removeprefix(f"{name}."): t for k, t in tensors.items() if k.startswith(f"{name}.")}
        return {k: t.float() if t.is_floating_point() else t for k, t in own.items()}

    generator = Generator(GeneratorConfig.from_dict(meta["generator"]))
    generator.load_state_dict(part("average"))
    discriminators: list[Discriminator] = []
    while own := part(f"d{len(discriminators)}"):
        discriminators.append(Discriminator(DiscriminatorConfig.from_dict(meta["discriminator"])))
        discriminators[-1].load_state_dict(own)
    known = ("images", "preset", "recipe", "row", "seed")
    notes: dict[str, Any] = {name: meta[name] for name in known if name in meta}
    return OpenRun(generator.to(device).eval(), tuple(net.to(device).eval() for net in discriminators), notes)


def read_log(run: Path) -> tuple[list[Event], int]:
    """Events of a run's log in order, and how many lines a kill left half written.

    Args:
        run: the run's folder or its log.jsonl.

    Raises:
        Head3DError: there is no log.
    """
    path = run / "log.jsonl" if run.is_dir() else run
    if not path.is_file():
        raise Head3DError(f"there is no log {path}: give the folder that `train --out` named")
    events, broken = [], 0
    for line in path.read_text(encoding="utf8").splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            broken += 1
            continue
        if isinstance(event, dict) and "event" in event and "images" in event:
            events.append(event)
    return events, broken


def surviving(events: list[Event], kind: str = "progress") -> tuple[list[Event], float]:
    """Events of one kind that the final weights went through, and the seconds of all sessions together.

    A resumed session starts from a snapshot: what an interrupted one did beyond it is gone, though its time was spent.
    """
    kept: list[Event] = []
    sessions = [0.0]
    for event in events:
        if event["event"] == "start":
            kept = [e for e in kept if e["images"] <= event["images"]]
            sessions.append(0.0)
        sessions[-1] = max(sessions[-1], float(event.get("seconds", 0.0)))
        kept += [event] * (event["event"] == kind)
    return kept, sum(sessions)
