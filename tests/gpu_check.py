"""One command for a machine with a GPU: build the extension in place, test it, sanitise it, time it, profile it.

    python tests/gpu_check.py                               # everything, results under ./out (or $OUT)
    python tests/gpu_check.py --steps build tests bench
    python tests/gpu_check.py --steps tests slices sanitizer  # head3d_core/_C.so as it is
    python tests/gpu_check.py --steps build variants        # the same kernels with other launch bounds

Needs torch, a C++ compiler, nvcc and pytest; compute-sanitizer and ncu for the steps of those names. Each
step is timed, writes its log, and does not stop the ones after it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(os.environ.get("OUT", ROOT / "out"))
OUT = ROOT / "build" / "gpu_check_logs"
OBJECTS = ROOT / "build" / "gpu_check"
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu", "tests/ops"]
STEPS = ("build", "tests", "slices", "mutants", "bench", "variants", "sanitizer", "ncu")

VARIANTS = {"backward2": ["-DHEAD3D_BACKWARD_BLOCKS=2"]}
"""Launch bounds tried beside the shipped ones (resident blocks a multiprocessor)."""

TIME_RATIO, MEMORY_RATIO = 1.25, 1.35
"""Most that two slices of the xy plane may cost against one."""

SECTIONS = (
    "SpeedOfLight Occupancy WarpStateStats MemoryWorkloadAnalysis MemoryWorkloadAnalysis_Tables "
    "ComputeWorkloadAnalysis InstructionStats LaunchStats"
)
NCU = ["--clock-control", "none", "--kernel-name", "regex:render_tiles"]
NCU += [word for section in SECTIONS.split() for word in ("--section", section)]


def sh(command: list[str], log: str, limit: float, **env: str) -> int:
    """Runs a command into OUT/log; prints the last lines where it fails. 124: out of time."""
    with open(OUT / log, "a", encoding="utf8") as file:
        file.write("$ " + " ".join(command) + "\n")
        file.flush()
        try:
            code = subprocess.run(
                command,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env={**os.environ, **env},
                timeout=limit,
            ).returncode
        except subprocess.TimeoutExpired:
            code = 124
    if code:
        tail = (OUT / log).read_text(encoding="utf8", errors="replace").splitlines()[-15:]
        print(f"  {command[0]} gave {code}; {log} ends:", *tail, sep="\n    ")
    return code


def compile_all(name: str, defines: list[str], only: str = "*", csrc: Path = ROOT / "csrc") -> int:
    """Every source to an object (in parallel), then one library; `only` limits what is compiled anew."""
    import torch
    from torch.utils.cpp_extension import include_paths, library_paths

    folder = OBJECTS / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if only != "*":
        for path in (OBJECTS / "main").glob("*.o"):
            shutil.copy(path, folder)
    home = Path(shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc").resolve().parents[1]
    includes = [f"-I{p}" for p in [csrc, *include_paths(), home / "include"]]
    major, minor = torch.cuda.get_device_capability()
    common = ["-std=c++20", "-O3", "-DTORCH_TARGET_VERSION=0x020b000000000000", "-DHEAD3D_WITH_CUDA"]
    common += [*defines, *includes]
    cuda = (
        f"nvcc -arch=sm_{major}{minor} --expt-relaxed-constexpr -lineinfo -Xcompiler -fPIC -Xptxas -v".split()
    )
    jobs = []
    for path in [*csrc.glob("*.cpp"), *csrc.glob("cpu/*_cpu.cpp"), *csrc.glob("cuda/*_cuda.cu")]:
        if not path.match(only):
            continue
        target = ["-c", str(path), "-o", str(folder / (path.name + ".o"))]
        if path.suffix == ".cu":
            jobs.append([*cuda, *common, *target])
        else:
            jobs.append(["g++", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", *common, *target])
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        codes = list(pool.map(lambda job: sh(job, f"build_{name}_{Path(job[-1]).stem}.log", 300), jobs))
    if any(codes):
        return 1
    library = folder / "_C.so"
    libs = [f"-L{p}" for p in library_paths(device_type="cuda")]
    libs += ["-ltorch", "-ltorch_cpu", "-ltorch_cuda", "-lc10", "-lcudart"]
    libs += [f"-L{home / 'lib64'}", f"-L{home / 'targets/x86_64-linux/lib'}"]
    return sh(["g++", "-shared", "-o", str(library), *map(str, folder.glob("*.o")), *libs], "build.log", 60)


def build() -> int:
    code = compile_all("main", [])
    if code == 0:
        shutil.copy(OBJECTS / "main" / "_C.so", ROOT / "head3d_core" / "_C.so")
    return code


def variants() -> int:
    worst = 0
    for name, defines in VARIANTS.items():
        way = "forward" if "forward" in name else "backward"
        pattern = f"render_tensorcore_{way}_cuda.cu"
        worst |= compile_all(name, defines, pattern)
        bench = [sys.executable, "tests/bench/bench_cuda.py", "--only", "render"]
        worst |= sh(bench, f"variant_{name}.log", 60, HEAD3D_LIBRARY=str(OBJECTS / name / "_C.so"))
        print((OUT / f"variant_{name}.log").read_text(encoding="utf8"))
    return worst


# fmt: off
MUTANTS = [
    # what is broken, the test that must see it, what is compiled;
    # file, the right line, the wrong one
    ("a low-order product dropped", "test_strict", "render_tensorcore_forward",
     "tile.cuh", "mma_tf32(sum, a.lo, high0, high1);", ""),
    ("border texel not masked", "test_points", "planes",
     "device.cuh", "taps.low_inside ? T(1) - fraction : T(0)", "T(1) - fraction"),
    ("colour of the row before a tile", "test_strict", "render_tensorcore_forward",
     "render_tensorcore_forward_cuda.cu", "g == 7 ? 0.5f", "g == 6 ? 0.5f"),
    ("last sample of a full tile", "test_strict", "render_tensorcore_backward",
     "render_tensorcore_backward_cuda.cu", "start + kRows - 1 == count - 1", "false"),
    ("operand's rows swapped", "test_strict", "render_tensorcore_backward",
     "tile_backward.cuh", "units(unit[0], unit[2], unit[1], unit[3])", "units(unit[0], unit[1], unit[2], unit[3])"),
    ("shared texel added for one ray only", "test_edge_sizes", "render_tensorcore_backward",
     "tile.cuh", "if (high_low) on_low += b.weight_high;", ""),
    ("slices exchanged", "test_strict", "render_tensorcore_forward",
     "tile.cuh", "share_of<kPlanes>(plane, front);", "share_of<kPlanes>(plane, 1.f - front);"),
    ("depth gradient of the back slice", "test_strict", "render_tensorcore_backward",
     "tile.cuh", "plane == 0 ? by_weight : -by_weight", "by_weight"),
    ("second ray's share from the first", "test_strict", "render_tensorcore_backward",
     "tile.cuh", "reading_weight<kPlanes>(plane, front_b)", "reading_weight<kPlanes>(plane, front_a)"),
    ("share left out of a plain gradient", "test_points", "planes",
     "simple.cuh", "atomicAdd(grad_texel + c * grad_planes.channel, weight * grad[c])",
     "atomicAdd(grad_texel + c * grad_planes.channel, taps.weight(corner) * grad[c])"),
    ("phase of up-sampling ignored", "test_upfirdn2d", "filters",
     "filters_cuda.cu", "j * kUp + column_phase", "j * kUp"),
    ("random stream of the other pass", "test_mixed", "render_tensorcore_forward",
     "march_warp.cuh", "ray.row, kStreamImportance", "ray.row, kStreamDepth"),
]
# fmt: on


def mutants() -> int:
    """Kernels with one wrong line each: the named test must fail."""

    def survives(mutant: tuple[str, ...]) -> bool:
        name, test, source, file, right, wrong = mutant
        folder = OBJECTS / ("mutant_" + name.replace(" ", "_").replace("'", ""))
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(ROOT / "csrc", folder / "csrc")
        path = folder / "csrc" / "cuda" / file
        text = path.read_text(encoding="utf8")
        if text.count(right) != 1:
            raise SystemExit(
                f"mutant {name!r}: {right!r} must be in {file} once, found {text.count(right)} times"
            )
        path.write_text(text.replace(right, wrong), encoding="utf8")
        code = compile_all(folder.name + "_build", [], f"{source}_cuda.cu", folder / "csrc")
        if code == 0:
            command = [*PYTEST, "-x", "-k", test]
            with open(OUT / (folder.name + ".log"), "w", encoding="utf8") as log:
                library = str(OBJECTS / (folder.name + "_build") / "_C.so")
                code = subprocess.run(
                    command, stdout=log, stderr=log, cwd=ROOT, timeout=120,
                    env={**os.environ, "HEAD3D_LIBRARY": library, "OMP_NUM_THREADS": "1"},
                ).returncode  # fmt: skip
            print(f"  {name}: {'caught by ' + test if code == 1 else f'NOT CAUGHT ({code})'}", flush=True)
            return code != 1
        return True

    with ThreadPoolExecutor(len(MUTANTS)) as pool:
        return int(any(pool.map(survives, MUTANTS)))


def tests() -> int:
    command = [*PYTEST, "-n", str(min(12, os.cpu_count() or 1))]
    code = sh(command, "tests.log", 240, OMP_NUM_THREADS="2")
    print("\n".join((OUT / "tests.log").read_text(encoding="utf8").splitlines()[-3:]))
    return code


def slices() -> int:
    """Time and memory of two slices of the xy plane against one; over the limit is a failure."""
    report = RESULTS / "slices.json"
    command = [sys.executable, "tests/bench/bench_cuda.py", "--only", "slices", "--json", str(report)]
    code = sh(command, "slices.log", 90)
    print((OUT / "slices.log").read_text(encoding="utf8"))
    if code:
        return code
    rows = json.loads(report.read_text(encoding="utf8"))["rows"]
    over = [r for r in rows if r["time_ratio"] > TIME_RATIO or r["memory_ratio"] > MEMORY_RATIO]
    for row in over:
        print(f"  over the limit: {row['op']}, {row['case']}, {row['scene']}: {row['time_ratio']} in time")
    return int(bool(over))


def bench() -> int:
    report = ["--json", str(OUT / "bench_ops.json"), "--reference"]
    command = [sys.executable, "tests/bench/bench_cuda.py", *report]
    code = sh(command, "bench.log", 200)
    print((OUT / "bench.log").read_text(encoding="utf8"))
    return code


def sanitizer() -> int:
    """memcheck and racecheck over small calls of every kernel; allocations are not pooled, so that overruns show."""
    worst = 0
    for tool in ("memcheck", "racecheck"):
        command = [
            "compute-sanitizer",
            "--tool",
            tool,
            "--error-exitcode",
            "9",
            sys.executable,
            __file__,
            "--small",
        ]
        worst |= sh(command, f"sanitizer_{tool}.log", 150, PYTORCH_NO_CUDA_MEMORY_CACHING="1")
        print(tool, (OUT / f"sanitizer_{tool}.log").read_text(encoding="utf8").splitlines()[-2:])
    return worst


COUNTERS = (
    "Duration", "Compute (SM) Throughput", "L1/TEX Cache Throughput", "L2 Cache Throughput", "DRAM Throughput",
    "Registers Per Thread", "Achieved Occupancy", "L1/TEX Hit Rate", "L2 Hit Rate", "Issue Slots Busy",
    "Executed Ipc Active",
)  # fmt: skip


def ncu() -> int:
    """Hardware counters of the ray kernels at the benchmark's size, into ncu.json beside the full report."""
    code = sh(["ncu", *NCU, sys.executable, __file__, "--profiled"], "ncu.txt", 150)
    kernels: list[dict[str, str]] = []
    for line in (OUT / "ncu.txt").read_text(encoding="utf8", errors="replace").splitlines():
        text = " ".join(line.split())
        if "render_tiles" in text and "Context" in text:
            kernels.append({"kernel": text.split("::")[-1].split("(")[0]})
        for counter in COUNTERS:
            if kernels and text.startswith(counter + " "):
                kernels[-1][counter] = text[len(counter) + 1 :]
    (RESULTS / "ncu.json").write_text(json.dumps(kernels, indent=1) + "\n", encoding="utf8")
    print(json.dumps(kernels, indent=0))
    return code


def _import_package() -> None:
    for path in (ROOT, ROOT / "tests", ROOT / "tests" / "bench"):
        sys.path.insert(0, str(path))


def small() -> None:
    """Every kernel once, at sizes that leave ragged ends."""
    _import_package()
    import torch
    from ops_scene import ODD, options, point_results, points, scene, values_and_gradients

    from head3d_core.model import filters

    for shape, dtype in (({}, torch.float32), ({}, torch.float64), (ODD, torch.float32)):
        at = points(2, 21).to("cuda", dtype)
        for slices, mixed in ((1, False), (1, True), (2, False), (2, True)):
            what = scene(n=2, rays=7, height=9, width=11, slices=slices, **shape).to(dtype, "cuda")
            with torch.autocast("cuda", dtype=torch.float16, enabled=mixed):
                values_and_gradients(what, options(), "native", torch.tensor([3, 4], device="cuda"))
                for op in ("query", "sample"):
                    point_results(what, at, op, "native")
    for dtype in (torch.float32, torch.float16):
        for layout in (torch.contiguous_format, torch.channels_last):
            x = torch.randn(2, 6, 17, 9, device="cuda", dtype=dtype).to(memory_format=layout).requires_grad_()
            for up, down in ((1, 1), (2, 1), (1, 2), (2, 2)):
                filters.upfirdn2d(
                    x, filters.fir(x.device), up, down, (2, 1, 2, 1), backend="native"
                ).sum().backward()
            filters.bias_act(
                x, torch.ones(6, device="cuda", dtype=dtype), "lrelu", 1.0, 2.0, backend="native"
            ).sum().backward()
    torch.cuda.synchronize()
    print("small calls done")


def profiled() -> None:
    """One call of each ray kernel at the benchmark's size, for ncu."""
    _import_package()
    import torch
    from bench_cuda import Scene

    scene = Scene()
    for mixed in (True, False):
        with torch.autocast("cuda", dtype=torch.float16, enabled=mixed):
            scene.step(scene.leaves(), "native")
    torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", nargs="*", choices=STEPS, default=list(STEPS))
    parser.add_argument("--small", action="store_true", help="what the sanitizer step runs")
    parser.add_argument("--profiled", action="store_true", help="what the ncu step runs")
    args = parser.parse_args()
    if args.small or args.profiled:
        (small if args.small else profiled)()
        return
    RESULTS.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    failed = []
    for step in args.steps:
        start = time.perf_counter()
        print(f"== {step}", flush=True)
        if globals()[step]() != 0:
            failed.append(step)
        print(
            f"== {step}: {'FAILED' if step in failed else 'ok'}, {time.perf_counter() - start:.0f} s",
            flush=True,
        )
        if failed == ["build"]:
            break
    shutil.make_archive(str(RESULTS / "logs"), "gztar", OUT)
    if failed:
        raise SystemExit("failed: " + ", ".join(failed))


if __name__ == "__main__":
    main()
