"""The CUDA operators: time and memory against the reference on the same GPU, and error against float64.

    python tests/bench/bench_cuda.py                        # everything, as a table
    python tests/bench/bench_cuda.py --json data/results/bench_ops_h200.json

The size is the one at which EG3D's released code took 45.9 ms (forward) and 150.7 ms (with backward) on
one H100: batch 8, 128 x 128 rays, 48 + 48 samples, planes of 256 x 256 x 32, hidden 64, 32 features.
Two scenes: "haze", random planes and decoder, where every sample counts; "surface", where most samples lie
behind something opaque.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import common  # noqa: F401  (before torch)
import torch
import tyro
from torch import Tensor

from head3d_core import ops
from head3d_core.config import PRESETS, RenderOptions
from head3d_core.model import filters, volume
from head3d_core.model.cameras import orbit
from head3d_core.model.discriminator import Discriminator
from head3d_core.model.planes import DecoderWeights, widen
from head3d_core.model.rays import camera_rays
from head3d_core.training.losses import r1_penalty
from head3d_core.utils import records

OPTIONS = RenderOptions(white_back=True)
TARGETS = {
    "render forward": {"mixed": 5.0, "strict": 9.0},
    "render forward+backward": {"mixed": 18.0, "strict": 30.0},
    "R1 step of D, 512²": {"fp16": 120.0, "bf16": 120.0},
}
ANCHORS = {"render forward": 45.9, "render forward+backward": 150.7, "R1 step of D, 512²": 192.0}
MEMORY_TARGETS = {"render forward": 0.3, "render forward+backward": 0.7}


@functools.cache
def _compiled() -> Callable[..., volume.RayResult]:
    return torch.compile(volume.render_rays, dynamic=False)


class Scene:
    """Planes, decoder and rays at the anchor's size (or smaller) on the GPU."""

    def __init__(
        self,
        batch: int = 8,
        side: int = 128,
        planes: int = 256,
        density: float = 1.0,
        seed: int = 0,
        slices: int = 1,
    ) -> None:
        generator = torch.Generator("cuda").manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, device="cuda")

        self.planes = normal(batch, 3, 32, planes, planes)
        if slices == 2:  # the same field, so that rays stop equally early
            self.planes = widen(self.planes)
        self.weights = DecoderWeights(
            normal(64, 32) / math.sqrt(32), 0.1 * normal(64), normal(33, 64) / math.sqrt(64), 0.1 * normal(33)
        )
        self.weights.w1[0] *= density
        yaw = torch.linspace(-1.2, 1.2, batch)
        cameras = orbit(yaw, 0.2 * yaw.cos()).cuda()
        self.origins, self.directions = (t.contiguous() for t in camera_rays(cameras, side))
        self.grad_features = normal(batch, side * side, 32)
        self.grad_depth = normal(batch, side * side)
        self.grad_opacity = normal(batch, side * side)

    def leaves(self, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        return [t.detach().to(dtype).requires_grad_() for t in (self.planes, *self.weights)]

    def render(self, leaves: list[Tensor], backend: str) -> volume.RayResult:
        """`backend` is that of `volume.render_rays`, or "compiled": the reference under torch.compile."""
        dtype = leaves[0].dtype
        call, backend = (_compiled(), "reference") if backend == "compiled" else (volume.render_rays, backend)
        return call(
            leaves[0], DecoderWeights(*leaves[1:]), self.origins.to(dtype), self.directions.to(dtype), OPTIONS,
            backend=backend,  # type: ignore[arg-type]
        )  # fmt: skip

    def step(self, leaves: list[Tensor], backend: str) -> list[Tensor]:
        """Gradients of planes and decoder for fixed random gradients of the outputs."""
        out = self.render(leaves, backend)
        grads = [self.grad_features, 0.1 * self.grad_depth, self.grad_opacity]
        return list(torch.autograd.grad(list(out), leaves, [grad.to(out[0]) for grad in grads]))


def milliseconds(work: Callable[[], Any], repeats: int) -> float:
    """Median over `repeats` calls, CUDA events, after two warm-up calls."""
    for _ in range(2):
        work()
    times = []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        work()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def peak_gib(work: Callable[[], Any]) -> float:
    """Largest allocation during one call above what was allocated before, outputs included."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    kept = work()
    torch.cuda.synchronize()
    del kept
    return (torch.cuda.max_memory_allocated() - before) / 2**30


def _row(op: str, case: str, scene: str, ms: float, gib: float | None = None, **more: Any) -> dict[str, Any]:
    row = {"op": op, "case": case, "scene": scene, "ms": round(ms, 3)}
    row["target_ms"] = TARGETS.get(op, {}).get(case.split()[0])
    if gib is not None:
        row |= {"gib": round(gib, 3), "target_gib": MEMORY_TARGETS.get(op)}
    return row | {"eg3d_ms": ANCHORS.get(op)} | more


def bench_render(scene_name: str, density: float, reference: bool, repeats: int) -> list[dict[str, Any]]:
    """Forward, and forward with backward, at the anchor's size."""
    scene = Scene(density=density)
    leaves = scene.leaves()
    frozen = [t.detach() for t in leaves]
    rows = []

    def timed(op: str, case: str, work: Callable[[], Any], count: int) -> dict[str, Any]:
        return _row(op, case, scene_name, milliseconds(work, count), peak_gib(work))

    cases = [("mixed", "native", True), ("strict", "native", False)]
    if reference:
        cases.append(("reference", "reference", False))
    for case, backend, mixed in cases:
        count = repeats if backend == "native" else 3
        with torch.autocast("cuda", dtype=torch.float16, enabled=mixed):
            with torch.no_grad():
                rows.append(timed("render forward", case, partial(scene.render, frozen, backend), count))
            rows.append(timed("render forward+backward", case, partial(scene.step, leaves, backend), count))
        torch.cuda.empty_cache()
    last = scene.planes.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    with torch.no_grad():
        forward = partial(scene.render, [last, *frozen[1:]], "native")
        rows.append(timed("render forward", "strict, planes channels-last", forward, repeats))
    return rows


def bench_compiled() -> list[dict[str, Any]]:
    """The reference under torch.compile in the haze; its first calls, which compile, are not counted."""
    scene = Scene()
    leaves = scene.leaves()
    frozen = [t.detach() for t in leaves]
    with torch.no_grad():
        forward = partial(scene.render, frozen, "compiled")
        rows = [
            _row("render forward", "compiled reference", "haze", milliseconds(forward, 5), peak_gib(forward))
        ]
    both = partial(scene.step, leaves, "compiled")
    milli, gib = milliseconds(both, 5), peak_gib(both)
    torch.cuda.empty_cache()
    return [*rows, _row("render forward+backward", "compiled reference", "haze", milli, gib)]


def bench_slices(scene_name: str, density: float, repeats: int) -> list[dict[str, Any]]:
    """Two slices of the xy plane against one: times in turn, and the ratio of time and of memory."""
    rows = []
    one, two = (Scene(density=density, slices=slices) for slices in (1, 2))
    for case, mixed in (("mixed", True), ("strict", False)):
        with torch.autocast("cuda", dtype=torch.float16, enabled=mixed):
            for op in ("render forward", "render forward+backward"):
                works = []
                for scene in (one, two):
                    leaves = scene.leaves() if op.endswith("backward") else [scene.planes, *scene.weights]
                    call = scene.step if op.endswith("backward") else scene.render
                    works.append(partial(call, leaves, "native"))
                turns = [[milliseconds(work, repeats) for work in works] for _ in range(3)]
                ms = [statistics.median(turn[k] for turn in turns) for k in range(2)]
                gib = [peak_gib(work) for work in works]
                row = _row(f"{op}, two slices", case, scene_name, ms[1], gib[1])
                ratios = {"one_slice_ms": ms[0], "time_ratio": ms[1] / ms[0], "memory_ratio": gib[1] / gib[0]}
                rows.append(row | {k: round(v, 3) for k, v in ratios.items()})
    torch.cuda.empty_cache()
    return rows


def errors(scene_name: str, density: float) -> list[dict[str, Any]]:
    """‖out - exact‖ / ‖exact‖ against the float64 reference: one image of 64 x 64 rays."""
    scene = Scene(batch=1, side=64, density=density, seed=7)
    exact_leaves = scene.leaves(torch.float64)
    exact = [*scene.render(exact_leaves, "reference"), *scene.step(exact_leaves, "reference")]
    names = ["features", "depth", "opacity", "grad planes", "grad w0", "grad b0", "grad w1", "grad b1"]
    rows = []
    for case, backend, mixed in (
        ("mixed", "native", True),
        ("strict", "native", False),
        ("float32 reference", "reference", False),
    ):
        with torch.autocast("cuda", dtype=torch.float16, enabled=mixed):
            leaves = scene.leaves()
            got = [*scene.render(leaves, backend), *scene.step(leaves, backend)]
        found = {
            n: float(f"{((g.double() - e).norm() / e.norm()).item():.2e}")
            for n, g, e in zip(names, got, exact, strict=True)
        }
        rows.append({"op": "error", "case": case, "scene": scene_name, **found})
    return rows


def _filter(
    x: Tensor, kernel: Tensor, up: int, down: int, padding: tuple[int, int, int, int], backend: str
) -> Tensor:
    return filters.upfirdn2d(x, kernel, up, down, padding, float(up * up), backend=backend)  # type: ignore[arg-type]


def _activate(x: Tensor, bias: Tensor, backend: str) -> Tensor:
    return filters.bias_act(x, bias, "lrelu", 1.0, 256.0, backend=backend)  # type: ignore[arg-type]


def bench_filters(repeats: int) -> list[dict[str, Any]]:
    """The resamplings and the activation at the top of D: 8 x 64 x 512 x 512."""
    rows = []
    for dtype, layout, label in (
        (torch.float32, torch.contiguous_format, "fp32 nchw"),
        (torch.float16, torch.contiguous_format, "fp16 nchw"),
        (torch.float16, torch.channels_last, "fp16 nhwc"),
    ):
        x = torch.randn(8, 64, 512, 512, device="cuda", dtype=dtype).to(memory_format=layout)
        kernel = filters.fir(x.device)
        bias = torch.randn(64, device="cuda", dtype=dtype)
        small = x[:, :, :256, :256].contiguous(memory_format=layout)
        # name -> (call, bytes moved at least, in units of x)
        calls: dict[str, tuple[Callable[[str], Tensor], float]] = {
            "upfirdn2d filter": (partial(_filter, x, kernel, 1, 1, (2, 2, 2, 2)), 2.0),
            "upfirdn2d down 2": (partial(_filter, x, kernel, 1, 2, (1, 1, 1, 1)), 1.25),
            "upfirdn2d up 2": (partial(_filter, small, kernel, 2, 1, (2, 1, 2, 1)), 1.25),
            "bias_act": (partial(_activate, x, bias), 2.0),
        }
        for op, (call, moved) in calls.items():
            native = milliseconds(partial(call, "native"), repeats)
            slow = milliseconds(partial(call, "reference"), 5)
            rate = moved * x.numel() * x.element_size() / native / 1e9
            more = {"reference_ms": round(slow, 3), "terabytes_per_s": round(rate, 2)}
            rows.append(_row(op, label, "", native, **more))
        del x, small, calls
        torch.cuda.empty_cache()
    return rows


def bench_r1(repeats: int) -> list[dict[str, Any]]:
    """Penalty and its backward through D at 512², batch 8."""
    rows = []
    torch.backends.cudnn.benchmark = True  # as training does
    network = Discriminator(PRESETS["paper"].discriminator).cuda().to(memory_format=torch.channels_last)
    camera = orbit(torch.zeros(8)).cuda()
    for case, dtype in (("fp16", torch.float16), ("bf16", torch.bfloat16), ("fp32", None)):
        image = torch.randn(8, 3, 512, 512, device="cuda").to(memory_format=torch.channels_last)
        image.requires_grad_()
        raw = torch.randn(8, 3, 128, 128, device="cuda").requires_grad_()

        def work(image: Tensor = image, raw: Tensor = raw, dtype: torch.dtype | None = dtype) -> None:
            with torch.autocast("cuda", dtype=dtype or torch.float16, enabled=dtype is not None):
                logits = network(image, raw, camera)
            penalty = r1_penalty(logits, image, raw)
            torch.autograd.grad(penalty, list(network.parameters()), allow_unused=True)

        rows.append(_row("R1 step of D, 512²", case, "", milliseconds(work, repeats), peak_gib(work)))
        torch.cuda.empty_cache()
    return rows


Part = Literal["errors", "render", "slices", "filters", "r1", "compiled"]


def main(
    only: tuple[Part, ...] = (), reference: bool = False, repeats: int = 20, json: Path | None = None
) -> None:
    """Prints a table and writes the JSON; `reference`: the reference renderer too, compiled as well (needs 25 GB)."""
    if not ops.has_cuda():
        raise SystemExit(
            "The extension is not built with CUDA: HEAD3D_WITH_CUDA=1 python setup.py build_ext --inplace"
        )
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    haze, surface = ("haze", 1.0), ("surface", 30.0)
    parts: dict[Part, list[Callable[[], list[dict[str, Any]]]]] = {
        "errors": [partial(errors, *haze), partial(errors, *surface)],
        "render": [
            partial(bench_render, *haze, reference, repeats),
            partial(bench_render, *surface, False, repeats),
        ],
        "slices": [partial(bench_slices, *haze, repeats), partial(bench_slices, *surface, repeats)],
        "filters": [partial(bench_filters, repeats)],
        "r1": [partial(bench_r1, 5)],
        "compiled": [bench_compiled] if reference else [],
    }
    rows: list[dict[str, Any]] = []
    units = torch.cuda.get_device_properties(0).multi_processor_count
    origin = records.provenance(
        "python tests/bench/bench_cuda.py", "cuda", multiprocessors=units, cuda=torch.version.cuda
    )
    for run in (run for part, runs in parts.items() if part in (only or parts) for run in runs):
        found = run()
        for row in found:
            print("  ".join(f"{k} {v}" for k, v in row.items() if v not in (None, "")), flush=True)
        rows += found
        if json:  # after each part, so that an interrupted run keeps what it has
            records.write(json, {"provenance": origin, "rows": rows})


if __name__ == "__main__":
    tyro.cli(main)
