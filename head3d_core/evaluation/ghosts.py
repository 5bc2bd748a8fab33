"""Second faces behind heads, counted: samples of generators and real heads, both seen from straight behind.

    python -m head3d_core ghost              # limits from real pictures, then fresh real pictures and codes

The limits come from real heads and people alone. The other groups share no identity and no code with anything that the
measure was developed on (codes 0 to 47 of seed 0, the first 50 held-out heads and people). The record holds every
score, so that intervals and other limits can be had without rendering again.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from head3d_core.checkpoints.weights import load_generator, read_notes
from head3d_core.evaluation.sampling import Model
from head3d_core.metrics.ghost import (
    DEPTH_SIDE,
    SCORES,
    SIDE,
    GhostScores,
    GhostViews,
    ghost_scores,
    limits,
)
from head3d_core.model.cameras import orbit
from head3d_core.synth import sets
from head3d_core.synth.identity import HELD_OUT_FACES, HELD_OUT_HEADS
from head3d_core.synth.make_data import render_stream
from head3d_core.synth.pool import Progress, Task, run_tasks
from head3d_core.synth.renderer import Frame, Renderer
from head3d_core.utils import files, records
from head3d_core.utils.devices import usable_device
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.estimates import bootstrap_mean, share

DEVELOPED = 50
"""Held-out heads and people that the measure was developed on: the first so many of each."""
DEVELOPED_CODES = 48
PART = 10
"""Heads whose scores are kept together."""
COMMAND = "python -m head3d_core ghost"
RECORD = files.DATA / "results" / "ghost.json"
_BACK, _FRONT = math.pi, 0.0


@dataclass(frozen=True)
class GhostArgs:
    """Counts second faces behind fresh real heads and samples; writes one record."""

    weights: tuple[str, ...] = ("face", "head", "head3d")
    """Generators: bundled names or paths."""
    real: int = 100
    """Fresh real heads, and as many people of the face set."""
    codes: int = 100
    """Samples of each generator."""
    truncation: float = 0.7
    """Of the samples."""
    workers: int = 0
    """Rendering processes; 0: one per core."""
    device: str = "auto"
    """cuda, cpu, or auto."""
    cache: Path | None = Path("out/evaluation")
    """Folder that keeps scores, ten at a time: a run that was stopped goes on where it was."""
    out: Path = Path("out/ghost.json")
    """The record."""


@torch.inference_mode()
def model_scores(
    model: Model, numbers: range, truncation: float = 0.7, seed: int = 0, batch: int = 8
) -> GhostScores:
    """Scores of a generator's samples."""
    parts = []
    for start in range(numbers.start, numbers.stop, batch):
        ws, planes = model.heads(range(start, min(start + batch, numbers.stop)), seed, truncation)
        images, opacity = model.view((ws, planes), orbit(_BACK).expand(len(ws), 25))
        parts.append(ghost_scores(model.ghost_views((ws, planes), images, opacity)))
    return joined(parts)


def kept(name: str, numbers: range, score: Callable[[range], GhostScores], cache: Path | None) -> GhostScores:
    """`score(numbers)`, ten at a time, taken from `cache` where it was computed before under that name."""
    parts = []
    for start in range(numbers.start, numbers.stop, PART):
        part = range(start, min(start + PART, numbers.stop))
        path = None if cache is None else cache / f"ghost-{name}-{part.start}-{part.stop}.safetensors"
        if path is not None and path.is_file():
            parts.append(GhostScores(**load_file(path)))
            continue
        parts.append(score(part))
        if path is not None:
            with files.atomic(path) as temporary:
                save_file({k: getattr(parts[-1], k).contiguous() for k in SCORES}, temporary)
    return joined(parts)


def joined(parts: list[GhostScores]) -> GhostScores:
    """Scores of several groups as one."""
    return GhostScores(*(torch.cat([getattr(part, name) for part in parts]) for name in SCORES))


def _depth(frame: Frame) -> tuple[Tensor, Tensor]:
    """Depth averaged over what each of 128² pixels sees of the head, and the share of it: [1, 128, 128] each."""
    assert frame.depth is not None
    depth, factor = torch.from_numpy(frame.depth.copy())[None, None], SIDE // DEPTH_SIDE
    share = F.avg_pool2d((depth > 0).float(), factor)
    return (F.avg_pool2d(depth, factor) / share.clamp_min(1e-3))[:, 0], share[:, 0]


def _score(kind: Literal["faces", "heads"], renderer: Renderer, task: Task) -> list[list[float]]:
    """Draws every person of a task from behind and from the front: one row of scores each."""
    rows = []
    for _, seed in task:
        cameras = [sets.orbit_camera(yaw, 0.0) for yaw in (_BACK, _FRONT)]
        items = [(v, sets.Example(seed, kind, v, c, None)) for v, c in enumerate(cameras)]
        back, front = (frame for _, frame in render_stream(renderer, items, geometry=True))
        image = torch.from_numpy(back.rgb.transpose(2, 0, 1).copy())[None]
        coverage = torch.from_numpy(back.alpha.copy())[None].float() / 255
        found = ghost_scores(GhostViews(image, coverage, *_depth(back), *_depth(front)))
        rows.append([float(getattr(found, name)) for name in SCORES])
    return rows


def real_scores(kind: Literal["faces", "heads"], seeds: range, workers: int = 0) -> GhostScores:
    """Scores of real heads ("heads") or of people of the face set ("faces"); raises Head3DError without OpenGL."""
    tasks = [[(slot, seed)] for slot, seed in enumerate(seeds)]
    scores = torch.empty(len(seeds), len(SCORES), dtype=torch.float64)
    show = Progress(f"backs of {kind}", sys.stderr, 15.0)
    for task, rows in run_tasks(partial(Renderer, SIDE), partial(_score, kind), tasks, workers, show):
        scores[[slot for slot, _ in task]] = torch.tensor(rows, dtype=torch.float64)
    return GhostScores(*scores.unbind(1))


def ghost_figures(scores: GhostScores, limit: dict[str, float]) -> dict[str, Any]:
    """For each score its mean, the share of heads above the limit, and the share that cannot be measured."""
    figures: dict[str, Any] = {}
    for name in SCORES:
        score = getattr(scores, name)
        known = score[score.isfinite()]
        figures[name] = {
            "mean": bootstrap_mean(known).to_dict() if len(known) > 1 else None,
            "above": share(int((known > limit[name]).sum()), len(known)).to_dict(),
            "unmeasured": share(len(score) - len(known), len(score)).to_dict(),
        }
    return figures


def recorded_limits(record: Path = RECORD) -> dict[str, float] | None:
    """The limits that real backs set, or None where the command `ghost` has not recorded them."""
    return dict(records.load(record, COMMAND)["limits"]) if record.is_file() else None


def _group(scores: GhostScores, limit: dict[str, float], shows: str) -> dict[str, Any]:
    kept = {name: [round(float(x), 4) for x in getattr(scores, name)] for name in SCORES}
    values = {name: [None if math.isnan(x) else x for x in row] for name, row in kept.items()}
    return {"shows": shows, **ghost_figures(scores, limit), "scores": values}


def run(args: GhostArgs) -> None:
    """The command `ghost`."""
    if min(args.real, args.codes) < 20:
        raise Head3DError(f"give at least 20 real heads and 20 codes, got {args.real} and {args.codes}")
    files.check_writable(args.out)
    device = usable_device(args.device)
    first = {"heads": HELD_OUT_HEADS.start, "faces": HELD_OUT_FACES.start}

    def real(kind: Literal["faces", "heads"], low: int, count: int) -> tuple[GhostScores, str]:
        seeds = range(first[kind] + low, first[kind] + low + count)
        scores = kept(kind, seeds, lambda part: real_scores(kind, part, args.workers), args.cache)
        return scores, f"{kind}, identities {seeds.start} to {seeds.stop - 1}"

    calibration = [real(kind, 0, DEVELOPED) for kind in ("heads", "faces")]
    limit = limits(joined([scores for scores, _ in calibration]))
    groups = {}
    for name, kind in (("real heads", "heads"), ("real people", "faces")):
        scores, shows = real(kind, DEVELOPED, args.real)  # type: ignore[arg-type]  # one of the two kinds
        groups[name] = _group(scores, limit, shows)
    numbers = range(DEVELOPED_CODES, DEVELOPED_CODES + args.codes)
    for name in args.weights:
        model = Model(load_generator(name, device))
        known = f"{model.digest()}-{args.truncation:g}"
        scores = kept(known, numbers, partial(model_scores, model, truncation=args.truncation), args.cache)
        shows = f"samples {numbers.start} to {numbers.stop - 1} of seed 0, truncation {args.truncation:g}"
        groups[Path(name).name] = _group(scores, limit, shows)
        print(name, {k: groups[Path(name).name][k]["above"]["value"] for k in SCORES}, flush=True)
    command = COMMAND + "".join(
        f" --{k} {v}" for k, v in (("real", args.real), ("codes", args.codes)) if v != getattr(GhostArgs, k)
    )
    record = {
        "provenance": records.provenance(command, device, {name: read_notes(name) for name in args.weights}),
        "limits": limit,
        "calibration": {shows: _group(scores, limit, shows) for scores, shows in calibration},
        "groups": groups,
    }
    print(records.write(args.out, record))
