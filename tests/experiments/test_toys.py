"""Toy heads and the planes fitted to them."""

from __future__ import annotations

import torch
from helpers import refuses

from head3d_core.experiments import toys
from head3d_core.model import cameras


def test_field_is_solid_inside_and_empty_outside() -> None:
    points = torch.tensor([[0.0, 0, 0], [0.0, 0, 0.45], [0.0, 0.25, 0.0], [0.0, -0.03, 0.26]])
    sigma, rgb = toys.toy_field(toys.TOY_A, points)
    assert [bool(s > 1) for s in sigma[:, 0]] == [True, False, True, True]
    assert torch.allclose(rgb[2], torch.tensor(toys.TOY_A.hair))
    assert rgb.min() >= 0
    assert rgb.max() <= 1


def test_hair_line_needs_height_and_depth_together() -> None:
    low_front, low_back = torch.tensor([[0.0, 0.05, 0.2], [0.0, 0.05, -0.2]])
    colours = [toys.toy_field(toys.TOY_A, p)[1] for p in (low_front, low_back)]
    assert not torch.allclose(*colours)


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


def test_no_heads_is_refused() -> None:
    refuses("at least one", toys.fit_planes, [])
