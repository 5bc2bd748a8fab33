"""Planes fitted to toy heads, and to images: a head is learned, stored, and taken for a generator."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from helpers import refuses

from head3d_core import cli
from head3d_core.experiments import fit_planes, toys
from head3d_core.geometry import mesh, turntable
from head3d_core.model import cameras


def _ball_views(count: int = 8, side: int = 16) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A red ball of radius 0.2 seen from all around, in closed form."""
    from head3d_core.model.rays import camera_rays

    camera = cameras.orbit(2 * math.pi * torch.arange(count) / count, 0.1)
    origins, directions = camera_rays(camera, side)
    along = (origins * directions).sum(-1, keepdim=True)
    inside = ((origins - along * directions).norm(dim=-1) < 0.2).float().unflatten(1, (side, side))
    images = torch.ones(count, 3, side, side)
    images[:, 1:] -= 2 * inside[:, None]
    return images, inside, camera


@pytest.mark.native
def test_a_ball_is_learned_stored_and_meshed(tmp_path: Path) -> None:
    images, opacity, camera = _ball_views()
    head, losses = fit_planes.fit((images, opacity, camera), steps=120, rays=1024)
    assert losses[-1] < 0.15 * losses[0]
    planes = head.planes(head.codes)
    with torch.no_grad():
        seen = head.render(planes, head.codes, camera[2:3], 16)
    assert float((seen.opacity[0, 0] - opacity[2]).abs().mean()) < 0.1
    assert float((seen.image[0] - images[2]).abs().mean()) < 0.25
    again = fit_planes.load(fit_planes.save(head, tmp_path / "ball.safetensors", {"seed": 1}))
    assert fit_planes.notes(tmp_path / "ball.safetensors") == {"seed": 1}
    assert torch.allclose(again.fitted, head.fitted, atol=1e-2)
    frames = turntable.frames(again, again.codes, 3)
    assert frames.shape == (3, 128, 128, 3)
    with torch.no_grad():
        middle = float(head.query(planes, torch.zeros(1, 1, 3))[0])
    ball = mesh.extract_mesh(again, again.codes, 48, level=min(2.0, middle / 2))
    assert ball.extents == pytest.approx([0.4, 0.4, 0.4], abs=0.12)


def test_samples_along_rays_are_drawn_when_seeds_are_given() -> None:
    head = fit_planes.FittedHead()
    planes, camera = head.planes(head.codes), cameras.orbit(0.3, 0.0)
    with torch.no_grad():
        fixed, one, again, other = (
            head.render(planes, head.codes, camera, 8, seeds=seeds).image
            for seeds in (None, *(torch.tensor([seed]) for seed in (1, 1, 2)))
        )
    assert torch.equal(one, again)
    assert not torch.equal(one, fixed)
    assert not torch.equal(one, other)


def test_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refuses("no fit at", fit_planes.load, "nobody")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"nothing")
    refuses("damaged", fit_planes.load, broken)
    refuses("at least one step", fit_planes.fit, _ball_views(2, 8), 0)
    assert cli.main(["fit", "--out", str(tmp_path / "a.png")]) == 1
    assert "a fit ends in .safetensors" in capsys.readouterr().err


@pytest.mark.opengl
def test_views_fill_their_range() -> None:
    _, opacity, camera = fit_planes.draw_views(fit_planes.FitArgs(views="front", count=6), 32)
    yaw, pitch = (torch.rad2deg(a) for a in cameras.yaw_pitch(camera))
    assert float(yaw.abs().max()) <= fit_planes.FRONT_YAW
    assert float(pitch.abs().max()) <= 25.1
    assert 0.1 < float(opacity.mean()) < 0.9


@pytest.mark.opengl
def test_distance_from_the_true_head_by_side() -> None:
    wrong = fit_planes.FittedHead()
    with torch.no_grad():
        wrong.decoder.net["2"].bias[0] = 30.0  # a solid cube
    found = fit_planes.surface_by_side(wrong, 1006)
    assert set(found) == {"front", "behind"}
    assert found["front"]["chamfer"] > 0.05


def test_field_is_solid_inside_and_empty_outside() -> None:
    points = torch.tensor([[0.0, 0, 0], [0.0, 0, 0.45], [0.0, 0.25, 0.0], [0.0, -0.03, 0.26]])
    sigma, rgb = toys.toy_field(toys.TOY_A, points)
    assert [bool(s > 1) for s in sigma[:, 0]] == [True, False, True, True]
    assert torch.allclose(rgb[2], torch.tensor(toys.TOY_A.hair))
    assert rgb.min() >= 0
    assert rgb.max() <= 1
    front, back = toys.toy_field(toys.TOY_A, torch.tensor([[0.0, 0.05, 0.2], [0.0, 0.05, -0.2]]))[1]
    assert not torch.allclose(front, back), "at the back, hair reaches lower"


def test_fit_reproduces_the_shape_and_eg3d_axes_do_worse() -> None:
    heads = [toys.TOY_A, toys.TOY_B]
    fits = {axes: toys.fit_planes(heads, axes, steps=200) for axes in ("xyz", "eg3d")}
    wrong = {axes: float(toys.field_error(fit, heads).mean()) for axes, fit in fits.items()}
    assert wrong["xyz"] < 0.03
    assert wrong["eg3d"] > 1.3 * wrong["xyz"]
    picture = fits["xyz"].render(cameras.orbit(torch.zeros(2)), 16)
    assert picture.opacity[:, 16 * 8 + 8].min() > 0.9
    assert picture.opacity[:, 0].max() < 0.1


def test_fit_is_seeded_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    a = toys.fit_planes([toys.TOY_A], steps=3)
    b = toys.fit_planes([toys.TOY_A], steps=3)
    assert torch.equal(a.planes, b.planes)
    assert torch.equal(torch.get_rng_state(), before)
    refuses("at least one", toys.fit_planes, [])
