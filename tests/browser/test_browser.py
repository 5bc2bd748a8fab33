"""Notebooks as a reader meets them: JupyterLab in a real browser, sliders under the mouse, figures that are turned.

    make test EXTRAS=browser PYTEST_ARGS="-m browser"

Screenshots of every step are kept in out/browser/. What is shown must equal what the pure function behind it makes of
the state that the browser shows. A new widget or figure is one more entry in `FIGURES`, `VIEWERS` or `LABS`; a notebook
that is not written yet is skipped by name.
"""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lab
import nbformat
import numpy as np
import pytest
from helpers import untrained_encoder, visible
from PIL import Image

from head3d_core.checkpoints import weights
from head3d_core.datasets import format
from head3d_core.metrics.identity_encoder import Encoder, load_encoder
from head3d_core.model.generator import Generator
from head3d_core.utils import files
from head3d_course import nb01, nb04, swap_lab, swap_widget, widgets

pytestmark = [pytest.mark.browser, pytest.mark.slow]

Jupyter = tuple[Any, str, Path]
Open = Callable[[str], lab.Notebook]


@pytest.fixture(scope="module")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jupyter]:
    """(page, address, folder): one server and one browser for all tests."""
    folder = tmp_path_factory.mktemp("lab")
    with lab.server(folder) as address, lab.browser() as page:
        yield page, address, folder


@pytest.fixture(autouse=True)
def _picture_of_a_failure(request: pytest.FixtureRequest, jupyter: Jupyter) -> Iterator[None]:
    """Whatever was in the window when a test failed is kept as well."""
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed > failed:
        lab.keep(jupyter[0], f"failed_{request.node.name}")


@pytest.fixture(scope="module")
def opened(jupyter: Jupyter) -> Open:
    """Opens and runs a notebook; the one that is open already is used again."""
    current: list[lab.Notebook] = []

    def open_notebook(name: str) -> lab.Notebook:
        if not (lab.ROOT / "notebooks" / name).is_file() and not (jupyter[2] / name).is_file():
            pytest.skip(f"{name} is not written yet")
        if not current or current[0].name != name:
            current.clear()  # one that fails to run is not there for the next test
            notebook = lab.Notebook(*jupyter, name)
            notebook.run_all()
            notebook.screenshot("run")
            current.append(notebook)
        return current[0]

    return open_notebook


# -- Plotly --------------------------------------------------------------------------------------------------------

FIGURES = (
    ("01_cameras_and_rays.ipynb", "nb01.frustums"),
    ("04_faces_and_heads.ipynb", "camera_sphere"),
    ("06_plane_swap_lab.ipynb", "head_in_space"),
    ("12_geometry_you_can_hold.ipynb", "head_in_space"),
)
"""(notebook, words of the cell that shows it)"""

EYE = "plot => { const e = plot._fullLayout.scene._scene.getCamera().eye; return [e.x, e.y, e.z]; }"


@pytest.mark.parametrize(("name", "words"), FIGURES, ids=lambda v: v[:2] if v[:2].isdigit() else v)
def test_a_plotly_figure_is_drawn_and_turned(opened: Open, name: str, words: str) -> None:
    notebook = opened(name)
    plot = notebook.output_of(words).locator(".js-plotly-plot").first
    plot.wait_for(timeout=30_000)
    plot.scroll_into_view_if_needed()
    canvas = plot.locator(".gl-container canvas").first
    canvas.wait_for(timeout=30_000)

    def picture() -> np.ndarray:
        return np.array(Image.open(io.BytesIO(plot.screenshot())).convert("RGB")).astype(int)

    def coloured() -> bool:
        spread = np.ptp(picture(), axis=-1)
        return bool((spread > 60).sum() > 300)  # lines, points or surfaces in colour on white

    lab.until(coloured, 30, "the figure is drawn")
    eye, before = plot.evaluate(EYE), picture()
    notebook.screenshot(f"{words.split('.')[-1]}")
    lab.drag_by(notebook.page, canvas, 160, 40)
    lab.until(lambda: math.dist(plot.evaluate(EYE), eye) > 0.2, 20, "the camera of the figure moved")
    lab.until(
        lambda: (np.abs(picture() - before).max(-1) > 30).mean() > 0.005, 20, "the figure looks different"
    )
    assert coloured()
    notebook.screenshot(f"{words.split('.')[-1]}_turned")


SCRATCH = "stills.ipynb"
SCRATCH_CELL = """
import numpy as np
import torch
from head3d_course import figures, nb01, widgets
from head3d_core.model import cameras

figures.show_plotly(nb01.frustums(cameras.orbit(torch.tensor([0.0, 1.0])), ["a", "b"]), "two cameras around a cube")
figure, axis = figures.panels(4, 2)
axis.plot([0, 1])
figures.show(figure, "a rising line")
widgets.scrubber(lambda t: np.full((64, 64, 3), round(255 * t), np.uint8), alt="a grey square")
"""
NO_WEBGL = """const get = HTMLCanvasElement.prototype.getContext;
HTMLCanvasElement.prototype.getContext = function (kind, ...more) {
  return /webgl/.test(kind) ? null : get.call(this, kind, ...more);
};"""


@pytest.mark.parametrize("webgl", [True, False], ids=["webgl", "no webgl"])
def test_every_picture_in_jupyterlab_has_its_text(jupyter: Jupyter, webgl: bool) -> None:
    first, address, folder = jupyter
    cells = [nbformat.v4.new_code_cell(SCRATCH_CELL.strip())]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata.kernelspec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    nbformat.write(notebook, folder / SCRATCH)
    page = first.context.browser.new_page(viewport={"width": 1400, "height": 1000})
    if not webgl:
        page.add_init_script(NO_WEBGL)
    run = lab.Notebook(page, address, folder, SCRATCH)
    run.run_all()
    page.locator(".gl-container > *").first.wait_for(timeout=30_000)
    page.locator("img.widget-image").nth(2).wait_for(timeout=30_000)
    run.screenshot("webgl" if webgl else "no_webgl")
    images = page.locator(".jp-RenderedHTML img").all()
    assert [image.get_attribute("alt") for image in images] == ["two cameras around a cube", "a rising line"]
    still = page.locator(".plotly-still").bounding_box()
    assert (still["width"] < 2) == webgl, "seen by screen readers alone where the figure itself is drawn"
    assert all(lab.drawn(image) is not None for image in page.locator("img.widget-image").all())
    assert page.locator(".noUi-target").bounding_box()["width"] >= 400
    page.close()


# -- a picture with two sliders ------------------------------------------------------------------------------------


def stored_views() -> widgets.Draw:
    """What notebook 04 turns: the first head of the sample set."""
    folder = files.DATA / "samples" / "heads"
    pictures, cameras = format.load_arrays(folder)
    who = format.load_identities(folder)
    return nb04.nearest_view(pictures[who == who[0]], cameras[who == who[0]])


@dataclass(frozen=True)
class Viewer:
    """An `orbit_viewer` in a notebook."""

    notebook: str
    words: str
    """Of the cell that shows it."""
    draw: Callable[[], widgets.Draw]
    """Makes the pure function behind it."""
    size: int = 256


VIEWERS = (
    Viewer("04_faces_and_heads.ipynb", "orbit_viewer(turn", stored_views),
    Viewer("01_cameras_and_rays.ipynb", "orbit_viewer(nb01.axes_view", lambda: nb01.axes_view),
)


@pytest.mark.parametrize("viewer", VIEWERS, ids=lambda v: v.notebook[:2])
def test_the_picture_follows_the_sliders(opened: Open, viewer: Viewer) -> None:
    notebook = opened(viewer.notebook)
    area = notebook.output_of(viewer.words)
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


# -- the plane-swap lab --------------------------------------------------------------------------------------------

STAND_IN = "swap_lab_of_untrained_heads.ipynb"
STAND_IN_CELL = """
import torch
import head3d_core as h3d
from head3d_course import swap_widget
from head3d_core.metrics.identity_encoder import Encoder, IdentityNet

generators = {name: h3d.load_generator(name + "_weights") for name in ("face", "head")}
torch.manual_seed(1)
encoder = Encoder(IdentityNet().eval().requires_grad_(False), "untrained").eval()
swap_widget.swap_viewer(generators, encoder)
"""

SLEEPY_CELL = """
import time

seconds = globals().get("seconds", -12) + 12  # 0 when all cells run, 12 when this one runs again
time.sleep(seconds)
"""

Heads = tuple[dict[str, Generator], Encoder]


def stand_in(folder: Path) -> Heads:
    """Two tiny untrained generators whose heads differ, and a notebook with the lab on them."""
    generators = {}
    for name, seed in (("face", 0), ("head", 5)):
        weights.save_generator(visible(seed), folder / f"{name}_weights", half=False)
        generators[name] = weights.load_generator(folder / f"{name}_weights")
    notebook = nbformat.v4.new_notebook(
        cells=list(map(nbformat.v4.new_code_cell, (STAND_IN_CELL.strip(), SLEEPY_CELL.strip())))
    )
    notebook.metadata.kernelspec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    if not (folder / STAND_IN).exists():  # one that is open must not change on the disk
        nbformat.write(notebook, folder / STAND_IN)
    return generators, untrained_encoder()


def bundled(folder: Path) -> Heads:
    """What notebook 06 shows."""
    return {name: weights.load_generator(name) for name in ("face", "head")}, load_encoder()


LABS = ((STAND_IN, stand_in), ("06_plane_swap_lab.ipynb", bundled))


class SwapLab(lab.SwapControls):
    """The widget in the page, and what it should show."""

    def __init__(self, notebook: lab.Notebook, heads: Heads) -> None:
        self.page, self.heads = notebook.page, heads
        self.area = notebook.output_of("swap_viewer(").locator(".swap-lab")
        super().__init__(self.area)
        self.area.wait_for(timeout=30_000)
        self.picture = self.area.locator("img.turn")

    def wait(self, what: str) -> np.ndarray:
        """Waits until the finished picture, the heat-map and the bars are those of the state; returns the picture."""
        state = self.state()
        pair = swap_lab.couple(self.heads[0], state, self.heads[1])
        wanted = swap_lab.show(pair, state)
        heat = swap_widget.heat_picture(wanted.heat)
        bars = self.area.locator(".bar + span")

        def equal() -> bool:
            if self.picture.get_attribute("data-finished") != "true":
                return False
            found = [lab.drawn(image) for image in (self.picture, self.area.locator("img.heat"))]
            # Two levels: the notebook's process may add up in another order than this one.
            return all(
                image is not None
                and image.shape == want.shape
                and np.abs(image.astype(int) - want).max() <= 2
                for image, want in zip(found, (wanted.picture, heat), strict=True)
            )

        lab.until(equal, 60, what)
        assert wanted.similarity is not None
        for text, cosine in zip(bars.all_inner_texts(), wanted.similarity, strict=True):
            assert float(text) == pytest.approx(cosine, abs=0.0101), what
        return wanted.picture.astype(int)


@pytest.mark.parametrize(("name", "make"), LABS, ids=["untrained", "06"])
def test_the_swap_lab_shows_what_its_controls_say(
    jupyter: Jupyter, opened: Open, name: str, make: Callable[[Path], Heads]
) -> None:
    if name != STAND_IN and not (lab.ROOT / "notebooks" / name).is_file():
        pytest.skip(f"{name} is not written yet")
    heads = make(jupyter[2])
    notebook = opened(name)
    page, widget = notebook.page, SwapLab(notebook, heads)
    seen = [widget.wait("the first picture")]

    slider = widget.control("share_xy")  # a plane, pulled over to B with the mouse
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    lab.pull(page, box["x"] + 6, box["y"] + box["height"] / 2, box["width"] - 8, 0)
    assert widget.state().shares == (1.0, 0.0, 0.0)
    seen.append(widget.wait("F_xy of B"))
    notebook.screenshot("swapped")

    widget.control("share_yz").focus()  # half of another one, with the keyboard
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    assert widget.state().shares == (1.0, 0.0, 0.5)
    seen.append(widget.wait("half of F_yz by keyboard"))

    lab.drag_by(page, widget.picture, -80, 0)  # the picture itself
    assert widget.state().yaw == 40
    seen.append(widget.wait("dragged to yaw 40°"))
    widget.picture.focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    assert widget.state().pitch == 10
    seen.append(widget.wait("tilted with the arrow keys"))

    widget.control("seed_b").fill("7")
    widget.control("seed_b").press("Enter")
    seen.append(widget.wait("another head B"))
    widget.control("generator_b").select_option("head")
    seen.append(widget.wait("a head of the other generator"))
    notebook.screenshot("turned")
    for before, after in itertools.pairwise(seen):
        assert np.abs(after - before).max() > 8, "two states look the same: this tests nothing"


def _menu(page: Any, *labels: str) -> None:
    """Clicks through a menu of JupyterLab's menu bar."""
    page.locator(".lm-MenuBar-itemLabel", has_text=labels[0]).first.click()
    page.locator(".lm-Menu-itemLabel", has_text=labels[1]).first.click()


@pytest.fixture
def trouble(jupyter: Jupyter, opened: Open) -> tuple[lab.Notebook, SwapLab]:
    """The lab on untrained heads, run and answering, with a mouse away from it."""
    heads = stand_in(jupyter[2])
    notebook = opened(STAND_IN)
    notebook.page.set_viewport_size({"width": 1400, "height": 1000})
    widget = SwapLab(notebook, heads)
    widget.wait("the lab answers")
    return notebook, widget


def test_a_busy_kernel_answers_or_is_reported(trouble: tuple[lab.Notebook, SwapLab]) -> None:
    """Whether a kernel answers widgets beside a running cell depends on its version; silence is never all there is."""
    notebook, widget = trouble
    notebook.panel.locator(".jp-CodeCell", has_text="time.sleep(").last.locator(".cm-content").click()
    notebook.page.keyboard.press("Control+Enter")
    notebook.page.wait_for_timeout(1000)
    before = widget.picture.get_attribute("src")
    widget.control("all_b").click()

    def answered() -> bool:
        return bool(widget.picture.get_attribute("src") != before)

    lab.until(lambda: answered() or widget.area.get_attribute("data-status") == "busy", 3, "computing …")
    lab.until(lambda: answered() or widget.area.get_attribute("data-status") == "silent", 11, "no answer")
    assert answered() or "is a cell running" in widget.area.inner_text()
    notebook.screenshot("busy_kernel")
    widget.control("share_xz_a").click()
    widget.wait("the newest state, once the cell has run")
    assert widget.state().shares == (1.0, 0.0, 1.0)
    assert widget.area.get_attribute("data-status") == ""


def test_two_views_in_jupyterlab_agree(trouble: tuple[lab.Notebook, SwapLab]) -> None:
    notebook, widget = trouble
    page = notebook.page
    widget.area.locator("h4").first.click(button="right")
    page.locator(".lm-Menu-itemLabel", has_text="Create New View for Cell Output").click()
    page.wait_for_function("document.querySelectorAll('.swap-lab').length === 2")
    second = page.locator(".jp-LinkedOutputView .swap-lab")
    second.locator("[data-key=all_a]").click()
    second.locator("[data-key=share_yz_b]").click()
    widget.wait("what the second view asked for")
    assert widget.state().shares == (0.0, 0.0, 1.0)
    assert second.locator("[data-key=share_yz]").input_value() == "1"
    notebook.screenshot("two_views")
    page.locator(".lm-TabBar-tab.lm-mod-current .lm-TabBar-tabCloseIcon").last.click()
    page.wait_for_function("document.querySelectorAll('.swap-lab').length === 1")


def test_at_150_percent_beside_the_file_browser(trouble: tuple[lab.Notebook, SwapLab]) -> None:
    """A zoom of 150 % is a window of two thirds: no control is too small to use, in the light and in the dark."""
    notebook, widget = trouble
    notebook.page.set_viewport_size({"width": 933, "height": 667})
    for theme in ("JupyterLab Light", "JupyterLab Dark"):
        _menu(notebook.page, "Settings", "Theme")
        notebook.page.locator(".lm-Menu-itemLabel", has_text=theme).first.click()
        notebook.page.wait_for_timeout(1500)
        widget.area.scroll_into_view_if_needed()
        for key in ("seed_a", "generator_b", "yaw", "pitch", "share_xy"):
            assert widget.control(key).bounding_box()["width"] >= 60, key
        notebook.screenshot(f"150_percent_{theme.split()[1].lower()}")
        widget.control("pitch").scroll_into_view_if_needed()
        notebook.screenshot(f"150_percent_{theme.split()[1].lower()}_below")
    _menu(notebook.page, "Settings", "Theme")
    notebook.page.locator(".lm-Menu-itemLabel", has_text="JupyterLab Light").first.click()


def test_a_restart_is_reported_and_a_reload_shows_the_last_still(
    trouble: tuple[lab.Notebook, SwapLab],
) -> None:
    notebook, widget = trouble
    page = notebook.page
    widget.control("share_xy_b").click()
    widget.wait("the last state")
    assert page.locator(".jp-RenderedHTML:visible").count() == 0, "the still is hidden while the lab lives"
    _menu(page, "Kernel", "Restart Kernel…")
    page.locator(".jp-Dialog button.jp-mod-accept").click()
    page.wait_for_timeout(4000)
    before = widget.picture.get_attribute("src")
    widget.control("all_a").click()
    lab.until(lambda: widget.area.get_attribute("data-status") == "silent", 11, "no answer after 8 s")
    assert "was the kernel restarted?" in widget.area.inner_text()
    assert widget.picture.get_attribute("src") == before
    notebook.screenshot("after_restart")
    page.keyboard.press("Control+s")
    page.wait_for_timeout(2000)
    page.reload()
    still = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-RenderedHTML img").first
    still.wait_for(timeout=60_000)
    picture = lab.drawn(still)
    assert picture is not None
    assert picture.shape[1] > 600
    assert page.locator(".swap-lab").count() == 0
    notebook.screenshot("after_reload")
