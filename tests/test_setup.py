"""Building without a compiler, or with a broken one, leaves a working pure-Python install and one sentence about it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from helpers import COURSE, ROOT


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What setup.py looks at, in a place of its own: it would replace the library of this checkout."""
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("head3d_core", "notebooks/head3d_course", "csrc"):
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "_C*"))
    (tmp_path / "csrc").mkdir(exist_ok=True)
    (tmp_path / "csrc" / "probe.cpp").write_text("int probe() { return 0; }\n")
    return tmp_path


def setup(where: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run setup.py there, without the caller's own wishes."""
    own = ("CXX", "CC", "HEAD3D_WITH_EXT", "HEAD3D_WITH_CUDA")
    env = {k: v for k, v in os.environ.items() if k not in own} | environment
    command = [sys.executable, "setup.py", *arguments]
    return subprocess.run(command, cwd=where, env=env, capture_output=True, text=True, check=False)


def status(where: Path) -> str:
    return (where / "build" / "extension.txt").read_text(encoding="utf8")


def test_no_compiler(copy: Path) -> None:
    stale = copy / "head3d_core" / "_C.so"
    stale.write_bytes(b"from other sources")
    done = setup(copy, "build_ext", "--inplace", CXX="missing-compiler")
    assert done.returncode == 0, done.stderr
    assert status(copy).startswith("not built: no C++ compiler found (missing-compiler)")
    assert status(copy).count("\n") == 1
    assert not stale.exists()


@pytest.mark.skipif(shutil.which("false") is None, reason="no command that always fails")
def test_broken_compiler(copy: Path) -> None:
    """Also after a build that succeeded: its library, which setuptools keeps in build/, does not come back."""
    kept = copy / f"build/lib.{sysconfig.get_platform()}-{sys.implementation.cache_tag}/head3d_core/_C.so"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"from an earlier build")
    done = setup(copy, "build_ext", "--inplace", CXX="false", CC="false", HEAD3D_WITH_CUDA="0")
    assert done.returncode == 0, done.stderr
    assert status(copy).startswith("not built: the compiler failed")
    assert not [*copy.glob("head3d_core/_C*"), *copy.glob("build/lib*/head3d_core/_C*")]


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"HEAD3D_WITH_EXT": "yes"}, "HEAD3D_WITH_EXT must be auto, 0 or 1, got 'yes'"),
        ({"HEAD3D_WITH_CUDA": "2"}, "HEAD3D_WITH_CUDA must be auto, 0 or 1, got '2'"),
        ({"HEAD3D_WITH_EXT": "1", "CXX": "missing-compiler"}, "HEAD3D_WITH_EXT=1, but no C++ compiler"),
    ],
)
def test_wishes_that_cannot_be_met_fail(copy: Path, environment: dict[str, str], says: str) -> None:
    done = setup(copy, "--version", **environment)
    assert done.returncode != 0
    assert says in done.stderr


def test_left_out_on_request(copy: Path) -> None:
    done = setup(copy, "build_ext", "--inplace", HEAD3D_WITH_EXT="0")
    assert done.returncode == 0, done.stderr
    assert status(copy).startswith("not built: HEAD3D_WITH_EXT=0")


def test_an_installed_wheel_finds_its_weights_elsewhere(copy: Path, tmp_path: Path) -> None:
    """Built without the extension, installed into a folder of its own, used from another working directory."""
    data = copy / "data"
    data.mkdir()
    for name in ("manifest.json", "LICENSE"):
        shutil.copy(ROOT / "data" / name, data / name)
    for name in ("weights/head3d", "weights/identity", "assets", "samples/heads", "results"):
        shutil.copytree(ROOT / "data" / name, data / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "HEAD3D_DATA")}

    clean["HEAD3D_WITH_EXT"] = "0"

    def run(*command: str, where: Path) -> str:
        done = subprocess.run(command, cwd=where, env=clean, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    run(*pip, "wheel", ".", "--no-deps", "--no-build-isolation", "-w", "dist", where=copy)
    (wheel,) = (copy / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        packed = {Path(name).parts[0] for name in file.namelist() if ".dist-info/" not in name}
    assert packed == {"head3d_core", "head3d_course"}, "and nothing else of the folder of the notebooks"
    run(*pip, "install", "--no-deps", "--target", str(tmp_path / "site"), str(wheel), where=tmp_path)
    (tmp_path / "elsewhere").mkdir()
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        "import head3d_core as h3d\n"
        "import head3d_course\n"
        "from head3d_core import doctor\n"
        "from head3d_core.synth.assets import ASSET_PATH\n"
        "print(h3d.load_generator('head3d').num_ws, ASSET_PATH.is_file(), doctor.check_bundled())\n"
        "print(h3d.__file__, head3d_course.__file__)\n"
        "print(len(head3d_course.words('alt_texts')))\n"
        "try: h3d.load_generator('face')\n"
        "except h3d.Head3DError as error: print(error)\n"
    )
    found, places, texts, missing = run(sys.executable, "-c", code, where=tmp_path / "elsewhere").splitlines()
    assert found == "12 True [ok] bundled weights: head3d, identity"
    assert all(place.startswith(str(tmp_path / "site")) for place in places.split())
    assert int(texts) == len(json.loads((COURSE / "alt_texts.json").read_text(encoding="utf8")))
    installed = {path.name for path in (tmp_path / "site" / "head3d_course").iterdir()}
    assert {path.name for path in COURSE.glob("*.*")} <= installed, "modules, texts and the widget's script"
    assert missing == "no weights called 'face': bundled are head3d, anything else is given as a path"


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
def test_tensor_core_kernels_compile_for_turing(tmp_path: Path) -> None:
    """Their instructions need capability 8.0; for a T4 (7.5) they are left out and the simple kernels serve."""

    pip = Path(sysconfig.get_path("platlib")) / "nvidia" / "cu13" / "include"
    cpp_extension = pytest.importorskip("torch.utils.cpp_extension")
    folders = [ROOT / "csrc", *cpp_extension.include_paths(), *([pip] if pip.is_dir() else [])]
    words = ["nvcc", "-std=c++17", "-O1", "-arch=sm_75", "--expt-relaxed-constexpr", "-cubin"]
    words += ["-DTORCH_TARGET_VERSION=0x020b000000000000", "-DHEAD3D_WITH_CUDA", *(f"-I{f}" for f in folders)]
    source = ROOT / "csrc" / "cuda" / "render_tensorcore_forward_cuda.cu"
    done = subprocess.run(
        [*words, "-o", tmp_path / "x.cubin", source], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
