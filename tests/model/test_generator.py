"""The whole generator: repeatable, independent of the batch split, and equal to loops in every configuration."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import plain
import pytest
import torch
from helpers import refuses

from head3d_core import config
from head3d_core.model import cameras, rays
from head3d_core.model.generator import Generator, RenderOutput

TINY = config.preset("tiny").generator


def make(seed: int = 0, **changes: Any) -> Generator:
    """A tiny generator whose planes and decoder are lively enough to show something."""
    render = {k.removeprefix("render_"): changes.pop(k) for k in list(changes) if k.startswith("render_")}
    options = dataclasses.replace(TINY.render, **render)
    torch.manual_seed(seed)
    G = Generator(dataclasses.replace(TINY, render=options, **changes)).eval().requires_grad_(False)
    for name, parameter in G.named_parameters():
        if name.endswith("noise_strength"):
            parameter.fill_(0.3)
        elif name.endswith("bias") and "affine" not in name:
            parameter.normal_()
    G.w_avg.normal_()
    return G


@pytest.fixture(scope="module")
def G() -> Generator:
    return make()


def draw(G: Generator, n: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(n, G.z_dim), cameras.orbit(torch.linspace(-0.5, 0.5, n), 0.1)


def test_two_slices_start_as_the_tri_plane(G: Generator) -> None:
    """`widened` copies xy's output rows: four planes, first and last equal, and the same picture."""
    wide = G.widened()
    assert wide.config == dataclasses.replace(G.config, front_slices=2)
    z, camera = draw(G)
    ws = G.mapping(z, camera)
    planes, four = G.planes(ws), wide.planes(ws)
    assert four.shape == (2, 4, 8, 32, 32)
    assert torch.equal(four[:, 0], four[:, 3])
    torch.testing.assert_close(four[:, :3], planes, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        wide.render(four, ws, camera).image, G.render(planes, ws, camera).image, rtol=0, atol=1e-3
    )
    # A network of its own, of the shape that a new two-slice generator has.
    Generator(wide.config).load_state_dict(wide.state_dict())
    with torch.no_grad():
        wide.backbone.synthesis.get_parameter("b32.torgb.bias")[-8:] += 1
    assert torch.equal(G.planes(ws), planes)
    assert not torch.equal(wide.planes(ws)[:, 3], four[:, 3])
    assert torch.equal(wide.planes(ws)[:, :3], four[:, :3])


@pytest.mark.parametrize(("slices", "back_blocks"), [(1, 0), (1, 8), (1, 32), (2, 8), (2, 32)])
def test_a_widened_generator_draws_the_same_head(G: Generator, slices: int, back_blocks: int) -> None:
    """From one slice, and from two that share all blocks and differ in their output rows."""
    start = G if slices == 1 else forked(G, 0)
    state = torch.get_rng_state()
    wide = start.widened(back_blocks)
    assert torch.equal(torch.get_rng_state(), state), "nothing is drawn"
    assert wide.config == dataclasses.replace(G.config, front_slices=2, back_blocks=back_blocks)
    (_, camera), before = draw(G), start.state_dict()
    ws = torch.randn(2, G.num_ws, G.config.w_dim)  # another code for every layer
    theirs, ours = start.planes(ws), wide.planes(ws)
    torch.testing.assert_close(ours[:, : 2 + slices], theirs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours[:, 3], theirs[:, 0 if slices == 1 else 3], rtol=1e-5, atol=1e-5)
    pictures = [net.render(planes, ws, camera).image for net, planes in ((wide, ours), (start, theirs))]
    torch.testing.assert_close(*pictures, rtol=0, atol=1e-3)
    for parameter in wide.parameters():
        parameter.zero_()
    assert all(torch.equal(value, before[name]) for name, value in start.state_dict().items())
    assert torch.equal(start.planes(ws), theirs), "its weights are its own"


def forked(G: Generator, back_blocks: int) -> Generator:
    """Widened, with slices that differ."""
    wide = G.widened()
    wide.backbone.synthesis.get_parameter("b16.torgb.weight")[-8:] += 0.3
    return wide.widened(back_blocks) if back_blocks else wide


@pytest.mark.parametrize("back_blocks", [8, 16, 32])
@pytest.mark.parametrize("front", [True, False])
def test_own_blocks_learn_from_xy_back_alone(G: Generator, back_blocks: int, front: bool) -> None:
    wide, shared = (forked(G, blocks).requires_grad_(True) for blocks in (back_blocks, 0))
    ws = torch.randn(2, G.num_ws, G.config.w_dim)
    for net in (wide, shared):
        net.planes(ws)[:, 0 if front else 3].square().mean().backward()
    named = wide.backbone.synthesis.named_parameters()
    pulled = {name.partition(".")[0] for name, p in named if p.grad is not None and p.grad.any()}
    assert pulled == {f"b{r}" if front or r < back_blocks else f"own{r}" for r in (4, 8, 16, 32)}
    one, other = (net.backbone.synthesis.get_parameter("b4.const").grad for net in (wide, shared))
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_both_branches_take_one_code_per_layer(G: Generator) -> None:
    wide = forked(G, 8)
    assert wide.num_ws == wide.backbone.synthesis.num_ws == G.num_ws == 8
    ws = torch.randn(1, 8, G.config.w_dim)
    before = wide.planes(ws)
    for k in range(8):
        other = ws.clone()
        other[:, k] += 1
        moved = (wide.planes(other) - before).abs().amax((0, 2, 3, 4))
        assert bool((moved > 1e-3).all()), f"code {k} moves the planes by {moved.tolist()}"


def test_own_blocks_have_noise_of_their_own(G: Generator) -> None:
    """Seeds repeat it; the common blocks keep the noise that they had."""
    wide, seeds = G.widened(16), torch.tensor([3, 4])
    ws = G.mapping(*draw(G))
    first, again = (wide.planes(ws, "random", seeds) for _ in range(2))
    assert torch.equal(first, again)
    torch.testing.assert_close(first[:, :3], G.planes(ws, "random", seeds), rtol=1e-5, atol=1e-5)
    assert bool((first[:, 3] - first[:, 0]).abs().amax((1, 2, 3)).gt(1e-3).all())
    assert not torch.equal(first, wide.planes(ws, "random", seeds + 1))


def test_bad_slices(G: Generator) -> None:
    wide, (z, camera) = G.widened(), draw(G)
    planes = G.planes(G.mapping(z, camera))
    for wrong in (lambda: wide.render_raw(planes, camera), lambda: wide.query(planes, torch.zeros(2, 1, 3))):
        refuses(r"heads have 4 planes, got 3: use `planes\.widen`", wrong)
    refuses("only a generator with 1 slice can be widened, got 2", wide.widened)
    refuses("only a generator with back_blocks 0 can be given 16, got 8", wide.widened(8).widened, 16)
    assert G.render_raw(wide.planes(G.mapping(z, camera)), camera).raw.shape == (2, 3, 16, 16)


def test_shapes(G: Generator) -> None:
    z, camera = draw(G)
    ws = G.mapping(z, camera)
    planes = G.planes(ws)
    out = G.render(planes, ws, camera)
    assert ws.shape == (2, G.num_ws, G.config.w_dim)
    assert planes.shape == (2, 3, 8, 32, 32)
    assert out.image.shape == (2, 3, 64, 64)
    assert out.raw.shape == (2, 3, 16, 16)
    assert out.depth.shape == out.opacity.shape == (2, 1, 16, 16)
    assert out.features.shape == (2, 8, 16, 16)
    assert G.render(planes, ws, camera, resolution=24).raw.shape == (2, 3, 24, 24)
    assert torch.equal(out.raw, out.features[:, :3])
    sigma, features = G.query(planes, torch.zeros(2, 5, 3))
    assert sigma.shape == (2, 5, 1)
    assert features.shape == (2, 5, 8)
    assert bool((features > -0.0011).all() & (features < 1.0011).all())


def same(a: RenderOutput, b: RenderOutput, tolerance: float = 0.0) -> bool:
    return all(
        torch.allclose(getattr(a, k), getattr(b, k), rtol=tolerance, atol=tolerance)
        for k in ("features", "opacity", "depth", "image")
    )


def test_repeatable_and_random_by_seeds(G: Generator) -> None:
    z, camera = draw(G)
    assert same(G(z, camera), G(z, camera))
    first, again, other = (G(z, camera, seeds=torch.tensor(s)) for s in ([1, 2], [1, 2], [3, 4]))
    assert same(first, again)
    assert not same(first, other, 1e-4)
    assert not same(first, G(z, camera), 1e-4)


@pytest.mark.parametrize("seeded", [False, True])
def test_a_batch_split_gives_the_same_numbers(G: Generator, seeded: bool) -> None:
    """Distributed training: sample n of a batch does not depend on the rest (depth does, through its clamp)."""
    z, camera = draw(G, 4)
    seeds = torch.arange(4) * 1000 + 7 if seeded else None
    whole = G(z, camera, seeds=seeds)
    for part in (slice(0, 1), slice(1, 4)):
        piece = G(z[part], camera[part], seeds=None if seeds is None else seeds[part])
        for name in ("features", "opacity", "image"):
            torch.testing.assert_close(getattr(piece, name), getattr(whole, name)[part], rtol=1e-4, atol=1e-4)


def test_truncation(G: Generator) -> None:
    z, camera = draw(G)
    ws = G.mapping(z, camera)
    assert torch.equal(G.mapping(z, camera, 0.0), G.w_avg.expand_as(ws))
    half = G.mapping(z, camera, 0.5, truncation_cutoff=3)
    torch.testing.assert_close(half[:, :3], (ws[:, :3] + G.w_avg) / 2)
    assert torch.equal(half[:, 3:], ws[:, 3:])
    assert torch.equal(G.mapping(z, camera, 0.5, truncation_cutoff=0), ws)
    assert torch.equal(G.mapping(z, camera, 0.5, truncation_cutoff=99), G.mapping(z, camera, 0.5))


def test_the_mapping_camera_defaults_to_the_frontal_one(G: Generator) -> None:
    z, camera = draw(G)
    assert same(G(z, camera), G(z, camera, cameras.frontal(2)))
    assert not same(G(z, camera), G(z, camera, camera), 1e-4)


def test_conditioning_off_and_scale() -> None:
    z, camera = draw(make())
    off = make(camera_conditioning=False)
    assert torch.equal(off.mapping(z, camera), off.mapping(z, cameras.frontal(2)))
    assert torch.equal(make(camera_scale=0.0).mapping(z, camera), off.mapping(z, camera))
    assert not torch.allclose(make(camera_scale=0.5).mapping(z, camera), make().mapping(z, camera))


RENDERING: dict[str, dict[str, Any]] = {
    "as configured": {},
    "eg3d": {"render_axes": "eg3d", "decoder_lr_mul": 0.1, "render_box_warp": 1.6, "render_ray_end": 3.6},
}


@pytest.mark.parametrize("name", RENDERING)
def test_rendering_is_the_scalar_loop(name: str) -> None:
    """From planes to pixels in plain NumPy, for odd cameras."""
    G = make(**RENDERING[name])
    planes = torch.randn(2, 3, 8, 32, 32) * 4
    camera = cameras.orbit(torch.tensor([0.7, 3.0]), torch.tensor([0.3, -0.4]), radius=2.6, focal=3.0)
    camera[1, 16:] = torch.tensor([3.5, 0.05, 0.55, 0, 3.1, 0.42, 0, 0, 1])
    out = G.render_raw(planes, camera, 4)
    options, weights = G.config.render, G.decoder.weights()
    origins, directions = rays.camera_rays(camera, 4)
    near, far = rays.ray_bounds(origins, directions, options)
    for n in range(2):
        for index in (0, 5, 10, 15):
            origin, direction = plain.pixel_ray(plain.f64(camera[n]), *divmod(index, 4), 4)
            bounds = float(near[n, index]), float(far[n, index])
            features, _, opacity = plain.render_ray(
                plain.f64(planes[n]), weights, origin, direction, *bounds, options
            )
            found = out.features[n, :, index // 4, index % 4]
            np.testing.assert_allclose(plain.f64(found), features, atol=3e-4)
            assert float(out.opacity[n, 0, index // 4, index % 4]) == pytest.approx(opacity, abs=1e-4)


def test_inference_and_training_share_numbers(G: Generator) -> None:
    z, camera = draw(G)
    with torch.inference_mode():
        inside = G(z, camera).image
    torch.testing.assert_close(inside.clone(), G(z, camera).image)
    trainable = make().train().requires_grad_(True)
    trainable(z, camera).image.square().mean().backward()
    missing = [name for name, p in trainable.named_parameters() if p.grad is None]
    assert all("superresolution" in name and "noise_strength" in name for name in missing), missing


def test_bad_input(G: Generator) -> None:
    z, camera = draw(G)
    ws = G.mapping(z, camera)
    planes, pixels = G.planes(ws), torch.tensor([1.0] * 16 + [64.0] * 9)
    for call, says in (
        (lambda: G.mapping(z[:, :5], camera), r"z must be \[N, 32\], got \[2, 5\]"),
        (lambda: G.mapping(z, camera[:1]), "z and camera must have one batch size, got 2 and 1"),
        (lambda: G.mapping(z, camera * torch.nan), "not finite"),
        (lambda: G.mapping(z, camera, float("nan")), "truncation_psi must be a number"),
        (lambda: G.mapping(z, camera, 0.5, truncation_cutoff=-1), "truncation_cutoff must be 0 or more"),
        (lambda: G.planes(ws[:, :3]), r"ws must be \[N, 8, 32\], got \[2, 3, 32\]"),
        (lambda: G.planes(ws, "loud"), 'noise must be "const", "random" or "none"'),  # type: ignore[arg-type]
        (lambda: G.render(planes[:, :, :4], ws, camera), "planes must have 8 channels, got 4"),
        (lambda: G.render(planes, ws, camera[:1]), "planes and camera must have one batch size, got 2 and 1"),
        (lambda: G.render(planes[0], ws, camera), "planes must be"),
        (lambda: G.render(planes, ws, camera, resolution=-1), "resolution must be at least 1"),
        (lambda: G.render(planes, ws, camera * pixels), "divide pixels by the width"),
        (lambda: G.query(planes, torch.zeros(1, 5, 3)), r"points must be \[N, M, 3\] with N = 2"),
        (lambda: G.render(planes, ws, camera, backend="cuda"), "backend must be"),  # type: ignore[arg-type]
    ):
        refuses(says, call)
