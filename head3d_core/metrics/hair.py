"""Hair colour: does it agree between the front and the back of a head?"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from head3d_core.metrics.features import check_images
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.estimates import Estimate, bootstrap_weights, correlation, percentiles

CHANNELS = ("L*", "a*", "b*")
FEWEST = 10
_TO_XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
_WHITE = (0.95047, 1.0, 1.08883)


def lab(images: Tensor) -> Tensor:
    """CIE L*a*b* (D65) [N, 3, H, W] float64 of sRGB uint8 [N, 3, H, W] (IEC 61966-2-1, CIE 15)."""
    x = images.double() / 255
    linear = torch.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    xyz = torch.einsum("ij,njhw->nihw", x.new_tensor(_TO_XYZ), linear) / x.new_tensor(_WHITE)[:, None, None]
    root = torch.where(
        xyz > (6 / 29) ** 3, xyz.clamp_min(1e-9) ** (1 / 3), xyz / (3 * (6 / 29) ** 2) + 4 / 29
    )
    f, g, h = root.unbind(1)
    return torch.stack([116 * g - 16, 500 * (f - g), 200 * (g - h)], 1)


def hair_colour(images: Tensor, opacity: Tensor) -> Tensor:
    """Median L*, a* and b* [N, 3] of the upper third of each silhouette; NaN where nothing is opaque.

    Without a hat these are mostly hair, from the front as from behind.

    Args:
        images: uint8 [N, 3, R, R].
        opacity: [N, r, r] in [0, 1]; what is above 0.9 counts.
    """
    check_images(images)
    if len(opacity) != len(images):
        raise Head3DError(f"every image needs an opacity, got {len(images)} and {len(opacity)}")
    size = images.shape[-2:]
    inside = (
        F.interpolate(opacity.float()[:, None], size=size, mode="bilinear", align_corners=False)[:, 0] > 0.9
    )
    rows = inside.any(2)
    number = torch.arange(size[0], device=images.device)
    first = torch.where(rows, number, size[0]).amin(1)
    last = torch.where(rows, number, -1).amax(1)
    upper = inside & (number[:, None] <= (first + (last - first) / 3)[:, None, None])
    colour = torch.where(upper[:, None], lab(images), torch.nan)
    return colour.flatten(2).nanmedian(2).values


def colour_agreement(
    front: Tensor, back: Tensor, replicates: int = 1000, seed: int = 0
) -> dict[str, Estimate]:
    """Correlation over heads of front and back for each of L*, a*, b*, with a bootstrap over heads.

    Args:
        front, back: [N, 3] of `hair_colour`; heads with NaN are left out.

    Raises:
        Head3DError: two sizes, or fewer than 10 heads.
    """
    if front.shape != back.shape:
        raise Head3DError(
            f"front and back must be of the same heads, got {list(front.shape)} and {list(back.shape)}"
        )
    known = (front.isfinite() & back.isfinite()).all(1)
    x, y = (side[known].double().cpu().numpy() for side in (front, back))
    if len(x) < FEWEST:
        raise Head3DError(f"a correlation needs at least {FEWEST} heads, got {len(x)}")
    weights = np.concatenate([np.ones((1, len(x))), bootstrap_weights(len(x), replicates, seed)])
    correlations = {name: correlation(x[:, k], y[:, k], weights) for k, name in enumerate(CHANNELS)}
    return {
        name: percentiles(float(row[0]), row[1:], len(x), expanded=True) for name, row in correlations.items()
    }
