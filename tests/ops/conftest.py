"""Fixtures of the tests of compiled operators: each kernel that this machine has."""

from __future__ import annotations

import pytest

from head3d_core import ops


@pytest.fixture(params=["avx512", "avx2", "scalar"])
def cpu_path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each CPU path in turn, as far as this processor has it."""
    monkeypatch.setenv("HEAD3D_CPU_ISA", request.param)
    if request.param != "scalar" and ops.instruction_set() != request.param:
        pytest.skip(f"this processor has no {request.param}")
    return ops.instruction_set()


@pytest.fixture
def kernels() -> None:
    """CUDA kernels in the extension."""
    if not ops.has_cuda():
        pytest.skip("the extension is built without CUDA")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """The devices that have kernels."""
    if request.param == "cuda":
        request.getfixturevalue("kernels")
    return str(request.param)
