"""The committed pages are what the records give."""

from __future__ import annotations

from pathlib import Path

from test_tables import record

from head3d_core import results_page


def test_the_pages_are_in_step_with_the_records() -> None:
    assert results_page.PAGE.read_text(encoding="utf8") == results_page.tables_page(), "run make tables"
    readme = results_page.README.read_text(encoding="utf8")
    assert results_page.refreshed(readme, results_page.load_records()) == readme, "run make tables"


def test_another_record_changes_the_page() -> None:
    assert results_page.tables_page({"head3d": record(1.0)}) != results_page.tables_page({})
    assert "Not recorded yet" in results_page.tables_page({})


def test_only_what_is_marked_is_replaced(tmp_path: Path) -> None:
    text = "before\n<!-- table 3 -->\nold\n<!-- end of table 3 -->\nafter <!-- table 2 -->"
    new = results_page.refreshed(text, {})
    assert new.startswith("before\n<!-- table 3 -->\n| row |")
    assert new.endswith("<!-- end of table 3 -->\nafter <!-- table 2 -->")
    assert "old" not in new
    page, readme = tmp_path / "tables.md", tmp_path / "README.md"
    readme.write_text(text)
    assert results_page.write_tables(page, readme) == [page, readme]
    assert results_page.write_tables(page, readme) == []
