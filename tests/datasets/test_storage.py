"""Archives, folders and documents as people have them, in generated variants: read, or one sentence."""

from __future__ import annotations

import json
import os
import re
import string
import unicodedata
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import refused
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from test_format import edit_json, same, some_images, write

from head3d_core.datasets import format, storage, validate, writer
from head3d_core.model import cameras
from head3d_core.utils.errors import Head3DError

variants = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SIDES = st.integers(2**14, 2**31 - 1)
WORDS = st.text(string.ascii_letters + " äéñ東ö()+,", min_size=1, max_size=12).map(lambda s: f"a{s.strip()}")


def fresh(folder: Path) -> Path:
    """A new folder, as every example of a property needs one."""
    made = folder / str(sum(1 for _ in folder.iterdir()))
    made.mkdir()
    return made


def fresh_set(folder: Path, ending: str = "") -> Path:
    """A new small data set."""
    made = fresh(folder) / f"a{ending}"
    write(made)
    return made


def huge_png(path: Path, width: int, height: int) -> None:
    """Writes a PNG whose header claims a size."""
    Image.new("RGB", (8, 8)).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    path.write_bytes(data)


def repack(
    source: Path, target: Path, rename: Callable[[str], str], extra: dict[str, bytes] | None = None
) -> None:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(zipfile.ZipInfo(rename(name)), old.read(name))
        for name, data in (extra or {}).items():
            new.writestr(name, data)


def sentence(read: Callable[[Path], Any], path: Path) -> str | None:
    """What a reader says about a set, None if it reads it; anything but Head3DError fails the test."""
    try:
        read(path)
    except Head3DError as error:
        return str(error)
    return None


LEFT_BEHIND = ["{}/._img0.png", "__MACOSX/{}.png", ".{}/a.png", "{}/.DS_Store"]


@variants
@given(
    top=st.none() | WORDS,
    backslashes=st.booleans(),
    dot=st.booleans(),
    hidden=st.lists(st.tuples(st.sampled_from(LEFT_BEHIND), WORDS), max_size=3),
)
def test_archives_of_other_tools(
    tmp_path: Path, top: str | None, backslashes: bool, dot: bool, hidden: list[tuple[str, str]]
) -> None:
    """A folder around everything, Windows' separators, a leading dot, what systems leave behind: all at once."""
    here = fresh(tmp_path)
    images, poses = write(here / "a.zip")
    prefix = f"{top}/" if top else ""
    separate: Callable[[str], str] = (lambda n: n.replace("/", "\\")) if backslashes else (lambda n: n)
    extra = {separate(prefix + kind.format(word)): b"\0\5" for kind, word in hidden}
    repack(here / "a.zip", here / "b.zip", lambda n: separate("./" * dot + prefix + n), extra)
    same(here / "b.zip", images, poses)
    with zipfile.ZipFile(here / "b.zip") as archive:
        archive.extractall(here / "folder")
    if not backslashes:
        same(here / "folder", images, poses)


@variants
@given(name=WORDS, in_file=st.sampled_from(["NFC", "NFD"]), in_label=st.sampled_from(["NFC", "NFD"]))
def test_names_in_either_unicode_form(tmp_path: Path, name: str, in_file: Any, in_label: Any) -> None:
    """A label written in one normal form belongs to the file in the other."""
    here = fresh_set(tmp_path)
    file = here / "00000/img00000001.png"
    file.rename(file.with_name(f"{unicodedata.normalize(in_file, name)}ë.png"))
    label = f"00000\\{unicodedata.normalize(in_label, name)}ë.png"
    edit_json(here, lambda rows: [[label if i == 1 else n, v] for i, (n, v) in enumerate(rows)])
    assert format.validate(here) == []
    assert len(format.load_arrays(here)[0]) == 4


def test_two_files_of_one_name_are_not_taken_for_one(tmp_path: Path) -> None:
    """On Linux both forms of Zoë.png can lie in one folder, and a zip can hold a name twice."""
    write(tmp_path / "a")
    data = (tmp_path / "a/00000/img00000001.png").read_bytes()
    for form in ("NFC", "NFD"):
        (tmp_path / "a/00000" / unicodedata.normalize(form, "Zoë.png")).write_bytes(data)
    edit_json(tmp_path / "a", lambda rows: [*rows, ["00000/Zoë.png", rows[0][1]]])
    (problem,) = format.validate(tmp_path / "a")
    assert problem.file == "00000/Zoë.png"
    assert "several files have this name" in problem.text
    with refused("rename all but one"):
        format.load_arrays(tmp_path / "a")


@variants
@given(kept=st.sets(st.integers(0, 3), min_size=1))
def test_labels_of_absent_images_are_left_alone(tmp_path: Path, kept: set[int]) -> None:
    """As with a part of FFHQ and the whole dataset.json."""
    here = fresh(tmp_path)
    images, _ = write(here / "a")
    (here / "a/provenance.json").write_text('{"views_per_head": 1}')
    for k in {0, 1, 2, 3} - kept:
        (here / f"a/00000/img{k:08}.png").unlink()
    assert format.validate(here / "a") == []
    assert torch.equal(format.load_arrays(here / "a")[0], images[sorted(kept)])
    assert format.load_identities(here / "a").tolist() == sorted(kept)
    edit_json(here / "a", lambda rows: [[f"other/{n}", v] for n, v in rows])
    with refused(r"none of the 4 names is an image of the set, 'other/00000/"):
        format.load_arrays(here / "a")


@variants
@given(
    ending=st.sampled_from(storage.OTHER_SUFFIXES), upper=st.booleans(), name=WORDS, labelled=st.booleans()
)
def test_images_of_other_kinds_are_named(
    tmp_path: Path, ending: str, upper: bool, name: str, labelled: bool
) -> None:
    here = fresh_set(tmp_path)
    file = f"00000/{unicodedata.normalize('NFC', name)}{ending.upper() if upper else ending}"
    Image.new("RGB", (16, 16)).save(here / file, "PNG")
    if labelled:
        edit_json(here, lambda rows: [*rows, [file, rows[0][1]]])
    (problem,) = format.validate(here)
    assert problem.file == file
    assert ("expected an image ending in .png" if labelled else "no label") in problem.text


@variants
@given(
    which=st.integers(0, 3),
    method=st.sampled_from([1, 1 | 64]),
    size=st.integers(storage.LARGEST_FILE + 1, 2**32 - 2),
)
def test_encrypted_and_absurd_archives(tmp_path: Path, which: int, method: int, size: int) -> None:
    path = fresh_set(tmp_path, ".zip")
    whole, entry = path.read_bytes(), -1
    for _ in range(which + 1):
        entry = whole.index(b"PK\1\2", entry + 1)
    secret = bytearray(whole)
    secret[entry + 8] |= method
    path.write_bytes(secret)
    (problem,) = format.validate(path)
    assert problem.text.endswith("the file is encrypted: unpack the archive with its password")
    absurd = bytearray(whole)
    absurd[entry + 24 : entry + 28] = size.to_bytes(4, "little")
    path.write_bytes(absurd)
    (problem,) = format.validate(path)
    assert f"{size:,} bytes" in problem.text


@variants
@given(width=SIDES, height=SIDES, which=st.integers(0, 3))
def test_an_image_too_large_for_any_set(tmp_path: Path, width: int, height: int, which: int) -> None:
    here = fresh_set(tmp_path)
    image = here / f"00000/img{which:08}.png"
    huge_png(image, width, height)
    (problem,) = format.validate(here)
    assert problem.file.endswith(f"{which}.png")
    assert problem.text.startswith("the image says that it is larger")
    huge_png(image, 16_384, 8_192)
    (problem,) = format.validate(here)
    assert problem.text == "the image is 16384 x 8192: shrink it"


@settings(max_examples=200, deadline=None)
@given(side=st.integers(1, 5000), wanted=st.none() | st.integers(0, 10).map(lambda k: 2**k))
def test_advice_on_sizes_can_be_followed(side: int, wanted: int | None) -> None:
    """Resizing to what one sentence says leaves no other sentence."""
    text = writer.size_problem((side, side, 3), side, wanted)
    if text and "resize it to" in text:
        better = int(text.rsplit(" ", 1)[1])
        assert writer.size_problem((better, better, 3), better, wanted) is None


@variants
@given(
    wrong=st.sets(st.integers(0, 7)), gone=st.sets(st.integers(0, 7)), entry=st.sampled_from([3, 16, 18, 24])
)
def test_a_listing_has_every_problem(tmp_path: Path, wrong: set[int], gone: set[int], entry: int) -> None:
    """Whatever labels are wrong or missing, `listing` names each of them, and counts what it leaves out."""
    assume(len(gone) < 8)
    here = fresh(tmp_path) / "a"
    format.write_dataset(here, some_images(count=8), cameras.orbit(torch.linspace(-0.5, 0.5, 8), 0.1))

    def spoil(rows: list[Any]) -> list[Any]:
        for k in wrong:
            rows[k][1][entry] = float("nan")
        return [row for k, row in enumerate(rows) if k not in gone]

    edit_json(here, spoil)
    problems = [p for p in format.validate(here) if p.fatal]
    assert {p.file for p in problems} == {f"00000/img{k:08}.png" for k in wrong | gone}
    assert len(validate.listing(problems, most=0)) == len(wrong | gone)
    some = validate.listing(problems, most=2)
    left_out = sum(int(line.split()[1]) for line in some if "more like" in line)
    assert sum("error: " in line for line in some) + left_out == len(wrong | gone)


@variants
@given(depth=st.integers(0, 3), inside=st.booleans(), dots=st.booleans())
def test_a_run_inside_its_own_data_is_refused(tmp_path: Path, depth: int, inside: bool, dots: bool) -> None:
    here = fresh(tmp_path)
    (here / "set").mkdir()
    out = here.joinpath("set" if inside else "runs", *(["below"] * depth), "run")
    if dots:
        out = here / "set" / ".." / out.relative_to(here)
    said = sentence(lambda path: validate.check_outside(path, None, str(here / "set")), out)
    assert (
        said is None
        if not inside
        else re.search("lies inside the data set .*: choose another --out", said or "")
    )


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_what_cannot_be_opened_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe would be waited for; a folder or file without permission is neither empty nor damaged."""
    os.mkfifo(tmp_path / "pipe.zip")
    with refused("is no file: expected a folder or a zip"):
        format.validate(tmp_path / "pipe.zip")
    write(tmp_path / "a")

    def closed(*_: object, **__: object) -> Any:
        raise PermissionError(13, "Permission denied", str(tmp_path / "a/00000"))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", closed)
        with refused(r"dataset\.json of .* cannot be opened \(Permission denied\): change its permissions"):
            format.validate(tmp_path / "a")
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", closed)
        with refused(r"00000 cannot be opened \(Permission denied\)"):
            format.validate(tmp_path / "a")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda x: st.lists(x, max_size=4) | st.dictionaries(st.text(max_size=4), x, max_size=4),
    max_leaves=12,
)
KEYS = st.sampled_from(["labels", "label", "identities", "about", "x"])
DOCUMENTS = [b"", b"\xff\xfe", b"[" * 100_000, b"\xef\xbb\xbf{}"]
DOCUMENTS += [b'{"label": []}', b'{"labels": {}}', b"null", b'"labels"']


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    document=st.dictionaries(KEYS, JSON, max_size=4).map(lambda d: json.dumps(d).encode())
    | st.sampled_from(DOCUMENTS)
)
def test_any_document_gets_sentences(tmp_path: Path, document: bytes) -> None:
    """Whatever dataset.json holds, readers return or raise Head3DError that names the file."""
    path = tmp_path / "a"
    if not path.exists():
        write(path)
        write(tmp_path / "a.zip")
    (path / "dataset.json").write_bytes(document)
    repack(tmp_path / "a.zip", tmp_path / "b.zip", lambda n: f"old/{n}", {"dataset.json": document})
    for place in (path, tmp_path / "b.zip"):
        for read in (format.validate, format.load_arrays, format.load_identities):
            text = sentence(read, place)
            assert text is None or (place.name in text and "\n" not in text)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_gets_sentences(tmp_path: Path, data: st.DataObject) -> None:
    """Bytes of an archive changed or cut off anywhere: a sentence, and never an image that is not whole."""
    path = tmp_path / "a.zip"
    if not path.exists():
        write(path)
    whole = path.read_bytes()
    broken = bytearray(whole[: data.draw(st.integers(0, len(whole)))] if data.draw(st.booleans()) else whole)
    for _ in range(data.draw(st.integers(0, 6))):
        if broken:
            broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "b.zip").write_bytes(broken)
    for read in (format.validate, format.load_arrays):
        text = sentence(read, tmp_path / "b.zip")
        assert text is None or "b.zip" in text
