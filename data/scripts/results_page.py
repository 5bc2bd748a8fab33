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
from head3d_core.evaluation.tables import (
    NAMES,
    NOT_YET,
    RESULTS,
    Records,
    command_of,
    expectations_table,
    figure_5,
    figure_8,
    load_records,
    repetitions,
    sample_counts,
    table_2,
    table_3,
)
from head3d_core.utils import files
from script import main

PAGE = RESULTS / "tables.md"
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
    notes = (
        f"Samples a row, for distances / for detector and identity: {counts or NOT_YET}. Column N counts the real "
        "pictures or heads where they are fewer.",
        "Distances are those of samples without truncation (at 0.7 they are larger, as samples vary less); all else is "
        "measured at truncation 0.7.",
        "*Closed* counts rays from all around that meet a surface before the middle of the head. It finds holes; but "
        "the face generator's surface is closed as well, around a second face: this does not tell a head from a face.",
        "Beside the limits: round brackets hold the number of samples where it is smaller than N; real people's AUC "
        "and TAR are those of two pictures of one person; *one discriminator* is `single-d`, whose start was "
        "`head3d`'s.",
    )
    return "\n".join(f"- {note}" for note in notes)


PARTS: dict[str, tuple[str, Callable[[Records], str]]] = {
    "samples": ("How it was measured", how_measured),
    "table 2": ("Table 2: generators", table_2),
    "table 3": ("Table 3: losses", table_3),
    "figure 8": ("Fig. 8: planes and discriminators", figure_8),
    "figure 5": ("Fig. 5: hats and glasses", figure_5),
    "expectations": ("What the weights must show", expectations_table),
}
"""Name of a part -> its heading, and what makes it."""

FITTED_NOTE = (
    "**Two starting points.** {rows} start from the bundled generators with discriminators fitted to "
    "them (96,000 images of faces, 48,000 of heads, generator held still): compare these with each other. head3d and "
    "single-d start from the discriminators that the teacher and the head generator had trained with, which are "
    "stronger and no longer exist: compare those two. Names with `seed1` are second runs with another seed of the "
    "distillation, names with `first` earlier runs with the same one. The discriminators were fitted four times by the "
    "same commands; `LOG.md` says which rows share a fitting (those with `seed1` do), and has the figures."
)
STARTING_POINTS = (
    "Rows start from the bundled generators, which come without discriminators; these are fitted first: "
    "`python -m head3d_core train whiten --recipe.only-discriminator --data synth:faces:20000 "
    "--teacher data/weights/face --recipe.images 96000 --out runs/teacher`, then "
    "`python -m head3d_core train head --recipe.only-discriminator --recipe.start head --data synth:faces:20000 "
    "--heads synth:heads:4800 --head data/weights/head --teacher runs/teacher --recipe.images 48000 --out runs/head`."
)
"""How to make what `command_of` starts from."""


def row_commands(records: Records) -> str:
    """The command that makes each row, and which seeds there are beside 0."""
    lines = [
        f"- {row}{'' if row in records else ' (**not recorded yet**)'}: `{command_of(row)}`" for row in NAMES
    ]
    seeds = [name for row in NAMES for name in repetitions(row, records) if records[name]["seed"]]
    shown = ", ".join(seeds) or "not recorded yet"
    return (
        "\n".join(lines) + f"\n\nOther seeds (`train --seed 1`, `evaluate --row ROW-seed1-fitted`): {shown}."
    )


def tables_page(records: Records | None = None) -> str:
    """The text of `data/results/tables.md`."""
    records = load_records() if records is None else records
    parts = [
        "# Recorded tables",
        "Made by `make tables` from the JSON files beside this page; edits are overwritten. Notebook 10 explains the "
        "columns. Brackets hold 95 % intervals.",
    ]
    trials = [row for row in records if min(sample_counts(records[row])) < ENOUGH]
    if trials:
        parts.append(
            f"**Trial rows**, measured on fewer than {ENOUGH:,} samples: {', '.join(trials)}. Column N says how many "
            "samples a row has, `images` how many real images its training saw. What they lack and why is under "
            "`missing` in each JSON file."
        )
    fitted = [name for row in NAMES for name in (row, *repetitions(row, records)) if name in records]
    fitted = [name for name in fitted if records[name]["start"] == "fitted"]
    if fitted:
        parts.append(FITTED_NOTE.format(rows=", ".join(fitted)))
    for heading, make in PARTS.values():
        parts += [f"## {heading}", make(records)]
    parts += ["## How rows are made", STARTING_POINTS, row_commands(records)]
    return "\n\n".join(parts) + "\n"


def refreshed(text: str, records: Records) -> str:
    """A Markdown text whose marked parts are made anew; without marks it is returned as it is.

    >>> "| row |" in refreshed("<!-- table 2 -->old<!-- end of table 2 -->", {})
    True
    """
    for name, (_, make) in PARTS.items():
        start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        before, opened, rest = text.partition(start)
        _, closed, after = rest.partition(end)
        if opened and closed:
            text = f"{before}{start}\n{make(records)}\n{end}{after}"
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
            with files.atomic(path) as temporary:
                temporary.write_text(text, encoding="utf8")
            written.append(path)
    return written


def run(args: PageArgs) -> None:
    """Writes and says what was written."""
    written = write_tables(args)
    print(f"wrote {', '.join(map(str, written))}" if written else "every table is up to date")


if __name__ == "__main__":
    raise SystemExit(main(PageArgs, run))
