"""Silhouettes of circles, hair of known colours, and correlations that cover."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import refuses
from skimage.color import rgb2lab
from torch import Tensor

from head3d_core.metrics import silhouettes as c
from head3d_core.metrics.silhouettes import CHANNELS, colour_agreement, hair_colour


def disc(radius: float, side: int = 128, x: float = 0.0, stretch: float = 1.0) -> Tensor:
    """Silhouette [1, 1, side, side] of a ball; radius as a share of the picture's half width."""
    axis = torch.linspace(-1, 1, side)
    return ((((axis[None] - x) / stretch) ** 2 + axis[:, None] ** 2).sqrt() <= radius).float()[None, None]


def test_iou_of_circles() -> None:
    assert c.silhouette_iou(disc(0.5), disc(0.5)).item() == 1
    assert c.silhouette_iou(disc(0.4), disc(0.8)).item() == pytest.approx(0.25, rel=0.03)
    assert c.silhouette_iou(disc(0.2, x=-0.5), disc(0.2, x=0.5)).item() == 0
    assert c.silhouette_iou(torch.zeros(1, 8, 8), torch.zeros(1, 8, 8)).item() == 1
    as_bytes = (disc(0.5) * 255).to(torch.uint8)[:, 0]
    assert c.silhouette_iou(disc(0.5), as_bytes).item() == 1


def test_silhouettes_outside_the_span_of_real_ones() -> None:
    generator = torch.Generator().manual_seed(0)

    def ellipses(count: int) -> Tensor:
        draws = torch.rand(count, 2, generator=generator).tolist()
        return torch.cat([disc(0.5 + 0.1 * a, 64, 0.0, 0.8 + 0.2 * b) for a, b in draws])

    span = c.SilhouetteSpan(ellipses(80))
    assert span.outside(ellipses(60)).value < 0.15
    square = torch.zeros(1, 1, 64, 64)
    square[..., 10:54, 10:54] = 1
    two = torch.maximum(disc(0.3, 64, -0.5), disc(0.3, 64, 0.5))
    assert span.outside(torch.cat([square, two])).value == 1
    refuses("at least 20", c.SilhouetteSpan, ellipses(10))


def test_the_upper_third_of_the_silhouette_counts() -> None:
    images = torch.full((2, 3, 60, 60), 255, dtype=torch.uint8)
    images[0, :, 10:24] = torch.tensor([60, 30, 20], dtype=torch.uint8)[:, None, None]
    images[0, :, 24:50] = torch.tensor([230, 180, 150], dtype=torch.uint8)[:, None, None]
    opacity = torch.zeros(2, 60, 60)
    opacity[0, 10:50, 15:45] = 1
    found = hair_colour(images, opacity)
    assert found[0].numpy() == pytest.approx(rgb2lab(np.array([60, 30, 20]) / 255))
    assert found[1].isnan().all(), "nothing to see"


def test_agreement_is_the_correlation_and_covers() -> None:
    """95 % intervals of a correlation of 0.8 over 60 heads: 2,000 simulations, three channels each."""
    random = np.random.default_rng(0)
    front = random.normal(size=(700, 60, 3))
    back = 0.8 * front + 0.6 * random.normal(size=front.shape)
    hits = 0
    for k in range(len(front)):
        found = colour_agreement(torch.from_numpy(front[k]), torch.from_numpy(back[k]), 300, k)
        hits += sum(e.low <= 0.8 <= e.high for e in found.values())
    assert hits / (len(front) * 3) >= 0.93
    one = colour_agreement(torch.from_numpy(front[0]), torch.from_numpy(back[0]))
    for k, name in enumerate(CHANNELS):
        assert one[name].value == pytest.approx(np.corrcoef(front[0, :, k], back[0, :, k])[0, 1])


def test_heads_that_cannot_be_measured_are_left_out() -> None:
    x = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    lost = x.clone()
    lost[0, 1] = torch.nan
    assert colour_agreement(x, lost)["L*"].count == 11
    assert colour_agreement(x[:9], x[:9]) == {}, "too few heads"
