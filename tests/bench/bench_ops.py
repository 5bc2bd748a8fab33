"""Every compiled operator against its reference: time, ratio and peak memory, on the CPU or a GPU.

    python tests/bench/bench_ops.py --json data/results/bench_ops_cpu.json
    python tests/bench/bench_ops.py --device cuda

The scene, but for "a head from z", is haze (no sample is hidden, so the kernel may leave nothing out): the slowest
there is. On the CPU each instruction set that the processor has is timed. "wall" is the best of the repeats and "cpu"
the least processor time, summed over threads: on a quiet machine wall is about cpu / threads. The CPU's ratio is one
of processor times, which other programs on the machine disturb less; the GPU's is one of wall times. The forward
renderer's row "compiled" is the reference under `torch.compile`; its first call, which compiles, is not counted.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: waiting threads must not count as work

import torch  # noqa: E402

from head3d_core import ops  # noqa: E402
from head3d_core.checkpoints.weights import load_generator  # noqa: E402
from head3d_core.config import RenderOptions  # noqa: E402
from head3d_core.model import cameras, filters, planes, rays, volume  # noqa: E402
from head3d_core.model.planes import DecoderWeights  # noqa: E402
from head3d_core.utils import records  # noqa: E402

Run = Callable[[Any], Any]
"""Takes "reference", "native" or, for the renderer, "compiled"."""


def provenance(device: torch.device, command: str) -> dict[str, Any]:
    """What the figures were measured with."""
    return records.provenance(
        command,
        device,
        threads=torch.get_num_threads(),
        instruction_set=ops.instruction_set(),
        load_average=round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
    )


def haze(
    device: torch.device, batch: int, side: int, slices: int = 1
) -> tuple[torch.Tensor, DecoderWeights, torch.Tensor, torch.Tensor]:
    """Random planes [N, 2 + slices, 32, 256, 256], a random decoder and the rays of a frontal camera."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(device)

    weights = DecoderWeights(normal(64, 32) / 32**0.5, normal(64) * 0.1, normal(33, 64) / 8, normal(33) * 0.1)
    origins, directions = rays.camera_rays(cameras.orbit(0.3).to(device).expand(batch, -1), side)
    return normal(batch, 2 + slices, 32, 256, 256), weights, origins.contiguous(), directions


def cases(device: torch.device) -> Iterator[tuple[str, str, Run]]:
    """(operator, size, what to run) for each line of the table."""
    options = RenderOptions(axes="eg3d", white_back=True)
    compiled = torch.compile(volume.render_rays, dynamic=False)
    batch = 8 if device.type == "cuda" else 1
    for side, slices in ((128, 1), (128, 2)) if device.type == "cuda" else ((64, 1), (64, 2), (128, 1)):
        p, weights, origins, directions = haze(device, batch, side, slices)
        size = f"{batch} x {side}² rays, 48+48 samples, planes 256² x 32" + ", two slices" * (slices - 1)
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
        if side == 64 or device.type == "cuda":
            yield "render_rays", size + ", channels innermost", lambda b, r=render, i=inner: r(b, i)
            yield "render_rays forward + backward", size, step

    points = torch.rand(1, 64**3, 3, device=device) - 0.5
    p, weights, _, _ = haze(device, 1, 1)
    yield "query_planes", "64³ points", lambda b: planes.query(p, weights, points, backend=b)
    yield "sample_planes", "64³ points", lambda b: planes.sample_planes(p, points, backend=b)

    x = torch.randn(batch, 64, 256, 256, device=device)
    bias, leaf = torch.randn(64, device=device), x.clone().requires_grad_()

    def twice(f: Callable[[torch.Tensor], torch.Tensor]) -> None:  # as R1 does: the gradient's own gradient
        (gradient,) = torch.autograd.grad(f(leaf).square().sum(), leaf, create_graph=True)
        torch.autograd.grad(gradient.square().sum(), leaf)

    G = load_generator("head3d", device)
    z = torch.randn(1, G.z_dim, device=device)

    def picture(path: str) -> None:
        os.environ["HEAD3D_DISABLE_NATIVE"] = str(int(path == "reference"))
        try:
            with torch.inference_mode():
                G(z, cameras.frontal(1, device))
        finally:
            del os.environ["HEAD3D_DISABLE_NATIVE"]

    yield "a head from z", "classroom: 64² rays, finished picture of 256²", picture

    size = f"{batch} x 64 x 256²"
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
    """Growth of the peak over the start: the GPU allocator's, or the process's resident set (Linux)."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.start = 0

    def _resident(self, field: str) -> int:
        status = Path("/proc/self/status").read_text()
        return int(status.split(field + ":")[1].split()[0]) * 1024

    def __enter__(self) -> PeakMemory:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self.start = torch.cuda.memory_allocated(self.device)
        elif sys.platform == "linux":
            ctypes.CDLL(None).malloc_trim(0)  # memory that was freed but kept would hide what the call takes
            Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
            self.start = self._resident("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        if self.device.type == "cuda":
            self.mib = (torch.cuda.max_memory_allocated(self.device) - self.start) / 2**20
        else:
            self.mib = (
                (self._resident("VmHWM") - self.start) / 2**20 if sys.platform == "linux" else float("nan")
            )


def measure(run: Run, path: str, device: torch.device, repeats: int) -> dict[str, float]:
    """Best wall and CPU milliseconds, and MiB above the inputs."""

    def once() -> tuple[float, float]:
        if device.type == "cuda":
            torch.cuda.synchronize()
        wall, cpu = time.perf_counter(), time.process_time()
        run(path)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - wall) * 1e3, (time.process_time() - cpu) * 1e3

    if path == "compiled":
        once()
    with PeakMemory(device) as memory:
        once()
    times = [once() for _ in range(repeats)]
    return {"wall_ms": min(w for w, _ in times), "cpu_ms": min(c for _, c in times), "peak_mib": memory.mib}


def instruction_sets(device: torch.device) -> list[str]:
    """Those that this processor can run, fastest first; the GPU has one."""
    if device.type == "cuda":
        return ["cuda"]
    found = []
    for wish in ("", "avx2", "scalar"):
        os.environ["HEAD3D_CPU_ISA"] = wish
        if ops.instruction_set() not in found:
            found.append(ops.instruction_set())
    return found


def main() -> None:
    """Prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--only", default="", help="run the operators whose name contains this")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    args = parser.parse_args()
    device = torch.device(args.device)
    if not ops.available():
        raise SystemExit(
            "The compiled extension is not built, so there is nothing to compare: run `make venv`."
        )
    report = {"provenance": provenance(device, " ".join(["python", *sys.argv])), "results": []}
    print(json.dumps(report["provenance"]))
    print(
        f"{'operator':<31} {'size':<74} {'path':<10} {'wall ms':>8} {'cpu ms':>8} {'ratio':>6} {'MiB':>7}",
        flush=True,
    )
    paths = instruction_sets(device)
    for name, size, run in cases(device):
        if args.only not in name:
            continue
        rows = {"reference": measure(run, "reference", device, max(1, args.repeats // 3))}
        if name == "render_rays":
            rows["compiled"] = measure(run, "compiled", device, max(1, args.repeats // 3))
        for path in paths:
            os.environ["HEAD3D_CPU_ISA"] = path
            rows[path] = measure(run, "native", device, args.repeats)
        for path, row in rows.items():
            kind = "wall_ms" if device.type == "cuda" else "cpu_ms"
            row["ratio"] = rows["reference"][kind] / row[kind]
            figures = (
                f"{row['wall_ms']:>8.1f} {row['cpu_ms']:>8.1f} {row['ratio']:>6.1f} {row['peak_mib']:>7.0f}"
            )
            print(f"{name:<31} {size:<74} {path:<10} {figures}", flush=True)
            report["results"].append(
                {"operator": name, "size": size, "path": path, **{k: round(v, 2) for k, v in row.items()}}
            )
    if args.json:
        records.write(args.json, report)


if __name__ == "__main__":
    main()
