"""Training state on disk: written whole or not at all, in parts of at most 15 MiB, checked when read.

A snapshot is a folder `<run>/state-<images>` with `part-000.bin ...` (one safetensors stream, cut) and `state.json`
(sizes, sha256, the run's counters). It is written under another name, flushed to disk and renamed, so a process that is
killed at any moment leaves the previous snapshot untouched and no half-written one behind under a valid name.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from head3d_core.utils.errors import Head3DError

PART_BYTES = 15 * 2**20
"""Largest part."""
VERSION = 1
_NAME = re.compile(r"state-(\d{10})")


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
        The snapshot's folder. A valid one of this name is left as it is.

    Raises:
        Head3DError: the disk is full or the folder cannot be written; older snapshots are intact.
    """
    run = Path(run)
    target = run / f"state-{images:010d}"
    if _is_complete(target):
        return target
    partial = run / f"{target.name}.partial"
    try:
        for leftover in run.glob("state-*.partial"):
            shutil.rmtree(leftover)
        if target.exists():
            shutil.rmtree(target)
        partial.mkdir(parents=True)
        data = safetensors.torch.save({k: t.detach().to("cpu").contiguous() for k, t in tensors.items()})
        _write_parts(partial, data, meta)
        os.rename(partial, target)
        _flush_folder(run)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        _refuse(run, error)
    # Never the one just written, even beside newer ones (of a run that went back to an older snapshot).
    for old in [p for p in all_snapshots(run) if p != target][keep - 1 :]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def _write_parts(folder: Path, data: bytes, meta: dict[str, Any]) -> None:
    parts = []
    view = memoryview(data)
    for k, start in enumerate(range(0, max(len(data), 1), PART_BYTES)):
        piece = view[start : start + PART_BYTES]
        name = f"part-{k:03d}.bin"
        _write_flushed(folder / name, piece)
        parts.append({"file": name, "bytes": len(piece), "sha256": hashlib.sha256(piece).hexdigest()})
    manifest = {"version": VERSION, "parts": parts, "meta": meta}
    _write_flushed(folder / "state.json", json.dumps(manifest, indent=1).encode())
    _flush_folder(folder)


def _write_flushed(path: Path, data: bytes | memoryview) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """Makes names in `folder` durable, where the system lets folders be opened."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _refuse(run: Path, error: OSError) -> None:
    found = latest(run)
    intact = f"the last good snapshot is {found}" if found else "there is no earlier snapshot"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = shutil.disk_usage(run if run.exists() else run.parent).free
        raise Head3DError(
            f"the disk is full ({free / 2**20:.0f} MiB free) while saving a snapshot in {run}: free some space and "
            f"start again with --resume; {intact}"
        ) from error
    raise Head3DError(f"cannot save a snapshot in {run} ({error.strerror}): {intact}") from error


def all_snapshots(run: Path | str) -> list[Path]:
    """Complete snapshots of a run, newest first."""
    run = Path(run)
    found = [p for p in run.glob("state-*") if _NAME.fullmatch(p.name) and _is_complete(p)]
    return sorted(found, reverse=True)


def latest(run: Path | str) -> Path | None:
    """The newest complete snapshot of a run, or None."""
    found = all_snapshots(run)
    return found[0] if found else None


def _manifest(folder: Path) -> dict[str, Any]:
    manifest = json.loads((folder / "state.json").read_text(encoding="utf8"))
    if manifest["version"] != VERSION:
        raise Head3DError(
            f"{folder} has version {manifest['version']}, this code reads {VERSION}: update head3d_core"
        )
    return dict(manifest)


def _is_complete(folder: Path) -> bool:
    """Whether all parts are there in full length (contents are checked by `load`)."""
    try:
        parts = _manifest(folder)["parts"]
        return all((folder / p["file"]).stat().st_size == p["bytes"] for p in parts)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def load(folder: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and meta of one snapshot.

    Raises Head3DError if a part is missing or its bytes are not what was written.
    """
    folder = Path(folder)
    try:
        manifest = _manifest(folder)
        pieces = []
        for part in manifest["parts"]:
            piece = (folder / part["file"]).read_bytes()
            if hashlib.sha256(piece).hexdigest() != part["sha256"]:
                raise Head3DError(
                    f"{folder / part['file']} is damaged (sha256 differs): use an older snapshot"
                )
            pieces.append(piece)
        return safetensors.torch.load(b"".join(pieces)), dict(manifest["meta"])
    except Head3DError:
        raise
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise Head3DError(f"{folder} is not a complete snapshot ({error}): use an older one") from error


def load_latest(run: Path | str, set_aside: bool = False) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The newest snapshot of a run that can be read in full.

    Args:
        run: the run's folder.
        set_aside: rename damaged ones that are newer to `<name>.damaged`, so that a run that goes on from the older
            one can neither take them for its newest nor lose a good one to make room for them.

    Raises Head3DError if there is none.
    """
    reasons = []
    damaged: list[Path] = []
    for folder in all_snapshots(run):
        try:
            found = load(folder)
        except Head3DError as error:
            reasons.append(str(error))
            damaged.append(folder)
            continue
        for bad in damaged if set_aside else ():
            _set_aside(bad)
        return found
    why = f" ({reasons[0]})" if reasons else ""
    raise Head3DError(f"{run} holds no readable snapshot{why}: give the --out folder of a training run")


def _set_aside(folder: Path) -> None:
    target = folder.with_name(f"{folder.name}.damaged")
    shutil.rmtree(target, ignore_errors=True)
    # Another process of the same run may have been quicker.
    with contextlib.suppress(OSError):
        folder.rename(target)


def halve(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Floating-point tensors as float16, for carrying a run over a narrow path; running sums stay as they are.

    Raises Head3DError if a value does not fit.
    """
    # "ada": sums over many images, three numbers that float16 cannot hold.
    small = {
        k: t.half() if t.is_floating_point() and not k.startswith("ada") else t for k, t in tensors.items()
    }
    for name, tensor in small.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise Head3DError(f"{name} does not fit float16: save the full state instead")
    return small
