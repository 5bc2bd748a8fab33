"""The command line: every command is wired, and what does not fit is one sentence."""

from __future__ import annotations

import dataclasses
import errno
import importlib
import io
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from helpers import python
from PIL import Image

from head3d_core import cli
from head3d_core.checkpoints import weights as checkpoint
from head3d_core.config import preset
from head3d_core.experiments import study
from head3d_core.model.generator import Generator
from head3d_core.utils import estimates
from head3d_core.utils.errors import Head3DError


@dataclass(frozen=True)
class ProbeArgs:
    """Arguments for the tests below."""

    count: int
    """How many."""
    kind: str = "good"
    """"bad" raises."""
    shape: Literal["cube", "ball"] = "cube"
    """A choice, with help as long as that of real options: it must not end up in the sentence."""


def probe(args: ProbeArgs) -> int | None:
    if args.kind == "full":
        raise OSError(errno.ENOSPC, "No space left on device", "big.bin")
    if args.kind == "mistake":
        raise FileNotFoundError(errno.ENOENT, "ours", "x")
    if args.kind == "bad":
        raise Head3DError("count must be 1, got 2; give --count 1")
    return args.count


@pytest.fixture
def with_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("head3d_core.doctor")
    monkeypatch.setattr(module, "ProbeArgs", ProbeArgs, raising=False)
    monkeypatch.setattr(module, "probe", probe, raising=False)
    monkeypatch.setitem(cli.COMMANDS, "probe", cli.Command("doctor:ProbeArgs:probe", "for tests"))


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_commands_are_wired(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = cli.COMMANDS[name]
    _, arguments, function = command.load()
    assert dataclasses.is_dataclass(arguments)
    assert callable(function)
    with pytest.raises(SystemExit) as exit_info:
        cli.main([name, "--help"])
    assert exit_info.value.code == 0
    text = capsys.readouterr().out
    assert command.help.split()[0] in text


def test_overview_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in cli.COMMANDS)
    titles = [line[:-1] for line in text.splitlines() if line[-1:] == ":"]
    assert titles == ["make", "train", "measure", "export"]
    assert cli.main([]) == 2


def test_unknown_command_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["genrate"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: no command 'genrate'; choose from make-data")
    assert err.count("\n") == 1


@pytest.mark.usefixtures("with_probe")
@pytest.mark.parametrize(
    ("args", "says"),
    [
        ([], "probe needs --count INT;"),
        (["--count", "many"], "Error parsing --count"),
        (["--count", "1", "--size", "3"], "Unrecognized options: --size"),
        (["--count", "1", "--knid", "3"], "Perhaps you meant: --kind"),
        (["--count", "1", "--shape", "round"], "'--shape'. Expected one of ('cube', 'ball')"),
        (["--count"], "Missing value for argument '--count'"),
    ],
)
@pytest.mark.parametrize("columns", ["40", "200"])
def test_bad_options_are_one_sentence(
    args: list[str],
    says: str,
    columns: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert cli.main(["probe", *args]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert says in err
    assert err.endswith("; see python -m head3d_core probe --help.\n")
    assert err.count("\n") == 1
    assert "long as" not in err


@pytest.mark.usefixtures("with_probe")
def test_status_and_errors_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["probe", "--count", "0"]) == 0
    assert cli.main(["probe", "--count", "3"]) == 3
    assert cli.main(["probe", "--count", "3", "--kind", "bad"]) == 1
    assert capsys.readouterr().err == "error: count must be 1, got 2; give --count 1\n"
    assert cli.main(["probe", "--count", "3", "--kind", "full"]) == 1
    full = "error: No space left on device (big.bin): free some space and try again.\n"
    assert capsys.readouterr().err == full
    with pytest.raises(FileNotFoundError):  # our mistake, not the reader's
        cli.main(["probe", "--count", "3", "--kind", "mistake"])


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny untrained generator, saved."""
    torch.manual_seed(0)
    made = Generator(preset("tiny").generator)
    return checkpoint.save_generator(made, tmp_path_factory.mktemp("w") / "tiny")


def test_generate(weights: Path, tmp_path: Path) -> None:
    def pictures(out: Path, *more: str) -> list[np.ndarray]:
        args = ["generate", "--weights", str(weights), "--out", str(out), "--seeds", "3", "5-6", *more]
        assert cli.main([*args, "--yaw", "-30", "0", "180"]) == 0
        assert sorted(p.name for p in out.iterdir()) == ["seed0003.png", "seed0005.png", "seed0006.png"]
        return [np.asarray(Image.open(p)) for p in sorted(out.iterdir())]

    first, again = pictures(tmp_path / "a"), pictures(tmp_path / "b")
    size = preset("tiny").generator.image_resolution
    assert first[0].shape == (size, 3 * size, 3)
    assert all(np.array_equal(x, y) for x, y in zip(first, again, strict=True))
    assert not np.array_equal(first[0], first[1])
    average = pictures(tmp_path / "c", "--truncation-psi", "0")
    assert np.array_equal(average[0], average[1])


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp437", "latin-1"])
def test_every_console_can_print_everything(
    encoding: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Help of all commands, a progress bar, a table and an error, on consoles that know few characters."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True) for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    assert cli.main([]) == 2
    for name in cli.COMMANDS:
        with pytest.raises(SystemExit):
            cli.main([name, "--help"])
    assert cli.main(["validate", str(tmp_path / "größer ≤ λ 日本 \udc80")]) == 1
    with study.bar("λ") as step:
        step(1, 2)
    print(estimates.NONE, "λψγ ≤ 3°")
    out, err = (stream.buffer.getvalue().decode(encoding) for stream in streams)  # type: ignore[attr-defined]
    assert "usage: python -m head3d_core train" in out
    for character, spelt in {"λ": "lambda", "ψ": "psi", "≤": "<=", "°": "deg", estimates.NONE: "-"}.items():
        known = character.encode(encoding, "ignore").decode(encoding)
        assert (known or spelt) in out.splitlines()[-1]
    assert ("größer" if encoding != "ascii" else "gro?er") in err
    assert "Traceback" not in out + err


def test_module_entry_point_is_quick_and_light() -> None:
    code = "import sys; from head3d_core.cli import main; main(['--version']); print('torch' in sys.modules)"
    version, heavy = python("-c", code).stdout.split()
    assert version[0].isdigit()
    assert heavy == "False"
