"""Choosing between the compiled operators and the reference: quiet, lazy, and honest about what is there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import python, refused, refuses

from head3d_core import ops


def _quiet(code: str, **environment: str) -> str:
    """What code prints in a process of its own, where warnings are errors; nothing may be written to stderr."""
    done = python("-W", "error", "-c", code, **environment)
    assert done.stderr == ""
    return done.stdout


def test_a_library_that_does_not_load_means_reference(tmp_path: Path) -> None:
    broken = tmp_path / "_C.so"
    broken.write_bytes(b"not a library")
    code = "from head3d_core import ops; import logging; logging.disable(); print(ops.available())"
    said = _quiet(code, HEAD3D_LIBRARY=str(broken), HEAD3D_DISABLE_NATIVE="0")
    assert said == "False\n"


@pytest.mark.native
def test_import_loads_nothing() -> None:
    """The library is loaded by the first question about it, without a word on stderr."""
    said = _quiet(
        "import torch, head3d_core.ops as ops\n"
        "print(hasattr(torch.ops.head3d, 'render_rays'), ops.available(), hasattr(torch.ops.head3d, 'render_rays'))\n"
    )
    assert said == "False True True\n"


def test_use_native(monkeypatch: pytest.MonkeyPatch) -> None:
    with refused('backend must be "auto", "reference" or "native", got \'fast\''):
        ops.use_native("fast")  # type: ignore[arg-type]
    assert ops.use_native("reference", torch.zeros(1)) is False
    monkeypatch.setenv("HEAD3D_DISABLE_NATIVE", "1")
    assert ops.use_native("auto", torch.zeros(1)) is False
    refuses("needs the compiled extension", ops.use_native, "native", torch.zeros(1))


@pytest.mark.native
def test_auto_takes_what_has_a_kernel() -> None:
    assert ops.use_native("auto", torch.zeros(1), torch.zeros(1, dtype=torch.float64))
    assert not ops.use_native("auto", torch.zeros(1, dtype=torch.int32))
    assert not ops.use_native("auto", torch.zeros(1, device="meta"))
    with refused(r'no kernel for torch.int32 on cpu: use backend="auto"'):
        ops.use_native("native", torch.zeros(1, dtype=torch.int32))


@pytest.mark.native
def test_instruction_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEAD3D_CPU_ISA", raising=False)
    best = ops.instruction_set()
    assert best in ("avx512", "avx2", "neon", "scalar")
    monkeypatch.setenv("HEAD3D_CPU_ISA", "scalar")
    assert ops.instruction_set() in ("neon", "scalar")
    monkeypatch.setenv("HEAD3D_CPU_ISA", "avx2")
    assert ops.instruction_set() == ("avx2" if best == "avx512" else best)


@pytest.mark.native
def test_offsets_beyond_31_bits() -> None:
    """Texels 2^29 elements apart, in memory that is reserved but never touched: the fifth row begins at 2^31."""
    try:
        storage = torch.empty(2**31 + 64)
    except RuntimeError:
        pytest.skip("this machine does not lend 8 GiB of address space")
    planes = storage.as_strided((1, 3, 16, 5, 2), (0, 0, 1, 2**29, 16))
    planes[0, 0].copy_(torch.arange(16.0)[:, None, None] + 100 * torch.arange(5.0)[:, None])
    assert ops.available()
    lowest = torch.ops.head3d.sample_planes(planes, torch.tensor([[[0.0, 0.4, 0.4]]]), 1, 1.0)
    # All three planes are one here, read in row 4; the third is read 0.3 texels beyond the centre of its last column.
    torch.testing.assert_close(lowest[0, 0], (400 + torch.arange(16.0)) * 2.7 / 3)
