"""Codes and cameras found again from pictures of a generator whose answers are known."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from helpers import refuses

from head3d_core.config import preset
from head3d_core.experiments import inversion, latent
from head3d_core.experiments.inversion import InversionOptions
from head3d_core.model import cameras
from head3d_core.model.generator import Generator
from head3d_core.model.seeds import ws_of_seeds
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
        return G.render_raw(G.planes(ws_of_seeds(G, [5])), cameras.orbit(0.0)).raw


def test_codes_come_closer_and_layers_closer_still(G: Generator, picture: torch.Tensor) -> None:
    seen: list[int] = []
    options = InversionOptions(steps=30, layer_steps=30, candidates=0, pull=0.0)
    found = inversion.invert(G, picture, cameras.orbit(0.0), options, watch=lambda k, ws: seen.append(k))
    loss = found.loss[:, 0].tolist()
    assert len(loss) == 60
    assert loss[29] < 0.5 * loss[0]
    assert loss[-1] < loss[29]
    assert seen == [*range(61)]
    mean = inversion.w_statistics(G)[0].expand(1, G.num_ws, -1)
    assert torch.equal(found.start, mean), "without candidates it starts at the mean of w"
    assert torch.equal(found.w[0, 0], found.w[0, -1]), "w is one code"
    assert not torch.equal(found.ws[0, 0], found.ws[0, -1])
    assert torch.equal(found.camera, cameras.orbit(0.0))
    assert all(p.requires_grad for p in G.parameters()), "the generator is given back as it was"
    near, far = (inversion.view_errors(G, ws, picture, cameras.orbit(0.0)) for ws in (found.ws, mean))
    assert float(near) < float(far)


def test_it_starts_at_the_candidate_that_looks_most_like_the_picture(
    G: Generator, picture: torch.Tensor
) -> None:
    options = InversionOptions(steps=1, layer_steps=0, candidates=8, psi=1.0)
    found = inversion.invert(G, picture, cameras.orbit(0.0), options)
    assert torch.allclose(found.start, ws_of_seeds(G, [5]), atol=1e-5), "it is seed 5's picture"
    assert float(found.loss[0, 0]) < 1e-6
    fewer = inversion.invert(G, picture, cameras.orbit(0.0), dataclasses.replace(options, candidates=5))
    assert float(fewer.loss[0, 0]) > 1e-4, "seed 5 is not among 0 to 4"


def test_pictures_are_fitted_side_by_side_as_if_alone(G: Generator) -> None:
    camera = cameras.orbit(torch.tensor([0.0, 0.4]))
    with torch.no_grad():
        images = G.render_raw(G.planes(ws_of_seeds(G, [5, 9])), camera).raw
    options = InversionOptions(steps=4, layer_steps=4, candidates=4)
    both = inversion.invert(G, images, camera, options)
    for k in range(2):
        alone = inversion.invert(G, images[k : k + 1], camera[k : k + 1], options)
        assert torch.allclose(both.loss[:, k], alone.loss[:, 0], rtol=1e-3)
        # Adam's first steps are signs: an entry whose gradient is rounding noise may go either way.
        assert float((both.ws[k] - alone.ws[0]).abs().median()) < 1e-4


def test_pull_keeps_w_to_the_mean_and_layers_to_w(G: Generator, picture: torch.Tensor) -> None:
    mean = inversion.w_statistics(G)[0]

    def away(pull: float) -> tuple[float, float]:
        options = InversionOptions(steps=15, layer_steps=15, candidates=0, pull=pull)
        found = inversion.invert(G, picture, cameras.orbit(0.0), options)
        return float((found.w[0, 0] - mean).norm()), float((found.ws - found.w).norm())

    free, held = away(0.0), away(100.0)
    assert held[0] < 0.5 * free[0]
    assert held[1] < 0.5 * free[1]


def test_typical_codes_stay_where_the_generator_was_trained(G: Generator) -> None:
    noise = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    known = latent.principal_directions(G, G.config.w_dim)
    strange: list[float] = []
    for typical in (False, True):
        options = InversionOptions(steps=40, layer_steps=0, candidates=0, pull=0.1, typical=typical)
        w = inversion.invert(G, noise, cameras.orbit(0.0), options).w[:, 0]
        along = (w - known.mean) @ known.axes.T / known.deviation.clamp_min(1e-6)
        strange.append(float(along.square().mean()))
    assert strange[1] < 0.5 * strange[0]


def test_unknown_cameras_are_found() -> None:
    toy = toy_generator()
    yaw, pitch = torch.deg2rad(torch.tensor([25.0, -20.0])), torch.deg2rad(torch.tensor([-8.0, 3.0]))
    images = toy.render_raw(
        toy.planes(toy.codes.expand(2, -1, -1)), cameras.orbit(yaw, pitch), 32
    ).raw.detach()
    options = InversionOptions(40, 0, candidates=0, camera_rate=0.05, resolution=32, widest_guess=0.0)
    found = inversion.invert(toy, images, None, options)
    got = torch.stack(cameras.yaw_pitch(found.camera), -1)
    assert torch.rad2deg(got - torch.stack([yaw, pitch], -1)).abs().max() < 3
    first = torch.rad2deg(found.angles[0, :, 0] - yaw)
    assert first.abs().min() > 15, "it began elsewhere"


def test_an_estimated_camera_is_refined_but_does_not_run_away() -> None:
    toy = toy_generator()
    true = cameras.orbit(math.radians(20.0), math.radians(5.0))
    image = toy.render_raw(toy.planes(toy.codes), true, 32).raw.detach()

    def yaw(pull: float) -> float:
        fixed = {"candidates": 0, "camera_rate": 0.03, "resolution": 32, "refine": True}
        options = InversionOptions(25, 0, camera_pull=pull, **fixed)
        given = cameras.orbit(math.radians(14.0), math.radians(5.0))
        return math.degrees(float(cameras.yaw_pitch(inversion.invert(toy, image, given, options).camera)[0]))

    assert yaw(0.0) == pytest.approx(20, abs=1.5)
    assert yaw(100.0) == pytest.approx(14, abs=0.5)


def test_pixels_without_weight_do_not_count(G: Generator, picture: torch.Tensor) -> None:
    half = torch.ones(1, 1, *picture.shape[2:])
    half[..., : picture.shape[-1] // 2] = 0
    spoilt = torch.where(half > 0, picture, 1.0)
    other = torch.where(half > 0, picture, -1.0)
    options = InversionOptions(steps=2, layer_steps=0, candidates=4)
    a, b = (inversion.invert(G, x, cameras.orbit(0.0), options, weight=half) for x in (spoilt, other))
    assert torch.equal(a.start, b.start)
    assert torch.allclose(a.loss, b.loss, atol=1e-6)
    whole = inversion.invert(G, other, cameras.orbit(0.0), options)
    assert not torch.allclose(whole.loss, b.loss, atol=1e-2)


def test_first_look_takes_the_nearest_view_of_the_grid() -> None:
    toy = toy_generator()
    camera = cameras.orbit(math.radians(-43), math.radians(13))
    image = toy.render_raw(toy.planes(toy.codes), camera, 16).raw.detach()
    views = inversion.guesses(60.0)
    assert len(views) == 9 * 3
    losses, places = inversion.candidate_losses(toy, image, torch.zeros(2, toy.config.w_dim), views)
    assert losses.shape == places.shape == (2, 1)
    guess = cameras.yaw_pitch(views[places[0]])
    assert [math.degrees(float(a)) for a in guess] == pytest.approx([-45, 15], abs=1e-3)
    first = torch.zeros(1, dtype=torch.long)
    one = inversion.candidate_losses(toy, image, toy.codes[0, :1], views, first)
    assert int(one[1]) == 0, "a picture whose camera is known is compared from there"
    assert float(one[0]) > float(losses[0])


def test_pyramid_sees_how_far_apart_things_are() -> None:
    pictures = torch.ones(3, 3, 32, 32)
    for picture, column in zip(pictures, (14, 18, 24), strict=True):
        picture[:, 14:18, column : column + 4] = -1
    same, near, far = inversion.pyramid_loss(pictures, pictures[:1].expand_as(pictures)).tolist()
    assert same == 0
    assert near < far or near == pytest.approx(far, rel=0.2)


def test_angles_between_views() -> None:
    camera = cameras.orbit(torch.tensor([0.0, math.pi / 2, math.pi]))
    assert inversion.angle_between(camera, camera[:1]).tolist() == pytest.approx([0, 90, 180], abs=1e-3)


def test_bad_input(G: Generator, picture: torch.Tensor) -> None:
    for says, images in (
        ("R of at least 16", torch.zeros(1, 3, 8, 8)),
        ("finite values", picture * math.nan),
        (r"in \[-1, 1\], got torch.uint8", (picture * 100 + 100).byte()),
        ("at least one", picture[:0]),
        (r"camera must be \[2, 25\]", picture.expand(2, -1, -1, -1)),
    ):
        refuses(says, inversion.invert, G, images, cameras.orbit(0.0))
    refuses("candidates are 0 or more", InversionOptions, candidates=-1)
    refuses("at least one step", InversionOptions, steps=0, layer_steps=0)
    refuses("positive", InversionOptions, rate=0.0)
    ws, two = torch.zeros(1, G.num_ws, 32), cameras.orbit(torch.zeros(2))
    refuses("every image needs a camera", inversion.view_errors, G, ws, picture, two)
