"""Files that are written whole or not at all, and where the bundled data are.

`data/manifest.json` names every file below `data/` with its sha256, size, licence, origin and the command that makes
it again (data/scripts/manifest.py writes and checks it).
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError

from head3d_core.utils.errors import Head3DError


def _data() -> Path:
    named = os.environ.get("HEAD3D_DATA")
    package = Path(__file__).resolve().parents[1]
    places = [Path(named).expanduser()] if named else [package.parent / "data", package / "data"]
    return next((p for p in places if (p / "manifest.json").is_file()), places[0])


DATA = _data()
"""Weights, assets, samples and records: HEAD3D_DATA, else the repository's `data/`, else the installed package's."""
MANIFEST_VERSION = 1

REFUSALS = {
    errno.ENOSPC: "free some space and try again",
    errno.EDQUOT: "free some space and try again",
    errno.EFBIG: "choose a place where files may be larger",
    errno.EACCES: "choose another place, or change its permissions",
    errno.EPERM: "choose another place, or change its permissions",
    errno.EROFS: "choose another place",
    errno.ENOTDIR: "give the name of a folder, not of a file",
    errno.EISDIR: "give the name of a file, not of a folder",
    errno.ENAMETOOLONG: "give a shorter name",
}
"""What the system may refuse at any moment, and what the reader can do."""
LONGEST_NAME = 200
"""Bytes of a name that is written; systems allow 255, and temporary neighbours have longer ones."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Whatever the system refuses while `path` is written (a full disk, ...) becomes one sentence that names it.

    Errors that name a file elsewhere, one that is read meanwhile, pass unchanged.

    Raises:
        Head3DError: instead of OSError and safetensors' own error.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        named = getattr(error, "filename", None)
        if isinstance(named, str | os.PathLike) and not Path(named).is_relative_to(path.parent):
            raise
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        # safetensors tells the system's number in its text alone.
        number = getattr(error, "errno", None) or next((n for n in REFUSALS if f"os error {n})" in why), None)
        advice = REFUSALS.get(number or 0, "look after the disk, or choose another place")
        raise Head3DError(f"{path} was not written ({why}): {advice}") from error


def check_writable(path: Path | str) -> None:
    """Before long work: raises Head3DError if a file at `path` could not be written afterwards. Leaves no trace."""
    path = Path(path)
    longest = max(path.absolute().parts, key=lambda part: len(os.fsencode(part)))
    if len(os.fsencode(longest)) > LONGEST_NAME:
        raise Head3DError(
            f"cannot write to {longest[:20]}...: its name has {len(os.fsencode(longest))} bytes, "
            f"give one of {LONGEST_NAME} at most"
        )
    if path.is_dir():
        raise Head3DError(f"cannot write {path}: it is a folder; give the name of a file")
    folder = next(p for p in path.absolute().parents if p.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        advice = REFUSALS.get(error.errno or 0, "choose another place")
        raise Head3DError(f"cannot write to {path.parent} ({error.strerror}): {advice}") from error


def check_place(path: Path | str, endings: Sequence[str], what: str) -> None:
    """Before any work: raises Head3DError if `path` has none of the `endings` or cannot be written."""
    path = Path(path)
    if path.suffix.lower() not in endings:
        raise Head3DError(f"cannot write {path.name}: a {what} ends in {', '.join(endings)}")
    check_writable(path)


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """A temporary path next to `path` to write to; it replaces `path` when the block ends without an error.

    If the block raises, the temporary file is removed and whatever was at `path` before is untouched. The file is on
    the disk when the block ends. What the system refuses is said in one sentence, see `writing`.

    >>> with tempfile.TemporaryDirectory() as folder, atomic(Path(folder) / "notes.txt") as temporary:
    ...     _ = temporary.write_text("whole")
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=f"{path.suffix}.tmp", dir=path.parent)
    except OSError as error:
        raise Head3DError(
            f"cannot write to {path.parent} ({error.strerror}): choose another place"
        ) from error
    os.close(handle)
    temporary = Path(name)
    try:
        with writing(path):
            yield temporary
            if os.name == "posix":  # mkstemp makes files that only their owner reads
                mask = os.umask(0)
                os.umask(mask)
                temporary.chmod(0o666 & ~mask)
            _flush(temporary)
            os.replace(temporary, path)
            _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Makes a file, or the names in a folder, durable, where the system lets folders be opened."""
    if os.name == "posix":
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write(path: Path | str, content: str | bytes) -> None:
    """Writes a whole file or nothing, see `atomic`; text is written as UTF-8."""
    with atomic(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def sha256(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def torch_home() -> Path:
    """Where torch caches downloaded weights: TORCH_HOME, else XDG_CACHE_HOME/torch, else ~/.cache/torch."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("TORCH_HOME") or Path(cache) / "torch").expanduser()


def missing_data(what: str) -> str:
    """What to say where a folder of the bundled data is not there: "none in this copy ..." and how to get it."""
    return (
        f"none in this copy ({DATA / what} is not there: install head3d-core from the repository, "
        "or set HEAD3D_DATA to the data folder of a clone)"
    )


@dataclass(frozen=True)
class Entry:
    """What the manifest knows about one file."""

    sha256: str
    """Hexadecimal SHA-256 of its bytes."""
    bytes: int
    """Its size."""
    licence: str
    """SPDX identifier."""
    origin: str
    """Where it comes from, in one sentence."""
    regenerate: str
    """The command that makes it again."""


def read_manifest(data: Path) -> dict[str, Entry]:
    """Entries of `data/manifest.json` by path relative to `data` (forward slashes); empty without the file.

    Raises Head3DError for a manifest that cannot be read.
    """
    path = data / "manifest.json"
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf8"))
        if content["version"] != MANIFEST_VERSION:
            raise Head3DError(
                f"{path} has version {content['version']}, this code reads {MANIFEST_VERSION}: update head3d_core"
            )
        return {name: Entry(**entry) for name, entry in content["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, Head3DError):
            raise
        raise Head3DError(f"{path} is not a manifest ({error}): restore it from the repository") from error


def check_listed(path: Path, data: Path | None = None) -> None:
    """Raises Head3DError if `path` is listed in the manifest of `data` and its bytes differ; other files pass."""
    data, resolved = data or DATA, path.resolve()
    if not resolved.is_relative_to(data.resolve()):
        return
    entry = read_manifest(data).get(resolved.relative_to(data.resolve()).as_posix())
    if entry is not None and (resolved.stat().st_size != entry.bytes or sha256(resolved) != entry.sha256):
        raise Head3DError(
            f"{path} does not have the sha256 that data/manifest.json lists: fetch the file again, or clone afresh"
        )
