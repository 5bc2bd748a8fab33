"""Silhouettes, depth and faces where none should be: circles and planted detectors."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from head3d_core.datasets import face_detector
from head3d_core.geometry import mesh
from head3d_core.metrics import silhouettes as c
from head3d_core.model.cameras import orbit
from head3d_core.utils.errors import Head3DError


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


def test_depth_error_counts_only_shared_pixels() -> None:
    truth = torch.full((2, 4, 4), 2.7)
    inside = torch.zeros(2, 4, 4, dtype=torch.bool)
    inside[0, :2] = True
    depth = truth.clone()
    depth[0, :2] += 0.03
    depth[:, 2:] = math.inf  # background
    error = c.depth_error(depth[:, None], truth, inside)
    assert error[0].item() == pytest.approx(0.03, rel=1e-5)
    assert error[1].isnan()
    with pytest.raises(Head3DError, match="not finite inside"):
        c.depth_error(depth, truth, ~inside)


def test_head_completeness_of_an_open_head() -> None:
    """A half disc where there should be a whole one: IoU 1/2, depth right where there is any."""
    whole = disc(0.7).repeat(4, 1, 1, 1)
    half = whole.clone()
    half[..., 64:] = 0
    depth = torch.full_like(whole, 2.5)
    found = c.head_completeness(half, depth, whole[:, 0], depth[:, 0])
    assert found.iou.value == pytest.approx(0.5, rel=0.02)
    assert found.depth.value == 0
    perfect = c.head_completeness(whole, depth + 0.1, whole[:, 0], depth[:, 0])
    assert perfect.iou.value == 1
    assert perfect.depth.value == pytest.approx(0.1, rel=1e-5)
    with pytest.raises(Head3DError, match="never overlap"):
        c.head_completeness(half, depth, whole[:, 0] - half[:, 0], depth[:, 0])
    with pytest.raises(Head3DError, match="pixel by pixel"):
        c.silhouette_iou(whole, whole[..., :64])
    with pytest.raises(Head3DError, match="not finite"):
        c.silhouette_iou(whole * math.nan, whole)


def test_silhouettes_outside_the_span_of_real_ones() -> None:
    generator = torch.Generator().manual_seed(0)

    def ellipses(count: int) -> Tensor:
        draws = torch.rand(count, 2, generator=generator).tolist()
        return torch.cat([disc(0.5 + 0.1 * a, 64, 0.0, 0.8 + 0.2 * b) for a, b in draws])

    span = c.SilhouetteSpan(ellipses(80))
    assert span.outside(ellipses(60)).rate < 0.15
    square = torch.zeros(1, 1, 64, 64)
    square[..., 10:54, 10:54] = 1
    two = torch.maximum(disc(0.3, 64, -0.5), disc(0.3, 64, 0.5))
    assert span.outside(torch.cat([square, two])).rate == 1
    with pytest.raises(Head3DError, match="at least 20"):
        c.SilhouetteSpan(ellipses(10))


def test_rates_take_only_their_own_views(monkeypatch: pytest.MonkeyPatch) -> None:
    def planted(images: Tensor, device: str = "cpu") -> Tensor:
        return (images[:, 0, 0, 0] > 0).float()  # a "face" is a bright corner

    monkeypatch.setattr(face_detector, "face_probability", planted)
    images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    images[0] = 255
    angles = torch.tensor([135.0, 180.0, -150.0, -135.0]) * math.pi / 180
    back, front = orbit(angles), orbit(torch.tensor([0.0, 0.3, -0.3, 0.1]), 0.2)
    rate = c.janus_rate(images, back)
    assert (rate.found, rate.count) == (1, 4)
    assert rate.low < 0.25 < rate.high
    assert c.detection_rate(images, front).rate == 0.25
    with pytest.raises(Head3DError, match=r"\|yaw\| >= 135°, but 4 of 4 are not"):
        c.janus_rate(images, front)
    with pytest.raises(Head3DError, match=r"but 4 of 4 are not"):
        c.detection_rate(images, back)
    with pytest.raises(Head3DError, match="every picture needs a camera"):
        c.janus_rate(images, back[:2])
    with pytest.raises(Head3DError, match="uint8"):
        c.janus_rate(images.float(), back)


def test_closed_heads_is_the_mean_over_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mesh, "closedness", lambda G, planes, directions: planes.flatten(1).mean(1))
    planes = torch.tensor([0.5, 1.0, 0.9]).reshape(3, 1, 1, 1, 1).expand(3, 3, 2, 2, 2)
    found = c.closed_heads(None, planes)  # type: ignore[arg-type]
    assert found.value == pytest.approx(0.8)
    assert found.count == 3


@pytest.mark.opengl
def test_true_geometry_of_a_head() -> None:
    found = c.true_geometry("held_out_heads", [0, 1], 48, views=4)
    assert found.mask.shape == found.depth.shape == (2, 48, 48)
    assert found.camera.shape == (2, 25)
    inside = found.mask > 127
    assert 0.2 < inside.float().mean() < 0.9
    assert 2.3 < found.depth[inside].mean() < 2.9  # the head stands 2.7 away and its front is nearer
    again = c.head_completeness(
        found.mask.float()[:, None] / 255, found.depth[:, None], found.mask, found.depth
    )
    assert (again.iou.value, again.depth.value) == (1, 0)
    with pytest.raises(Head3DError, match="at least one index"):
        c.true_geometry("held_out_heads", [], 48)
