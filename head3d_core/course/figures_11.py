"""Figures of notebook 11: who speaks, rows side by side in pictures, numbers and curves."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from head3d_core.course import figures_training
from head3d_core.course.figures import PALETTE
from head3d_core.course.figures_10 import MARKERS, recorded_picture
from head3d_core.evaluation import ablations
from head3d_core.evaluation.ablations import FULL, FULL_FITTED, Measure, label
from head3d_core.evaluation.pictures import FACE_YAWS, ROWS, TURN
from head3d_core.evaluation.tables import EVALUATION, Records
from head3d_core.metrics.distances import Estimate

SHOWN_SIDE = 112
"""Pixels to which recorded cells are enlarged."""
COMPARED_SIDE = 64
"""Pixels to which recorded cells are shrunk where rows are compared: older grids have no more."""


def short(row: str, width: int = 19) -> str:
    """A row's name in lines of about `width` letters; what stands in brackets is not broken."""
    whole = re.sub(r"\(.*?\)", lambda brackets: brackets[0].replace(" ", "\u00a0"), label(row))
    return "\n".join(textwrap.wrap(whole, width, break_long_words=False))


# -- who speaks ----------------------------------------------------------------------------------------------------


def speakers_figure(found: Mapping[str, Mapping[str, Sequence[str]]], full: str = FULL) -> Any:
    """A table of the terms that reach each plane, by row.

    Against the row `full`, a term that is gone stands with −, a new one with +.
    """
    import matplotlib.pyplot as plt

    rows, places = list(found), list(found[full])
    figure, axis = plt.subplots(figsize=(11, 0.62 * len(rows) + 0.6), layout="constrained")
    axis.set(xlim=(0, len(places)), ylim=(len(rows), 0))
    for r, row in enumerate(rows):
        for c, place in enumerate(places):
            here, before = found[row][place], found[full][place]
            gone = [name for name in before if name not in here]
            new = [name for name in here if name not in before]
            kept = [name for name in here if name in before]
            axis.text(c + 0.5, r + (0.32 if gone or new else 0.5), "  ".join(kept), ha="center", va="center")
            words = [f"−{name}" for name in gone] + [f"+{name}" for name in new]
            axis.text(
                c + 0.5,
                r + 0.72,
                "  ".join(words),
                ha="center",
                va="center",
                color=PALETTE[1],
                fontweight="bold",
            )
        axis.axhline(r, color="0.8", linewidth=1)
    for c in range(1, len(places)):
        axis.axvline(c, color="0.5" if c == 2 else "0.85", linewidth=2 if c == 2 else 1)
    axis.set_xticks([c + 0.5 for c in range(len(places))], places)
    axis.set_yticks([r + 0.5 for r in range(len(rows))], [short(row, 26) for row in rows])
    axis.tick_params(length=0, labeltop=True, labelbottom=False)
    for spine in axis.spines.values():
        spine.set_visible(False)
    return figure


# -- pictures ------------------------------------------------------------------------------------------------------


def larger(images: Tensor, side: int = SHOWN_SIDE) -> Tensor:
    """Pictures [N, 3, h, w] in [-1, 1], enlarged smoothly (or shrunk) to `side`."""
    return F.interpolate(images, size=(side, side), mode="bicubic", antialias=True).clamp(-1, 1)


def recorded_views(
    row: str, yaws: Sequence[float], folder: Path = EVALUATION, largest: int = COMPARED_SIDE
) -> Tensor | None:
    """Recorded samples of a row: [8, V, 3, s, s] from `yaws` (degrees), or None if they are not there.

    The same number is the same z in every row.

    Args:
        largest: s at most, pixels; larger pictures are averaged down.
    """
    sheet = recorded_picture(f"{row}_views.jpg", folder)
    if sheet is None:
        return None
    side = sheet.shape[1] // ROWS
    there: tuple[int, ...] = TURN if sheet.shape[2] // side == len(TURN) else FACE_YAWS
    cells = sheet.reshape(3, ROWS, side, -1, side).permute(1, 3, 0, 2, 4)
    found = cells[:, [there.index(round(yaw)) for yaw in yaws]]
    if side <= largest:
        return found
    small = F.interpolate(found.flatten(0, 1), size=(largest, largest), mode="area")
    return small.unflatten(0, found.shape[:2])


def same_codes(rows: Sequence[str], codes: Sequence[int], folder: Path = EVALUATION) -> Any | None:
    """Fig. 9: frontal views, one row of the comparison a line, one z a column. None if nothing is recorded."""
    found = {row: recorded_views(row, (0.0,), folder, SHOWN_SIDE) for row in rows}
    lines = {row: larger(views[list(codes), 0]) for row, views in found.items() if views is not None}
    if not lines:
        return None
    columns = [f"z {k}" for k in codes]
    return figures_training.view_grid(list(lines.values()), [short(row, 17) for row in lines], columns, 1.3)


def all_around(
    rows: Sequence[str],
    codes: Sequence[int],
    yaws: Sequence[float],
    folder: Path = EVALUATION,
    live: Mapping[str, Tensor] | None = None,
) -> Any | None:
    """Figs. 6 and 8: a few codes from some sides, one row of the comparison a line. None if nothing is recorded.

    Args:
        live: [codes, V, 3, s, s] of rows that were not recorded from these sides (`ablations.seen_from`).
    """
    found = dict(live or {})
    for row in rows:
        views = None if row in found else recorded_views(row, yaws, folder, SHOWN_SIDE)
        if views is not None:
            found[row] = views[list(codes)]
    lines = {row: larger(found[row].flatten(0, 1)) for row in rows if row in found}
    if not lines:
        return None
    columns = [f"z {k}, {yaw:.0f}°" for k in codes for yaw in yaws]
    return figures_training.view_grid(list(lines.values()), [short(row, 17) for row in lines], columns, 1.3)


# -- numbers -------------------------------------------------------------------------------------------------------


def _lines(axis: Any, found: Mapping[str, Estimate], rows: Sequence[str]) -> None:
    """Dots with intervals, one a row; a sentence where a row is missing."""
    for k, row in enumerate(rows):
        if row in found:
            e = found[row]
            axis.plot([e.low, e.high], [k, k], color=PALETTE[0], linewidth=2.5)
            axis.plot(e.value, k, MARKERS[0], color=PALETTE[1], markersize=7)
    low, high = axis.get_xlim()
    for k, row in enumerate(rows):
        if row not in found:
            axis.text(
                (low + high) / 2,
                k,
                "not recorded yet",
                ha="center",
                va="center",
                style="italic",
                color="0.35",
            )
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.grid(axis="x", alpha=0.3)


def rows_figure(
    rows: Sequence[str],
    measures: Sequence[Measure],
    records: Records,
    paper: Mapping[str, Any],
    reference: str,
) -> Any:
    """Recorded numbers as dots with 95 % intervals, the reference's interval as a band; ranks beside the paper's."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1,
        len(measures),
        figsize=(3.9 * len(measures), 0.6 * len(rows) + 1.3),
        sharey=True,
        layout="constrained",
    )
    for axis, measure in zip(axes, measures, strict=True):
        found = ablations.measured(rows, measure, records)
        if reference in found:
            axis.axvspan(found[reference].low, found[reference].high, color="0.9", zorder=0)
        _lines(axis, found, rows)
        arrow = "lower is better" if measure.better == "low" else "higher is better"
        axis.set(title=f"{measure.name}\n({arrow})")
        axis.locator_params(axis="x", nbins=4)
        theirs = ablations.printed(rows, measure, paper)
        if theirs:
            ours = ablations.ranks({row: e.value for row, e in found.items()}, measure.better)
            placed = ablations.ranks({row: theirs[row] for row in ours if row in theirs}, measure.better)
            side = axis.secondary_yaxis("right")
            names = [f"{ours[row]} | {placed[row]}" if row in placed else "–" for row in rows]
            side.set_yticks(range(len(rows)), names)
            side.tick_params(length=0)
            axis.text(1.02, 1.02, "rank\nours | paper", transform=axis.transAxes, va="bottom", fontsize=10)
    axes[0].set_yticks(range(len(rows)), [short(row) for row in rows])
    return figure


def costs_figure(rows: Sequence[str], measures: Sequence[Measure], records: Records) -> Any:
    """How much worse each row is than its reference, beside how far runs lie apart in which no part was left out.

    To the right is worse. Light band: the distance of the two full methods, whose discriminators differed at the start;
    dark band: the largest distance between two runs of one recipe of Table 3 or Fig. 8 (`ablations.run_to_run`). The
    first lines are the full method from fitted discriminators against the other one, and its further runs against it.
    """
    import matplotlib.pyplot as plt

    again = [name for name in ablations.runs_of(FULL, records) if name != FULL_FITTED]
    pairs = {FULL_FITTED: (FULL_FITTED, FULL)} | {name: (name, FULL_FITTED) for name in again}
    columns = 2
    lines = -(-len(measures) // columns)
    names = [*pairs, *rows]
    figure, axes = plt.subplots(
        lines,
        columns,
        figsize=(11, (0.42 * len(names) + 1.1) * lines),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axis, measure in zip(axes.flat, measures, strict=False):
        found = {row: ablations.cost(records, row, measure) for row in rows}
        found |= {name: ablations.cost(records, pair[0], measure, pair[1]) for name, pair in pairs.items()}
        for width, grey in (
            (ablations.apart(records, ablations.FULLS, measure), "0.92"),
            (ablations.run_to_run(records, measure), "0.8"),
        ):
            if width is not None:
                axis.axvspan(-width, width, color=grey, zorder=0)
        axis.axvline(0, color="0.4", linewidth=1)
        _lines(axis, {row: e for row, e in found.items() if e is not None}, names)
        axis.set(title=measure.name, xlabel="worse than the full method →")
    seeds = [name.removeprefix(f"{FULL}-").removesuffix("-fitted").replace("seed", "seed ") for name in again]
    labels = ["no part left out,\nother discriminators", *(f"no part left out,\n{seed}" for seed in seeds)]
    axes[0, 0].set_yticks(range(len(names)), [*labels, *(short(row, 26) for row in rows)])
    return figure


# -- curves --------------------------------------------------------------------------------------------------------


def row_curves(runs: Mapping[str, Mapping[str, Any]], series: Sequence[tuple[str, str]]) -> Any:
    """Recorded curves of several rows, one panel a term: (name in the record, title)."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

    figure, axes = plt.subplots(
        1, len(series), figsize=(3.9 * len(series), 3.9), squeeze=False, layout="constrained"
    )
    for axis, (name, title) in zip(axes[0], series, strict=True):
        for k, (row, run) in enumerate(runs.items()):
            x, y = figures_training.values(run, name)
            if len(x):
                axis.plot(
                    x / 1000, y, figures_training.STYLES[k % 4], marker=MARKERS[k], markersize=5,
                    markevery=max(1, len(x) // 6), color=PALETTE[k], linewidth=1.8, label=label(row),
                )  # fmt: skip
        drawn = [y for line in axis.lines for y in line.get_ydata()]
        axis.set(title=title, xlabel="real images shown (thousands)")
        if drawn and min(drawn) > 0:
            axis.set_yscale("log")
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter(FormatStrFormatter("%g"))
            axis.yaxis.set_minor_formatter(NullFormatter())
        axis.grid(alpha=0.3)
    handles = {text: h for axis in axes[0] for h, text in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2)
    return figure


def pairs_figure(values: Mapping[str, Tensor], label: str) -> Any:
    """Two measurements of the same codes [n], left and right, a line a code: solid where it rises, else dashed."""
    import matplotlib.pyplot as plt

    (left, a), (right, b) = values.items()
    figure, axis = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
    for one, other in zip(a.tolist(), b.tolist(), strict=True):
        rises = other > one
        axis.plot(
            [0, 1], [one, other], "-" if rises else "--", marker=MARKERS[0 if rises else 1], markersize=5,
            color=PALETTE[0 if rises else 1], linewidth=1.5, label="rises" if rises else "falls",
        )  # fmt: skip
    axis.plot([-0.12, 1.12], [a.mean(), b.mean()], "k_", markersize=24, markeredgewidth=3, label="mean")
    axis.set_xticks([0, 1], [left, right])
    axis.set(ylabel=label, xlim=(-0.35, 1.35))
    handles = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    axis.legend(handles.values(), handles.keys(), loc="upper left")
    axis.grid(axis="y", alpha=0.3)
    return figure
