"""Parametric head models beside Head3D (the paper's Fig. 7): trained on the same 50 heads, measured, drawn.

    python -m head3d_core parametric

The explicit model stands for LYHM, the implicit one for i3DMM, whose released weights need licences: here both are
trained from scratch on scans of the head set (`head_scans`). Measured on heads that neither has seen, with the same
cameras. What is written to `--out`: `parametric.json` and `parametric_*.jpg`; models and scans stay in `--work`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from head3d_core.datasets import face_detector
from head3d_core.experiments import parametric_pictures, study
from head3d_core.experiments.head_scans import (
    SIZE,
    Surface,
    Views,
    draw,
    load_scan,
    scan_cameras,
    scan_heads,
    shown_cameras,
)
from head3d_core.experiments.implicit import (
    HeadPoints,
    ImplicitConfig,
    ImplicitHeads,
    fit_code,
    head_points,
    implicit_surface,
    load_implicit,
    save_implicit,
    train_implicit,
)
from head3d_core.experiments.morphable import MorphableModel, fit_morphable, registered, save_morphable
from head3d_core.metrics import silhouettes
from head3d_core.synth import sets
from head3d_core.synth.draws import SAMPLER_VERSION
from head3d_core.synth.identity import HEADS, HELD_OUT_HEADS
from head3d_core.synth.pool import Progress
from head3d_core.utils import files, images, records
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.estimates import bootstrap_mean

MODELS = ("explicit", "implicit")


@dataclass(frozen=True)
class ParametricArgs:
    """Trains both parametric head models, measures them on held-out heads and draws samples of them."""

    heads: int = 50
    """Training heads, the first of the head set."""
    held_out: int = 10
    """Heads that the models have not seen, on which errors are measured."""
    samples: int = 16
    """Random heads of each model in which faces are looked for."""
    steps: int = ImplicitConfig.steps
    """Training steps of the implicit model."""
    finishing_steps: int = ImplicitConfig.finishing_steps
    """Its last steps, which look at faces; with a GPU both can be ten times as many."""
    spread: float = 0.7
    """Random codes are this many standard deviations from the mean, as Head3D's samples are truncated to 0.7."""
    resolution: int = 144
    """Grid points along the implicit model's box when its surface is taken."""
    work: Path = Path("out/parametric")
    """Folder for scans and models; what is there is used again."""
    out: Path = Path("out/parametric/results")
    """Folder for the table and the pictures."""
    device: str = "cpu"
    """Where the implicit model is trained."""


def _npz(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The arrays of a file, made and written first if it is not there."""
    if not path.is_file():
        arrays = make()
        with files.atomic(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)
    with np.load(path) as data:
        return {name: data[name] for name in data.files}


def registered_head(work: Path, seed: int) -> Surface:
    """The scan of head `seed` in `work` as the explicit model's mesh, kept in a file."""
    path = work / f"registered_v{SAMPLER_VERSION}_{seed:05d}.npz"
    found = _npz(path, lambda: vars(registered(load_scan(work / "scans", seed))))
    return Surface(found["vertices"], found["triangles"], found["colours"])


def points_of(work: Path, seed: int) -> HeadPoints:
    """The scan of head `seed` in `work` as the implicit model's points, kept in a file."""
    path = work / f"points_v{SAMPLER_VERSION}_{seed:05d}.npz"
    found = _npz(path, lambda: vars(head_points(load_scan(work / "scans", seed).training, seed=seed)))
    return HeadPoints(found["points"], found["distances"], found["colours"])


@dataclass(frozen=True)
class Seconds:
    """How long a training took."""

    wall: float
    """By the clock, other programs on the machine included."""
    cpu: float
    """Of processor time, which does not depend on them."""

    @classmethod
    def since(cls, start: tuple[float, float]) -> Seconds:
        """From readings of both clocks, `_clocks()`, until now."""
        return cls(*(round(now - then, 1) for now, then in zip(_clocks(), start, strict=True)))


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


@dataclass(frozen=True)
class Fitted:
    """Both models and what it took."""

    explicit: MorphableModel
    implicit: ImplicitHeads
    seconds: dict[str, Seconds]


def _train(args: ParametricArgs, seeds: Sequence[int]) -> Fitted:
    """Fits both models and writes them to `args.work`; an implicit model of the same configuration is used again."""
    meshes = [registered_head(args.work, seed) for seed in seeds]
    start = _clocks()
    explicit = fit_morphable(meshes)
    seconds = {"explicit": Seconds.since(start)}
    save_morphable(explicit, args.work / "explicit.npz")
    config = ImplicitConfig(steps=args.steps, finishing_steps=args.finishing_steps)
    key = {**asdict(config), "seeds": list(seeds), "sampler_version": SAMPLER_VERSION}
    path, notes = args.work / "implicit.safetensors", args.work / "implicit.json"
    if path.is_file() and notes.is_file():
        known = json.loads(notes.read_text(encoding="utf8"))
        if known["made_of"] == key:
            return Fitted(explicit, load_implicit(path), seconds | {"implicit": Seconds(**known["seconds"])})
    points = [points_of(args.work, seed) for seed in seeds]
    start = _clocks()

    def progress(step: int, loss: float) -> None:
        print(f"implicit model: step {step}, loss {loss:.4f}", file=sys.stderr, flush=True)

    implicit = train_implicit(points, config, args.device, progress)
    seconds["implicit"] = Seconds.since(start)
    save_implicit(implicit, path)
    records.write(notes, {"made_of": key, "seconds": asdict(seconds["implicit"])})
    return Fitted(explicit, implicit, seconds)


def view_errors(found: Sequence[Views], truth: Sequence[Views]) -> dict[str, Any]:
    """Silhouette, depth and colour of drawn heads against the true ones, each with an interval over heads.

    Returns:
        As `metrics.Estimate` dictionaries, over the pixels that both cover: "depth_error" (world units; a head is about
        0.4 tall), "colour_error" (mean absolute difference of sRGB in [0, 1]); and "silhouette_iou".
    """
    rows = []
    for a, b in zip(found, truth, strict=True):
        masks = [torch.from_numpy(v.mask) for v in (a, b)]
        both = ((masks[0] > 127) & (masks[1] > 127)) & torch.from_numpy((a.depth > 0) & (b.depth > 0))
        depth = silhouettes.depth_error(torch.from_numpy(a.depth), torch.from_numpy(b.depth), both)
        colour = np.abs(a.rgb.astype(np.float64) - b.rgb)[both.numpy()].mean() / 255
        iou = silhouettes.silhouette_iou(*masks)
        rows.append((float(iou.mean()), float(depth.mean()), float(colour)))
    names = ("silhouette_iou", "depth_error", "colour_error")
    return {
        name: bootstrap_mean(np.array(values)).to_dict()
        for name, values in zip(names, zip(*rows, strict=True), strict=True)
    }


def _reconstructed(args: ParametricArgs, models: Fitted, seed: int, trained: bool) -> dict[str, Surface]:
    """A head as both models write it. Training heads keep the implicit code that training gave them."""
    explicit = models.explicit.encode(registered_head(args.work, seed))
    code = models.implicit.codes[seed] if trained else fit_code(models.implicit, points_of(args.work, seed))
    return {
        "explicit": models.explicit.surface(explicit),
        "implicit": implicit_surface(models.implicit, code, args.resolution),
    }


def _compare(
    args: ParametricArgs, models: Fitted, seeds: Sequence[int], trained: bool
) -> tuple[dict[str, Any], dict[str, list[Views]]]:
    """Errors of both models on heads, and the views behind them ("truth" as well)."""
    drawn: dict[str, list[Views]] = {"truth": [], **{name: [] for name in MODELS}, "registered": []}
    for seed in seeds:
        drawn["truth"].append(load_scan(args.work / "scans", seed).shown)
        drawn["registered"].append(draw(registered_head(args.work, seed), shown_cameras()))
        for name, surface in _reconstructed(args, models, seed, trained).items():
            drawn[name].append(draw(surface, shown_cameras()))
    table = {name: view_errors(drawn[name], drawn["truth"]) for name in (*MODELS, "registered")}
    return table, drawn


def _faces_found(samples: dict[str, list[Views]]) -> dict[str, Any]:
    """How many random heads have a face in front, and how many have one behind."""
    table: dict[str, Any] = {}
    for name, views in samples.items():
        front, _, back = torch.from_numpy(np.stack([v.rgb for v in views])).permute(1, 0, 4, 2, 3)
        rates = {"front": face_detector.detection_rate(front), "back": face_detector.detection_rate(back)}
        table[name] = {
            view: {"found": r.found, "count": r.count, "low": round(r.low, 4), "high": round(r.high, 4)}
            for view, r in rates.items()
        }
    return table


def _about(args: ParametricArgs, models: Fitted) -> dict[str, Any]:
    """What each model is made of and made from."""
    views = len(scan_cameras())
    data = {
        "heads": args.heads,
        "views_per_head": views,
        "pictures": args.heads * views,
        "resolution": SIZE,
        "depth": True,
    }
    explicit, implicit = models.explicit, models.implicit
    return {
        "explicit": {
            "data": data | {"registered_meshes": args.heads, "vertices": len(explicit.mean)},
            "includes": "skin, eyeballs, shirt and hair as the outer shell of one mesh; colours carry the light",
            "code": explicit.code_size,
            "parameters": explicit.parameters,
            "training_seconds": asdict(models.seconds["explicit"]),
        },
        "implicit": {
            "data": data | {"points_per_head": 40_000},
            "includes": "the whole outer surface with colour; colours carry the light",
            "code": implicit.config.code,
            "parameters": implicit.parameters_without_codes,
            "training_seconds": asdict(models.seconds["implicit"]),
            "config": asdict(implicit.config),
        },
        "head3d": {
            "data": {
                "faces": "one picture each, with its camera",
                "heads": len(HEADS),
                "views_per_head": sets.HEAD_VIEWS,
                "depth": False,
                "registered_meshes": 0,
            }
        },
    }


def _reconstruction_sheet(
    drawn: dict[str, list[Views]], heads: int = 3, side: int = 160
) -> NDArray[np.uint8]:
    """A row per head: truth, explicit and implicit model, each from front, side and back, [heads side, 9 side, 3]."""
    rows = [
        images.from_pixels(drawn[name][k].rgb)
        for k in range(min(heads, len(drawn["truth"])))
        for name in ("truth", *MODELS)
    ]
    return images.montage(images.shrink(torch.cat(rows), side), 9)


def record(args: ParametricArgs) -> dict[str, Any]:
    """Scans, trains, measures, draws; returns what is written to `parametric.json`.

    Raises:
        Head3DError: impossible counts, no OpenGL, or no face detector.
    """
    if not 3 <= args.heads <= len(HEADS) or not 2 <= args.held_out <= len(HELD_OUT_HEADS) or args.samples < 4:
        raise Head3DError(
            f"Expected 3 to {len(HEADS)} heads, 2 to {len(HELD_OUT_HEADS)} held-out ones and 4 samples or more, got "
            f"{args.heads}, {args.held_out} and {args.samples}."
        )
    face_detector.load()  # before OpenGL, see there
    seeds, held_out = HEADS[: args.heads], HELD_OUT_HEADS[: args.held_out]
    scan_heads([*seeds, *held_out], args.work / "scans", Progress("scans", sys.stderr))
    models = _train(args, seeds)
    unseen, drawn = _compare(args, models, held_out, False)
    seen, _ = _compare(args, models, seeds[: args.held_out], True)
    codes = models.implicit.sample_codes(args.samples, 1, args.spread)
    random = {
        "explicit": models.explicit.sample(args.samples, 1, args.spread),
        "implicit": [implicit_surface(models.implicit, code, args.resolution) for code in codes],
    }
    samples = {name: [draw(s, shown_cameras()) for s in surfaces] for name, surfaces in random.items()}
    for name, views in samples.items():
        pictures = np.stack([v.rgb for v in views[:4]])
        parametric_pictures.save_sheet(
            parametric_pictures.sheet(pictures), args.out / f"parametric_{name}.jpg"
        )
    parametric_pictures.save_sheet(_reconstruction_sheet(drawn), args.out / "parametric_reconstructions.jpg")
    table = {
        "models": _about(args, models),
        "held_out": unseen,
        "training_heads": seen,
        "faces_found": _faces_found(samples),
        "views": list(parametric_pictures.VIEWS),
        "provenance": study.provenance("parametric", replace(args, work=ParametricArgs.work))
        | {"sampler_version": SAMPLER_VERSION, "samples_seed": 1, "spread": args.spread},
    }
    records.write(args.out / "parametric.json", table)
    return table


def run(args: ParametricArgs) -> None:
    """The command `parametric`."""
    table = record(args)
    for name in MODELS:
        error = table["held_out"][name]
        print(
            f"{name}: silhouette IoU {error['silhouette_iou']['value']:.3f}, depth error "
            f"{error['depth_error']['value']:.4f}, colour error {error['colour_error']['value']:.3f} on held-out heads"
        )
