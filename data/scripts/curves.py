"""A run's log, condensed into a small file that notebooks and model cards read.

    python data/scripts/curves.py RUN --out data/results/curves_teacher.json

The record keeps means over some hundred
equal spans of images, how long the run took and on what, and (where the run kept sample grids) two small images.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tyro.conf import Positional

from head3d_core.config import preset
from head3d_core.training.snapshots import Event, read_log, surviving
from head3d_core.training.train import GRID_YAWS
from head3d_core.utils import images, records
from head3d_core.utils.errors import Head3DError
from script import main

POINTS = 120
"""Spans of images that a record keeps."""
_NOT_SERIES = ("event", "images", "seconds", "count")


def thin(events: list[Event], points: int) -> dict[str, Any]:
    """Means over at most `points` equal spans of images.

    Returns:
        images at the end of each span that holds anything, and series: name -> values (None where a span has none).
    """
    last = max(e["images"] for e in events)
    spans: dict[int, list[Event]] = {}
    for e in sorted(events, key=lambda e: e["images"]):
        spans.setdefault(min(points - 1, (points * e["images"]) // max(last, 1)), []).append(e)
    names = sorted({k for e in events for k in e if k not in _NOT_SERIES})
    means = {name: [_mean([e[name] for e in span if name in e]) for span in spans.values()] for name in names}
    return {"images": [span[-1]["images"] for span in spans.values()], "series": means}


def _mean(values: list[float]) -> float | None:
    finite = [float(v) for v in values if math.isfinite(v)]
    return float(f"{sum(finite) / len(finite):.5g}") if finite else None


def condense(run: Path, points: int = POINTS) -> dict[str, Any]:
    """The record of a run: provenance, recipe, and its curves as means over at most `points` spans.

    Args:
        run: the run's folder or its log.jsonl.

    Raises Head3DError for a run without a log, or with nothing in it that was trained.
    """
    events, broken = read_log(run)
    if not {"start", "progress"} <= {e["event"] for e in events}:
        raise Head3DError(f"{run} has no start or no progress in its log: has the run trained at all?")
    progress, seconds = surviving(events)
    measured, _ = surviving(events, "metrics")
    starts = [e for e in events if e["event"] == "start"]
    start = starts[-1]
    args, recipe = start.get("args", {}), start.get("recipe", {})
    path = run / "log.jsonl" if run.is_dir() else run
    written = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC)
    commits = dict.fromkeys(e["commit"] for e in starts if e.get("commit"))
    axes = args.get("generator", {}).get("render", {}).get("axes", args.get("axes"))
    usual = preset(args.get("preset", "classroom")).generator.render.axes
    provenance = {
        **{key: args.get(key) for key in ("stage", "row", "preset")},
        "axes": None if axes == usual else axes,
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
        **thin(progress, points),
        "metrics": thin(measured, points) if measured else None,
    }


def _cells(path: Path, side: int) -> NDArray[np.uint8]:
    """A sample grid as [rows, views, side, side, 3]."""
    columns = len(GRID_YAWS)
    with Image.open(path) as opened:
        cell = opened.width // columns
        rows = opened.height // cell
        small = opened.convert("RGB").resize((columns * side, rows * side), Image.Resampling.LANCZOS)
    return np.asarray(small).reshape(rows, side, columns, side, 3).swapaxes(1, 2)


def sheets(grids: Sequence[Path], out: Path, side: int, samples: int = 4) -> dict[str, Any]:
    """Writes two JPEGs beside `out`; returns what the record says about them.

    progress: a row for each of at most four grids, the same samples from the front, then from behind, 112 pixels each.
    last: the first samples of the last grid from every side, `side` pixels each.
    """
    shown = [int(path.stem.removeprefix("grid-")) for path in grids]
    chosen = list(dict.fromkeys(np.linspace(0, len(grids) - 1, 4).round().astype(int).tolist()))
    ends = [GRID_YAWS.index(yaw) for yaw in (0.0, 180.0)]
    pairs = (_cells(grids[k], 112)[:samples, ends] for k in chosen)
    rows = [pair.transpose(2, 1, 0, 3, 4).reshape(112, -1, 3) for pair in pairs]
    last = _cells(grids[-1], side)[:samples].swapaxes(1, 2)
    about: dict[str, dict[str, Any]] = {
        "progress": {"images": [shown[k] for k in chosen], "samples": samples},
        "last": {"images": shown[-1], "yaws": list(GRID_YAWS)},
    }
    for kind, sheet in (("progress", np.concatenate(rows)), ("last", last.reshape(len(last) * side, -1, 3))):
        path = images.save(sheet, out.with_name(f"{out.stem}_{kind}.jpg"), quality=75)
        about[kind] = {"file": path.name, **about[kind]}
    return about


def run(run: Positional[Path], out: Path, points: int = POINTS, side: int = 128) -> None:
    """Condenses a run's log into a record, with two images where the run kept sample grids.

    Args:
        run: folder of the run, or its log.jsonl.
        out: JSON file to write, e.g. data/results/curves_head.json.
        points: spans of images to keep.
        side: pixels of one view of the last grid.

    Raises:
        Head3DError: no log, nothing trained, or `side` below 8.
    """
    if side < 8:
        raise Head3DError(f"a view needs at least 8 pixels a side to be seen, got {side}")
    record = condense(run, points)
    if grids := sorted(run.glob("grid-*.png")):
        record["pictures"] = sheets(grids, out, side)
    records.write(out, record)
    known = record["provenance"]
    print(f"{out}: {known['stage']} of {known['images']} images, {len(record['images'])} points")


if __name__ == "__main__":
    raise SystemExit(main(run))
