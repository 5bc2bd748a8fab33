"""Figures of the notebooks. matplotlib for stills, Plotly for what should be turned; both imported lazily.

Every figure is shown with `show`, which attaches alternative text. Colours come from the Okabe-Ito palette and
are always doubled by a line style, a marker or a label.
"""

from __future__ import annotations

import inspect
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from head3d_core.model import cameras
from head3d_core.model.volume import March
from head3d_core.utils.images import to_pixels as to_pixels

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Okabe-Ito: distinguishable under the common colour-vision deficiencies."""


SMALLEST_PT = 10.0
"""The smallest text in a figure, points: at 100 dpi as high as the prose around it, legible when projected."""


def show(figure: Any, alt: str, jpeg: bool = False) -> None:
    """Displays a matplotlib figure as PNG with alternative text, then closes it.

    Text smaller than `SMALLEST_PT` is enlarged to it. Pictures that would weigh much are stored in 256 colours, or
    (`jpeg`, for grids of many photographs) as JPEG, which is smaller still.
    """
    import matplotlib.pyplot as plt
    from IPython.display import Image, display
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_fontsize(max(text.get_fontsize(), SMALLEST_PT))
    buffer, form = io.BytesIO(), "jpeg" if jpeg else "png"
    options = {"pil_kwargs": {"quality": 72, "optimize": True, "progressive": True}} if jpeg else {}
    figure.savefig(buffer, format=form, dpi=100, bbox_inches="tight", facecolor="white", **options)
    plt.close(figure)
    display(Image(data=buffer.getvalue() if jpeg else lighter(buffer.getvalue()), format=form, alt=alt))


def lighter(png: bytes, limit: int = 30_000) -> bytes:
    """A PNG of more than `limit` bytes in the 256 colours that suit it best, at a third of the size."""
    if len(png) <= limit:
        return png
    from PIL import Image

    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(256).save(buffer, "PNG", optimize=True)
    return min(png, buffer.getvalue(), key=len)


def show_plotly(figure: Any, alt: str) -> None:
    """Displays a Plotly figure (JupyterLab draws it) and prints its description below it."""
    import json

    from IPython.display import display

    display({"application/vnd.plotly.v1+json": json.loads(figure.to_json())}, raw=True)
    print(f"Figure: {alt}")


def show_source(thing: Any) -> None:
    """Shows the source of a function or class of this package as a code block."""
    from IPython.display import Markdown, display

    display(Markdown(f"```python\n{inspect.getsource(thing).rstrip()}\n```"))


def rounded(values: Tensor, digits: int = 3) -> Any:
    """Nested list of numbers with `digits` decimals and no negative zeros: the same text on every machine."""

    def plain(value: Any) -> Any:
        return [plain(v) for v in value] if isinstance(value, list) else round(value, digits) + 0.0

    return plain(values.detach().double().tolist())


def ray_image(features: Tensor) -> Tensor:
    """Ray features [R*R, F] -> rgb image [3, R, R]."""
    side = round(features.shape[0] ** 0.5)
    return features[:, :3].T.reshape(3, side, side)


def image_grid(
    images: Sequence[Tensor], titles: Sequence[str] = (), columns: int = 4, size: float = 2.2
) -> Any:
    """A grid of pictures [3, H, W] in [-1, 1] with titles above them."""
    import matplotlib.pyplot as plt

    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(size * columns, (size + 0.25) * rows), squeeze=False)
    for k, axis in enumerate(axes.flat):
        axis.axis("off")
        if k < len(images):
            axis.imshow(to_pixels(images[k]), interpolation="nearest")
            axis.set_title(titles[k] if k < len(titles) else "", fontsize=11)
    figure.tight_layout()
    return figure


def plane_grid(planes: Tensor, names: Sequence[str], channel: int = 0) -> Any:
    """One channel of the three planes of a head, planes [3, C, H, W], drawn with rows growing upwards."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(10, 3.1), layout="constrained")
    limit = float(planes[:, channel].abs().max())
    for k, (axis, name) in enumerate(zip(axes, names, strict=True)):
        drawn = axis.imshow(
            planes[k, channel].detach().numpy(),
            origin="lower",
            cmap="cividis",
            vmin=-limit,
            vmax=limit,
            extent=(-1, 1, -1, 1),
        )
        axis.set_title(f"F_{name}, channel {channel}", fontsize=11)
        axis.set_xlabel(f"{name[0]} (column)")
        axis.set_ylabel(f"{name[1]} (row)")
    figure.colorbar(drawn, ax=axes, shrink=0.8, label="feature value")
    return figure


def march_profile(depths: Tensor, sigma: Tensor, result: March) -> Any:
    """Density, transmittance and weights along one ray.

    Args:
        depths: [S]; sigma: [S], raw; result: the March of that one ray (N = R = 1).
    """
    import matplotlib.pyplot as plt

    middle = ((depths[1:] + depths[:-1]) / 2).numpy()
    mean = (sigma[1:] + sigma[:-1]) / 2
    density = torch.nn.functional.softplus(mean - 1).numpy()
    weights = result.weights.flatten().numpy()
    left = 1 - np.concatenate([[0], np.cumsum(weights)[:-1]])
    figure, axes = plt.subplots(2, 1, figsize=(7.5, 4.2), sharex=True)
    axes[0].plot(middle, density, "-o", color=PALETTE[0], markersize=3, label="density")
    axes[0].set_ylabel("density (1 / length)")
    axes[0].legend(loc="upper right")
    axes[1].plot(middle, left, "--s", color=PALETTE[1], markersize=3, label="transmittance (light left)")
    axes[1].bar(middle, weights, width=0.8 * np.diff(middle).min(), color=PALETTE[2], label="weight")
    axes[1].set_ylabel("share of the light")
    axes[1].set_xlabel("depth along the ray (world units)")
    axes[1].legend(loc="center right")
    figure.tight_layout()
    return figure


def frustum_lines(camera: Tensor, length: float = 1.2) -> np.ndarray:
    """The eight edges of a camera's frustum as one polyline, [16, 3] with NaN between pieces.

    Args:
        camera: [25].
        length: distance of the drawn image corners from the camera, world units.
    """
    cam2world, matrix = cameras.unpack(camera[None])
    half = 0.5 / matrix[0, 0, 0]
    corners = torch.tensor([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]) * half
    corners[:, 2] = 1
    world = (corners * length) @ cam2world[0, :3, :3].T + cam2world[0, :3, 3]
    eye = cam2world[0, :3, 3]
    pieces = [torch.stack([*world, world[0]])]
    pieces += [torch.stack([eye, corner]) for corner in world]
    gap = torch.full((1, 3), torch.nan)
    return torch.cat([torch.cat([piece, gap]) for piece in pieces]).numpy()


def _world_scene(title: str) -> Any:
    import plotly.graph_objects as go

    hidden = dict(visible=False, range=[-2.9, 2.9])
    figure = go.Figure()
    figure.update_layout(
        title=title,
        width=720,
        height=520,
        margin=dict(l=0, r=0, t=40, b=0),
        font=dict(size=14),
        scene=dict(
            xaxis=hidden,
            yaxis=hidden,
            zaxis=hidden,
            aspectmode="cube",
            camera=dict(up=dict(x=0, y=1, z=0), eye=dict(x=1.05, y=0.5, z=0.5)),
        ),
    )
    for k, name in enumerate(("x: subject's left", "y: up", "z: the face looks here")):
        tip = [1.1 if j == k else 0.0 for j in range(3)]
        figure.add_trace(
            go.Scatter3d(
                x=[0, tip[0]], y=[0, tip[1]], z=[0, tip[2]], mode="lines+text", text=["", name], showlegend=False,
                line=dict(color="#444444", width=3), hoverinfo="skip",
                textposition=("middle right", "top center", "bottom center")[k],
            )
        )  # fmt: skip
    return figure


def _cube_lines(side: float) -> np.ndarray:
    h = side / 2
    corner = np.array([[x, y, z] for x in (-h, h) for y in (-h, h) for z in (-h, h)])
    pieces = []
    for i in range(8):
        for bit in (1, 2, 4):
            if i & bit == 0:
                pieces += [corner[i], corner[i | bit], np.full(3, np.nan)]
    return np.array(pieces)


def frustums(camera: Tensor, labels: Sequence[str], box_warp: float = 1.0) -> Any:
    """Plotly figure: cameras [N, 25] as frustums around the cube of the planes."""
    import plotly.graph_objects as go

    figure = _world_scene("Cameras around the cube (drag to turn)")
    cube = _cube_lines(box_warp)
    figure.add_trace(_lines(cube, "the cube", "#444444", "dot"))
    for k, label in enumerate(labels):
        figure.add_trace(_lines(frustum_lines(camera[k]), label, PALETTE[k % 6], "solid"))
        eye = camera[k, [3, 7, 11]].numpy()
        figure.add_trace(
            go.Scatter3d(
                x=[float(eye[0])], y=[float(eye[1])], z=[float(eye[2])],
                mode="text", text=[label], showlegend=False, hoverinfo="skip",
            )
        )  # fmt: skip
    return figure


def _lines(points: np.ndarray, name: str, colour: str, dash: str) -> Any:
    import plotly.graph_objects as go

    x, y, z = ([None if np.isnan(v) else round(float(v), 3) for v in points[:, k]] for k in range(3))
    return go.Scatter3d(
        x=x, y=y, z=z, mode="lines", name=name, line=dict(color=colour, width=4, dash=dash), hoverinfo="name"
    )


def camera_map(camera: Tensor, labels: Sequence[str]) -> Any:
    """Static twin of `frustums`: the cameras seen from above (x, z) and from the side (z, y)."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(8.5, 4.2))
    for axis, (a, b), (name_a, name_b) in zip(axes, ((0, 2), (2, 1)), (("x", "z"), ("z", "y")), strict=True):
        axis.add_patch(plt.Rectangle((-0.5, -0.5), 1, 1, fill=False, linestyle=":", color="#444444"))
        for k, label in enumerate(labels):
            lines = frustum_lines(camera[k])
            axis.plot(lines[:, a], lines[:, b], color=PALETTE[k % 6], linestyle=("-", "--", "-.", ":")[k % 4])
            eye = camera[k, [3, 7, 11]].numpy()
            _label_outwards(axis, label, float(eye[a]), float(eye[b]))
        axis.set(
            xlim=(-4.1, 5.3),
            ylim=(-3.7, 3.7),
            xlabel=f"{name_a} (world units)",
            ylabel=f"{name_b} (world units)",
        )
        axis.set_aspect("equal")
        axis.set_title("from above" if b == 2 else "from the side")
    figure.tight_layout()
    return figure


def _label_outwards(axis: Any, text: str, x: float, y: float) -> None:
    """A name beside a point, on the side away from the origin; below what stands on the origin itself."""
    away = (x**2 + y**2) ** 0.5
    right, up = (x / away, y / away) if away > 0.5 else (0.0, -3.4)
    axis.annotate(
        text,
        (x, y),
        textcoords="offset points",
        xytext=(8 * right, 8 * up),
        fontsize=10,
        ha="left" if right > 0.5 else "right" if right < -0.5 else "center",
        va="bottom" if up > 0.5 else "top" if up < -0.5 else "center",
    )


def rays_from_above(camera: Tensor, labels: Sequence[str], resolution: int = 8) -> Any:
    """The middle row of each camera's rays, drawn in the (x, z) plane with the cube."""
    import matplotlib.pyplot as plt

    from head3d_core.model.rays import camera_rays

    figure, axis = plt.subplots(figsize=(6.2, 5))
    axis.add_patch(
        plt.Rectangle((-0.5, -0.5), 1, 1, fill=False, linestyle=":", linewidth=1.5, color="#444444")
    )
    row = slice(resolution // 2 * resolution, (resolution // 2 + 1) * resolution)
    for k, label in enumerate(labels):
        origins, directions = camera_rays(camera[k : k + 1], resolution)
        start, end = origins[0, row], origins[0, row] + 3.3 * directions[0, row]
        for a, b in zip(start.tolist(), end.tolist(), strict=True):
            axis.plot(
                [a[0], b[0]], [a[2], b[2]], color=PALETTE[k % 6], linestyle=("-", "--")[k % 2], linewidth=1
            )
        axis.annotate(
            label, (float(start[0, 0]), float(start[0, 2])), xytext=(6, 0), textcoords="offset points"
        )
    axis.set(xlim=(-2, 4), ylim=(-1.6, 3.2), xlabel="x (world units)", ylabel="z (world units)")
    axis.set_aspect("equal")
    figure.tight_layout()
    return figure


def axes_view(yaw: float, pitch: float, size: int = 192) -> np.ndarray:
    """The three world axes as an orbiting camera sees them: picture [size, size, 3] uint8.

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
