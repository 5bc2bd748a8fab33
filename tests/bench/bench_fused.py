"""Time and memory of the renderer against resolution, for notebook 03: reference and fused, each in a fresh process.

    python tests/bench/bench_fused.py --json data/results/fused_cpu.json

Peak memory is the growth of the process's resident set over a one-pixel render, so that what is counted is what the
rays need, not the interpreter.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

RESOLUTIONS = (16, 32, 64, 96, 128)


def measure(backend: str, resolution: int, repeats: int) -> dict[str, float]:
    """Median seconds and extra peak bytes of one forward pass: 48+48 samples, planes 256² x 32, batch 1."""
    import torch

    from head3d_core.config import RenderOptions
    from head3d_core.model import cameras, rays
    from head3d_core.model.planes import Decoder
    from head3d_core.model.volume import render_rays

    torch.manual_seed(0)
    weights = Decoder(32, 64, 32).weights()
    planes = torch.randn(1, 3, 256, 256, 32).permute(0, 1, 4, 2, 3)
    options = RenderOptions()

    def run(side: int) -> float:
        origins, directions = rays.camera_rays(cameras.orbit(0.3), side)
        start = time.perf_counter()
        with torch.no_grad():
            render_rays(planes, weights, origins, directions, options, backend=backend)  # type: ignore[arg-type]
        return time.perf_counter() - start

    run(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = sorted(run(resolution) for _ in range(repeats))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds[len(seconds) // 2], "bytes": (after - before) * 1024.0}


def main() -> None:
    """Runs every case in a process of its own and prints or writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", nargs=2, metavar=("BACKEND", "RESOLUTION"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one[0], int(args.one[1]), args.repeats)))
        return
    import torch

    from head3d_core import ops
    from head3d_core.course.nb03 import agreement
    from head3d_core.utils import records

    rows: list[dict[str, Any]] = []
    for backend in ("reference", "native"):
        for resolution in RESOLUTIONS:
            case = ["--one", backend, str(resolution), "--repeats", str(args.repeats)]
            command = [sys.executable, __file__, *case]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            rows.append({"backend": backend, "resolution": resolution, **found})
            print(
                f"{backend:10s} {resolution:4d}² {found['seconds'] * 1e3:9.1f} ms {found['bytes'] / 2**20:8.1f} MiB"
            )
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
    if args.json:
        records.write(args.json, table)


if __name__ == "__main__":
    main()
