"""The committed pages are what the records give."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from helpers import record

import results_page
from head3d_core.checkpoints import weights
from head3d_core.config import preset
from head3d_core.evaluation import tables
from head3d_core.model.generator import Generator
from head3d_core.utils import files


def test_the_pages_are_in_step_with_the_records() -> None:
    page = files.DATA / "results" / results_page.PAGE
    assert page.read_text(encoding="utf8") == results_page.tables_page(), "run make tables"
    readme = results_page.README.read_text(encoding="utf8")
    assert results_page.refreshed(readme, results_page.load_rows()) == readme, "run make tables"


def test_another_record_changes_the_page() -> None:
    assert results_page.tables_page({"head3d": record(1.0)}) != results_page.tables_page({})
    assert results_page.tables_page({}).count("not recorded yet**") == len(tables.NAMES)


def test_rows_are_listed_by_how_many_samples_they_have() -> None:
    rows = {name: record(1.0) for name in ("a", "b", "c")}
    for name, count in (("a", 100), ("b", 10_000), ("c", 100)):
        about = {"arguments": {"sampling": {"count": count, "detector": 50}}}
        rows[name] = record(1.0, provenance=about)
    rows["real"] = dataclasses.replace(rows["a"], weights={})
    assert "identity: 10,000 / 50 (b); 100 / 50 (a, c). Column N" in results_page.how_measured(rows)


def test_cards_are_written_with_the_tables(tmp_path: Path) -> None:
    torch.manual_seed(0)
    notes = {"recipe": {"stage": "head"}}
    weights.save_generator(Generator(preset("tiny").generator), tmp_path / "weights" / "x", notes=notes)
    written = [
        *(tmp_path / "results" / name for name in (results_page.PAGE, results_page.VERDICTS)),
        tmp_path / "weights" / "x" / "README.md",
    ]
    assert results_page.write_tables(tmp_path, tmp_path / "none") == written
    assert written[-1].read_text(encoding="utf8") == results_page.model_cards.card("x", tmp_path)


def test_only_what_is_marked_is_replaced(tmp_path: Path) -> None:
    text = "before\n<!-- table 3 -->\nold\n<!-- end of table 3 -->\nafter <!-- table 2 -->"
    new = results_page.refreshed(text, {})
    assert new.startswith("before\n<!-- table 3 -->\n| row |")
    assert new.endswith("<!-- end of table 3 -->\nafter <!-- table 2 -->")
    assert "old" not in new
    readme = tmp_path / "README.md"
    readme.write_text(text)
    assert results_page.write_tables(tmp_path, readme)[-1] == readme
    assert results_page.write_tables(tmp_path, readme) == []
