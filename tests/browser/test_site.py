"""The built site in a headless Chromium: pages, search, figures, formulas, and the lab without Python."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import build_site
import lab
import live_heads
import numpy as np
import pytest
import slides
import torch
from helpers import served

from head3d_core.utils.images import to_pixels

pytestmark = [pytest.mark.browser, pytest.mark.slow]

VIEWS = [
    ("face", (0, 1), (0.0, 0.0, 0.0), 0.0, 0.0),
    ("face", (1, 2), (1.0, 0.0, 0.0), 180.0, 0.0),
    ("face", (2, 3), (0.3, 0.0, 1.0), -50.0, 15.0),
    ("head3d", (0, 1), (0.0, 0.0, 0.0), 180.0, 0.0),
    ("head3d", (1, 3), (0.5, 0.5, 0.5), 90.0, -10.0),
    ("head3d", (3, 2), (0.0, 1.0, 1.0), 25.0, 0.0),
]
"""Generator, people, shares, yaw and pitch in degrees: fronts, sides and backs, whole planes and mixtures."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site") / "site"
    build_site.build(out)
    return out


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    with served(site) as address:
        yield address


@pytest.fixture(scope="module")
def page(address: str) -> Iterator[Any]:
    with lab.browser() as page:
        page.problems = []
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        yield page


def test_every_page_is_there_and_small(site: Path) -> None:
    names = {path.stem for path in site.glob("*.html")}
    assert {p.stem for p in build_site.notebooks()} <= names
    assert {"index", "lab", "syllabus", "glossary"} <= names
    live = sum(p.stat().st_size for p in (site / "live").iterdir())
    assert live < 15 * 2**20


def test_a_link_that_leads_nowhere_is_found(site: Path) -> None:
    one = build_site.Page("one", "One", "", anchors={"here"})
    (site / "one.html").write_text(
        '<a href="#here"></a><a href="#gone"></a><img src="no.png"><a href="index.html"></a>'
    )
    assert build_site.broken_links(site, [one]) == ["one.html: #gone", "one.html: no.png"]
    (site / "one.html").unlink()


def test_search_finds_a_section(page: Any, address: str) -> None:
    page.goto(f"{address}/index.html")
    page.fill("#search", "lazy regularisation")
    page.wait_for_selector("#results li a")
    page.click("#results li a")
    section = page.url.rpartition("#")[2]
    lab.keep(page, "site_search")
    assert page.locator(f"#{section}").count() == 1
    text = page.inner_text("main").lower()
    assert "lazy" in text
    assert "regularisation" in text


def test_formulas_need_no_script(page: Any, address: str) -> None:
    page.goto(f"{address}/08_feature_distillation.html")
    assert page.locator("math").count() > 20
    assert "$" not in page.locator("main h2").all_inner_texts()[1]
    assert page.locator("math[display=block]").first.bounding_box()["height"] > 15


def test_plotly_figures_turn(page: Any, address: str) -> None:
    page.goto(f"{address}/12_geometry_you_can_hold.html")
    page.locator(".plotly-figure").first.scroll_into_view_if_needed()
    page.wait_for_selector(".plotly-figure .gl-container canvas", timeout=60_000)
    still = page.locator(".plotly-still").first
    lab.until(lambda: still.bounding_box()["width"] < 2, 10, "the still is left to screen readers")
    lab.keep(page, "site_plotly")


def test_dark_stays_dark(page: Any, address: str) -> None:
    page.goto(f"{address}/glossary.html")
    page.evaluate("document.documentElement.dataset.theme = 'light'")
    page.click("#theme")
    page.goto(f"{address}/syllabus.html")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(map(int, dark.removeprefix("rgb(").rstrip(")").split(","))) < 120
    for name in ("index", "06_plane_swap_lab", "reproduced"):
        page.goto(f"{address}/{name}.html")
        page.wait_for_load_state("networkidle")
        lab.keep(page, f"site_dark_{name}")
    page.click("#theme")


def test_a_phone_has_no_sideways_scrolling(page: Any, address: str) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    with contextlib.ExitStack() as stack:
        stack.callback(page.set_viewport_size, {"width": 1400, "height": 1000})
        for name in ("index", "syllabus", "06_plane_swap_lab"):
            page.goto(f"{address}/{name}.html")
            assert page.evaluate("document.documentElement.scrollWidth") <= 392, name
            lab.keep(page, f"site_phone_{name}")
        page.click("#menu")
        assert page.locator("nav a").first.is_visible()


def test_the_shader_draws_what_the_package_draws(page: Any, address: str) -> None:
    """Raw images of 64², from 8-bit planes: mean difference at most 3 of 255 levels; a mirrored head has far more."""
    page.goto(f"{address}/lab.html")
    page.wait_for_function("document.body.dataset.ready", timeout=240_000)
    assert "frames a second" in page.inner_text("#status")
    lab.keep(page, "site_lab")
    differences = []
    for name, (a, b), shares, yaw, pitch in VIEWS:
        state = {"a": a, "b": b, "shares": shares, "yaw": yaw, "pitch": pitch}
        drawn = page.evaluate("([name, state]) => lab.pixels(name, 64, state)", [name, state])
        pixels = np.array(drawn, dtype=np.float64).reshape(64, 64, 4)[..., :3]
        with torch.no_grad():
            truth = to_pixels(live_heads.truth(name, a, b, shares, yaw, pitch)).astype(np.float64)
        differences.append(float(np.abs(pixels - truth).mean()))
        mirrored = float(np.abs(pixels[:, ::-1] - truth).mean())
        assert mirrored > 2 * differences[-1] or yaw in (0.0, 180.0)
    print("mean difference in levels of 255:", [round(d, 2) for d in differences])
    assert max(differences) <= 3, differences


def test_without_webgl_there_are_stills(page: Any, address: str) -> None:
    page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    page.goto(f"{address}/lab.html")
    page.wait_for_function("document.body.dataset.ready", timeout=60_000)
    assert page.locator("#live").is_hidden()
    assert page.locator("#strips img").count() == len(live_heads.GENERATORS)
    assert page.evaluate("[...document.querySelectorAll('#strips img')].every(i => i.alt.length > 40)")
    assert not page.problems
    lab.keep(page, "site_lab_no_webgl")
    page.goto(f"{address}/12_geometry_you_can_hold.html")
    page.wait_for_timeout(1000)
    stills = page.locator(".plotly-still img").all()
    assert len(stills) == page.locator(".plotly-figure").count() > 0
    assert min(still.bounding_box()["width"] for still in stills) > 300
    assert page.locator(".no-webgl").count() == 0


DECKS = {"02": (4, 8), "06": (3, 9), "12": (2, 6)}
"""Notebook -> slides that are kept as screenshots."""


def test_slides_fit_their_screen_without_a_network(page: Any, tmp_path: Path) -> None:
    """Opened from disk: every image is drawn, no slide is wider than the screen, keys turn pages."""
    for path in slides.write(tmp_path):
        page.goto(path.as_uri())
        count = page.locator("section").count()
        assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)"), path.name
        assert page.evaluate(
            "performance.getEntriesByType('resource').every(r => r.name.startsWith('data:'))"
        )
        wide = page.evaluate(
            "slides.map((s, k) => { show(k); return s.scrollWidth > s.clientWidth + 1 ? k + 1 : 0 }).filter(k => k)"
        )
        assert not wide, (path.name, wide)
        page.reload()
        page.keyboard.press("End")
        assert page.inner_text("#place") == f"{count} / {count}"
        for number in DECKS.get(path.name[:2], ()):
            page.evaluate("k => show(k)", number - 1)
            lab.keep(page, f"slides_{path.name[:2]}_{number}")
