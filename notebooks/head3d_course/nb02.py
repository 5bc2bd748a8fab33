"""Notebook 02: three planes make a volume."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from head3d_course import figures
from head3d_course.exercises import Exercise, choice
from head3d_course.figures import PALETTE


def ray_image(features: Tensor) -> Tensor:
    """Ray features [R*R, F] -> rgb image [3, R, R]."""
    side = round(features.shape[0] ** 0.5)
    return features[:, :3].T.reshape(3, side, side)


def plane_grid(planes: Tensor, names: Sequence[str]) -> Any:
    """The first channel of the three planes of a head, planes [3, C, H, W], drawn with rows growing upwards."""
    figure, axes = figures.panels(10, 3.1, 1, 3)
    limit = float(planes[:, 0].abs().max())
    style = dict(origin="lower", cmap="cividis", vmin=-limit, vmax=limit, extent=(-1, 1, -1, 1))
    for k, (axis, name) in enumerate(zip(axes, names, strict=True)):
        drawn = axis.imshow(planes[k, 0].detach().numpy(), **style)
        axis.set(xlabel=f"{name[0]} (column)", ylabel=f"{name[1]} (row)")
        axis.set_title(f"F_{name}, channel 0", fontsize=11)
    figure.colorbar(drawn, ax=axes, shrink=0.8, label="feature value")
    return figure


def march_profile(depths: Tensor, sigma: Tensor, weights: Tensor) -> Any:
    """Density, transmittance and weights along one ray: depths [S], raw sigma [S], weights [S - 1]."""
    middle = ((depths[1:] + depths[:-1]) / 2).numpy()
    density = F.softplus((sigma[1:] + sigma[:-1]) / 2 - 1).numpy()
    share = weights.numpy()
    left = 1 - np.concatenate([[0], np.cumsum(share)[:-1]])
    figure, axes = figures.panels(7.5, 4.2, 2, sharex=True)
    figures.curve(axes[0], 0, middle, density, "density", markersize=3, markevery=1)
    figures.curve(axes[1], 1, middle, left, "transmittance (light left)", markersize=3, markevery=1)
    axes[1].bar(middle, share, width=0.8 * np.diff(middle).min(), color=PALETTE[2], label="weight")
    axes[0].set_ylabel("density (1 / length)")
    axes[0].legend(loc="upper right")
    axes[1].set(ylabel="share of the light", xlabel="depth along the ray (world units)")
    axes[1].legend(loc="center right")
    return figure


# --- exercises --------------------------------------------------------------------------------------------------------


def _third_plane(point: Tensor, box_warp: float, order: tuple[int, int] = (1, 2)) -> Tensor:
    return torch.stack([point[order[0]], point[order[1]]]) * (2 / box_warp)


third_plane = Exercise(
    truth=_third_plane,
    cases=[
        (torch.tensor([0.1, 0.2, 0.3]), 1.0),
        (torch.tensor([-0.4, 0.5, 0.0]), 1.0),
        (torch.tensor([0.3, -0.6, 0.7]), 1.6),
    ],
    mistakes={
        "(z, x) is what EG3D's released code does; (y, z) is asked": lambda p, b: _third_plane(p, b, (2, 0)),
        "the column is y and the row is z, not the reverse": lambda p, b: _third_plane(p, b, (2, 1)),
        "scale by 2 / box_warp, so that the cube becomes [-1, 1]": lambda p, b: _third_plane(p, b) * b / 2,
    },
)


def _alpha(sigma: Tensor, delta: Tensor | float, shift: float = 1.0) -> Tensor:
    return 1 - torch.exp(-F.softplus(sigma - shift) * delta)


def _weights(alpha: Tensor) -> Tensor:
    return alpha * torch.cat([alpha.new_ones(1), torch.cumprod(1 - alpha, 0)[:-1]])


ray_weights = Exercise(
    truth=lambda sigma, delta: _weights(_alpha(sigma, delta)),
    cases=[
        (torch.tensor([0.0, 3.0, 8.0, -4.0]), torch.tensor([0.1, 0.1, 0.1, 0.1])),
        (torch.tensor([-9.0, 12.0, 12.0]), torch.tensor([0.5, 0.25, 0.25])),
        (torch.zeros(5), torch.linspace(0.1, 0.5, 5)),
    ],
    mistakes={
        "density = softplus(sigma - 1): without -1 space is foggy": lambda s, d: _weights(_alpha(s, d, 0.0)),
        "that is alpha alone: the light left is missing": _alpha,
        "the transmittance of interval i takes the intervals before i, not i itself: shift the product": lambda s, d: (
            _alpha(s, d) * torch.cumprod(1 - _alpha(s, d), 0)
        ),
        "the length of the interval is missing in alpha": lambda s, d: _weights(_alpha(s, 1.0)),
    },
)

which_axes = choice("02.which_axes")
