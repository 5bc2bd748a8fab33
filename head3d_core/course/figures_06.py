"""Figures of the plane-swap lab: grids of exchanges, recorded tables, and planes standing in space around a head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from head3d_core.config import PLANE_NAMES
from head3d_core.course.figures import (
    PALETTE,
    _cube_lines,
    _lines,
    _world_scene,
    frustum_lines,
    image_grid,
    to_pixels,
)
from head3d_core.course.swap_lab import Shown
from head3d_core.course.swap_widgets import HEAT_LIMIT
from head3d_core.experiments import plane_swap, swap_study
from head3d_core.geometry import mesh
from head3d_core.model import cameras
from head3d_core.model.generator import Generator
from head3d_core.model.planes import PROJECTION
from head3d_core.model.seeds import PSI, Heads, heads_of_seeds
from head3d_core.utils import files, records

TEXELS = 40
"""Side to which planes are averaged for a figure, so that it stays small."""


def show_pictures(figure: Any, alt: str) -> None:
    """`plots.show` for figures full of photographs: 256 colours, a third of the size: notebooks stay small."""
    import io

    import matplotlib.pyplot as plt
    from IPython.display import Image, display
    from PIL import Image as Picture

    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=100, bbox_inches="tight", facecolor="white")
    plt.close(figure)
    picture = Picture.open(drawn).convert("RGB")
    few = picture.quantize(255)
    few.putpalette([*(few.getpalette() or [])[: 3 * 255], 255, 255, 255])  # the background stays white
    fewer = picture.quantize(palette=few, dither=Picture.Dither.FLOYDSTEINBERG)
    fewer.save(small, format="png", optimize=True)
    display(Image(data=small.getvalue(), alt=alt))


def exchanged(first: Generator, one: Heads, two: Heads, views: Tensor, finished: bool = True) -> list[Tensor]:
    """One plane at a time: pictures of head 1 with F_xy, F_xz, F_yz of head 2, seen from cameras [V, 25].

    Args:
        first: generator of head 1, which decodes and finishes.
        one, two: one head each.

    Returns:
        Per plane, V pictures [V, 3, R, R].
    """
    rows = []
    for name in PLANE_NAMES[first.config.render.axes]:
        mixed, ws = plane_swap.mix(one, two, plane_swap.exchange(name))
        rows.append(_pictures(first, mixed, ws, views, finished))
    return rows


def _pictures(G: Generator, mixed: Tensor, ws: Tensor, views: Tensor, finished: bool) -> Tensor:
    if not finished:
        return torch.cat([plane_swap.look(G, mixed, view[None]).rgb for view in views])
    return torch.cat([plane_swap.picture(G, mixed, ws, view[None]) for view in views])


def identity_grid(G: Generator, heads: Heads, pairs: Sequence[tuple[int, int]], finished: bool = True) -> Any:
    """Fig. 2: one row a pair; ID 1, ID 2, then ID 1 with F_xy, F_xz, F_yz of ID 2, all frontal."""
    front, images = cameras.orbit(0.0), []
    for i, j in pairs:
        one, two = heads.take([i]), heads.take([j])
        images += [_pictures(G, h.planes, h.ws, front, finished)[0] for h in (one, two)]
        images += [row[0] for row in exchanged(G, one, two, front, finished)]
    names = PLANE_NAMES[G.config.render.axes]
    titles = ["ID 1", "ID 2", *(f"ID 1 with\nF_{n} of ID 2" for n in names)]
    return image_grid(images, titles, columns=5, size=1.6)


def generator_grid(
    G_first: Generator,
    G_second: Generator,
    seed: int,
    names: tuple[str, str],
    psi: float = PSI,
    finished: bool = True,
) -> Any:
    """Fig. 3: one row a view (front, three quarters, back); either generator's head, then the first's with each plane
    of the second."""
    views = cameras.orbit(torch.deg2rad(torch.tensor([0.0, 60.0, 180.0])))
    one, two = (heads_of_seeds(G, [seed], psi) for G in (G_first, G_second))
    columns = [
        _pictures(G, h.planes, h.ws, views, finished) for G, h in ((G_first, one), (G_second, two))
    ] + exchanged(G_first, one, two, views, finished)
    planes = PLANE_NAMES[G_first.config.render.axes]
    titles = [*names, *(f"{names[0]} with\nF_{n} of {names[1]}" for n in planes)]
    return image_grid([c[k] for k in range(len(views)) for c in columns], titles, columns=5, size=1.6)


def shown_states(shown: Sequence[Shown], titles: Sequence[str]) -> Any:
    """Static twin of the widget: pictures of some states above their difference to head A."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, len(shown), figsize=(1.9 * len(shown) + 0.6, 4.3), layout="constrained")
    for column, (one, title) in enumerate(zip(shown, titles, strict=True)):
        likeness = ""
        if one.similarity is not None:
            likeness = f"\nto A {one.similarity[0]:.2f}, to B {one.similarity[1]:.2f}"
        axes[0, column].imshow(one.picture)
        axes[0, column].set_title(title + likeness, fontsize=10)
        drawn = axes[1, column].imshow(one.heat, cmap="cividis", vmin=0, vmax=HEAT_LIMIT)
    for axis in axes.flat:
        axis.axis("off")
    figure.colorbar(drawn, ax=axes[1], shrink=0.8, extend="max", label="difference to A")
    return figure


def carried_bars(*studies: dict[str, Any]) -> Any:
    """Bars with intervals: the share of each measure's difference that travels with each plane (see `swap_study`).

    One panel for each study, titled with its axes where there are several.
    """
    import matplotlib.pyplot as plt

    measures = list(studies[0]["measures"])
    size = (1.45 * len(measures) + 1.5, 2.9 * len(studies) + 0.5)
    figure, panels = plt.subplots(
        len(studies), figsize=size, layout="constrained", sharex=True, sharey=True, squeeze=False
    )
    for axis, found in zip(panels[:, 0], studies, strict=True):
        for k, name in enumerate(found["planes"]):
            shares = [found["measures"][m]["planes"][name]["carried"] for m in measures]
            x = np.arange(len(measures)) + 0.27 * (k - 1)
            value = np.array([s["value"] for s in shares])
            # A percentile interval of a bootstrap may leave the estimate out by a hair.
            spread = np.clip(
                [value - [s["low"] for s in shares], [s["high"] for s in shares] - value], 0, None
            )
            axis.bar(
                x, value, 0.25, yerr=spread, color=PALETTE[k], hatch=("", "//", "..")[k], edgecolor="white",
                capsize=3, label=f"F_{name}",
            )  # fmt: skip
        axis.axhline(1, color="#444444", linewidth=1, linestyle=":")
        axis.set_xticks(np.arange(len(measures)), [m.replace(", ", "\n") for m in measures], fontsize=10)
        axis.set_ylabel("share carried", fontsize=11)
        if len(studies) > 1:
            axis.set_title(f"axes {found['axes']}", fontsize=12, loc="left")
        axis.legend(ncols=3, fontsize=10, loc="lower right", bbox_to_anchor=(1, 1), frameon=False)
    return figure


def recorded_study(name: str) -> dict[str, Any] | None:
    """The recorded study of generators with axes "xyz" or "eg3d", or None if it is not there yet.

    "xyz_531k" and "eg3d_531k" are the two teachers at equal images, on fewer people.
    """
    name = f"swap_study_{name}"
    if not (files.DATA / "results" / f"{name}.json").exists():
        return None
    return records.read(name, f"python -m head3d_core swap-study --out data/results/{name}.json")


def table_beside_paper(found: dict[str, Any], measure: str = plane_swap.RAW) -> str:
    """Table 1 as text: ours, (1 + cos) / 2, with the paper's numbers beside it."""
    names = found["planes"]
    head = "  ".join(f"F_{n:4s}" for n in names)
    lines = [f"{head}  to ID 1 (paper)   to ID 2 (paper)"]
    for row, (source, first, second) in zip(found["table_1"][measure], swap_study.PAPER_TABLE_1, strict=True):
        one, two = (row[f"{side}, (1+cos)/2"]["value"] for side in ("to ID 1", "to ID 2"))
        cells = "  ".join(f"{s:6s}" for s in source)
        lines.append(f"{cells}   {one:5.3f} ({first:5.3f})     {two:5.3f} ({second:5.3f})")
    return "\n".join(lines)


# --- planes in space --------------------------------------------------------------------------------------------------


def between_table(found: dict[str, Any] | None = None, measure: str = "identity") -> str:
    """How near one plane of a second generator brings the first one's head to the second's.

    Args:
        found: of `swap_study.run` with two generators; None takes `data/results/swap_generators.json`.

    Raises:
        Head3DError: it is not recorded; the message says how to.
    """
    found = found or records.read(
        "swap_generators", "python -m head3d_core swap-study --weights head --second face"
    )
    distance, second = found["measures"][measure], found["second"]

    def line(what: str, value: dict[str, float]) -> str:
        return f"{what:24s} {value['value']:.2f} [{value['low']:.2f}, {value['high']:.2f}]"

    planes = [line(f"F_{name} from {second}", row["to second"]) for name, row in distance["planes"].items()]
    head = f"{measure}: distance to the head that {second} makes of the same z, {found['identities']} seeds"
    return "\n".join([head, line("no plane exchanged", distance["apart"]), *planes])


def plane_texture(plane: Tensor, texels: int = TEXELS) -> NDArray[np.float64]:
    """What a plane [C, H, W] looks like in one number a texel: its first principal component over channels.

    Averaged to `texels` a side, scaled so that 98 % lie in [-1, 1], and signed so that the middle is positive.
    """
    small = torch.nn.functional.adaptive_avg_pool2d(
        plane.detach().float()[None], min(texels, plane.shape[-1])
    )[0]
    flat = small.flatten(1) - small.flatten(1).mean(1, keepdim=True)
    _, vectors = torch.linalg.eigh(flat @ flat.T)
    component = vectors[:, -1] @ flat
    picture = component.reshape(small.shape[1:]).double().numpy()
    side = picture.shape[0]
    if picture[side // 3 : -side // 3, side // 3 : -side // 3].mean() < 0:
        picture = -picture
    return np.asarray((picture / max(float(np.quantile(np.abs(picture), 0.98)), 1e-12)).round(2))


def _wall(axes_pair: tuple[int, int], half: float, texels: int) -> list[NDArray[np.float64]]:
    """x, y, z of a plane's texels, drawn as a wall of the cube: behind, below, or on the subject's right."""
    at = (np.arange(texels) + 0.5) / texels * 2 * half - half
    column, row = np.meshgrid(at, at)
    place = [np.full_like(column, -half)] * 3
    place[axes_pair[0]], place[axes_pair[1]] = column, row
    return [p.round(3) for p in place]


def planes_in_space(G: Generator, head: Heads, faces: int = 3000, grid: int = 72) -> Any:
    """Plotly figure: the three planes as textured walls of their cube, and the head's surface between them.

    A point of the head reads each plane where its own shadow falls on that wall. Under EG3D's axes the third plane is
    (z, x), a second floor, drawn as the ceiling.

    Args:
        head: one head.
        faces: triangles that the surface is simplified to.
        grid: of marching cubes, points per side.
    """
    import plotly.graph_objects as go

    half = G.config.render.box_warp / 2
    figure = _near_scene("Three planes and the head that they make (drag to turn)", 1.15 * half)
    axes = G.config.render.axes
    for k, name in enumerate(PLANE_NAMES[axes]):
        texture = plane_texture(head.planes[0, k])
        x, y, z = _wall(PROJECTION[axes][k], half, len(texture))
        if name == "zx":
            y = -y
        edge = {"xy": (0, 1.08, -1), "xz": (1.1, -1, 0), "yz": (-1, 1.08, 0), "zx": (0, 1.08, 0)}[name]
        _label(figure, [half * at for at in edge], f"<b>F_{name}</b>")
        figure.add_trace(
            go.Surface(
                x=x.astype(np.float32), y=y.astype(np.float32), z=z.astype(np.float32),
                surfacecolor=texture.astype(np.float32), colorscale="Cividis", cmin=-1, cmax=1,
                showscale=False, name=f"F_{name}", hovertemplate=f"F_{name}: " + "%{surfacecolor:.2f}<extra></extra>",
                lighting=dict(ambient=1, diffuse=0, specular=0), opacity=0.9,
            )
        )  # fmt: skip
    surface = mesh.extract_mesh(G, head.ws, resolution=grid, faces=faces)
    vertices = np.asarray(surface.vertices, np.float32).round(3)
    visual: Any = surface.visual
    colours = np.asarray(visual.vertex_colors)[:, :3]
    triangles = np.asarray(surface.faces, np.int32)
    figure.add_trace(
        go.Mesh3d(
            x=vertices[:, 0], y=vertices[:, 1], z=vertices[:, 2],
            i=triangles[:, 0], j=triangles[:, 1], k=triangles[:, 2],
            vertexcolor=[f"#{r:02x}{g:02x}{b:02x}" for r, g, b in colours], name="surface", hoverinfo="skip",
            lighting=dict(ambient=0.75, diffuse=0.4, specular=0),
        )
    )  # fmt: skip
    return figure


def _near_scene(title: str, reach: float) -> Any:
    """An empty scene that shows [-reach, reach] in each direction, y up; what lies beyond is cut off."""
    figure = _world_scene(title)
    figure.data = []  # the axes' tips would lie outside
    axis = dict(visible=False, range=[-reach, reach])
    eye = dict(x=1.2, y=0.6, z=0.75)
    figure.update_layout(scene=dict(xaxis=axis, yaxis=axis, zaxis=axis, camera=dict(eye=eye)))
    return figure


def _label(figure: Any, at: Sequence[float], text: str) -> None:
    import plotly.graph_objects as go

    x, y, z = ([round(float(value), 3)] for value in at)
    figure.add_trace(
        go.Scatter3d(x=x, y=y, z=z, mode="text", text=[text], showlegend=False, hoverinfo="skip")
    )


def planes_flat(G: Generator, head: Heads) -> Any:
    """Static twin of `planes_in_space`: the same three textures side by side, y upwards where a plane sees it."""
    import matplotlib.pyplot as plt

    names = PLANE_NAMES[G.config.render.axes]
    half = G.config.render.box_warp / 2
    figure, axes = plt.subplots(1, 4, figsize=(10.5, 2.9), layout="constrained")
    for k, name in enumerate(names):
        texture, across, up = plane_texture(head.planes[0, k]), name[0], name[1]
        if across == "y":  # or the head would lie on its side
            texture, across, up = texture.T, up, across
        axes[k].imshow(
            texture, origin="lower", cmap="cividis", vmin=-1, vmax=1, extent=(-half, half, -half, half)
        )
        axes[k].set(title=f"F_{name}", xlabel=across, ylabel=up)
    raw = plane_swap.look(G, head.planes, cameras.orbit(0.5, 0.2)).rgb[0]
    axes[3].imshow(to_pixels(raw))
    axes[3].set_title("the head")
    axes[3].axis("off")
    return figure


@torch.no_grad()
def dense_points(
    G: Generator, planes: Tensor, count: int = 3000, least: float = 0.5, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Random points of the cube where something stands: positions [M, 3] and densities [M], M <= count.

    Args:
        planes: [1, 3, C, H, W].
        least: density below which a point is dropped, 1 / world unit.
    """
    generator = torch.Generator().manual_seed(seed)
    points = (torch.rand(1, 30 * count, 3, generator=generator) - 0.5) * G.config.render.box_warp * 0.96
    sigma, _ = G.query(planes, points.to(planes.device))
    density = torch.nn.functional.softplus(sigma[0, :, 0] - 1).cpu()
    where = (density >= least).nonzero()[:count, 0]
    return points[0, where].numpy().round(3), density[where].numpy().round(2)


def density_points(
    points: NDArray[np.float32], density: NDArray[np.float32], camera: Tensor, labels: Sequence[str]
) -> Any:
    """Plotly figure: points coloured by density, and the frusta of the cameras [N, 25] that look at them, cut off where
    they leave the neighbourhood of the cube."""
    import plotly.graph_objects as go

    # Whole numbers: a machine's last digits do not show, and stored outputs can be compared.
    colour, high = np.round(density), float(np.ceil(np.quantile(density, 0.95)))
    figure = _near_scene("Where the volume is dense, and who looks at it (drag to turn)", 0.95)
    figure.add_trace(
        go.Scatter3d(
            x=points[:, 0], y=points[:, 1], z=points[:, 2], mode="markers", name="density",
            hovertemplate="density %{marker.color:.0f}<extra></extra>", showlegend=False,
            marker=dict(
                size=2, color=colour, colorscale="Cividis", cmin=0, cmax=high,
                colorbar=dict(title="density (1/length)", len=0.6),
            ),
        )
    )  # fmt: skip
    figure.add_trace(_lines(_cube_lines(1.0), "the cube", "#444444", "dot"))
    for k, label in enumerate(labels):
        figure.add_trace(_lines(frustum_lines(camera[k], 2.4), label, PALETTE[k % 6], "solid"))
        eye = camera[k, [3, 7, 11]]
        _label(figure, (eye / eye.norm() * 0.9).tolist(), label)
    figure.update_layout(legend=dict(x=0, y=1))
    return figure


def density_maps(points: NDArray[np.float32], density: NDArray[np.float32]) -> Any:
    """Static twin of `density_points`: the same points from the front, from the side and from above."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(8.4, 2.8), layout="constrained")
    high = float(np.quantile(density, 0.95))
    for axis, (a, b, title) in zip(
        axes, ((0, 1, "from the front"), (2, 1, "from the side"), (0, 2, "from above")), strict=True
    ):
        drawn = axis.scatter(
            points[:, a], points[:, b], c=density, s=3, cmap="cividis", vmin=0, vmax=high, rasterized=True
        )
        axis.set(title=title, xlabel="xyz"[a], ylabel="xyz"[b], xlim=(-0.5, 0.5), ylim=(-0.5, 0.5))
        axis.set_aspect("equal")
    figure.colorbar(drawn, ax=axes, label="density (1/length)")
    return figure
