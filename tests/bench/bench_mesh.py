"""From codes to a GLB on the CPU: seconds and peak memory of every step, each case in a process of its own.

    python tests/bench/bench_mesh.py --weights head3d --json data/results/bench_mesh_cpu.json

Without `--weights` the model is a ball with random colours and the `classroom` preset's shapes, whose
surface has about as many triangles as a head's: time and memory depend on shapes and on the surface's area, not on what
was learned. "cpu" is processor time summed over threads (wall time on a quiet machine is less).
Targets on two cores: 256³ grid to GLB with vertex colours 10 s and 1.5 GB, with a UV texture 60 s.
"""

from __future__ import annotations

import os
import resource
import tempfile
import time
from json import dumps
from pathlib import Path
from typing import Any, Literal

import common
import torch
import tyro

from head3d_core import ops
from head3d_core.checkpoints.weights import read_notes
from head3d_core.config import preset
from head3d_core.geometry import colour, export, mesh
from head3d_core.model.generator import Generator
from head3d_core.utils import records

TARGETS = {"vertex colours": {"seconds": 10.0, "bytes": 1.5e9}, "texture": {"seconds": 60.0, "bytes": None}}


def ball_generator() -> Any:
    """`classroom`'s planes and decoder, with sigma about 65 - 900 r²: a ball of radius 0.25, random colours."""
    torch.manual_seed(0)
    G = Generator(preset("classroom").generator).eval()
    axis = torch.linspace(-0.5, 0.5, G.config.plane_resolution)
    planes = 0.1 * torch.randn(1, 3, G.config.plane_channels, len(axis), len(axis))
    # Each coordinate stands in two planes and the features of the planes are averaged: channel 0 reads 100 r².
    planes[:, :, 0] = 150 * (axis[:, None].square() + axis[None].square())
    layout = planes.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    weights = G.decoder.weights()
    w0, b0, w1, b1 = (w.detach().clone() for w in weights)
    w0[0], b0[0], w0[0, 0] = 0, 0, 1
    w1[0], b1[0], w1[0, 0] = 0, 66, -9  # softplus(100 r²) is 6.25 at r = 0.25, where sigma is 10
    fixed = type(weights)(w0, b0, w1, b1)
    G.decoder.weights = lambda: fixed  # type: ignore[method-assign]
    G.planes = lambda ws, *_: layout  # type: ignore[method-assign]
    return G


def measure(case: str, weights: str | None, seed: int, resolution: int) -> dict[str, Any]:
    """One case in this process: seconds of each step and the process's peak memory."""
    if weights:
        G, ws = export.load_head(weights, seed, 0.7, "cpu")
    else:
        G = ball_generator()
        ws = torch.zeros(1, G.num_ws, G.config.w_dim)
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    start, before = time.perf_counter(), time.process_time()
    faces = colour.FACES if case == "texture" else None
    head = mesh.extract_mesh(G, ws, resolution, faces=faces, colours=case != "texture")
    row: dict[str, Any] = {"case": case, "resolution": resolution}
    row["surface seconds"] = round(time.perf_counter() - start, 2)
    if case == "texture":
        head = colour.bake_texture(G, ws, head, 1024)
        row["texture seconds"] = round(time.perf_counter() - start - row["surface seconds"], 2)
    with tempfile.TemporaryDirectory() as folder:
        row["file bytes"] = mesh.save(head, Path(folder) / "head.glb").stat().st_size
    row["seconds"] = round(time.perf_counter() - start, 2)
    row["cpu"] = round(time.process_time() - before, 2)
    row["bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    row["bytes before"] = loaded
    row["triangles"] = len(head.faces)
    return row


def main(
    weights: str | None = None,
    seed: int = 0,
    resolution: int = 256,
    repeats: int = 3,
    threads: int = 2,
    json: Path | None = None,
    case: Literal["vertex colours", "texture"] | None = None,
) -> None:
    """Runs every case several times in fresh processes and keeps the fastest run of each.

    `weights`: bundled name or path; without it the ball. `case`: one case in this process.
    """
    if case:
        print(dumps(measure(case, weights, seed, resolution)))
        return
    rows, model = [], ["--weights", weights] if weights else []
    for name, target in TARGETS.items():
        options = ["--case", name, "--seed", seed, "--resolution", resolution, *model]
        runs = [common.fresh(__file__, *options, OMP_NUM_THREADS=str(threads)) for _ in range(repeats)]
        best = min(runs, key=lambda r: r["seconds"])
        best |= {"bytes": max(r["bytes"] for r in runs), "target": target}
        rows.append(best)
        seconds = f"{best['seconds']:7.2f} s (target {target['seconds']:g}), {best['cpu']:.2f} s of processor"
        print(f"{name:16s}{seconds}, {best['bytes'] / 1e9:.2f} GB, {best['triangles']} triangles")
    if json:
        command = " ".join(["python tests/bench/bench_mesh.py", *model, f"--json {json}"])
        notes = {weights: read_notes(weights)} if weights else None
        table = {
            "rows": rows,
            "model": weights or "ball with the classroom preset's shapes",
            "threads": threads,
            "repeats": repeats,
            "instruction_set": ops.instruction_set(),
            "load_average": round(os.getloadavg()[0], 1),
        }
        records.write(json, table | records.provenance(command, "cpu", notes))


if __name__ == "__main__":
    tyro.cli(main)
