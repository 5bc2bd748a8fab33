"""Figures and widgets: the pure functions behind them."""

from __future__ import annotations

import math

import numpy as np
import torch
from helpers import refuses

from head3d_core.course import figures as plots
from head3d_core.course import widgets
from head3d_core.model import cameras


def test_rounded_has_no_negative_zero() -> None:
    text = str(plots.rounded(torch.tensor([[-1e-9, 0.12345], [2.0, -0.5]])))
    assert text == "[[0.0, 0.123], [2.0, -0.5]]"


def test_within_hides_what_differs_between_machines() -> None:
    assert plots.within(torch.tensor([1e-8, -3e-7]), 1e-6) == "below 1e-06"
    assert plots.within(-0.02, 1e-6) == "2e-02"


def test_frustum_starts_at_the_camera_and_looks_at_the_origin() -> None:
    camera = cameras.orbit(0.7, 0.2)[0]
    lines = plots.frustum_lines(camera)
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
