"""Figures are legible on any page, dark ones among them, and enlarged to 150 %: ground, contrast, size of text."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import course_pages as pages
import matplotlib.pyplot as plt
import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from matplotlib.colors import to_hex, to_rgb
from matplotlib.text import Text
from PIL import Image

from head3d_core.model import cameras
from head3d_course import figures, nb00, nb01, nb05a, nb05b, nb08, nb12, nb14, stills

each_notebook = pytest.mark.parametrize(
    "path",
    sorted(pages.NOTEBOOKS.rglob("[0-9][0-9]*_*.ipynb")),
    ids=lambda path: f"{path.parent.name}-{path.stem}",
)
COLUMN = 900
"""Pixels of a notebook's column in a window of 1920 at 150 %, beside JupyterLab's side bar."""
PLOTLY = "application/vnd.plotly.v1+json"
CONTRAST = 4.5
"""The least contrast of text to its ground (WCAG 2, level AA)."""


def luminance(colour: str) -> float:
    """The relative luminance of a colour (WCAG 2), 0 for black and 1 for white."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return float(np.dot((0.2126, 0.7152, 0.0722), linear))


def contrast(one: str, other: str = figures.PAPER) -> float:
    """The contrast ratio of two colours, from 1 to 21; by default of a colour to the paper."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def outputs(path: Path) -> list[dict[str, Any]]:
    """What the cells of a notebook show: MIME type -> content."""
    return [output.get("data", {}) for cell in pages.cells(path, "code") for output in cell.outputs]


def ground(image: Image.Image) -> str:
    """The colour of most of an image's rim; "none" where the image is not opaque."""
    if "A" in image.getbands() or "transparency" in image.info:
        return "none"
    pixels = np.asarray(image.convert("RGB"))
    rim = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return "#" + bytes(np.median(rim, 0).astype(np.uint8)).hex()


def pale(figure: Any) -> list[str]:
    """Texts of a matplotlib figure that are too pale on its paper."""
    texts = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
    return [text.get_text() for text in texts if contrast(to_hex(text.get_color())) < CONTRAST]


def pale_in_space(figure: dict[str, Any]) -> list[str]:
    """What is too pale in a Plotly figure, given as JSON, or left to the page and to Plotly's defaults."""
    layout = figure["layout"]
    paper, font = layout.get("paper_bgcolor"), layout.get("font", {}).get("color")
    if paper is None or font is None:
        return ["paper_bgcolor and font.color must be given"]
    found = [] if contrast(font, paper) >= CONTRAST else [f"layout.font {font}"]

    def visit(part: Any, where: str) -> None:
        for key, inner in part.items() if isinstance(part, dict) else enumerate(part):
            if str(key) in {"font", "textfont", "tickfont"} and isinstance(inner.get("color"), str):
                if contrast(inner["color"], paper) < CONTRAST:
                    found.append(f"{where}.{key} {inner['color']}")
            elif key == "bgcolor" and contrast(inner, font) < CONTRAST:
                found.append(f"{where}.{key} {inner}")
            elif isinstance(inner, dict | list) and key != "template":
                visit(inner, f"{where}.{key}")

    visit(layout, "layout")
    visit([{"textfont": trace["textfont"]} for trace in figure["data"] if "textfont" in trace], "data")
    return found


# --- what is stored ---------------------------------------------------------------------------------------------------


@each_notebook
def test_stored_images_bring_a_light_ground_and_keep_their_text_large(path: Path) -> None:
    """An image wider than the column is shown smaller: its smallest text keeps 9 pixels, which are 13 at 150 %."""
    for data in outputs(path):
        for stored in re.findall(r'src="data:image/\w+;base64,([^"]+)"', data.get("text/html", "")):
            image = Image.open(io.BytesIO(base64.b64decode(stored)))
            assert ground(image) != "none", "transparent: dark text would stand on a dark page"
            assert contrast("#000000", ground(image)) > 2 * CONTRAST, ground(image)
            assert stills.SMALLEST_PT * 100 / 72 * min(1, COLUMN / image.width) >= 9, image.size


@each_notebook
def test_stored_scenes_have_their_own_colours(path: Path) -> None:
    for data in outputs(path):
        assert PLOTLY not in data or pale_in_space(data[PLOTLY]) == []


# --- what is drawn ----------------------------------------------------------------------------------------------------


def two_cameras() -> torch.Tensor:
    return cameras.orbit(torch.tensor([0.0, 1.0]))


STILLS: dict[str, Callable[[], Any]] = {
    "00.3": lambda: nb00.course_map({"00": ("start", []), "01": ("cameras", ["00"])}),
    "01.2": lambda: nb01.rays_from_above(two_cameras(), ["a", "b"]),
    "05a.2": nb05a.same_texel,
    "05b.1": nb05b.loss_shapes,
    "08.1": nb08.distillation_diagram,
    "14.4": nb14.representations_figure,
    "image_grid": lambda: figures.image_grid([torch.zeros(3, 9, 9)] * 2, "ab"),
    "histogram": lambda: figures.histogram({"a": [0, 1, 2], "b": [1, 2, 3]}, "x", 2.0),
    "dots_figure": lambda: figures.dots_figure({"a": None}, "x"),
}
"""Figures that need no data."""


@pytest.mark.parametrize("name", STILLS)
def test_texts_stand_out(name: str) -> None:
    figure = STILLS[name]()
    assert pale(figure) == []
    image = stills.to_image(figure)
    assert contrast("#000000", ground(image.convert("RGB"))) > 2 * CONTRAST


def test_scenes_bring_their_paper() -> None:
    import trimesh

    ball = trimesh.creation.icosphere(1)
    for scene in (nb01.frustums(two_cameras(), ["a", "b"]), nb12.side_by_side([ball, ball], ["a", "b"])):
        assert pale_in_space(json.loads(scene.to_json())) == []


def test_what_is_illegible_is_found() -> None:
    assert [round(contrast(grey), 2) for grey in ("#000000", "#777777")] == [21.0, 4.48]
    figure, axis = figures.panels(3, 2)
    axis.set_title("too pale", color=figures.PALETTE[1])
    axis.set_xlabel("dark enough", color=figures.PALETTE[0])
    assert pale(figure) == ["too pale"]
    plt.close(figure)
    assert ground(Image.new("RGBA", (9, 9))) == "none"
    assert ground(Image.new("RGB", (9, 9), "#111111")) == "#111111"
    scene = figures.scene("a", 1)
    assert pale_in_space(json.loads(scene.to_json())) == []
    for change in (
        {"paper_bgcolor": "#111111"},
        {"font": {"color": "#777777"}},
        {"annotations": [{"text": "a", "font": {"color": "#E69F00"}}]},
        {"scene": {"bgcolor": "#222222"}},
    ):
        changed = json.loads(go.Figure(scene).update_layout(change).to_json())
        assert pale_in_space(changed), change
    assert pale_in_space({"data": [], "layout": {}}), "left to the page"
    text = {"type": "scatter3d", "text": ["a"], "textfont": {"color": "#CC79A7"}}
    assert pale_in_space(json.loads(scene.to_json()) | {"data": [text]})
