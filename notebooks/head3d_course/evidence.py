"""What runs say about a part of the method: differences run by run, a verdict, and the distance by yaw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from head3d_core.evaluation.rows import Distance, Row, Rows
from head3d_core.evaluation.tables import markdown
from head3d_core.utils.estimates import Estimate
from head3d_course import ablations, figures
from head3d_course.ablations import COSINE, FRONT, JANUS, Measure

PANELS = {
    "distance": "KD × 100 to real people",
    "detected": "a face is found",
    "consistency": "cosine to the own front",
}
"""What a record has for each step of |yaw|, and its title."""
PAIRS = {
    "two discriminators": ("head3d-seed0-fitted", "head3d-seed1-fitted"),
    "one discriminator": ("single-d-seed0-fitted", "single-d-seed1-fitted"),
    "all planes distilled": ("all-planes", "all-planes-seed1-fitted"),
}
"""Recipe -> its runs with seeds 0 and 1, all from discriminators that were fitted first."""


# --- by yaw -----------------------------------------------------------------------------------------------------------


def by_yaw(record: Row | None, what: str = "distance") -> dict[tuple[int, int], Estimate]:
    """A number of `PANELS` by step of |yaw|, (low, high) in degrees; steps without it are left out."""
    found: dict[tuple[int, int], Estimate] = {}
    for step in record.by_yaw if record is not None else ():
        value = step.distance if what == "distance" else getattr(step, what)
        value = value.kernel if isinstance(value, Distance) else value
        if value is not None:
            found[step.low, step.high] = value
    return found


def _behind(record: Row) -> Estimate | None:
    """The mean over 120 to 150° of yaw. Its interval is the mean of theirs: too wide, if anything."""
    steps = [e for (low, high), e in by_yaw(record).items() if low >= 120 and high <= 150]
    if not steps:
        return None
    value, low, high = (sum(getattr(e, k) for e in steps) / len(steps) for k in ("value", "low", "high"))
    return Estimate(value, low, high, steps[0].count)


BEHIND = Measure("KD × 100 at 120–150°", "low", _behind)
SECOND_FACE = ablations.SECOND_FACES[0]
MEASURES = (FRONT, COSINE, JANUS, BEHIND, SECOND_FACE)


def yaw_figure(
    records: Rows,
    groups: Mapping[str, Sequence[str]],
    panels: Sequence[str] = ("distance",),
    least: int = 0,
) -> Any:
    """Numbers of `PANELS` against |yaw|, from `least` degrees on, with 95 % intervals as bands.

    Args:
        groups: label -> rows; a group has one colour and marker, its second row a dashed line.
    """
    figure, axes = figures.panels(9 if len(panels) == 1 else 11, 4, 1, len(panels), squeeze=False)
    for axis, what in zip(axes[0], panels, strict=True):
        for k, (name, rows) in enumerate(groups.items()):
            for run, row in enumerate(rows):
                found = {step: e for step, e in by_yaw(records.get(row), what).items() if step[0] >= least}
                x, colour = [sum(step) / 2 for step in found], figures.PALETTE[k]
                label = name if len(rows) == 1 else f"{name}, seed {run}"
                style: dict[str, Any] = {"linestyle": figures.STYLES[run], "marker": figures.MARKERS[k]}
                axis.plot(x, [e.value for e in found.values()], color=colour, label=label, **style)
                band = ([e.low for e in found.values()], [e.high for e in found.values()])
                axis.fill_between(x, *band, color=colour, alpha=0.12, linewidth=0)
        axis.set(
            title=PANELS[what], xlabel="|yaw| (degrees)", xticks=range(least, 181, 45 if least < 45 else 15)
        )
        axis.grid(alpha=0.3)
    figure.legend(*axes[0, -1].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def farther_steps(records: Rows, recipe: str) -> list[list[str]]:
    """Steps of |yaw| at which each run of a recipe of `PAIRS` is farther from real people than two discriminators.

    A step counts if the two 95 % intervals are apart.
    """
    found = []
    for full, other in zip(PAIRS["two discriminators"], PAIRS[recipe], strict=True):
        a, b = (by_yaw(records.get(row)) for row in (full, other))
        found.append([f"{s[0]}–{s[1]}°" for s in a if s in b and b[s].low > a[s].high])
    return found


# --- verdicts ---------------------------------------------------------------------------------------------------------


def differences(records: Rows, row: str, measure: Measure) -> list[Estimate]:
    """How much worse each run of a row is than the full method of its seed; runs without the number are left out."""
    runs = ablations.runs_of(ablations.base_of(row, records), records)
    costs = (ablations.cost(records, run, measure) for run in runs)
    return [e for e in costs if e is not None]


def verdict(found: Sequence[Estimate]) -> str:
    """*shows*: the interval of the difference excludes 0 in every run, always on one side, and there are two or more.

    *suggests*: in some runs, on one side; *cannot tell*: in none, or on both sides.
    """
    decided = {e.value > 0 for e in found if e.decided}
    if len(decided) != 1:
        return "cannot tell"
    return "shows" if len(found) > 1 and all(e.decided for e in found) else "suggests"


def direction(found: Sequence[Estimate]) -> str:
    """ "worse", "better", or "" where the runs cannot tell."""
    decided = [e.value > 0 for e in found if e.decided]
    return "" if verdict(found) == "cannot tell" else "worse" if decided[0] else "better"


def agreement(found: Sequence[Estimate], paper: str) -> str:
    """Whether our runs have the direction that the paper has: "agrees", "differs" or "cannot tell"."""
    ours = direction(found)
    return "agrees" if ours == paper else "differs" if ours else "cannot tell"


def evidence_table(
    records: Rows,
    row: str,
    measures: Sequence[Measure] = MEASURES,
    expected: Mapping[Measure, str] | None = None,
) -> str:
    """Markdown: for each measure the full method's value, the difference of each run, and the verdict.

    Args:
        expected: what the paper says, "worse" or "better"; adds a column that compares.
    """
    heads = ["measure", "full method", "this row: difference for each seed", "verdict"]
    heads += ["the paper"] if expected is not None else []
    lines, full = [], records.get(ablations.FULL_FITTED)
    for measure in measures if full else ():
        found, whole = differences(records, row, measure), measure.of(records[ablations.FULL_FITTED])
        if not found or whole is None:
            continue
        sign, digits = (1 if measure.better == "low" else -1), (1 if whole.value >= 1 else 2)
        ends = "; ".join(f"{sign * e.value:+.{digits}f} ± {(e.high - e.low) / 2:.{digits}f}" for e in found)
        cells = [
            measure.name,
            f"{whole.value:.{digits}f}",
            ends,
            f"{verdict(found)} {direction(found)}".strip(),
        ]
        if expected is not None:
            paper = expected.get(measure, "")
            cells.append(f"{paper}: {agreement(found, paper)}" if paper else "")
        lines.append(cells)
    return markdown(heads, lines)
