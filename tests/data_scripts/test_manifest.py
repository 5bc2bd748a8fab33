"""The manifest of `data/`: what is listed, what changed, and the shipped files themselves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import ROOT, refuses

import manifest
from head3d_core.utils import files


def test_manifest_finds_what_changed(tmp_path: Path) -> None:
    (tmp_path / "weights" / "a").mkdir(parents=True)
    (tmp_path / "weights" / "a" / "x.bin").write_bytes(b"1")
    (tmp_path / "y.bin").write_bytes(b"2")
    assert len(manifest.problems(tmp_path)) == 2
    paths, about = [tmp_path / "weights", tmp_path / "y.bin"], ("CC0-1.0", "made here", "make it")
    entries = manifest.register(paths, *about, data=tmp_path)
    assert set(entries) == {"weights/a/x.bin", "y.bin"}
    assert manifest.problems(tmp_path) == []
    assert files.read_manifest(tmp_path) == entries
    (tmp_path / "y.bin").write_bytes(b"3")
    (tmp_path / "weights" / "a" / "x.bin").unlink()
    (tmp_path / "z.bin").write_bytes(b"4")
    text = "\n".join(manifest.problems(tmp_path))
    assert "y.bin differs" in text
    assert "weights/a/x.bin is listed in the manifest but missing" in text
    assert "z.bin is not listed" in text
    refuses("does not have the sha256", files.check_listed, tmp_path / "y.bin", tmp_path)
    files.check_listed(tmp_path / "z.bin", tmp_path)
    files.check_listed(tmp_path.parent / "elsewhere", tmp_path)
    assert set(manifest.register(paths[1:], *about, data=tmp_path)) == {"y.bin"}


def test_manifest_takes_only_files_of_data(tmp_path: Path) -> None:
    for path in (tmp_path.parent / "outside.bin", tmp_path / "missing.bin"):
        refuses("the manifest lists files", manifest.register, [path], "CC0-1.0", "x", "x", data=tmp_path)


@pytest.mark.parametrize(
    ("content", "says"),
    [("{", "is not a manifest"), ("[]", "is not a manifest"), ('{"version": 9}', "has version 9, this code reads 1"),
     (json.dumps({"version": 1, "files": {"x": {"size": 1}}}), "is not a manifest")],
)  # fmt: skip
def test_manifests_that_are_none(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    refuses(says, files.read_manifest, tmp_path)


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert manifest.run() == int(bool(manifest.problems()))
    assert "files as listed" in capsys.readouterr().out
    refuses("--licence, --origin and --regenerate", manifest.run, (files.DATA / "assets",))
    refuses("the manifest lists files below", manifest.run, (ROOT / "README.md",), "CC0-1.0", "x", "y")


def test_the_shipped_data_are_as_listed() -> None:
    """`python data/scripts/manifest.py` prints the same."""
    assert manifest.problems() == []
    entries = files.read_manifest(files.DATA).values()
    assert all(entry.licence and entry.origin and entry.regenerate for entry in entries)
