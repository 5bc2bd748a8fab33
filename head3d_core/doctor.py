"""What this machine offers, one line each: `[ok]` is there, `[--]` is not and what follows from that.

>>> print(Finding(True, "Python", "3.11.7"))
[ok] Python: 3.11.7
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

OPTIONAL_WEIGHTS = (
    # (what it is, file, folder below TORCH_HOME, what is used without it)
    ("VGG16 for LPIPS", "vgg16-397923af.pth", "hub/checkpoints", "a fixed-seed random VGG16, named as such"),
    (
        "Inception for FID and KID",
        "weights-inception-2015-12-05-6726825d.pth",
        "hub/checkpoints",
        "EfficientNet-Lite0 features, reported as KD-EffLite0",
    ),
    ("VGGFace2 identity network", "20180402-114759-vggface2.pt", "checkpoints", "our own identity encoder"),
)
"""Weights that cannot be shipped: found in torch's cache if the user put them there, never downloaded."""


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    ok: bool
    """True prints `[ok]`, False `[--]`."""
    name: str
    """What was looked for."""
    text: str
    """What was found, or what its absence means."""

    def __str__(self) -> str:
        return f"[{'ok' if self.ok else '--'}] {self.name}: {self.text}"


@dataclass(frozen=True)
class DoctorArgs:
    """`doctor` takes no options."""


def short(path: Path | str) -> str:
    """A path as one would say it: from the repository, else from home.

    >>> short(ROOT / "data" / "weights"), short(Path.home() / "x")
    ('data/weights', '~/x')
    """
    path = Path(path)
    if path.is_relative_to(ROOT):
        return path.relative_to(ROOT).as_posix()
    return f"~/{path.relative_to(Path.home()).as_posix()}" if path.is_relative_to(Path.home()) else str(path)


def check_python() -> Finding:
    """Python 3.11 or newer."""
    where = short(sys.prefix) if sys.prefix != sys.base_prefix else "no virtual environment"
    return Finding(sys.version_info >= (3, 11), "Python", f"{platform.python_version()} ({where})")


def check_torch() -> Finding:
    """torch and its thread count."""
    import torch

    return Finding(True, "torch", f"{torch.__version__}, {torch.get_num_threads()} CPU threads")


def check_cuda() -> Finding:
    """A CUDA GPU that torch can use."""
    import torch

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info(0)
        text = f"{torch.cuda.get_device_name(0)}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free"
        return Finding(True, "CUDA", f"{text}, {torch.cuda.device_count()} device(s)")
    why = "torch is a CPU build" if torch.version.cuda is None else "no GPU found"
    return Finding(False, "CUDA", f"{why}; the notebooks need none, training at classroom scale does")


def check_compiler() -> Finding:
    """A C++ compiler, and nvcc if there is one."""
    names = [os.environ["CXX"].split()[0]] if os.environ.get("CXX") else ["c++", "g++", "clang++", "cl"]
    compiler = next((path for name in names if (path := shutil.which(name))), None)
    if compiler is None:
        return Finding(False, "compiler", "no C++ compiler found; only building the extension needs one")
    return Finding(
        True, "compiler", compiler + (f", nvcc {nvcc}" if (nvcc := shutil.which("nvcc")) else ", no nvcc")
    )


def check_extension() -> Finding:
    """The compiled operators, the instruction set that they chose, and whether their kernels run on the GPU."""
    import torch

    from head3d_core import ops

    if ops.available():
        text = f"loaded, CPU path {ops.instruction_set()}"
        if not torch.cuda.is_available():
            return Finding(True, "extension", text)
        if ops.has_cuda() and ops.runs_on(torch.device("cuda", 0)):
            return Finding(True, "extension", f"{text}, CUDA kernels")
        wanted = "{}.{}".format(*torch.cuda.get_device_capability(0))
        why = f"CUDA kernels not built for this GPU ({wanted}), PyTorch's run instead"
        return Finding(False, "extension", f"{text}, {why}: rebuild with TORCH_CUDA_ARCH_LIST={wanted}")
    status = ROOT / "build" / "extension.txt"
    why = status.read_text(encoding="utf8").strip() if status.exists() else "not built; run `make venv`."
    if why.startswith("built"):
        why = "built, but not loaded (switched off, or made for another torch); everything runs on the reference path."
    return Finding(False, "extension", why)


def check_opengl() -> Finding:
    """An OpenGL 4.3 context without a window, tried in a process of its own because a broken driver may end it."""
    code = (
        "import sys, moderngl\n"
        "options = {'backend': 'egl'} if sys.platform == 'linux' else {}\n"
        "print(moderngl.create_context(standalone=True, require=430, **options).info['GL_RENDERER'])"
    )
    install = "install libegl1 and libgl1-mesa-dri (Debian/Ubuntu); data/samples replaces rendered heads"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
        )
    except subprocess.TimeoutExpired:
        return Finding(False, "OpenGL", f"no answer within 60 s; {install}")
    if done.returncode == 0:
        return Finding(True, "OpenGL", done.stdout.strip())
    reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    return Finding(False, "OpenGL", f"{reason[:120]}; {install}")


def check_bundled() -> Finding:
    """The weights that come with the repository or the wheel."""
    from head3d_core.utils import files

    folder = files.DATA / "weights"
    names = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    return Finding(bool(names), "bundled weights", ", ".join(names) or files.missing_data("weights"))


def check_optional(name: str, file: str, folder: str, substitute: str) -> Finding:
    """A file that the user may have put into torch's cache."""
    from head3d_core.utils.files import torch_home

    path = torch_home() / folder / file
    if path.is_file():
        return Finding(True, name, short(path))
    return Finding(False, name, f"not found, would go to {short(path)}; without it: {substitute}")


def report() -> Iterator[Finding]:
    """All findings, in the order in which they matter."""
    checks: dict[str, Callable[[], Finding]] = {
        "Python": check_python,
        "torch": check_torch,
        "CUDA": check_cuda,
        "compiler": check_compiler,
        "extension": check_extension,
        "OpenGL": check_opengl,
        "bundled weights": check_bundled,
    }
    for name, check in checks.items():
        try:
            yield check()
        except ImportError as error:
            yield Finding(False, name, f"cannot be looked at ({error}); run `make venv`")
    for row in OPTIONAL_WEIGHTS:
        yield check_optional(*row)


def run(args: DoctorArgs) -> int:
    """Print the report. Exit status 1 only if Python or torch is missing: all else has a substitute."""
    missing = set()
    for finding in report():
        print(finding, flush=True)
        missing |= set() if finding.ok else {finding.name}
    return int(bool(missing & {"Python", "torch"}))
