"""Notebook 11: which losses reach which plane; rows side by side in images, numbers and curves."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from head3d_core.course import figures
from head3d_core.course.exercises import Exercise, vector, wrong
from head3d_core.course.figures import PALETTE
from head3d_core.course.recorded import EVALUATION, cells, larger, recorded_picture, values
from head3d_core.evaluation import ablations
from head3d_core.evaluation.ablations import FULL, FULL_FITTED, Measure, label
from head3d_core.evaluation.pictures import FACE_YAWS, ROWS, TURN
from head3d_core.evaluation.tables import Records

COMPARED_SIDE = 64
"""Pixels to which recorded cells are shrunk where rows are compared: older grids have no more."""
SHOWN_SIDE = 112
"""Pixels to which recorded cells are enlarged where they are shown."""


def short(row: str, width: int = 19) -> str:
    """A row's name in lines of about `width` letters; what stands in brackets is not broken."""
    whole = re.sub(r"\(.*?\)", lambda brackets: brackets[0].replace(" ", "\u00a0"), label(row))
    return "\n".join(textwrap.wrap(whole, width, break_long_words=False))


def speakers_figure(found: Mapping[str, Mapping[str, Sequence[str]]], full: str = FULL) -> Any:
    """A table of the terms that reach each plane, by row.

    Against the row `full`, a term that is gone stands with −, a new one with +.
    """
    rows, places = list(found), list(found[full])
    figure, axis = figures.panels(11, 0.62 * len(rows) + 0.6)
    axis.set(xlim=(0, len(places)), ylim=(len(rows), 0))
    for r, row in enumerate(rows):
        for c, place in enumerate(places):
            here, before = found[row][place], found[full][place]
            kept = [name for name in here if name in before]
            changes = [f"−{name}" for name in before if name not in here]
            changes += [f"+{name}" for name in here if name not in before]
            middle = {"ha": "center", "va": "center"}
            axis.text(c + 0.5, r + (0.32 if changes else 0.5), "  ".join(kept), **middle)
            axis.text(c + 0.5, r + 0.72, "  ".join(changes), color=PALETTE[1], fontweight="bold", **middle)
        axis.axhline(r, color="0.8", linewidth=1)
    for c in range(1, len(places)):
        axis.axvline(c, color="0.5" if c == 2 else "0.85", linewidth=2 if c == 2 else 1)
    axis.set_xticks([c + 0.5 for c in range(len(places))], places)
    axis.set_yticks([r + 0.5 for r in range(len(rows))], [short(row, 26) for row in rows])
    axis.tick_params(length=0, labeltop=True, labelbottom=False)
    axis.spines[:].set_visible(False)
    return figure


# --- images -----------------------------------------------------------------------------------------------------------


def recorded_views(
    row: str, yaws: Sequence[float], folder: Path = EVALUATION, largest: int = COMPARED_SIDE
) -> Tensor | None:
    """Recorded samples of a row: [8, V, 3, s, s] from `yaws` (degrees), or None if they are not there.

    The same number is the same z in every row.

    Args:
        largest: s at most, pixels; larger images are averaged down.
    """
    sheet = recorded_picture(f"{row}_views.jpg", folder)
    if sheet is None:
        return None
    columns = ROWS * sheet.shape[2] // sheet.shape[1]
    there: tuple[int, ...] = TURN if columns == len(TURN) else FACE_YAWS
    found = cells(sheet, ROWS, columns)[:, [there.index(round(yaw)) for yaw in yaws]]
    if found.shape[-1] <= largest:
        return found
    small = F.interpolate(found.flatten(0, 1), size=(largest, largest), mode="area")
    return small.unflatten(0, found.shape[:2])


def all_around(
    rows: Sequence[str],
    codes: Sequence[int],
    yaws: Sequence[float] = (0.0,),
    folder: Path = EVALUATION,
    live: Mapping[str, Tensor] | None = None,
) -> Any | None:
    """Figs. 6, 8 and 9: a few codes from some sides, one row of the comparison a line. None if nothing is recorded.

    Args:
        live: [codes, V, 3, s, s] of rows that were not recorded from these sides (`ablations.seen_from`).
    """
    found = dict(live or {})
    for row in rows:
        views = None if row in found else recorded_views(row, yaws, folder, SHOWN_SIDE)
        if views is not None:
            found[row] = views[list(codes)]
    lines = {row: larger(found[row].flatten(0, 1), SHOWN_SIDE) for row in rows if row in found}
    if not lines:
        return None
    columns = [f"z {k}, {yaw:.0f}°" if len(yaws) > 1 else f"z {k}" for k in codes for yaw in yaws]
    names = [short(row, 17) for row in lines]
    return figures.image_grid(list(lines.values()), columns, size=1.3, rows=names)


# --- numbers ----------------------------------------------------------------------------------------------------------


def rows_figure(
    rows: Sequence[str],
    measures: Sequence[Measure],
    records: Records,
    paper: Mapping[str, Any],
    reference: str,
) -> Any:
    """Recorded numbers as dots with 95 % intervals, the reference's interval as a band; ranks beside the paper's."""
    width, height = 3.9 * len(measures), 0.6 * len(rows) + 1.3
    figure, axes = figures.panels(width, height, 1, len(measures), sharey=True)
    for axis, measure in zip(axes, measures, strict=True):
        found = ablations.measured(rows, measure, records)
        if reference in found:
            axis.axvspan(found[reference].low, found[reference].high, color="0.9", zorder=0)
        figures.dots(axis, [found.get(row) for row in rows])
        axis.set(title=f"{measure.name}\n({'lower' if measure.better == 'low' else 'higher'} is better)")
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
    again = [name for name in ablations.runs_of(FULL, records) if name != FULL_FITTED]
    pairs = {FULL_FITTED: (FULL_FITTED, FULL)} | {name: (name, FULL_FITTED) for name in again}
    names, lines = [*pairs, *rows], -(-len(measures) // 2)
    figure, axes = figures.panels(11, (0.42 * len(names) + 1.1) * lines, lines, 2, sharey=True, squeeze=False)
    for axis, measure in zip(axes.flat, measures, strict=False):
        found = [ablations.cost(records, pair[0], measure, pair[1]) for pair in pairs.values()]
        found += [ablations.cost(records, row, measure) for row in rows]
        light = ablations.apart(records, ablations.FULLS, measure)
        for width, grey in ((light, "0.92"), (ablations.run_to_run(records, measure), "0.8")):
            if width is not None:
                axis.axvspan(-width, width, color=grey, zorder=0)
        axis.axvline(0, color="0.4", linewidth=1)
        figures.dots(axis, found)
        axis.set(title=measure.name, xlabel="worse than the full method →")
    seeds = [name.removeprefix(f"{FULL}-").removesuffix("-fitted").replace("seed", "seed ") for name in again]
    labels = ["no part left out,\nother discriminators", *(f"no part left out,\n{seed}" for seed in seeds)]
    axes[0, 0].set_yticks(range(len(names)), [*labels, *(short(row, 26) for row in rows)])
    return figure


def row_curves(runs: Mapping[str, Mapping[str, Any]], series: Sequence[tuple[str, str]]) -> Any:
    """Recorded curves of several rows, one panel a term: (name in the record, title)."""
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

    figure, axes = figures.panels(3.9 * len(series), 3.9, 1, len(series), squeeze=False)
    for axis, (name, title) in zip(axes[0], series, strict=True):
        for k, (row, run) in enumerate(runs.items()):
            x, y = values(run, name)
            if len(x):
                figures.curve(axis, k, x / 1000, y, label(row), markersize=5)
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
    (left, a), (right, b) = values.items()
    figure, axis = figures.panels(6.4, 3.4)
    for one, other in zip(a.tolist(), b.tolist(), strict=True):
        k = 0 if other > one else 1
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


def _decided(a_low: float, a_high: float, b_low: float, b_high: float) -> bool:
    return a_high < b_low or b_high < a_low


rows_differ = Exercise(
    truth=_decided,
    cases=[
        (1.0, 1.2, 1.3, 1.5),
        (1.3, 1.5, 1.0, 1.2),
        (1.0, 1.4, 1.3, 1.5),
        (1.0, 2.0, 1.4, 1.5),
        (1.4, 1.5, 1.0, 2.0),
        (0.2, 0.9, 0.1, 0.3),
    ],
    mistakes=wrong(
        "row a may also be the worse one: look whether b ends before a begins, too",
        lambda al, ah, bl, bh: ah < bl,
        "row a may also be the better one: look whether a ends before b begins, too",
        lambda al, ah, bl, bh: bh < al,
        "two measured numbers always differ: ask whether their intervals are apart",
        lambda al, ah, bl, bh: (al + ah) / 2 != (bl + bh) / 2,
        "intervals overlap without one lying inside the other",
        lambda al, ah, bl, bh: not (al >= bl and ah <= bh),
    ),
)


def _kendall(ours: Tensor, theirs: Tensor, neighbours: bool = False) -> Tensor:
    a, b = (x[:, None] - x[None, :] for x in (ours, theirs))
    agree = torch.sign(a) * torch.sign(b)
    if neighbours:
        return agree.diagonal(1).mean()
    first, second = torch.triu_indices(len(ours), len(ours), 1)
    return agree[first, second].mean()


def _positions(x: Tensor) -> Tensor:
    return x.argsort().argsort()


def _concordant(ours: Tensor, theirs: Tensor) -> Tensor:
    return (_kendall(ours, theirs) + 1) / 2


rank_agreement = Exercise(
    truth=_kendall,
    cases=[
        (vector(3.1, 2.4, 1.9, 0.6), vector(44.8, 29.8, 19.5, 11.3)),
        (vector(0.2, 2.4, 1.9, 9.6), vector(44.8, 29.8, 19.5, 11.3)),
        (vector(2.0, 1.0, 4.0, 3.0, 5.0), vector(10.0, 20.0, 30.0, 40.0, 90.0)),
        (vector(1.0, 5.0, 2.0), vector(0.3, 0.1, 0.2)),
    ],
    mistakes=wrong(
        "this is the share of pairs in the same order, ½ for unrelated rows: subtract the pairs in the other order",
        _concordant,
        "two orders can agree though every row has moved by one place: compare pairs, not places",
        lambda a, b: (_positions(a) == _positions(b)).double().mean(),
        "this compares sizes, and the two scales have nothing to do with each other: use the order alone",
        lambda a, b: torch.corrcoef(torch.stack([a, b]))[0, 1],
        "only neighbours are compared: take every pair of rows",
        lambda a, b: _kendall(a, b, neighbours=True),
        "the sign: a pair in the same order counts +1",
        lambda a, b: -_kendall(a, b),
    ),
)


def _half_width(a: Tensor, b: Tensor) -> Tensor:
    return 1.96 * (a - b).std() / math.sqrt(len(a))


def _twins(seed: int, count: int, common: float) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shared, one, other = torch.randn(3, count, generator=generator, dtype=torch.float64)
    return 0.5 + 0.1 * (common * shared + one), 0.3 + 0.1 * (common * shared + other)


paired_half_width = Exercise(
    truth=_half_width,
    cases=[_twins(0, 12, 2.0), _twins(1, 30, 1.0), _twins(2, 5, 0.0)],
    tolerance=1e-5,
    mistakes=wrong(
        "this forgets the pairs: take the difference for each z first, then its spread",
        lambda a, b: 1.96 * ((a.var() + b.var()) / len(a)).sqrt(),
        "adding the two half-widths is too wide even for strangers: take the spread of the differences",
        lambda a, b: 1.96 * (a.std() + b.std()) / math.sqrt(len(a)),
        "this is the spread of single heads; the mean of n of them is √n times surer",
        lambda a, b: 1.96 * (a - b).std(),
        "the spread of n values around their own mean is divided by n − 1",
        lambda a, b: 1.96 * (a - b).std(correction=0) / math.sqrt(len(a)),
        "this is the whole width: half of it lies on either side of the mean",
        lambda a, b: 2 * _half_width(a, b),
        "this is the standard error: 95 % lie within 1.96 of it",
        lambda a, b: _half_width(a, b) / 1.96,
    ),
)
