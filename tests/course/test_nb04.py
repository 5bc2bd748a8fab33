"""The numbers behind the figures of notebook 04."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers import refuses

from head3d_core.course import nb04
from head3d_core.model import cameras
from head3d_core.synth import sets
from head3d_core.synth.identity import identity
from head3d_core.synth.light import Light, sample_light


def test_views_and_back_share() -> None:
    camera = cameras.orbit(torch.deg2rad(torch.tensor([0.0, -44.0, 46.0, -134.0, 136.0, -179.0])))
    assert nb04.views_by_side(camera) == [2, 2, 2]
    yaw = torch.tensor([math.pi, 3 * math.pi, 0.0, 2 * math.pi, math.radians(134.9)])
    assert nb04.share_of_back_views(yaw) == pytest.approx(0.4)


def test_the_two_sets_are_unbalanced_as_the_paper_needs() -> None:
    assert nb04.views_by_side(nb04.set_cameras("faces", 200)) == [200, 0, 0]
    front, side, back = nb04.views_by_side(nb04.set_cameras("heads", 480))
    assert (front / 480, side / 480, back / 480) == pytest.approx((0.25, 0.5, 0.25), abs=0.03)


def test_nearest_view_shows_the_closest_picture() -> None:
    camera = cameras.orbit(torch.tensor([0.0, 2.0, -2.0]))
    images = torch.arange(3, dtype=torch.uint8)[:, None, None, None].expand(3, 3, 4, 5)
    draw = nb04.nearest_view(images, camera)
    assert draw(0.1, 0.3).shape == (4, 5, 3)
    assert [int(draw(yaw, 0.0)[0, 0, 0]) for yaw in (0.2, 1.5, -1.5, 2 * math.pi - 1.9)] == [0, 1, 2, 2]
    refuses("one camera per picture", nb04.nearest_view, images[:0], camera)


def test_light_ball() -> None:
    """Even light gives a flat disc of the right grey; a key light brightens the side that it comes from."""
    sky = np.zeros((9, 3), np.float32)
    sky[0] = 3.544907  # radiance 1 from everywhere
    dark = np.zeros(3, np.float32)
    even, mask = nb04.light_ball(Light(sky, np.array([0, 0, 1], np.float32), dark, 1.0))
    inside = even[:, mask > 0]
    assert inside.min() == inside.max() == round(255 * 0.2 ** (1 / 2.2))
    assert (even[:, mask == 0] == 255).all()
    right = np.array([1, 0, 0], np.float32)
    lit, mask = nb04.light_ball(Light(sky, right, np.full(3, 0.5, np.float32), 1.0))
    assert nb04.side_light.truth(nb04.brightness(lit), mask).item() < -0.05
    assert lit[0, 32, 60] > lit[0, 32, 4] == even[0, 32, 4]


def test_the_faces_are_lit_from_one_side_more_than_the_heads() -> None:
    sets_of = {name: [sample_light(seed, name) for seed in range(50)] for name in ("faces", "heads")}
    found = {name: nb04.one_sidedness(lights, nb04.side_light.truth) for name, lights in sets_of.items()}
    assert found["faces"].mean() > 1.4 * found["heads"].mean()


def test_people_facts() -> None:
    facts = nb04.people_facts([identity(seed, "heads") for seed in range(50)])
    assert facts["men"] == 0.5
    assert facts["worn"] == 0
    assert facts["styles"] > 10


def test_figures_can_be_drawn() -> None:
    import matplotlib.pyplot as plt

    faces, heads = nb04.set_cameras("faces", 50), nb04.set_cameras("heads", 50)
    rates = {"by |yaw|": {"0 to 15": {"rate": 1.0, "low": 0.9, "high": 1.0}}}
    for figure, axes in (
        (nb04.angle_map(faces, heads), 1),
        (nb04.side_bars({"faces": [2, 0, 0], "heads": [1, 2, 1]}), 2),
        (nb04.detector_curve(rates), 1),
    ):
        assert len(figure.axes) == axes
        plt.close(figure)
    plotly = nb04.camera_sphere(faces, heads)
    assert [len(trace.x) for trace in plotly.data] == [50, 50, 2]
    assert len(sets.SETS) == 5
