"""Clouds of points: where they stand, and how far two of them are apart."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from helpers import refuses

from head3d_core.experiments import toys
from head3d_core.geometry import pointclouds
from head3d_core.model import cameras
from tests.toy_generator import toy_generator


def _ball(radius: float, count: int = 4000, shift: float = 0.0) -> pointclouds.Cloud:
    normals = torch.nn.functional.normalize(
        torch.randn(count, 3, generator=torch.Generator().manual_seed(1)), dim=1
    )
    return pointclouds.Cloud(radius * normals + torch.tensor([shift, 0, 0]), normals, torch.zeros(count, 3))


def test_depth_one_is_one_away_along_every_ray() -> None:
    camera = cameras.orbit(torch.tensor([0.3, -1.0]), 0.2)
    depth = torch.full((2, 1, 5, 5), 2.7)
    points = pointclouds.depth_to_points(depth, camera)
    assert points.shape == (2, 5, 5, 3)
    assert torch.allclose((points - camera[:, None, None, [3, 7, 11]]).norm(dim=-1), depth[:, 0], atol=1e-5)
    assert points[:, 2, 2].norm(dim=-1).max() < 1e-5, "the middle ray ends in the origin"


def test_the_toys_cloud_lies_on_the_toy() -> None:
    G = toy_generator()
    planes = G.planes(G.codes)
    cloud = pointclouds.model_cloud(G, planes, pointclouds.look_around(6), 32)
    assert len(cloud) > 2000
    relative = (cloud.points / torch.tensor(toys.TOY_A.radii)).norm(dim=-1)
    skull = cloud.points[:, 2] < 0.1  # away from the nose
    assert float((relative[skull] - 1).abs().median()) < 0.12
    outward = torch.nn.functional.normalize(cloud.points / torch.tensor(toys.TOY_A.radii).square(), dim=1)
    assert float((outward * cloud.normals).sum(1)[skull].median()) > 0.95
    crown = cloud.points[:, 1] > 0.2
    assert float((cloud.colours[crown].median(0).values - torch.tensor(toys.TOY_A.hair)).abs().max()) < 0.15


def test_normal_image_points_at_the_camera() -> None:
    G = toy_generator()
    planes = G.planes(G.codes)
    camera = cameras.orbit(math.pi / 2)
    raw = G.render_raw(planes, camera, 32)
    picture = pointclouds.normal_image(G, planes, raw, camera)
    assert picture.shape == (1, 3, 32, 32)
    assert picture[0, 0, 16, 16] > 0.8, "from the side the middle of the head faces +x"
    assert picture[0, :, 0, 0].tolist() == [1, 1, 1], "nothing is white"


def test_surface_error_of_balls() -> None:
    same = pointclouds.surface_error(_ball(0.3), _ball(0.3))
    assert same.chamfer == 0
    assert same.normal_degrees == pytest.approx(0, abs=0.02)
    bigger = pointclouds.surface_error(_ball(0.33), _ball(0.3))
    assert bigger.chamfer == pytest.approx(0.03, abs=1e-3)
    moved = pointclouds.surface_error(_ball(0.3, shift=0.05), _ball(0.3))
    assert 0.015 < moved.chamfer < 0.05
    assert moved.normal_degrees > 3
    inside_out = replace(_ball(0.3), normals=-_ball(0.3).normals)
    assert pointclouds.surface_error(inside_out, _ball(0.3)).normal_degrees == pytest.approx(180, abs=0.02)


def test_a_half_is_accurate_but_not_complete() -> None:
    whole = _ball(0.3)
    front = whole.points[:, 2] > 0
    half = pointclouds.Cloud(whole.points[front], whole.normals[front], whole.colours[front])
    found = pointclouds.surface_error(half, whole)
    assert found.accuracy == 0
    assert found.completeness > 0.05


def test_thinned_is_repeatable() -> None:
    ball = _ball(0.3)
    assert len(ball.thinned(100)) == 100
    assert torch.equal(ball.thinned(100).points, ball.thinned(100).points)


def test_bad_input() -> None:
    refuses("depth must be", pointclouds.depth_to_points, torch.zeros(2, 1, 4, 4), cameras.orbit(0.0))
    empty = pointclouds.Cloud(torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0, 3))
    refuses("0 and 4000 points", pointclouds.surface_error, empty, _ball(0.3))


@pytest.mark.opengl
def test_true_cloud_is_a_head() -> None:
    cloud = pointclouds.true_cloud(1000, pointclouds.look_around(4), 32)
    assert len(cloud) > 1000
    assert float(cloud.points.abs().max()) < 0.75
    around = cloud.points[cloud.points[:, 1].abs() < 0.1]
    assert around[:, 2].min() < -0.1 < 0.1 < around[:, 2].max(), "front and back"
    outward = torch.nn.functional.normalize(around * torch.tensor([1.0, 0, 1]), dim=1)
    facing = cloud.normals[cloud.points[:, 1].abs() < 0.1]
    assert float((outward * facing).sum(1).median()) > 0.5
    itself = pointclouds.surface_error(cloud, pointclouds.true_cloud(1000, pointclouds.look_around(5), 32))
    other = pointclouds.surface_error(cloud, pointclouds.true_cloud(1003, pointclouds.look_around(4), 32))
    assert itself.chamfer < other.chamfer
