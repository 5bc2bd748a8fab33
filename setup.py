"""Build the optional C++/CUDA extension `head3d_core/_C`; everything else about the package is in pyproject.toml.

The library is plain: no Python in it, loaded by `torch.ops.load_library` in `head3d_core/ops` and written against
LibTorch's stable ABI, so one build serves several torch and Python versions. A failed build is not a failed install:
the package then runs on its reference path, and `build/extension.txt` (which `doctor` prints) says why.

Environment: HEAD3D_WITH_EXT and HEAD3D_WITH_CUDA, each `auto` (default: build what the machine can), `0` (leave out) or
`1` (fail the install when it cannot be built). MAX_JOBS limits parallel compilation.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Any

from setuptools import setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
STATUS = ROOT / "build" / "extension.txt"
STABLE_ABI_TARGET = "0x020b000000000000"  # torch 2.11: the oldest that the built library loads into
CUDA_TARGETS = "7.5;8.0;9.0+PTX"  # T4, A100, H100; newer ones compile the PTX when they load it


BUNDLED = ("manifest.json", "LICENSE", "weights", "assets", "samples", "results")
"""What of data/ an installed package carries, as head3d_core/data (utils/files.py finds it)."""


class BuildWithData(build_py):
    """The package and the bundled data; a checkout (`pip install -e`) uses its own data/ folder."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / "head3d_core" / "data"
        shutil.rmtree(target, ignore_errors=True)
        for name in BUNDLED:
            source = ROOT / "data" / name
            if source.is_dir():
                shutil.copytree(source, target / name)
            elif source.is_file():
                target.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target / name)


def choice(name: str) -> str:
    """`auto`, `0` or `1` from the environment; anything else is an error."""
    value = os.environ.get(name, "auto").strip().lower() or "auto"
    if value not in ("auto", "0", "1"):
        raise SystemExit(f"{name} must be auto, 0 or 1, got {value!r}.")
    return value


def record(sentence: str) -> None:
    """Keep the outcome for `doctor` and say it once."""
    STATUS.parent.mkdir(exist_ok=True)
    STATUS.write_text(sentence + "\n", encoding="utf8")
    print(f"head3d_core: {sentence}", file=sys.stderr)


def remove_stale_library() -> None:
    """A library from an earlier build would not match these sources; a copy in build/ would be installed again."""
    for path in [*ROOT.glob("head3d_core/_C*"), *ROOT.glob("build/lib*/head3d_core/_C*")]:
        if path.suffix in (".so", ".pyd", ".dylib"):
            path.unlink()


def cuda_home() -> Path | None:
    """The first directory that holds both nvcc and the runtime's headers (a wrapper script in a bin folder doesn't)."""
    exe = "nvcc.exe" if os.name == "nt" else "nvcc"
    candidates = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")]
    if found := shutil.which("nvcc"):
        candidates.append(str(Path(found).resolve().parents[1]))
    candidates += ["/usr/local/cuda", str(Path(sysconfig.get_path("platlib")) / "nvidia" / "cu13")]
    for home in (Path(c) for c in candidates if c):
        if (home / "bin" / exe).exists() and (home / "include" / "cuda_runtime.h").exists():
            return home
    return None


def compiler_missing() -> str | None:
    """Why no C++ compiler can be used, or None if one is there."""
    if os.name == "nt":  # setuptools finds Visual Studio by itself; a failure is reported by the build
        return None
    named = os.environ.get("CXX")
    for name in [named.split()[0]] if named else ["c++", "g++", "clang++"]:
        if shutil.which(name):
            return None
    return f"no C++ compiler found ({named or 'c++, g++, clang++'})"


def make_extension(cuda: bool) -> Any:
    """The extension with or without its CUDA sources; arguments follow torch.utils.cpp_extension."""
    from torch.utils.cpp_extension import CppExtension, CUDAExtension

    csrc = ROOT / "csrc"
    sources = sorted(
        [*csrc.glob("*.cpp"), *csrc.glob("cpu/*_cpu.cpp"), *(csrc.glob("cuda/*_cuda.cu") if cuda else [])]
    )
    macros: list[tuple[str, str | None]] = [("TORCH_TARGET_VERSION", STABLE_ABI_TARGET)]
    cxx = ["/O2", "/EHsc"] if os.name == "nt" else ["-O3", "-g0", "-fvisibility=hidden", "-fno-math-errno"]
    options: dict[str, Any] = {
        "name": "head3d_core._C",
        "sources": [str(p.relative_to(ROOT)) for p in sources],
        "include_dirs": [str(csrc)],
        "define_macros": macros,
        "extra_compile_args": {"cxx": cxx},
        "extra_link_args": [] if os.name == "nt" or sys.platform == "darwin" else ["-s"],
        "py_limited_api": True,  # no Python symbols in it: do not link torch_python
        "optional": True,
    }
    if not cuda:
        return CppExtension(**options)
    macros.append(("HEAD3D_WITH_CUDA", None))
    # torch forbids implicit half conversions in its own kernels; in ours they mean what they say.
    allow_half = [
        f"-U__CUDA_NO_{name}__" for name in ("HALF_OPERATORS", "HALF_CONVERSIONS", "HALF2_OPERATORS")
    ]
    allow_half.append("-U__CUDA_NO_BFLOAT16_CONVERSIONS__")
    options["extra_compile_args"]["nvcc"] = ["-O3", "-lineinfo", "--expt-relaxed-constexpr", *allow_half]
    pip_cuda = Path(sysconfig.get_path("platlib")) / "nvidia" / "cu13"
    home = Path(os.environ["CUDA_HOME"])
    if not (home / "include" / "cusparse.h").exists() and (pip_cuda / "include").exists():
        options["include_dirs"].append(
            str(pip_cuda / "include")
        )  # a trimmed toolkit beside torch's own wheels
        options["library_dirs"] = [str(pip_cuda / "lib")]
    return CUDAExtension(**options)


def plan() -> tuple[bool, bool, str]:
    """(build it?, with CUDA?, why not) for this machine and the environment's wishes."""
    want, want_cuda = choice("HEAD3D_WITH_EXT"), choice("HEAD3D_WITH_CUDA")
    if want == "0":
        return False, False, "not built: HEAD3D_WITH_EXT=0; everything runs on the reference path."
    reason = None if list((ROOT / "csrc").glob("*.cpp")) else "no sources in csrc"
    try:
        import torch
    except ImportError:
        reason = "torch is not importable while building (use --no-build-isolation)"
    reason = reason or compiler_missing()
    if reason:
        if want == "1":
            raise SystemExit(f"HEAD3D_WITH_EXT=1, but {reason}.")
        return False, False, f"not built: {reason}; everything runs on the reference path, more slowly."
    home = cuda_home() if want_cuda != "0" and torch.version.cuda else None
    if want_cuda == "1" and home is None:
        raise SystemExit("HEAD3D_WITH_CUDA=1, but no nvcc with its headers, or torch itself is a CPU build.")
    if home is not None:
        os.environ["CUDA_HOME"] = str(home)  # before torch.utils.cpp_extension looks for it
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", CUDA_TARGETS)
    return True, home is not None and any((ROOT / "csrc").glob("cuda/*_cuda.cu")), ""


def main() -> None:
    build, cuda, why_not = plan()
    if not build:
        remove_stale_library()
        record(why_not)
        setup(cmdclass={"build_py": BuildWithData})
        return

    from torch.utils.cpp_extension import BuildExtension

    base: type[build_ext] = BuildExtension.with_options(no_python_abi_suffix=True)

    class BuildOptional(base):  # type: ignore[valid-type, misc]
        """Build with CUDA, else without, else not at all; each step back is recorded in one line."""

        def build_extensions(self) -> None:
            os.environ.setdefault("MAX_JOBS", str(os.cpu_count() or 1))
            attempts = [True, False] if cuda else [False]
            if cuda and choice("HEAD3D_WITH_CUDA") == "1":
                attempts = [True]
            for with_cuda in attempts:
                self.extensions[:] = [make_extension(with_cuda)]
                self.extensions[0]._full_name = "head3d_core._C"
                self.extensions[0]._needs_stub = False
                try:
                    super().build_extensions()
                except (Exception, SystemExit) as error:
                    failure = " ".join(str(error).split())[:160]
                    print(
                        f"head3d_core: build {'with' if with_cuda else 'without'} CUDA failed: {failure}",
                        file=sys.stderr,
                    )
                    continue
                without = " (its CUDA sources did not compile here)" if cuda and not with_cuda else ""
                record(f"built for CPU{' and CUDA' if with_cuda else ''}{without}.")
                return
            remove_stale_library()
            record(
                "not built: the compiler failed (`HEAD3D_WITH_EXT=1 python setup.py build_ext --inplace` "
                "shows its messages); everything runs on the reference path, more slowly."
            )
            if choice("HEAD3D_WITH_EXT") == "1" or choice("HEAD3D_WITH_CUDA") == "1":
                raise SystemExit(
                    "head3d_core: the extension could not be built, and the environment asked for it."
                )

    setup(
        ext_modules=[make_extension(cuda)], cmdclass={"build_ext": BuildOptional, "build_py": BuildWithData}
    )


main()
