"""Adaptive augmentation: identity at p = 0, one transform for both pictures, white outside, p follows D."""

from __future__ import annotations

import pytest
import torch

from head3d_core.training import augment

SEEDS = torch.arange(64)


def test_nothing_happens_at_p_zero() -> None:
    x = torch.rand(64, 3, 16, 16) * 2 - 1
    transform = augment.draw_transforms(SEEDS, torch.tensor(0.0))
    torch.testing.assert_close(augment.apply(x, *transform), x, atol=2e-5, rtol=0)


def test_transforms_depend_on_their_seed_alone() -> None:
    p = torch.tensor(0.7)
    all_at_once = augment.draw_transforms(SEEDS, p)
    half = augment.draw_transforms(SEEDS[1::2], p)
    for a, b in zip(all_at_once, half, strict=True):
        torch.testing.assert_close(a[1::2], b, rtol=0, atol=0)


def test_share_of_changed_pictures_grows_with_p() -> None:
    identity = augment.draw_transforms(SEEDS, torch.tensor(0.0))
    shares = []
    for p in (0.05, 0.3, 1.0):
        drawn = augment.draw_transforms(SEEDS, torch.tensor(p))
        geometry, colour = ((a - b).abs().amax([1, 2]) > 1e-4 for a, b in zip(drawn, identity, strict=True))
        shares.append((geometry | colour).float().mean().item())
    assert shares[0] < shares[1] < shares[2] == 1.0
    assert shares[0] == pytest.approx(1 - 0.95**8, abs=0.2)


def test_outside_is_white_and_colours_keep_grey_grey() -> None:
    geometry = torch.tensor([[[1.0, 0, 1.0], [0, 1.0, 0]]])  # moves the picture by half its width
    colour = torch.eye(3, 4)[None]
    moved = augment.apply(torch.full((1, 3, 8, 8), -1.0), geometry, colour)
    torch.testing.assert_close(moved[..., :4], torch.full((1, 3, 8, 4), -1.0))
    torch.testing.assert_close(moved[..., 4:], torch.ones(1, 3, 8, 4))
    _, colour = augment.draw_transforms(SEEDS, torch.tensor(1.0))
    grey = (colour[:, :, :3] @ torch.ones(3, 1))[..., 0]
    torch.testing.assert_close(grey, grey[:, :1].expand(-1, 3), atol=1e-5, rtol=1e-5)


def test_image_and_raw_stay_aligned() -> None:
    """Augmenting and then shrinking is about shrinking and then augmenting."""
    blob = torch.exp(-torch.linspace(-2, 2, 64).square())
    image = (1 - 2 * blob[:, None] * blob[None]).expand(16, 3, 64, 64)
    raw = torch.nn.functional.avg_pool2d(image, 4)
    transform = augment.draw_transforms(SEEDS[:16], torch.tensor(1.0))
    big, small = augment.apply(image, *transform), augment.apply(raw, *transform)
    error = (torch.nn.functional.avg_pool2d(big, 4) - small).abs().mean() / (small - 1).abs().mean()
    assert error < 0.05


def test_gradient_reaches_the_picture() -> None:
    x = torch.zeros(4, 3, 8, 8, requires_grad=True)
    augment.apply(x, *augment.draw_transforms(SEEDS[:4], torch.tensor(1.0))).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def test_p_rises_while_d_overfits_and_falls_when_it_does_not() -> None:
    ada = augment.AdaptiveProbability(0.6, images=160, start=0.2, device=torch.device("cpu"))
    ada.observe(torch.tensor([[1.0], [2.0], [3.0], [4.0]]))
    ada.adjust(batch=4)
    assert ada.p.item() == pytest.approx(0.2 + 4 * 4 / 160)
    for _ in range(3):
        ada.observe(torch.tensor([[1.0], [-2.0], [3.0], [-4.0]]))
        ada.adjust(batch=4)
    assert ada.p.item() == pytest.approx(0.0, abs=1e-6), "p stays within [0, 1]"
    assert not ada.signs.any()
