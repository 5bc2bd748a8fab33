"""A run's log, condensed into a small file that notebooks and model cards read.

    python data/scripts/curves.py RUN --out data/results/curves_teacher.json

`log.jsonl` has a line every few seconds and one session for every resume. The record keeps means over some hundred
equal spans of images, how long the run took and on what, and (where the run kept sample grids) two small images.
"""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tyro.conf import Positional

from head3d_core.config import preset
from head3d_core.training.train import GRID_YAWS
from head3d_core.utils import images, records
from head3d_core.utils.errors import Head3DError
from script import main

POINTS = 120
"""Spans of images that a record keeps."""
_NOT_SERIES = ("event", "images", "seconds", "count")


def read_log(run: Path) -> tuple[list[dict[str, Any]], int]:
    """Events of a run's log in order, and how many lines a kill left half written.

    Args:
        run: the run's folder or its log.jsonl.

    Raises Head3DError if there is no log, or nothing in it that was trained.
    """
    path = run / "log.jsonl" if run.is_dir() else run
    if not path.is_file():
        raise Head3DError(f"there is no log {path}: give the folder that `train --out` named")
    events, broken = [], 0
    for line in path.read_text(encoding="utf8").splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            broken += 1
            continue
        if isinstance(event, dict) and "event" in event and "images" in event:
            events.append(event)
    if not {"start", "progress"} <= {e["event"] for e in events}:
        raise Head3DError(f"{path} has no start or no progress in it: has the run trained at all?")
    return events, broken


def surviving(events: list[dict[str, Any]], kind: str = "progress") -> tuple[list[dict[str, Any]], float]:
    """Events of one kind that the final weights went through, and the seconds of all sessions together.

    A resumed session starts from a snapshot: what an interrupted one did beyond it is gone, though its time was spent.
    """
    kept: list[dict[str, Any]] = []
    sessions = [0.0]
    for event in events:
        if event["event"] == "start":
            kept = [e for e in kept if e["images"] <= event["images"]]
            sessions.append(0.0)
        sessions[-1] = max(sessions[-1], float(event.get("seconds", 0.0)))
        kept += [event] * (event["event"] == kind)
    return kept, sum(sessions)


def thin(
    progress: list[dict[str, Any]], points: int = POINTS
) -> tuple[list[int], dict[str, list[float | None]]]:
    """Means over at most `points` equal spans of images.

    Returns:
        images at the end of each span that holds anything, and name -> values (None where a span has none).
    """
    last = max(p["images"] for p in progress)
    spans: dict[int, list[dict[str, Any]]] = {}
    for p in sorted(progress, key=lambda p: p["images"]):
        spans.setdefault(min(points - 1, (points * p["images"]) // max(last, 1)), []).append(p)
    names = sorted({k for p in progress for k in p if k not in _NOT_SERIES})
    series = {
        name: [_mean([p[name] for p in span if name in p]) for span in spans.values()] for name in names
    }
    return [span[-1]["images"] for span in spans.values()], series


def _mean(values: list[float]) -> float | None:
    finite = [float(v) for v in values if math.isfinite(v)]
    return float(f"{sum(finite) / len(finite):.5g}") if finite else None


def condense(run: Path, points: int = POINTS) -> dict[str, Any]:
    """The record of a run: provenance, recipe, and its curves as means over at most `points` spans.

    Args:
        run: the run's folder or its log.jsonl.

    Raises Head3DError for a run without a log.
    """
    events, broken = read_log(run)
    progress, seconds = surviving(events)
    images, series = thin(progress, points)
    measured, _ = surviving(events, "metrics")
    starts = [e for e in events if e["event"] == "start"]
    start = starts[-1]
    args, recipe = start.get("args", {}), start.get("recipe", {})
    path = run / "log.jsonl" if run.is_dir() else run
    written = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC)
    commits = dict.fromkeys(e["commit"] for e in starts if e.get("commit"))
    provenance = {
        **{key: args.get(key) for key in ("stage", "row", "preset")},
        "axes": _own_axes(args),
        **{key: args.get(key) for key in ("seed", "data", "heads")},
        "images": int(max(e["images"] for e in events if e["event"] in ("start", "progress", "end"))),
        "batch": recipe.get("batch"),
        "real_images": start.get("real_images"),
        "seconds": round(seconds, 1),
        "sessions": len(starts),
        "ended": next((e["reason"] for e in reversed(events) if e["event"] == "end"), "no end in the log"),
        "device": start.get("device"),
        "processes": sorted({int(e["world"]) for e in starts if e.get("world")}),
        "torch": start.get("torch"),
        "precision": start.get("options", {}).get("precision"),
        "perceptual": start.get("perceptual"),
        "date": start.get("date") or written.date().isoformat(),
        "commit": ", ".join(commits) or "not recorded",
    }
    return {
        "what": "curves of one training run: means over equal spans of real images shown",
        "provenance": provenance,
        "recipe": recipe,
        "half_written_lines": broken,
        "images": images,
        "series": series,
        "metrics": dict(zip(("images", "series"), thin(measured, points), strict=True)) if measured else None,
    }


def _own_axes(args: Mapping[str, Any]) -> str | None:
    """Axes of a run where they are not its preset's."""
    axes = args.get("generator", {}).get("render", {}).get("axes", args.get("axes"))
    return axes if axes != preset(args.get("preset", "classroom")).generator.render.axes else None


def kept_grids(run: Path) -> list[tuple[int, Path]]:
    """(images, file) of the sample grids that a run's folder holds, earliest first."""
    found = sorted(run.glob("grid-*.png")) if run.is_dir() else []
    return [(int(p.stem.removeprefix("grid-")), p) for p in found]


def _cells(path: Path, side: int) -> NDArray[np.uint8]:
    """A sample grid as [rows, views, side, side, 3]."""
    columns = len(GRID_YAWS)
    with Image.open(path) as opened:
        cell = opened.width // columns
        rows = opened.height // cell
        small = opened.convert("RGB").resize((columns * side, rows * side), Image.Resampling.LANCZOS)
    return np.asarray(small).reshape(rows, side, columns, side, 3).swapaxes(1, 2)


def progress_sheet(grids: Sequence[tuple[int, Path]], samples: int = 4, side: int = 112) -> NDArray[np.uint8]:
    """One row for each grid: the same samples from the front, then from behind, [rows * side, 2 samples * side, 3]."""
    rows = []
    for _, path in grids:
        cells = _cells(path, side)[:samples]
        views = [cells[k, GRID_YAWS.index(yaw)] for yaw in (0.0, 180.0) for k in range(len(cells))]
        rows.append(np.concatenate(views, 1))
    return np.concatenate(rows)


def evenly(grids: Sequence[tuple[int, Path]], count: int) -> list[tuple[int, Path]]:
    """At most `count` of them, first and last included."""
    chosen = np.linspace(0, len(grids) - 1, min(count, len(grids))).round().astype(int)
    return [grids[k] for k in dict.fromkeys(chosen.tolist())]


def write_record(run: Path, out: Path, side: int = 128, points: int = POINTS) -> dict[str, Any]:
    """Writes `condense(run, points)` to `out`, and two JPEGs beside it where grids were kept; returns the record.

    Args:
        side: of one view in the image of the last grid, pixels.

    Raises:
        Head3DError: no log, nothing trained, or `side` below 8.
    """
    if side < 8:
        raise Head3DError(f"a view needs at least 8 pixels a side to be seen, got {side}")
    record = condense(run, points)
    if grids := kept_grids(run):
        chosen, samples = evenly(grids, 4), 4
        last = _cells(grids[-1][1], side)[:samples].swapaxes(1, 2)
        sheets = {"progress": progress_sheet(chosen, samples), "last": last.reshape(len(last) * side, -1, 3)}
        names = {kind: f"{out.stem}_{kind}.jpg" for kind in sheets}
        for kind, sheet in sheets.items():
            images.save(sheet, out.with_name(names[kind]), quality=75)
        record["pictures"] = {
            "progress": {"file": names["progress"], "images": [n for n, _ in chosen], "samples": samples},
            "last": {"file": names["last"], "images": grids[-1][0], "yaws": list(GRID_YAWS)},
        }
    records.write(out, record)
    return record


@dataclass(frozen=True)
class CurvesArgs:
    """Condense a run's log into a record."""

    run: Positional[Path]
    """Folder of the run, or its log.jsonl."""
    out: Path
    """JSON file to write, e.g. data/results/curves_head.json."""
    points: int = POINTS
    """Spans of images to keep."""
    side: int = 128
    """Pixels of one view of the last grid."""


def run(args: CurvesArgs) -> None:
    """Condenses one run and says what was kept."""
    record = write_record(args.run, args.out, args.side, args.points)
    known = record["provenance"]
    print(f"{args.out}: {known['stage']} of {known['images']} images, {len(record['images'])} points")


if __name__ == "__main__":
    raise SystemExit(main(CurvesArgs, run))
