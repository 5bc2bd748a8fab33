"""Figures that several notebooks share. matplotlib for stills, Plotly for what should be turned; both imported lazily.

Every figure is shown with `show`, which attaches alternative text. Colours come from the Okabe-Ito palette and
are always doubled by a line style, a marker or a label. What one notebook alone draws is in its own module `nbNN`.
"""

from __future__ import annotations

import inspect
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from head3d_core.model import cameras
from head3d_core.utils.estimates import Estimate
from head3d_core.utils.images import to_pixels as to_pixels
from head3d_course.stills import HIDDEN, NOT_COMPARED, bundle, facts_of_figure, plotly_still, to_image

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Okabe-Ito: distinguishable under the common colour-vision deficiencies."""
PAPER = "#FFFFFF"
"""The ground of every figure. A figure brings its own, because the page around it may be dark."""
STYLES = ("-", "--", "-.", ":")
MARKERS = "osD^vPX"


# --- display ----------------------------------------------------------------------------------------------------------


def show(figure: Any, alt: str) -> None:
    """Displays a matplotlib figure with alternative text (a key of `alt_texts.json`, or the text), then closes it.

    The output holds the figure's facts as text, so that nbval notices another picture.
    """
    from IPython.display import display

    shown = "" if alt in NOT_COMPARED else facts_of_figure(figure)
    display(bundle(to_image(figure), alt, shown=shown), raw=True)


def show_plotly(figure: Any, alt: str) -> None:
    """Displays a Plotly figure, which JupyterLab draws, and its still with alternative text.

    While the figure is drawn live, the still is hidden from the eye and read by screen readers alone.
    """
    from IPython.display import display

    display({"application/vnd.plotly.v1+json": json.loads(figure.to_json())}, raw=True)
    still = bundle(plotly_still(figure), alt)
    display(still | {"text/html": f'{HIDDEN}<div class="plotly-still">{still["text/html"]}</div>'}, raw=True)


def show_source(thing: Any) -> None:
    """Shows the source of a function or class of this package as a code block."""
    from IPython.display import Markdown, display

    display(Markdown(f"```python\n{inspect.getsource(thing).rstrip()}\n```"))


def rounded(values: Tensor, digits: int = 3) -> Any:
    """Nested list of numbers with `digits` decimals and no negative zeros: the same text on every machine."""

    def plain(value: Any) -> Any:
        return [plain(v) for v in value] if isinstance(value, list) else round(value, digits) + 0.0

    return plain(values.detach().double().tolist())


def within(error: Tensor | float, limit: float) -> str:
    """The largest |error| as text that is the same on every machine: "below 1e-06", or a digit where it is not."""
    largest = float(torch.as_tensor(error).detach().abs().max())
    return f"below {limit:.0e}" if largest < limit else f"{largest:.0e}"


# --- stills -----------------------------------------------------------------------------------------------------------


def panels(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Any, Any]:
    """A matplotlib figure of `width` x `height` inches and its axes: one axis, or an array [rows, columns] of them.

    A single row or column gives a one-dimensional array. `options` go to `plt.subplots`.
    """
    import matplotlib.pyplot as plt

    options = {"layout": "constrained", **options}
    return plt.subplots(rows, columns, figsize=(width, height), **options)


def curve(axis: Any, k: int, x: Any, y: Any, label: str, **options: Any) -> None:
    """A line with the k-th colour, line style and marker; about eight markers however many points it has."""
    style: dict[str, Any] = {"color": PALETTE[k % 7], "linestyle": STYLES[k % 4], "marker": MARKERS[k % 7]}
    style |= {"markersize": 4, "markevery": max(1, len(x) // 8), "linewidth": 1.7, "label": label}
    axis.plot(x, y, **style | options)


def image_grid(
    images: Sequence[Any] | Tensor,
    titles: Sequence[str] = (),
    columns: int = 4,
    size: float = 2.2,
    rows: Sequence[str] = (),
) -> Any:
    """A grid of images [3, H, W] in [-1, 1], row by row.

    Args:
        images: one after the other; where `rows` are named, a list of rows of them.
        titles: above the images in their order; as many as columns: they head the columns.
        size: of an image, inches; it is stored with 100 pixels an inch, and with 112 at least.
        rows: names beside the rows.
    """
    if rows:
        columns = len(images[0])
        images = [image for row in images for image in row]
    columns, side = min(columns, len(images)), max(112, round(100 * size))
    lines = -(-len(images) // columns)
    width = size * columns + (0.9 if rows else 0)
    figure, axes = panels(width, (size + 0.25) * lines, lines, columns, squeeze=False)
    for k, axis in enumerate(axes.flat):
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
        if k < len(images):
            axis.imshow(to_pixels(_at_most(images[k], side)), interpolation="nearest")
            axis.set_title(titles[k] if k < len(titles) else "", fontsize=11)
    for name, axis in zip(rows, axes[:, 0], strict=False):
        axis.set_ylabel(name, fontsize=10)
    return figure


def _at_most(image: Tensor, side: int) -> Tensor:
    """Shrinks an image [3, H, W] to at most `side` pixels across, so that stored notebooks stay small."""
    if image.shape[-1] <= side:
        return image
    size = (round(image.shape[1] * side / image.shape[2]), side)
    return F.interpolate(image[None].float(), size=size, mode="bilinear", antialias=True)[0]


def dots(
    axis: Any, values: Sequence[Estimate | None], k: int = 0, down: float = 0.0, label: str = ""
) -> None:
    """Estimates as dots with their 95 % intervals, one a line from the top; a sentence where one is missing.

    Args:
        k: colour and marker.
        down: how far below the middle of their lines they are drawn, where several series share them.
    """
    for y, e in enumerate(values):
        if e is not None:
            axis.plot([e.low, e.high], [y + down, y + down], color=PALETTE[k % 7], linewidth=2.5, zorder=2)
            dot = {"color": PALETTE[1] if not label else PALETTE[k % 7], "markersize": 7}
            axis.plot(e.value, y + down, MARKERS[k % 7], label=label if y == 0 else "", **dot)
    middle = sum(axis.get_xlim()) / 2
    for y, e in enumerate(values):
        if e is None:
            axis.text(middle, y, "not recorded yet", ha="center", va="center", style="italic", color="0.35")
    axis.set_ylim(len(values) - 0.5, -0.5)
    axis.grid(axis="x", alpha=0.3)


def dots_figure(values: Mapping[str, Estimate | None], label: str) -> Any:
    """Named estimates as dots with their 95 % intervals against a line at 0."""
    figure, axis = panels(6.4, 0.45 * len(values) + 0.9)
    axis.axvline(0, color="0.6", linewidth=1)
    dots(axis, list(values.values()))
    axis.set_xlabel(label)
    axis.set_yticks(range(len(values)), list(values))
    return figure


def histogram(groups: Mapping[str, Any], label: str, limit: float | None = None) -> Any:
    """Shares of some groups of numbers over the same 25 steps, an outline for each, and perhaps a limit (dashed)."""
    figure, axis = panels(6.4, 2.9)
    every = {name: np.asarray(values) for name, values in groups.items()}
    edges = np.linspace(min(map(np.min, every.values())), max(map(np.max, every.values())), 26)
    for k, (name, values) in enumerate(every.items()):
        style: dict[str, Any] = {"color": PALETTE[k], "linestyle": STYLES[k], "linewidth": 2, "label": name}
        axis.stairs(np.histogram(values, edges)[0] / len(values), edges, **style)
    if limit is not None:
        axis.axvline(limit, color="black", linestyle=":", label="limit")
    axis.set(xlabel=label, ylabel="share of the group")
    axis.legend()
    return figure


# --- diagrams ---------------------------------------------------------------------------------------------------------


def canvas(width: float, height: float, size: tuple[float, float]) -> tuple[Any, Any]:
    """An empty drawing [0, width] x [0, height], `size` in inches: (figure, axis)."""
    figure, axis = panels(*size, layout=None)
    axis.set(xlim=(0, width), ylim=(0, height))
    axis.axis("off")
    return figure, axis


def box(
    axis: Any,
    x: float,
    y: float,
    text: str,
    colour: str,
    width: float = 1.7,
    height: float = 0.8,
    **style: Any,
) -> None:
    """A rounded box around (x, y) with a text in it."""
    from matplotlib.patches import FancyBboxPatch

    corner = (x - width / 2, y - height / 2)
    style = {"facecolor": "white", "edgecolor": colour, "linewidth": 2, "boxstyle": "round,pad=0.05", **style}
    axis.add_patch(FancyBboxPatch(corner, width, height, **style))
    axis.text(x, y, text, ha="center", va="center", fontsize=10)


def arrow(
    axis: Any, start: tuple[float, float], end: tuple[float, float], text: str = "", colour: str = "#333333"
) -> None:
    """An arrow with a text above its middle."""
    axis.annotate("", xy=end, xytext=start, arrowprops=dict(arrowstyle="-|>", color=colour, linewidth=1.5))
    x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + 0.12
    axis.text(x, y, text, ha="center", va="bottom", fontsize=10, color=colour)


def ties(axis: Any, x: float, low: float, high: float) -> None:
    """A dashed upright arrow with two heads: a loss ties what stands above to what stands below."""
    style = dict(arrowstyle="<|-|>", color=PALETTE[2], linewidth=2, linestyle="--")
    axis.annotate("", xy=(x, low), xytext=(x, high), arrowprops=style)


# --- scenes in space --------------------------------------------------------------------------------------------------


def space(reach: float, eye: Sequence[float] = (1.05, 0.5, 0.5)) -> dict[str, Any]:
    """Plotly's layout of a scene [-reach, reach]³ without axes, y up; `eye` is where it is looked at from."""
    hidden = dict(visible=False, range=[-reach, reach])
    camera = dict(up=dict(x=0, y=1, z=0), eye=dict(x=eye[0], y=eye[1], z=eye[2]))
    return dict(xaxis=hidden, yaxis=hidden, zaxis=hidden, aspectmode="cube", camera=camera)


def scene(
    title: str, reach: float, eye: Sequence[float] = (1.05, 0.5, 0.5), traces: Sequence[Any] = ()
) -> Any:
    """A Plotly figure with one scene, laid out by `space`."""
    import plotly.graph_objects as go

    figure = on_paper(go.Figure(list(traces)), 720, 540)
    return figure.update_layout(title=title, scene=space(reach, eye))


def on_paper(figure: Any, width: int, height: int) -> Any:
    """Gives a Plotly figure its size, and dark text on a white ground whatever the theme of the page around it."""
    figure.update_layout(
        width=width, height=height, margin=dict(l=0, r=0, t=40, b=0), template="plotly_white"
    )
    return figure.update_layout(paper_bgcolor=PAPER, font=dict(size=14, color="#222222"))


def label_at(figure: Any, at: Sequence[float], text: str) -> None:
    """Adds a text to a Plotly scene."""
    import plotly.graph_objects as go

    x, y, z = ([round(float(value), 3)] for value in at)
    trace = go.Scatter3d(x=x, y=y, z=z, mode="text", text=[text], showlegend=False, hoverinfo="skip")
    figure.add_trace(trace)


def line_in_space(points: np.ndarray, name: str, colour: str, dash: str = "solid") -> Any:
    """A polyline [M, 3] as a Plotly trace; NaN parts it."""
    import plotly.graph_objects as go

    x, y, z = ([None if np.isnan(v) else round(float(v), 3) for v in points[:, k]] for k in range(3))
    line = dict(color=colour, width=4, dash=dash)
    return go.Scatter3d(x=x, y=y, z=z, mode="lines", name=name, line=line, hoverinfo="name")


def cube_lines() -> np.ndarray:
    """The edges of the cube of side 1 around the origin as one polyline, [36, 3] with NaN between them."""
    corner = np.array(list(itertools.product((-0.5, 0.5), repeat=3)))
    edges = [(i, i | bit) for i in range(8) for bit in (1, 2, 4) if i & bit == 0]
    return np.array([point for a, b in edges for point in (corner[a], corner[b], np.full(3, np.nan))])


def frustum_lines(camera: Tensor) -> np.ndarray:
    """The edges of a camera's [25] frustum, 1.2 world units deep, as one polyline [18, 3] with NaN between them."""
    cam2world, matrix = cameras.unpack(camera[None])
    half = 0.5 / float(matrix[0, 0, 0])
    corners = torch.tensor([[-half, -half, 1], [half, -half, 1], [half, half, 1], [-half, half, 1]])
    eye, gap = cam2world[0, :3, 3], torch.full((3,), torch.nan)
    world = [*(1.2 * corners) @ cam2world[0, :3, :3].T + eye]
    spokes = [point for corner in world for point in (eye, corner, gap)]
    return torch.stack([*world, world[0], gap, *spokes]).numpy()
