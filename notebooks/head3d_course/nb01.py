"""Notebook 01: cameras and rays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from head3d_core.model import cameras
from head3d_core.model.rays import camera_rays
from head3d_course import figures
from head3d_course.exercises import Exercise, choice, vector
from head3d_course.figures import PALETTE, STYLES


def frustums(camera: Tensor, labels: Sequence[str]) -> Any:
    """Plotly figure: cameras [N, 25] as frustums around the cube of the planes, side 1."""
    import plotly.graph_objects as go

    figure = figures.scene("Cameras around the cube (drag to turn)", 2.9)
    places = ("middle right", "top center", "bottom center")
    for k, name in enumerate(("x: subject's left", "y: up", "z: the face looks here")):
        x, y, z = ([0, 1.1 if j == k else 0.0] for j in range(3))
        style = dict(
            mode="lines+text", showlegend=False, hoverinfo="skip", line=dict(color="#444444", width=3)
        )
        figure.add_trace(go.Scatter3d(x=x, y=y, z=z, text=["", name], textposition=places[k], **style))
    figure.add_trace(figures.line_in_space(figures.cube_lines(), "the cube", "#444444", "dot"))
    for k, label in enumerate(labels):
        figure.add_trace(figures.line_in_space(figures.frustum_lines(camera[k]), label, PALETTE[k % 6]))
        figures.label_at(figure, camera[k, [3, 7, 11]].tolist(), label)
    return figure


def rays_from_above(camera: Tensor, labels: Sequence[str], resolution: int = 8) -> Any:
    """The middle row of each camera's rays, drawn in the (x, z) plane with the cube as a dotted square."""
    from matplotlib.patches import Rectangle

    figure, axis = figures.panels(6.2, 5)
    axis.add_patch(Rectangle((-0.5, -0.5), 1, 1, fill=False, linestyle=":", color="#444444"))
    row = slice(resolution // 2 * resolution, (resolution // 2 + 1) * resolution)
    for k, label in enumerate(labels):
        origins, directions = camera_rays(camera[k : k + 1], resolution)
        start, end = origins[0, row], origins[0, row] + 3.3 * directions[0, row]
        style = {"color": PALETTE[k % 6], "linestyle": STYLES[k % 2], "linewidth": 1}
        for a, b in zip(start.tolist(), end.tolist(), strict=True):
            axis.plot([a[0], b[0]], [a[2], b[2]], **style)
        eye = (float(start[0, 0]), float(start[0, 2]))
        axis.annotate(label, eye, xytext=(6, 0), textcoords="offset points")
    axis.set(
        xlim=(-2, 4), ylim=(-1.6, 3.2), xlabel="x (world units)", ylabel="z (world units)", aspect="equal"
    )
    return figure


def axes_view(yaw: float, pitch: float, size: int = 192) -> np.ndarray:
    """The three world axes as an orbiting camera sees them: image [size, size, 3] uint8.

    Args:
        yaw, pitch: radians.
    """
    from PIL import Image, ImageDraw, ImageFont

    camera = cameras.orbit(yaw, pitch)
    cam2world, matrix = cameras.unpack(camera)
    tips = torch.cat([torch.zeros(1, 3), 0.22 * torch.eye(3)])
    local = (tips - cam2world[0, :3, 3]) @ cam2world[0, :3, :3]
    pixel = (local[:, :2] / local[:, 2:] * matrix[0, 0, 0] + 0.5) * size
    picture = Image.new("RGB", (size, size), "white")
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=size / 10)
    middle = tuple(pixel[0].tolist())
    order = sorted(range(1, 4), key=lambda k: -float(local[k, 2]))
    for k in order:
        tip = tuple(pixel[k].tolist())
        colour = ("#D55E00", "#009E73", "#0072B2")[k - 1]
        pen.line([middle, tip], fill=colour, width=5)
        pen.ellipse([tip[0] - 6, tip[1] - 6, tip[0] + 6, tip[1] + 6], fill=colour)
    for k in order:  # names last and beyond the tips, so that no line crosses them
        outwards = pixel[k] - pixel[0]
        place = pixel[k] + 0.09 * size * outwards / outwards.norm().clamp_min(0.05 * size)
        pen.text(tuple(place.tolist()), f"+{'xyz'[k - 1]}", fill="black", font=font, anchor="mm")
    return np.array(picture)


# --- exercises --------------------------------------------------------------------------------------------------------


def _position(yaw: float, pitch: float, radius: float) -> Tensor:
    return radius * vector(math.sin(yaw) * math.cos(pitch), math.sin(pitch), math.cos(yaw) * math.cos(pitch))


camera_position = Exercise(
    truth=_position,
    cases=[(0.0, 0.0, 2.7), (math.pi / 2, 0.0, 2.7), (0.4, 0.2, 2.7), (math.pi, -0.3, 1.0)],
    mistakes={
        "sine and cosine of the yaw are exchanged: 0 is +z": lambda y, p, r: _position(math.pi / 2 - y, p, r),
        "positive yaw moves the camera to +x (the subject's left)": lambda y, p, r: _position(-y, p, r),
        "positive pitch moves the camera up: the world has y up": lambda y, p, r: _position(y, -p, r),
        "x and z need a factor cos(pitch)": lambda y, p, r: r * vector(math.sin(y), math.sin(p), math.cos(y)),
    },
)


def _direction(focal: float, row: int, col: int, resolution: int, *, half: float = 0.5) -> Tensor:
    x = ((col + half) / resolution - 0.5) / focal
    y = ((row + half) / resolution - 0.5) / focal
    return F.normalize(vector(x, y, 1.0), dim=0)


pixel_direction = Exercise(
    truth=_direction,
    cases=[(4.2647, 0, 0, 4), (4.2647, 1, 2, 4), (1.0, 3, 0, 4), (2.0, 10, 63, 64)],
    mistakes={
        "a ray leaves through its pixel's centre: col + 0.5": lambda *a: _direction(*a, half=0.0),
        "rows and columns are exchanged: x goes with the column": lambda f, r, c, n: _direction(f, c, r, n),
        "the camera's y axis points down": lambda *a: _direction(*a) * vector(1, -1, 1),
        "the direction needs length 1": lambda *a: _direction(*a) / _direction(*a)[2],
    },
    tolerance=1e-5,
)


def _mirror(camera: Tensor) -> Tensor:
    return cameras.mirror(camera[None])[0]


mirror_camera = Exercise(
    truth=_mirror,
    cases=[(cameras.orbit(0.3, 0.1)[0],), (cameras.orbit(-1.2, -0.2)[0],), (cameras.orbit(2.5, 0.4)[0],)],
    mistakes={
        "flipping the picture without its camera teaches the wrong pose": lambda c: c,
        "the camera still looks the old way": lambda c: torch.cat([c[:3], -c[3:4], c[4:]]),
        "the camera is still on the old side": lambda c: torch.cat([_mirror(c)[:3], c[3:4], _mirror(c)[4:]]),
    },
)

forgotten_flip = choice("01.forgotten_flip")
