"""What a head wears, as parameters: clothes, glasses, hats; and where the shirt covers the skin.

Colours are (hue, saturation, value) triples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from head3d_core.synth import TABLES
from head3d_core.synth.draws import Draws
from head3d_core.synth.masks import smoothstep
from head3d_core.synth.subdivision import Array

Hsv = tuple[float, float, float]

GLASSES: dict[str, list[float]] = TABLES["glasses"]
"""Kind -> exponent of the superellipse, width and height factor, droop of the outer lower corner; sunglasses last."""
HATS: dict[str, dict[str, Any]] = TABLES["hats"]
"""Kind -> its row of the table."""
NECKLINES = ("crew", "vee", "turtleneck", "tank")
THICKNESS = 0.045
"""How far the shirt's cloth stands off the skin (dm)."""


@dataclass(frozen=True)
class Clothes:
    """The shirt: neckline is an index into NECKLINES; pattern 0 plain, 1 vertical stripes, 2 check."""

    neckline: int
    pattern: int
    colour: Hsv
    second: Hsv


@dataclass(frozen=True)
class Glasses:
    """Spectacles; width and height are half-axes of a lens, rim its tube's radius (dm)."""

    kind: str
    colour: str
    width: float
    height: float
    rim: float


@dataclass(frozen=True)
class Hat:
    """A hat; `size` in [0, 1] sets the width of its brim or the height of its crown."""

    kind: str
    colour: Hsv
    second: Hsv
    size: float


def _fabric(d: Draws, name: str) -> Hsv:
    s = d.uniform(f"{name} saturation")
    dark = d.chance(f"{name} is dark", 0.45)
    value = d.uniform(f"{name} dark", 0.10, 0.32) if dark else d.uniform(name, 0.32, 0.88)
    return (round(d.uniform(f"{name} hue"), 4), round(0.7 * s * (0.5 + 0.5 * s), 4), round(value, 4))


def draw_clothes(d: Draws, male: bool) -> Clothes:
    """A shirt: mostly plain; stripes run from the neck down, never a check (it would follow the mesh's T-pose)."""
    shares = (0.6, 0.22, 0.18, 0.0) if male else (0.4, 0.27, 0.17, 0.16)
    return Clothes(
        neckline=d.choice("neckline", (0, 1, 2, 3), shares),
        pattern=d.choice("pattern", (0, 1), (0.86, 0.14)),
        colour=_fabric(d, "colour"),
        second=_fabric(d, "second"),
    )


def draw_glasses(d: Draws, years: float) -> Glasses | None:
    """Glasses on about 22 % (more with age), sunglasses on about 3 %."""
    if d.chance("sunglasses", 0.03):
        kind = "sunglasses"
    elif d.chance("any", 0.14 + 0.0025 * max(0.0, years - 15)):
        kind = d.choice("kind", tuple(GLASSES)[:-1])
    else:
        return None
    return Glasses(
        kind=kind,
        colour=d.choice(
            "colour", tuple(TABLES["colours"]["frames"]), (0.34, 0.16, 0.14, 0.12, 0.10, 0.08, 0.06)
        ),
        width=round(d.uniform("width", 0.25, 0.30), 4),
        height=round(d.uniform("height", 0.17, 0.23), 4),
        rim=d.choice("rim", (0.010, 0.016, 0.022)),
    )


def draw_hat(d: Draws, style: str) -> Hat | None:
    """A hat on about 13 % of the heads whose hair fits under one."""
    if style in TABLES["styles"]["hatless"] or not d.chance("any", 0.15):
        return None
    return Hat(
        kind=d.choice("kind", tuple(HATS), (0.28, 0.30, 0.18, 0.12, 0.12)),
        colour=_fabric(d, "colour"),
        second=_fabric(d, "second"),
        size=round(d.uniform("size"), 4),
    )


def neckline(rest: Array, kind: int) -> Array:
    """Height y (dm) below which cloth covers rest points [N, 3]: 0 crew, 1 vee, 2 turtleneck, 3 tank.

    The skin shader evaluates the same formula per pixel; keep the two alike.
    """
    a = np.abs(rest[:, 0])
    back = 1 - smoothstep(-0.4, 0.45, rest[:, 2])
    if kind == 0:
        return 5.72 + 0.40 * back
    if kind == 1:
        return 5.78 + 0.36 * back - 0.75 * np.exp(-((a / 0.34) ** 1.3)) * smoothstep(-0.1, 0.7, rest[:, 2])
    if kind == 2:
        return 6.02 + 0.16 * back
    return 5.20 + 0.15 * back + 0.75 * np.exp(-(((a - 0.92) / 0.17) ** 2))


def cloth_mask(rest: Array, kind: int) -> Array:
    """[N] 1 under cloth, 0 on bare skin."""
    return smoothstep(0.02, -0.08, rest[:, 1] - neckline(rest, kind))
