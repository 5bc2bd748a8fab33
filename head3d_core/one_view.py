"""How far does one view get you: heads of the factory that no generator has seen, found again from one picture each.

    python -m head3d_core invert --weights face head3d

For each head and each generator: codes fitted to one picture under its known camera, and again with yaw and pitch
unknown. Errors are measured on pictures from other sides and on the surface, where nothing was fitted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from head3d_core import cameras, checkpoint, files, grids, records, surfaces
from head3d_core.errors import Head3DError
from head3d_core.generator import Generator
from head3d_core.inversion import Inversion, InversionOptions, invert, shrink, view_errors, w_statistics

SIDES = {"near (≤ 45°)": (0.0, 45.0), "side (45° to 120°)": (45.0, 120.0), "far (> 120°)": (120.0, 181.0)}
"""Groups of views by their angle from the fitted one, degrees; the lower end excluded, so the fitted one is in none."""
FITTED = 0.1
"""Degrees within which a view is the fitted one: arcsines of rounded directions are not quite 0."""
_TURN = 24


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
    yaw: float = 30.0
    """Of the picture whose camera is to be found, degrees; the one with a known camera is frontal."""
    pitch: float = 10.0
    """Of the picture whose camera is to be found, degrees."""
    out: Path = files.DATA / "results" / "inversion.json"
    """File to write; a picture of the first head goes beside it (.jpg)."""
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
    cloud: surfaces.Cloud
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
    images = torch.from_numpy(np.stack([f.rgb for f in frames])).permute(0, 3, 1, 2).float() / 127.5 - 1
    return KnownHead(seed, images, camera, surfaces.true_cloud(seed, surfaces.look_around()))


def sample_head(index: int) -> tuple[Tensor, Tensor]:
    """Pictures [12, 3, 256, 256] in [-1, 1] and cameras [12, 25] of one of the eight bundled heads (no OpenGL needed).

    They belong to the fifty heads of the training set.
    """
    from head3d_core.dataset import load_arrays

    if not 0 <= index < 8:
        raise Head3DError(f"there are 8 bundled heads, 0 to 7, got {index}")
    images, camera = load_arrays(files.DATA / "samples" / "heads")
    rows = slice(12 * index, 12 * index + 12)
    return images[rows].float() / 127.5 - 1, camera[rows]


def by_side(errors: Sequence[Any]) -> dict[str, float]:
    """Mean view error of each group of `SIDES` that has a view; the fitted one says nothing of the others."""
    out = {}
    for name, (low, high) in SIDES.items():
        values = [e.error for e in errors if max(low, FITTED) < e.angle <= high]
        if values:
            out[name] = round(float(np.mean(values)), 5)
    return out


def _judged(G: Generator, ws: Tensor, head: KnownHead, fitted: Tensor) -> dict[str, Any]:
    """Errors of fitted codes against everything that is known of a head."""
    errors = view_errors(G, ws, head.images, head.camera, fitted)
    with torch.no_grad():
        cloud = surfaces.model_cloud(G, G.planes(ws), surfaces.look_around().to(G.device))
    row: dict[str, Any] = {
        "by side": by_side(errors),
        "surface": None,
    }
    if len(cloud):
        found = surfaces.surface_error(cloud, head.cloud)
        row["surface"] = {k: round(v, 5) for k, v in {**asdict(found), "chamfer": found.chamfer}.items()}
    return row


def reconstruct(
    G: Generator, head: KnownHead, options: InversionOptions, every: int = 20
) -> tuple[dict[str, Any], Inversion]:
    """Fits a head's first view (its camera known) and judges the mean head, w and the codes per layer.

    Args:
        every: iterations between two measurements from other sides.

    Returns:
        A JSON-able row, and what was found.
    """
    curve: list[dict[str, Any]] = []

    def watch(iteration: int, ws: Tensor) -> None:
        if iteration % every == 0:
            errors = view_errors(G, ws, head.images, head.camera, head.camera[:1])
            curve.append({"iteration": iteration, **by_side(errors)})

    found = invert(G, head.images[:1], head.camera[:1], options, watch=watch)
    mean = w_statistics(G)[0].expand(1, G.num_ws, -1)
    row = {
        "seed": head.seed,
        "loss": [round(s.loss, 6) for s in found.history],
        "other sides": curve,
        "mean head": _judged(G, mean, head, head.camera[:1]),
        "w": _judged(G, found.w, head, head.camera[:1]),
        "layers": _judged(G, found.ws, head, head.camera[:1]),
    }
    return row, found


def find_camera(
    G: Generator, head: KnownHead, yaw: float, pitch: float, options: InversionOptions
) -> dict[str, Any]:
    """Fits codes and camera to the last view of a head, whose angles (degrees) only the judge knows."""
    found = invert(G, head.images[-1:], None, options)
    angles = [(math.degrees(s.yaw), math.degrees(s.pitch)) for s in found.history]
    return {
        "seed": head.seed,
        "loss": [round(s.loss, 6) for s in found.history],
        "yaw error": [round(y - yaw, 3) for y, _ in angles],
        "pitch error": [round(p - pitch, 3) for _, p in angles],
        "layers": _judged(G, found.ws, head, found.camera.cpu()),
    }


def measure(
    args: InvertArgs, progress: Callable[[int, int], None] | None = None
) -> tuple[dict[str, Any], Tensor]:
    """The record, and pictures of the first head [K, 3, R, R] (see `picture_rows`)."""
    from head3d_core.synth.sets import SETS

    seeds = list(SETS["held_out_heads"].seeds)
    if not 1 <= args.heads <= len(seeds):
        raise Head3DError(f"there are {len(seeds)} held-out heads, got {args.heads}")
    models = {name: checkpoint.load_generator(name, device=args.device) for name in args.weights}
    around = cameras.orbit(2 * math.pi * torch.arange(_TURN) / _TURN)
    hidden = cameras.orbit(math.radians(args.yaw), math.radians(args.pitch))
    options = InversionOptions(steps=args.steps, layer_steps=args.layer_steps)
    rows: dict[str, Any] = {name: {"known camera": [], "unknown camera": []} for name in models}
    pictures: list[Tensor] = []
    heads = [known_head(seed, torch.cat([around, hidden])) for seed in seeds[: args.heads]]
    done = 0
    for head in heads:
        if head is heads[0]:
            pictures.extend(_true_row(head))
        for name, G in models.items():
            row, found = reconstruct(G, head, options)
            rows[name]["known camera"].append(row)
            rows[name]["unknown camera"].append(find_camera(G, head, args.yaw, args.pitch, options))
            if head is heads[0]:
                pictures.extend(_found_rows(G, found))
            done += 1
            if progress:
                progress(done, len(heads) * len(models))
    command = (
        f"python -m head3d_core invert --weights {' '.join(args.weights)} --heads {args.heads} --steps {args.steps} "
        f"--layer-steps {args.layer_steps} --device {args.device}"
    )
    about = {
        "yaw": args.yaw,
        "pitch": args.pitch,
        "steps": args.steps,
        "layer_steps": args.layer_steps,
        "heads": "held out: not among the fifty trained on",
        "errors": "pictures: mean absolute difference / range; surfaces: world units, degrees",
    }
    return {
        "about": about,
        "models": rows,
        "provenance": records.provenance(command, args.device, args.weights),
    }, torch.stack(pictures)


_SHOWN = (0, 3, 6, 12, 18)
"""Views of the turn that the picture shows: 0°, 45°, 90°, 180°, 270°."""


def _true_row(head: KnownHead) -> list[Tensor]:
    return list(shrink(head.images[list(_SHOWN)], 128))


@torch.no_grad()
def _found_rows(G: Generator, found: Inversion) -> list[Tensor]:
    """Two rows of pictures: w, then codes per layer."""
    out = []
    for ws in (found.w, found.ws):
        planes = G.planes(ws)
        for k in _SHOWN:
            camera = cameras.orbit(2 * math.pi * k / _TURN).to(ws)
            image = G.render(planes, ws, camera).image.clamp(-1, 1).cpu()
            out.append(F.interpolate(image, size=(128, 128), mode="bilinear", antialias=True)[0])
    return out


def run(args: InvertArgs) -> None:
    """The command `invert`: measures, writes the record and its picture, prints a summary."""
    from head3d_core.export import bar

    files.check_writable(args.out)
    files.check_writable(args.out.with_suffix(".jpg"))
    with bar("heads") as step:
        found, pictures = measure(args, step)
    records.write(args.out, found)
    picture = grids.save_grid(pictures, len(_SHOWN), args.out.with_suffix(".jpg"))
    for name, rows in found["models"].items():
        for stage in ("mean head", "w", "layers"):
            sides = [row[stage]["by side"] for row in rows["known camera"]]
            text = ", ".join(f"{side} {np.mean([s[side] for s in sides]):.3f}" for side in SIDES)
            print(f"{name:8s}{stage:10s} {text}")
    print(f"wrote {args.out} and {picture.name}")
