"""Parametric head models: registration, principal components, auto-decoding, drawing, pictures, the command."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from helpers import refuses, visible
from PIL import Image

import manifest
from head3d_core.experiments import implicit, parametric
from head3d_core.experiments.head_scans import Array, Surface, Views, draw, scan, scan_cameras
from head3d_core.experiments.implicit import ImplicitConfig, ImplicitHeads, implicit_surface
from head3d_core.experiments.morphable import fit_morphable, registered
from head3d_core.utils import images

RADIUS = 0.2


def ball_views(side: int = 64, radius: float = RADIUS) -> Views:
    """A red ball at the origin, seen by every camera of a scan: depth in closed form."""
    cameras = scan_cameras()
    middle = (np.arange(side) + 0.5) / side
    u, v = np.meshgrid(middle, middle)
    depths = []
    for camera in cameras.astype(np.float64):
        pose, lens = camera[:16].reshape(4, 4), camera[16:].reshape(3, 3)
        rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(lens).T @ pose[:3, :3].T
        rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
        b, c = rays @ pose[:3, 3], pose[:3, 3] @ pose[:3, 3] - radius**2
        root = b * b - c
        depths.append(np.where(root > 0, -b - np.sqrt(np.maximum(root, 0)), 0))
    depth = np.stack(depths).astype(np.float32)
    hit = depth > 0
    rgb = np.where(hit[..., None], np.array([204, 51, 51]), 255).astype(np.uint8)
    return Views(cameras, rgb, np.where(hit, 255, 0).astype(np.uint8), depth)


def icosphere(radius: float, colour: tuple[float, float, float]) -> Surface:
    ball = trimesh.creation.icosphere(4, radius)
    colours = np.tile(np.float32(colour), (len(ball.vertices), 1))
    return Surface(np.float32(ball.vertices), np.int32(ball.faces), colours)


def ball_points(radius: float, colour: tuple[float, float, float], count: int = 4000) -> Array:
    rng = np.random.default_rng(int(radius * 1000))
    direction = rng.standard_normal((count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    near = rng.random(count) < 0.7
    distance = np.where(near, rng.normal(0, 0.015, count), rng.uniform(-radius, 0.1, count))[:, None]
    rows = [direction * (radius + distance), distance, np.tile(colour, (count, 1))]
    return np.concatenate(rows, 1).astype(np.float32)


def test_views_find_the_pixel_that_sees_a_point() -> None:
    views = ball_views()
    points, colours = views.surface()
    assert np.linalg.norm(points, axis=1) == pytest.approx(RADIUS, abs=1e-4)
    assert colours == pytest.approx(np.tile([0.8, 0.2, 0.2], (len(points), 1)), abs=1e-6)
    (_, row, column), seen, distance = views.pixels(np.array([[0.001, -0.001, 0.001], [0.0, 0.0, 900.0]]))
    assert np.abs(row[:, 0] - 32).max() <= 1
    assert np.abs(column[:, 0] - 32).max() <= 1
    assert seen[:, 0].all()
    assert distance[:, 0] == pytest.approx(2.7, abs=0.002)
    assert not seen[0, 1]  # behind the camera in front


def test_carving_tells_inside_from_outside() -> None:
    views = ball_views()
    rng = np.random.default_rng(0)
    points = rng.uniform(-0.28, 0.28, (2000, 3))
    length = np.linalg.norm(points, axis=1)
    empty, unseen = views.carved(points)
    assert not unseen.any()
    assert empty[length > RADIUS + 0.02].all()
    assert not empty[length < RADIUS - 0.01].any()
    assert views.carved(np.array([[-1.0, 1.1, 0.1], [0.0, 0.0, 900.0]]))[1].tolist() == [True, False]


def test_points_of_a_ball_have_its_distances() -> None:
    points, distances, colours = np.split(implicit.head_points(ball_views(), 4000), [3, 4], 1)
    true = np.linalg.norm(points, axis=1) - RADIUS
    near = np.abs(true) < 0.1
    assert len(points) > 3000
    assert np.median(np.abs(distances[:, 0] - true)[near]) < 0.004
    clear = near & (np.abs(true) > 0.008)
    assert (np.sign(distances[:, 0]) == np.sign(true))[clear].mean() > 0.99
    assert colours == pytest.approx(np.tile([0.8, 0.2, 0.2], (len(points), 1)), abs=1e-5)


def test_principal_components_write_what_they_were_made_of() -> None:
    heads = [icosphere(r, (r, 0.5, 1 - r)) for r in (0.15, 0.2, 0.22, 0.25)]
    model = fit_morphable(heads)
    assert len(model.axes) == 3
    codes = np.stack([model.encode(h, noise=0.0) for h in heads])
    assert codes[:, 0].std(ddof=1) == pytest.approx(1, abs=1e-3)  # unit variance over the training heads
    assert codes[:, 0].mean() == pytest.approx(0, abs=1e-4)
    for head, code in zip(heads, codes, strict=True):
        again = model.surface(code)
        assert again.vertices == pytest.approx(head.vertices, abs=1e-4)
        assert again.colours == pytest.approx(head.colours, abs=1e-3)
    held = model.encode(heads[0], noise=2.0)
    assert np.abs(held).sum() < np.abs(codes[0]).sum(), "a ridge draws codes to the mean"
    middle = model.encode(icosphere(0.21, (0.21, 0.5, 0.79)), noise=0.0)
    assert np.linalg.norm(model.surface(middle).vertices, axis=1) == pytest.approx(0.21, abs=1e-3)


@pytest.fixture(scope="module")
def balls() -> ImplicitHeads:
    """A small implicit model of balls whose redness grows with their radius."""
    radii = np.linspace(0.14, 0.26, 6)
    heads = [ball_points(float(r), (float(2 * r), 0.3, 0.3)) for r in radii]
    sizes = {"code": 4, "width": 32, "depth": 2, "moving_width": 16, "octaves": 2, "points_per_head": 256}
    config = ImplicitConfig(**sizes, steps=500, finishing_steps=50, heads_per_step=6, rate=5e-3)
    return implicit.train_implicit(heads, config)


def test_implicit_model_learns_its_heads(balls: ImplicitHeads) -> None:
    surface = implicit_surface(balls, balls.codes[3], 48)
    length = np.linalg.norm(surface.vertices, axis=1)
    assert length.mean() == pytest.approx(0.212, abs=0.01)
    assert surface.colours[:, 0].mean() == pytest.approx(0.424, abs=0.06)
    first, second, third = surface.vertices[surface.triangles].swapaxes(0, 1)
    area = np.cross(second - first, third - first)
    middle = surface.vertices[surface.triangles].mean(1)
    assert ((area * middle).sum(1) > 0).mean() > 0.98  # triangles face outwards


def test_implicit_model_fits_a_head_it_has_not_seen(balls: ImplicitHeads) -> None:
    code = implicit.fit_code(balls, ball_points(0.18, (0.36, 0.3, 0.3)), steps=150)
    length = np.linalg.norm(implicit_surface(balls, code, 48).vertices, axis=1)
    assert length.mean() == pytest.approx(0.18, abs=0.015)


def test_codes_are_drawn_from_the_training_codes_gaussian(balls: ImplicitHeads) -> None:
    codes = balls.sample_codes(4000, 0)
    assert codes.mean(0).numpy() == pytest.approx(balls.codes.mean(0).numpy(), abs=0.1)
    covariance = np.cov(balls.codes.numpy().T)
    assert np.cov(codes.numpy().T) == pytest.approx(covariance, abs=0.1 * np.trace(covariance))
    assert torch.equal(balls.sample_codes(3, 7), balls.sample_codes(3, 7))


def test_the_implicit_model_is_trained_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def train(points: list[Array], config: ImplicitConfig, *_: object) -> ImplicitHeads:
        calls.append(config.steps)
        return ImplicitHeads(config, len(points)).requires_grad_(False)

    monkeypatch.setattr(implicit, "train_implicit", train)
    monkeypatch.setattr(parametric, "points_of", lambda work, seed: ball_points(0.2, (0.5, 0.5, 0.5)))
    args = parametric.ParametricArgs(work=tmp_path, steps=100)
    first, seconds = parametric._implicit(args, [0, 1])
    again, kept_seconds = parametric._implicit(args, [0, 1])
    assert calls == [100]
    assert kept_seconds == seconds
    kept = again.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in first.state_dict().items())
    other, _ = parametric._implicit(dataclasses.replace(args, steps=200), [0, 1])
    assert calls == [100, 200]
    assert not torch.equal(other.codes, first.codes)


def test_implicit_refuses() -> None:
    config = ImplicitConfig(code=2, width=8, depth=1, moving_width=4, octaves=1, steps=100)
    broken = ball_points(0.2, (math.nan, 0.0, 0.0))
    refuses("loss is nan", implicit.train_implicit, [broken, broken], config)


def test_a_drawn_ball_is_where_it_should_be() -> None:
    views = draw(icosphere(RADIUS, (0.8, 0.2, 0.2)), scan_cameras()[:3], 64)
    truth = ball_views()
    for k in range(3):
        a, b = views.mask[k] > 127, truth.mask[k] > 127
        assert (a & b).sum() / (a | b).sum() > 0.97
        inside = (views.depth[k] > 0) & (truth.depth[k] > 0)
        steep = truth.depth[k] > 2.6  # the rim, where a pixel holds much depth
        assert np.abs(views.depth[k] - truth.depth[k])[inside & ~steep].max() < 0.005
    assert tuple(views.rgb[0, 32, 32]) == (204, 51, 51)
    assert tuple(views.rgb[0, 0, 0]) == (255, 255, 255)
    true = Views(*(part[:3] for part in vars(truth).values()))
    error = parametric.view_errors([views] * 2, [true] * 2)
    assert error["silhouette_iou"]["value"] > 0.97
    assert error["colour_error"]["value"] < 0.01
    broken = icosphere(math.nan, (0.5, 0.5, 0.5))
    refuses("not finite", draw, broken, size=16)


@pytest.mark.opengl
def test_a_registered_head_looks_like_its_scan(tmp_path: Path) -> None:
    """Long hair, the hardest case: the mesh covers what the scan covers, and colours agree."""
    training, shown = scan(tmp_path, 4)
    views = [draw(registered(4, training))]
    error = parametric.view_errors(views * 2, [shown] * 2)
    assert error["silhouette_iou"]["value"] > 0.9
    assert error["depth_error"]["value"] < 0.02
    assert error["colour_error"]["value"] < 0.09


def test_sheets_come_back_as_they_went(tmp_path: Path) -> None:
    pictures = np.zeros((4, 3, 16, 16, 3), np.uint8)  # flat colours that say which head and which view
    pictures[..., 0] = 40 * np.arange(4)[:, None, None, None]
    pictures[..., 1] = 100 * np.arange(3)[:, None, None]
    sheet = images.montage(images.from_pixels(pictures.reshape(12, 16, 16, 3)), 3)
    parametric.save_sheet(sheet, tmp_path / "parametric_explicit.jpg")
    again = parametric.recorded("explicit", tmp_path)
    assert again.shape == pictures.shape
    assert np.abs(again.astype(int) - pictures).mean() < 8
    refuses("not recorded yet", parametric.recorded, "implicit", tmp_path)


def write_renders(folder: Path, head: str, views: tuple[str, ...] = ("front", "side", "back")) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for k, view in enumerate(views):
        picture = np.zeros((40, 40, 4), np.uint8)
        picture[:20] = (10 * k, 0, 0, 255)
        Image.fromarray(picture).save(folder / f"{head}_{view}.png")


def test_a_readers_own_renders(tmp_path: Path) -> None:
    assert parametric.external_pictures(tmp_path / "nowhere") == {}
    for head in ("b", "a"):
        write_renders(tmp_path / "external" / "LYHM", head)
    assert manifest.problems(tmp_path) == [], "they are no part of the data"
    (tmp_path / "external" / ".cache").mkdir()  # hidden: no model
    found = parametric.external_pictures(tmp_path / "external", 20)
    assert list(found) == ["LYHM"]
    assert found["LYHM"].shape == (2, 3, 20, 20, 3)
    assert tuple(found["LYHM"][0, 2, 2, 2]) == (20, 0, 0)  # back, opaque half
    assert tuple(found["LYHM"][0, 2, 17, 2]) == (255, 255, 255)  # transparency is white
    assert parametric.external_pictures(tmp_path / "external" / "LYHM") == {}


def test_incomplete_renders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "DECA").mkdir()
    refuses("lacks <head>_front", parametric.external_pictures, tmp_path)
    write_renders(tmp_path / "DECA", "a", ("front", "side"))
    refuses(r"lacks a_back\.png", parametric.external_pictures, tmp_path)
    (tmp_path / "DECA" / "a_back.png").write_bytes(b"no picture")
    refuses("not an image", parametric.external_pictures, tmp_path)
    Image.new("RGB", (20, 30)).save(tmp_path / "DECA" / "a_back.png")
    refuses("must be square", parametric.external_pictures, tmp_path)


def test_figure7_shows_head3d_beside_the_recorded_models(tmp_path: Path) -> None:
    write_renders(tmp_path / "LYHM", "a")
    shown = parametric.figure7(visible(), 1, tmp_path)
    assert list(shown) == [*parametric.MODELS.values(), "LYHM", "Head3D"]
    assert all(p.shape[:2] == (1, 3) and p.dtype == np.uint8 for p in shown.values())
    refuses("at least one head", parametric.figure7, None, 0, tmp_path)


@pytest.mark.parametrize("wrong", [{"heads": 2}, {"heads": 51}, {"held_out": 1}, {"samples": 3}])
def test_the_command_refuses_impossible_counts(wrong: dict[str, int], tmp_path: Path) -> None:
    args = dataclasses.replace(parametric.ParametricArgs(work=tmp_path, out=tmp_path), **wrong)  # type: ignore[arg-type]
    refuses("heads", parametric.record, args)
