"""JupyterLab in a headless Chromium: what the tests of this folder do to a notebook, as a reader would do it.

A notebook is copied to a temporary folder without its stored outputs, so that whatever is seen was made by this run.
Nothing is downloaded: playwright drives the Chromium that the system has.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
from helpers import ROOT
from PIL import Image

from head3d_course.swap_lab import LabState

SCREENSHOTS = ROOT / "out" / "browser"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--no-sandbox",  # Chromium refuses to run as root with it, as in a container
    *("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),  # WebGL without a GPU
    *("--ignore-gpu-blocklist", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
SETTINGS = {
    # All cells stay in the page, and nobody asks about news.
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
}
TOKEN = "browser-test"
START_SECONDS = 180.0
RUN_SECONDS = 240.0
FIRST_IMPORTS = (
    "import ipykernel.debugger, ipykernel.kernelapp, ipywidgets, jupyterlab.labapp, matplotlib.pyplot, "
    "matplotlib_inline.backend_inline, plotly.figure_factory, head3d_course.exercises, head3d_course.figures"
)
"""What the server, a kernel and the first notebook import."""

DRAWN_PIXELS = """image => {
    const canvas = document.createElement('canvas');
    canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
    canvas.getContext('2d').drawImage(image, 0, 0);
    return image.complete && image.naturalWidth ? canvas.toDataURL('image/png') : null;
}"""


def until(ready: Callable[[], Any], seconds: float, what: str) -> Any:
    """The first true value of `ready()`; fails by name after `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := ready():
            return value
        time.sleep(0.1)
    raise AssertionError(f"{what}: not within {seconds:.0f} s")


def without_outputs(source: Path, target: Path) -> None:
    """A copy of a notebook as if it had never been run."""
    notebook = nbformat.read(source, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, target)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """A JupyterLab server of this Python on `folder`; yields its address. Its settings are its own, not the user's."""
    # From a cold disk, as after an installation, these imports take minutes. They are done once before any clock runs:
    # the clocks of the tests are for the browser, not for the disk. Before the port is chosen, so that it stays free.
    subprocess.run([sys.executable, "-c", FIRST_IMPORTS], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    private = folder / ".jupyter-test"
    settings = private / "settings"
    for plugin, values in SETTINGS.items():
        package, name = plugin.split(":")
        place = settings / package / f"{name}.jupyterlab-settings"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(values))
    environment = {
        **os.environ,
        "JUPYTERLAB_SETTINGS_DIR": str(settings),
        "JUPYTERLAB_WORKSPACES_DIR": str(private / "workspaces"),
        "JUPYTER_CONFIG_DIR": str(private / "config"),
        "JUPYTER_DATA_DIR": str(private / "data"),
        "JUPYTER_RUNTIME_DIR": str(private / "runtime"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}", "--port-retries=0"),
        *(f"--IdentityProvider.token={TOKEN}", "--ServerApp.ip=127.0.0.1", f"--ServerApp.root_dir={folder}"),
    ]  # fmt: skip
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            address = f"http://127.0.0.1:{port}"

            def ready() -> bool:
                assert process.poll() is None, (folder / "server.log").read_text()[-2000:]
                return _answers(f"{address}/api/status?token={TOKEN}")

            until(ready, START_SECONDS, "JupyterLab answers")
            yield address
        finally:
            process.send_signal(signal.SIGTERM)  # it stops its kernels, then itself
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@contextmanager
def browser() -> Iterator[Any]:
    """A playwright page of 1400 x 1000 pixels in the system's Chromium."""
    from playwright.sync_api import sync_playwright

    found = next(filter(None, map(shutil.which, BROWSERS)))
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=FLAGS, timeout=START_SECONDS * 1000)
        page = chromium.new_page(viewport={"width": 1400, "height": 1000})
        yield page
        chromium.close()


class Notebook:
    """One notebook, open in JupyterLab: a copy of notebooks/NAME, or one that lies in the server's folder already."""

    def __init__(self, page: Any, address: str, folder: Path, name: str) -> None:
        self.page, self.name = page, name
        source, copy = ROOT / "notebooks" / name, folder / name
        while source.is_file() and copy.exists():  # the session of an earlier copy still knows what was in it
            copy = copy.with_stem(f"{copy.stem}_again")
        without_outputs(source if source.is_file() else copy, copy)
        page.goto(f"{address}/lab/tree/{copy.name}?token={TOKEN}&reset", timeout=START_SECONDS * 1000)
        page.wait_for_selector(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Cell", timeout=START_SECONDS * 1000)
        page.wait_for_selector(
            ".jp-Notebook-ExecutionIndicator[data-status=idle]", timeout=START_SECONDS * 1000
        )

    @property
    def panel(self) -> Any:
        return self.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")

    def run_all(self) -> None:
        """Run > Run All Cells, from the menu; returns when every code cell carries its number.

        After a slow start JupyterLab asks for the kernel, over the menu and also after the first cell has begun; the
        cells behind that one are then forgotten. So questions are answered and the notebook is run until it has run.
        """
        prompts = self.panel.locator(".jp-CodeCell .jp-InputPrompt")
        errors = self.panel.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.error']")

        def numbers() -> list[str]:
            return [text.strip("[]: \n") for text in prompts.all_inner_texts()]

        def done() -> bool:
            before = numbers()
            if before and all(number.isdigit() for number in before):
                assert errors.count() == 0, errors.first.inner_text()
                return True
            if not self._asked() and "*" not in before:
                self._choose("Run", "Run All Cells")
                for _ in range(20):  # a busy machine shows what it was told some seconds later
                    self.page.wait_for_timeout(500)
                    if numbers() != before:
                        break
            return False

        until(done, START_SECONDS + RUN_SECONDS, f"{self.name} has run")

    def _asked(self) -> bool:
        """Whether JupyterLab asked something, over the menu; it was told yes."""
        dialogs = self.page.locator("dialog.jp-Dialog").all()
        for dialog in dialogs:
            print("JupyterLab asks:", dialog.inner_text())
            dialog.locator("button.jp-mod-accept").click()
        return bool(dialogs)

    def _choose(self, *labels: str) -> None:
        """Clicks through a menu of the menu bar."""
        from playwright.sync_api import Error as PlaywrightError

        for words, kind in zip(labels, ("MenuBar", "Menu"), strict=True):
            try:
                self.page.locator(f".lm-{kind}-itemLabel", has_text=words).first.click(timeout=5000)
            except PlaywrightError as error:  # a question came up just now and lies over the menu
                print("not clicked:", words, str(error)[:200])

    def output_of(self, words: str) -> Any:
        """The output area of the code cell whose source contains `words`."""
        cell = self.panel.locator(".jp-CodeCell", has=self.page.locator(".jp-InputArea", has_text=words)).last
        cell.scroll_into_view_if_needed()
        return cell.locator(".jp-OutputArea")

    def screenshot(self, name: str) -> Path:
        """Keep what is in the window now as an artefact, under the notebook's number."""
        return keep(self.page, f"{Path(self.name).stem[:2]}_{name}")


def keep(page: Any, name: str) -> Path:
    """A screenshot in out/browser/."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    path = SCREENSHOTS / f"{re.sub(r'[^-.0-9A-Za-z]+', '_', name)}.png"
    page.screenshot(path=path)
    return path


def drawn(image: Any) -> np.ndarray | None:
    """The pixels [H, W, 3] uint8 that the browser decoded for an <img>, or None while it is loading."""
    address = image.evaluate(DRAWN_PIXELS)
    if address is None:
        return None
    return np.array(Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))).convert("RGB"))


def slider(area: Any, label: str) -> Any:
    """The ipywidgets slider with this label."""
    return area.locator(".widget-slider", has=area.page.locator(".widget-label", has_text=label)).first


def value(one: Any) -> float:
    """What a slider's read-out shows."""
    return float(one.locator(".widget-readout").inner_text().replace("−", "-"))


def pull(page: Any, x: float, y: float, right: float, down: float) -> None:
    """Press the mouse at a point of the window and move it by so many pixels, in steps as a hand does."""
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + right, y + down, steps=12)
    page.mouse.up()


def drag(page: Any, one: Any, share: float) -> None:
    """Take a slider's handle with the mouse and pull it to `share` of the track."""
    handle = one.locator(".noUi-handle")
    handle.scroll_into_view_if_needed()
    box, track = handle.bounding_box(), one.locator(".noUi-target").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    pull(page, x, y, track["x"] + share * track["width"] - x, 0)


def drag_by(page: Any, thing: Any, right: int, down: int) -> None:
    """Take something in its middle and pull it by so many pixels."""
    thing.scroll_into_view_if_needed()
    box = thing.bounding_box()
    pull(page, box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, right, down)


def press(page: Any, one: Any, key: str, times: int = 1) -> None:
    """Move a slider by keyboard."""
    one.locator(".noUi-handle").focus()
    for _ in range(times):
        page.keyboard.press(key)


class SwapControls:
    """The plane-swap lab's controls below `root`, a locator, and the state that they show."""

    def __init__(self, root: Any) -> None:
        self.root = root

    def control(self, key: str) -> Any:
        return self.root.locator(f"[data-key={key}]")

    def state(self) -> LabState:
        """What the controls say."""
        names = ("generator_a", "seed_a", "generator_b", "seed_b", "yaw", "pitch")
        found = {name: self.control(name).input_value() for name in names}
        shares = [self.control(f"share_{name}").input_value() for name in ("xy", "xz", "yz")]
        return LabState.from_dict({**found, "shares": shares})
