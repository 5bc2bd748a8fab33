"""Every super-resolution module of the format, against plain NumPy: what the parity file (2x only) cannot see."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import plain
import pytest
import torch
from helpers import refuses

from head3d_core import config
from head3d_core.config import GeneratorConfig, SuperResolutionKind
from head3d_core.model.superresolution import KINDS, SuperResolution

FIRST_UP = {"8xdc": True, "8x": True, "4x": False, "2x": False, "deepfp32": False}
FACTOR = {"8xdc": 4, "8x": 4, "4x": 2, "2x": 2, "deepfp32": 2}
SIZE = {"8xdc": 512, "8x": 512, "4x": 256, "2x": 128, "deepfp32": 256}
"""Facts of the format, written down a second time on purpose."""


def module(kind: SuperResolutionKind, size: int, **changes: Any) -> SuperResolution:
    settings = GeneratorConfig(
        sr_kind=kind, image_resolution=size, sr_channels=(4, 3), decoder_features=5, w_dim=8, **changes
    )
    made = SuperResolution(settings)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.endswith(("bias", "noise_strength")):
                parameter.normal_()
    return made.requires_grad_(False)


def inputs(resolution: int, batch: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    features = torch.randn(batch, 5, resolution, resolution)
    return features, features[:, :3].clone(), torch.randn(batch, 2, 8)


def compare(
    made: SuperResolution, kind: str, size: int, resolution: int, batch: int = 1, **kwargs: Any
) -> None:
    features, rgb, ws = inputs(resolution, batch)
    found = made(features, rgb, ws)
    assert found.shape == (batch, 3, size, size)
    expected = plain.super_resolution(
        made, plain.f64(features), plain.f64(rgb), plain.f64(ws),
        size=size // FACTOR[kind], first_up=FIRST_UP[kind], **kwargs,
    )  # fmt: skip
    assert np.abs(plain.f64(found) - expected).max() <= 2e-5 * np.abs(expected).max()


@pytest.mark.parametrize("kind", KINDS)
def test_every_module(kind: SuperResolutionKind) -> None:
    """At small size, and at its own: there features come in smaller and are enlarged."""
    compare(module(kind, 32), kind, 32, 32 // FACTOR[kind], batch=2, clamp=256.0)
    size = SIZE[kind]
    compare(module(kind, size), kind, size, size // 8, clamp=256.0)


def test_clamp_noise_and_no_clamp() -> None:
    compare(module("8xdc", 32, sr_clamp=0.5), "8xdc", 32, 8, clamp=0.5)
    compare(module("8xdc", 32, sr_clamp=None), "8xdc", 32, 8, clamp=None)
    compare(module("4x", 32, sr_noise="const"), "4x", 32, 16, clamp=256.0, noise=True)


@pytest.mark.parametrize("kind", ["8xdc", "2x"])
def test_features_larger_than_the_input_are_shrunk(kind: SuperResolutionKind) -> None:
    compare(module(kind, 32), kind, 32, 32, clamp=256.0)
    compare(module(kind, 32, sr_antialias=False), kind, 32, 32, clamp=256.0, antialias=False)


@pytest.mark.parametrize("kind", ["4x", "deepfp32"])
def test_modules_that_only_enlarge(kind: SuperResolutionKind) -> None:
    refuses("takes features up to 16², got 32²: render at a lower resolution", module(kind, 32), *inputs(32))
    assert module(kind, 32)(*inputs(9)).shape == (1, 3, 32, 32)


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_are_not_changed(kind: SuperResolutionKind) -> None:
    """EG3D's 4x and 2x modules add into the raw image in place when nothing is resized; ours must not."""
    size = 32 // FACTOR[kind]
    features = torch.randn(1, 5, size, size)
    rgb = features[:, :3]  # a view, as in the generator
    before = features.clone()
    module(kind, 32)(features, rgb, torch.randn(1, 2, 8))
    assert torch.equal(features, before)


def test_only_the_last_code_counts() -> None:
    made = module("8xdc", 32)
    features, rgb, ws = inputs(8)
    other = ws.clone()
    other[:, 0] += 1
    assert torch.equal(made(features, rgb, ws), made(features, rgb, other))
    other[:, 1] += 1
    assert not torch.allclose(made(features, rgb, ws), made(features, rgb, other))


def test_random_noise_follows_the_seed() -> None:
    made = module("8xdc", 32, sr_noise="random")
    features, rgb, ws = inputs(8, 2)
    seeds = torch.tensor([5, 6])
    both = made(features, rgb, ws, seeds)
    torch.testing.assert_close(made(features[1:], rgb[1:], ws[1:], seeds[1:]), both[1:], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(made(features, rgb, ws, seeds + 1), both)


@pytest.mark.parametrize(
    ("kind", "shapes"),
    [
        ("8xdc", {"block0.conv0.weight": (256, 32, 3, 3), "block0.conv0.affine.weight": (32, 512),
                  "block0.conv1.affine.weight": (256, 512), "block0.conv0.noise_const": (256, 256),
                  "block0.torgb.weight": (3, 256, 1, 1), "block1.conv0.weight": (128, 256, 3, 3),
                  "block1.conv0.affine.weight": (256, 512), "block1.conv1.noise_const": (512, 512)}),
        ("8x", {"block0.conv0.weight": (128, 32, 3, 3), "block1.conv1.weight": (64, 64, 3, 3)}),
        ("4x", {"block0.conv0.noise_const": (128, 128), "block1.conv0.weight": (64, 128, 3, 3)}),
        ("2x", {"block0.conv0.noise_const": (64, 64), "block1.conv0.noise_const": (128, 128)}),
        ("deepfp32", {"block0.conv0.noise_const": (128, 128), "block1.torgb.weight": (3, 64, 1, 1)}),
    ],
)  # fmt: skip
def test_shapes_of_the_format(kind: SuperResolutionKind, shapes: dict[str, tuple[int, ...]]) -> None:
    settings = dataclasses.replace(
        config.preset("paper").generator, sr_kind=kind, image_resolution=SIZE[kind]
    )
    with torch.device("meta"):
        found = {name: tuple(value.shape) for name, value in SuperResolution(settings).state_dict().items()}
    for name, shape in shapes.items():
        assert found[name] == shape, name
