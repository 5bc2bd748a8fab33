"""Folders of photographs as people have them, in generated variants: every entry by name and reason."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import refused
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from test_storage import SIDES, WORDS, fresh, huge_png, variants

from head3d_core.cli import main
from head3d_core.datasets import photos, prepare
from head3d_core.datasets.storage import IMAGE_SUFFIXES, OTHER_SUFFIXES
from head3d_core.utils import files

ARGS = prepare.PrepareDataArgs(Path("."), matting="off")
ENTRIES: dict[str, tuple[Callable[[Path], object], str | None]] = {
    "photo.png": (lambda p: p.write_bytes(b"x"), None),
    "photo.JPG": (lambda p: p.write_bytes(b"x"), None),
    "scan.tiff": (lambda p: p.write_bytes(b"x"), None),
    "saved.jfif": (lambda p: p.write_bytes(b"x"), None),
    "notes.txt": (lambda p: p.write_bytes(b"x"), r"not an image by its ending \(.txt\)"),
    "noending": (lambda p: p.write_bytes(b"x"), r"not an image by its ending \(none\)"),
    "._photo.png": (lambda p: p.write_bytes(b"x"), "hidden"),
    ".cache": (lambda p: (p.mkdir(), (p / "a.png").write_bytes(b"x")), "hidden"),
    "gone.png": (lambda p: p.symlink_to(p.parent / "nothing.png"), "a link to nothing"),
    "loop": (lambda p: p.symlink_to(p.parent), "a link to a folder"),
    "pipe.png": (lambda p: os.mkfifo(p), "not a file"),
    "old set": (lambda p: (p.mkdir(), (p / "dataset.json").write_text("{}")), "a data set .*"),
}
"""Entry of a folder -> (how it is made, why it is left out; None if it is tried)."""


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
@variants
@given(
    tree=st.dictionaries(st.lists(WORDS, max_size=3).map(tuple), st.sets(st.sampled_from(sorted(ENTRIES))))
)
def test_every_entry_of_any_folder_is_tried_or_left_out_with_the_reason(
    tmp_path: Path, tree: dict[tuple[str, ...], set[str]]
) -> None:
    root = fresh(tmp_path)
    tried, left = set(), {}
    for folders, names in tree.items():
        here = root.joinpath(*folders)
        here.mkdir(parents=True, exist_ok=True)
        for name in names:
            make, why = ENTRIES[name]
            make(here / name)
            if why is None:
                tried.add(here / name)
            else:
                left[here / name] = why
    found, out = photos.find_entries(root)
    assert found == sorted(tried)
    assert [path for path, _ in out] == sorted(left)
    assert all(re.fullmatch(left[path], why) for path, why in out)


def test_a_folder_that_cannot_be_opened_is_in_the_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "a.png").write_bytes(b"x")
    scandir = os.scandir

    def closed(path: Any) -> Any:
        if Path(path).name == "secret":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    left = [(tmp_path / "secret", "it cannot be opened (Permission denied)")]
    assert photos.find_entries(tmp_path) == ([tmp_path / "a.png"], left)


@variants
@given(
    white=st.sampled_from([1.0, 255.0, 1023.0, 4095.0, 65535.0]),
    shares=st.lists(st.floats(0, 1), min_size=1, max_size=30),
    ending=st.sampled_from(["png", "tiff"]),
)
def test_deep_greys_are_scaled_by_their_white(
    tmp_path: Path, white: float, shares: list[float], ending: str
) -> None:
    """8 to 16 bits or floating point: the largest value is white, and the others keep their share of it."""
    values = np.array([[white, *(np.array(shares) * white)]], np.float32)
    if white > 1:
        values = np.rint(values)
    path = tmp_path / f"x.{'tiff' if white == 1 else ending}"
    Image.fromarray(values if white == 1 else values.astype(np.uint16)).save(path)
    expected = np.rint(values * (255 / white))
    assert np.abs(photos.read_photo(path)[..., 0] - expected).max() <= 1


@variants
@given(data=st.binary(max_size=200), case=st.lists(st.booleans(), min_size=4, max_size=4), head=st.booleans(),
       ending=st.sampled_from(["heic", "heif", "avif"]))  # fmt: skip
def test_kinds_that_need_a_package_name_it(
    tmp_path: Path, data: bytes, case: list[bool], head: bool, ending: str
) -> None:
    """Whatever an iPhone's file holds and however its ending is written, if nothing here reads it."""
    spelt = "".join(c.upper() if up else c for c, up in zip(ending, case, strict=True))
    (tmp_path / f"x.{spelt}").write_bytes((b"\0\0\0\x18ftyp" + ending.encode()) * head + data)
    package = "pillow>=" if ending == "avif" else "pillow-heif"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pillow_heif", None)
        with pytest.raises(
            photos.Rejected, match=rf"pip install '{package}.*or save it as JPEG|unreadable: "
        ):
            photos.read_photo(tmp_path / f"x.{spelt}")


@variants
@given(width=st.integers(1, 25) | st.integers(1, 4000), height=st.integers(1, 25) | st.integers(1, 4000))
def test_a_picture_of_any_size_is_used_or_rejected(width: int, height: int) -> None:
    """Tiny, very wide, very high: a reason, never an error of the detector."""
    assume(width * height < 400_000)
    image = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    with pytest.raises(prepare.Rejected, match=r"no face found|too small or too narrow"):
        prepare.prepare_photo(image, ARGS)


@variants
@given(width=SIDES, height=SIDES)
def test_a_picture_that_says_it_is_huge_is_rejected(tmp_path: Path, width: int, height: int) -> None:
    huge_png(tmp_path / "x.png", width, height)
    with pytest.raises(photos.Rejected, match="too large"):
        photos.read_photo(tmp_path / "x.png")


@variants
@given(below=st.lists(WORDS, max_size=3), ending=st.sampled_from(["", ".zip"]), kind=st.integers(0, 2))
def test_an_unwritable_target_is_found_first(
    tmp_path: Path, below: list[str], ending: str, kind: int
) -> None:
    """A file where a folder should be, a name that is too long, or what exists already: before any photograph."""
    here = fresh(tmp_path)
    Image.new("RGB", (64, 64)).save(here / "black.png")
    (here / "file").write_text("x")
    out = here.joinpath("file", *below, f"out{ending}")
    if kind == 1:
        out = here.joinpath(*below, "n" * 201 + ending)
    elif kind == 2:
        out = here.joinpath(*below, f"out{ending}")
        mine = out.with_suffix(".report.json") if ending else out
        mine.parent.mkdir(parents=True, exist_ok=True)
        mine.write_text("mine")
    before = {path: path.is_file() and path.read_bytes() for path in here.rglob("*")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "read_photo", lambda path: pytest.fail("read before the target was tried"))
        with refused("exists already" if kind == 2 else "cannot write"):
            prepare.prepare_data(dataclasses.replace(ARGS, source=here, out=out))
    assert {path: path.is_file() and path.read_bytes() for path in here.rglob("*")} == before


def printed_by(words: list[str]) -> list[str]:
    """What a command prints that must fail."""
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.print", lambda text, **_: said.append(text))
        assert main(words) in (1, 2)
    return said


@variants
@given(
    name=st.text(min_size=256, max_size=400).filter(lambda s: "\0" not in s and "/" not in s and s[0] != "-")
)
@pytest.mark.parametrize("words", ["validate {}", "prepare-data photos --out {}", "mesh --out {}.glb",
                                   "portrait {} --out x", "convert {} x"])  # fmt: skip
def test_a_name_that_is_too_long_is_one_sentence(words: str, name: str) -> None:
    (said,) = printed_by([word.format(name) for word in words.split(" ")])
    assert said.startswith("error: ")
    assert "\n" not in said


@variants
@given(name=st.text(st.characters(max_codepoint=0x2FF, exclude_characters="/\0"), min_size=1, max_size=20))
def test_names_cannot_break_a_line_or_colour_the_console(name: str) -> None:
    """File names may hold line breaks and escape sequences."""
    (said,) = printed_by(["validate", f"./{name}\x1b[31m\n-gone"])
    assert said.isprintable()
    assert r"\x1b[31m\n-gone" in said


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    from skimage import data

    (tmp_path / "photos").mkdir()
    for k in range(60):
        Image.fromarray(data.astronaut()).save(tmp_path / "photos" / f"{k}.png")
    words = "-m head3d_core prepare-data photos --out new --matting off"
    # A shell's background job ignores Ctrl+C, and so would its children: the tests may run in one.
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            [sys.executable, *words.split()],
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, heard)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("new*/**/*.png")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130}[number]
    assert "Traceback" not in err
    assert [p.name for p in tmp_path.iterdir()] == ["photos"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
@pytest.mark.parametrize(
    "words", ["generate --weights {} --out x", "mesh --weights {} --out x.glb", "convert {} x"]
)
@pytest.mark.parametrize("ending", ["safetensors", "pkl"])
def test_pipes_are_no_weights(
    tmp_path: Path, words: str, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = tmp_path / f"weights.{ending}"
    os.mkfifo(pipe)
    assert main([word.format(pipe) for word in words.split()]) == 1
    assert capsys.readouterr().err.startswith(f"error: {pipe} ")


def test_endings_are_those_that_pillow_reads() -> None:
    """A file of one of our endings is one that Pillow has a reader for."""
    Image.init()
    known = {ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    assert {*IMAGE_SUFFIXES, *OTHER_SUFFIXES} - {".heic", ".heif"} <= known
    assert files.LONGEST_NAME < 255


MODES = ["1", "L", "P", "LA", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16", "I;16B"]
ENDINGS = ["png", "jpg", "tiff", "gif", "webp", "bmp", "avif"]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    mode=st.sampled_from(MODES),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    ending=st.sampled_from(ENDINGS),
    damage=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4),
    kept=st.floats(0, 1),
)
def test_any_file_is_read_or_rejected(
    tmp_path: Path,
    mode: str,
    size: tuple[int, int],
    ending: str,
    damage: list[tuple[float, int]],
    kept: float,
) -> None:
    path = tmp_path / f"x.{ending}"
    try:
        Image.new(mode, size).save(path)
    except (OSError, ValueError, KeyError):  # there is no such file
        return
    data = bytearray(path.read_bytes())
    for place, value in damage:
        data[int(place * (len(data) - 1))] = value
    path.write_bytes(data[: int(kept * len(data)) + 1] if damage else data)
    try:
        picture = photos.read_photo(path)
    except photos.Rejected:
        return
    assert picture.dtype == np.uint8
    assert picture.shape[2:] == (3,)
    assert damage or picture.shape == (size[1], size[0], 3)


def test_very_large_photographs_are_shrunk(tmp_path: Path) -> None:
    Image.new("RGB", (17_000, 100), "red").save(tmp_path / "x.png")
    assert photos.read_photo(tmp_path / "x.png").shape == (34, 5667, 3)
