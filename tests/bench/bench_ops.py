"""Every compiled operator against its reference on the CPU: time, ratio and peak memory (bench_cuda.py: on a GPU).

    python tests/bench/bench_ops.py --json data/results/bench_ops_cpu.json

The scene, but for "a head from z", is haze (no sample is hidden, so the kernel may leave nothing out): the slowest
there is. Each instruction set that the processor has is timed. "wall" is the best of the repeats and "cpu" the least
processor time, summed over threads: on a quiet machine wall is about cpu / threads. The ratio is one of processor
times, which other programs on the machine disturb less. The forward renderer's row "compiled" is the reference under
`torch.compile`; its first call, which compiles, is not counted.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import common  # noqa: F401  (before torch)
import torch
import tyro

from head3d_core import ops
from head3d_core.checkpoints.weights import load_generator
from head3d_core.config import RenderOptions
from head3d_core.model import cameras, filters, planes, rays, volume
from head3d_core.model.planes import DecoderWeights
from head3d_core.utils import records

Run = Callable[[Any], Any]
"""Takes "reference", "native" or, for the renderer, "compiled"."""


def haze(side: int, slices: int = 1) -> tuple[torch.Tensor, DecoderWeights, torch.Tensor, torch.Tensor]:
    """Random planes [1, 2 + slices, 32, 256, 256], a random decoder and the rays of a frontal camera."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    weights = DecoderWeights(normal(64, 32) / 32**0.5, normal(64) * 0.1, normal(33, 64) / 8, normal(33) * 0.1)
    origins, directions = rays.camera_rays(cameras.orbit(0.3), side)
    return normal(1, 2 + slices, 32, 256, 256), weights, origins.contiguous(), directions


def cases() -> Iterator[tuple[str, str, Run]]:
    """(operator, size, what to run) for each line of the table."""
    options = RenderOptions(axes="eg3d", white_back=True)
    compiled = torch.compile(volume.render_rays, dynamic=False)
    for side, slices in ((64, 1), (64, 2), (128, 1)):
        p, weights, origins, directions = haze(side, slices)
        size = f"1 x {side}² rays, 48+48 samples, planes 256² x 32" + ", two slices" * (slices - 1)
        inner = p.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
        leaves = [t.clone().requires_grad_() for t in (p, *weights)]

        def render(path: Any, p: Any = p, w: Any = weights, o: Any = origins, d: Any = directions) -> Any:
            if path == "compiled":
                return compiled(p, w, o, d, options, backend="reference")
            return volume.render_rays(p, w, o, d, options, backend=path)

        def step(path: Any, render: Any = render, leaves: Any = leaves) -> Any:
            result = render(path, leaves[0], DecoderWeights(*leaves[1:]))
            torch.autograd.grad(result.features.sum() + result.depth.sum(), leaves)

        yield "render_rays", size, render
        if side == 64:
            yield "render_rays", size + ", channels innermost", lambda b, r=render, i=inner: r(b, i)
            yield "render_rays forward + backward", size, step

    points = torch.rand(1, 64**3, 3) - 0.5
    p, weights, _, _ = haze(1)
    yield "query_planes", "64³ points", lambda b: planes.query(p, weights, points, backend=b)
    yield "sample_planes", "64³ points", lambda b: planes.sample_planes(p, points, backend=b)

    x, size = torch.randn(1, 64, 256, 256), "1 x 64 x 256²"
    bias, leaf = torch.randn(64), x.clone().requires_grad_()

    def twice(f: Callable[[torch.Tensor], torch.Tensor]) -> None:  # as R1 does: the gradient's own gradient
        (gradient,) = torch.autograd.grad(f(leaf).square().sum(), leaf, create_graph=True)
        torch.autograd.grad(gradient.square().sum(), leaf)

    G = load_generator("head3d")
    z = torch.randn(1, G.z_dim)

    def picture(path: str) -> None:
        os.environ["HEAD3D_DISABLE_NATIVE"] = str(int(path == "reference"))
        try:
            with torch.inference_mode():
                G(z, cameras.frontal())
        finally:
            del os.environ["HEAD3D_DISABLE_NATIVE"]

    yield "a head from z", "classroom: 64² rays, finished picture of 256²", picture

    yield "upsample2d", size, lambda b: filters.upsample2d(x, b)
    yield "downsample2d", size, lambda b: filters.downsample2d(x, b)
    yield "downsample2d, two derivatives", size, lambda b: twice(lambda t: filters.downsample2d(t, b))
    yield "bias_act", size, lambda b: filters.bias_act(x, bias, "lrelu", clamp=256, backend=b)
    yield (
        "bias_act, two derivatives",
        size,
        lambda b: twice(lambda t: filters.bias_act(t, bias, "lrelu", clamp=256, backend=b)),
    )


class PeakMemory:
    """Growth of the peak of the process's resident set over the start (Linux)."""

    mib = float("nan")

    def _resident(self, field: str) -> int:
        status = Path("/proc/self/status").read_text()
        return int(status.split(field + ":")[1].split()[0]) * 1024

    def __enter__(self) -> PeakMemory:
        if sys.platform == "linux":
            ctypes.CDLL(None).malloc_trim(0)  # memory that was freed but kept would hide what the call takes
            Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
            self.start = self._resident("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        if sys.platform == "linux":
            self.mib = (self._resident("VmHWM") - self.start) / 2**20


def measure(run: Run, path: str, repeats: int) -> dict[str, float]:
    """Best wall and CPU milliseconds, and MiB above the inputs."""

    def once() -> tuple[float, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        run(path)
        return (time.perf_counter() - wall) * 1e3, (time.process_time() - cpu) * 1e3

    if path == "compiled":
        once()
    with PeakMemory() as memory:
        once()
    times = [once() for _ in range(repeats)]
    return {"wall_ms": min(w for w, _ in times), "cpu_ms": min(c for _, c in times), "peak_mib": memory.mib}


def instruction_sets() -> list[str]:
    """Those that this processor can run, fastest first."""
    found = []
    for wish in ("", "avx2", "scalar"):
        os.environ["HEAD3D_CPU_ISA"] = wish
        if ops.instruction_set() not in found:
            found.append(ops.instruction_set())
    return found


def main(repeats: int = 9, only: str = "", json: Path | None = None) -> None:
    """Prints the table and writes the JSON; `only`: operators whose name contains this."""
    if not ops.available():
        raise SystemExit(
            "The compiled extension is not built, so there is nothing to compare: run `make venv`."
        )
    command = " ".join(["python", *sys.argv])
    load = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None
    more = {
        "threads": torch.get_num_threads(),
        "instruction_set": ops.instruction_set(),
        "load_average": load,
    }
    report = {"provenance": records.provenance(command, **more), "results": []}
    print(report["provenance"])
    print(f"{'operator':<31} {'size':<74} {'path':<10} {'wall ms':>8} {'cpu ms':>8} {'ratio':>6} {'MiB':>7}")
    for name, size, run in cases():
        if only not in name:
            continue
        rows = {"reference": measure(run, "reference", max(1, repeats // 3))}
        if name == "render_rays":
            rows["compiled"] = measure(run, "compiled", max(1, repeats // 3))
        for path in instruction_sets():
            os.environ["HEAD3D_CPU_ISA"] = path
            rows[path] = measure(run, "native", repeats)
        for path, row in rows.items():
            row["ratio"] = rows["reference"]["cpu_ms"] / row["cpu_ms"]
            shown = (
                f"{row['wall_ms']:>8.1f} {row['cpu_ms']:>8.1f} {row['ratio']:>6.1f} {row['peak_mib']:>7.0f}"
            )
            print(f"{name:<31} {size:<74} {path:<10} {shown}", flush=True)
            figures = {k: round(v, 2) for k, v in row.items()}
            report["results"].append({"operator": name, "size": size, "path": path, **figures})
    if json:
        records.write(json, report)


if __name__ == "__main__":
    tyro.cli(main)
