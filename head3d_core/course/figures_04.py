"""Figures of notebook 04: where the cameras stand, how the two sets are lit, who is in them, where a face is found.

The numbers behind each figure come from small pure functions, which tests check; pictures come from any data set in
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

from head3d_core.course.figures import PALETTE
from head3d_core.model import cameras
from head3d_core.synth import sets
from head3d_core.synth.identity import Identity
from head3d_core.synth.light import Light, harmonics
from head3d_core.utils.errors import Head3DError

FACES, HEADS = PALETTE[0], PALETTE[1]
BACK = 135.0
"""|yaw| from which a view is a back view, degrees."""
_GREY = 0.2
"""Reflectance of the ball."""


def set_cameras(name: str, count: int, views: int = sets.HEAD_VIEWS) -> Tensor:
    """Cameras [count, 25] of the first pictures of a set of the head factory, without drawing anything."""
    return torch.from_numpy(np.stack([sets.example(name, i, views).camera for i in range(count)]))


def degrees(camera: Tensor) -> tuple[Tensor, Tensor]:
    """Yaw and pitch of cameras [N, 25], degrees."""
    yaw, pitch = cameras.yaw_pitch(camera)
    return torch.rad2deg(yaw), torch.rad2deg(pitch)


def thumbnails(images: Sequence[Tensor] | Tensor, side: int = 128) -> list[Tensor]:
    """Pictures uint8 [3, H, W] -> float [3, side, side] in [-1, 1], area-averaged, as `plots.image_grid` takes them."""
    small = [
        torch.nn.functional.interpolate(image[None].float(), (side, side), mode="bilinear", antialias=True)[0]
        for image in images
    ]
    return [image / 127.5 - 1 for image in small]


# --- cameras ----------------------------------------------------------------------------------------------------------


def camera_sphere(faces: Tensor, heads: Tensor) -> Any:
    """Plotly figure: the places of two sets' cameras [N, 25] on their sphere, with the head's direction as an arrow."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for name, camera, colour, symbol in (
        ("faces", faces, FACES, "circle"),
        ("heads", heads, HEADS, "diamond"),
    ):
        x, y, z = ([round(float(v), 2) for v in camera[:, k]] for k in (3, 7, 11))
        figure.add_trace(
            go.Scatter3d(
                x=x, y=y, z=z, mode="markers", name=name, hoverinfo="name",
                marker=dict(size=2.5, color=colour, symbol=symbol),
            )
        )  # fmt: skip
    figure.add_trace(
        go.Scatter3d(
            x=[0, 0], y=[0, 0], z=[0, 1.2], mode="lines+text", text=["", "the face looks here"], name="front",
            line=dict(color="#000000", width=6), showlegend=False, hoverinfo="skip",
        )
    )  # fmt: skip
    axis = dict(showbackground=False, range=[-3, 3])
    figure.update_layout(
        title="Where the cameras stand (drag to turn)", width=640, height=520, margin=dict(l=0, r=0, t=40, b=0),
        font=dict(size=14), legend=dict(itemsizing="constant"),
        scene=dict(
            xaxis=dict(title="x (subject's left)", **axis), yaxis=dict(title="y (up)", **axis),
            zaxis=dict(title="z (front)", **axis), aspectmode="cube",
            camera=dict(up=dict(x=0, y=1, z=0), eye=dict(x=1.2, y=0.8, z=1.4)),
        ),
    )  # fmt: skip
    return figure


def angle_map(faces: Tensor, heads: Tensor) -> Any:
    """Static twin of `camera_sphere`: pitch against yaw of both sets' cameras [N, 25]."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(8.5, 3.2))
    for name, camera, colour, marker in (("heads", heads, HEADS, "^"), ("faces", faces, FACES, "o")):
        yaw, pitch = degrees(camera)
        axis.scatter(
            yaw,
            pitch,
            s=22 if marker == "^" else 12,
            c=colour,
            marker=marker,
            alpha=0.7,
            label=name,
            linewidths=0,
        )
    axis.axvspan(-180, -BACK, color="#dddddd", zorder=0)
    axis.axvspan(BACK, 180, color="#dddddd", zorder=0)
    axis.set(xlim=(-180, 180), xlabel="yaw (degrees; grey: back views)", ylabel="pitch (degrees)")
    axis.set_xticks(range(-180, 181, 45))
    _legend_above(axis)
    figure.tight_layout()
    return figure


def _legend_above(axis: Any) -> None:
    """A legend over the panel, where it hides nothing."""
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)


def views_by_yaw(camera: Tensor, step: int = 15) -> NDArray[np.int64]:
    """How many cameras [N, 25] fall into each step of |yaw|: [180 / step]."""
    yaw, _ = degrees(camera)
    return np.histogram(yaw.abs().numpy(), bins=np.arange(0, 181, step))[0]


def yaw_bars(counts: dict[str, NDArray[np.int64]], step: int = 15) -> Any:
    """Pictures per step of |yaw|, one row of bars per set, on a logarithmic scale (so that few still show)."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(8.5, 3.2))
    width = step * 0.42
    for k, ((name, count), colour, hatch) in enumerate(
        zip(counts.items(), (FACES, HEADS), ("", "//"), strict=False)
    ):
        left = np.arange(len(count)) * step + step / 2 + (k - 0.5) * width
        axis.bar(left, count, width, color=colour, hatch=hatch, edgecolor="white", label=name)
    axis.set_yscale("symlog", linthresh=1)
    axis.axvspan(BACK, 180, color="#dddddd", zorder=0)
    axis.set(xlim=(0, 180), xlabel="|yaw| (degrees; grey: back views)", ylabel="pictures")
    axis.set_xticks(range(0, 181, 45))
    axis.legend()
    figure.tight_layout()
    return figure


def nearest_view(images: Tensor, camera: Tensor) -> Callable[[float, float], NDArray[np.uint8]]:
    """A function (yaw, pitch) -> the picture [H, W, 3] taken closest to there: what a viewer of still pictures shows.

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
        index = int((places @ wanted).argmax())
        return images[index].movedim(0, -1).contiguous().numpy()

    return draw


# --- light ------------------------------------------------------------------------------------------------------------


def key_angles(
    lights: Sequence[Light],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Azimuth (degrees, positive at the subject's left), elevation (degrees), strength of the key lights, [N] each."""
    d = np.array([light.key_direction for light in lights], np.float64)
    strength = np.array([light.key_colour.mean() for light in lights], np.float64)
    return np.degrees(np.arctan2(d[:, 0], d[:, 2])), np.degrees(np.arcsin(d[:, 1])), strength


def light_ball(light: Light, size: int = 64) -> tuple[Tensor, Tensor]:
    """A grey ball in this light, seen from the front: (picture uint8 [3, S, S], mask [S, S]).

    The sky's radiance, given by spherical harmonics, is blurred by the cosine of a matte surface, which multiplies its
    three degrees by 1, 2/3 and 1/4 (Ramamoorthi and Hanrahan, 2001); the key light adds max(0, n . direction).
    """
    at = (np.arange(size) + 0.5) / size * 2 - 1
    x, y = np.meshgrid(at, -at)
    mask = x * x + y * y <= 0.98
    normal = np.stack([x, y, np.sqrt(np.clip(1 - x * x - y * y, 0, 1))], -1).reshape(-1, 3)
    blurred = light.sky * np.array([1, *[2 / 3] * 3, *[1 / 4] * 5])[:, None]
    lit = (
        harmonics(normal) @ blurred
        + np.clip(normal @ light.key_direction, 0, None)[:, None] * light.key_colour
    )
    linear = np.clip(_GREY * light.exposure * lit, 0, 1).reshape(size, size, 3)
    picture = np.where(mask[..., None], linear ** (1 / 2.2), 1.0)
    pixels = torch.from_numpy(np.rint(255 * picture).astype(np.uint8))
    return pixels.movedim(-1, 0).contiguous(), torch.from_numpy(mask.astype(np.float32))


def side_light(images: Tensor, masks: Tensor) -> Tensor:
    """How one-sided the light on each head is, [N]: (left - right) / (left + right) of the mean brightness in the mask.

    "Left" is the left half of the picture. Brightness is linear: the sRGB curve is undone, since light adds up there.

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
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4))
    for name, lights, colour, marker in (("faces", faces, FACES, "o"), ("heads", heads, HEADS, "^")):
        azimuth, elevation, strength = key_angles(lights)
        axes[0].scatter(
            azimuth, elevation, s=22, c=colour, marker=marker, label=name, alpha=0.7, linewidths=0
        )
        hatch = "//" if name == "heads" else ""
        share = np.full(len(strength), 1 / len(strength))
        axes[1].hist(strength, np.arange(0, 1.25, 0.1), weights=share, color=colour, alpha=0.7, hatch=hatch,
                     edgecolor="white", label=name)  # fmt: skip
    axes[0].set(xlabel="azimuth of the key light (degrees)", ylabel="elevation (degrees)")
    axes[1].set(xlabel="strength of the key light", ylabel="share of the set")
    for axis in axes:
        _legend_above(axis)
    figure.tight_layout()
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
    import matplotlib.pyplot as plt

    facts = {"faces": people_facts(faces), "heads": people_facts(heads)}
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), width_ratios=(1, 1, 1.6), layout="constrained")
    bins = {"years": np.linspace(10, 85, 6), "melanin": np.linspace(0, 1, 6)}
    for axis, (key, edges) in zip(axes, bins.items(), strict=False):
        for (name, fact), colour, style in zip(facts.items(), (FACES, HEADS), ("-", "--"), strict=True):
            share = np.histogram(fact[key], edges)[0] / len(fact[key])
            axis.stairs(share, edges, color=colour, linewidth=2, linestyle=style, label=name)
        axis.set(xlabel={"years": "age (years)", "melanin": "skin tone (0 lightest)"}[key], ylim=(0, None))
    axes[0].set_ylabel("share of the set")
    styles = sorted(set(facts["faces"]["styles"]) | set(facts["heads"]["styles"]))
    for k, (name, fact) in enumerate(facts.items()):
        total = sum(fact["styles"].values())
        shares = [fact["styles"][s] / total for s in styles]
        axes[2].bar(np.arange(len(styles)) + 0.4 * k, shares, 0.4, color=(FACES, HEADS)[k], hatch=("", "//")[k],
                    edgecolor="white", label=name)  # fmt: skip
    axes[2].set_xticks(
        np.arange(len(styles)) + 0.2, [s.replace("_", " ") for s in styles], rotation=60, ha="right"
    )
    axes[2].set_xlabel("hairstyle")
    for axis in axes:
        _legend_above(axis)
    return figure


# --- detector ---------------------------------------------------------------------------------------------------------


def detector_curve(found: dict[str, Any]) -> Any:
    """Detection rate against |yaw| with its 95 % interval, from `data/results/detector_rates.json`."""
    import matplotlib.pyplot as plt

    rows = found["by |yaw|"]
    middle = [sum(map(float, name.split(" to "))) / 2 for name in rows]
    rate, low, high = (np.array([row[k] for row in rows.values()]) for k in ("rate", "low", "high"))
    figure, axis = plt.subplots(figsize=(7.5, 3.2))
    apart = np.clip([rate - low, high - rate], 0, 1)
    axis.errorbar(
        middle, rate, yerr=apart, fmt="-o", color=PALETTE[2], capsize=3, label="heads (95 % interval)"
    )
    axis.axvspan(BACK, 180, color="#dddddd", zorder=0)
    axis.set(
        xlim=(0, 180),
        ylim=(-0.03, 1.03),
        xlabel="|yaw| (degrees; grey: back views)",
        ylabel="a face is found",
    )
    axis.set_xticks(range(0, 181, 45))
    axis.legend()
    figure.tight_layout()
    return figure


def share_of_back_views(yaw: Tensor) -> float:
    """Share of cameras with |yaw| >= 135 degrees; `yaw` [N] in radians, of any number of turns.

    >>> share_of_back_views(torch.tensor([0.0, 3.0, 2 * math.pi, -3.0]))
    0.5
    """
    wrapped = torch.atan2(yaw.sin(), yaw.cos())
    return float((wrapped.abs() >= math.radians(BACK)).float().mean())
