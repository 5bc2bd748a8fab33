"""Sliders over pure functions: a surface's level, a place between two heads, directions of the latent space."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from head3d_core.course.widgets import to_png
from head3d_core.utils.errors import Head3DError


@dataclass(frozen=True)
class Range:
    """What a slider runs over."""

    low: float
    high: float
    step: float
    start: float


def sliders(draw: Callable[..., np.ndarray], ranges: Mapping[str, Range], width: int = 420) -> Any:
    """One slider per entry of `ranges` and the picture that `draw` makes of their values, given in that order.

    The sliders work with the arrow keys. Returns an ipywidgets box with `.sliders` (by name) and `.picture`.

    Args:
        draw: numbers -> picture [H, W, 3] uint8; the widget calls nothing else.
        ranges: label -> range.
        width: of the picture on the screen, pixels.
    """
    import ipywidgets as widgets

    if not ranges:
        raise Head3DError("a widget needs at least one slider, got none")
    made = {
        name: widgets.FloatSlider(
            r.start, min=r.low, max=r.high, step=r.step, description=name, style={"description_width": "9em"}
        )
        for name, r in ranges.items()
    }
    picture = widgets.Image(format="png", width=width)

    def update(_: Any = None) -> None:
        picture.value = to_png(draw(*[s.value for s in made.values()]))

    for slider in made.values():
        slider.observe(update, names="value")
    update()
    box = widgets.HBox([picture, widgets.VBox(list(made.values()))])
    box.sliders, box.picture = made, picture
    return box


def level_slider(draw: Callable[[float], np.ndarray], low: float, high: float, start: float) -> Any:
    """The picture of a surface at a level (raw sigma) that a slider sets."""
    return sliders(draw, {"level (sigma)": Range(low, high, (high - low) / 40, start)})


def scrubber(draw: Callable[[float], np.ndarray], width: int = 420) -> Any:
    """The picture at a place t in [0, 1] between two heads."""
    return sliders(draw, {"t: A to B": Range(0.0, 1.0, 0.05, 0.5)}, width)


def direction_sliders(draw: Callable[..., np.ndarray], names: Sequence[str], reach: float = 3.0) -> Any:
    """One slider per direction, in standard deviations from -`reach` to `reach`."""
    return sliders(draw, {name: Range(-reach, reach, 0.25, 0.0) for name in names})
