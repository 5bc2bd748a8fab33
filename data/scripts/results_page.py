"""All recorded tables on one page, and those that other pages show: `make tables`.

Writes `data/results/tables.md`, what stands between `<!-- table 2 -->` and `<!-- end of table 2 -->` (and so on, for
every name in `PARTS`) in the README, and the model cards. The notebooks call the same functions, so their stored
outputs are compared with the records whenever they run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import model_cards
from head3d_core.evaluation import tables
from head3d_core.evaluation.tables import NAMES, NOT_YET, Records, load_records
from head3d_core.utils import files
from script import between_marks, filled, main

PAGE = tables.RESULTS / "tables.md"
README = files.DATA.parent / "README.md"
ENOUGH = 1000
"""A row of fewer samples is called a trial row."""


def how_measured(records: Records) -> str:
    """How many samples the rows have, and what their numbers do not say."""
    rows: dict[tuple[int, int], list[str]] = {}
    for row, record in records.items():
        asked = record.get("provenance", {}).get("arguments", {}).get("sampling")
        if asked and "weights" in record:
            rows.setdefault((asked["count"], asked["detector"]), []).append(row)
    counts = "; ".join(
        f"{n:,} / {few:,} ({', '.join(names)})" for (n, few), names in sorted(rows.items(), reverse=True)
    )
    return filled("how_measured.md", counts=counts or NOT_YET).rstrip()


PARTS: dict[str, Callable[[Records], str]] = {
    "samples": how_measured,
    "table 2": tables.table_2,
    "table 3": tables.table_3,
    "figure 8": tables.figure_8,
    "figure 5": tables.figure_5,
    "expectations": tables.expectations_table,
}
"""Name of a part of the page, and of a marked place in another page -> what makes it."""


def tables_page(records: Records | None = None) -> str:
    """The text of `data/results/tables.md`."""
    records = load_records() if records is None else records
    trials = [row for row in records if min(tables.sample_counts(records[row])) < ENOUGH]
    again = {row: tables.repetitions(row, records) for row in NAMES}
    recorded = [name for row in NAMES for name in (row, *again[row]) if name in records]
    fitted = [name for name in recorded if records[name]["start"] == "fitted"]
    missing = " (**not recorded yet**)"
    commands = [f"- {row}{'' if row in records else missing}: `{tables.command_of(row)}`" for row in NAMES]
    seeds = [name for names in again.values() for name in names if records[name]["seed"]]
    return filled(
        "tables.md",
        trials=filled("trials.md", enough=f"{ENOUGH:,}", rows=", ".join(trials)) if trials else "",
        fitted=filled("fitted.md", rows=", ".join(fitted)) if fitted else "",
        commands="\n".join(commands),
        seeds=", ".join(seeds) or NOT_YET,
        **{name.replace(" ", "_"): make(records) for name, make in PARTS.items()},
    )


def refreshed(text: str, records: Records) -> str:
    """A Markdown text whose marked parts are made anew; without marks it is returned as it is.

    >>> "| row |" in refreshed("<!-- table 2 -->old<!-- end of table 2 -->", {})
    True
    """
    for name, make in PARTS.items():
        text = between_marks(text, name, lambda make=make: make(records)) or text  # type: ignore[misc]
    return text


@dataclass(frozen=True)
class PageArgs:
    """Writes the page of tables, the README's tables and the model cards from the records."""

    page: Path = PAGE
    """Page of all tables."""
    readme: Path = README
    """Page whose marked parts are made anew, where it exists."""
    cards: model_cards.Sources = field(default_factory=model_cards.Sources)


def write_tables(args: PageArgs) -> list[Path]:
    """Writes what differs from the records; returns the files."""
    records = load_records()
    wanted = {args.page: tables_page(records), **model_cards.cards(args.cards)}
    if args.readme.is_file():
        wanted[args.readme] = refreshed(args.readme.read_text(encoding="utf8"), records)
    written = []
    for path, text in wanted.items():
        if not path.is_file() or path.read_text(encoding="utf8") != text:
            files.write(path, text)
            written.append(path)
    return written


def run(args: PageArgs) -> None:
    """Writes and says what was written."""
    written = write_tables(args)
    print(f"wrote {', '.join(map(str, written))}" if written else "every table is up to date")


if __name__ == "__main__":
    raise SystemExit(main(PageArgs, run))
