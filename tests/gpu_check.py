"""One command for a machine with a GPU: build the extension in place, test it, sanitise it, time it, profile it.

    python tests/gpu_check.py                               # everything, results under ./out (or $OUT)
    python tests/gpu_check.py --steps build tests bench
    python tests/gpu_check.py --steps tests slices sanitizer  # head3d_core/_C.so as it is

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
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(os.environ.get("OUT", ROOT / "out"))
OUT = ROOT / "build" / "gpu_check_logs"
OBJECTS = ROOT / "build" / "gpu_check"
STEPS = ("build", "tests", "slices", "mutants", "bench", "sanitizer", "ncu")

TIME_RATIO, MEMORY_RATIO = 1.25, 1.35
"""Most that two slices of the xy plane may cost against one."""

SECTIONS = (
    "SpeedOfLight Occupancy WarpStateStats MemoryWorkloadAnalysis MemoryWorkloadAnalysis_Tables "
    "ComputeWorkloadAnalysis InstructionStats LaunchStats"
)
NCU = ["--clock-control", "none", "--kernel-name", "regex:render_tiles"]
NCU += [word for section in SECTIONS.split() for word in ("--section", section)]


def python(words: str, *more: str) -> list[str]:
    """A command of this Python: `words` at spaces, then `more` as they are."""
    return [sys.executable, *words.split(), *more]


def logged(name: str) -> str:
    """The text of a log."""
    return (OUT / name).read_text(encoding="utf8", errors="replace")


def sh(command: list[str], log: str, limit: float, quiet: bool = False, **env: str) -> int:
    """Runs a command into OUT/log; prints the last lines where it fails, unless `quiet`. 124: out of time."""
    both = {"stderr": subprocess.STDOUT, "cwd": ROOT, "env": {**os.environ, **env}, "timeout": limit}
    with open(OUT / log, "a", encoding="utf8") as file:
        file.write("$ " + " ".join(command) + "\n")
        file.flush()
        try:
            code = subprocess.run(command, stdout=file, check=False, **both).returncode
        except subprocess.TimeoutExpired:
            code = 124
    if code and not quiet:
        print(f"  {command[0]} gave {code}; {log} ends:", *logged(log).splitlines()[-15:], sep="\n    ")
    return code


def compile_all(name: str, only: str = "*", csrc: Path = ROOT / "csrc") -> int:
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
    common += includes
    cuda = ["nvcc", f"-arch=sm_{major}{minor}", "--expt-relaxed-constexpr", "-lineinfo"]
    cuda += ["-Xcompiler", "-fPIC", "-Xptxas", "-v"]
    cpp = ["g++", "-fPIC", "-fvisibility=hidden", "-fno-math-errno"]
    jobs = []
    for path in [*csrc.glob("*.cpp"), *csrc.glob("cpu/*_cpu.cpp"), *csrc.glob("cuda/*_cuda.cu")]:
        if not path.match(only):
            continue
        target = ["-c", str(path), "-o", str(folder / (path.name + ".o"))]
        jobs.append([*(cuda if path.suffix == ".cu" else cpp), *common, *target])
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        codes = list(pool.map(lambda job: sh(job, f"build_{name}_{Path(job[-1]).stem}.log", 300), jobs))
    if any(codes):
        return 1
    library = folder / "_C.so"
    places = [*library_paths(device_type="cuda"), home / "lib64", home / "targets/x86_64-linux/lib"]
    libs = ["-ltorch", "-ltorch_cpu", "-ltorch_cuda", "-lc10", "-lcudart", *(f"-L{p}" for p in places)]
    return sh(["g++", "-shared", "-o", str(library), *map(str, folder.glob("*.o")), *libs], "build.log", 60)


def build() -> int:
    code = compile_all("main")
    if code == 0:
        shutil.copy(OBJECTS / "main" / "_C.so", ROOT / "head3d_core" / "_C.so")
    return code


def mutants() -> int:
    """Kernels with one wrong line each: the named test must fail."""
    rows = tomllib.loads((ROOT / "tests" / "gpu_mutants.toml").read_text(encoding="utf8"))["mutant"]

    def survives(row: dict[str, str]) -> bool:
        name, file, right = row["name"], row["file"], row["right"]
        folder = OBJECTS / ("mutant_" + name.replace(" ", "_").replace("'", ""))
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(ROOT / "csrc", folder / "csrc")
        path = folder / "csrc" / "cuda" / file
        text = path.read_text(encoding="utf8")
        if (count := text.count(right)) != 1:
            raise SystemExit(f"mutant {name!r}: {right!r} must be in {file} once, found {count} times")
        path.write_text(text.replace(right, row["wrong"]), encoding="utf8")
        code = compile_all(folder.name + "_build", f"{row['source']}_cuda.cu", folder / "csrc")
        if code:
            return True
        log, library = f"{folder.name}.log", str(OBJECTS / (folder.name + "_build") / "_C.so")
        command = python("-m pytest -x -q -p no:cacheprovider -m gpu tests/ops -k", row["tests"])
        code = sh(command, log, 120, quiet=True, HEAD3D_LIBRARY=library, OMP_NUM_THREADS="1")
        print(f"  {name}: {'caught by ' + row['tests'] if code == 1 else f'NOT CAUGHT ({code})'}", flush=True)
        return code != 1

    with ThreadPoolExecutor(len(rows)) as pool:
        return int(any(list(pool.map(survives, rows))))


def tests() -> int:
    workers = str(min(12, os.cpu_count() or 1))
    command = python("-m pytest -q -p no:cacheprovider -m gpu tests/ops -n", workers)
    code = sh(command, "tests.log", 240, OMP_NUM_THREADS="2")
    print("\n".join(logged("tests.log").splitlines()[-3:]))
    return code


def slices() -> int:
    """Time and memory of two slices of the xy plane against one; over the limit is a failure."""
    report = RESULTS / "slices.json"
    code = sh(python("tests/bench/bench_cuda.py --only slices --json", str(report)), "slices.log", 90)
    print(logged("slices.log"))
    if code:
        return code
    rows = json.loads(report.read_text(encoding="utf8"))["rows"]
    over = [r for r in rows if r["time_ratio"] > TIME_RATIO or r["memory_ratio"] > MEMORY_RATIO]
    for row in over:
        print(f"  over the limit: {row['op']}, {row['case']}, {row['scene']}: {row['time_ratio']} in time")
    return int(bool(over))


def bench() -> int:
    report = str(OUT / "bench_ops.json")
    code = sh(python("tests/bench/bench_cuda.py --reference --json", report), "bench.log", 200)
    print(logged("bench.log"))
    return code


def sanitizer() -> int:
    """memcheck and racecheck over small calls of every kernel; allocations are not pooled, so that overruns show."""
    worst = 0
    for tool in ("memcheck", "racecheck"):
        command = [
            *f"compute-sanitizer --tool {tool} --error-exitcode 9".split(),
            *python("", __file__, "--small"),
        ]
        worst |= sh(command, f"sanitizer_{tool}.log", 150, PYTORCH_NO_CUDA_MEMORY_CACHING="1")
        print(tool, logged(f"sanitizer_{tool}.log").splitlines()[-2:])
    return worst


COUNTERS = (
    "Duration", "Compute (SM) Throughput", "L1/TEX Cache Throughput", "L2 Cache Throughput", "DRAM Throughput",
    "Registers Per Thread", "Achieved Occupancy", "L1/TEX Hit Rate", "L2 Hit Rate", "Issue Slots Busy",
    "Executed Ipc Active",
)  # fmt: skip


def ncu() -> int:
    """Hardware counters of the ray kernels at the benchmark's size, into ncu.json beside the full report."""
    code = sh(["ncu", *NCU, *python("", __file__, "--profiled")], "ncu.txt", 150)
    kernels: list[dict[str, str]] = []
    for line in logged("ncu.txt").splitlines():
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
            for channels in (6, 24, 64):
                x = torch.randn(2, channels, 17, 9, device="cuda", dtype=dtype)
                x = x.to(memory_format=layout).requires_grad_()
                for up, down in ((1, 1), (2, 1), (1, 2), (2, 2)):
                    padding = (2, 1, 2, 1)
                    y = filters.upfirdn2d(x, filters.fir(x.device), up, down, padding, backend="native")
                    y.sum().backward()
                bias = torch.ones(channels, device="cuda", dtype=dtype)
                filters.bias_act(x, bias, "lrelu", 1.0, 2.0, backend="native").sum().backward()
                parts = torch.ones(2, channels, device="cuda"), torch.ones(2, 1, 17, 9, device="cuda")
                for after in (None, parts[0].clone().requires_grad_()):
                    scale, strength = parts[0].clone().requires_grad_(), torch.ones((), device="cuda")
                    filters.layer_epilogue(
                        x, scale, parts[1], strength, bias, "lrelu", 1.0, 2.0, "native", after
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
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
        end = "FAILED" if step in failed else "ok"
        print(f"== {step}: {end}, {time.perf_counter() - start:.0f} s", flush=True)
        if failed == ["build"]:
            break
    shutil.make_archive(str(RESULTS / "logs"), "gztar", OUT)
    if failed:
        raise SystemExit("failed: " + ", ".join(failed))


if __name__ == "__main__":
    main()
