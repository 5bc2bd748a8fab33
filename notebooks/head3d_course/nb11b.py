"""Notebook 11b: how far runs lie apart in which nothing was left out, and what pairs are worth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from head3d_core.evaluation.rows import Rows
from head3d_course import ablations, figures
from head3d_course.ablations import FULL, FULL_FITTED, Measure
from head3d_course.exercises import Exercise, random
from head3d_course.nb11a import short


def costs_figure(rows: Sequence[str], measures: Sequence[Measure], records: Rows) -> Any:
    """How much worse each row is than its reference, beside how far runs lie apart in which no part was left out.

    To the right is worse. Light band: the distance of the two full methods, whose discriminators differed at the start;
    dark band: the largest distance between two runs of one recipe of Table 3 or Fig. 8 (`ablations.run_to_run`). The
    first lines are the full method from fitted discriminators against the other one, and its further runs against it.
    """
    again = [name for name in ablations.runs_of(FULL, records) if name != FULL_FITTED]
    pairs = {FULL_FITTED: (FULL_FITTED, FULL)} | {name: (name, FULL_FITTED) for name in again}
    names, lines = [*pairs, *rows], -(-len(measures) // 2)
    figure, axes = figures.panels(11, (0.42 * len(names) + 1.1) * lines, lines, 2, sharey=True, squeeze=False)
    for axis, measure in zip(axes.flat, measures, strict=False):
        found = [ablations.cost(records, pair[0], measure, pair[1]) for pair in pairs.values()]
        found += [ablations.cost(records, row, measure) for row in rows]
        light = ablations.apart(records, ablations.FULLS, measure)
        bands = {
            "another start": (light, "0.92"),
            "another seed": (ablations.run_to_run(records, measure), "0.8"),
        }
        for name, (width, grey) in bands.items():
            if width is not None:
                axis.axvspan(-width, width, color=grey, zorder=0, label=f"within {name}")
        axis.axvline(0, color="0.4", linewidth=1)
        figures.dots(axis, found)
        axis.set(title=measure.name, xlabel="worse than the full method →")
    handles = dict(zip(*reversed(axes[0, 0].get_legend_handles_labels()), strict=True))
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2)
    seeds = [name.removeprefix(f"{FULL}-").removesuffix("-fitted").replace("seed", "seed ") for name in again]
    labels = ["no part left out,\nother discriminators", *(f"no part left out,\n{seed}" for seed in seeds)]
    axes[0, 0].set_yticks(range(len(names)), [*labels, *(short(row, 26) for row in rows)])
    return figure


def pairs_figure(values: Mapping[str, Tensor], label: str) -> Any:
    """Two measurements of the same codes [n], left and right, a line a code: solid where it rises, else dashed."""
    (left, a), (right, b) = values.items()
    figure, axis = figures.panels(6.4, 3.4)
    # Two decimals, so that no machine's last digits move the figure's stored facts.
    ends = zip(figures.rounded(a, 2), figures.rounded(b, 2), (b > a).tolist(), strict=True)
    for one, other, rises in ends:
        k = 0 if rises else 1
        figures.curve(axis, k, [0, 1], [one, other], ("rises", "falls")[k], markersize=5, linewidth=1.5)
    mean: dict[str, Any] = {"markersize": 24, "markeredgewidth": 3, "label": "mean"}
    axis.plot([-0.12, 1.12], [a.mean(), b.mean()], "k_", **mean)
    axis.set_xticks([0, 1], [left, right])
    axis.set(ylabel=label, xlim=(-0.35, 1.35))
    handles = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    axis.legend(handles.values(), handles.keys(), loc="upper left")
    axis.grid(axis="y", alpha=0.3)
    return figure


# --- exercises --------------------------------------------------------------------------------------------------------


def _half_width(a: Tensor, b: Tensor) -> Tensor:
    return 1.96 * (a - b).std() / math.sqrt(len(a))


def _twins(seed: int, count: int, common: float) -> tuple[Tensor, Tensor]:
    shared, one, other = random(seed, 3, count).double()
    return 0.5 + 0.1 * (common * shared + one), 0.3 + 0.1 * (common * shared + other)


paired_half_width = Exercise(
    truth=_half_width,
    cases=[_twins(0, 12, 2.0), _twins(1, 30, 1.0), _twins(2, 5, 0.0)],
    tolerance=1e-5,
    mistakes={
        "this forgets the pairs: take differences": lambda a, b: 1.96 * ((a.var() + b.var()) / len(a)).sqrt(),
        "take the spread of the differences": lambda a, b: 1.96 * (a.std() + b.std()) / math.sqrt(len(a)),
        "this is the spread of single heads, not of their mean": lambda a, b: 1.96 * (a - b).std(),
        "the spread is divided by n − 1": lambda a, b: 1.96 * (a - b).std(correction=0) / math.sqrt(len(a)),
        "this is the whole width, not half of it": lambda a, b: 2 * _half_width(a, b),
        "this is the standard error: 95 % lie within 1.96 of it": lambda a, b: _half_width(a, b) / 1.96,
    },
)

codes_needed = Exercise(
    truth=lambda spread, half_width: math.ceil((1.96 * spread / half_width) ** 2),
    cases=[(0.13, 0.06), (0.13, 0.01), (2.0, 0.5)],
    mistakes={
        "half the width needs four times the codes: square it": lambda s, h: math.ceil(1.96 * s / h),
        "this is the standard error's rule: 95 % lie within 1.96 of it": lambda s, h: math.ceil((s / h) ** 2),
        "h is half of the interval already": lambda s, h: math.ceil((2 * 1.96 * s / h) ** 2),
        "upside down: more codes make it narrower": lambda s, h: math.ceil((1.96 * h / s) ** 2),
    },
    tolerance=1e-9,
)
