"""Student copies and slides: what students must not see is gone, and what a room must see is there."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import build_site
import handouts
import pytest
import slides


def notebook(*cells: dict[str, object]) -> str:
    return json.dumps({"cells": list(cells), "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


def test_handouts_hold_every_notebook_and_no_answer(tmp_path: Path) -> None:
    archive, digest = handouts.write(tmp_path)
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == digest
    assert archive.with_suffix(".zip.sha256").read_text() == f"{digest}  {archive.name}\n"
    with zipfile.ZipFile(archive) as file:
        names = {Path(name).name for name in file.namelist()}
        assert {p.name for p in build_site.notebooks()} | {"glossary.md", "LICENSE"} <= names
        assert not [name for name in file.namelist() if "solutions" in name]
        for name in (n for n in file.namelist() if n.endswith(".ipynb")):
            cells = json.loads(file.read(name))["cells"]
            assert not [c for c in cells if c.get("outputs") or c.get("execution_count")], name
            text = "".join("".join(c["source"]) for c in cells)
            assert "<summary>Answer" not in text, name


def test_the_archive_repeats(tmp_path: Path) -> None:
    assert handouts.write(tmp_path / "a")[1] == handouts.write(tmp_path / "b")[1]


def test_an_answer_is_cut_and_its_question_stays(tmp_path: Path) -> None:
    path = tmp_path / "x.ipynb"
    source = "Why?\n\n<details><summary>Answers</summary>\n\nBecause.\n\n</details>\n\nAfter."
    path.write_text(notebook({"cell_type": "markdown", "id": "a", "metadata": {}, "source": source}))
    text = handouts.student_copy(path)
    assert "Why?" in text
    assert "After." in text
    assert "Because" not in text


@pytest.mark.parametrize("path", build_site.notebooks(), ids=lambda p: p.stem[:2])
def test_a_deck_has_every_section_and_every_image(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf8"))["cells"]
    made = slides.deck(path)
    sections = sum("".join(c["source"]).startswith("## ") for c in cells if c["cell_type"] == "markdown")
    outputs = [o.get("data", {}) for c in cells for o in c.get("outputs", [])]
    images = sum("".join(data.get("text/html", "")).count("<img ") for data in outputs)
    assert len(made) >= sections
    assert sum(slide.count("<img") for slide in made) >= images
    assert not [slide for slide in made if "$" in slide and "<math" not in slide and "\\" in slide]
    assert not [slide for slide in made if "https://" in slide and 'src="https' in slide]


def test_no_slide_ends_within_a_sentence() -> None:
    words = " ".join(["word"] * slides.MOST_WORDS)
    assert slides.opening([f"{words},", "$$x$$", "more"]) == f"{words},\n\n$$x$$"
    assert slides.opening([f"{words}.", "$$x$$"]) == f"{words}."


def test_a_cell_can_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "x.ipynb"
    plain = {"cell_type": "markdown", "id": "a", "metadata": {}, "source": "## One\n\nText."}
    hidden = {"cell_type": "markdown", "id": "b", "metadata": {"tags": ["skip-slide"]}, "source": "## Two"}
    path.write_text(notebook(plain, hidden))
    assert len(slides.deck(path)) == 1
