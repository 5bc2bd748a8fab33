"""Atomic writing, and the manifest of `data/`."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import refuses

from head3d_core.utils import files
from head3d_core.utils.errors import Head3DError


def test_atomic_replaces_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.txt"
    with files.atomic(path) as temporary:
        temporary.write_text("one")
        assert not path.exists()
    assert path.read_text() == "one"
    with pytest.raises(ZeroDivisionError), files.atomic(path) as temporary:
        temporary.write_text(f"half {1 / 0}")
    assert path.read_text() == "one"
    assert [p.name for p in path.parent.iterdir()] == ["x.txt"]


@pytest.mark.parametrize("number", files.REFUSALS)
def test_what_the_system_refuses_is_one_sentence(tmp_path: Path, number: int) -> None:
    path = tmp_path / "x.txt"
    path.write_text("old")

    def fill_the_disk() -> None:
        with files.atomic(path) as temporary:
            temporary.write_text("half")
            raise OSError(number, os.strerror(number))

    refuses(rf"x\.txt was not written \({os.strerror(number)}.*: {files.REFUSALS[number]}", fill_the_disk)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]
    with pytest.raises(Head3DError, match=r"cannot write mode .*: look after the disk"), files.atomic(path):
        raise OSError("cannot write mode RGBA as JPEG")  # as Pillow does, without a number


def test_a_file_that_is_only_read_is_not_blamed(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with (
        pytest.raises(FileNotFoundError, match="missing"),
        files.atomic(tmp_path / "out" / "x.txt") as temporary,
    ):
        temporary.write_bytes((tmp_path / "missing.txt").read_bytes())
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.skipif(os.name != "posix", reason="needs a limit on the size of files")
def test_a_disk_that_fills_while_writing(tmp_path: Path) -> None:
    # A limit on the size of files fails as a full disk does; it must not stay with this process.
    code = f"""
import resource, signal
from pathlib import Path
import numpy as np
from safetensors.numpy import save_file
from head3d_core.utils import files
from head3d_core.utils.errors import Head3DError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
array = np.random.default_rng(0).random(10_000)
def savez(path):
    with path.open("wb") as file:
        np.savez(file, array)
for name, write in (("a.npz", savez), ("b.safetensors", lambda path: save_file({{"x": array}}, path))):
    try:
        with files.atomic(Path({str(tmp_path)!r}) / name) as temporary:
            write(temporary)
    except Head3DError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said = done.stdout.splitlines()
    assert [Path(line.split(" was not written")[0]).name for line in said] == ["a.npz", "b.safetensors"]
    assert all("choose a place where files may be larger" in line for line in said)
    assert not list(tmp_path.iterdir())


def test_a_place_is_checked_without_a_trace(tmp_path: Path) -> None:
    files.check_writable(tmp_path / "new" / "folder" / "x.json")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    refuses(r"cannot write to .*file", files.check_writable, tmp_path / "file" / "x.json")
    refuses("is a folder", files.check_writable, tmp_path)


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc" * 1000)
    assert files.sha256(tmp_path / "x") == hashlib.sha256(b"abc" * 1000).hexdigest()
