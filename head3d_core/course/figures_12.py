"""Surfaces in Plotly, to be turned, and their static twins: a head with cameras and planes, levels, backs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from head3d_core.course import figures
from head3d_core.geometry.mesh import simplify
from head3d_core.geometry.rasterize import mesh_picture, vertex_colours
from head3d_core.model import cameras

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
    place = np.asarray(small.vertices, np.float32).round(4)
    corner = np.asarray(small.faces, np.uint16 if len(place) < 2**16 else np.uint32)
    colour: dict[str, Any] = dict(
        intensity=shade(small),
        cmin=0,
        cmax=255,
        colorscale="Gray",
        showscale=False,
        lighting=dict(ambient=1, diffuse=0),
    )
    if coloured:
        rgb = (vertex_colours(small) * 255).round().astype(int)
        colour = dict(vertexcolor=[f"#{r:02x}{g:02x}{b:02x}" for r, g, b in rgb], lighting=_LIGHT)
    return go.Mesh3d(
        x=place[:, 0], y=place[:, 1], z=place[:, 2], i=corner[:, 0], j=corner[:, 1], k=corner[:, 2],
        name=name, hoverinfo="name", flatshading=False, **colour,
    )  # fmt: skip


def _scene(reach: float, eye: tuple[float, float, float]) -> dict[str, Any]:
    hidden = dict(visible=False, range=[-reach, reach])
    return dict(
        xaxis=hidden,
        yaxis=hidden,
        zaxis=hidden,
        aspectmode="cube",
        camera=dict(up=dict(x=0, y=1, z=0), eye=dict(x=eye[0], y=eye[1], z=eye[2])),
    )


def _eye(yaw: float, distance: float = 1.6) -> tuple[float, float, float]:
    """Where Plotly's camera stands, in its own units; yaw in radians."""
    return distance * math.sin(yaw), 0.25 * distance, distance * math.cos(yaw)


def _plane_traces(planes: Tensor, side: float, texels: int = 32) -> list[Any]:
    """The three planes as coloured sheets beside the cube: how strong the features are, channels' root mean square."""
    import plotly.graph_objects as go

    strength = planes.detach().float().square().mean(1, keepdim=True).sqrt()
    small = torch.nn.functional.interpolate(strength, size=(texels, texels), mode="area")[:, 0].cpu().numpy()
    h = side / 2
    u, v = np.meshgrid(np.linspace(-h, h, texels), np.linspace(-h, h, texels))
    away = np.full_like(u, -0.72 * side)
    places = {"F_xy": (u, v, away), "F_xz": (u, away, v), "F_yz": (away, u, v)}
    traces = []
    for k, (name, place) in enumerate(places.items()):
        x, y, z = (np.asarray(a, np.float32).round(3) for a in place)
        grey = (255 * (small[k] - small[k].min()) / max(float(np.ptp(small[k])), 1e-9)).astype(np.uint8)
        traces.append(
            go.Surface(
                x=x, y=y, z=z, surfacecolor=grey, name=name, showscale=False, colorscale="Cividis",
                hoverinfo="name", lighting=dict(ambient=1, diffuse=0),
            )
        )  # fmt: skip
    return traces


def head_in_space(mesh: trimesh.Trimesh, planes: Tensor, ring: Tensor, box_warp: float = 1.0) -> Any:
    """Plotly figure: the coloured surface, its three planes beside it and a ring of cameras around it.

    Args:
        mesh: with vertex colours.
        planes: [3, C, H, W] that it came from, axes "xyz".
        ring: cameras [N, 25]; drawn at half their distance, so that the head is not lost in the middle.
    """
    import plotly.graph_objects as go

    eyes = 0.5 * ring[:, [3, 7, 11]].cpu().numpy()
    around = np.concatenate([eyes, eyes[:1]]).round(3)
    figure = go.Figure([surface_trace(mesh, "surface"), *_plane_traces(planes, box_warp)])
    figure.add_trace(
        go.Scatter3d(
            x=around[:, 0], y=around[:, 1], z=around[:, 2], mode="lines+markers", name="cameras (at half distance)",
            line=dict(color="#444444", width=2), marker=dict(size=3, color=figures.PALETTE[1]), hoverinfo="name",
        )
    )  # fmt: skip
    figure.update_layout(
        title="The surface, its planes and its cameras (drag to turn)",
        width=760,
        height=560,
        margin=dict(l=0, r=0, t=40, b=0),
        showlegend=False,
        scene=_scene(1.4, _eye(0.6, 1.0)),
    )
    return figure


def level_slider(meshes: Sequence[trimesh.Trimesh], levels: Sequence[float], faces: int = 3000) -> Any:
    """Plotly figure with a slider: the surface at each level of sigma."""
    import plotly.graph_objects as go

    figure = go.Figure(
        [
            surface_trace(m, f"level {v:g}", coloured=False, faces=faces)
            for m, v in zip(meshes, levels, strict=True)
        ]
    )
    middle = len(levels) // 2
    for k, trace in enumerate(figure.data):
        trace.visible = k == middle
    steps = [
        dict(method="restyle", label=f"{v:g}", args=["visible", [j == k for j in range(len(levels))]])
        for k, v in enumerate(levels)
    ]
    figure.update_layout(
        title="The surface at a level of sigma (move the slider)",
        width=620,
        height=600,
        margin=dict(l=30, r=30, t=40, b=90),  # the slider's labels stand below and beside it
        scene=_scene(0.5, _eye(0.5, 1.25)),
        sliders=[dict(active=middle, steps=steps, currentvalue=dict(prefix="sigma = "))],
    )
    return figure


def side_by_side(
    meshes: Sequence[trimesh.Trimesh], names: Sequence[str], yaw: float = math.pi, faces: int = 2600
) -> Any:
    """Plotly figure: two surfaces next to each other, grey, seen from `yaw` (radians; by default from behind)."""
    from plotly.subplots import make_subplots

    kinds = [[{"type": "scene"}] * len(meshes)]
    figure = make_subplots(
        rows=1, cols=len(meshes), specs=kinds, subplot_titles=list(names), horizontal_spacing=0.02
    )
    for k, mesh in enumerate(meshes):
        figure.add_trace(surface_trace(mesh, names[k], coloured=False, faces=faces), row=1, col=k + 1)
    scenes = {f"scene{'' if k == 0 else k + 1}": _scene(0.5, _eye(yaw, 1.15)) for k in range(len(meshes))}
    figure.update_layout(width=420 * len(meshes), height=460, margin=dict(l=0, r=0, t=40, b=0), **scenes)
    return figure


def still_life(
    meshes: Sequence[trimesh.Trimesh],
    names: Sequence[str],
    yaws: Sequence[float],
    coloured: bool = True,
    size: int = 200,
) -> Any:
    """Static twin of all of the above: each mesh (rows) from each yaw in degrees (columns); one yaw: all in a row.

    Args:
        size: pixels per side of a picture.
    """
    images, titles = [], []
    for mesh, name in zip(meshes, names, strict=True):
        for yaw in yaws:
            camera = cameras.orbit(math.radians(yaw), 0.15)
            images.append(mesh_picture(mesh, camera, size, coloured))
            titles.append(f"{name}, {yaw:g}°")
    return figures.image_grid(images, titles, columns=len(yaws) if len(yaws) > 1 else len(meshes), size=2.2)


def density_slices(grid: NDArray[np.float32], box_warp: float, level: float) -> Any:
    """Three slices through a grid of raw sigma [R, R, R] (indexed x, y, z), with the line of the level."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(10.2, 3.4), layout="constrained")
    h, middle = box_warp / 2, len(grid) // 2
    inside = np.maximum(grid, 2 * float(np.median(grid)) - 60)
    slices = {
        "z = 0, from the front": (inside[:, :, middle].T, "x", "y"),
        "x = 0, from the subject's right": (inside[middle], "z", "y"),
        "y = 0, from above": (inside[:, middle].T, "x", "z"),
    }
    for axis, (title, (values, a, b)) in zip(axes, slices.items(), strict=True):
        shown = values.clip(-20, 40)
        drawn = axis.imshow(shown, origin="lower", extent=(-h, h, -h, h), cmap="cividis", vmin=-20, vmax=40)
        if b == "z":  # from above the face looks down the page, with x to the right
            axis.invert_yaxis()
        if values.min() < level < values.max():
            axis.contour(
                values, [level], origin="lower", extent=(-h, h, -h, h), colors="white", linewidths=1.2
            )
        axis.set(title=title, xlabel=f"{a} (world units)", ylabel=f"{b} (world units)")
    figure.colorbar(drawn, ax=axes, shrink=0.8, label="sigma (white line: the level)")
    return figure


def cloud_views(points: Tensor, colours: Tensor, most: int = 2500) -> Any:
    """A cloud of points [M, 3] with colours [M, 3] in [0, 1], from the front and from the side."""
    import matplotlib.pyplot as plt

    chosen = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))[:most]
    p, c = points[chosen].cpu().numpy(), colours[chosen].cpu().numpy()
    figure, axes = plt.subplots(1, 2, figsize=(8.4, 4.2), layout="constrained")
    for axis, (a, sign, name) in zip(axes, ((0, 1, "x"), (2, -1, "z")), strict=True):
        near = np.argsort(p[:, 2] if a == 0 else p[:, 0])
        axis.scatter(sign * p[near, a], p[near, 1], c=c[near], s=4)
        axis.set(xlabel=f"{'-' if sign < 0 else ''}{name} (world units)", ylabel="y (world units)")
        axis.set_aspect("equal")
    axes[0].set_title("from the front")
    axes[1].set_title("from the subject's left")
    return figure
