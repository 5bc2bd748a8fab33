"""The list of what `data/` must hold: every file's sha256, size, licence, origin and the command that makes it again.

python data/scripts/manifest.py                                                 checks it
python data/scripts/manifest.py PATH ... --licence L --origin O --regenerate C  registers files or folders
python data/scripts/manifest.py --refresh                                       renews hashes and sizes
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from head3d_core.utils.errors import Head3DError
from head3d_core.utils.files import DATA, MANIFEST_VERSION, Entry, atomic, read_manifest, sha256

_NOT_LISTED = {"manifest.json", "LICENSE", "README.md"}


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Register files if any are named, renew entries with `--refresh`, then check; returns the number of problems."""
    parser = argparse.ArgumentParser(
        prog="python data/scripts/manifest.py", description="Checks data/manifest.json."
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
        for name, entry in read_manifest(DATA).items():
            if (DATA / name).is_file():
                register([DATA / name], entry.licence, entry.origin, entry.regenerate)
    found = problems()
    print("\n".join(found) if found else f"{len(read_manifest(DATA))} files as listed")
    return len(found)


if __name__ == "__main__":
    raise SystemExit(min(main(), 1))
