"""Scores of a second face behind a head, from its back view, without a face detector.

All are measured on views from straight behind (yaw 180°, pitch 0):

- eye pair: two places as dark as eyes, left and right of the middle, where the pupils of a face seen from in front are;
- relief pair ("relief A"): two dents of the surface at the same places, as eye sockets are;
- front relief ("relief B"): how much the relief behind is that of the head's own front, mirrored.

The first two compare the place of the eyes with other places of the same image, so every image is its own null.
Real heads set the limits: `limits` takes the 95th percentile of images of real heads and people, so 5 % of real backs
are above each limit. Places and widths were chosen on real images as well.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from head3d_core.metrics.features import check_images
from head3d_core.utils.errors import Head3DError

SIDE = 256
"""Side at which everything is measured, pixels; other sizes are resized to it."""
DEPTH_SIDE = 128
"""Side at which depth is to be rendered, pixels."""
EYE_ROW, EYE_COLUMN = 128, 20
"""Where pupils are in a frontal view: this row, so many columns left and right of the middle."""
LUMA_BAND, DEPTH_BAND = (1.5, 6.0), (3.0, 10.0)
"""Standard deviations of the two Gaussians whose difference is taken, pixels."""
BLOCK = 9
"""Side of the block around a place, pixels."""
WINDOW = (slice(100, 178), slice(84, 172))
"""Rows and columns of the face in a frontal view."""
SHIFT = 6
"""Largest shift of the front's relief, pixels each way."""
FEWEST_PLACES = 30
PERCENTILE = 0.95
"""Of real images: the limit of each score."""
_ROWS, _COLUMNS = range(74, 173, 3), range(8, 42, 3)
_APART = 12


class GhostScores(NamedTuple):
    """Scores [N] float64 of back views, higher where a face is; NaN where an image cannot be measured."""

    eye_pair: Tensor
    relief_pair: Tensor
    front_relief: Tensor


SCORES = GhostScores._fields


class GhostViews(NamedTuple):
    """The views that are scored: the same heads from behind and from the front.

    Depth is distance along the ray, world units; opacity is in [0, 1].
    """

    images: Tensor
    """uint8 [N, 3, R, R] from behind."""
    opacity: Tensor
    """[N, r, r] of `images`."""
    back_depth: Tensor
    """[N, 128, 128]"""
    back_opacity: Tensor
    front_depth: Tensor
    front_opacity: Tensor


def _blur(x: Tensor, sigma: float) -> Tensor:
    """Gaussian of [N, S, S], zero beyond the border."""
    places = torch.arange(x.shape[-1], dtype=x.dtype, device=x.device)
    kernel = torch.exp(-(((places[:, None] - places) / sigma) ** 2) / 2) / (sigma * math.sqrt(2 * math.pi))
    return kernel @ x @ kernel


def _resize(x: Tensor) -> Tensor:
    if x.ndim != 3 or 0 in x.shape:
        raise Head3DError(f"depth and opacity must be [N, R, R] and not empty, got {list(x.shape)}")
    if not bool(torch.isfinite(x).all()):
        raise Head3DError("depth and opacity must be finite: the model that made them has diverged")
    return F.interpolate(x.double()[:, None], size=(SIDE, SIDE), mode="bilinear", align_corners=False)[:, 0]


def _mask(opacity: Tensor) -> Tensor:
    return (_resize(opacity) > 0.9).double()


def band_pass(x: Tensor, mask: Tensor, band: tuple[float, float]) -> Tensor:
    """Difference of two Gaussians of `x` inside `mask`, both [N, 256, 256] float64, lightly smoothed.

    [G_a(x m) / G_a(m) − G_b(x m) / G_b(m)] m for band (a, b), then a Gaussian of 0.8 pixels: detail of that scale,
    free of what lies outside the mask.
    """
    narrow, wide = (_blur(x * mask, s) / _blur(mask, s).clamp_min(1e-3) for s in band)
    return _blur((narrow - wide) * mask, 0.8)


def pair_score(detail: Tensor, mask: Tensor) -> Tensor:
    """How much lower `detail` is at both eyes than at other symmetric places of the same image.

    z = (mean of others − eyes) / sd of others. A place is (row, x): the mean of columns 128 + x and 127 − x. Its
    value is the lowest in a block of 9 × 9 pixels. It counts where its middle and more than 70 % of the block lie
    well inside the mask on both sides. Others are a grid over the head, more than 12 pixels away in row or in x.

    Args:
        detail, mask: [N, 256, 256] float64.

    Returns:
        [N] float64, NaN where the eyes' place or all but 29 others lie outside.
    """
    half = SIDE // 2
    place = (detail[:, :, half:] + detail[:, :, :half].flip(-1)) / 2
    solid = _blur(mask, 2.0) > 0.95
    inside = solid[:, :, half:] & solid[:, :, :half].flip(-1)
    lowest = -F.max_pool2d(torch.where(inside, -place, -math.inf)[:, None], BLOCK, 1, BLOCK // 2)[:, 0]
    share = F.avg_pool2d(inside.double()[:, None], BLOCK, 1, BLOCK // 2)[:, 0]
    value = torch.where(inside & (share > 0.7), lowest, math.nan)
    places = ((r, x) for r in _ROWS for x in _COLUMNS)
    apart = [(r, x) for r, x in places if abs(r - EYE_ROW) > _APART or abs(x - EYE_COLUMN) > _APART]
    others = torch.stack([value[:, r, x] for r, x in apart], 1)
    known = others.isfinite()
    count = known.sum(1)
    mean = others.nanmean(1)
    squares = torch.where(known, others - mean[:, None], 0).square().sum(1)
    spread = squares.div((count - 1).clamp_min(1)).sqrt()
    score = (mean - value[:, EYE_ROW, EYE_COLUMN]) / spread.clamp_min(1e-9)
    return torch.where(count >= FEWEST_PLACES, score, math.nan)


def eye_detail(images: Tensor, opacity: Tensor) -> tuple[Tensor, Tensor]:
    """Detail of eyes' size in the logarithm of luma, and the mask: [N, 256, 256] float64 each.

    Args:
        images: uint8 [N, 3, R, R], yaw 180°, pitch 0.
        opacity: [N, r, r] in [0, 1].
    """
    check_images(images)
    x = images.double() / 255
    if x.shape[-1] != SIDE:
        x = F.interpolate(x, size=(SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
    luma = torch.einsum("nchw,c->nhw", x, x.new_tensor([0.299, 0.587, 0.114]))
    mask = _mask(opacity)
    return band_pass((0.05 + luma).log(), mask, LUMA_BAND), mask


def eye_pair(images: Tensor, opacity: Tensor) -> Tensor:
    """Score [N] of dark pairs at the eyes in back views, from `eye_detail`."""
    return pair_score(*eye_detail(images, opacity))


def relief(depth: Tensor, opacity: Tensor) -> tuple[Tensor, Tensor]:
    """Height of the surface's detail towards the camera, world units, and the mask: [N, 256, 256] float64 each.

    Args:
        depth, opacity: [N, r, r], best of 128² as the widths are; depth where opacity is low does not matter.
    """
    mask = _mask(opacity)
    return -band_pass(torch.where(mask > 0, _resize(depth), 0), mask, DEPTH_BAND), mask


def relief_pair(depth: Tensor, opacity: Tensor) -> Tensor:
    """Score [N] of pairs of dents at the eyes ("relief A"), from depth [N, r, r] of back views."""
    return pair_score(*relief(depth, opacity))


def front_relief(
    back_depth: Tensor, back_opacity: Tensor, front_depth: Tensor, front_opacity: Tensor
) -> Tensor:
    """Correlation [N] of the back's relief with the mirrored front's in the face window ("relief B").

    A surface that planes repeat behind the head is the front's, seen mirrored. Weighted with sin(πu) sin(πv) over the
    window; the best of all shifts by up to 6 pixels. NaN where less than half of the window shows the head.

    Args:
        back_depth, back_opacity, front_depth, front_opacity: [N, r, r], yaw 180° and yaw 0.
    """
    back, inside_back = (x[:, *WINDOW] for x in relief(back_depth, back_opacity))
    front, inside_front = (x.flip(-1) for x in relief(front_depth, front_opacity))
    height, width = back.shape[1:]
    u, v = (torch.sin(math.pi * (torch.arange(n, device=back.device) + 0.5) / n) for n in (height, width))
    window = (u[:, None] * v).double()
    best = torch.full((len(back),), -math.inf, dtype=torch.float64, device=back.device)
    for rows in range(WINDOW[0].start - SHIFT, WINDOW[0].start + SHIFT + 1):
        for columns in range(WINDOW[1].start - SHIFT, WINDOW[1].start + SHIFT + 1):
            part = (slice(None), slice(rows, rows + height), slice(columns, columns + width))
            weight = window * inside_back * inside_front[part]
            best = torch.maximum(best, _correlation(back, front[part], weight))
    visible = (window * inside_back).sum((1, 2)) > 0.5 * window.sum()
    return torch.where(visible & best.isfinite(), best, math.nan)


def _correlation(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Weighted correlation of [N, H, W] with [N, H, W]: [N]."""
    weight = weight / weight.sum((1, 2), keepdim=True).clamp_min(1e-9)
    a, b = (x - (weight * x).sum((1, 2), keepdim=True) for x in (a, b))
    spread = ((weight * a * a).sum((1, 2)) * (weight * b * b).sum((1, 2))).sqrt()
    return (weight * a * b).sum((1, 2)) / spread.clamp_min(1e-12)


def ghost_scores(views: GhostViews) -> GhostScores:
    """All three scores, on the CPU."""
    images, opacity, *reliefs = views
    scores = (eye_pair(images, opacity), relief_pair(*reliefs[:2]), front_relief(*reliefs))
    return GhostScores(*(score.cpu() for score in scores))


def limits(real: GhostScores) -> dict[str, float]:
    """The limit of each score, by name: the 95th percentile of real images.

    Raises:
        Head3DError: fewer than 20 real images that can be measured.
    """
    limits = {}
    for name, score in real._asdict().items():
        known = score[score.isfinite()]
        if len(known) < 20:
            raise Head3DError(f"a limit of {name} needs 20 real images with a score, got {len(known)}")
        limits[name] = float(torch.quantile(known, PERCENTILE))
    return limits
