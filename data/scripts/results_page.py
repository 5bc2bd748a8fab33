"""All recorded tables on one page, and those that other pages show: `make tables`.

Writes `data/results/tables.md`, `data/results/did_it_reproduce.md`, the model cards, and in README and the data card
what stands between `<!-- table 2 -->` and `<!-- end of table 2 -->` (and so on, for every name in `PARTS`). Notebooks
call the same functions, so their stored outputs are compared with the records whenever they run.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import detector_rates
import model_cards
from head3d_core.evaluation import tables
from head3d_core.evaluation.limits import limits_table
from head3d_core.evaluation.rows import Row, Rows, load_rows
from head3d_core.evaluation.tables import NAMES, NOT_YET, Column, kernel, markdown, rate, shown, table
from head3d_core.training.recipes import ROWS, recipe
from head3d_core.utils import files
from head3d_core.utils import records as stored
from head3d_core.utils.estimates import NONE
from head3d_course import verdicts
from head3d_course.ablations import recorded_otherwise
from script import between_marks, filled, main

PAGE, VERDICTS = "tables.md", "did_it_reproduce.md"
README = files.DATA.parent / "README.md"
ENOUGH = 1000
"""A row of fewer samples is called a trial row."""
_COUNTS = {"count": "plain", "detector": "truncated", "straight": "straight", "mapping": "mapping"}
"""Numbers of samples, with the part of the evaluation that draws so many."""


def how_measured(records: Rows) -> str:
    """How many samples the rows have, which rows have figures that came later, and why the others lack them."""
    rows: dict[tuple[int, int], list[str]] = {}
    later: dict[str, list[str]] = {}
    for row, record in records.items():
        asked = record.sampling
        if asked and record.weights and record.distance:
            rows.setdefault((asked["count"], asked["detector"]), []).append(row)
        if record.added is not None:
            asked, only = record.added["arguments"]["sampling"], record.added["arguments"]["only"]
            kinds = [k for k, part in _COUNTS.items() if k in asked and (not only or part in only)]
            counts = ", ".join(f"{asked[k]:,} {k}" for k in kinds)
            later.setdefault(f"{counts}; {record.added['device']}", []).append(row)
    known = sorted(rows.items(), reverse=True)
    counts = "; ".join(f"{n:,} / {few:,} ({', '.join(names)})" for (n, few), names in known)
    without = ", ".join(row for row, record in records.items() if record.behind is None)
    said = "; ".join(f"{', '.join(names)} ({counts})" for counts, names in later.items())
    added = f"{said or NOT_YET}. Without them: {without or 'none'}"
    return filled("how_measured.md", counts=counts or NOT_YET, added=added).rstrip()


def command_of(row: str) -> str:
    """What records a row that is not there yet."""
    if row in ("real", "face", "head", "head3d", "plane-swap"):
        return f"python -m head3d_core evaluate {row}"
    start = "--head runs/head"
    if ROWS[row].generator:  # two slices
        images = recipe("distill", "classroom", row).planes_first + 100_000  # rendered ones
        start = f"--head runs/start --back-target runs/head-one-slice --recipe.images {images}"
    run = f"--data synth:faces:20000 --heads synth:heads:4800 --teacher runs/teacher {start} --out runs/{row}"
    return f"python -m head3d_core train distill --row {row} {run}, then evaluate runs/{row}"


def mapping_cameras(records: Rows) -> str:
    """Distances with three mapping cameras: the frontal one of all other tables, the rendering one, a random one."""
    names = [n for row in NAMES if row in records for n in (row, *tables.repetitions(row, records))]
    there = [n for n in names if "front, rendering" in records[n].distance]
    if not there:
        return f"Mapping cameras: {NOT_YET} (`{command_of('head3d')}`)."
    cells: list[Column] = []
    for side in ("front", "back"):
        plain = (lambda r: shown(kernel(r), 3)) if side == "front" else tables.many_heads
        cells.append((f"KD {side} × 100: frontal", plain))
        for name in ("rendering", "random"):

            def show(row: Row, side: str = side, name: str = name) -> str:
                ratio = row.ratios.get(f"{side}, {name} / frontal")
                return f"{shown(kernel(row, f'{side}, {name}'), 3)}; {shown(ratio)} ×"

            cells.append((f"{side}: {name}", show))
    return table(there, {n: records[n] for n in there}, cells)


def likely_true(found: float, recall: float, false: float) -> float | None:
    """Expected share of finds that are true, from the share that passes: true rate t with t · recall + (1 − t) · false.

    None where nothing passes.
    """
    if not found > 0 or recall <= false:
        return None
    true = min(max((found - false) / (recall - false), 0.0), 1.0)
    return true * recall / found


def figure_5(records: Rows) -> str:
    """E7 in numbers: hats and glasses of the teacher that the same z keeps, real people's rate beside."""
    one = records.get("head3d", Row("head3d"))
    left_out = one.missing.get("hats and glasses")
    if left_out:
        return f"Hats and glasses: left out of this record, {left_out}."
    if not one.accessories:
        return f"Hats and glasses: {NOT_YET} (`{command_of('head3d')}`)."
    heads = ["", "probe finds", "probe is wrong", "real people wear", "teacher wears"]
    heads += ["of these true, expected", "teacher, again", "**Head3D keeps**", "by chance"]
    lines = []
    for kind, found in one.accessories.items():
        if found.probe is None:
            lines.append([kind, str(found.missing), *[""] * (len(heads) - 2)])
            continue
        probe = found.probe
        passed = found.teacher.value if found.teacher else 0.0
        true = likely_true(passed, probe.recall.value, probe.false.value)
        cells = [rate(probe.recall), rate(probe.false), f"{probe.worn_by_real:.1%}".replace("%", " %")]
        cells += [rate(found.teacher), NONE if true is None else f"{true:.0%}".replace("%", " %")]
        lines.append([kind, *cells, *map(rate, (found.again, found.student, found.chance))])
    return markdown(heads, lines)


PARTS: dict[str, Callable[[Rows], str]] = {
    "samples": how_measured,
    "table 2": tables.table_2,
    "table 3": tables.table_3,
    "figure 8": tables.figure_8,
    "figure 5": figure_5,
    "backs": tables.backs,
    "mapping cameras": mapping_cameras,
    "limits": limits_table,
    "verdicts": lambda records: verdicts.table(records, readme=True),
    "detector rates": lambda _: detector_rates.table(stored.read("detector_rates", detector_rates.COMMAND)),
}
"""Name of a part of the page, and of a marked place in another page -> what makes it."""


def tables_page(records: Rows | None = None) -> str:
    """The text of `data/results/tables.md`."""
    records = load_rows() if records is None else records
    trials = [row for row in records if min(tables.sample_counts(records[row])) < ENOUGH]
    again = {row: tables.repetitions(row, records) for row in NAMES}
    missing = " (**not recorded yet**)"
    commands = [f"- {row}{'' if row in records else missing}: `{command_of(row)}`" for row in NAMES]
    seeds = [name for names in again.values() for name in names if records[name].seed]
    return filled(
        "tables.md",
        trials=filled("trials.md", enough=f"{ENOUGH:,}", rows=", ".join(trials)) if trials else "",
        commands="\n".join(commands),
        seeds=", ".join(seeds) or NOT_YET,
        **{name.replace(" ", "_"): make(records) for name, make in PARTS.items()},
    )


def verdicts_page(records: Rows | None = None) -> str:
    """The text of `data/results/did_it_reproduce.md`."""
    records = load_rows() if records is None else records
    kinds = (verdicts.AGREES, verdicts.CONTRADICTS, verdicts.UNDECIDED, verdicts.NOT_TESTED)
    first = [of[0].verdict for _, of in verdicts.findings(records)]
    counts = ", ".join(f"{sum(verdict.startswith(kind) for verdict in first)} {kind}" for kind in kinds)
    changed = "\n".join(
        f"- `{row}`: " + "; ".join(f"{name} {then} (now {now})" for name, now, then in otherwise)
        for row in ROWS
        if (otherwise := recorded_otherwise(row))
    )
    lost = [name for name, record in records.items() if record.weights and record.behind is None]
    return filled(
        "did_it_reproduce.md",
        counts=counts,
        claims=verdicts.table(records),
        limits=limits_table(records),
        changed=changed or "- none",
        lost=", ".join(lost) or "none",
    )


def refreshed(text: str, records: Rows) -> str:
    """A Markdown text whose marked parts are made anew; without marks it is returned as it is.

    >>> "| row |" in refreshed("<!-- table 2 -->old<!-- end of table 2 -->", {})
    True
    """
    for name, make in PARTS.items():
        text = between_marks(text, name, lambda make=make: make(records)) or text  # type: ignore[misc]
    return text


def write_tables(data: Path = files.DATA, readme: Path = README) -> list[Path]:
    """Writes what differs from the records: pages and cards below `data`, marked parts of `readme`; returns these."""
    known = load_rows()
    wanted = {data / "results" / PAGE: tables_page(known), data / "results" / VERDICTS: verdicts_page(known)}
    wanted |= model_cards.cards(data)
    for page in filter(Path.is_file, (data / "DATA_CARD.md", readme)):
        wanted[page] = refreshed(page.read_text(encoding="utf8"), known)
    changed = [p for p, text in wanted.items() if not p.is_file() or p.read_text(encoding="utf8") != text]
    for path in changed:
        files.write(path, wanted[path])
    return changed


def run() -> None:
    """Writes the pages, the tables of README and data card, and the model cards from the records."""
    written = write_tables()
    print(f"wrote {', '.join(map(str, written))}" if written else "every table is up to date")


if __name__ == "__main__":
    raise SystemExit(main(run))
