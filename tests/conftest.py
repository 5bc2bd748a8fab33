"""Markers that need something of the machine, and a repeatable random state for every test."""

from __future__ import annotations

import os

# Before torch is imported: notebooks under test start kernels of their own, which inherit this. Of several processes
# that test side by side each takes one core.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("HEAD3D_PREDICTIONS", "")  # and show nobody's guesses

import functools
import random

import hypothesis
import numpy as np
import pytest
import torch

# The same examples in every run, and no deadline: a busy machine is not a failing test.
hypothesis.settings.register_profile("head3d", deadline=None, derandomize=True)
hypothesis.settings.load_profile("head3d")


@functools.cache
def _why_no_native() -> str | None:
    from head3d_core import ops

    return None if ops.available() else "the compiled extension is not built or is switched off"


@functools.cache
def _why_no_gpu() -> str | None:
    return None if torch.cuda.is_available() else "no CUDA GPU"


@functools.cache
def _why_no_opengl() -> str | None:
    from head3d_core import doctor

    finding = doctor.check_opengl()
    return None if finding.ok else finding.text


@functools.cache
def _why_no_browser() -> str | None:
    import shutil
    import subprocess

    try:
        import playwright  # noqa: F401
    except ImportError:
        return "playwright is not installed (make test EXTRAS=browser)"
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        return f"no browser found ({', '.join(names)})"
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=False)
    return f"{found} does not start: {version.stderr.strip()[-200:]}" if version.returncode else None


NEEDS = {"native": _why_no_native, "gpu": _why_no_gpu, "opengl": _why_no_opengl, "browser": _why_no_browser}
"""Marker -> why a test that carries it cannot run here, or None."""


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a marked test where the machine lacks what it needs; unmarked tests run everywhere."""
    for name, why_not in NEEDS.items():
        if item.get_closest_marker(name) and (reason := why_not()):
            pytest.skip(f"{name}: {reason}")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test starts from the same random state, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  (libraries under test may use it)
    torch.manual_seed(0)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--alone", action="store_true", help="only the tests that need the machine for themselves"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that click or measure time run with nothing beside them: by `--alone`, or where there is one process.

    And nbval compares what is printed below a Plotly figure, not its numbers: surfaces differ in their last digits
    between machines, and decimation makes other triangles of that.
    """
    for notebook in {id(i.parent): i.parent for i in items if hasattr(i.parent, "skip_compare")}.values():
        notebook.skip_compare = (*notebook.skip_compare, "application/vnd.plotly.v1+json")  # type: ignore[union-attr]
    if config.getoption("alone") or "PYTEST_XDIST_WORKER" in os.environ:
        wanted = config.getoption("alone")
        left_out = [item for item in items if _alone(item) != wanted]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if _alone(item) == wanted]


def _alone(item: pytest.Item) -> bool:
    return any(item.get_closest_marker(name) for name in ("alone", "browser"))
