"""Hosted notebooks: what is installed against the host's torch, and the buttons of the published site."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import build_site
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def hosted(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "notebooks"))
    import hosted

    return hosted


def test_a_host_keeps_its_torch(hosted: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(subprocess, "run", lambda command, **_: calls.append(command))
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    places = [str(ROOT), str(ROOT / "notebooks")]
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in places])
    hosted.prepare()
    (needs,) = calls
    names = [need.split(">")[0].split("=")[0] for need in needs]
    assert {"torchmetrics", "anywidget", "imageio"} <= set(names)
    assert not {"torch", "torchvision", "imageio-ffmpeg"} & set(names)
    assert set(places) <= set(sys.path), "both packages come from the clone"
    kept = (tmp_path / "head3d_core.pth").read_text().splitlines()
    assert kept == places, "for later processes as well"


def test_nothing_is_installed_where_the_package_is(hosted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("installed something"))
    hosted.prepare()


def test_the_first_notebook_begins_with_it() -> None:
    cells = json.loads((ROOT / "notebooks" / "00_start_here.ipynb").read_text(encoding="utf8"))["cells"]
    first = next("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    assert "hosted.prepare()" in first


def test_a_published_site_has_buttons_and_a_private_one_none(monkeypatch: pytest.MonkeyPatch) -> None:
    path = build_site.notebooks()[0]
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    assert build_site.launch(path) == ""
    monkeypatch.setenv("GITHUB_REPOSITORY", "someone/heads")
    text = build_site.launch(path)
    assert text.count('class="launch"') == 3
    assert f"someone/heads/HEAD?labpath=notebooks/{path.name}" in text
    assert f"someone/heads/blob/main/notebooks/{path.name}" in text
    assert "%cd heads/notebooks" in text


def test_development_containers_use_the_cpu_build() -> None:
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf8"))
    assert container["postCreateCommand"] == "make venv CPU=1"
    target = subprocess.run(
        ["make", "-n", "venv", "CPU=1"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "Making .venv" in target.stdout or (ROOT / ".venv").exists()


def test_every_page_for_readers_is_on_the_site() -> None:
    written = [
        *(ROOT / "notebooks").glob("*.md"),
        *ROOT.glob("data/results/*.md"),
        *ROOT.glob("data/weights/*/README.md"),
    ]
    assert {path.relative_to(ROOT).as_posix() for path in written} <= set(build_site.PAGES)
