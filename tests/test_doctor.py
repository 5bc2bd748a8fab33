"""The report: one line each, and right about what is there and what is not."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import python

from head3d_core import doctor, ops
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.files import torch_home

LINE = re.compile(r"\[(ok|--)\] [^:\n]+: \S.*")


def test_one_line_per_finding(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.run(doctor.DoctorArgs()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(LINE.fullmatch(line) for line in lines), lines
    names = [line.split("] ")[1].split(":")[0] for line in lines]
    expected = ["Python", "torch", "CUDA", "compiler", "extension", "OpenGL", "bundled weights"]
    assert names == expected + [row[0] for row in doctor.OPTIONAL_WEIGHTS]


def test_no_compiler_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert str(doctor.check_compiler()).startswith("[--] compiler: no C++ compiler")
    monkeypatch.setenv("CXX", "missing-compiler")
    assert not doctor.check_compiler().ok


def test_optional_weights_are_found_where_torch_looks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name, file, folder, substitute in doctor.OPTIONAL_WEIGHTS:
        path = tmp_path / folder / file
        missing = doctor.check_optional(name, file, folder, substitute)
        assert not missing.ok
        assert doctor.short(path) in missing.text
        assert substitute in missing.text
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        assert doctor.check_optional(name, file, folder, substitute).ok


def test_torch_home_follows_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv("TORCH_HOME", raising=False)
        monkeypatch.setenv(variable, str(tmp_path / variable))
        assert torch_home() == Path(torch.hub.get_dir()).parent


def test_opengl_failure_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.sys, "executable", str(Path(sys.executable).with_name("python-that-fails")))

    def fail(*_: object, **__: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 1, "", "Traceback\nException: libEGL.so not loaded\n")

    monkeypatch.setattr(doctor.subprocess, "run", fail)
    finding = doctor.check_opengl()
    assert not finding.ok
    assert "libEGL.so not loaded" in finding.text
    assert "install libegl1" in finding.text


@pytest.mark.native
@pytest.mark.parametrize("built", [True, False])
def test_a_gpu_that_the_kernels_were_not_built_for(built: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """On such a GPU the first launch fails; then "auto" takes PyTorch, "native" refuses, and doctor says what to do."""

    def launch(*_: object) -> None:
        if not built:
            raise RuntimeError("random: no kernel image is available for execution on the device\nstack ...")

    class OnGPU:
        is_cpu, is_cuda, dtype, device = False, True, torch.float32, torch.device("cuda", 0)

    monkeypatch.setattr(torch.ops.head3d, "uniform", launch)
    monkeypatch.setattr(torch, "zeros", lambda *_, **__: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    monkeypatch.setattr(ops, "has_cuda", lambda: True)
    ops.runs_on.cache_clear()
    try:
        assert ops.use_native("auto", OnGPU()) == built  # type: ignore[arg-type]
        finding = doctor.check_extension()
        if not built:
            with pytest.raises(Head3DError, match="no kernel"):
                ops.use_native("native", OnGPU())  # type: ignore[arg-type]
    finally:
        ops.runs_on.cache_clear()
    assert finding.ok == built
    assert ("TORCH_CUDA_ARCH_LIST=7.5" in finding.text) != built


def test_reference_path_with_the_library_hidden() -> None:
    """HEAD3D_DISABLE_NATIVE=1 stands for a machine without a compiler: "native" raises, stderr stays clean."""
    code = (
        "import torch, head3d_core as h3d\n"
        "assert not h3d.ops.available()\n"
        "planes = torch.ones(1, 3, 4, 8, 8); points = torch.zeros(1, 5, 3)\n"
        "print(tuple(h3d.planes.sample_planes(planes, points, axes='xyz', box_warp=1.0).shape))\n"
        "try: h3d.ops.use_native('native')\n"
        "except h3d.Head3DError as error: print('refused')\n"
        "print(h3d.doctor.check_extension())\n"
    )
    done = python("-c", code, HEAD3D_DISABLE_NATIVE="1")
    assert done.stderr == ""
    shape, refused, line = done.stdout.splitlines()
    assert refused == "refused"
    assert shape.startswith("(1, ")
    assert line.startswith("[--] extension:")


def test_without_torch_the_report_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(doctor, "check_opengl", lambda: doctor.Finding(True, "OpenGL", "not tried here"))
    assert doctor.run(doctor.DoctorArgs()) == 1
    lines = capsys.readouterr().out.splitlines()
    assert all(LINE.fullmatch(line) for line in lines), lines
    assert [line[:4] for line in lines[:3]] == ["[ok]", "[--]", "[--]"]
    assert lines[1].startswith("[--] torch: cannot be looked at")
