"""Time and memory of the renderer against resolution, for notebook 03: reference and fused, each in a fresh process.

    python tests/bench/bench_fused.py --json data/results/fused_cpu.json

Peak memory is the growth of the process's resident set over a one-pixel render, so that what is counted is what the
rays need, not the interpreter.
"""

from __future__ import annotations

import os
import platform
import resource
import time
from json import dumps
from pathlib import Path

import common
import torch
import tyro

from head3d_core import ops
from head3d_core.config import Backend, RenderOptions
from head3d_core.model import cameras, rays
from head3d_core.model.planes import Decoder
from head3d_core.model.volume import render_rays
from head3d_core.utils import records

RESOLUTIONS = (16, 32, 64, 96, 128)


def measure(backend: Backend, resolution: int, repeats: int) -> dict[str, float]:
    """Median seconds and extra peak bytes of one forward pass: 48+48 samples, planes 256² x 32, batch 1."""
    torch.manual_seed(0)
    weights = Decoder(32, 64, 32).weights()
    planes = torch.randn(1, 3, 256, 256, 32).permute(0, 1, 4, 2, 3)
    options = RenderOptions()

    def run(side: int) -> float:
        origins, directions = rays.camera_rays(cameras.orbit(0.3), side)
        start = time.perf_counter()
        with torch.no_grad():
            render_rays(planes, weights, origins, directions, options, backend=backend)
        return time.perf_counter() - start

    run(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = sorted(run(resolution) for _ in range(repeats))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds[len(seconds) // 2], "bytes": (after - before) * 1024.0}


def main(json: Path | None = None, repeats: int = 3, one: tuple[Backend, int] | None = None) -> None:
    """Runs every case in a process of its own and prints or writes the table; `one`: a case in this process."""
    if one:
        print(dumps(measure(*one, repeats)))
        return
    from head3d_course.nb03 import agreement

    rows = []
    for backend in ("reference", "native"):
        for resolution in RESOLUTIONS:
            found = common.fresh(__file__, "--one", backend, resolution, "--repeats", repeats)
            rows.append({"backend": backend, "resolution": resolution, **found})
            ms, mib = found["seconds"] * 1e3, found["bytes"] / 2**20
            print(f"{backend:10s} {resolution:4d}² {ms:9.1f} ms {mib:8.1f} MiB")
    table = {
        "what": "renderer forward, 48+48 samples, planes 256² x 32 channels, batch 1, float32",
        "device": f"CPU, {torch.get_num_threads()} threads, {platform.machine()}",
        "instruction_set": ops.instruction_set(),
        "threads": int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())),
        "torch": torch.__version__.split("+")[0],
        "date": time.strftime("%Y-%m-%d"),
        "commit": records.code_commit(),
        "agreement": agreement(),
        "rows": rows,
    }
    if json:
        records.write(json, table)


if __name__ == "__main__":
    tyro.cli(main)
