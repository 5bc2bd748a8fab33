"""Geometry as a measure: closed heads, and surfaces against known ones.

    python -m head3d_core geometry --weights face head head3d

Closedness needs no ground truth: it is the share of directions from which a ray meets the head, by the function that
the evaluation records too (`completeness.closed_heads`). Surface errors need it: heads of the factory that were not
trained on are found again from one frontal picture, and compared with the true surface.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from head3d_core.checkpoints import weights as checkpoint
from head3d_core.checkpoints.weights import read_notes
from head3d_core.experiments.inversion import InversionOptions
from head3d_core.experiments.one_view import known_head, reconstruct
from head3d_core.geometry import mesh, turntable
from head3d_core.metrics.silhouettes import closed_heads
from head3d_core.model import cameras
from head3d_core.model.generator import Generator
from head3d_core.model.seeds import ws_of_seeds
from head3d_core.utils import files, records
from head3d_core.utils.errors import Head3DError


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
    reconstructions: int = 4
    """Held-out heads that are found again from one picture and compared with the truth (needs OpenGL); 0: none."""
    steps: int = 100
    """Iterations of each step of that fit."""
    truncation_psi: float = 1.0
    """1: everything the generator knows."""
    out: Path = files.DATA / "results" / "geometry.json"
    """File to write."""
    device: str = "cpu"
    """Where to run: cpu, cuda, ..."""


@torch.no_grad()
def generated(G: Generator, args: GeometryArgs) -> dict[str, Any]:
    """Closedness of `args.heads` seeds, and facts about the surfaces of the first `args.meshes`."""
    ws = ws_of_seeds(G, list(range(args.heads)), args.truncation_psi)
    planes = torch.cat([G.planes(one) for one in ws.split(4)])
    row: dict[str, Any] = {"closedness": closed_heads(G, planes).to_dict(), "surfaces": []}
    for k in range(min(args.meshes, args.heads)):
        start = time.perf_counter()
        try:
            head = mesh.extract_mesh(G, ws[k : k + 1], args.resolution, colours=False)
        except Head3DError as error:  # no surface at this level is a result, not a failure
            row["surfaces"].append({"seed": k, "refused": str(error)})
            continue
        seconds = time.perf_counter() - start
        pictures = turntable.frames(G, ws[k : k + 1], 24)
        row["surfaces"].append(
            {
                "seed": k,
                "pieces": int(head.metadata["pieces"]),
                "watertight": bool(head.is_watertight),
                "volume": round(float(abs(head.volume)), 5),
                "extents": [round(float(x), 4) for x in head.extents],
                "seconds": round(seconds, 2),
                "flicker": round(turntable.flicker(pictures), 3),
            }
        )
    return row


def measure(args: GeometryArgs, progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """The record that the command writes.

    Raises:
        Head3DError: fewer than two heads, weights that are missing, or no OpenGL although heads are to be found again.
    """
    from head3d_core.synth.sets import SETS

    seeds = list(SETS["held_out_heads"].seeds)
    if args.heads < 2 or not 0 <= args.reconstructions <= len(seeds):
        raise Head3DError(
            f"geometry needs at least 2 heads and 0 to {len(seeds)} reconstructions, "
            f"got {args.heads} and {args.reconstructions}"
        )
    known = [known_head(seed, cameras.orbit(0.0)) for seed in seeds[: args.reconstructions]]
    options = InversionOptions(steps=args.steps, layer_steps=args.steps)
    models: dict[str, Any] = {}
    total, done = len(args.weights) * (1 + len(known)), 0
    for name in args.weights:
        G = checkpoint.load_generator(name, device=args.device)
        models[name] = {**generated(G, args), "reconstructions": []}
        done += 1
        for row in reconstruct(G, known, options)[0] if known else []:
            kept = {stage: row[stage]["surface"] for stage in ("mean head", "w", "layers")}
            models[name]["reconstructions"].append({"seed": row["seed"], **kept})
            done += 1
            if progress:
                progress(done, total)
    command = (
        f"python -m head3d_core geometry --weights {' '.join(args.weights)} --heads {args.heads} "
        f"--reconstructions {args.reconstructions} --steps {args.steps} --device {args.device}"
    )
    return {
        "about": {
            "closedness": "share of 2000 directions with opacity of at least 0.5, 95 % bootstrap interval over heads",
            "surface": "world units (a head is about 0.4 tall), degrees; heads not trained on, from one frontal view",
            "level": mesh.LEVEL,
            "resolution": args.resolution,
            "truncation_psi": args.truncation_psi,
        },
        "models": models,
        "provenance": records.provenance(
            command, args.device, {name: read_notes(name) for name in args.weights}
        ),
    }


def lines(found: dict[str, Any]) -> list[str]:
    """The record as text: closedness, chamfer distance and normal error of each generator."""
    out = [f"{'':10s}{'closedness':>24s}{'chamfer':>10s}{'normals':>9s}"]
    for name, row in found["models"].items():
        c = row["closedness"]
        closed = f"{c['value']:.3f} [{c['low']:.3f}, {c['high']:.3f}]"
        surface = [r["layers"] for r in row["reconstructions"] if r["layers"]]
        chamfer = f"{np.mean([s['chamfer'] for s in surface]):.4f}" if surface else "-"
        normals = f"{np.mean([s['normal_degrees'] for s in surface]):.1f}°" if surface else "-"
        out.append(f"{name:10s}{closed:>24s}{chamfer:>10s}{normals:>9s}")
    return out


def run(args: GeometryArgs) -> None:
    """The command `geometry`: measures, writes the file, prints the table."""
    from head3d_core.geometry.export import bar

    files.check_writable(args.out)
    with bar("models and heads") as step:
        found = measure(args, step)
    records.write(args.out, found)
    print("\n".join(lines(found)))
    print(f"wrote {args.out}")
