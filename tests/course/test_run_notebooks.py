"""The headless runner: copies and HTML for what ran, the error for what did not, sources untouched unless asked."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import nbformat
import pytest

from tests import run_notebooks


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one notebook that works and one that fails."""
    (tmp_path / "notebooks").mkdir()
    for name, code in {"00_works": "print(6 * 7)", "01_fails": "raise ValueError('seen')"}.items():
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
        nbformat.write(notebook, tmp_path / "notebooks" / f"{name}.ipynb")
    monkeypatch.setattr(run_notebooks, "ROOT", tmp_path)
    monkeypatch.setattr(run_notebooks, "OUT", tmp_path / "out" / "notebooks")
    monkeypatch.setattr(run_notebooks, "SECONDS", tmp_path / "data" / "notebook_seconds.json")
    return tmp_path


def test_all_run_and_the_failure_is_told(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = {p: p.read_bytes() for p in (root / "notebooks").iterdir()}
    monkeypatch.setattr(sys, "argv", ["run_notebooks.py"])
    assert run_notebooks.main() == 1
    out = capsys.readouterr().out
    assert "1/2 00_works: ok" in out
    assert "2/2 01_fails: failed" in out
    assert "ValueError: seen" in out
    copies = {p.name for p in (root / "out" / "notebooks").iterdir()}
    assert copies == {"00_works.ipynb", "00_works.html", "01_fails.ipynb", "01_fails.html", "seconds.json"}
    assert "42" in (root / "out" / "notebooks" / "00_works.html").read_text(encoding="utf8")
    assert all(path.read_bytes() == before for path, before in sources.items())


def test_in_place_stores_outputs_and_counts(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["run_notebooks.py", "00", "--in-place"])
    assert run_notebooks.main() == 0
    (cell,) = nbformat.read(root / "notebooks" / "00_works.ipynb", as_version=4).cells
    assert cell.execution_count == 1
    assert cell.outputs[0].text == "42\n"


def test_unknown_prefix_is_one_sentence(root: Path) -> None:
    with pytest.raises(SystemExit, match="no notebook starts with 77; there are 00_works, 01_fails"):
        run_notebooks.chosen(["77"])


def test_times_are_kept_beside_earlier_ones(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("head3d_core.ops.available", lambda: True)
    run_notebooks.record({"00_works": 3.0, "01_fails": 4.0})
    monkeypatch.setattr(sys, "argv", ["run_notebooks.py", "00", "--record"])
    assert run_notebooks.main() == 0
    kept = json.loads(run_notebooks.SECONDS.read_text(encoding="utf8"))["extension"]
    assert kept["seconds"]["01_fails"] == 4.0
    assert 0 < kept["seconds"]["00_works"] != 3.0
    assert kept["provenance"]["cores"] >= 1
    monkeypatch.setattr(sys, "argv", ["run_notebooks.py", "--record"])
    before = run_notebooks.SECONDS.read_bytes()
    assert run_notebooks.main() == 1  # one fails: no times are kept
    assert run_notebooks.SECONDS.read_bytes() == before
