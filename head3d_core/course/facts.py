"""What a figure shows, in a few numbers: text beside a stored image. nbval compares the text; it cannot compare images.

A wrong image has other facts: one that is mirrored, black, of another person, or in another order. Facts are rounded,
so that equal images have equal facts on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

NOT_COMPARED = {
    "05b.2": "a network that the notebook trains: machines differ visibly",
    "07.4": "logits of networks that the notebook trains",
}
"""Figures without facts, and why."""


def of_pixels(pixels: Array) -> str:
    """The mean grey of the left and of the right half of an image [H, W, 3 or 4] uint8.

    >>> of_pixels(np.repeat([[[0], [0], [255], [255]]], 3, 2))
    'grey (0 to 255) left|right: 0|255'
    """
    return f"grey (0 to 255) left|right: {_pair(_halves(pixels))}"


def of_figure(figure: Any) -> str:
    """The facts of a matplotlib figure: greys of its images; without images, places of what is drawn, or its texts.

    Places are the mean x and y of all points of an axis, then the same with the k-th curve (or cloud of dots) weighted
    by k, so that exchanged curves are noticed.
    """
    images = [image for axis in figure.axes for image in axis.images]
    if images:
        greys = (_halves(image.to_rgba(image.get_array(), bytes=True)) for image in images)
        return f"grey (0 to 255) left|right of each image: {' '.join(map(_pair, greys))}"
    drawn = [places for axis in figure.axes if (places := _places(axis))]
    if drawn:
        return f"mean x y kx ky of each panel: {'; '.join(drawn)}"
    texts = (text.get_text().replace("\n", " ") for axis in figure.axes for text in axis.texts)
    return f"texts: {', '.join(filter(None, texts))}"


def _halves(pixels: Array) -> NDArray[np.float64]:
    """Mean grey of both halves of an image [H, W, 3 or 4]; the middle column of an odd width is in neither."""
    grey = np.asarray(pixels, np.float64)[..., :3].mean((0, 2))
    half = len(grey) // 2
    return np.array([grey[:half].mean(), grey[-half:].mean()])


def _pair(halves: NDArray[np.float64]) -> str:
    return "|".join(f"{grey:.0f}" for grey in halves)


def _places(axis: Any) -> str:
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


def _clouds(axis: Any) -> Iterator[Array]:
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
