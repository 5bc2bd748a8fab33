"""The command line: every command is wired, and what does not fit is one sentence."""

from __future__ import annotations

import dataclasses
import importlib
import subprocess
import sys
from dataclasses import dataclass

import pytest

from head3d_core import cli
from head3d_core.errors import Head3DError


@dataclass(frozen=True)
class ProbeArgs:
    """Arguments for the tests below."""

    count: int
    """How many."""
    kind: str = "good"
    """"bad" raises."""


def probe(args: ProbeArgs) -> int | None:
    if args.kind == "bad":
        raise Head3DError("count must be 1, got 2; give --count 1")
    return args.count


@pytest.fixture
def with_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("head3d_core.doctor")
    monkeypatch.setattr(module, "ProbeArgs", ProbeArgs, raising=False)
    monkeypatch.setattr(module, "probe", probe, raising=False)
    monkeypatch.setitem(cli.COMMANDS, "probe", cli.Command("for tests", "doctor", "ProbeArgs", "probe"))


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_commands_are_wired(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = cli.COMMANDS[name]
    module = importlib.import_module(f"head3d_core.{command.module}")
    arguments = getattr(module, command.arguments)
    assert dataclasses.is_dataclass(arguments)
    assert callable(getattr(module, command.function))
    with pytest.raises(SystemExit) as exit_info:
        cli.main([name, "--help"])
    assert exit_info.value.code == 0
    text = capsys.readouterr().out
    assert command.help.split()[0] in text


def test_overview_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in cli.COMMANDS)
    assert cli.main([]) == 2


def test_unknown_command_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["genrate"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: no command 'genrate'; choose from doctor")
    assert err.count("\n") == 1


@pytest.mark.usefixtures("with_probe")
@pytest.mark.parametrize(
    ("args", "says"),
    [
        ([], "probe needs --count"),
        (["--count", "many"], "--count"),
        (["--count", "1", "--size", "3"], "does not know --size"),
        (["--count"], "--count"),
    ],
)
def test_bad_options_are_one_sentence(args: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["probe", *args]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert says in err
    assert err.count("\n") == 1


@pytest.mark.usefixtures("with_probe")
def test_status_and_errors_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["probe", "--count", "0"]) == 0
    assert cli.main(["probe", "--count", "3"]) == 3
    assert cli.main(["probe", "--count", "3", "--kind", "bad"]) == 1
    assert capsys.readouterr().err == "error: count must be 1, got 2; give --count 1\n"


def test_module_entry_point_is_quick_and_light() -> None:
    code = "import sys; from head3d_core.cli import main; main(['--version']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    version, heavy = done.stdout.split()
    assert version[0].isdigit()
    assert heavy == "False"
