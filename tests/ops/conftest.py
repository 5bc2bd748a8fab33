"""Fixtures of the tests of compiled operators: each kernel that this machine has."""

from __future__ import annotations

import pytest

from head3d_core import ops

CPU_PATHS = ("avx512", "avx2", "scalar")
ON_GPU = pytest.param("cuda", marks=pytest.mark.gpu)


@pytest.fixture
def kernels() -> None:
    """CUDA kernels in the extension."""
    if not ops.has_cuda():
        pytest.skip("the extension is built without CUDA")


def _device(request: pytest.FixtureRequest) -> str:
    """The device of a parameter; a CPU path is taken, as far as this processor has it."""
    if request.param == "cuda":
        request.getfixturevalue("kernels")
        return "cuda"
    if request.param in CPU_PATHS:
        request.getfixturevalue("monkeypatch").setenv("HEAD3D_CPU_ISA", request.param)
        if request.param != "scalar" and ops.instruction_set() != request.param:
            pytest.skip(f"this processor has no {request.param}")
    return "cpu"


cpu_path = pytest.fixture(params=CPU_PATHS, name="cpu_path")(_device)
"""Each CPU path in turn."""
device = pytest.fixture(params=["cpu", ON_GPU], name="device")(_device)
"""The devices that have kernels."""
place = pytest.fixture(params=[*CPU_PATHS, ON_GPU], name="place")(_device)
"""Each CPU path in turn, then the GPU: the device."""
