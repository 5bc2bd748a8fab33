"""Every option of every command with wrong values, found by the parser itself: one sentence, and nothing is written.

A new option is tried as soon as it exists. What may take any text, and what a command does without, is listed in FREE.
"""

from __future__ import annotations

import dataclasses
import os
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image

from head3d_core import cli
from head3d_core.checkpoints import weights
from head3d_core.config import preset
from head3d_core.datasets.writer import write_dataset
from head3d_core.model.generator import Generator
from head3d_core.synth import sets

GOOD = {
    "make-data": "faces --out new --count 2",
    "prepare-data": "photos --out new",
    "validate": "set",
    "generate": "--weights tiny --out new",
    "fit": "--out new.safetensors",
    "portrait": "photos/a.png --weights tiny --out new",
    "invert": "--weights tiny --out new.json",
    "train": "teacher --preset tiny --data set --out new --recipe.images 4 --recipe.batch 4",
    "doctor": "",
    "evaluate": "tiny --out new",
    "live-check": "--weights tiny",
    "swap-study": "--weights tiny --out new.json",
    "geometry": "--weights tiny --out new.json",
    "walk": "--weights tiny --out new.json",
    "parametric": "--out new",
    "mesh": "--weights tiny --out new.glb",
    "turntable": "--weights tiny --out new.mp4",
    "turns": "--weights tiny --out new.jpg",
    "convert": "tiny new.safetensors",
}
"""Arguments of each command that would do."""
FREE = {
    "evaluate --row",  # names
    "evaluate --name",
    "train --recipe.notes",
    "evaluate --teacher",  # what is not there is left out, and the record says so
    "evaluate --head",
    "evaluate --encoder-file",
    "train --cache",  # used for rendered sets only
}
OUTPUTS = ("out", "cache", "work", "target", "record")
REQUIRED = {
    "make-data": "--count 2 --out new",
    "prepare-data": "--out new",
    "validate": "",
    "portrait": "",
    "evaluate": "",
    "convert": "",
    "train": "teacher --data set",
}
"""Arguments of which one that is needed is left out."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with weights, a data set, a photograph and a file; the working directory meanwhile."""
    folder, before = tmp_path_factory.mktemp("place"), Path.cwd()
    weights.save_generator(Generator(preset("tiny").generator), folder / "tiny")
    cameras = torch.stack([torch.as_tensor(sets.example("faces", k).camera) for k in range(8)]).float()
    write_dataset(folder / "set", torch.randint(0, 255, (8, 3, 64, 64), dtype=torch.uint8), cameras)
    (folder / "photos").mkdir()
    Image.fromarray(np.full((64, 64, 3), 200, np.uint8)).save(folder / "photos" / "a.png")
    (folder / "file").write_text("")
    os.chdir(folder)
    yield folder
    os.chdir(before)


def kinds(annotation: Any) -> set[Any]:
    """The types that an option takes."""
    if typing.get_origin(annotation) is Literal:
        return {Literal}
    if typing.get_origin(annotation) in (tuple, typing.Union, types.UnionType):
        return set().union(*(kinds(a) for a in typing.get_args(annotation) if a is not ...)) - {type(None)}
    return {annotation}


def options(cls: Any, prefix: str = "--") -> Iterator[tuple[str, set[Any], bool]]:
    """(option as it is typed, its types, whether the command writes there) of a dataclass and those within it."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        name = prefix + field.name.replace("_", "-")
        if dataclasses.is_dataclass(hints[field.name]):
            yield from options(hints[field.name], f"{name}.")
        elif not str(field.type).startswith("Positional"):
            yield name, kinds(hints[field.name]), field.name in OUTPUTS


def wrong_values(found: set[Any], writes: bool) -> list[str]:
    """Values that no option of these types takes."""
    values = {int: ["many", "1.5", "-3"], float: ["many", "nan", "-inf"], bool: ["perhaps"]}
    values[Literal] = ["no such choice"]
    wrong = [value for kind in found for value in values.get(kind, [])]
    if Path in found:
        wrong.append("file/below" if writes else "missing/path")
    return wrong + (["no such thing"] if str in found else [])


def left(place: Path) -> set[Path]:
    return set(place.rglob("*"))


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_wrong_values_are_one_sentence_and_leave_nothing(
    name: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, tried = left(place), 0
    for option, found, writes in options(cli.COMMANDS[name].load()[1]):
        for value in wrong_values(found, writes):
            if f"{name} {option}" in FREE and value in ("no such thing", "missing/path", "file/below"):
                continue
            typed = [f"{option}={value}"] if value[0] == "-" or bool in found else [option, value]
            given = [name, *GOOD[name].split(), *typed]
            status, err = cli.main(given), capsys.readouterr().err
            said = [line for line in err.splitlines() if line.startswith("error: ")]
            assert status in (1, 2), (option, value, status)
            assert len(said) == 1, (option, value, err)
            assert "Traceback" not in err
            assert left(place) == before, (option, value)
            tried += 1
    assert tried or name == "doctor"


@pytest.mark.parametrize("name", REQUIRED)
def test_what_is_needed_is_asked_for(name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = left(place)
    assert cli.main([name, *REQUIRED[name].split()]) == 2
    assert f"error: {name} needs " in capsys.readouterr().err
    assert left(place) == before


@pytest.mark.parametrize("name", [n for n, words in GOOD.items() if words and not words.startswith("--")])
def test_what_is_not_there_is_named(name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = left(place)
    given = ["missing-one", *GOOD[name].split()[1:]]
    assert cli.main([name, *given]) in (1, 2)
    err = capsys.readouterr().err
    assert "missing-one" in err
    assert err.count("error: ") == 1
    assert left(place) == before


def test_records_are_only_written_when_they_are_asked_for() -> None:
    """No command writes into data/ by default."""
    for name, command in cli.COMMANDS.items():
        for field in dataclasses.fields(command.load()[1]):
            if field.name in OUTPUTS and isinstance(field.default, Path):
                assert field.name == "record" or not field.default.is_absolute(), (name, field.name)
