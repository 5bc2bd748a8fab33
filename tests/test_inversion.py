"""Codes and cameras found again from pictures of a generator whose answers are known."""

from __future__ import annotations

import math

import pytest
import torch

from head3d_core import cameras, inversion, latent
from head3d_core.config import preset
from head3d_core.errors import Head3DError
from head3d_core.generator import Generator
from head3d_core.inversion import InversionOptions
from tests.toy_generator import toy_generator


@pytest.fixture(scope="module")
def G() -> Generator:
    torch.manual_seed(0)
    G = Generator(preset("tiny").generator).eval()
    with torch.no_grad():  # an untrained generator is fog: let it stand out from the background
        G.backbone.synthesis.b32.torgb.weight.mul_(6)
    return G


@pytest.fixture(scope="module")
def picture(G: Generator) -> torch.Tensor:
    with torch.no_grad():
        return G.render_raw(G.planes(latent.ws_of_seeds(G, [5])), cameras.orbit(0.0)).raw


def test_codes_come_closer_and_layers_closer_still(G: Generator, picture: torch.Tensor) -> None:
    seen: list[int] = []
    options = InversionOptions(steps=30, layer_steps=30, pull=0.0)
    found = inversion.invert(
        G,
        picture,
        cameras.orbit(0.0),
        options,
        watch=lambda k, ws: seen.append(k),
        progress=lambda d, t: None,
    )
    loss = [s.loss for s in found.history]
    assert [s.stage for s in found.history] == ["w"] * 30 + ["layers"] * 30
    assert loss[29] < 0.5 * loss[0]
    assert loss[-1] < loss[29]
    assert seen == [*range(61)][:30] + [*range(30, 61)]
    assert torch.equal(found.w[0, 0], found.w[0, -1]), "w is one code"
    assert not torch.equal(found.ws[0, 0], found.ws[0, -1])
    assert torch.equal(found.camera, cameras.orbit(0.0))
    assert all(p.requires_grad for p in G.parameters()), "the generator is given back as it was"
    near = inversion.view_errors(G, found.ws, picture, cameras.orbit(0.0), cameras.orbit(0.0))
    mean = inversion.w_statistics(G)[0].expand(1, G.num_ws, -1)
    far = inversion.view_errors(G, mean, picture, cameras.orbit(0.0), cameras.orbit(0.0))
    assert near[0].error < far[0].error


def test_pull_keeps_to_the_mean(G: Generator, picture: torch.Tensor) -> None:
    mean = inversion.w_statistics(G)[0]

    def away(pull: float) -> float:
        options = InversionOptions(steps=15, layer_steps=0, pull=pull)
        found = inversion.invert(G, picture, cameras.orbit(0.0), options)
        return float((found.w[0, 0] - mean).norm())

    assert away(100.0) < 0.5 * away(0.0)


@pytest.mark.parametrize("backend", ["reference", pytest.param("native", marks=pytest.mark.native)])
def test_unknown_camera_is_found(backend: str) -> None:
    toy = toy_generator()
    yaw, pitch = math.radians(25), math.radians(-8)
    ws = torch.zeros(1, toy.num_ws, toy.config.w_dim)
    with torch.no_grad():
        image = toy.render_raw(toy.planes(ws), cameras.orbit(yaw, pitch), 32).raw
    options = InversionOptions(steps=40, layer_steps=0, resolution=32, backend=backend)  # type: ignore[arg-type]
    found = inversion.invert(toy, image, None, options, start=(0.0, 0.0))
    got = [float(a) for a in cameras.yaw_pitch(found.camera[0])]
    assert math.degrees(abs(got[0] - yaw)) < 3
    assert math.degrees(abs(got[1] - pitch)) < 3
    first = found.history[0]
    assert math.degrees(abs(first.yaw - yaw)) > 20, "it began elsewhere"


def test_first_guess_is_the_nearest_of_the_grid() -> None:
    toy = toy_generator()
    ws = torch.zeros(1, toy.num_ws, toy.config.w_dim)
    with torch.no_grad():
        image = toy.render_raw(toy.planes(ws), cameras.orbit(math.radians(-43), math.radians(13)), 16).raw
    guess = inversion.guess_angles(toy, image, ws, InversionOptions())
    assert [math.degrees(a) for a in guess] == pytest.approx([-45, 15])


def test_pyramid_sees_what_stands_beside() -> None:
    def dot(column: int) -> torch.Tensor:
        picture = torch.ones(1, 3, 32, 32)
        picture[:, :, 14:18, column : column + 4] = -1
        return picture

    losses = [float(inversion.pyramid_loss(dot(c), dot(14))) for c in (14, 18, 24)]
    assert losses[0] == 0
    assert losses[1] < losses[2] or losses[1] == pytest.approx(losses[2], rel=0.2)
    plain = [float((dot(c) - dot(14)).square().mean()) for c in (18, 24)]
    assert plain[0] == plain[1], "single pixels do not know how far"


def test_angles_between_views() -> None:
    camera = cameras.orbit(torch.tensor([0.0, math.pi / 2, math.pi]))
    assert inversion.angle_between(camera, camera[:1]).tolist() == pytest.approx([0, 90, 180], abs=1e-3)


def test_bad_input(G: Generator, picture: torch.Tensor) -> None:
    with pytest.raises(Head3DError, match="R of at least 16"):
        inversion.invert(G, torch.zeros(1, 3, 8, 8), cameras.orbit(0.0))
    with pytest.raises(Head3DError, match="one picture with finite values"):
        inversion.invert(G, picture * math.nan, cameras.orbit(0.0))
    with pytest.raises(Head3DError, match="one picture"):
        inversion.invert(G, picture.expand(2, -1, -1, -1), cameras.orbit(0.0))
    with pytest.raises(Head3DError, match="at least one step"):
        InversionOptions(steps=0, layer_steps=0)
    with pytest.raises(Head3DError, match="positive"):
        InversionOptions(rate=0.0)
    with pytest.raises(Head3DError, match="every picture needs a camera"):
        inversion.view_errors(
            G, torch.zeros(1, G.num_ws, 32), picture, cameras.orbit(torch.zeros(2)), cameras.orbit(0.0)
        )
