"""Silhouettes of heads and the hair colour inside them; which views are frontal, and which from behind."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from head3d_core.metrics.features import check_images
from head3d_core.model.cameras import yaw_pitch
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.estimates import Estimate, bootstrap_weights, correlation, percentiles, share

FRONTAL_YAW, FRONTAL_PITCH, BACK_YAW = 20.0, 15.0, 135.0
"""Degrees."""
_ROUNDING = 1e-3
MASK_SIDE = 64
"""Side of stored silhouettes, pixels: what the classroom generator renders volumes at."""
SPAN_SIDE = 32
"""Side to which silhouettes are averaged before they are compared with the span of real ones."""
CHANNELS = ("L*", "a*", "b*")
FEWEST_HEADS = 10
"""Heads below which no correlation of colours is measured."""


def is_frontal(camera: Tensor) -> Tensor:
    """[N] bool: |yaw| <= 20° and |pitch| <= 15° for cameras [N, 25]."""
    yaw, pitch = (x.abs() * 180 / math.pi for x in yaw_pitch(camera))
    return (yaw <= FRONTAL_YAW + _ROUNDING) & (pitch <= FRONTAL_PITCH + _ROUNDING)


def is_back(camera: Tensor) -> Tensor:
    """[N] bool: |yaw| >= 135°."""
    yaw, _ = yaw_pitch(camera)
    return yaw.abs() * 180 / math.pi >= BACK_YAW - _ROUNDING


def silhouettes(coverage: Tensor, camera: Tensor) -> Tensor:
    """Coverage [N, R, R] (uint8 or [0, 1]) as uint8 [N, 64, 64], views from the subject's right mirrored."""
    x = coverage.float() / (255 if coverage.dtype == torch.uint8 else 1)
    small = F.interpolate(x[:, None], size=(MASK_SIDE, MASK_SIDE), mode="area")[:, 0]
    yaw = yaw_pitch(camera)[0].to(small.device)
    small = torch.where(yaw[:, None, None] < 0, small.flip(-1), small)
    return (small * 255).round().clamp(0, 255).to(torch.uint8).cpu()


def _masks(x: Tensor, name: str) -> Tensor:
    """Coverage [N, H, W] or [N, 1, H, W] in [0, 1] (uint8: 0 to 255, bool) as bool [N, H, W]: at least half."""
    if x.dtype == torch.uint8:
        x = x.float() / 255
    x = x.float()
    if x.ndim == 4 and x.shape[1] == 1:
        x = x[:, 0]
    if x.ndim != 3 or 0 in x.shape:
        raise Head3DError(f"{name} must be [N, H, W] or [N, 1, H, W] and not empty, got {list(x.shape)}")
    if not bool(torch.isfinite(x).all()):
        raise Head3DError(f"{name} has values that are not finite: the model that made it has diverged")
    return x >= 0.5


def silhouette_iou(opacity: Tensor, truth: Tensor) -> Tensor:
    """|A ∩ B| / |A ∪ B| of two silhouettes, [N] float64; 1 where both are empty.

    Args:
        opacity: [N, 1, R, R] or [N, R, R] of a rendering.
        truth: coverage of the same size, uint8 or [0, 1].
    """
    a, b = _masks(opacity, "opacity"), _masks(truth, "truth")
    if a.shape != b.shape:
        raise Head3DError(f"images are compared pixel by pixel, got {list(a.shape)} and {list(b.shape)}")
    both, either = (a & b).flatten(1).sum(1).double(), (a | b).flatten(1).sum(1).double()
    return torch.where(either > 0, both / either.clamp_min(1), torch.ones_like(either))


class SilhouetteSpan:
    """What silhouettes of real heads look like: a linear span of them, and how far a new one lies outside.

    Silhouettes are averaged to 32 × 32 and described by their first principal components over real ones (an "active
    shape", Cootes et al. 1995). The error of a silhouette is the root mean square of what the components leave over;
    "outside" is an error above the 99th percentile of real silhouettes that were not used for the fit. Needs no ground
    truth per head, so it works for sampled heads, one span per group of views (front, side, back).

    Args:
        masks: silhouettes of real heads from that group of views, [N, H, W], N >= 20; half fit, half set the limit.
    """

    def __init__(self, masks: Tensor) -> None:
        x = self._describe(masks)
        if len(x) < 20:
            raise Head3DError(f"a span of silhouettes needs at least 20 real ones, got {len(x)}")
        order = np.random.default_rng(0).permutation(len(x))
        fit, rest = x[order[: len(x) // 2]], x[order[len(x) // 2 :]]
        self.mean = fit.mean(0)
        _, _, axes = np.linalg.svd(fit - self.mean, full_matrices=False)
        self.axes = axes[: min(24, len(x) // 4)]
        self.limit = float(np.quantile(self._errors(rest), 0.99))
        """RMS beyond which a silhouette is outside."""

    @staticmethod
    def _describe(masks: Tensor) -> NDArray[np.float64]:
        inside = _masks(masks, "masks").float()[:, None]
        small = F.interpolate(inside, size=(SPAN_SIDE, SPAN_SIDE), mode="area")
        return np.asarray(small.flatten(1).double().cpu().numpy())

    def _errors(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """[N] root mean square coverage that the span cannot express."""
        centred = x - self.mean
        left = centred - centred @ self.axes.T @ self.axes
        return np.asarray(np.sqrt((left**2).mean(1)))

    def outside(self, masks: Tensor) -> Estimate:
        """Share of silhouettes beyond the limit; about 1 % for real heads."""
        return share(int((self._errors(self._describe(masks)) > self.limit).sum()), len(masks))


def hair_colour(images: Tensor, opacity: Tensor) -> Tensor:
    """Median L*, a* and b* [N, 3] of the upper third of each silhouette; NaN where nothing is opaque.

    Without a hat these are mostly hair, from the front as from behind. CIE L*a*b* under D65.

    Args:
        images: uint8 [N, 3, R, R].
        opacity: [N, r, r] in [0, 1]; what is above 0.9 counts.
    """
    from skimage.color import rgb2lab

    check_images(images)
    if len(opacity) != len(images):
        raise Head3DError(f"every image needs an opacity, got {len(images)} and {len(opacity)}")
    size = images.shape[-2:]
    resized = F.interpolate(opacity.float()[:, None], size=size, mode="bilinear", align_corners=False)
    inside = resized[:, 0] > 0.9
    rows = inside.any(2)
    number = torch.arange(size[0], device=images.device)
    first = torch.where(rows, number, size[0]).amin(1)
    last = torch.where(rows, number, -1).amax(1)
    upper = inside & (number[:, None] <= (first + (last - first) / 3)[:, None, None])
    lab = torch.from_numpy(rgb2lab(images.cpu().double().numpy() / 255, channel_axis=1)).to(images.device)
    return torch.where(upper[:, None], lab, torch.nan).flatten(2).nanmedian(2).values


def colour_agreement(
    front: Tensor, back: Tensor, replicates: int = 1000, seed: int = 0
) -> dict[str, Estimate]:
    """Correlation over heads of front and back for each of L*, a*, b*, with a bootstrap over heads.

    Args:
        front, back: [N, 3] of `hair_colour`; heads with NaN are left out.

    Returns:
        By name; empty of fewer than 10 heads.
    """
    known = (front.isfinite() & back.isfinite()).all(1)
    x, y = (side[known].double().cpu().numpy() for side in (front, back))
    if len(x) < FEWEST_HEADS:
        return {}
    weights = np.concatenate([np.ones((1, len(x))), bootstrap_weights(len(x), replicates, seed)])
    found = {}
    for k, name in enumerate(CHANNELS):
        every = correlation(x[:, k], y[:, k], weights)
        found[name] = percentiles(float(every[0]), every[1:], len(x), expanded=True)
    return found
