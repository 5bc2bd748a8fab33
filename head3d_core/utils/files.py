"""Files that are written whole or not at all, and the list of what `data/` must hold.

`data/manifest.json` names every file below `data/` with its sha256, size, licence, origin and the command that makes
it again. `python -m head3d_core.utils.files` checks it; with paths and `--licence --origin --regenerate` it registers
files, with `--refresh` it renews hashes and sizes of the files that it names.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError

from head3d_core.utils.errors import Head3DError

DATA = Path(__file__).resolve().parents[2] / "data"
"""The repository's data folder."""
MANIFEST_VERSION = 1
_NOT_LISTED = {"manifest.json", "LICENSE", "README.md"}

REFUSALS = {
    errno.ENOSPC: "free some space and try again",
    errno.EDQUOT: "free some space and try again",
    errno.EFBIG: "choose a place where files may be larger",
    errno.EACCES: "choose another place, or change its permissions",
    errno.EPERM: "choose another place, or change its permissions",
    errno.EROFS: "choose another place",
    errno.ENOTDIR: "give a folder where a file stands now",
    errno.EISDIR: "give the name of a file, not of a folder",
}
"""What the system may refuse at any moment, and what the reader can do."""


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
    """A temporary path beside `path` to write to; it takes the place of `path` when the block ends without an error.

    If the block raises, the temporary file is removed and whatever stood at `path` before is untouched. What the
    system refuses is said in one sentence, see `writing`.

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
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def sha256(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def read_manifest(data: Path = DATA) -> dict[str, Entry]:
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


def write_manifest(entries: dict[str, Entry], data: Path = DATA) -> None:
    """Writes `data/manifest.json`, sorted by path."""
    files = {name: asdict(entries[name]) for name in sorted(entries)}
    text = json.dumps({"version": MANIFEST_VERSION, "files": files}, indent=1, ensure_ascii=False)
    with atomic(data / "manifest.json") as temporary:
        temporary.write_text(text + "\n", encoding="utf8")


def register(
    paths: Sequence[Path], licence: str, origin: str, regenerate: str, data: Path = DATA
) -> dict[str, Entry]:
    """Adds files below `data` to the manifest (or renews their entries) and returns all entries.

    Entries whose file is gone are dropped.

    Args:
        paths: files; a folder stands for every file below it.
        licence: SPDX identifier.
        origin: where they come from, in one sentence.
        regenerate: the command that makes them again.
    """
    entries = {name: entry for name, entry in read_manifest(data).items() if (data / name).is_file()}
    for path in paths:
        for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
            if not file.is_file() or not file.resolve().is_relative_to(data.resolve()):
                raise Head3DError(f"the manifest lists files below {data}, got {file}")
            name = file.resolve().relative_to(data.resolve()).as_posix()
            entries[name] = Entry(sha256(file), file.stat().st_size, licence, origin, regenerate)
    write_manifest(entries, data)
    return entries


def problems(data: Path = DATA) -> list[str]:
    """One sentence for every file below `data` that is missing, changed or not listed; empty if all is well."""
    entries = read_manifest(data)
    found = []
    for name, entry in entries.items():
        path = data / name
        if not path.is_file():
            found.append(
                f"{name} is listed in the manifest but missing: restore it, or run {entry.regenerate}"
            )
        elif path.stat().st_size != entry.bytes or sha256(path) != entry.sha256:
            found.append(f"{name} differs from the manifest: restore it, or register it again")
    for path in sorted(data.rglob("*")) if data.is_dir() else ():
        name = path.relative_to(data).as_posix()
        hidden = any(part.startswith(".") for part in Path(name).parts) or name.startswith(
            ("external/", "scripts/")
        )
        if path.is_file() and not hidden and path.name not in _NOT_LISTED and name not in entries:
            found.append(f"{name} is not listed in the manifest: register it with its licence and origin")
    return found


def check_listed(path: Path, data: Path = DATA) -> None:
    """Raises Head3DError if `path` is listed in the manifest of `data` and its bytes differ; other files pass."""
    resolved = path.resolve()
    if not resolved.is_relative_to(data.resolve()):
        return
    entry = read_manifest(data).get(resolved.relative_to(data.resolve()).as_posix())
    if entry is not None and (resolved.stat().st_size != entry.bytes or sha256(resolved) != entry.sha256):
        raise Head3DError(
            f"{path} does not have the sha256 that data/manifest.json lists: fetch the file again, or clone afresh"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Register files if any are named, renew entries with `--refresh`, then check; returns the number of problems."""
    parser = argparse.ArgumentParser(
        prog="python -m head3d_core.utils.files", description="Checks data/manifest.json."
    )
    parser.add_argument("paths", nargs="*", type=Path, help="files or folders below data/ to register")
    parser.add_argument("--licence", help="SPDX identifier of the files to register")
    parser.add_argument("--origin", help="where they come from, in one sentence")
    parser.add_argument("--regenerate", help="the command that makes them again")
    parser.add_argument("--refresh", action="store_true", help="renew hashes and sizes of all listed files")
    args = parser.parse_args(arguments)
    if args.paths:
        if not (args.licence and args.origin and args.regenerate):
            parser.error("files are registered with --licence, --origin and --regenerate")
        try:
            register(args.paths, args.licence, args.origin, args.regenerate)
        except Head3DError as error:
            parser.error(str(error))
    if args.refresh:
        for name, entry in read_manifest().items():
            if (DATA / name).is_file():
                register([DATA / name], entry.licence, entry.origin, entry.regenerate)
    found = problems()
    print("\n".join(found) if found else f"{len(read_manifest())} files as listed")
    return len(found)


if __name__ == "__main__":
    raise SystemExit(min(main(), 1))
