"""Geometry figures and sliders: the pure functions behind them, and what a stored figure weighs."""

from __future__ import annotations

import json
import math

import matplotlib as mpl
import numpy as np
import pytest
import torch
import trimesh
from helpers import refuses

from head3d_core.course import nb12, widgets
from head3d_core.course.widgets import to_png
from head3d_core.geometry import pointclouds
from head3d_core.model import cameras


@pytest.fixture(scope="module")
def ball() -> trimesh.Trimesh:
    """81,920 triangles, red above and blue below."""
    ball = trimesh.creation.icosphere(subdivisions=6, radius=0.3)
    up = ball.vertices[:, 1] > 0
    rgba = np.where(up[:, None], [255, 0, 0, 255], [0, 0, 255, 255]).astype(np.uint8)
    ball.visual = trimesh.visual.ColorVisuals(ball, vertex_colors=rgba)
    return ball


def test_decimation_keeps_colours(ball: trimesh.Trimesh) -> None:
    small = nb12.decimated(ball, 500)
    assert len(small.faces) <= 500
    colours = np.asarray(small.visual.vertex_colors)
    assert (colours[small.vertices[:, 1] > 0.05, 0] == 255).all()
    assert (colours[small.vertices[:, 1] < -0.05, 2] == 255).all()
    assert nb12.decimated(small, 500) is small


def _bytes(figure: object) -> int:
    return len(figure.to_json())  # type: ignore[attr-defined]


def test_stored_figures_are_light(ball: trimesh.Trimesh) -> None:
    planes = torch.rand(3, 8, 64, 64)
    space = nb12.head_in_space(ball, planes, pointclouds.look_around(12, (0.0,)))
    backs = nb12.side_by_side([ball, ball], ["teacher", "Head3D"])
    for figure in (space, backs):
        assert _bytes(figure) < 0.5e6
        assert json.loads(figure.to_json())["data"]
    assert [t.type for t in space.data] == ["mesh3d", "surface", "surface", "surface", *["scatter3d"] * 4]
    assert backs.data[0].vertexcolor is None, "grey, so that shape is seen"
    assert backs.layout.scene.camera.eye.z < 0, "from behind"
    assert backs.layout.scene2.camera.eye.z < 0


def test_no_side_of_a_surface_lies_in_the_dark(ball: trimesh.Trimesh) -> None:
    grey = nb12.surface_trace(ball, "ball", coloured=False)
    shown = np.asarray(grey.intensity) / 255
    z = np.asarray(grey.z)
    front, back = shown[z > 0.1], shown[z < -0.1]
    assert front.mean() == pytest.approx(back.mean(), abs=0.03)
    assert back.mean() > 0.5
    assert back.std() > 0.1, "relief"
    assert grey.lighting.ambient == 1
    assert grey.lighting.diffuse == 0
    coloured = nb12.surface_trace(ball, "ball").lighting
    assert coloured.ambient >= 0.9, "what the lamp does not reach keeps its colour"


def test_from_above_the_face_looks_down_the_page() -> None:
    grid = np.full((24, 24, 24), -20, np.float32)
    grid[10:14, 10:14, 10:22] = 20  # a nose: it reaches towards +z
    figure = nb12.density_slices(grid, 1.0, 0.0)
    above = figure.axes[2]
    assert above.get_title() == "y = 0, from above"
    assert above.get_xlim()[0] < above.get_xlim()[1]
    (_, tip), (_, nape) = above.transData.transform([(0, 0.4), (0, -0.1)])
    assert tip < nape
    mpl.pyplot.close(figure)


def test_static_twins_are_drawn(ball: trimesh.Trimesh) -> None:
    axis = np.linspace(-0.5, 0.5, 24)
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    grid = (60 * (0.3 - np.sqrt(x**2 + y**2 + z**2))).astype(np.float32)
    figures = [
        nb12.still_life([ball], ["ball"], [0, 90, 180], size=48),
        nb12.density_slices(grid, 1.0, 0.0),
    ]
    for figure in figures:
        figure.canvas.draw()
        assert np.asarray(figure.canvas.buffer_rgba())[..., :3].std() > 5, "the figure is blank"
        mpl.pyplot.close(figure)


def test_sliders_show_what_their_function_draws() -> None:
    def draw(*values: float) -> np.ndarray:
        return np.full((4, 4, 3), int(100 + 10 * sum(values)), np.uint8)

    level = widgets.sliders(draw, {"level (sigma)": widgets.Range(0.0, 10.0, 0.25, 5.0)})
    assert level.picture.value == to_png(draw(5.0))
    level.sliders["level (sigma)"].value = 8.0
    assert level.picture.value == to_png(draw(8.0))
    scrub = widgets.scrubber(draw)
    scrub.sliders["t: A to B"].value = 1.0
    assert scrub.picture.value == to_png(draw(1.0))
    many = widgets.sliders(draw, {name: widgets.Range(-3, 3, 0.25, 0) for name in ("one", "two")})
    many.sliders["two"].value = -2.0
    assert many.picture.value == to_png(draw(0.0, -2.0))
    refuses("at least one slider", widgets.sliders, draw, {})


def test_eye_stands_on_the_side_asked_for() -> None:
    front, back = nb12._eye(0.0), nb12._eye(math.pi)
    assert front[2] > 0 > back[2]
    assert cameras.orbit(math.pi)[0, 11] < 0
