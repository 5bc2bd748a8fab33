"""Notebook 04: where the cameras stand, how two data sets are lit, who is in them, where a face is found.

The numbers behind each figure come from small pure functions, which tests check; images come from any data set in
EG3D's format, so nothing here needs OpenGL.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from head3d_core.model import cameras
from head3d_core.synth import sets
from head3d_core.synth.identity import Identity
from head3d_core.synth.light import Light, harmonics
from head3d_core.utils.errors import Head3DError
from head3d_course import figures
from head3d_course.exercises import Exercise, choice
from head3d_course.figures import PALETTE

BACK = 135.0
"""|yaw| from which a view is a back view, degrees."""


def set_cameras(name: str, count: int) -> Tensor:
    """Cameras [count, 25] of the first images of a set of the head factory, without drawing anything."""
    return torch.from_numpy(np.stack([sets.example(name, i, sets.HEAD_VIEWS).camera for i in range(count)]))


def degrees(camera: Tensor) -> tuple[Tensor, Tensor]:
    """Yaw and pitch of cameras [N, 25], degrees."""
    yaw, pitch = cameras.yaw_pitch(camera)
    return torch.rad2deg(yaw), torch.rad2deg(pitch)


# --- cameras ----------------------------------------------------------------------------------------------------------


def camera_sphere(faces: Tensor, heads: Tensor) -> Any:
    """Plotly figure: the places of two sets' cameras [N, 25] on their sphere, with the head's direction as an arrow."""
    import plotly.graph_objects as go

    figure = figures.scene("Where the cameras stand (drag to turn)", 3, (1.2, 0.8, 1.4))
    looks = (("faces", faces, PALETTE[0], "circle"), ("heads", heads, PALETTE[1], "diamond"))
    for name, camera, colour, symbol in looks:
        x, y, z = ([round(float(v), 2) for v in camera[:, k]] for k in (3, 7, 11))
        marker = dict(size=2.5, color=colour, symbol=symbol)
        figure.add_trace(
            go.Scatter3d(x=x, y=y, z=z, mode="markers", name=name, hoverinfo="name", marker=marker)
        )
    style = dict(line=dict(color="#000000", width=6), showlegend=False, hoverinfo="skip", name="front")
    text = ["", "the face looks here"]
    figure.add_trace(go.Scatter3d(x=[0, 0], y=[0, 0], z=[0, 1.2], mode="lines+text", text=text, **style))
    named = {"xaxis": "x (subject's left)", "yaxis": "y (up)", "zaxis": "z (front)"}
    axes = {key: dict(title=name, visible=True, showbackground=False) for key, name in named.items()}
    figure.update_layout(legend=dict(itemsizing="constant"), scene=axes)
    return figure


def _grey_backs(axis: Any, low: float = 0.0) -> None:
    """Back views in grey on an axis of yaw from `low` to 180 degrees."""
    for start, end in ((BACK, 180), *([(-180, -BACK)] if low else [])):
        axis.axvspan(start, end, color="#dddddd", zorder=0)
    yaw = "yaw" if low else "|yaw|"
    axis.set(xlim=(low, 180), xlabel=f"{yaw} (degrees; grey: back views)", xticks=range(int(low), 181, 45))


def angle_map(faces: Tensor, heads: Tensor) -> Any:
    """The still of `camera_sphere`: pitch against yaw of both sets' cameras [N, 25]."""
    figure, axis = figures.panels(8.5, 3.2)
    style: dict[str, Any] = {"alpha": 0.7, "linewidths": 0}
    looks = (("heads", heads, PALETTE[1], "^", 22), ("faces", faces, PALETTE[0], "o", 12))
    for name, camera, colour, marker, size in looks:
        axis.scatter(*degrees(camera), s=size, c=colour, marker=marker, label=name, **style)
    _grey_backs(axis, -180)
    axis.set_ylabel("pitch (degrees)")
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    return figure


PEOPLE = {"faces": 20_000, "heads": 50}
"""People of a small training run."""


def views_by_side(camera: Tensor) -> list[int]:
    """How many cameras [N, 25] see the front, a side and the back."""
    front, near, far, back = torch.histc(degrees(camera)[0].abs(), 4, 0, 180).int().tolist()
    return [front, near + far, back]


def side_bars(counts: dict[str, list[int]]) -> Any:
    """Images (left) and people (right) of each set that show a front, a side or a back; linear scales."""
    figure, axes = figures.panels(9, 3.2, 1, 2)
    for k, (name, images) in enumerate(counts.items()):
        people = [PEOPLE[name] if n else 0 for n in images]
        look: dict[str, Any] = {
            "color": PALETTE[k],
            "hatch": ("", "//")[k],
            "edgecolor": "white",
            "label": name,
        }
        for axis, values, label in zip(axes, (images, people), ("images", "people"), strict=True):
            bars = axis.bar(np.arange(3) + 0.4 * (k - 0.5), values, 0.4, **look)
            axis.bar_label(bars, [f"{v:,}" for v in values], fontsize=10)
            axis.set(ylabel=label)
            axis.margins(y=0.12)
            axis.set_xticks(range(3), ("front (to 45°)", "side", "back (from 135°)"))
    axes[1].legend()
    return figure


def nearest_view(images: Tensor, camera: Tensor) -> Callable[[float, float], NDArray[np.uint8]]:
    """A function (yaw, pitch) -> the image [H, W, 3] taken closest to there: what a viewer of still pictures shows.

    Args:
        images: uint8 [N, 3, H, W].
        camera: [N, 25].
    """
    if len(images) == 0 or len(images) != len(camera):
        raise Head3DError(
            f"nearest_view needs one camera per picture and at least one, got {len(images)} and {len(camera)}"
        )
    places = torch.nn.functional.normalize(camera[:, [3, 7, 11]], dim=-1)

    def draw(yaw: float, pitch: float) -> NDArray[np.uint8]:
        wanted = cameras.orbit(yaw, pitch)[0, [3, 7, 11]]
        return images[int((places @ wanted).argmax())].movedim(0, -1).contiguous().numpy()

    return draw


# --- light ------------------------------------------------------------------------------------------------------------


def light_ball(light: Light, size: int = 64) -> tuple[Tensor, Tensor]:
    """A grey ball, of reflectance 0.2, in this light, seen from the front: (image uint8 [3, S, S], mask [S, S]).

    The sky's radiance, given by spherical harmonics, is blurred by the cosine of a matte surface, which multiplies its
    three degrees by 1, 2/3 and 1/4 (Ramamoorthi and Hanrahan, 2001); the key light adds max(0, n . direction).
    """
    at = (np.arange(size) + 0.5) / size * 2 - 1
    x, y = np.meshgrid(at, -at)
    mask = x * x + y * y <= 0.98
    normal = np.stack([x, y, np.sqrt(np.clip(1 - x * x - y * y, 0, 1))], -1).reshape(-1, 3)
    blurred = light.sky * np.array([1, *[2 / 3] * 3, *[1 / 4] * 5])[:, None]
    key = np.clip(normal @ light.key_direction, 0, None)[:, None] * light.key_colour
    linear = np.clip(0.2 * light.exposure * (harmonics(normal) @ blurred + key), 0, 1)
    picture = np.where(mask[..., None], linear.reshape(size, size, 3) ** (1 / 2.2), 1.0)
    pixels = torch.from_numpy(np.rint(255 * picture).astype(np.uint8))
    return pixels.movedim(-1, 0).contiguous(), torch.from_numpy(mask.astype(np.float32))


def brightness(image: Tensor) -> Tensor:
    """Brightness [..., H, W] of images uint8 [..., 3, H, W], linear (sRGB is undone), so that light adds up."""
    weights = torch.tensor([0.2126, 0.7152, 0.0722])[:, None, None]
    return ((image.float() / 255) ** 2.2 * weights).sum(-3)


def one_sidedness(lights: Sequence[Light], side: Callable[[Tensor, Tensor], Any]) -> NDArray[np.float64]:
    """|side(brightness, mask)| of a grey ball in each light, [N]."""
    balls = (light_ball(light) for light in lights)
    return np.array([abs(float(side(brightness(image), mask))) for image, mask in balls])


# --- people -----------------------------------------------------------------------------------------------------------


def people_facts(people: Sequence[Identity]) -> dict[str, float]:
    """Of some people: share of men, share with glasses or a hat, number of hairstyles, youngest and oldest (years)."""
    years = [p.person.years for p in people]
    return {
        "men": float(np.mean([p.person.gender > 0.5 for p in people])),
        "worn": float(np.mean([p.glasses is not None or p.hat is not None for p in people])),
        "styles": len({p.hair.style for p in people}),
        "youngest": min(years),
        "oldest": max(years),
    }


# --- detector ---------------------------------------------------------------------------------------------------------


def detector_curve(found: dict[str, Any]) -> Any:
    """Detection rate against |yaw| with its 95 % interval, from `data/results/detector_rates.json`."""
    rows = found["by |yaw|"]
    middle = [sum(map(float, name.split(" to "))) / 2 for name in rows]
    rate, low, high = (np.array([row[k] for row in rows.values()]) for k in ("rate", "low", "high"))
    figure, axis = figures.panels(7.5, 3.2)
    apart, style = np.clip([rate - low, high - rate], 0, 1), {"color": PALETTE[2], "capsize": 3}
    axis.errorbar(middle, rate, yerr=apart, fmt="-o", label="heads (95 % interval)", **style)
    _grey_backs(axis)
    axis.set(ylim=(-0.03, 1.03), ylabel="a face is found")
    axis.legend()
    return figure


# --- exercises --------------------------------------------------------------------------------------------------------


def _is_back(yaw: Tensor, limit: float = math.radians(BACK), wrapped: bool = True) -> Tensor:
    """1 where |yaw|, `wrapped` to half a turn, is at least `limit`, else 0."""
    return ((torch.atan2(yaw.sin(), yaw.cos()) if wrapped else yaw).abs() >= limit).float()


back_share = Exercise(
    truth=lambda yaw: _is_back(yaw).mean(),
    cases=[
        (torch.tensor([0.0, 3.0, -3.0, 1.0]),),
        (torch.tensor([2.4, 2.3, -2.4, -2.3, 0.1]),),
        (torch.tensor([2 * math.pi, 2 * math.pi - 3.0, 4.0]),),
    ],
    mistakes={
        "only one side counts: -135 and below is the back, too": lambda yaw: _is_back(
            yaw.clamp_min(0), wrapped=False
        ).mean(),
        "a yaw of 360° is the front again: wrap the angle": lambda yaw: _is_back(yaw, wrapped=False).mean(),
        "radians are compared with degrees: 135 degrees are 3/4 pi": lambda yaw: _is_back(yaw, BACK).mean(),
        "this is the number of back views: divide by how many cameras there are": lambda yaw: _is_back(
            yaw
        ).sum(),
    },
)


def _columns(cam2world: Tensor, *signs: float) -> Tensor:
    """Camera axes of a pose [4, 4] with other signs."""
    return cam2world * cam2world.new_tensor([*signs, 1.0])


_POSES = cameras.orbit(torch.tensor([0.0, 0.7, -2.6, 3.0]), torch.tensor([0.0, 0.3, -0.2, 0.4]))

from_opengl = Exercise(
    truth=lambda cam2world: _columns(cam2world, 1, -1, -1),
    cases=[(_columns(pose, 1, -1, -1),) for pose in cameras.unpack(_POSES)[0].double()],
    mistakes={
        "rows are flipped: axes are the columns": lambda m: m * m.new_tensor([1.0, -1.0, -1.0, 1.0])[:, None],
        "only z is flipped, which mirrors the camera: flip y too": lambda m: _columns(m, 1, 1, -1),
        "only y is flipped, which mirrors the camera: flip z too": lambda m: _columns(m, 1, -1, 1),
        "this is world2cam: both are cam2world, no inverse is needed": lambda m: torch.linalg.inv(m),
        "nothing is changed: OpenGL's camera looks along -z, OpenCV's along +z": lambda m: m,
    },
)


def _picture(seed: int) -> tuple[Tensor, Tensor]:
    """A bright round head on white, lit from one side: brightness and mask [8, 8]."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.linspace(-1, 1, 8), torch.linspace(-1, 1, 8), indexing="ij")
    mask = ((x - 0.3 * (seed - 1)) ** 2 + y**2 < 0.6).double()
    shade = 0.4 + 0.3 * (1 - 2 * (seed % 2)) * x + 0.05 * torch.rand(8, 8, generator=generator)
    return torch.where(mask > 0, shade.double(), torch.ones(8, 8, dtype=torch.float64)), mask


def _side(brightness: Tensor, mask: Tensor, means: bool = True) -> Tensor:
    sides = zip((brightness * mask).chunk(2, -1), mask.chunk(2, -1), strict=True)
    left, right = (light.sum() / (area.sum() if means else 1) for light, area in sides)
    return (left - right) / (left + right)


side_light = Exercise(
    truth=_side,
    cases=[_picture(seed) for seed in range(4)],
    mistakes={
        "the white background is counted: weight by the mask": lambda b, m: _side(b, torch.ones_like(m)),
        "the sign is turned: left minus right": lambda b, m: -_side(b, m),
        "sums, not means: a head further left would look lit from the left; divide by the mask's sum": lambda b, m: (
            _side(b, m, means=False)
        ),
        "divide by the sum of both sides, not by their mean": lambda b, m: 2 * _side(b, m),
    },
)

which_gap = choice("04.which_gap")
