"""Figures and widgets: the pure functions behind them."""

from __future__ import annotations

import math

import matplotlib as mpl
import numpy as np
import torch

from head3d_core.course import figures as plots
from head3d_core.course import nb00, nb01, nb02, widgets
from head3d_core.model import cameras, volume


def test_rounded_has_no_negative_zero() -> None:
    text = str(plots.rounded(torch.tensor([[-1e-9, 0.12345], [2.0, -0.5]])))
    assert text == "[[0.0, 0.123], [2.0, -0.5]]"


def test_within_hides_what_differs_between_machines() -> None:
    assert plots.within(torch.tensor([1e-8, -3e-7]), 1e-6) == "below 1e-06"
    assert plots.within(-0.02, 1e-6) == "2e-02"


def test_ray_image_is_row_major() -> None:
    features = torch.arange(4.0)[:, None].expand(4, 5)
    assert nb02.ray_image(features)[0].tolist() == [[0, 1], [2, 3]]


def test_frustum_starts_at_the_camera_and_looks_at_the_origin() -> None:
    camera = cameras.orbit(0.7, 0.2)[0]
    lines = plots.frustum_lines(camera)
    eye = camera[[3, 7, 11]].numpy()
    assert any(np.allclose(point, eye, atol=1e-6) for point in lines)
    corners = lines[:4]
    towards = corners.mean(0) - eye
    assert np.allclose(towards / np.linalg.norm(towards), -eye / np.linalg.norm(eye), atol=1e-5)


def test_figures_are_drawn() -> None:
    camera = cameras.orbit(torch.tensor([0.0, 1.0]))
    depths = volume.stratified_depths(torch.tensor([[1.0]]), torch.tensor([[2.0]]), 8)
    sigma = torch.linspace(-2, 9, 8)
    march = volume.march(torch.rand(1, 1, 8, 3), sigma[None, None, :, None], depths)
    figures = [
        nb01.rays_from_above(camera, ["a", "b"]),
        nb02.plane_grid(torch.randn(3, 2, 8, 8), ("xy", "xz", "yz")),
        plots.image_grid([torch.zeros(3, 4, 4)] * 3, ["x"], columns=2),
        nb02.march_profile(depths[0, 0], sigma, march.weights[0, 0]),
        nb00.course_map({"00": ("start", []), "01": ("cameras", ["00"]), "02": ("planes", ["00", "01"])}),
    ]
    for figure in figures:
        figure.canvas.draw()
        pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]
        assert pixels.std() > 5, "the figure is blank"
        mpl.pyplot.close(figure)
    assert len(nb01.frustums(camera, ["a", "b"]).data) == 8


def test_axes_view_points_at_the_viewer() -> None:
    def spread(colour: tuple[int, int, int], yaw: float) -> float:
        picture = nb01.axes_view(yaw, 0.3).astype(int)
        where = np.argwhere(np.abs(picture - colour).sum(-1) < 30)
        return float(np.ptp(where[:, 1]))

    red, blue = (0xD5, 0x5E, 0x00), (0x00, 0x72, 0xB2)
    assert spread(blue, 0.0) < spread(red, 0.0)
    assert spread(red, math.pi / 2) < spread(blue, math.pi / 2)


def test_orbit_viewer_shows_what_its_function_draws() -> None:
    def draw(yaw: float, pitch: float) -> np.ndarray:
        value = int(127 + 40 * yaw + 40 * pitch)
        return np.full((8, 8, 3), value, np.uint8)

    box = widgets.orbit_viewer(draw, size=16)
    assert box.picture.value == widgets.to_png(draw(0, 0), 16)
    box.sliders["yaw (°)"].value = 90
    assert box.picture.value == widgets.to_png(draw(math.pi / 2, 0), 16)
    box.sliders["pitch (°)"].value = -30
    assert box.picture.value == widgets.to_png(draw(math.pi / 2, -math.pi / 6), 16)


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


def test_stored_heads_turn() -> None:
    turn = nb00.stored_turn()
    assert turn(0).shape == (256, 512, 3)
    assert np.array_equal(turn(-90), turn(270))
    front, side = turn(0).astype(int), turn(90).astype(int)
    assert np.abs(front - side).mean() > 5
    behind = turn(180).astype(int)[:, :256], turn(180).astype(int)[:, 256:]
    assert np.abs(behind[0] - behind[1]).mean() > 5, "two different backs"
    fronts = front[:, :256], front[:, 256:]
    assert np.abs(fronts[0] - fronts[1]).mean() < np.abs(behind[0] - behind[1]).mean()
