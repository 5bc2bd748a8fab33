"""The plane-swap lab's own page code in a real browser: mouse and keyboard in, the pure function's picture out.

The widget's front end is loaded into an empty page whose "kernel" is the widget object in this process, so neither
JupyterLab nor trained weights are needed. Every picture shown is compared with `swap_lab.show` for the same state.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lab
import numpy as np
import pytest
import torch
from test_plane_swap import visible

from head3d_core.course import swap_lab, widgets
from head3d_core.course.swap_lab import LabState
from head3d_core.metrics.identity_encoder import Encoder, IdentityNet

pytestmark = pytest.mark.browser

PAGE = """<body><div id="lab"></div><script type="module">
const listeners = {}, data = DATA;
const model = {
  get: (name) => data[name],
  set: (name, value) => { data[name] = value; },
  save_changes: async () => {
    const answer = JSON.parse(await window.kernel(JSON.stringify(data.wanted)));
    for (const name of ["shown", "portraits"]) {
      data[name] = answer[name];
      (listeners[`change:${name}`] ?? []).forEach((listener) => listener());
    }
  },
  on: (name, listener) => { (listeners[name] ??= []).push(listener); },
  off: () => {},
};
const module = await import(URL.createObjectURL(new Blob([CODE], { type: "text/javascript" })));
module.default.render({ model, el: document.getElementById("lab") });
window.ready = true;
</script></body>"""


class Opened:
    """The widget in a page."""

    def __init__(self, page: Any) -> None:
        torch.manual_seed(1)
        self.generators = {"face": visible(0), "head": visible(5)}
        self.encoder = Encoder(IdentityNet().eval().requires_grad_(False), "untrained").eval()
        self.viewer = swap_lab.swap_viewer(self.generators, self.encoder)
        self.page, self.asked = page, 0
        code = Path(swap_lab.__file__).with_name("swap_lab.js").read_text(encoding="utf8")
        data = {
            name: getattr(self.viewer, name) for name in ("options", "state", "wanted", "shown", "portraits")
        }
        page.expose_function("kernel", self.answer)
        page.set_content(PAGE.replace("DATA", json.dumps(data)).replace("CODE", json.dumps(code)))
        page.wait_for_function("window.ready")

    def answer(self, wanted: str) -> str:
        self.asked += 1
        self.viewer.wanted = json.loads(wanted)
        return json.dumps({"shown": self.viewer.shown, "portraits": self.viewer.portraits})

    def control(self, key: str) -> Any:
        return self.page.locator(f"[data-key={key}]")

    def words(self) -> str:
        return str(self.page.locator(".swap-lab").inner_text())

    @property
    def picture(self) -> Any:
        return self.page.locator("img.turn")

    def expected(self, state: LabState) -> str:
        pair = swap_lab.couple(self.generators, state, self.encoder)
        png = widgets.to_png(swap_lab.show(pair, state).picture)
        return f"data:image/png;base64,{base64.b64encode(png).decode()}"

    def shows(self, state: LabState) -> None:
        """Fails unless the finished picture of `state` is on the screen soon."""
        want = self.expected(state)
        lab.until(lambda: self.settled() and self.picture.get_attribute("src") == want, 20, f"{state}")

    def settled(self) -> bool:
        self.page.wait_for_timeout(50)
        return bool(self.picture.get_attribute("data-finished") == "true")


@pytest.fixture(scope="module")
def opened() -> Iterator[Opened]:
    with lab.browser() as page:
        yield Opened(page)


def test_planes_change_with_the_keyboard(opened: Opened) -> None:
    opened.shows(LabState())
    slider = opened.control("share_xy")
    slider.focus()
    opened.page.keyboard.press("End")
    opened.shows(LabState(shares=(1.0, 0.0, 0.0)))
    for _ in range(4):
        opened.page.keyboard.press("ArrowLeft")
    opened.shows(LabState(shares=(0.8, 0.0, 0.0)))
    assert "80 % B" in opened.words()


def test_the_picture_is_turned_by_dragging_it(opened: Opened) -> None:
    before = opened.asked
    box = opened.picture.bounding_box()
    opened.page.mouse.move(box["x"] + 100, box["y"] + 100)
    opened.page.mouse.down()
    opened.page.mouse.move(box["x"] + 160, box["y"] + 120, steps=12)
    lab.until(lambda: opened.asked > before + 1, 10, "previews while dragging")
    opened.page.mouse.up()
    turned = LabState(shares=(0.8, 0.0, 0.0), yaw=-30, pitch=10)
    opened.shows(turned)
    likeness = swap_lab.show(swap_lab.couple(opened.generators, turned, opened.encoder), turned).similarity
    assert likeness is not None
    words = opened.words()
    assert all(f"{cosine:.2f}" in words for cosine in likeness), words
    opened.picture.focus()
    opened.page.keyboard.press("ArrowRight")
    opened.page.keyboard.press("ArrowDown")
    opened.shows(LabState(shares=(0.8, 0.0, 0.0), yaw=-25, pitch=5))
    folder = lab.SCREENSHOTS
    folder.mkdir(parents=True, exist_ok=True)
    opened.page.screenshot(path=folder / "06_swap_widget.png")


def test_seeds_and_generators(opened: Opened) -> None:
    opened.control("seed_b").fill("7")
    opened.page.keyboard.press("Tab")
    opened.control("generator_b").select_option("head")
    opened.shows(LabState("face", 0, "head", 7, (0.8, 0.0, 0.0), -25, 5))
    assert "yaw -25°" in opened.picture.get_attribute("alt")
    assert np.asarray(lab.drawn(opened.page.locator("img.heat"))).std() > 1


def test_heads_and_scale_stand_beside_the_mixture(opened: Opened) -> None:
    state = LabState("face", 0, "head", 7, (0.8, 0.0, 0.0), -25, 5)
    opened.shows(state)
    pair = swap_lab.couple(opened.generators, state, opened.encoder)
    for key, portrait in zip("ab", swap_lab.portraits(pair, state), strict=True):
        assert np.array_equal(np.asarray(lab.drawn(opened.page.locator(f".end.{key} img"))), portrait)
    said = [f.inner_text() for f in opened.page.locator(".end figcaption").all()]
    assert said == ["face, seed 0", "head, seed 7"]
    colours = np.asarray(lab.drawn(opened.page.locator(".legend img")))
    assert np.array_equal(colours, swap_lab.legend_picture())
    words = opened.words()
    assert "dark: 0 %" in words
    assert f"yellow: {swap_lab.HEAT_LIMIT:.0%} and more".replace("%", " %") in words
    assert swap_lab.heat_words(swap_lab.show(pair, state).heat) in words


def test_one_button_gives_a_plane_or_all_of_them(opened: Opened) -> None:
    opened.control("all_b").click()
    opened.shows(LabState("face", 0, "head", 7, (1.0, 1.0, 1.0), -25, 5))
    opened.control("share_yz_a").focus()
    opened.page.keyboard.press("Enter")
    opened.shows(LabState("face", 0, "head", 7, (1.0, 1.0, 0.0), -25, 5))
    assert opened.control("share_yz_a").get_attribute("aria-pressed") == "true"
    assert opened.control("all_b").get_attribute("aria-pressed") == "false"


def test_every_control_has_a_name(opened: Opened) -> None:
    nameless = opened.page.evaluate(
        """() => [...document.querySelectorAll("input, select, button")]
            .filter((e) => !e.labels?.length && !e.getAttribute("aria-label")).length"""
    )
    assert nameless == 0
