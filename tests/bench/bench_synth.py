"""How fast the head factory draws: new identities per second, further views per second, and where the time goes.

    python tests/bench/bench_synth.py --workers 16 --out synth.json

Needs numpy, scipy, pillow and moderngl (no torch). Every process builds its own heads and draws them on the shared
graphics card; the clock runs from the moment when all are ready (imports, shaders, first heads) to the last picture.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import tyro  # noqa: E402

from head3d_core.synth import sets  # noqa: E402
from head3d_core.synth.heads import build_head  # noqa: E402
from head3d_core.synth.identity import identity  # noqa: E402
from head3d_core.synth.make_data import render, render_stream  # noqa: E402
from head3d_core.synth.pool import cores  # noqa: E402
from head3d_core.synth.renderer import Renderer  # noqa: E402

SKIP_WARM = 20_000
"""Heads drawn before the clock starts are others than the measured ones."""


def stages(renderer: Renderer, count: int) -> dict[str, dict[str, float]]:
    """Seconds per head of each stage when one process works alone and waits after each: on the clock, and of CPU."""
    names = ("build_head", "upload_and_light", "draw_and_read", "further_view")
    totals = {name: np.zeros(2) for name in names}

    def clocks() -> np.ndarray:
        return np.array([time.perf_counter(), time.process_time()])

    def lap(name: str, since: np.ndarray) -> np.ndarray:
        with renderer.context:
            renderer.context.finish()
        now = clocks()
        totals[name] += now - since
        return now

    for index in range(count):
        item = sets.example("faces", SKIP_WARM + 100 + index)
        t = clocks()
        head = build_head(identity(item.seed, item.kind))
        t = lap("build_head", t)
        renderer.load(head, item.light())
        t = lap("upload_and_light", t)
        renderer.draw(item.camera)
        t = lap("draw_and_read", t)
        renderer.draw(sets.orbit_camera(0.4, 0.1))
        lap("further_view", t)
    return {
        name: {"wall": round(wall / count, 5), "cpu": round(cpu / count, 5)}
        for name, (wall, cpu) in totals.items()
    }


def worker(rank: int, workers: int, faces: int, views: int, size: int, barrier: Any, results: Any) -> None:
    """One process: gets ready, waits for the others, then works off its share."""
    renderer = Renderer(size)
    warm = [(k, sets.example("faces", SKIP_WARM + rank * 4 + k)) for k in range(3)]
    for _ in render_stream(renderer, warm, geometry=False):
        pass
    barrier.wait()
    start = time.monotonic()
    mine = [(i, sets.example("faces", i)) for i in range(rank, faces, workers)]
    n_faces = sum(1 for _ in render_stream(renderer, mine, geometry=False))
    faces_span = (start, time.monotonic())

    head = sets.example("heads", rank, views=1)
    renderer.load(build_head(identity(head.seed, head.kind)), head.light())
    renderer.draw(head.camera)
    barrier.wait()
    start = time.monotonic()
    cameras = [sets.orbit_camera(*sets.head_angles(head.seed, k)) for k in range(views)]
    n_views = sum(1 for _ in renderer.draw_many(cameras))
    results.put((n_faces, faces_span, n_views, (start, time.monotonic()), renderer.device))


def rate(counts: list[int], spans: list[tuple[float, float]]) -> float:
    """Pictures per second from the first start to the last end."""
    return round(sum(counts) / (max(s[1] for s in spans) - min(s[0] for s in spans)), 2)


def main(
    workers: int = cores(), faces: int = 0, views: int = 200, resolution: int = 256, out: Path | None = None
) -> None:
    """Measures, prints a summary and writes JSON.

    Args:
        faces: new identities in all; 0: 60 per process.
        views: further views per process.
    """
    from head3d_core.utils import records  # it brings torch, which the workers do without

    faces = faces or 60 * workers
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(workers), context.Queue()
    began = time.monotonic()
    same = (workers, faces, views, resolution, barrier, results)
    processes = [context.Process(target=worker, args=(rank, *same)) for rank in range(workers)]
    for process in processes:
        process.start()
    found = [results.get(timeout=900) for _ in processes]
    for process in processes:
        process.join()
    ready = min(f[1][0] for f in found) - began

    alone = Renderer(resolution)
    stages(alone, 2)
    seconds = stages(alone, 12)
    alone.release()
    total = max(faces // 4, 8)
    t = time.perf_counter()
    images, *_ = render("faces", range(total), resolution, workers=workers)
    whole = time.perf_counter() - t

    report = {
        "new_identities_per_s": rate([f[0] for f in found], [f[1] for f in found]),
        "further_views_per_s": rate([f[2] for f in found], [f[3] for f in found]),
        "seconds_until_ready": round(ready, 2),
        "render_set": {"pictures": len(images), "seconds_with_start": round(whole, 2)},
        "seconds_per_head_one_process_alone": seconds,
        "workers": workers,
        "resolution": resolution,
        "identities": faces,
        "views_per_process": views,
        "renderer": found[0][4],
        "cpu_cores": cores(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "moderngl": version("moderngl"),
        "commit": records.code_commit(),
        "date": time.strftime("%Y-%m-%d"),
        "command": f"python tests/bench/bench_synth.py --workers {workers} --resolution {resolution}",
    }
    text = json.dumps(report, indent=2)
    print(text)
    if out:
        out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    tyro.cli(main)
