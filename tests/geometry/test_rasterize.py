"""Triangles to pixels against a loop over pixels, and pictures of meshes."""

from __future__ import annotations

import math

import numpy as np
import torch
import trimesh
from helpers import refuses

from head3d_core.geometry import rasterize
from head3d_core.model import cameras


def test_rasterise_agrees_with_a_loop() -> None:
    rng = np.random.default_rng(0)
    place = rng.uniform(-4, 20, (12, 2))
    triangles = rng.permutation(12).reshape(4, 3)
    covered = rasterize.rasterise(place, triangles, 16)
    pairs = zip(covered.pixel.tolist(), covered.corner.tolist(), strict=True)
    found = {(*pixel, tuple(sorted(corner))) for pixel, corner in pairs}
    expected = set()
    for corners in triangles:
        a, b, c = place[corners]
        for row in range(16):
            for column in range(16):
                w = np.linalg.solve(np.array([[*a, 1], [*b, 1], [*c, 1]]).T, [column, row, 1])
                if (w >= 0).all():
                    expected.add((row, column, tuple(sorted(corners.tolist()))))
    assert found == expected
    assert len(expected) > 30
    assert np.allclose(covered.interpolate(place), covered.pixel[:, ::-1], atol=1e-6)
    assert np.allclose(covered.weight.sum(1), 1)


def test_nothing_in_the_picture() -> None:
    covered = rasterize.rasterise(np.array([[30.0, 30], [40, 30], [30, 40]]), np.array([[0, 1, 2]]), 16)
    assert covered.pixel.shape == (0, 2)


def _ball(place: tuple[float, float, float], colour: tuple[int, int, int, int]) -> trimesh.Trimesh:
    ball = trimesh.creation.icosphere(radius=0.1)
    ball.apply_translation(place)
    ball.visual = trimesh.visual.ColorVisuals(ball, vertex_colors=np.tile(colour, (len(ball.vertices), 1)))
    return ball


def _two_balls() -> trimesh.Trimesh:
    red, blue = (255, 0, 0, 255), (0, 0, 255, 255)
    return trimesh.util.concatenate([_ball((0.15, 0, -0.2), blue), _ball((0, 0, 0.2), red)])


def test_the_nearer_surface_is_seen_and_left_is_left() -> None:
    balls = _two_balls()
    front = rasterize.mesh_picture(balls, cameras.orbit(0.0), 64)
    assert front[:, 32, 32].tolist()[0] > 0.5 > front[:, 32, 32].tolist()[2], "red in the middle"
    assert front[2, 32, 50] > front[0, 32, 50], "blue to the right, where +x is from the front"
    back = rasterize.mesh_picture(balls, cameras.orbit(math.pi), 64)
    assert back[2, 32, 14] > back[0, 32, 14], "and to the left from behind"
    assert bool((front[:, 0, 0] == 1).all()), "white behind"


def test_grey_shows_shape_only() -> None:
    picture = rasterize.mesh_picture(_two_balls(), cameras.orbit(0.0), 32, coloured=False)
    assert torch.equal(picture[0], picture[1])
    assert torch.equal(picture[0], picture[2])
    assert float(picture.min()) < 0.5


def test_one_camera_only() -> None:
    refuses("one camera", rasterize.mesh_picture, _two_balls(), cameras.orbit(torch.tensor([0.0, 1.0])))
