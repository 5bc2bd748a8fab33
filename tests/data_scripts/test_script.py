"""What the scripts of data/ share."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

import script
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.files import DATA, read_manifest

SCRIPTS = Path(script.__file__).parent
COMMANDS = sorted(p for p in SCRIPTS.glob("*.py") if "__main__" in p.read_text(encoding="utf8"))


def test_a_template_needs_every_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "TEMPLATES", tmp_path)
    (tmp_path / "x.md").write_text("$a and $b")
    assert script.filled("x.md", a=1, b="two", c=3) == "1 and two"
    with pytest.raises(KeyError, match="b"):
        script.filled("x.md", a=1)
    (tmp_path / "y.md").write_text("# one\n\nA.\n\n# two\n\nB.\n\nC.\n")
    assert script.sections("y.md") == {"one": "A.", "two": "B.\n\nC."}


def test_an_error_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(number: int = 1) -> None:
        raise Head3DError(f"{number} is wrong")

    monkeypatch.setattr(sys, "argv", ["x.py", "--number", "3"])
    assert script.main(refuse) == 1
    assert capsys.readouterr().err == "error: 3 is wrong\n"
    monkeypatch.setattr(sys, "argv", ["x.py"])
    assert script.main(lambda: 5) == 5
    assert script.main(lambda: None) == 0


def test_the_manifest_names_scripts_that_are_there() -> None:
    """Every `python data/scripts/NAME.py` of the manifest exists."""
    text = " ".join(entry.regenerate for entry in read_manifest(DATA).values())
    named = set(re.findall(r"python (data/scripts/\w+\.py)", text))
    assert len(named) >= 7
    assert all((SCRIPTS.parents[1] / name).is_file() for name in named)


@pytest.mark.parametrize("path", COMMANDS, ids=lambda p: p.stem)
def test_every_script_starts(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    with pytest.raises(SystemExit) as done:
        runpy.run_path(str(path), run_name="__main__")
    assert done.value.code == 0
    assert "usage" in capsys.readouterr().out
