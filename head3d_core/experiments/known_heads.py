"""Measures of generators on heads whose geometry and other sides are known: procedural heads that were not trained on.

    python -m head3d_core invert --weights face head3d
    python -m head3d_core geometry --weights face head head3d

`invert` fits codes to one image under its known camera, and again with yaw and pitch unknown. Errors are measured on
images from other sides and on the surface, where nothing was fitted. `geometry` measures generated heads, which needs
no ground truth: closedness is the share of directions from which a ray meets the head.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from head3d_core.checkpoints import weights as checkpoint
from head3d_core.experiments import study
from head3d_core.experiments.inversion import (
    Inversion,
    InversionOptions,
    angle_between,
    invert,
    shrink,
    view_errors,
    w_statistics,
)
from head3d_core.geometry import mesh, pointclouds, turntable
from head3d_core.model import cameras
from head3d_core.model.generator import Generator
from head3d_core.model.seeds import ws_of_seeds
from head3d_core.synth.identity import HELD_OUT_HEADS
from head3d_core.utils import files, images
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.estimates import Estimate, bootstrap_mean
from head3d_core.utils.progress import Progress, counted

SIDES = {"near (≤ 45°)": (0.0, 45.0), "side (45° to 120°)": (45.0, 120.0), "far (> 120°)": (120.0, 181.0)}
"""Groups of views by their angle from the fitted view, degrees, lower end excluded: the fitted view is in no group."""
FITTED = 0.1
"""Degrees within which a view is the fitted one, because arcsines of rounded directions are not quite 0."""
TURN = 12
"""Views of the turn around a head, evenly spaced."""
SHOWN = (0, 2, 3, 6, 9)
"""Views of the turn that the sheet shows: 0°, 60°, 90°, 180°, 270°."""
CELL = 80
"""Side of its cells, pixels."""
PICTURED = 4
"""Heads on it, at most."""


@dataclass(frozen=True)
class InvertArgs:
    """Fits held-out heads to one image each, and measures them from all sides."""

    weights: tuple[str, ...] = ("face", "head3d")
    """Generators to fit with."""
    heads: int = 4
    """Held-out heads, at most 50."""
    steps: int = 200
    """Iterations with one code w."""
    layer_steps: int = 200
    """Iterations with one code per layer afterwards."""
    candidates: int = 128
    """Seeds whose best one is the start."""
    yaw: float = 30.0
    """Of the image whose camera is to be found, degrees; the one with a known camera is frontal."""
    pitch: float = 10.0
    """Of the image whose camera is to be found, degrees."""
    out: Path = Path("out/inversion.json")
    """File to write; the images take its name and end in .jpg."""
    device: str = "cpu"
    """Where to run: cpu, cuda, ..."""


@dataclass(frozen=True)
class GeometryArgs:
    """Measures the geometry of generators."""

    weights: tuple[str, ...] = ("face", "head", "head3d")
    """Generators to measure: bundled names or paths."""
    heads: int = 64
    """Generated heads whose closedness is measured, at least 2."""
    meshes: int = 4
    """Of these, heads whose surface is extracted: pieces, watertightness, smoothness of a turn."""
    resolution: int = 128
    """Points of the grid of sigma per side for those."""
    truncation_psi: float = 1.0
    """1: everything the generator knows."""
    out: Path = Path("out/geometry.json")
    """File to write."""
    device: str = "cpu"
    """Where to run: cpu, cuda, ..."""


class KnownHead:
    """A procedural head as images [V, 3, 256, 256] in [-1, 1] from cameras [V, 25], and as a surface.

    Raises:
        Head3DError: no OpenGL.
    """

    def __init__(self, seed: int, camera: Tensor) -> None:
        self.seed, self.camera = seed, camera
        self.images = images.from_pixels(pointclouds.factory_views(seed, camera, 256).rgb)
        self.cloud = pointclouds.true_cloud(seed, pointclouds.look_around())


def sample_head(index: int) -> tuple[Tensor, Tensor]:
    """Images [12, 3, 256, 256] in [-1, 1] and cameras [12, 25] of one of the eight bundled heads (no OpenGL needed).

    They belong to the fifty heads of the training set.
    """
    from head3d_core.datasets.format import load_arrays

    if not 0 <= index < 8:
        raise Head3DError(f"there are 8 bundled heads, 0 to 7, got {index}")
    pixels, camera = load_arrays(files.DATA / "samples" / "heads")
    rows = slice(12 * index, 12 * index + 12)
    return images.from_uint8(pixels[rows]), camera[rows]


def rounded(values: Iterable[Tensor], digits: int) -> list[float]:
    """Numbers for a record."""
    return [round(float(x), digits) for x in values]


def by_side(angles: Tensor, errors: Tensor) -> dict[str, float]:
    """Mean of view errors [V] in each group of `SIDES` that has a view, by angles [V] (degrees) from the fitted view,
    which is left out."""
    groups = {
        name: errors[(angles > max(low, FITTED)) & (angles <= high)] for name, (low, high) in SIDES.items()
    }
    return {name: round(float(group.double().mean()), 5) for name, group in groups.items() if len(group)}


def side_errors(G: Generator, ws: Tensor, head: KnownHead, fitted: Tensor) -> dict[str, float]:
    """View errors of codes ws [1, num_ws, w_dim] `by_side`; fitted [1, 25] is the camera of the fitted view."""
    return by_side(angle_between(head.camera, fitted), view_errors(G, ws, head.images, head.camera))


def known_errors(G: Generator, ws: Tensor, head: KnownHead) -> dict[str, Any]:
    """Errors of codes ws [1, num_ws, w_dim] against everything that is known of a head: other sides and the surface."""
    with torch.no_grad():
        cloud = pointclouds.model_cloud(G, G.planes(ws), pointclouds.look_around().to(G.device))
    row: dict[str, Any] = {"by side": side_errors(G, ws, head, head.camera[:1]), "surface": None}
    if len(cloud):
        error = pointclouds.surface_error(cloud, head.cloud)
        row["surface"] = {k: round(v, 5) for k, v in {**asdict(error), "chamfer": error.chamfer}.items()}
    return row


def reconstruct(
    G: Generator, heads: Sequence[KnownHead], options: InversionOptions, every: int, progress: Progress
) -> tuple[list[dict[str, Any]], Inversion]:
    """Fits each head's first view (its camera known) and judges the mean head, w and the codes per layer.

    Args:
        every: iterations between two measurements from other sides.

    Returns:
        A JSON-able row for each head, and the fitted codes.
    """
    curves: list[list[dict[str, Any]]] = [[] for _ in heads]

    def watch(iteration: int, ws: Tensor) -> None:
        if iteration % every == 0:
            for head, one, curve in zip(heads, ws.split(1), curves, strict=True):
                curve.append({"iteration": iteration, **side_errors(G, one, head, head.camera[:1])})

    targets, camera = (torch.stack([getattr(h, name)[0] for h in heads]) for name in ("images", "camera"))
    fit = invert(G, targets, camera, options, progress, watch)
    mean = w_statistics(G)[0].expand(1, G.num_ws, -1)
    rows = []
    for k, head in enumerate(heads):
        stages = {"mean head": mean, "w": fit.w[k : k + 1], "layers": fit.ws[k : k + 1]}
        row = {"seed": head.seed, "loss": rounded(fit.loss[:, k], 6), "other sides": curves[k]}
        rows.append(row | {stage: known_errors(G, ws, head) for stage, ws in stages.items()})
    return rows, fit


def find_cameras(
    G: Generator, heads: Sequence[KnownHead], args: InvertArgs, options: InversionOptions, progress: Progress
) -> list[dict[str, Any]]:
    """Fits codes and camera to the last view of each head, whose angles only the judge knows."""
    fit = invert(G, torch.stack([h.images[-1] for h in heads]), None, options, progress)
    errors = torch.rad2deg(fit.angles) - torch.tensor([args.yaw, args.pitch])
    rows = []
    for k, head in enumerate(heads):
        row: dict[str, Any] = {"seed": head.seed, "loss": rounded(fit.loss[:, k], 6)}
        row |= {f"{name} error": rounded(errors[:, k, j], 3) for j, name in enumerate(("yaw", "pitch"))}
        sides = side_errors(G, fit.ws[k : k + 1], head, fit.camera[k : k + 1])
        rows.append(row | {"layers": {"by side": sides}})
    return rows


def measure_inversions(args: InvertArgs, progress: Progress) -> dict[str, Any]:
    """The record that the command `invert` writes; its sheet of images is written here.

    Raises:
        Head3DError: an impossible number of heads, missing weights, no OpenGL, or a sheet that cannot be written.
    """
    files.check_writable(args.out.with_suffix(".jpg"))
    if not 1 <= args.heads <= len(HELD_OUT_HEADS):
        raise Head3DError(f"there are {len(HELD_OUT_HEADS)} held-out heads, got {args.heads}")
    around = cameras.orbit(2 * math.pi * torch.arange(TURN) / TURN)
    hidden = cameras.orbit(math.radians(args.yaw), math.radians(args.pitch))
    options = InversionOptions(args.steps, args.layer_steps, args.candidates)
    iterations = args.steps + args.layer_steps
    heads = [KnownHead(seed, torch.cat([around, hidden])) for seed in HELD_OUT_HEADS[: args.heads]]
    rows: dict[str, Any] = {}
    sheets = [shrink(head.images[list(SHOWN)], CELL) for head in heads[:PICTURED]]

    def step(done: int, total: int, before: int = 0) -> None:
        progress(before * iterations + done, 2 * len(args.weights) * iterations)

    for k, name in enumerate(args.weights):
        G = checkpoint.load_generator(name, device=args.device)
        every = max(iterations // 10, 1)
        known, fit = reconstruct(G, heads, options, every, partial(step, before=2 * k))
        unknown = find_cameras(G, heads, args, options, partial(step, before=2 * k + 1))
        rows[name] = {"known camera": known, "unknown camera": unknown}
        sheets = [
            torch.cat([sheet, _cells(G, torch.cat([w, ws]))])
            for sheet, w, ws in zip(sheets, fit.w.split(1), fit.ws.split(1), strict=False)
        ]
    about = {
        **{k: getattr(args, k) for k in ("yaw", "pitch", "steps", "layer_steps", "candidates")},
        "heads": "held out: not among the fifty trained on",
        "errors": "pictures: mean absolute difference / range; surfaces: world units, degrees",
    }
    # Two heads side by side: the truth, then every generator's w and codes per layer, with names.
    names = ["true head", *(f"{name}: {stage}" for name in args.weights for stage in ("w", "layers"))]
    turns = [f"{360 * k // TURN}°" for k in SHOWN]
    blocks = [images.with_names(images.montage(sheet, len(SHOWN)), names, turns) for sheet in sheets]
    whole = images.montage(images.from_pixels(np.stack(blocks)), min(2, len(blocks)))
    images.save(whole, args.out.with_suffix(".jpg"))
    return {"about": about, "models": rows, "provenance": study.provenance("invert", args, args.weights)}


@torch.no_grad()
def _cells(G: Generator, ws: Tensor) -> Tensor:
    """Cells of heads ws [N, num_ws, w_dim] from the sides that the sheet shows, [N * sides, 3, CELL, CELL]."""
    turns = [360 * k / TURN for k in SHOWN]
    seen = torch.cat([turntable.views(G, G.planes(one), one, turns)[0] for one in ws.split(1)])
    return F.interpolate(seen.clamp(-1, 1).cpu(), size=(CELL, CELL), mode="bilinear", antialias=True)


def inversion_lines(record: dict[str, Any]) -> list[str]:
    """The record as text: how far cameras are off, and view errors by side, of each generator."""
    out = []
    for name, rows in record["models"].items():
        yaw = [abs(row["yaw error"][-1]) for row in rows["unknown camera"]]
        out.append(
            f"{name:8s}unknown camera: yaw off by {np.mean(yaw):.1f}° on average, {max(yaw):.1f}° at most"
        )
        for stage in ("mean head", "w", "layers"):
            sides = [row[stage]["by side"] for row in rows["known camera"]]
            text = ", ".join(f"{side} {np.mean([s[side] for s in sides]):.3f}" for side in SIDES)
            surface = [row[stage]["surface"] for row in rows["known camera"] if row[stage]["surface"]]
            if surface:
                chamfer, normals = (np.mean([s[k] for s in surface]) for k in ("chamfer", "normal_degrees"))
                text += f", chamfer {chamfer:.4f}, normals {normals:.1f}°"
            out.append(f"{name:8s}{stage:10s} {text}")
    return out


run_invert = partial(study.run, measure=measure_inversions, lines=inversion_lines, unit="iterations")
"""The command `invert`."""


@torch.no_grad()
def generated(G: Generator, args: GeometryArgs) -> dict[str, Any]:
    """Closedness of `args.heads` seeds, and facts about the surfaces of the first `args.meshes`."""
    ws = ws_of_seeds(G, range(args.heads), args.truncation_psi)
    planes = torch.cat([G.planes(one) for one in ws.split(4)])
    closed = bootstrap_mean(torch.cat([mesh.closedness(G, one) for one in planes.split(1)]).cpu())
    row: dict[str, Any] = {"closedness": closed.to_dict(), "surfaces": []}
    for k, one in enumerate(ws[: args.meshes].split(1) if args.meshes else ()):
        start = time.perf_counter()
        try:
            head = mesh.extract_mesh(G, one, args.resolution, colours=False)
        except Head3DError as error:  # no surface at this level is a result, not a failure
            row["surfaces"].append({"seed": k, "refused": str(error)})
            continue
        row["surfaces"].append(
            {
                "seed": k,
                "pieces": int(head.metadata["pieces"]),
                "watertight": bool(head.is_watertight),
                "volume": round(float(abs(head.volume)), 5),
                "extents": [round(float(x), 4) for x in head.extents],
                "seconds": round(time.perf_counter() - start, 2),
                "flicker": round(turntable.flicker(turntable.frames(G, one, 24)), 3),
            }
        )
    return row


def measure_geometry(args: GeometryArgs, progress: Progress) -> dict[str, Any]:
    """The record that the command `geometry` writes. Raises Head3DError: fewer than two heads, or missing weights."""
    if args.heads < 2:
        raise Head3DError(f"geometry needs at least 2 heads, got {args.heads}")
    models = {
        name: generated(checkpoint.load_generator(name, device=args.device), args)
        for name in counted(args.weights, progress)
    }
    about = {
        "closedness": "share of 2000 directions with opacity of at least 0.5, 95 % bootstrap interval over heads",
        "level": mesh.LEVEL,
        "resolution": args.resolution,
        "truncation_psi": args.truncation_psi,
    }
    return {"about": about, "models": models, "provenance": study.provenance("geometry", args, args.weights)}


def geometry_lines(record: dict[str, Any]) -> list[str]:
    """The record as text: closedness of each generator, and how many of its surfaces are watertight."""
    out = []
    for name, row in record["models"].items():
        tight = sum(surface.get("watertight", False) for surface in row["surfaces"])
        closed = Estimate.of(row["closedness"]).text(3)
        out.append(f"{name:10s}closedness {closed}, {tight} of {len(row['surfaces'])} surfaces watertight")
    return out


run_geometry = partial(study.run, measure=measure_geometry, lines=geometry_lines, unit="models")
"""The command `geometry`."""
