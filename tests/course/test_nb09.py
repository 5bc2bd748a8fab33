"""The distance by yaw in notebook 09: read from records, drawn, and compared seed by seed."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl

from head3d_core.course import nb09

mpl.use("Agg")


def record(*values: float) -> dict[str, Any]:
    """A row whose distance in steps of 15° from 90° on has these values, give or take 0.5."""
    steps = [
        {
            "low": 90 + 15 * k,
            "high": 105 + 15 * k,
            "distance": {"kernel": {"value": v, "low": v - 0.5, "high": v + 0.5, "count": 9}},
        }
        for k, v in enumerate(values)
    ]
    return {"by_yaw": steps}


def test_steps_count_where_the_intervals_are_apart() -> None:
    rows = {"head3d-seed0-fitted": record(9, 9, 9), "single-d-seed0-fitted": record(9.9, 10.1, 7.0)}
    assert nb09.farther_steps(rows, "one discriminator") == [["105–120°"], []]
    assert nb09.farther_steps(rows, "all planes distilled") == [[], []]
    assert nb09.distance_by_yaw(rows["head3d-seed0-fitted"])[90, 105].high == 9.5


def test_the_figure_has_a_line_a_run() -> None:
    rows = {name: record(9, 10) for pair in nb09.STARTED_ALIKE.values() for name in pair}
    figure = nb09.yaw_figure(rows)
    assert len(figure.axes[0].lines) == 6
    looks = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}
    assert len(looks) == 6
    assert figure.axes[0].lines[0].get_xdata().tolist() == [97.5, 112.5]
    assert len(nb09.yaw_figure({}).axes[0].lines) == 6, "runs that are not recorded leave empty lines"
    mpl.pyplot.close("all")
