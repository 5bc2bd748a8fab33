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
    inside = (
        F.interpolate(opacity.float()[:, None], size=size, mode="bilinear", align_corners=False)[:, 0] > 0.9
    )
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
    if len(x) < FEWEST:
        return {}
    weights = np.concatenate([np.ones((1, len(x))), bootstrap_weights(len(x), replicates, seed)])
    correlations = {name: correlation(x[:, k], y[:, k], weights) for k, name in enumerate(CHANNELS)}
    return {
        name: percentiles(float(row[0]), row[1:], len(x), expanded=True) for name, row in correlations.items()
    }
