"""Notebook 04: where the cameras stand, how two data sets are lit, who is in them, where a face is found.

The numbers behind each figure come from small pure functions, which tests check; images come from any data set in
EG3D's format, so nothing here needs OpenGL.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from head3d_core.course import figures
from head3d_core.course.exercises import Exercise, wrong
from head3d_core.course.figures import HATCHES, PALETTE, STYLES
from head3d_core.model import cameras
from head3d_core.synth import sets
from head3d_core.synth.identity import Identity
from head3d_core.synth.light import Light, harmonics
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.images import from_uint8

FACES, HEADS = PALETTE[0], PALETTE[1]
BACK = 135.0
"""|yaw| from which a view is a back view, degrees."""
_BACK = math.radians(BACK)
_GREY = 0.2
"""Reflectance of the ball."""


def set_cameras(name: str, count: int, views: int = sets.HEAD_VIEWS) -> Tensor:
    """Cameras [count, 25] of the first images of a set of the head factory, without drawing anything."""
    return torch.from_numpy(np.stack([sets.example(name, i, views).camera for i in range(count)]))


def degrees(camera: Tensor) -> tuple[Tensor, Tensor]:
    """Yaw and pitch of cameras [N, 25], degrees."""
    yaw, pitch = cameras.yaw_pitch(camera)
    return torch.rad2deg(yaw), torch.rad2deg(pitch)


def thumbnails(images: Sequence[Tensor] | Tensor, side: int = 128) -> list[Tensor]:
    """Images uint8 [3, H, W] -> float [3, side, side] in [-1, 1], area-averaged, as `figures.image_grid` takes them."""
    resize = torch.nn.functional.interpolate
    small = [resize(x[None].float(), (side, side), mode="bilinear", antialias=True)[0] for x in images]
    return [from_uint8(image) for image in small]


# --- cameras ----------------------------------------------------------------------------------------------------------


def camera_sphere(faces: Tensor, heads: Tensor) -> Any:
    """Plotly figure: the places of two sets' cameras [N, 25] on their sphere, with the head's direction as an arrow."""
    import plotly.graph_objects as go

    title = "Where the cameras stand (drag to turn)"
    figure = figures.scene(title, figures.space(3, (1.2, 0.8, 1.4)), width=640)
    for name, camera, colour, symbol in (
        ("faces", faces, FACES, "circle"),
        ("heads", heads, HEADS, "diamond"),
    ):
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
    for name, camera, colour, marker, size in (
        ("heads", heads, HEADS, "^", 22),
        ("faces", faces, FACES, "o", 12),
    ):
        axis.scatter(*degrees(camera), s=size, c=colour, marker=marker, label=name, **style)
    _grey_backs(axis, -180)
    axis.set_ylabel("pitch (degrees)")
    figures.legend_above(axis)
    return figure


def views_by_yaw(camera: Tensor, step: int = 15) -> NDArray[np.int64]:
    """How many cameras [N, 25] fall into each step of |yaw|: [180 / step]."""
    yaw, _ = degrees(camera)
    return np.histogram(yaw.abs().numpy(), bins=np.arange(0, 181, step))[0]


def yaw_bars(counts: dict[str, NDArray[np.int64]], step: int = 15) -> Any:
    """Images per step of |yaw|, one row of bars per set, on a logarithmic scale (so that few still show)."""
    figure, axis = figures.panels(8.5, 3.2)
    width = step * 0.42
    for k, (name, count) in enumerate(counts.items()):
        left = np.arange(len(count)) * step + step / 2 + (k - 0.5) * width
        axis.bar(left, count, width, color=PALETTE[k], hatch=HATCHES[k], edgecolor="white", label=name)
    axis.set_yscale("symlog", linthresh=1)
    _grey_backs(axis)
    axis.set_ylabel("pictures")
    axis.legend()
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


def share_of_back_views(yaw: Tensor) -> float:
    """Share of cameras with |yaw| >= 135 degrees; `yaw` [N] in radians, of any number of turns.

    >>> share_of_back_views(torch.tensor([0.0, 3.0, 2 * math.pi, -3.0]))
    0.5
    """
    wrapped = torch.atan2(yaw.sin(), yaw.cos())
    return float((wrapped.abs() >= _BACK).float().mean())


# --- light ------------------------------------------------------------------------------------------------------------


def key_angles(lights: Sequence[Light]) -> tuple[NDArray[np.float64], ...]:
    """Azimuth (degrees, positive at the subject's left), elevation (degrees), strength of the key lights, [N] each."""
    d = np.array([light.key_direction for light in lights], np.float64)
    strength = np.array([light.key_colour.mean() for light in lights], np.float64)
    return np.degrees(np.arctan2(d[:, 0], d[:, 2])), np.degrees(np.arcsin(d[:, 1])), strength


def light_ball(light: Light, size: int = 64) -> tuple[Tensor, Tensor]:
    """A grey ball in this light, seen from the front: (image uint8 [3, S, S], mask [S, S]).

    The sky's radiance, given by spherical harmonics, is blurred by the cosine of a matte surface, which multiplies its
    three degrees by 1, 2/3 and 1/4 (Ramamoorthi and Hanrahan, 2001); the key light adds max(0, n . direction).
    """
    at = (np.arange(size) + 0.5) / size * 2 - 1
    x, y = np.meshgrid(at, -at)
    mask = x * x + y * y <= 0.98
    normal = np.stack([x, y, np.sqrt(np.clip(1 - x * x - y * y, 0, 1))], -1).reshape(-1, 3)
    blurred = light.sky * np.array([1, *[2 / 3] * 3, *[1 / 4] * 5])[:, None]
    key = np.clip(normal @ light.key_direction, 0, None)[:, None] * light.key_colour
    linear = np.clip(_GREY * light.exposure * (harmonics(normal) @ blurred + key), 0, 1).reshape(
        size, size, 3
    )
    picture = np.where(mask[..., None], linear ** (1 / 2.2), 1.0)
    pixels = torch.from_numpy(np.rint(255 * picture).astype(np.uint8))
    return pixels.movedim(-1, 0).contiguous(), torch.from_numpy(mask.astype(np.float32))


def light_asymmetry(images: Tensor, masks: Tensor) -> Tensor:
    """How one-sided the light on each head is, [N]: (left - right) / (left + right) of the mean brightness in the mask.

    "Left" is the left half of the image. Brightness is linear: the sRGB curve is undone, since light adds up there.

    Args:
        images: uint8 [N, 3, H, W]; masks: [N, H, W] in [0, 1].
    """
    linear = (images.float() / 255) ** 2.2
    brightness = (linear * linear.new_tensor([0.2126, 0.7152, 0.0722])[:, None, None]).sum(1)
    half = images.shape[-1] // 2
    left, right = (
        (brightness[..., part] * masks[..., part]).sum((1, 2)) / masks[..., part].sum((1, 2)).clamp_min(1e-6)
        for part in (slice(None, half), slice(half, None))
    )
    return (left - right) / (left + right).clamp_min(1e-6)


def light_map(faces: Sequence[Light], heads: Sequence[Light]) -> Any:
    """Where the key light of each head comes from (left) and how strong it is (right), for both sets."""
    figure, axes = figures.panels(9, 3.4, 1, 2)
    bins = np.arange(0, 1.25, 0.1)
    for k, (name, lights, marker) in enumerate((("faces", faces, "o"), ("heads", heads, "^"))):
        azimuth, elevation, strength = key_angles(lights)
        style: dict[str, Any] = {"color": PALETTE[k], "label": name, "alpha": 0.7}
        axes[0].scatter(azimuth, elevation, s=22, marker=marker, linewidths=0, **style)
        share = np.full(len(strength), 1 / len(strength))
        axes[1].hist(strength, bins, weights=share, hatch=HATCHES[k], edgecolor="white", **style)
    axes[0].set(xlabel="azimuth of the key light (degrees)", ylabel="elevation (degrees)")
    axes[1].set(xlabel="strength of the key light", ylabel="share of the set")
    for axis in axes:
        figures.legend_above(axis)
    return figure


# --- people -----------------------------------------------------------------------------------------------------------


def people_facts(people: Sequence[Identity]) -> dict[str, Any]:
    """{"years": [N], "melanin": [N], "men": share, "worn": share with glasses or a hat, "styles": Counter}."""
    return {
        "years": np.array([p.person.years for p in people]),
        "melanin": np.array([p.skin.melanin for p in people]),
        "men": float(np.mean([p.person.gender > 0.5 for p in people])),
        "worn": float(np.mean([p.glasses is not None or p.hat is not None for p in people])),
        "styles": Counter(p.hair.style for p in people),
    }


def people_bars(faces: Sequence[Identity], heads: Sequence[Identity]) -> Any:
    """Age, skin tone and hairstyle in both sets, as shares."""
    facts = {"faces": people_facts(faces), "heads": people_facts(heads)}
    figure, axes = figures.panels(11, 3.6, 1, 3, width_ratios=(1, 1, 1.6))
    bins = {"years": np.linspace(10, 85, 6), "melanin": np.linspace(0, 1, 6)}
    styles = sorted(set(facts["faces"]["styles"]) | set(facts["heads"]["styles"]))
    for k, (name, fact) in enumerate(facts.items()):
        for axis, (key, edges) in zip(axes, bins.items(), strict=False):
            share = np.histogram(fact[key], edges)[0] / len(fact[key])
            axis.stairs(share, edges, color=PALETTE[k], linewidth=2, linestyle=STYLES[k], label=name)
        shares = [fact["styles"][s] / sum(fact["styles"].values()) for s in styles]
        look: dict[str, Any] = {"color": PALETTE[k], "hatch": HATCHES[k], "edgecolor": "white"}
        axes[2].bar(np.arange(len(styles)) + 0.4 * k, shares, 0.4, label=name, **look)
    for axis, label in zip(axes, ("age (years)", "skin tone (0 lightest)", "hairstyle"), strict=True):
        axis.set(xlabel=label, ylim=(0, None))
        figures.legend_above(axis)
    axes[0].set_ylabel("share of the set")
    names = [s.replace("_", " ") for s in styles]
    axes[2].set_xticks(np.arange(len(styles)) + 0.2, names, rotation=60, ha="right")
    return figure


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


def _poses() -> Tensor:
    camera = cameras.orbit(torch.tensor([0.0, 0.7, -2.6, 3.0]), torch.tensor([0.0, 0.3, -0.2, 0.4]))
    return cameras.unpack(camera)[0].double()


back_share = Exercise(
    truth=share_of_back_views,
    cases=[
        (torch.tensor([0.0, 3.0, -3.0, 1.0]),),
        (torch.tensor([2.4, 2.3, -2.4, -2.3, 0.1]),),
        (torch.tensor([2 * math.pi, 2 * math.pi - 3.0, 4.0]),),
    ],
    mistakes=wrong(
        "only one side counts: the back is seen from yaw +135 up and from -135 down",
        lambda yaw: (yaw >= _BACK).float().mean(),
        "a yaw of 360 degrees is the front again: wrap the angle into (-pi, pi] first",
        lambda yaw: (yaw.abs() >= _BACK).float().mean(),
        "radians are compared with degrees: 135 degrees are 3/4 pi",
        lambda yaw: (torch.atan2(yaw.sin(), yaw.cos()).abs() >= BACK).float().mean(),
        "this is the number of back views: divide by how many cameras there are",
        lambda yaw: (torch.atan2(yaw.sin(), yaw.cos()).abs() >= _BACK).float().sum(),
    ),
)


def _columns(matrix: Tensor, *signs: float) -> Tensor:
    return matrix * matrix.new_tensor([*signs, 1.0])


def _from_opengl(cam2world: Tensor) -> Tensor:
    """cam2world [..., 4, 4] with OpenGL's camera axes -> the same pose with OpenCV's; it undoes itself."""
    return _columns(cam2world, 1, -1, -1)


from_opengl = Exercise(
    truth=_from_opengl,
    cases=[(_from_opengl(_poses())[k],) for k in range(4)],
    mistakes=wrong(
        "the rows are flipped, which turns the world: the camera's axes are the columns",
        lambda m: m * m.new_tensor([1.0, -1.0, -1.0, 1.0])[:, None],
        "only z is flipped, which mirrors the camera (determinant -1): y changes its direction too",
        lambda m: _columns(m, 1, 1, -1),
        "only y is flipped, which mirrors the camera: z changes its direction too",
        lambda m: _columns(m, 1, -1, 1),
        "this is world2cam: both conventions are cam2world, so no inverse is needed",
        lambda m: torch.linalg.inv(m),
        "nothing is changed: OpenGL's camera looks along -z, OpenCV's along +z",
        lambda m: m,
    ),
)


def _picture(seed: int) -> tuple[Tensor, Tensor]:
    """A bright round head on white, lit from one side: brightness and mask [8, 8]."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.linspace(-1, 1, 8), torch.linspace(-1, 1, 8), indexing="ij")
    mask = ((x - 0.3 * (seed - 1)) ** 2 + y**2 < 0.6).double()
    shade = 0.4 + 0.3 * (1 - 2 * (seed % 2)) * x + 0.05 * torch.rand(8, 8, generator=generator)
    return torch.where(mask > 0, shade.double(), torch.ones(8, 8, dtype=torch.float64)), mask


def _side(brightness: Tensor, mask: Tensor) -> Tensor:
    half = brightness.shape[-1] // 2
    left = (brightness[:, :half] * mask[:, :half]).sum() / mask[:, :half].sum()
    right = (brightness[:, half:] * mask[:, half:]).sum() / mask[:, half:].sum()
    return (left - right) / (left + right)


def _sums(brightness: Tensor, mask: Tensor) -> Tensor:
    half = brightness.shape[-1] // 2
    left, right = (brightness * mask)[:, :half].sum(), (brightness * mask)[:, half:].sum()
    return (left - right) / (left + right)


def _halves(brightness: Tensor, mask: Tensor) -> Tensor:
    half = brightness.shape[-1] // 2
    left, right = (brightness * mask)[:, :half].mean(), (brightness * mask)[:, half:].mean()
    return (left - right) / (left + right)


side_light = Exercise(
    truth=_side,
    cases=[_picture(seed) for seed in range(4)],
    mistakes=wrong(
        "the white background is counted as well: weight by the mask",
        lambda b, m: _side(b, torch.ones_like(m)),
        "the sign is turned: left minus right",
        lambda b, m: -_side(b, m),
        "sums instead of means: a head further left would look lit from the left; divide by the mask's sum",
        _sums,
        "divide by the sum of both sides, not by their mean",
        lambda b, m: 2 * _side(b, m),
    ),
)
