"""What one part of the method buys: rows as changes to one recipe, each beside the full method from the same start.

The numbers are those that `evaluate` recorded; nothing here trains. A row is compared with `reference_of` it: every
start of the discriminators ("bundled", "fitted", "trained") has full methods of its own.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from head3d_core.config import preset
from head3d_core.evaluation.rows import Row, Rows, load_rows
from head3d_core.evaluation.samples import seen_from as seen_from
from head3d_core.evaluation.tables import (
    FIGURE_8,
    GHOSTS,
    NAMES,
    NOT_YET,
    TABLE_3,
    kernel,
    markdown,
    repetitions,
)
from head3d_core.training.recipes import ROWS, Recipe, recipe
from head3d_core.utils import files
from head3d_core.utils.estimates import NONE, Estimate
from head3d_core.utils.nested import changed, differences, flat, parsed

FULLS = FULL, FULL_FITTED = "head3d", "head3d-seed0-fitted"
"""The full method: the bundled weights, and the same recipe from discriminators that were fitted anew."""
BUNDLED = (FULL, "single-d")
"""Rows whose record of that name started from the discriminators of the bundled weights, others from fitted ones."""
RUN_AGAIN = ("dft", "fh")
"""Rows whose table shows a second run with the same seed."""
PLANES = ("xy", "xz", "yz")


# -- rows as data --------------------------------------------------------------------------------------------------


@cache
def _stored() -> Rows:
    return load_rows()


def _facts(name: str, records: Rows | None) -> Row:
    """The record of that name, of the stored ones by default; of a run that is not recorded, what is known of it."""
    found = (_stored() if records is None else records).get(name)
    return found or Row(name, start="bundled" if name in BUNDLED else "fitted", run=0)


def base_of(name: str, records: Rows | None = None) -> str:
    """The recipe's row that a record is a run of; a name without a record is that of a row.

    >>> base_of("single-d-seed0-fitted")
    'single-d'
    """
    return _facts(name, records).row


def start_of(name: str, records: Rows | None = None) -> str:
    """What the discriminators of a run started from: "bundled", "fitted", "trained", or "none" where there are none.

    A row without training needs no discriminators. It belongs to the "fitted" rows, because these have most others.
    """
    start = _facts(name, records).start
    return "fitted" if start == "untrained" else start


def label(name: str, records: Rows | None = None) -> str:
    """What a row is called in a figure, with what sets this run apart from others of the row.

    >>> label("head3d-seed0-fitted"), label("all-planes-seed1-fitted"), label("dft-seed0-first-fitted")
    ('Head3D (fitted D)', 'all planes distilled (seed 1)', 'DFT (first run)')
    """
    facts = _facts(name, records)
    text = "teacher" if facts.row == "face" else NAMES.get(facts.row, facts.row).strip("*")
    marks = [f"{facts.start} D"] if facts.start != _facts(facts.row, records).start else []
    marks += [f"seed {facts.seed}"] if facts.seed else []
    marks += ["first run"] if facts.row in RUN_AGAIN and facts.run == 1 else []
    return f"{text} ({', '.join(marks)})" if marks else text


def reference_of(name: str, records: Rows | None = None) -> str:
    """The full method that a row is compared with: from the same start and, where one is recorded, with the same seed.

    Its discriminators come from the same commands, yet not always from the same run of them (`LOG.md` says which rows
    share one). Where no full method of that start is recorded, the name that it would have.

    >>> reference_of("all-planes-seed1-fitted"), reference_of("single-d-seed0-trained")
    ('head3d-seed1-fitted', 'head3d-seed0-trained')
    """
    known = _stored() if records is None else records
    seed, start = _facts(name, records).seed, start_of(name, records)
    fulls = [n for n, r in known.items() if (r.row, r.start) == (FULL, start)]
    unknown = f"{FULL}-seed{seed}-{start}" if start in ("fitted", "trained") else FULL
    return min(fulls, key=lambda n: (known[n].seed != seed, known[n].seed), default=unknown)


def runs_of(row: str, records: Rows, start: str = "fitted") -> list[str]:
    """The recorded runs of a row from one start, the one that tables and figures show first."""
    known = (n for n in (row, *repetitions(row, records)) if n in records)
    return [n for n in known if start_of(n, records) == start]


_WORDS = {
    **{f"losses.{name}": f"λ of L_{name}" for name in ("kd", "map", "rgb", "lpips")},
    "distil_planes": "planes in L_kd",
    "kd_norm": "norm in L_kd",
    "start": "G starts from",
    "one_discriminator": "one discriminator for both sides",
    "images": "real images shown",
    "lr_g": "rate of G",
    "lr_d": "rate of D",
    "ada_target": "adaptive augmentation, target",
    "back_share": "share of steps with back views",
}
"""How the tables call a field of a recipe; others keep their own name."""
_OF_DOMAIN = {
    "sources": "real images of D_{}",
    "start": "D_{} starts from",
    "gamma": "γ of D_{}",
    "weight": "λ of L_gan, D_{}",
}


def _shown(name: str, value: Any) -> str:
    if name == "distil_planes":
        return ", ".join(f"F_{PLANES[k]}" for k in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " + ".join(map(str, value))
    spec = "," if isinstance(value, int) else "g" if isinstance(value, float) else ""
    return format(value, spec)


def _in_words(how: Recipe) -> dict[str, str]:
    """Every setting of a recipe; with one domain the share of back views is that of the pooled images."""
    words: dict[str, str] = {}
    for name, value in flat(how).items():
        domain, _, field = name.rpartition(".")
        if domain.startswith("domains."):
            if field != "name":
                judge = how.domains[int(domain.removeprefix("domains."))].name
                words[_OF_DOMAIN[field].format(judge)] = _shown(field, value)
        elif name not in ("stage", "notes"):
            words[_WORDS.get(name, name)] = _shown(name, value)
    if len(how.domains) == 1:
        words[_WORDS["back_share"]] = "as in the pool"
    return words


def differences_in_words(full: Recipe, other: Recipe) -> list[tuple[str, str, str]]:
    """(setting, value of `full`, value of `other`) of everything in which two recipes differ."""
    one, two = _in_words(full), _in_words(other)
    settings = ((name, one.get(name, NONE), two.get(name, NONE)) for name in dict.fromkeys([*one, *two]))
    return [setting for setting in settings if setting[1] != setting[2]]


def changes(row: str) -> list[tuple[str, str, str]]:
    """(setting, full method, this row) of everything in which a row's recipe differs.

    >>> changes("no-gan-front")
    [('λ of L_gan, D_front', '1', '0')]
    """
    full, other = (recipe("distill", "classroom", name) for name in (FULL, base_of(row)))
    one = preset("classroom").generator
    two = changed(one, ROWS[base_of(row)].generator)
    networks = [(name, str(a), str(b)) for name, (a, b) in differences(one, two).items()]
    return networks + differences_in_words(full, other)


_RETIRED = ("kd_back_images", "kd_back_floor")
"""Fields of recorded recipes that acted on two-slice rows alone and are gone."""


def recorded_otherwise(row: str) -> list[tuple[str, str, str]]:
    """(setting, now, in the recorded run) of a row whose recorded curves name another recipe than `--row` has now."""
    path = files.DATA / "results" / f"curves_{row}.json"
    if not path.is_file():
        return []
    then = json.loads(path.read_text(encoding="utf8"))["recipe"]
    summed = then.keys() & {"kd_back_images", "planes_first"}  # averaged before either field existed
    recorded: Recipe = parsed(Recipe, {k: v for k, v in then.items() if k not in _RETIRED}, row)
    found = differences_in_words(recipe("distill", "classroom", base_of(row)), recorded)
    if len(recorded.distil_planes) > 1 and not summed:
        found.append(("L_kd of several planes", "their sum", "their mean"))
    return found


def changes_table(rows: Sequence[str]) -> str:
    """`changes` of some rows as a Markdown table; below it what recorded runs of them had otherwise."""
    cells = [
        [*((label(row), f"`{row}`") if k == 0 else ("", "")), *change]
        for row in rows
        for k, change in enumerate(changes(row))
    ]
    lines = [markdown(["row", "`--row`", "setting", "full method", "this row"], cells)]
    for row in rows:
        if otherwise := recorded_otherwise(row):
            settings = "; ".join(f"{name}: {then} (now {now})" for name, now, then in otherwise)
            lines += ["", f"The recorded run of `{row}` had other settings: {settings}."]
    return "\n".join(lines)


# -- recorded numbers ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measure:
    """A number that every row has."""

    name: str
    better: Literal["low", "high"]
    read: Callable[[Row], Estimate | None]
    scale: float = 1.0
    """Units of the figures: 100 for per cent."""
    paper: str = ""
    """Its counterpart in the paper's Table 3, if there is one."""

    def of(self, record: Row) -> Estimate | None:
        """The recorded estimate, or None where it was not measured."""
        found = self.read(record)
        return found.times(self.scale) if found and found.count else None


FRONT = Measure("KD front × 100", "low", lambda r: kernel(r), paper="KID x100")
BACK = Measure("KD back × 100", "low", lambda r: kernel(r, "back"))
COSINE = Measure("cosine, same z", "high", lambda r: r.cosine, paper="ID")
JANUS = Measure("a face behind, %", "low", lambda r: r.detector.get("back"), 100.0)
MEASURES = (FRONT, BACK, COSINE, JANUS)
SECOND_FACES = tuple(
    Measure(f"{words}, %", "low", lambda r, score=score: r.second_faces(score), 100.0)  # type: ignore[misc]
    for score, words in GHOSTS.items()
)
"""Shares of backs above the limit of each ghost score; the first are painted eyes."""


def cost(records: Rows, row: str, measure: Measure, reference: str | None = None) -> Estimate | None:
    """How much worse a row is than its reference: positive where leaving the part out did harm.

    None where either is not recorded, or the row is its own reference.
    """
    against = reference or reference_of(row, records)
    if row not in records or against not in records or row == against:
        return None
    one, other = measure.of(records[row]), measure.of(records[against])
    if one is None or other is None:
        return None
    return one.minus(other) if measure.better == "low" else other.minus(one)


def ranks(values: Mapping[str, float], better: Literal["low", "high"]) -> dict[str, int]:
    """1 for the best; equal values share the better place.

    >>> ranks({"a": 0.10, "b": 0.45, "c": 0.45, "d": 0.65}, "high")
    {'a': 4, 'b': 2, 'c': 2, 'd': 1}
    """
    sign = 1 if better == "low" else -1
    return {row: 1 + sum(sign * v < sign * mine for v in values.values()) for row, mine in values.items()}


def printed(
    rows: Sequence[str], measure: Measure, paper: Mapping[str, Any], records: Rows | None = None
) -> dict[str, float]:
    """The paper's numbers of rows and their repetitions; rows that it does not print are left out."""
    theirs = {row: paper.get(base_of(row, records), {}) for row in rows}
    return {row: found[measure.paper] for row, found in theirs.items() if measure.paper in found}


def measured(rows: Sequence[str], measure: Measure, records: Rows) -> dict[str, Estimate]:
    """Our numbers of the rows that are recorded."""
    found = {row: measure.of(records[row]) for row in rows if row in records}
    return {row: e for row, e in found.items() if e is not None}


def beside_the_paper(
    rows: Sequence[str], measure: Measure, records: Rows, paper: Mapping[str, Any]
) -> list[str]:
    """One sentence a pair of rows: ordered as in the paper, the other way, or that we cannot tell."""
    ours, theirs = measured(rows, measure, records), printed(rows, measure, paper, records)
    sign = 1 if measure.better == "low" else -1
    lines = []
    for a, b in itertools.combinations([row for row in rows if row in ours and row in theirs], 2):
        gap, printed_gap = ours[a].minus(ours[b]), theirs[a] - theirs[b]
        agree = (gap.value > 0) == (printed_gap > 0)
        if printed_gap == 0:
            verdict = "equal in the paper"
        elif not gap.decided:
            verdict = "cannot tell here"
        else:
            verdict = "as in the paper" if agree else "the other way in the paper"
        better, worse = (a, b) if sign * gap.value < 0 else (b, a)
        lines.append(f"{label(better, records)} better than {label(worse, records)}: {verdict}")
    return lines


def as_good_by_chance(rows: int, agreement: float) -> tuple[int, int]:
    """How many of all orders of `rows` rows agree with a given one at least as well (Kendall's tau), and of how many.

    >>> as_good_by_chance(4, 1.0)
    (1, 24)
    >>> as_good_by_chance(3, 0.33333331)  # as float32 has it
    (3, 6)
    """
    orders = list(itertools.permutations(range(rows)))
    pairs = list(itertools.combinations(range(rows), 2))
    found = [sum(1 if order[a] < order[b] else -1 for a, b in pairs) / len(pairs) for order in orders]
    return sum(tau >= agreement - 1e-6 for tau in found), len(orders)


def repeated(records: Rows) -> list[tuple[str, str]]:
    """Pairs of runs of one recipe of Table 3 or Fig. 8 from discriminators fitted by the same commands."""
    runs = (runs_of(row, records) for row in dict.fromkeys((*TABLE_3, *FIGURE_8)))
    return [pair for names in runs for pair in itertools.combinations(names, 2)]


def apart(records: Rows, pair: tuple[str, str], measure: Measure) -> float | None:
    """How far two rows lie apart in a measure; None where one of them lacks it."""
    one, other = (measure.of(records[row]) if row in records else None for row in pair)
    return None if one is None or other is None else abs(one.value - other.value)


def run_to_run(records: Rows, measure: Measure) -> float | None:
    """The largest distance between two runs of one recipe of Table 3 or Fig. 8; None where none was run twice."""
    found = [d for pair in repeated(records) if (d := apart(records, pair, measure)) is not None]
    return max(found, default=None)


def bought(records: Rows, row: str, measures: Sequence[Measure] = MEASURES) -> str:
    """One sentence: what leaving the part out changed by more than another start or another seed does.

    A change counts if its interval lies on one side of 0 and it is larger than the distance of the two full methods
    and than `run_to_run`.
    """
    name, reference = label(row, records), reference_of(row, records)
    if row not in records:
        return f"{name}: {NOT_YET}"
    if reference not in records:
        return f"{name}: nothing to compare with, {label(reference, records)} {NOT_YET}"
    words = []
    for m in measures:
        found = cost(records, row, m)
        least = max(apart(records, FULLS, m) or 0.0, run_to_run(records, m) or 0.0)
        if found and found.decided and abs(found.value) > least:
            words.append(f"{m.name} {'worse' if found.value > 0 else 'better'} by {abs(found.value):.2f}")
    return f"{name}: {', '.join(words) or 'nothing that these samples can show'}"
