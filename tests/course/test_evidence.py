"""Evidence: verdicts from differences, the distance by yaw, and what is left out where nothing is recorded."""

from __future__ import annotations

import matplotlib as mpl
import pytest
from helpers import distance, named
from test_ablations import row

from head3d_core.course import evidence
from head3d_core.evaluation import ablations
from head3d_core.evaluation.ablations import COSINE, FRONT, FULL_FITTED
from head3d_core.evaluation.rows import Row, Step
from head3d_core.utils.estimates import Estimate


def record(*values: float) -> Row:
    """A row whose distance in steps of 15° from 90° on has these values, give or take 0.5."""
    steps = (Step(90 + 15 * k, 105 + 15 * k, distance(v, 0.5)) for k, v in enumerate(values))
    return Row("head3d", by_yaw=tuple(steps))


def test_steps_count_where_the_intervals_are_apart() -> None:
    rows = {"head3d-seed0-fitted": record(9, 9, 9), "single-d-seed0-fitted": record(9.9, 10.1, 7.0)}
    assert evidence.farther_steps(rows, "one discriminator") == [["105–120°"], []]
    assert evidence.farther_steps(rows, "all planes distilled") == [[], []]
    assert evidence.by_yaw(rows["head3d-seed0-fitted"])[90, 105].high == 9.5


def test_the_figure_has_a_line_a_run() -> None:
    rows = {name: record(9, 10) for pair in evidence.PAIRS.values() for name in pair}
    figure = evidence.yaw_figure(rows, evidence.PAIRS)
    assert len(figure.axes[0].lines) == 6
    looks = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}
    assert len(looks) == 6
    assert figure.axes[0].lines[0].get_xdata().tolist() == [97.5, 112.5]
    assert len(evidence.yaw_figure({}, evidence.PAIRS).axes[0].lines) == 6, (
        "runs that are not recorded leave empty lines"
    )
    mpl.pyplot.close("all")


def ends(*pairs: tuple[float, float]) -> list[Estimate]:
    return [Estimate((low + high) / 2, low, high, 9) for low, high in pairs]


@pytest.mark.parametrize(
    ("found", "says", "where"),
    [
        (ends((0.1, 0.5), (0.2, 0.9)), "shows", "worse"),
        (ends((-0.5, -0.1), (-0.9, -0.2)), "shows", "better"),
        (ends((0.1, 0.5), (-0.2, 0.9)), "suggests", "worse"),
        (ends((0.1, 0.5)), "suggests", "worse"),
        (ends((-0.1, 0.5), (-0.2, 0.9)), "cannot tell", ""),
        (ends((0.1, 0.5), (-0.9, -0.2)), "cannot tell", ""),
        ([], "cannot tell", ""),
    ],
)
def test_verdicts_need_runs_on_one_side(found: list[Estimate], says: str, where: str) -> None:
    assert (evidence.verdict(found), evidence.direction(found)) == (says, where)
    other = {"worse": "better", "better": "worse", "": "worse"}[where]
    assert evidence.agreement(found, other) == ("differs" if where else "cannot tell")


def test_a_table_gives_the_sign_of_the_measure() -> None:
    records = named({FULL_FITTED: row(2.0, 0.8), "no-kd": row(3.0, 0.6)})
    lines = evidence.evidence_table(records, "no-kd", (FRONT, COSINE), {COSINE: "better"}).splitlines()
    assert lines[2].startswith("| KD front × 100 | 2.0 | +1.0 ± ")
    assert "| -0.20 ± " in lines[3], "less similar, not more"
    assert lines[3].endswith("| suggests worse | better: differs |")
    assert evidence.evidence_table({}, "no-kd").count("\n") == 1, "nothing recorded, nothing said"
    assert not evidence.differences({}, "no-kd", ablations.FRONT)


def test_the_measure_behind_is_of_two_steps() -> None:
    found = evidence.BEHIND.of(record(1, 2, 3, 5, 9))
    assert found == Estimate(4.0, 3.5, 4.5, 1000)
    assert evidence.BEHIND.of(Row("a")) is None
    assert evidence.SECOND_FACE.of(Row("a")) is None
