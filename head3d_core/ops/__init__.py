"""The compiled operators `torch.ops.head3d.*`, and the choice between them and the reference.

The library (csrc/, built by setup.py) holds the kernels and the schemas. `ops.render` and `ops.layers` hold the Python
side of each: wrappers, "fakes" (shapes without data, for `torch.compile`) and derivatives, registered when the library
is first needed. Nothing is compiled, and nothing is loaded at import.

Environment: HEAD3D_DISABLE_NATIVE=1 hides the library; HEAD3D_LIBRARY names another file than head3d_core/_C*.so;
HEAD3D_CPU_ISA=avx2 or scalar forces a slower CPU path.
"""

from __future__ import annotations

import functools
import logging
import os
from pathlib import Path

import torch
from torch import Tensor

from head3d_core.config import Backend
from head3d_core.ops import layers, render
from head3d_core.utils.errors import Head3DError

_log = logging.getLogger(__name__)

_TYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def _library() -> Path | None:
    named = os.environ.get("HEAD3D_LIBRARY")
    if named:
        return Path(named)
    files = sorted(
        p for p in Path(__file__).parents[1].glob("_C*") if p.suffix in (".so", ".pyd", ".dylib", ".dll")
    )
    return files[0] if files else None


@functools.cache
def _load() -> bool:
    """Loads the library, if there is one, and registers its Python side; says in the log what came of it."""
    path = _library()
    if path is None:
        _log.info("no compiled extension: everything runs on the reference path")
        return False
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        _log.warning("the compiled extension does not load, so the reference path is used: %s", error)
        return False
    for name, (fake, backward, setup) in (layers.RULES | render.RULES).items():
        torch.library.register_fake(f"head3d::{name}", fake)
        torch.library.register_autograd(f"head3d::{name}", backward, setup_context=setup)
    library = torch.ops.head3d
    _log.info(
        "compiled extension loaded: CPU path %s, CUDA: %s", library.instruction_set(), library.has_cuda()
    )
    return True


@torch.compiler.assume_constant_result
def available() -> bool:
    """True if the compiled extension is loaded (the first call tries to) and not hidden by HEAD3D_DISABLE_NATIVE."""
    return os.environ.get("HEAD3D_DISABLE_NATIVE", "0") in ("", "0") and _load()


@torch.compiler.assume_constant_result
def instruction_set() -> str:
    """The CPU path that the extension takes: "avx512", "avx2", "neon" or "scalar"; "none" without the extension."""
    return str(torch.ops.head3d.instruction_set()) if available() else "none"


@torch.compiler.assume_constant_result
def has_cuda() -> bool:
    """True if the extension is loaded and was built with CUDA kernels."""
    return available() and bool(torch.ops.head3d.has_cuda())


@torch.compiler.assume_constant_result
@functools.lru_cache
def runs_on(device: torch.device) -> bool:
    """Whether the CUDA kernels were built for this GPU, by a call of the smallest; says so once where they were not."""
    try:
        torch.ops.head3d.uniform(torch.zeros(1, dtype=torch.int64, device=device), 1, 1, 0)
    except RuntimeError as error:
        _log.warning(
            "the CUDA kernels do not run on %s, so PyTorch's do: %s", device, str(error).splitlines()[0]
        )
        return False
    return True


def use_native(backend: Backend, *tensors: Tensor) -> bool:
    """Whether the compiled operator serves this call.

    Args:
        backend: "reference" never; "native" always, or it raises; "auto" where the extension has a kernel for the
            device and type of every tensor.

    Raises:
        Head3DError: for an unknown backend, or for "native" without the extension or its CUDA kernels.
    """
    if backend not in ("auto", "reference", "native"):
        raise Head3DError(f'backend must be "auto", "reference" or "native", got {backend!r}')
    if backend == "reference":
        return False
    missing = ""
    if not available():
        missing = (
            "needs the compiled extension, which is not built: install a C++ compiler and run `make venv`, or"
        )
    for tensor in tensors if not missing else ():
        served = tensor.is_cpu or (tensor.is_cuda and has_cuda() and runs_on(tensor.device))
        if not served or tensor.dtype not in _TYPES:
            missing = f"has no kernel for {tensor.dtype} on {tensor.device.type}:"
    if missing and backend == "native":
        raise Head3DError(f'backend="native" {missing} use backend="auto"')
    return not missing
