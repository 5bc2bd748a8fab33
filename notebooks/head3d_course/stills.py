"""Pictures in a notebook's output: one encoding, with the text that readers who do not see them get.

An output holds a picture once, as HTML: JupyterLab and nbconvert pass on alternative text only there. Beside a Plotly
figure or a widget stands its still, for code hosts, exported pages, slides and browsers without WebGL.
"""

from __future__ import annotations

import base64
import functools
import html
import io
import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from head3d_core.utils import images
from head3d_course import words

LIGHT = 30_000
"""Bytes up to which a PNG is kept as it is."""
LIMIT = 60_000
"""Bytes that a JPEG should not exceed: its quality goes down to 50 for that."""
SMALLEST_PT = 10.0
"""The smallest text in a figure, points: at 100 dpi as high as the prose around it, legible when projected."""
HIDDEN = """<style>.jp-OutputArea:has(.gl-container canvas):not(:has(.no-webgl)) .plotly-still
{ position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }</style>"""
"""Hides a still from the eye, and not from screen readers, where Plotly has drawn the figure itself."""


# --- one picture ------------------------------------------------------------------------------------------------------


def encoded(image: Image.Image) -> bytes:
    """The image as PNG if that is at most `LIGHT` bytes, else as the smaller of a 256-colour PNG and a JPEG."""
    image = image.convert("RGB")
    png = images.encoded(image, "PNG", optimize=True)
    if len(png) <= LIGHT:
        return png
    jpeg = b""
    for quality in (80, 70, 60, 50):
        jpeg = images.encoded(image, "JPEG", quality=quality, optimize=True, progressive=True)
        if len(jpeg) <= LIMIT:
            break
    return min(images.encoded(image.quantize(256), "PNG", optimize=True), jpeg, key=len)


def bundle(image: Image.Image, alt: str, note: str = "", shown: str = "") -> dict[str, str]:
    """What an output says of a picture: HTML with alternative text, and the same text for a console.

    Args:
        alt: a key of `alt_texts.json`, or the text itself.
        note: a visible line below the picture.
        shown: its facts, which nbval compares as part of the text for a console.
    """
    data, alt = encoded(image), words("alt_texts").get(alt, alt)
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    below = f"<p><em>{html.escape(note)}</em></p>" if note else ""
    return {
        "text/html": f'<img alt="{html.escape(alt)}" src="{source}">{below}',
        "text/plain": f"Figure: {alt}" + (f"\nShown: {shown}" if shown else ""),
    }


def to_image(figure: Any) -> Image.Image:
    """A matplotlib figure in pixels, 100 an inch; it is closed. Text smaller than `SMALLEST_PT` is enlarged to it."""
    import matplotlib.pyplot as plt
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_fontsize(max(text.get_fontsize(), SMALLEST_PT))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, bbox_inches="tight", facecolor="white")
    plt.close(figure)
    return Image.open(buffer)


def with_stand_in(widget: Any, stand_in: dict[str, str]) -> Any:
    """The widget, whose output also holds what is shown where the widget is not: MIME type -> content."""
    live = widget._repr_mimebundle_
    widget._repr_mimebundle_ = lambda **options: live(**options) | stand_in
    return widget


# --- what a figure shows, in a few numbers ----------------------------------------------------------------------------

# nbval compares this text: it cannot compare images. A wrong image has other facts: one that is mirrored, black,
# of another person, or in another order. Facts are rounded, so that equal images have equal facts on every machine.

NOT_COMPARED = {
    "05b.2": "a network that the notebook trains: machines differ visibly",
    "07.4": "logits of networks that the notebook trains",
}
"""Figures without facts, and why."""


def facts_of_pixels(pixels: NDArray[Any]) -> str:
    """The mean grey of the left and of the right half of an image [H, W, 3 or 4] uint8.

    >>> facts_of_pixels(np.repeat([[[0], [0], [255], [255]]], 3, 2))
    'grey (0 to 255) left|right: 0|255'
    """
    return f"grey (0 to 255) left|right: {_pair(_halves(pixels))}"


def facts_of_figure(figure: Any) -> str:
    """The facts of a matplotlib figure: greys of its images; without images, places of what is drawn, or its texts.

    Places are the mean x and y of all points of an axis, then the same with the k-th curve (or cloud of dots) weighted
    by k, so that exchanged curves are noticed.
    """
    images = [image for axis in figure.axes for image in axis.images]
    if images:
        greys = (_halves(image.to_rgba(image.get_array(), bytes=True)) for image in images)
        return f"grey (0 to 255) left|right of each image: {' '.join(map(_pair, greys))}"
    drawn = [places for axis in figure.axes if (places := _means(axis))]
    if drawn:
        return f"mean x y kx ky of each panel: {'; '.join(drawn)}"
    texts = (text.get_text().replace("\n", " ") for axis in figure.axes for text in axis.texts)
    return f"texts: {', '.join(filter(None, texts))}"


def _halves(pixels: NDArray[Any]) -> NDArray[np.float64]:
    """Mean grey of both halves of an image [H, W, 3 or 4]; the middle column of an odd width is in neither."""
    grey = np.asarray(pixels, np.float64)[..., :3].mean((0, 2))
    half = len(grey) // 2
    return np.array([grey[:half].mean(), grey[-half:].mean()])


def _pair(halves: NDArray[np.float64]) -> str:
    return "|".join(f"{grey:.0f}" for grey in halves)


def _means(axis: Any) -> str:
    """Means of x, y, kx and ky over the points of the k-th curve, cloud of dots, outline or set of bars; "" if none."""
    points = [
        np.column_stack([cloud, (k + 1) * cloud])
        for k, cloud in enumerate(np.asarray(c, np.float64) for c in _clouds(axis))
        if len(cloud)
    ]
    if not points:
        return ""
    together = np.concatenate(points)
    means = np.nanmean(together, 0)
    # What rounding leaves of 0 differs between machines.
    means[np.abs(means) <= 1e-6 * np.nanmax(np.abs(together), 0)] = 0
    return " ".join(f"{mean:.3g}" for mean in means)


def _clouds(axis: Any) -> Iterator[NDArray[Any]]:
    """Points [M, 2] of the curves, dots, outlines and bars of an axis."""
    from matplotlib.collections import PathCollection
    from matplotlib.patches import Rectangle, StepPatch

    yield from (line.get_xydata() for line in axis.lines)
    yield from (
        np.asarray(dots.get_offsets()) for dots in axis.collections if isinstance(dots, PathCollection)
    )
    for patch in axis.patches:
        if isinstance(patch, StepPatch):
            values, edges, _ = patch.get_data()
            yield np.column_stack([edges[1:], values])
        elif isinstance(patch, Rectangle):
            yield np.array([[patch.get_x(), patch.get_height()]])


# --- of a Plotly figure -----------------------------------------------------------------------------------------------


def plotly_still(figure: Any) -> Image.Image:
    """The scenes of a Plotly figure as they are seen before anybody turns them, drawn by matplotlib.

    Drawn are lines, markers, texts, meshes and sheets of the visible traces; far ones first.
    """
    import matplotlib.pyplot as plt

    layout = figure.layout
    names = sorted({getattr(trace, "scene", None) or "scene" for trace in figure.data})
    size = (layout.width / 100, layout.height / 100)
    drawing, axes = plt.subplots(1, len(names), figsize=size, layout="constrained", squeeze=False)
    for name, axis in zip(names, axes[0], strict=True):
        own = [t for t in figure.data if (t.scene or "scene") == name and t.visible in (None, True)]
        _draw_scene(axis, layout[name], own, layout.width / len(names) / layout.height)
        if layout.showlegend is not False and axis.get_legend_handles_labels()[0]:
            axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
    for annotation, axis in zip(layout.annotations, axes[0], strict=False):
        axis.set_title(annotation.text)
    drawing.suptitle((layout.title.text or "").partition(" (")[0])
    return to_image(drawing)


def _draw_scene(axis: Any, scene: Any, traces: list[Any], wide: float) -> None:
    """The traces of one scene, in perspective, into a matplotlib axis that is `wide` times as wide as high."""
    from matplotlib.collections import PolyCollection

    eye = np.array([scene.camera.eye[k] for k in "xyz"])
    project = functools.partial(_projected, eye=eye, reach=scene.xaxis.range[1])
    pieces = [piece for trace in traces for piece in _pieces(trace)]
    shown = [(project(corners), *style) for corners, *style in pieces]
    shown.sort(key=lambda piece: -piece[0][:, 2].mean())
    flat = [corners[:, :2] for corners, *_ in shown]
    faces, edges, widths = ([style[k] for _, *style in shown] for k in range(3))
    axis.add_collection(PolyCollection(flat, facecolors=faces, edgecolors=edges, linewidths=widths))
    for trace in (t for t in traces if t.type == "scatter3d"):
        places = project(_places(trace))
        if "markers" in trace.mode:
            size = 4 * (trace.marker.size or 4)
            axis.scatter(*places[:, :2].T, c=_colours(trace, trace.marker), s=size, label=trace.name)
        if "lines" in trace.mode and trace.showlegend is not False:
            axis.plot([], [], color=trace.line.color, label=trace.name)
        for (x, y, _), text in zip(places, trace.text if "text" in trace.mode else (), strict=False):
            axis.text(x, y, re.sub("<[^>]+>", "", text), fontsize=10, ha="center", va="bottom")
    axis.set(xlim=(-wide, wide), ylim=(-1, 1), aspect="equal")
    axis.axis("off")


def _projected(points: NDArray[Any], eye: NDArray[np.float64], reach: float) -> NDArray[np.float64]:
    """Places [M, 3] in [-reach, reach]³ as Plotly's camera sees them: right and up, [-1, 1] in the view, and depth."""
    ahead = -eye / np.linalg.norm(eye)
    right = np.cross(ahead, (0.0, 1.0, 0.0))
    right /= np.linalg.norm(right)
    seen = (points / (2 * reach) - eye) @ np.stack([right, np.cross(right, ahead), ahead], 1)
    seen[:, :2] /= seen[:, 2:] * math.tan(math.pi / 8)
    return np.asarray(seen)


def _places(trace: Any) -> NDArray[np.float64]:
    return np.stack([np.asarray(a, np.float64).ravel() for a in (trace.x, trace.y, trace.z)], 1)


def _pieces(trace: Any) -> Iterator[tuple[Any, ...]]:
    """Corners [M, 3] of triangles, squares and lines, each with the colours of face and edge and a width."""
    places = _places(trace)
    if trace.type == "scatter3d":
        if "lines" in trace.mode:
            for line in np.stack([places[:-1], places[1:]], 1):
                if np.isfinite(line).all():
                    yield line, "none", trace.line.color, (trace.line.width or 2) / 2.5
        return
    if trace.type == "surface":
        rows, columns = np.shape(trace.x)
        first = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
        corners = first[:, None] + (0, 1, columns + 1, columns)
    else:
        corners = np.stack([np.asarray(a, np.int64) for a in (trace.i, trace.j, trace.k)], 1)
    colours = _colours(trace, trace)[corners].mean(1)
    yield from ((places[c], colour, colour, 0.3) for c, colour in zip(corners, colours, strict=True))


def _colours(trace: Any, style: Any) -> NDArray[np.float64]:
    """A colour [M, 3] in [0, 1] for every place of a trace."""
    from matplotlib.colors import to_rgb
    from plotly.colors import sample_colorscale

    count = np.size(trace.x)
    if trace.type == "mesh3d" and trace.vertexcolor is not None:
        return np.array([to_rgb(colour) for colour in trace.vertexcolor])
    values = {"mesh3d": "intensity", "surface": "surfacecolor", "scatter3d": "color"}[trace.type]
    level = style[values]
    if isinstance(level, str):
        return np.tile(to_rgb(level), (count, 1))
    level = np.asarray(level, np.float64).ravel()
    low, high = (level.min(), level.max()) if style.cmin is None else (style.cmin, style.cmax)
    share = ((level - low) / max(high - low, 1e-9)).clip(0, 1)
    return np.array(sample_colorscale([list(step) for step in style.colorscale], share, colortype="tuple"))
