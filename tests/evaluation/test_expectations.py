"""Expectations are met, not met, or not recorded."""

from __future__ import annotations

from helpers import rate, record

from head3d_core.evaluation.tables import EXPECTATIONS, expectations_table


def test_nothing_recorded() -> None:
    assert expectations_table({}).count("not recorded yet") == len(EXPECTATIONS)


def test_good_weights_meet_all() -> None:
    rows = {"face": record(1.0), "head": record(2.0, back=1.0), "head3d": record(1.5, back=1.2)}
    text = expectations_table(rows)
    assert text.count("| met") == len(EXPECTATIONS)


def test_a_verdict_shows_its_interval_and_how_many_samples() -> None:
    rows = {"face": record(1.0)}
    rows["face"]["detector"]["front"] = rate(64, 64) | {"low": 0.943, "high": 1.0}
    assert (
        "| ≥ 97 % | 100 % [94.3 %, 100 %] | 64 | met, but the interval spans the limit | – | – | – |"
        in expectations_table(rows)
    )


def test_each_can_fail() -> None:
    rows = {"face": record(0.5), "head": record(2.0, back=0.5), "head3d": record(2.5, back=1.2)}
    for row, side, found in (("face", "front", 900), ("head3d", "front", 900), ("head3d", "back", 100)):
        rows[row]["detector"][side] = rate(found)
    rows["face"]["people"]["near_duplicates"]["value"] = 0.01
    rows["head3d"]["closed"]["value"] = 0.9
    rows["head3d"]["silhouettes"]["back"] = rate(100)
    rows["head3d"]["identity"]["auc"]["value"] = 0.9
    rows["head3d"]["identity"]["tar_at_far_0.01"]["value"] = 0.5
    verdicts = [e.verdict(rows) for e in EXPECTATIONS]
    assert verdicts == ["**not met**"] * len(EXPECTATIONS)


def test_a_figure_that_was_not_measured_is_not_recorded() -> None:
    rows = {"face": record(1.0), "head": record(2.0), "head3d": record(1.5)}
    del rows["head3d"]["identity"], rows["head3d"]["silhouettes"]
    rows["face"]["detector"]["front"] = None
    open_ones = [e.what for e in EXPECTATIONS if e.verdict(rows) == "not recorded yet"]
    assert len(open_ones) == 4


def test_other_rows_stand_beside() -> None:
    rows = {"real": record(0.0, back=0.0), "head": record(2.0, back=2.0), "single-d": record(1.5, back=1.0)}
    rows |= {"face": record(1.0), "head3d": record(1.2, back=1.2)}
    rows["real"]["distance"]["front"]["kernel"]["value"] = -0.0005
    rows["single-d"]["detector"]["back"] = rate(1, 200)
    del rows["real"]["closed"]
    lines = {line.split(" | ")[0][2:]: line for line in expectations_table(rows).splitlines()}
    assert lines["what"].endswith("| real | head | one discriminator |")
    assert lines["Head3D: a face behind (Janus)"].endswith("| 1 % | 1 % | 0.5 % (200) |")
    assert lines["Head3D: frontal distance / teacher's"].endswith("| met | -0.001 | 2 | 1.5 |")
    assert lines["Head3D: back distance / head generator's"].endswith("| met | 0 | – | 0.5 |")
    assert lines["Head3D: directions that are closed"].split(" | ")[5] == "–"


def test_distances_are_compared_at_both_truncations() -> None:
    rows = {"face": record(1.0), "head3d": record(1.5)}
    rows["head3d"]["distance"]["front, truncated"]["kernel"]["value"] = 5.0
    what = {e.what: e.verdict(rows) for e in EXPECTATIONS}
    assert what["Head3D: frontal distance / teacher's"] == "met"
    assert what["the same, both at truncation 0.7"] == "**not met**"


def test_a_ratio_is_as_uncertain_as_both_its_distances() -> None:
    rows = {"face": record(1.0), "head": record(2.0, back=1.0, spread=0.3), "head3d": record(1.5, back=1.4)}
    line = next(s for s in expectations_table(rows).splitlines() if "back distance" in s)
    assert "| 1.4 [1.07, 2.01] |" in line
    assert "spans the limit" in line
