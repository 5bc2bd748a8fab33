"""Notebook 12: surfaces to be turned, and their stills: a head with cameras and planes, levels, backs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from head3d_core.geometry.mesh import simplify
from head3d_core.geometry.rasterize import mesh_picture, vertex_colours
from head3d_core.model import cameras
from head3d_course import figures
from head3d_course.exercises import Exercise, random

if TYPE_CHECKING:
    import trimesh

FACES = 4_000
"""Triangles of a surface in a stored figure: about 80 kB."""
_LIGHT = dict(ambient=0.9, diffuse=0.15, specular=0.0)
"""Plotly's lamp stands in front of the scene, above its right; a back that it alone lit would be black."""


def decimated(mesh: trimesh.Trimesh, faces: int = FACES) -> trimesh.Trimesh:
    """A mesh of at most `faces` triangles that keeps its vertices' colours, taken from the nearest old vertex."""
    import trimesh
    from scipy.spatial import cKDTree

    small = simplify(mesh, faces)
    if small is mesh:
        return mesh
    _, nearest = cKDTree(mesh.vertices).query(small.vertices)
    rgba = np.concatenate([vertex_colours(mesh)[nearest] * 255, np.full((len(nearest), 1), 255)], 1)
    small.visual = trimesh.visual.ColorVisuals(small, vertex_colors=rgba.round().astype(np.uint8))
    return small


def shade(mesh: trimesh.Trimesh) -> NDArray[np.uint8]:
    """Grey of each vertex, [V] from 0 (black) to 255: two lamps, in front and behind, both above the subject's left.

    Painted on, so that a surface shows its relief from behind as well as from the front.
    """
    x, y, z = np.asarray(mesh.vertex_normals).T
    lit = 0.45 * x + 0.55 * y + 0.7 * np.abs(z)
    return ((0.3 + 0.7 * lit.clip(0, 1)) * 255).round().astype(np.uint8)


def surface_trace(mesh: trimesh.Trimesh, name: str, coloured: bool = True, faces: int = FACES) -> Any:
    """A mesh as one Plotly trace, decimated to `faces` triangles."""
    import plotly.graph_objects as go

    small = decimated(mesh, faces)
    # 16-bit numbers keep the figure small: a ten-thousandth of a world unit, and up to 65,535 vertices.
    x, y, z = np.asarray(small.vertices, np.float32).round(4).T
    i, j, k = np.asarray(small.faces, np.uint16 if len(x) < 2**16 else np.uint32).T
    if coloured:
        rgb = (vertex_colours(small) * 255).round().astype(int)
        colour: dict[str, Any] = dict(
            vertexcolor=[f"#{r:02x}{g:02x}{b:02x}" for r, g, b in rgb], lighting=_LIGHT
        )
    else:
        colour = dict(intensity=shade(small), cmin=0, cmax=255, colorscale="Gray", showscale=False)
        colour["lighting"] = dict(ambient=1, diffuse=0)
    style = dict(name=name, hoverinfo="name", flatshading=False)
    return go.Mesh3d(x=x, y=y, z=z, i=i, j=j, k=k, **style, **colour)


def _eye(yaw: float, distance: float = 1.6) -> tuple[float, float, float]:
    """Where Plotly's camera stands, in its own units; yaw in radians."""
    return distance * math.sin(yaw), 0.25 * distance, distance * math.cos(yaw)


def _plane_traces(planes: Tensor, texels: int = 32) -> list[Any]:
    """The three planes as sheets beside the cube, side 1, coloured by the root mean square of the channels."""
    import plotly.graph_objects as go

    strength = planes.detach().float().square().mean(1, keepdim=True).sqrt()
    small = F.interpolate(strength, size=(texels, texels), mode="area")[:, 0].cpu().numpy()
    u, v = np.meshgrid(*[np.linspace(-0.5, 0.5, texels)] * 2)
    away = np.full_like(u, -0.72)
    traces = []
    places = {"F_xy": (u, v, away), "F_xz": (u, away, v), "F_yz": (away, u, v)}
    for k, (name, place) in enumerate(places.items()):
        x, y, z = (np.asarray(a, np.float32).round(3) for a in place)
        grey = (255 * (small[k] - small[k].min()) / max(float(np.ptp(small[k])), 1e-9)).astype(np.uint8)
        style = dict(showscale=False, colorscale="Cividis", lighting=dict(ambient=1, diffuse=0))
        traces.append(go.Surface(x=x, y=y, z=z, surfacecolor=grey, name=name, hoverinfo="name", **style))
    return traces


def head_in_space(mesh: trimesh.Trimesh, planes: Tensor, ring: Tensor | None = None) -> Any:
    """Plotly figure: the coloured surface, its three planes as walls of a room, and perhaps a ring of cameras.

    Args:
        mesh: with vertex colours.
        planes: [3, C, H, W] that it came from, axes "xyz".
        ring: cameras [N, 25]; drawn at half their distance, so that the head is not lost in the middle.
    """
    import plotly.graph_objects as go

    title = "The surface and its planes (drag to turn)"
    traces = [surface_trace(mesh, "surface"), *_plane_traces(planes)]
    if ring is not None:
        title = "The surface, its planes and its cameras (drag to turn)"
        eyes = 0.5 * ring[:, [3, 7, 11]].cpu().numpy()
        x, y, z = np.concatenate([eyes, eyes[:1]]).round(3).T
        style = dict(line=dict(color="#444444", width=2), marker=dict(size=3, color=figures.PALETTE[1]))
        named = dict(mode="lines+markers", name="cameras (at half distance)", hoverinfo="name")
        traces.append(go.Scatter3d(x=x, y=y, z=z, **named, **style))
    figure = figures.scene(title, 0.8 if ring is None else 1.4, _eye(0.6, 1.0), traces)
    for name, at in (("xy", (0, 0.6, -0.72)), ("xz", (0.6, -0.72, 0)), ("yz", (-0.72, 0.6, 0))):
        figures.label_at(figure, at, f"<b>F_{name}</b>")
    return figure.update_layout(showlegend=False)


def side_by_side(meshes: Sequence[trimesh.Trimesh], names: Sequence[str]) -> Any:
    """Plotly figure: two surfaces next to each other, grey, seen from behind."""
    from plotly.subplots import make_subplots

    kinds, count = [[{"type": "scene"}] * len(meshes)], len(meshes)
    figure = make_subplots(1, count, specs=kinds, subplot_titles=list(names), horizontal_spacing=0.02)
    for k, mesh in enumerate(meshes):
        figure.add_trace(surface_trace(mesh, names[k], coloured=False, faces=2600), row=1, col=k + 1)
    layout = figures.space(0.5, _eye(math.pi, 1.15))
    scenes = {f"scene{'' if k == 0 else k + 1}": layout for k in range(count)}
    return figures.on_paper(figure, 420 * count, 460).update_layout(**scenes)


def still_life(
    meshes: Sequence[trimesh.Trimesh],
    names: Sequence[str],
    yaws: Sequence[float],
    coloured: bool = True,
    size: int = 200,
) -> Any:
    """The still of all of the above: each mesh (rows) from each yaw in degrees (columns); one yaw: all in a row.

    Args:
        size: pixels per side of an image.
    """
    views = [cameras.orbit(math.radians(yaw), 0.15) for yaw in yaws]
    images = [mesh_picture(mesh, view, size, coloured) for mesh in meshes for view in views]
    titles = [f"{name}, {yaw:g}°" for name in names for yaw in yaws]
    return figures.image_grid(images, titles, columns=len(yaws) if len(yaws) > 1 else len(meshes))


def density_slices(grid: NDArray[np.float32], box_warp: float, level: float) -> Any:
    """Three slices through a grid of raw sigma [R, R, R] (indexed x, y, z), with the line of the level."""
    figure, axes = figures.panels(10.2, 3.4, 1, 3)
    h, middle = box_warp / 2, len(grid) // 2
    style = dict(origin="lower", extent=(-h, h, -h, h))
    inside = np.maximum(grid, 2 * float(np.median(grid)) - 60)
    slices = {
        "z = 0, from the front": (inside[:, :, middle].T, "x", "y"),
        "x = 0, from the subject's right": (inside[middle], "z", "y"),
        "y = 0, from above": (inside[:, middle].T, "x", "z"),
    }
    for axis, (title, (values, a, b)) in zip(axes, slices.items(), strict=True):
        drawn = axis.imshow(values.clip(-20, 40), cmap="cividis", vmin=-20, vmax=40, **style)
        if b == "z":  # from above the face looks down the page, with x to the right
            axis.invert_yaxis()
        if values.min() < level < values.max():
            axis.contour(values, [level], colors="white", linewidths=1.2, **style)
        axis.set(title=title, xlabel=f"{a} (world units)", ylabel=f"{b} (world units)")
    figure.colorbar(drawn, ax=axes, shrink=0.8, label="sigma (white line: the level)")
    return figure


# --- exercises --------------------------------------------------------------------------------------------------------


outward_normal = Exercise(
    truth=lambda plus, minus: F.normalize(minus - plus, dim=0),
    cases=[
        (torch.tensor([1.0, 2.0, -9.0]), torch.tensor([1.5, 2.0, 3.0])),
        (torch.tensor([-4.0, 0.0, 0.5]), torch.tensor([2.0, 1.0, 0.0])),
        (torch.tensor([10.0, 3.0, 7.0]), torch.tensor([9.0, 5.0, 7.5])),
    ],
    mistakes={
        "that points inwards: the normal points to falling sigma": lambda p, m: F.normalize(p - m, dim=0),
        "a normal has length 1": lambda p, m: m - p,
        "a derivative is a difference of the two sides, not a sum": lambda p, m: F.normalize(m + p, dim=0),
    },
    tolerance=1e-5,
)


def _nearest(a: Tensor, b: Tensor) -> Tensor:
    return torch.cdist(a, b).amin(1)


def _chamfer(a: Tensor, b: Tensor, power: int = 1) -> Tensor:
    return ((_nearest(a, b) ** power).mean() + (_nearest(b, a) ** power).mean()) / 2


chamfer = Exercise(
    truth=_chamfer,
    cases=[
        (torch.tensor([[0.0, 0, 0], [1, 0, 0]]), torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 3, 0]])),
        (random(4, 20, 3), random(5, 31, 3)),
        (random(6, 8, 3), 2 + random(7, 5, 3)),
    ],
    mistakes={
        "one way only: half a head would be perfect": lambda a, b: _nearest(a, b).mean(),
        "one way only: floaters would cost nothing": lambda a, b: _nearest(b, a).mean(),
        "those are squares: here the distances are averaged, so that the result is a length": lambda a, b: (
            _chamfer(a, b, 2)
        ),
        "compare with the nearest point only": lambda a, b: torch.cdist(a, b).mean(),
        "the mean of the two ways, not their sum": lambda a, b: 2 * _chamfer(a, b),
    },
    tolerance=1e-5,
)
