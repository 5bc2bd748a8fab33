"""Rows as changes, who speaks in them, and what a difference between two rows is worth."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from helpers import identity, named, rate, record

from head3d_core.evaluation import tables
from head3d_core.evaluation.rows import Row
from head3d_core.training.recipes import ROWS, recipe
from head3d_core.utils import files
from head3d_core.utils.estimates import Estimate, share
from head3d_core.utils.nested import changed, flat
from head3d_course import ablations
from head3d_course.ablations import BACK, COSINE, FRONT, FULL, FULL_FITTED, JANUS, Measure

PAPER = {"no-kd": {"KID x100": 3.0, "ID": 0.1}, "head3d": {"KID x100": 0.6, "ID": 0.65}}


def row(kd: float, cosine: float = 0.8, spread: float = 0.01, behind: int = 10) -> Row:
    rates = {"front": rate(980), "back": rate(behind)}
    return record(kd, spread=spread, identity=identity(cosine), detector=rates)


@pytest.mark.parametrize("name", [name for name in ROWS if name != FULL])
def test_every_row_changes_something_and_says_what(name: str) -> None:
    found = ablations.changes(name)
    assert found
    assert all(full != other for _, full, other in found)
    table, *notes = ablations.changes_table([name]).split("\n\n")
    assert table.count("\n") == 1 + len(found)
    assert len(notes) == bool(ablations.recorded_otherwise(name))


def test_runs_of_an_older_recipe_are_named() -> None:
    """What was recorded before rows differed in one thing is not shown as what the row is now."""
    assert ablations.recorded_otherwise("no-kd") == []
    assert ("rate of G", "0.0025", "0.001") in ablations.recorded_otherwise("dft")
    averaged = ("L_kd of several planes", "their sum", "their mean")
    assert ablations.recorded_otherwise("all-planes") == [averaged]
    assert "real images of D_all" in {name for name, *_ in ablations.recorded_otherwise("single-d")}


def test_recipes_of_all_recorded_runs_can_be_read() -> None:
    """Of fields that exist no longer only those may stand there that `recorded_otherwise` knows."""
    names = [path.stem.removeprefix("curves_") for path in (files.DATA / "results").glob("curves_*.json")]
    runs = [name for name in names if ablations.base_of(name) in ROWS]
    assert len(runs) > 20
    for name in runs:
        ablations.recorded_otherwise(name)


def test_the_changes_of_table_3_are_single_terms() -> None:
    assert ablations.changes(FULL) == []
    assert [name for name, *_ in ablations.changes("no-rgb-lpips")] == ["λ of L_rgb", "λ of L_lpips"]
    assert ablations.changes("all-planes") == [("planes in L_kd", "F_xy", "F_xy, F_xz, F_yz")]


def test_rows_are_compared_with_the_full_method_from_their_start() -> None:
    assert ablations.reference_of("no-kd") == FULL_FITTED
    assert ablations.reference_of("single-d") == FULL
    assert ablations.reference_of("single-d-seed0-fitted") == FULL_FITTED
    assert ablations.reference_of("plane-swap") == FULL_FITTED
    assert ablations.label("single-d-seed0-fitted") == "one discriminator (fitted D)"
    assert ablations.label("head3d-seed1-fitted") == "Head3D (fitted D, seed 1)"
    assert ablations.reference_of("single-d-seed1-fitted") == "head3d-seed1-fitted"
    assert ablations.reference_of("head3d-seed1-fitted") == "head3d-seed1-fitted"
    assert ablations.reference_of("dft-seed0-first-fitted") == FULL_FITTED


def test_the_cost_is_positive_where_a_row_is_worse() -> None:
    records = named({FULL_FITTED: row(2.0, 0.8, behind=0), "no-kd": row(3.0, 0.6, behind=100)})
    for measure, worse in ((FRONT, 1.0), (COSINE, 0.2), (JANUS, 10.0)):
        found = ablations.cost(records, "no-kd", measure)
        assert found.value == pytest.approx(worse)
    equal = ablations.cost(records, "no-kd", BACK)
    assert not equal.decided
    assert ablations.cost(records, "single-d", FRONT) is None
    assert ablations.cost(records, FULL_FITTED, FRONT) is None


def test_what_a_part_bought_is_more_than_another_start_changes() -> None:
    records = named({FULL: row(2.0, 0.80), FULL_FITTED: row(2.5, 0.79), "no-kd": row(2.8, 0.6)})
    assert ablations.bought(records, "no-kd") == "without L_kd: cosine, same z worse by 0.19"
    near = named({**records, FULL: row(2.5, 0.79)})
    assert ablations.bought(near, "no-kd").startswith("without L_kd: KD front")
    assert ablations.bought(records, "all-planes").endswith(tables.NOT_YET)
    assert "nothing" in ablations.bought(named({**records, "no-kd": row(2.5, 0.79)}), "no-kd")


def test_runs_of_one_recipe() -> None:
    """Runs from other discriminators are none of the recipe's repetitions."""
    names = ("single-d", "single-d-seed0-fitted", "single-d-seed1-fitted", "all-planes", "no-kd", FULL)
    records = named({name: row(2.0) for name in names})
    assert ablations.runs_of("single-d", records) == ["single-d-seed0-fitted", "single-d-seed1-fitted"]
    assert ablations.runs_of("all-planes", records) == ["all-planes"]
    assert ablations.runs_of(FULL, records) == []
    assert ablations.repeated(records) == [("single-d-seed0-fitted", "single-d-seed1-fitted")]
    assert ablations.run_to_run(named({"no-kd": row(1.0)}), FRONT) is None


SECOND = "head3d-seed1-fitted"


def test_a_change_smaller_than_another_seeds_is_not_bought() -> None:
    records = named({FULL: row(2.0), FULL_FITTED: row(2.1), "no-kd": row(2.6)})
    assert ablations.bought(records, "no-kd") == "without L_kd: KD front × 100 worse by 0.50"
    for kd in (2.8, 1.4):
        again = named({**records, SECOND: row(kd)})
        assert ablations.run_to_run(again, FRONT) == pytest.approx(0.7)
        assert "nothing" in ablations.bought(again, "no-kd")


def test_nothing_is_compared_with_a_full_method_that_is_not_recorded() -> None:
    records = named({FULL: row(2.0), "no-kd": row(2.6)})
    assert "nothing to compare with" in ablations.bought(records, "no-kd", [FRONT])


@pytest.mark.parametrize(
    ("measure", "kd", "spread", "verdict"),
    [
        (FRONT, 3.0, 0.01, "Head3D (fitted D) better than without L_kd: as in the paper"),
        (FRONT, 1.0, 0.01, "without L_kd better than Head3D (fitted D): the other way in the paper"),
        (FRONT, 2.1, 0.5, "Head3D (fitted D) better than without L_kd: cannot tell here"),
        (COSINE, 2.0, 0.01, "Head3D (fitted D) better than without L_kd: as in the paper"),
    ],
)
def test_pairs_beside_the_paper(measure: Measure, kd: float, spread: float, verdict: str) -> None:
    records = named({FULL_FITTED: row(2.0, spread=spread), "no-kd": row(kd, 0.6, spread=spread)})
    rows = ["no-kd", "no-gan-front", FULL_FITTED]
    assert ablations.beside_the_paper(rows, measure, records, PAPER) == [verdict]


def test_what_was_not_measured_is_none() -> None:
    assert COSINE.of(record(1.0, identity=None)) is None
    assert JANUS.of(Row("a", detector={"back": share(0, 0)})) is None
    assert BACK.of(record(1.0, back=4.0)) == Estimate(4.0, 3.99, 4.01, 1000)


def test_good_orders_are_counted() -> None:
    assert ablations.as_good_by_chance(2, 1.0) == (1, 2)
    assert ablations.as_good_by_chance(4, -1.0) == (24, 24)
    assert ablations.as_good_by_chance(4, 2 / 3) == (4, 24)


def other_value(value: Any) -> Any:
    """A value that differs and is allowed where `value` is."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value / 2 if isinstance(value, float) and value else value + 1
    if value == ("faces",) or value == ("heads_back",):
        return ("heads_side",)
    others = {"head": "teacher", "teacher": "head", "faces": "render", "random": "const", "auto": "random"}
    return {(0,): (0, 1), "mse": "l2", **others}.get(value, 7 if value is None else value)


FIELDS = [
    n for n in flat(recipe("distill", "classroom")) if not n.endswith((".name", "notes")) and n != "stage"
]


@pytest.mark.parametrize("name", FIELDS)
def test_changes_name_every_field(name: str) -> None:
    """Field by field: a row cannot differ from the full method in anything that `changes` leaves out."""
    full = recipe("distill", "classroom", "single-d")
    if name.endswith(".start"):  # one discriminator has one start
        full = dataclasses.replace(full, one_discriminator=False)
    other = changed(full, {name: other_value(flat(full)[name])})
    assert other != full
    ((_, mine, theirs),) = ablations.differences_in_words(full, other)
    assert mine != theirs


def test_changes_are_printed_row_by_row() -> None:
    for row in ROWS:
        text = ablations.changes_table([row]).split("\n\n")[0]
        for name, mine, theirs in ablations.changes(row):
            assert f"{name} | {mine} | {theirs} |" in text
