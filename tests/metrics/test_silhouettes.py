"""Silhouettes, depth and faces where none should be: circles and planted detectors."""

from __future__ import annotations

import pytest
import torch
from helpers import refuses
from torch import Tensor

from head3d_core.metrics import silhouettes as c


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
