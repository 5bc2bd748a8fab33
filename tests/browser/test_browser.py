"""Notebooks as a reader meets them: JupyterLab in a real browser, a slider under the mouse, a figure that is turned.

    make test EXTRAS=browser PYTEST_ARGS="-m browser"

Screenshots of every step are kept in out/browser/. A widget is tested by one more entry in `VIEWERS`: the picture shown
must equal what the pure function behind it makes of the sliders' values.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lab
import numpy as np
import pytest
from PIL import Image

from head3d_core import dataset, files, plots, plots_data, widgets

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def stored_views() -> widgets.Draw:
    """What notebook 04 turns: the first head of the sample set."""
    folder = files.DATA / "samples" / "heads"
    pictures, cameras = dataset.load_arrays(folder)
    who = dataset.load_identities(folder)
    return plots_data.nearest_view(pictures[who == who[0]], cameras[who == who[0]])


@dataclass(frozen=True)
class Viewer:
    """An `orbit_viewer` in a notebook."""

    notebook: str
    cell: str
    """Words of the cell that shows it."""
    draw: Callable[[], widgets.Draw]
    """Makes the pure function behind it."""
    size: int = 256


VIEWERS = (
    Viewer("01_cameras_and_rays.ipynb", "orbit_viewer(plots.axes_view)", lambda: plots.axes_view),
    Viewer("04_faces_and_heads.ipynb", "orbit_viewer(turn", stored_views),
)


@pytest.fixture(scope="module")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, str, Path]]:
    """(page, address, folder): one server and one browser for all tests."""
    folder = tmp_path_factory.mktemp("lab")
    with lab.server(folder) as address, lab.browser() as page:
        yield page, address, folder


@pytest.fixture(scope="module")
def opened(jupyter: tuple[Any, str, Path]) -> Callable[[str], lab.Notebook]:
    """Opens and runs a notebook; the one that is open already is used again."""
    current: list[lab.Notebook] = []

    def open_notebook(name: str) -> lab.Notebook:
        if not current or current[0].name != name:
            current[:] = [lab.Notebook(*jupyter, name)]
            current[0].run_all()
            current[0].screenshot("run")
        return current[0]

    return open_notebook


def test_a_plotly_figure_is_drawn_and_turned(opened: Callable[[str], lab.Notebook]) -> None:
    notebook = opened("01_cameras_and_rays.ipynb")
    page, plot = notebook.page, notebook.output_of("show_plotly").locator(".js-plotly-plot").first
    plot.wait_for(timeout=30_000)
    plot.scroll_into_view_if_needed()
    scene = "plot => { const e = plot._fullLayout.scene._scene.getCamera().eye; return [e.x, e.y, e.z]; }"
    canvas = plot.locator(".gl-container canvas").first
    canvas.wait_for(timeout=30_000)

    def picture() -> np.ndarray:
        return np.array(Image.open(io.BytesIO(plot.screenshot())).convert("RGB")).astype(int)

    def coloured() -> bool:
        spread = np.ptp(picture(), axis=-1)
        return bool((spread > 60).sum() > 300)  # lines in the palette's colours on white

    lab.until(coloured, 30, "the figure is drawn")
    eye, before = plot.evaluate(scene), picture()
    notebook.screenshot("plotly")
    box = canvas.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 160, y + 40, steps=12)
    page.mouse.up()
    lab.until(lambda: math.dist(plot.evaluate(scene), eye) > 0.2, 20, "the camera of the figure moved")
    lab.until(
        lambda: (np.abs(picture() - before).max(-1) > 30).mean() > 0.005, 20, "the figure looks different"
    )
    assert coloured()
    notebook.screenshot("plotly_turned")


@pytest.mark.parametrize("viewer", VIEWERS, ids=lambda v: v.notebook[:2])
def test_the_picture_follows_the_sliders(opened: Callable[[str], lab.Notebook], viewer: Viewer) -> None:
    notebook = opened(viewer.notebook)
    area = notebook.output_of(viewer.cell)
    yaw, pitch, image = lab.slider(area, "yaw"), lab.slider(area, "pitch"), area.locator("img").first
    draw = viewer.draw()

    def expected() -> np.ndarray:
        angles = [math.radians(lab.value(one)) for one in (yaw, pitch)]
        png = widgets.to_png(draw(*angles), viewer.size)
        return np.array(Image.open(io.BytesIO(png)).convert("RGB"))

    def shows_the_state() -> bool:
        shown = lab.drawn(image)
        return shown is not None and np.array_equal(shown, expected())

    lab.until(shows_the_state, 20, "the first picture")
    first = expected()
    lab.drag(notebook.page, yaw, 0.75)
    lab.drag(notebook.page, pitch, 0.7)
    assert 60 < lab.value(yaw) < 120, "the mouse did not take the yaw slider along"
    assert lab.value(pitch) > 5
    lab.until(shows_the_state, 20, f"the picture at yaw {lab.value(yaw)}")
    notebook.screenshot("dragged")
    assert not np.array_equal(expected(), first), "both states look the same: this tests nothing"

    before = lab.value(yaw)
    lab.press(notebook.page, yaw, "ArrowLeft", 3)
    assert lab.value(yaw) == before - 15
    lab.until(shows_the_state, 20, "the picture after the arrow keys")
