"""Sliders over pure functions, which are tested without a browser: yaw and pitch, a level, a place, directions."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from head3d_core.utils.errors import Head3DError

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
    from PIL import Image

    image = Image.fromarray(pixels)
    if size is not None:
        image = image.resize((size, size), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def sliders(draw: Draw, ranges: Mapping[str, Range], width: int = 420, size: int | None = None) -> Any:
    """One slider per entry of `ranges` and the image that `draw` makes of their values, given in that order.

    The sliders work with the arrow keys. Returns an ipywidgets box with `.sliders` (by name) and `.picture`.

    Args:
        draw: the widget calls nothing else.
        ranges: label -> range.
        width: of the image on the screen, pixels.
        size: to which a small image is enlarged without smoothing, pixels.
    """
    import ipywidgets as widgets

    if not ranges:
        raise Head3DError("a widget needs at least one slider, got none")
    style = {"description_width": "9em"}
    made = {
        name: widgets.FloatSlider(r.start, min=r.low, max=r.high, step=r.step, description=name, style=style)
        for name, r in ranges.items()
    }
    picture = widgets.Image(format="png", width=width)

    def update(_: Any = None) -> None:
        picture.value = to_png(draw(*[s.value for s in made.values()]), size)

    for slider in made.values():
        slider.observe(update, names="value")
    update()
    box = widgets.HBox([picture, widgets.VBox(list(made.values()))])
    box.sliders, box.picture = made, picture
    return box


def orbit_viewer(draw: Draw, size: int = 256, max_pitch: float = 60.0) -> Any:
    """The image that `draw` makes of yaw and pitch (radians); the sliders "yaw (°)" and "pitch (°)" show degrees."""
    ranges = {"yaw (°)": Range(-180, 180, 5, 0), "pitch (°)": Range(-max_pitch, max_pitch, 5, 0)}
    return sliders(lambda yaw, pitch: draw(math.radians(yaw), math.radians(pitch)), ranges, size, size)


def level_slider(draw: Draw, low: float, high: float, start: float) -> Any:
    """The image of a surface at a level (raw sigma) that a slider sets."""
    return sliders(draw, {"level (sigma)": Range(low, high, (high - low) / 40, start)})


def scrubber(draw: Draw, width: int = 420) -> Any:
    """The image at a place t in [0, 1] between two heads."""
    return sliders(draw, {"t: A to B": Range(0.0, 1.0, 0.05, 0.5)}, width)


def direction_sliders(draw: Draw, names: Sequence[str], reach: float = 3.0) -> Any:
    """One slider per direction, in standard deviations from -`reach` to `reach`."""
    return sliders(draw, {name: Range(-reach, reach, 0.25, 0.0) for name in names})
