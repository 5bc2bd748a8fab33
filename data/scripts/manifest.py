"""The list of what `data/` must hold: every file's sha256, size, licence, origin and the command that makes it again.

python data/scripts/manifest.py                                                 checks it
python data/scripts/manifest.py PATH ... --licence L --origin O --regenerate C  registers files or folders
python data/scripts/manifest.py --refresh                                       renews hashes and sizes
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, astuple
from pathlib import Path

from tyro.conf import Positional

from head3d_core.utils.errors import Head3DError
from head3d_core.utils.files import DATA, MANIFEST_VERSION, Entry, read_manifest, sha256, write
from script import main

_NOT_LISTED = {"manifest.json", "LICENSE", "README.md"}


def write_manifest(entries: dict[str, Entry], data: Path = DATA) -> None:
    """Writes `data/manifest.json`, sorted by path."""
    files = {name: asdict(entries[name]) for name in sorted(entries)}
    text = json.dumps({"version": MANIFEST_VERSION, "files": files}, indent=1, ensure_ascii=False)
    write(data / "manifest.json", text + "\n")


def _there(data: Path = DATA) -> dict[str, Entry]:
    """Entries of files that exist."""
    return {name: entry for name, entry in read_manifest(data).items() if (data / name).is_file()}


def _entry(file: Path, *about: str) -> Entry:
    """The entry of a file; `about` is its licence, origin and command."""
    return Entry(sha256(file), file.stat().st_size, *about)


def register(paths: Sequence[Path], *about: str, data: Path = DATA) -> dict[str, Entry]:
    """Adds files below `data` to the manifest (or renews their entries) and returns all entries.

    Entries whose file is gone are dropped.

    Args:
        paths: files; a folder stands for every file below it.
        about: licence (SPDX identifier), origin in one sentence, and the command that makes them again.
    """
    entries = _there(data)
    for path in paths:
        for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
            if not file.is_file() or not file.resolve().is_relative_to(data.resolve()):
                raise Head3DError(f"the manifest lists files below {data}, got {file}")
            name = file.resolve().relative_to(data.resolve()).as_posix()
            entries[name] = _entry(file, *about)
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
        aside = "/." in f"/{name}" or name.startswith(("external/", "scripts/")) or path.name in _NOT_LISTED
        if path.is_file() and not aside and name not in entries:
            found.append(f"{name} is not listed in the manifest: register it with its licence and origin")
    return found


def run(
    paths: Positional[tuple[Path, ...]] = (),
    licence: str = "",
    origin: str = "",
    regenerate: str = "",
    refresh: bool = False,
) -> int:
    """Checks data/manifest.json, and registers files first if any are named; status 1 if anything is wrong.

    Args:
        paths: files or folders below data/ to register.
        licence: SPDX identifier of the files to register.
        origin: where they come from, in one sentence.
        regenerate: the command that makes them again.
        refresh: renew hashes and sizes of all listed files.
    """
    if paths:
        if not (licence and origin and regenerate):
            raise Head3DError(
                "files are registered with --licence, --origin and --regenerate: give all three"
            )
        register(paths, licence, origin, regenerate)
    if refresh:
        write_manifest({name: _entry(DATA / name, *astuple(entry)[2:]) for name, entry in _there().items()})
    found = problems()
    print("\n".join(found) if found else f"{len(read_manifest(DATA))} files as listed")
    return int(bool(found))


if __name__ == "__main__":
    raise SystemExit(main(run))
