"""Do the tests notice a broken kernel? Each mutant has one wrong line, and a test that must fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMPILER = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")

pytestmark = [
    pytest.mark.native,
    pytest.mark.slow,
    pytest.mark.skipif(COMPILER is None or os.name == "nt", reason="needs a Unix C++ compiler"),
]

# The mutants live in the portable path; the others are left out to compile quickly.
STUBS = """
#include "cpu/kernels.h"
namespace head3d {
const KernelSet* avx512_kernels() { return nullptr; }
const KernelSet* avx2_kernels() { return nullptr; }
}  // namespace head3d
"""


@dataclass(frozen=True)
class Mutant:
    """One wrong line, and the test (file::name, without parameters) that must see it."""

    name: str
    caught_by: str
    file: str
    right: str
    wrong: str


RENDER, FILTERS = "tests/ops/test_ops_render.py::", "tests/ops/test_ops_filters.py::"
# fmt: off
MUTANTS = [
    Mutant("planes swapped", RENDER + "test_ladder_loop",
           "common/planes.h", "(plane == 2 ? 1 : 0)", "(plane == 2 ? 0 : 1)"),
    Mutant("border dropped", RENDER + "test_points",
           "cpu/samples_body.h", "(at > T(-1))", "(at > T(0))"),
    Mutant("fractions swapped", RENDER + "test_points",
           "cpu/samples_body.h", "splat.fx[k] = taps.fx[k][i]", "splat.fx[k] = taps.fy[k][i]"),
    Mutant("smoother pdf", RENDER + "test_ladder_loop",
           "common/march.h", "T(0.01)", "T(0.02)"),
    Mutant("own alpha forgotten", RENDER + "test_kernels_follow_the_reference",
           "cpu/render_body.h", "behind = g * ray.alpha[i] + ", "behind = g + "),
    Mutant("white background's gradient", RENDER + "test_kernels_follow_the_reference",
           "cpu/render_body.h", "(job.white_back ? grad_white : T(0))", "T(0)"),
    Mutant("slope of softplus", RENDER + "test_kernels_follow_the_reference",
           "cpu/simd.h", "slope = (x < 0.0f ? e", "slope = (x < 0.0f ? 1.0f - e"),
    Mutant("NaN rays rendered", RENDER + "test_not_finite",
           "cpu/render_body.h", "return x - x == T(0);", "return x == x || x != x;"),
    Mutant("stream shared", RENDER + "test_same_seeds",
           "common/random.h", "kStreamImportance = 1", "kStreamImportance = 0"),
    Mutant("colours left out", RENDER + "test_skipped_colours",
           "cpu/render_cpu.cpp", "kNegligible = 1e-6", "kNegligible = 3e-1"),
    Mutant("rows added twice", RENDER + "test_the_number_of_threads",
           "cpu/samples_body.h", "y >= job.height || uint32_t(y) % uint32_t(parts) != uint32_t(part)",
           "y >= job.height || (y == 3 ? 0 : uint32_t(y) % uint32_t(parts)) != uint32_t(part) * (y == 3 ? 0 : 1)"),
    Mutant("slices exchanged", RENDER + "test_ladder_loop",
           "common/planes.h", "return plane == 0 ? front : T(1) - front;", "return plane == 0 ? T(1) - front : front;"),
    Mutant("slices not clamped", RENDER + "test_ladder_loop",
           "cpu/samples_body.h", "share > T(1) ? splat<T>(T(1)) : share", "share"),
    Mutant("depth gradient of the back slice", RENDER + "test_points",
           "cpu/samples_body.h", "-projection.slice_scale * reading", "projection.slice_scale * reading"),
    Mutant("back slice's gradient into the front one", RENDER + "test_points",
           "cpu/samples_body.h", "* kPlanes + plane) * plane_stride", "* kPlanes + k) * plane_stride"),
    Mutant("NaN in z read as the back slice", RENDER + "test_slices_read_only_what_weighs",
           "cpu/samples_body.h", "acc[v] = splat<T>(taps.front[i] * T(0))", "acc[v] = Vec<T>{}"),
    Mutant("centre of the slices", RENDER + "test_ladder_loop",
           "common/planes.h", "0.5 - 0.5 * slice_centre", "0.5 + 0.5 * slice_centre"),
    Mutant("phase of a resampled row", FILTERS + "test_upfirdn2d",
           "cpu/filters_body.h", "r * down + kx", "r + kx"),
    Mutant("clamp from one side", FILTERS + "test_bias_act_gradcheck",
           "cpu/filters_body.h", "(y < limit) & (y > -limit)", "(y < limit)"),
]
# fmt: on


def _run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, **environment}, check=False
    )


def _compile(source: Path, include: Path, output: Path) -> None:
    from torch.utils.cpp_extension import include_paths

    flags = ["-std=c++20", "-O1", "-fPIC", "-fvisibility=hidden", "-DTORCH_TARGET_VERSION=0x020b000000000000"]
    paths = [f"-I{include}", *(f"-I{p}" for p in include_paths())]
    done = _run(str(COMPILER), *flags, *paths, "-c", str(source), "-o", str(output))
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Mutant | None], Path]:
    """Compiles the sources, or a copy with one wrong line; objects that a mutant does not touch are shared."""
    shared = tmp_path_factory.mktemp("objects")
    (shared / "stubs.cpp").write_text(STUBS)
    whole = ["head3d.cpp", "cpu/isa_cpu.cpp", "cpu/render_cpu.cpp", "cpu/filters_cpu.cpp"]
    for name in whole:
        _compile(ROOT / "csrc" / name, ROOT / "csrc", shared / f"{Path(name).stem}.o")
    _compile(shared / "stubs.cpp", ROOT / "csrc", shared / "stubs.o")

    def make(mutant: Mutant | None) -> Path:
        from torch.utils.cpp_extension import library_paths

        folder = tmp_path_factory.mktemp("mutant")
        shutil.copytree(ROOT / "csrc", folder / "csrc", ignore=shutil.ignore_patterns("cuda"))
        objects = {path.stem: path for path in shared.glob("*.o")}
        changed = ["cpu/render_portable_cpu.cpp"]
        if mutant is not None:
            path = folder / "csrc" / mutant.file
            text = path.read_text()
            assert mutant.right in text, f"{mutant.file} no longer says {mutant.right!r}"
            path.write_text(text.replace(mutant.right, mutant.wrong))
            if mutant.file in whole:
                changed = [mutant.file, *changed]
            elif mutant.file.startswith("common/"):  # the tensor side computes with these headers too
                changed = ["cpu/render_cpu.cpp", *changed]
        for name in changed:
            output = folder / f"{Path(name).stem}.o"
            _compile(folder / "csrc" / name, folder / "csrc", output)
            objects[output.stem] = output
        library = folder / "_C.so"
        links = [*(f"-L{p}" for p in library_paths()), "-ltorch", "-ltorch_cpu", "-lc10"]
        done = _run(str(COMPILER), "-shared", "-o", str(library), *map(str, objects.values()), *links)
        assert done.returncode == 0, done.stderr[-2000:]
        return library

    return make


def _pytest(library: Path, *tests: str) -> subprocess.CompletedProcess[str]:
    names = ["-k", " or ".join(t.split("::")[1] for t in tests), *sorted({t.split("::")[0] for t in tests})]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *names]
    return _run(*command, HEAD3D_LIBRARY=str(library), HEAD3D_DISABLE_NATIVE="0")


def test_the_right_sources_pass(build: Callable[[Mutant | None], Path]) -> None:
    done = _pytest(build(None), *sorted({m.caught_by for m in MUTANTS}))
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_mutant_is_caught(mutant: Mutant, build: Callable[[Mutant | None], Path]) -> None:
    done = _pytest(build(mutant), mutant.caught_by)
    assert done.returncode == 1, f"{mutant.caught_by} did not notice: {done.stdout[-1500:]}"
    assert f"FAILED {mutant.caught_by}" in done.stdout
