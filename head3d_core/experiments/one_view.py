"""How far does one view get you: heads of the factory that no generator has seen, found again from one picture each.

    python -m head3d_core invert --weights face head3d

For each head and each generator: codes fitted to one picture under its known camera, and again with yaw and pitch
unknown. Errors are measured on pictures from other sides and on the surface, where nothing was fitted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from head3d_core.checkpoints import weights as checkpoint
from head3d_core.checkpoints.weights import read_notes
from head3d_core.experiments.inversion import (
    Inversion,
    InversionOptions,
    Progress,
    invert,
    shrink,
    view_errors,
    w_statistics,
)
from head3d_core.geometry import pointclouds
from head3d_core.model import cameras
from head3d_core.model.generator import Generator
from head3d_core.utils import files, records
from head3d_core.utils import images as grids
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.images import from_pixels, from_uint8

SIDES = {"near (≤ 45°)": (0.0, 45.0), "side (45° to 120°)": (45.0, 120.0), "far (> 120°)": (120.0, 181.0)}
"""Groups of views by their angle from the fitted one, degrees; the lower end excluded, so the fitted one is in none."""
FITTED = 0.1
"""Degrees within which a view is the fitted one: arcsines of rounded directions are not quite 0."""
_TURN = 12
"""Views of the turn around a head, evenly spaced."""


@dataclass(frozen=True)
class InvertArgs:
    """Fits heads that were not trained on to one picture each, and measures them from all sides."""

    weights: tuple[str, ...] = ("face", "head3d")
    """Generators to fit with."""
    heads: int = 4
    """Held-out heads, at most 50."""
    steps: int = 200
    """Iterations with one code w."""
    layer_steps: int = 200
    """Iterations with one code per layer afterwards."""
    candidates: int = 128
    """Seeds that are looked at for a start."""
    yaw: float = 30.0
    """Of the picture whose camera is to be found, degrees; the one with a known camera is frontal."""
    pitch: float = 10.0
    """Of the picture whose camera is to be found, degrees."""
    out: Path = files.DATA / "results" / "inversion.json"
    """File to write; their pictures go beside it (.jpg)."""
    device: str = "cpu"
    """Where to run: cpu, cuda, ..."""


@dataclass(frozen=True)
class KnownHead:
    """A head of the factory as pictures and as a surface."""

    seed: int
    images: Tensor
    """[V, 3, 256, 256] in [-1, 1]"""
    camera: Tensor
    """[V, 25]"""
    cloud: pointclouds.Cloud
    """Its surface, seen from `surfaces.look_around()`."""


def known_head(seed: int, camera: Tensor, resolution: int = 256) -> KnownHead:
    """Renders head `seed` from cameras [V, 25]. Raises Head3DError without OpenGL."""
    from head3d_core.synth.heads import build_head
    from head3d_core.synth.identity import identity
    from head3d_core.synth.light import sample_light
    from head3d_core.synth.renderer import Renderer

    renderer = Renderer(resolution, 3)
    try:
        renderer.load(build_head(identity(seed, "heads")), sample_light(seed, "heads"))
        frames = list(renderer.draw_many(list(camera.numpy())))
    finally:
        renderer.release()
    images = from_pixels(np.stack([f.rgb for f in frames]))
    return KnownHead(seed, images, camera, pointclouds.true_cloud(seed, pointclouds.look_around()))


def sample_head(index: int) -> tuple[Tensor, Tensor]:
    """Pictures [12, 3, 256, 256] in [-1, 1] and cameras [12, 25] of one of the eight bundled heads (no OpenGL needed).

    They belong to the fifty heads of the training set.
    """
    from head3d_core.datasets.format import load_arrays

    if not 0 <= index < 8:
        raise Head3DError(f"there are 8 bundled heads, 0 to 7, got {index}")
    images, camera = load_arrays(files.DATA / "samples" / "heads")
    rows = slice(12 * index, 12 * index + 12)
    return from_uint8(images[rows]), camera[rows]


def by_side(errors: Sequence[Any]) -> dict[str, float]:
    """Mean view error of each group of `SIDES` that has a view; the fitted one says nothing of the others."""
    out = {}
    for name, (low, high) in SIDES.items():
        values = [e.error for e in errors if max(low, FITTED) < e.angle <= high]
        if values:
            out[name] = round(float(np.mean(values)), 5)
    return out


def _judged(G: Generator, ws: Tensor, head: KnownHead, fitted: Tensor) -> dict[str, Any]:
    """Errors of codes ws [1, num_ws, w_dim] against everything that is known of a head."""
    errors = view_errors(G, ws, head.images, head.camera, fitted)
    with torch.no_grad():
        cloud = pointclouds.model_cloud(G, G.planes(ws), pointclouds.look_around().to(G.device))
    row: dict[str, Any] = {
        "by side": by_side(errors),
        "surface": None,
    }
    if len(cloud):
        found = pointclouds.surface_error(cloud, head.cloud)
        row["surface"] = {k: round(v, 5) for k, v in {**asdict(found), "chamfer": found.chamfer}.items()}
    return row


def reconstruct(
    G: Generator,
    heads: Sequence[KnownHead],
    options: InversionOptions,
    every: int = 0,
    progress: Progress | None = None,
) -> tuple[list[dict[str, Any]], Inversion]:
    """Fits each head's first view (its camera known) and judges the mean head, w and the codes per layer.

    Args:
        every: iterations between two measurements from other sides; 0: none of them.

    Returns:
        A JSON-able row for each head, and what was found.
    """
    curves: list[list[dict[str, Any]]] = [[] for _ in heads]

    def watch(iteration: int, ws: Tensor) -> None:
        if every and iteration % every == 0:
            for head, one, curve in zip(heads, ws.split(1), curves, strict=True):
                errors = view_errors(G, one, head.images, head.camera, head.camera[:1])
                curve.append({"iteration": iteration, **by_side(errors)})

    images, camera = (torch.stack([getattr(h, name)[0] for h in heads]) for name in ("images", "camera"))
    found = invert(G, images, camera, options, progress, watch)
    mean = w_statistics(G)[0].expand(1, G.num_ws, -1)
    rows = []
    for k, head in enumerate(heads):
        judged = {"mean head": mean, "w": found.w[k : k + 1], "layers": found.ws[k : k + 1]}
        rows.append(
            {
                "seed": head.seed,
                "loss": [round(float(x), 6) for x in found.loss[:, k]],
                "other sides": curves[k],
                **{stage: _judged(G, ws, head, head.camera[:1]) for stage, ws in judged.items()},
            }
        )
    return rows, found


def find_cameras(
    G: Generator,
    heads: Sequence[KnownHead],
    yaw: float,
    pitch: float,
    options: InversionOptions,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Fits codes and camera to the last view of each head, whose angles (degrees) only the judge knows."""
    found = invert(G, torch.stack([h.images[-1] for h in heads]), None, options, progress)
    errors = torch.rad2deg(found.angles) - torch.tensor([yaw, pitch])
    rows = []
    for k, head in enumerate(heads):
        sides = view_errors(G, found.ws[k : k + 1], head.images, head.camera, found.camera[k : k + 1])
        rows.append(
            {
                "seed": head.seed,
                "loss": [round(float(x), 6) for x in found.loss[:, k]],
                "yaw error": [round(float(x), 3) for x in errors[:, k, 0]],
                "pitch error": [round(float(x), 3) for x in errors[:, k, 1]],
                "layers": {"by side": by_side(sides)},
            }
        )
    return rows


def measure(args: InvertArgs, progress: Progress | None = None) -> tuple[dict[str, Any], Tensor]:
    """The record, and pictures of the first four heads [K, 3, S, S] (see `picture_sheet`)."""
    from head3d_core.synth.sets import SETS

    seeds = list(SETS["held_out_heads"].seeds)
    if not 1 <= args.heads <= len(seeds):
        raise Head3DError(f"there are {len(seeds)} held-out heads, got {args.heads}")
    around = cameras.orbit(2 * math.pi * torch.arange(_TURN) / _TURN)
    hidden = cameras.orbit(math.radians(args.yaw), math.radians(args.pitch))
    options = InversionOptions(args.steps, args.layer_steps, args.candidates)
    iterations = args.steps + args.layer_steps
    heads = [known_head(seed, torch.cat([around, hidden])) for seed in seeds[: args.heads]]
    rows: dict[str, Any] = {}
    sheets = [_true_row(head) for head in heads[:_PICTURED]]
    for k, name in enumerate(args.weights):
        G = checkpoint.load_generator(name, device=args.device)

        def step(done: int, total: int, before: int = 2 * k * iterations) -> None:
            if progress:
                progress(before + done, 2 * len(args.weights) * iterations)

        known, found = reconstruct(G, heads, options, max(iterations // 10, 1), step)
        later = partial(step, before=(2 * k + 1) * iterations)
        unknown = find_cameras(G, heads, args.yaw, args.pitch, options, later)
        rows[name] = {"known camera": known, "unknown camera": unknown}
        for j, sheet in enumerate(sheets):
            sheet.extend(_found_rows(G, found.w[j : j + 1]) + _found_rows(G, found.ws[j : j + 1]))
    pictures = torch.stack([cell for sheet in sheets for cell in sheet])
    command = (
        f"python -m head3d_core invert --weights {' '.join(args.weights)} --heads {args.heads} --steps {args.steps} "
        f"--layer-steps {args.layer_steps} --candidates {args.candidates} --device {args.device}"
    )
    about = {
        "yaw": args.yaw,
        "pitch": args.pitch,
        "steps": args.steps,
        "layer_steps": args.layer_steps,
        "candidates": args.candidates,
        "heads": "held out: not among the fifty trained on",
        "errors": "pictures: mean absolute difference / range; surfaces: world units, degrees",
    }
    return {
        "about": about,
        "models": rows,
        "provenance": records.provenance(
            command, args.device, {name: read_notes(name) for name in args.weights}
        ),
    }, pictures


_SHOWN = (0, 2, 3, 6, 9)
"""Views of the turn that the picture shows: 0°, 60°, 90°, 180°, 270°."""
_CELL = 80
"""Side of its cells, pixels."""
_PICTURED = 4
"""Heads on it, at most."""


def _true_row(head: KnownHead) -> list[Tensor]:
    return list(shrink(head.images[list(_SHOWN)], _CELL))


@torch.no_grad()
def _found_rows(G: Generator, ws: Tensor) -> list[Tensor]:
    """A row of pictures of ws [1, num_ws, w_dim]."""
    planes = G.planes(ws)
    out = []
    for k in _SHOWN:
        image = G.render(planes, ws, cameras.orbit(2 * math.pi * k / _TURN).to(ws)).image.clamp(-1, 1).cpu()
        out.append(F.interpolate(image, size=(_CELL, _CELL), mode="bilinear", antialias=True)[0])
    return out


def picture_sheet(pictures: Tensor, weights: Sequence[str]) -> Any:
    """All heads side by side, two in a row of blocks, as [H, W, 3] uint8: in each block the truth, then every
    generator's w and codes per layer, with names.

    Args:
        pictures: [heads * (1 + 2 * len(weights)) * 5, 3, S, S], as `measure` returns them.
    """
    names = ["true head", *(f"{name}: {stage}" for name in weights for stage in ("w", "layers"))]
    turns = [f"{360 * k // _TURN}°" for k in _SHOWN]
    blocks = pictures.split(len(names) * len(_SHOWN))
    sheets = [grids.with_names(grids.montage(b, len(_SHOWN)), names, turns) for b in blocks]
    if len(sheets) % 2 and len(sheets) > 1:
        sheets.append(np.full_like(sheets[0], 255))
    pairs = [np.concatenate(sheets[k : k + 2], 1) for k in range(0, len(sheets), 2)]
    return np.concatenate(pairs, 0)


def run(args: InvertArgs) -> None:
    """The command `invert`: measures, writes the record and its picture, prints a summary."""
    from head3d_core.geometry.export import bar

    files.check_writable(args.out)
    files.check_writable(args.out.with_suffix(".jpg"))
    with bar("iterations") as step:
        found, pictures = measure(args, step)
    records.write(args.out, found)
    picture = grids.save(picture_sheet(pictures, args.weights), args.out.with_suffix(".jpg"))
    for name, rows in found["models"].items():
        yaw = [abs(row["yaw error"][-1]) for row in rows["unknown camera"]]
        print(f"{name:8s}unknown camera: yaw off by {np.mean(yaw):.1f}° on average, {max(yaw):.1f}° at most")
        for stage in ("mean head", "w", "layers"):
            sides = [row[stage]["by side"] for row in rows["known camera"]]
            text = ", ".join(f"{side} {np.mean([s[side] for s in sides]):.3f}" for side in SIDES)
            print(f"{name:8s}{stage:10s} {text}")
    print(f"wrote {args.out} and {picture.name}")
