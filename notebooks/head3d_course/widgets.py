"""Sliders over pure functions, which are tested without a browser: yaw and pitch, a level, a place, directions."""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from head3d_core.utils.errors import Head3DError
from head3d_core.utils.images import encoded
from head3d_course.stills import bundle, facts_of_pixels, with_stand_in

Draw = Callable[..., np.ndarray]
"""Numbers -> image [H, W, 3] uint8."""


@dataclass(frozen=True)
class Range:
    """What a slider runs over."""

    low: float
    high: float
    step: float
    start: float


def to_png(pixels: np.ndarray, size: int | None = None) -> bytes:
    """PNG bytes of [H, W, 3] uint8, enlarged to `size` without smoothing if given."""
    image = Image.fromarray(pixels)
    if size is not None:
        image = image.resize((size, size), Image.Resampling.NEAREST)
    return encoded(image)


def sliders(
    draw: Draw, ranges: Mapping[str, Range], width: int = 420, size: int | None = None, alt: str = ""
) -> Any:
    """One slider per entry of `ranges` and the image that `draw` makes of their values, given in that order.

    The sliders work with the arrow keys. Images of values that were seen before are not drawn again. Returns an
    ipywidgets box with `.sliders` (by name) and `.picture`; its output holds a still of the first image as well.

    Args:
        draw: the widget calls nothing else.
        ranges: label -> range.
        width: of the image on the screen, pixels.
        size: to which a small image is enlarged without smoothing, pixels.
        alt: what the still shows, or a key of `alt_texts.json`.
    """
    import ipywidgets as widgets

    if not ranges:
        raise Head3DError("a widget needs at least one slider, got none")
    style, layout = {"description_width": "8em"}, {"width": "600px", "max_width": "100%"}
    made = {
        name: widgets.FloatSlider(
            r.start, min=r.low, max=r.high, step=r.step, description=name, style=style, layout=layout
        )
        for name, r in ranges.items()
    }
    drawn = functools.lru_cache(256)(lambda *values: to_png(draw(*values), size))
    picture = widgets.Image(format="png", width=width)

    def update(_: Any = None) -> None:
        picture.value = drawn(*[s.value for s in made.values()])

    for slider in made.values():
        slider.observe(update, names="value")
    update()
    column = widgets.VBox(list(made.values()), layout={"max_width": "100%"})
    box = widgets.HBox([picture, column], layout={"flex_flow": "row wrap"})
    box.sliders, box.picture, box.drawn = made, picture, drawn
    still = Image.open(io.BytesIO(picture.value))
    note = f"A still. Run this cell to move {', '.join(ranges)}."
    return with_stand_in(box, bundle(still, alt or note, note, facts_of_pixels(np.asarray(still))))


def orbit_viewer(draw: Draw, size: int = 256, max_pitch: float = 60.0, alt: str = "") -> Any:
    """The image that `draw` makes of yaw and pitch (radians); the sliders "yaw (°)" and "pitch (°)" show degrees."""
    ranges = {"yaw (°)": Range(-180, 180, 5, 0), "pitch (°)": Range(-max_pitch, max_pitch, 5, 0)}
    return sliders(lambda yaw, pitch: draw(math.radians(yaw), math.radians(pitch)), ranges, size, size, alt)


def scrubber(draw: Draw, width: int = 420, alt: str = "") -> Any:
    """The image at a place t in [0, 1] between two heads, which are shown small at the ends of the slider."""
    import ipywidgets as widgets

    box = sliders(draw, {"t: A to B": Range(0.0, 1.0, 0.05, 0.5)}, width, alt=alt)
    ends = [
        widgets.VBox([widgets.Label(name), widgets.Image(value=box.drawn(t), format="png", width=width // 4)])
        for name, t in (("head A", 0.0), ("head B", 1.0))
    ]
    row = widgets.HBox(ends, layout={"justify_content": "space-between"})
    box.children[1].children = (*box.children[1].children, row)
    return box
