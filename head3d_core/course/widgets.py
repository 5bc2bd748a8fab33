"""Interactive parts of the notebooks: thin shells around pure functions that are tested without a browser."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np

Draw = Callable[[float, float], np.ndarray]
"""(yaw, pitch) in radians -> picture [H, W, 3] uint8."""


def to_png(pixels: np.ndarray, size: int | None = None) -> bytes:
    """PNG bytes of [H, W, 3] uint8, enlarged to `size` without smoothing if given."""
    from PIL import Image

    image = Image.fromarray(pixels)
    if size is not None:
        image = image.resize((size, size), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def orbit_viewer(draw: Draw, size: int = 256, max_pitch: float = 60.0) -> Any:
    """Two sliders (yaw and pitch, degrees) and the picture that `draw` makes of them.

    The sliders work with the arrow keys. Returns an ipywidgets box with `.yaw`, `.pitch` and `.picture`.
    """
    import ipywidgets as widgets

    yaw = widgets.FloatSlider(0, min=-180, max=180, step=5, description="yaw (°)")
    pitch = widgets.FloatSlider(0, min=-max_pitch, max=max_pitch, step=5, description="pitch (°)")
    picture = widgets.Image(format="png", width=size, height=size)

    def update(_: Any = None) -> None:
        picture.value = to_png(draw(math.radians(yaw.value), math.radians(pitch.value)), size)

    for slider in (yaw, pitch):
        slider.observe(update, names="value")
    update()
    box = widgets.HBox([picture, widgets.VBox([yaw, pitch])])
    box.yaw, box.pitch, box.picture = yaw, pitch, picture
    return box
