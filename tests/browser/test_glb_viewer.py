"""A GLB of ours in somebody else's viewer: Google's <model-viewer> (three.js) in headless Chromium, WebGL in software.

The viewer comes from the npm registry into a temporary folder; nothing of it is kept. Skipped where that cannot be had.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from helpers import served
from PIL import Image

from head3d_core.experiments import toys
from head3d_core.geometry import colour, mesh
from tests.browser import lab
from tests.toy_generator import toy_generator

VIEWER = "@google/model-viewer@4.1.0"
PAGE = """<!doctype html><meta charset="utf-8"><script type="module" src="viewer.js"></script>
<body style="margin:0"><model-viewer id="it" src="NAME" camera-orbit="0deg 90deg 1.6m" field-of-view="24deg"
 interaction-prompt="none" shadow-intensity="0" tone-mapping="neutral"
 style="width:512px;height:512px;background:white"><div slot="progress-bar"></div></model-viewer>"""
"""The empty slot takes the place of the viewer's progress bar, which would fade out over the head's picture."""


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The viewer's one JavaScript file."""
    folder = tmp_path_factory.mktemp("npm")
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed: the viewer comes from its registry")
    try:
        done = subprocess.run(
            ["npm", "pack", VIEWER, "--silent"], cwd=folder, capture_output=True, text=True, timeout=120, check=False
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        pytest.skip("the npm registry did not answer within two minutes")
    if done.returncode:
        pytest.skip(f"the npm registry has no {VIEWER} for us: {done.stderr.strip()[-200:]}")
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        file = archive.extractfile("package/dist/model-viewer.min.js")
        assert file is not None
        return file.read()


@pytest.fixture(scope="module")
def site(viewer: bytes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder and the address under which it is served."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "viewer.js").write_bytes(viewer)
    with served(folder) as address:
        yield folder, address


def _shown(page: Any, name: str, angle: int) -> np.ndarray:
    """What the viewer draws from `angle` degrees around +y, 0 looking at +z: [512, 512, 3] in [0, 1]."""
    page.evaluate(
        "angle => { const it = document.getElementById('it'); it.cameraOrbit = `${angle}deg 90deg 1.6m`;"
        " it.jumpCameraToGoal(); }",
        angle,
    )
    lab.SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    last = np.zeros(0)

    def settled() -> list[np.ndarray]:
        """The picture once something is drawn and two in a row are alike: a busy machine draws late."""
        nonlocal last
        page.wait_for_timeout(500)
        data = page.locator("#it").screenshot(path=lab.SCREENSHOTS / f"{name}_{angle}.png")
        before, last = last, np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.float64) / 255
        same = before.shape == last.shape and bool((before == last).all())
        return [last] if same and last.min() < 0.7 else []

    picture: np.ndarray = lab.until(settled, 60, f"the viewer draws {name}")[0]
    return picture


@pytest.mark.browser
@pytest.mark.parametrize("kind", ["colours", "texture"])
def test_a_web_viewer_shows_the_head_upright_and_from_the_front(site: tuple[Path, str], kind: str) -> None:
    folder, address = site
    toy = toy_generator()
    ws = toy.codes
    head: trimesh.Trimesh = mesh.extract_mesh(toy, ws, resolution=64, level=0.0)
    if kind == "texture":
        head = colour.bake_texture(toy, ws, mesh.simplify(head, 2000), size=256)
    mesh.save(head, folder / f"{kind}.glb")
    (folder / f"{kind}.html").write_text(PAGE.replace("NAME", f"{kind}.glb"))
    with lab.browser() as page:
        page.goto(f"{address}/{kind}.html")
        page.wait_for_function("() => document.getElementById('it')?.loaded", timeout=120_000)
        size = page.evaluate(
            "() => { const d = document.getElementById('it').getDimensions(); return [d.x, d.y, d.z]; }"
        )
        front, back = _shown(page, f"glb_{kind}", 0), _shown(page, f"glb_{kind}", 180)
    assert size == pytest.approx(list(head.extents), abs=0.02), "world units survive"
    assert front.std() > 0.05, "something is drawn"
    middle = (slice(200, 330), slice(200, 312))
    assert front[middle].mean() > back[middle].mean() + 0.1, "a light face in front, dark hair behind"
    seen = front.min(-1) < 0.95
    rows = np.flatnonzero(seen.any(1))
    top, chin = (front[r : r + 12][seen[r : r + 12]] for r in (rows[0] + 8, rows[-1] - 20))
    assert top.mean() + 0.1 < chin.mean(), "hair above, skin below"
    hair = np.median(back[(slice(120, 200), slice(220, 292))], (0, 1))
    assert hair == pytest.approx(list(toys.TOY_A.hair), abs=0.12), "colours are not washed out"
