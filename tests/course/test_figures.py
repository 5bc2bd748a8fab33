"""Figures, stills and widgets: one light picture a figure, with the alternative text in what nbconvert renders."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable
from typing import Any

import build_site
import nbformat
import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from bs4 import BeautifulSoup
from helpers import refuses
from nbconvert import HTMLExporter
from PIL import Image

from head3d_core.model import cameras
from head3d_core.utils.images import encoded
from head3d_course import figures, nb01, predictions, stills, widgets


def test_rounded_has_no_negative_zero() -> None:
    text = str(figures.rounded(torch.tensor([[-1e-9, 0.12345], [2.0, -0.5]])))
    assert text == "[[0.0, 0.123], [2.0, -0.5]]"


def test_within_hides_what_differs_between_machines() -> None:
    assert figures.within(torch.tensor([1e-8, -3e-7]), 1e-6) == "below 1e-06"
    assert figures.within(-0.02, 1e-6) == "2e-02"


def test_frustum_starts_at_the_camera_and_looks_at_the_origin() -> None:
    camera = cameras.orbit(0.7, 0.2)[0]
    lines = figures.frustum_lines(camera)
    eye = camera[[3, 7, 11]].numpy()
    assert any(np.allclose(point, eye, atol=1e-6) for point in lines)
    corners = lines[:4]
    towards = corners.mean(0) - eye
    assert np.allclose(towards / np.linalg.norm(towards), -eye / np.linalg.norm(eye), atol=1e-5)


def test_a_walk_draws_each_place_once_and_shows_its_ends() -> None:
    drawn = []

    def draw(t: float) -> np.ndarray:
        drawn.append(t)
        return np.full((8, 8, 3), round(255 * t), np.uint8)

    box = widgets.scrubber(draw)
    slider = box.sliders["t: A to B"]
    for t in (0.6, 0.5, 0.0, 0.6):
        slider.value = t
    assert sorted(drawn) == [0.0, 0.5, 0.6, 1.0]
    ends = [end.children[1].value for end in box.children[1].children[1].children]
    assert ends == [widgets.to_png(draw(t)) for t in (0.0, 1.0)]


def test_sliders_show_what_their_function_draws() -> None:
    def draw(*values: float) -> np.ndarray:
        return np.full((4, 4, 3), int(100 + 10 * sum(values)), np.uint8)

    level = widgets.sliders(draw, {name: widgets.Range(0.0, 10.0, 0.25, 5.0) for name in ("one", "two")})
    assert level.picture.value == widgets.to_png(draw(5.0, 5.0))
    level.sliders["two"].value = 8.0
    assert level.picture.value == widgets.to_png(draw(5.0, 8.0))
    box = widgets.orbit_viewer(draw, size=16)
    box.sliders["yaw (°)"].value = 90
    box.sliders["pitch (°)"].value = -30
    assert box.picture.value == widgets.to_png(draw(math.pi / 2, -math.pi / 6), 16)
    refuses("at least one slider", widgets.sliders, draw, {})


PLOTLY, WIDGET = "application/vnd.plotly.v1+json", "application/vnd.jupyter.widget-view+json"


@pytest.fixture
def outputs(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What is displayed from now on, as MIME bundles."""
    shown: list[dict[str, Any]] = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    return shown


def rendered(outputs: list[dict[str, Any]], export: Callable[[Any], str]) -> BeautifulSoup:
    """A page of a notebook with these outputs."""
    cell = nbformat.v4.new_code_cell("draw()")
    cell.outputs = [nbformat.v4.new_output("display_data", data) for data in outputs]
    text = nbformat.v4.new_markdown_cell("The plane is $F_{xy}$.")
    return BeautifulSoup(export(nbformat.v4.new_notebook(cells=[text, cell])), "html.parser")


def pixels(output: dict[str, Any]) -> np.ndarray:
    data = base64.b64decode(output["text/html"].partition(";base64,")[2].partition('"')[0])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def line_figure() -> Any:
    figure, axis = figures.panels(3, 2)
    axis.plot([0, 1])
    return figure


def test_what_is_rendered_has_the_alternative_text_and_one_picture(outputs: list[dict[str, Any]]) -> None:
    alt = 'A line from "low" & left to high'
    figures.show(line_figure(), alt)
    figures.show_plotly(nb01.frustums(cameras.orbit(torch.tensor([0.0, 1.0])), ["a", "b"]), "two cameras")
    box = widgets.orbit_viewer(lambda *_: np.zeros((8, 8, 3), np.uint8), alt="a black square")
    live = box._repr_mimebundle_()
    assert WIDGET in live
    outputs.append({kind: data for kind, data in live.items() if kind != WIDGET})
    for export in (lambda notebook: HTMLExporter().from_notebook_node(notebook)[0], build_site.standalone):
        images = rendered(outputs, export).select("img")
        assert [image.get("alt") for image in images] == [alt, "two cameras", "a black square"]
    assert [PLOTLY in data for data in outputs] == [False, True, False, False]
    assert not any(kind.startswith("image/") for data in outputs for kind in data)


def test_an_exported_page_needs_no_network(outputs: list[dict[str, Any]]) -> None:
    figures.show(line_figure(), "a line")
    page = rendered(outputs, build_site.standalone)
    assert page.select_one("math") is not None
    assert not [
        tag for tag in page.select("script, link, img") if "http" in (tag.get("src") or tag.get("href") or "")
    ]
    assert not [script for script in page.select("script") if "https://" in script.text]


def test_a_key_stands_for_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stills, "words", lambda _: {"06.1": "three planes"})
    assert 'alt="three planes"' in stills.bundle(Image.new("RGB", (9, 9)), "06.1")["text/html"]


def noise(side: int, contrast: float) -> Image.Image:
    values = np.random.default_rng(0).normal(0, contrast, (side, side, 3))
    ramp = np.linspace(0, 255, side)[:, None, None] + values
    return Image.fromarray(ramp.clip(0, 255).astype(np.uint8))


def test_pictures_are_light_and_look_as_before() -> None:
    flat = Image.new("RGB", (200, 200), "red")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(stills.encoded(flat)))), np.asarray(flat))
    heavy = noise(700, 12)
    data = stills.encoded(heavy)
    assert data.startswith(b"\xff\xd8")
    assert len(data) <= stills.LIMIT < len(encoded(heavy, "JPEG", quality=80))
    assert np.abs(np.asarray(Image.open(io.BytesIO(data)), float) - np.asarray(heavy, float)).mean() < 12


def test_the_still_of_a_scene_is_seen_from_its_camera() -> None:
    """A red dot at +x, a blue sheet at z = 0: from the front the dot is right; from the side the sheet is a line."""
    sheet = np.meshgrid([-0.5, 0.0, 0.5], [-0.5, 0.0, 0.5])
    traces = [
        go.Scatter3d(x=[0.8], y=[0], z=[0], mode="markers", marker=dict(size=9, color="#ff0000"), name="dot"),
        go.Surface(x=sheet[0], y=sheet[1], z=0 * sheet[0], surfacecolor=sheet[0], colorscale="Blues"),
        go.Mesh3d(x=[0, 1, 0], y=[0, 0, 1], z=[0, 0, 0], i=[0], j=[1], k=[2], visible=False),
    ]
    pictures = []
    for eye in ((0, 0, 1.5), (1.5, 0, 0)):
        figure = figures.scene("Scene (drag to turn)", 1, eye, traces).update_layout(width=300, height=300)
        pictures.append(
            np.asarray(stills.plotly_still(figure.update_layout(showlegend=False)).convert("RGB")).astype(int)
        )
    red = [np.argwhere((p[..., 0] > 200) & (p[..., 1] < 60)) for p in pictures]
    assert red[0][:, 1].mean() > 0.6 * pictures[0].shape[1]
    assert abs(red[1][:, 1].mean() / pictures[1].shape[1] - 0.5) < 0.05
    blue = [(p[..., 2] > p[..., 0] + 40).sum() for p in pictures]
    assert blue[0] > 20 * max(blue[1], 1), "a sheet seen from its edge"


def test_a_field_for_a_prediction_leaves_a_sentence(outputs: list[dict[str, Any]], monkeypatch: Any) -> None:
    monkeypatch.setattr("IPython.display.display", outputs.append)
    monkeypatch.setattr(predictions, "kept", lambda: {"01.1": "a guess that is nobody's business"})
    predictions.ask("01.1")
    live = outputs[0]._repr_mimebundle_()  # type: ignore[attr-defined]
    assert WIDGET in live
    assert live["text/plain"] == "Predict 01.1: run this cell to get a field to write in."
