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
from helpers import untrained_encoder, visible

from head3d_course import swap_lab, swap_widget, widgets
from head3d_course.swap_lab import LabState

pytestmark = pytest.mark.browser

PAGE = """<body><div id="lab"></div><div id="other"></div><script type="module">
const listeners = {}, data = DATA;
const tell = (name) => (listeners[`change:${name}`] ?? []).forEach((listener) => listener());
window.kernelSleeps = 0; // milliseconds before an answer; Infinity: the kernel is gone
const model = {
  get: (name) => data[name],
  set: (name, value) => { data[name] = value; tell(name); },
  save_changes: async () => {
    if (window.kernelSleeps === Infinity) return;
    const wanted = JSON.stringify(data.wanted);
    if (window.kernelSleeps) await new Promise((done) => setTimeout(done, window.kernelSleeps));
    const answer = JSON.parse(await window.kernel(wanted));
    for (const name of ["shown", "portraits"]) { data[name] = answer[name]; tell(name); }
  },
  on: (name, listener) => { (listeners[name] ??= []).push(listener); },
  off: (name, listener) => { listeners[name] = listeners[name].filter((one) => one !== listener); },
};
const module = await import(URL.createObjectURL(new Blob([CODE], { type: "text/javascript" })));
window.view = (id) => module.default.render({ model, el: document.getElementById(id) });
window.view("lab");
window.ready = true;
</script></body>"""


class Opened:
    """The widget in a page."""

    def __init__(self, page: Any) -> None:
        self.generators = {"face": visible(0), "head": visible(5)}
        self.encoder = untrained_encoder()
        self.page, self.asked = page, 0
        page.expose_function("kernel", self.answer)
        self.load()

    def load(self) -> None:
        """The page anew, with the widget in its first state."""
        self.viewer = swap_widget.swap_viewer(self.generators, self.encoder)
        code = Path(swap_lab.__file__).with_name("swap_lab.js").read_text(encoding="utf8")
        data = {
            name: getattr(self.viewer, name) for name in ("options", "state", "wanted", "shown", "portraits")
        }
        self.page.set_content(PAGE.replace("DATA", json.dumps(data)).replace("CODE", json.dumps(code)))
        self.page.wait_for_function("window.ready")

    def answer(self, wanted: str) -> str:
        self.asked += 1
        self.viewer.wanted = json.loads(wanted)
        return json.dumps({"shown": self.viewer.shown, "portraits": self.viewer.portraits})

    def control(self, key: str, view: str = "lab") -> Any:
        return lab.SwapControls(self.page.locator(f"#{view}")).control(key)

    def state(self, view: str = "lab") -> LabState:
        return lab.SwapControls(self.page.locator(f"#{view}")).state()

    def words(self) -> str:
        return str(self.page.locator("#lab .swap-lab").inner_text())

    def status(self) -> str:
        return str(self.page.locator("#lab .swap-lab").get_attribute("data-status"))

    def kernel_sleeps(self, milliseconds: str) -> None:
        """Before each answer; "Infinity": it never answers, as after a restart."""
        self.page.evaluate(f"window.kernelSleeps = {milliseconds}")

    @property
    def picture(self) -> Any:
        return self.page.locator("#lab img.turn")

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


@pytest.fixture
def fresh(opened: Opened) -> Opened:
    opened.load()
    opened.page.evaluate("window.scrollTo(0, 0)")
    return opened


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
    lab.keep(opened.page, "06_swap_widget")


def test_seeds_and_generators(opened: Opened) -> None:
    opened.control("seed_b").fill("7")
    opened.page.keyboard.press("Tab")
    opened.control("generator_b").select_option("head")
    opened.shows(LabState("face", 0, "head", 7, (0.8, 0.0, 0.0), -25, 5))
    assert "yaw -25°" in opened.picture.get_attribute("alt")
    assert np.asarray(lab.drawn(opened.page.locator("#lab img.heat"))).std() > 1


def test_heads_and_scale_stand_beside_the_mixture(opened: Opened) -> None:
    state = LabState("face", 0, "head", 7, (0.8, 0.0, 0.0), -25, 5)
    opened.shows(state)
    pair = swap_lab.couple(opened.generators, state, opened.encoder)
    for key, portrait in zip("ab", swap_lab.portraits(pair, state), strict=True):
        assert np.array_equal(np.asarray(lab.drawn(opened.page.locator(f"#lab .end.{key} img"))), portrait)
    said = [f.inner_text() for f in opened.page.locator("#lab .end figcaption").all()]
    assert said == ["face, seed 0", "head, seed 7"]
    colours = np.asarray(lab.drawn(opened.page.locator("#lab .legend img")))
    assert np.array_equal(colours, swap_widget.legend_picture())
    words = opened.words()
    assert "dark: 0 %" in words
    assert f"yellow: {swap_lab.HEAT_LIMIT:.0%} and more".replace("%", " %") in words
    assert swap_widget.heat_words(swap_lab.show(pair, state).heat) in words


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


def test_a_busy_kernel_is_said_to_be_busy(fresh: Opened) -> None:
    fresh.kernel_sleeps("1500")
    fresh.control("share_xy_b").click()
    fresh.page.wait_for_timeout(150)
    assert fresh.status() == "", "a quick answer needs no word"
    lab.until(lambda: fresh.status() == "busy", 2, "busy after 300 ms")
    assert "computing" in fresh.words()
    fresh.control("share_yz_b").click()  # waits behind the first
    fresh.shows(LabState(shares=(1.0, 0.0, 1.0)))
    assert fresh.status() == ""


def test_a_kernel_that_is_gone_is_reported_and_the_lab_lives_on(fresh: Opened) -> None:
    before = fresh.picture.get_attribute("src")
    fresh.kernel_sleeps("Infinity")
    fresh.control("all_b").click()
    fresh.page.wait_for_timeout(7000)
    assert fresh.status() == "busy"
    lab.until(lambda: fresh.status() == "silent", 4, "no answer after 8 s")
    assert "is a cell running, or was the kernel restarted?" in fresh.words()
    assert fresh.picture.get_attribute("src") == before
    lab.keep(fresh.page, "06_no_answer")
    fresh.kernel_sleeps("0")
    fresh.control("share_xz_a").click()
    fresh.shows(LabState(shares=(1.0, 0.0, 1.0)))
    assert fresh.status() == ""
    assert "No answer" not in fresh.words()


@pytest.mark.parametrize(
    ("typed", "used"), [("-5", 0), ("2.7", 2), ("", 0), ("99999999999", 2**32 - 1), ("8", 8)]
)
def test_seeds_are_written_back_as_used(fresh: Opened, typed: str, used: int) -> None:
    field, note = fresh.control("seed_a"), fresh.control("note_a")
    field.fill(typed)
    field.press("Enter")
    assert field.input_value() == str(used)
    fresh.shows(LabState(seed_a=used))
    said = note.inner_text()
    assert (f"Used: {used}" in said) == (typed != str(used)), said
    if said:
        gap = note.bounding_box()["y"] - field.bounding_box()["y"] - field.bounding_box()["height"]
        assert gap < 20, "beside the field"


def test_whatever_fails_in_the_kernel_is_answered(fresh: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    state = fresh.state()

    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(swap_widget, "show", fails)
        fresh.control("share_xy_b").click()
        lab.until(lambda: "out of memory" in fresh.words(), 10, "what failed is said")
        assert fresh.state() == state, "the controls follow the state that is shown"
    fresh.control("share_xz_b").click()
    fresh.shows(LabState(shares=(0.0, 1.0, 0.0)))
    assert "out of memory" not in fresh.words()


def test_two_views_of_one_widget_agree(fresh: Opened) -> None:
    fresh.page.evaluate("() => { window.view('other'); }")
    assert fresh.state("other") == fresh.state()
    fresh.control("share_xy_b", "other").click()
    wanted = LabState(shares=(1.0, 0.0, 0.0))
    fresh.shows(wanted)
    assert fresh.state() == fresh.state("other") == wanted
    fresh.control("yaw").focus()
    fresh.page.keyboard.press("Home")
    turned = LabState(shares=(1.0, 0.0, 0.0), yaw=-180)
    fresh.shows(turned)
    assert fresh.state() == fresh.state("other") == turned


WILD = """async ([x, y, moves]) => {
  for (let k = 0; k < moves; k++) {
    const at = { clientX: x + 90 * Math.sin(0.9 * k), clientY: y + 60 * Math.cos(1.7 * k), bubbles: true };
    document.querySelector("#lab img.turn").dispatchEvent(new PointerEvent("pointermove", at));
    await new Promise((done) => setTimeout(done, 4));
  }
}"""
"""More moves in a second than any mouse sends."""


def test_wild_dragging_leaves_no_backlog(fresh: Opened) -> None:
    fresh.kernel_sleeps("60")
    box = fresh.picture.bounding_box()
    x, y, before = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, fresh.asked
    fresh.page.mouse.move(x, y)
    fresh.page.mouse.down()
    moves = 200
    fresh.page.evaluate(WILD, [x, y, moves])
    fresh.page.mouse.move(x + 40, y - 20)
    fresh.page.mouse.up()
    fresh.shows(LabState(yaw=-20, pitch=-10))
    asked = fresh.asked - before
    fresh.page.wait_for_timeout(500)
    assert fresh.asked - before == asked, "requests came after the last picture"
    assert asked < moves / 2


def test_by_keyboard_alone(fresh: Opened) -> None:
    """Tab reaches every control in the order of the page, and each one works from there."""
    page = fresh.page
    fresh.control("generator_a").focus()
    names = ["generator_a"]
    for _ in range(17):
        page.keyboard.press("Tab")
        names.append(page.evaluate("document.activeElement.dataset.key ?? document.activeElement.className"))
    assert names == [
        "generator_a", "seed_a", "turn", "generator_b", "seed_b",
        "share_xy_a", "share_xy", "share_xy_b", "share_xz_a", "share_xz", "share_xz_b",
        "share_yz_a", "share_yz", "share_yz_b", "all_a", "all_b", "yaw", "pitch",
    ]  # fmt: skip
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Home")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Space")  # all planes of A
    page.keyboard.press("Tab")
    page.keyboard.press("Space")  # of B
    fresh.shows(LabState(shares=(1.0, 1.0, 1.0), yaw=-180))


@pytest.mark.parametrize("width", [1280, 820, 600, 420])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_controls_stay_usable_in_narrow_places(fresh: Opened, width: int, dark: bool) -> None:
    """150 % zoom with the file browser open leaves about 600 pixels, a tablet 820."""
    page = fresh.page
    page.set_viewport_size({"width": width, "height": 1000})
    page.evaluate(f"document.body.style.cssText = '{'background:#111;color:#ddd' if dark else ''}'")
    widths = {}
    for control in page.locator("#lab input, #lab select, #lab button").all():
        box = control.bounding_box()
        widths[control.get_attribute("data-key")] = round(box["width"])
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width + 1
    lab.keep(page, f"06_lab_{width}_{'dark' if dark else 'light'}")
    page.set_viewport_size({"width": 1400, "height": 1000})
    page.evaluate("document.body.style.cssText = ''")
    for key, wide in widths.items():
        least = 60 if key.startswith(("share", "yaw", "pitch")) and not key.endswith(("_a", "_b")) else 20
        assert wide >= (least if not key.startswith(("seed", "generator")) else 70), (key, wide)
