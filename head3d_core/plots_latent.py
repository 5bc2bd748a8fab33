"""Pictures of walks through the latent space, and curves of recorded ones."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from head3d_core import cameras
from head3d_core.generator import Generator
from head3d_core.inversion import shrink
from head3d_core.one_view import SIDES
from head3d_core.plots import PALETTE


@torch.no_grad()
def rendered(
    G: Generator, planes: Tensor, ws: Tensor, yaw: float = 0.0, size: int = 128, camera: Tensor | None = None
) -> Tensor:
    """One head [3, size, size] in [-1, 1] seen from yaw (degrees), or from a camera [1, 25]."""
    view = cameras.orbit(math.radians(yaw), 0.1) if camera is None else camera
    image = G.render(planes, ws, view.to(ws)).image.clamp(-1, 1).cpu()
    return shrink(image, min(size, image.shape[-1]))[0]


@torch.no_grad()
def views(G: Generator, ws: Tensor, yaw: float = 0.0, size: int = 128) -> list[Tensor]:
    """Every head of ws [N, num_ws, w_dim] from one yaw (degrees), [3, size, size] each."""
    return [rendered(G, G.planes(one), one, yaw, size) for one in ws.split(1)]


def path_curves(walk: dict[str, Any]) -> Any:
    """Relative identity distance along straight paths, one line for each model of a `walk` record."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(5.2, 3.6), layout="constrained")
    axis.plot([0, 1], [0, 1], ":", color="#444444", label="in proportion to t")
    for k, (name, row) in enumerate(walk["models"].items()):
        curve = row["path"]["mean curve"]
        t = np.linspace(0, 1, len(curve))
        axis.plot(t, curve, ("-o", "--s", "-.^")[k % 3], color=PALETTE[k % 6], markersize=4, label=name)
    axis.set(xlabel="t (place between A and B)", ylabel="identity distance from A, end = 1")
    axis.legend()
    axis.grid(alpha=0.3)
    return figure


def inversion_curves(found: dict[str, Any]) -> Any:
    """Errors over iterations of an `invert` record: other sides (known camera), and the unknown camera's yaw."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for k, (name, model) in enumerate(found["models"].items()):
        for j, side in enumerate(SIDES):
            rows = [r["other sides"] for r in model["known camera"]]
            x = [step["iteration"] for step in rows[0]]
            y = np.mean([[step[side] for step in r] for r in rows], 0)
            axes[0].plot(x, y, ("-", "--", ":")[j], color=PALETTE[k % 6], label=f"{name}, {side}")
        yaw = np.abs([r["yaw error"] for r in model["unknown camera"]]).mean(0)
        axes[1].plot(yaw, ("-", "--", ":")[k % 3], color=PALETTE[k % 6], label=name)
    axes[0].set(xlabel="iteration", ylabel="mean difference / range", title="known camera: other sides")
    axes[1].set(xlabel="iteration", ylabel="|yaw error| (degrees)", title="unknown camera")
    for axis in axes:
        axis.legend(fontsize=7)
        axis.grid(alpha=0.3)
    return figure
