"""Limits are met, not met, or not recorded; every one of them is failed by a recorded model."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helpers import behind, distance, estimate, identity, rate, record

from head3d_core.evaluation import limits, rows
from head3d_core.evaluation.limits import LIMITS, Limit, limits_table
from head3d_core.evaluation.rows import Row
from head3d_core.evaluation.tables import NOT_YET
from head3d_core.metrics.ghost import SCORES

STORED = rows.load_rows()


def good() -> dict[str, Row]:
    return {
        "real": record(0.0, row="real"),
        "face": record(1.0, row="face"),
        "head": record(2.0, back=1.0, row="head"),
        "head3d": record(1.5, back=1.2),
    }


def verdicts(records: dict[str, Row], name: str) -> dict[str, str]:
    return {limit.what: limit.verdict(records, name) for limit in LIMITS if name in limit.rows or name == "x"}


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.what)
def test_a_recorded_model_fails_every_limit(limit: Limit) -> None:
    """The teacher for backs, the untrained swap for identity: a limit that nothing fails says nothing."""
    found = limit.verdict(STORED, limit.fails)
    assert found == limits.NOT_MET, (limit.what, limit.fails, found)
    assert limit.fails not in limit.rows or limit.fails == "face"


def test_nothing_recorded() -> None:
    text = limits_table({})
    assert text.count(NOT_YET) == len(LIMITS)


def test_good_weights_meet_all() -> None:
    for name in ("face", "head3d"):
        assert set(verdicts(good(), name).values()) == {limits.MET}


def test_each_can_fail() -> None:
    records = good()
    bad = {"front": rate(900), "back": rate(100)}
    records["face"] = replace(records["face"], detector=bad)
    people = records["face"].people
    records["face"] = replace(records["face"], people=replace(people, near_duplicates=rate(10)))
    records["head3d"] = record(
        2.5,
        back=1.7,
        detector=bad,
        silhouettes={"front": rate(0), "back": rate(100)},
        identity=identity(0.5, 0.5),
        behind=behind(300),
    )
    records["head3d"].distance["front, truncated"] = distance(4.5)
    for name in ("face", "head3d"):
        assert set(verdicts(records, name).values()) == {limits.NOT_MET}


def test_a_verdict_is_open_where_the_interval_spans_the_limit() -> None:
    few = replace(rate(64, 64), low=0.93, high=1.0)
    records = good() | {"head3d": record(1.5, detector={"front": few, "back": rate(10)})}
    assert "| ≥ 94 % | 100 % [93 %, 100 %]: met, open |" in limits_table(records)


def test_every_run_of_the_full_method_stands_in_the_table() -> None:
    records = good() | {"head3d-seed1": record(2.6, seed=1)}
    lines = limits_table(records).splitlines()
    assert lines[0].startswith("| what | limit | head3d | head3d-seed1 | real |")
    front = next(line for line in lines if line.startswith("| frontal distance"))
    assert "1.5 [1.48, 1.52]: met | 2.6 [2.56, 2.64]: **not met** |" in front


def test_a_recorded_ratio_goes_before_that_of_the_ends() -> None:
    records = good()
    assert "| 1.2 [1.18, 1.22]: met |" in limits_table(records)
    paired = estimate(1.2, 0.001)
    records["head3d"] = replace(records["head3d"], ratios={"back / head": paired})
    assert "| 1.2 [1.2, 1.2]: met |" in limits_table(records)


def test_figures_that_were_not_measured_are_not_recorded() -> None:
    records = good() | {"head3d": record(1.5, identity=None, behind=None, silhouettes={})}
    found = list(verdicts(records, "head3d").values())
    assert found.count(NOT_YET) == 3 + len(SCORES)
