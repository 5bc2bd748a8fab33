"""Notebook 13: walks through the latent space, and curves of recorded ones."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from head3d_core.experiments.known_heads import SIDES
from head3d_core.model import cameras
from head3d_core.model.generator import Generator
from head3d_core.utils.images import shrink
from head3d_course import figures
from head3d_course.exercises import Exercise
from head3d_course.figures import PALETTE, STYLES


@torch.no_grad()
def views(
    G: Generator, ws: Tensor, yaw: float = 0.0, size: int = 128, camera: Tensor | None = None
) -> list[Tensor]:
    """Every head of ws [N, num_ws, w_dim] from one yaw (degrees) or a camera [1, 25]: [3, size, size] in [-1, 1]."""
    view = (cameras.orbit(math.radians(yaw), 0.1) if camera is None else camera).to(ws)
    images = [G.render(G.planes(one), one, view).image.clamp(-1, 1).cpu() for one in ws.split(1)]
    return [shrink(image, min(size, image.shape[-1]))[0] for image in images]


def path_curves(walk: dict[str, Any]) -> Any:
    """Relative identity distance along straight paths, one line for each model of a `walk` record."""
    figure, axis = figures.panels(5.2, 3.6)
    axis.plot([0, 1], [0, 1], ":", color="#444444", label="in proportion to t")
    for k, (name, row) in enumerate(walk["models"].items()):
        mean = row["path"]["mean curve"]
        figures.curve(axis, k, np.linspace(0, 1, len(mean)), mean, name)
    axis.set(xlabel="t (place between A and B)", ylabel="identity distance from A, end = 1")
    axis.legend()
    axis.grid(alpha=0.3)
    return figure


def inversion_curves(found: dict[str, Any]) -> Any:
    """Errors over iterations of an `invert` record, a panel for each group of views, and the unknown camera's yaw.

    Thick lines are means over heads, thin ones single heads; the dotted upright is where layers begin to part.
    """
    figure, axes = figures.panels(9, 6.4, 2, 2)
    panels = dict(zip([*SIDES, ""], axes.flat, strict=True))
    for axis in axes.flat[1:3]:
        axis.sharey(axes[0, 0])
    for k, (name, model) in enumerate(found["models"].items()):
        style = {"color": PALETTE[k % 6], "linestyle": STYLES[k % 4]}
        for side, axis in panels.items():
            if side:
                rows = [row["other sides"] for row in model["known camera"]]
                x = [step["iteration"] for step in rows[0]]
                lines = np.array([[step[side] for step in row] for row in rows])
            else:
                lines = np.abs([row["yaw error"] for row in model["unknown camera"]])
                x = list(range(lines.shape[1]))
            for line in lines:
                axis.plot(x, line, **style, linewidth=0.8, alpha=0.5)
            axis.plot(x, lines.mean(0), **style, linewidth=2.6, label=name)
    for side, axis in panels.items():
        axis.axvline(found["about"]["steps"], color="#444444", linestyle=":", linewidth=1)
        title = f"known camera: {side}" if side else "unknown camera"
        axis.set(title=title, xlabel="iteration", ylim=(0, None))
        axis.set_ylabel("mean difference / range" if side else "|yaw error| (degrees)")
        axis.grid(alpha=0.3)
    axes[0, 0].legend()
    return figure


# --- exercises --------------------------------------------------------------------------------------------------------


def _apart(distance: Tensor, end: float | Tensor) -> Tensor:
    return distance / end - torch.linspace(0, 1, len(distance))


bend = Exercise(
    truth=lambda distance: _apart(distance, distance[-1]).abs().max(),
    cases=[
        (torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4]),),
        (torch.tensor([0.0, 0.02, 0.3, 0.5, 0.6]),),
        (torch.tensor([0.0, 0.5, 0.7]),),
    ],
    mistakes={
        "divide by the distance at the end": lambda d: _apart(d, 1).abs().max(),
        "the bend is the largest one": lambda d: _apart(d, d[-1]).abs().mean(),
        "take the absolute value": lambda d: _apart(d, d[-1]).max(),
    },
)


def _turning(to_a: Tensor, to_b: Tensor) -> int:
    farther = (to_b >= to_a).nonzero()
    return 0 if len(farther) == 0 else int(farther[-1]) + 1


turning_layer = Exercise(
    truth=_turning,
    cases=[
        (torch.tensor([0.0, 0.2, 0.5, 0.8, 1.0]), torch.tensor([1.0, 0.9, 0.6, 0.3, 0.0])),
        (torch.tensor([0.0, 0.6, 0.4, 0.8, 0.9]), torch.tensor([0.9, 0.5, 0.6, 0.2, 0.0])),
        (torch.tensor([0.0, 0.3, 0.35, 0.9]), torch.tensor([0.8, 0.4, 0.3, 0.0])),
    ],
    mistakes={
        "from there *on*: a later mix may be nearer to A again": lambda a, b: int((b < a).nonzero()[0]),
        "that is the last mix nearer to A; B wins from the next one on": lambda a, b: _turning(a, b) - 1,
        "A and B are exchanged": lambda a, b: int((a >= b).nonzero()[-1]) + 1,
        "nearer to B than to A: no limit of one half is involved": lambda a, b: int((b < 0.5).nonzero()[0]),
    },
)
