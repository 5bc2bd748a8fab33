"""Hats fitted to a head, and the hair they press down.

A hat is a surface of revolution about the skull's axis, stretched to the skull's width and depth: each row has a
radius (1 = the skull plus a margin) and a height between the rim and the top.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from head3d_core.synth.accessories import fabric, join, paint, sheet
from head3d_core.synth.assets import Asset
from head3d_core.synth.masks import smoothstep
from head3d_core.synth.strands import Float32
from head3d_core.synth.subdivision import Array, unit
from head3d_core.synth.types import SolidMesh
from head3d_core.synth.wardrobe import HATS, Hat

SECTORS = 72
AZIMUTH = np.linspace(0, 2 * np.pi, SECTORS, endpoint=False)
"""Of the columns of a hat, from the front, radians."""
MARGIN = 0.085
"""Room for hair between skull and hat (dm)."""
WIDEST = 7.60
"""Height at which the skull is widest; above it the hat closes (dm)."""
BRIM_THICKNESS = 0.025
BAND = 0.26
"""Height of a headband (dm)."""


@dataclass(frozen=True)
class Fit:
    """Where a hat sits."""

    centre: Array
    """[3] on the skull's axis at its widest."""
    axes: Array
    """[3] half-width, height above `centre`, half-depth (dm)."""
    rim: float
    tilt: float
    band: float
    """Height of the closed part above the rim; infinite but for the headband."""

    def rim_height(self, azimuth: Array) -> Array:
        """Height of the rim (dm) at azimuths from the front."""
        return self.rim + self.tilt * np.cos(azimuth)


def fit_hat(hat: Hat, skin: Array, eye_height: float, data: Asset) -> Fit:
    """Measures the head: skin [V, 3], eye_height in dm (the template's is 7.284)."""
    skull = skin[data.skull]
    low, high = skull.min(0), skull.max(0)
    half = float(np.abs(skull[:, 0]).max()) + MARGIN
    centre = np.array([0.0, WIDEST, 0.5 * (low[2] + high[2])])
    axes = np.array([half, high[1] - WIDEST + MARGIN, 0.5 * (high[2] - low[2]) + MARGIN])
    rim, tilt = HATS[hat.kind]["rim"]
    shift = 0.7 * (eye_height - 7.284)
    return Fit(centre, axes, rim + shift, tilt, BAND if hat.kind == "headband" else np.inf)


def _superellipse(power: float, rows: int) -> tuple[Array, Array]:
    """Radius and height of a dome; power 2 is an ellipse, more is boxier."""
    t = np.linspace(0, np.pi / 2, rows)
    return np.cos(t) ** (2 / power), np.sin(t) ** (2 / power)


def _dome(fit: Fit, radius: Iterable[float], height: Iterable[float]) -> Array:
    """Grid [R + 3, SECTORS, 3]: three rows from the rim up to the widest place, then the given profile."""
    rim = fit.rim_height(AZIMUTH)
    start = max(fit.centre[1], float(rim.max()) + 0.02)
    top = fit.centre[1] + fit.axes[1]
    rows = [(1.0, rim * (1 - t) + start * t) for t in (0.0, 0.35, 0.7)]
    rows += [(r, start + (top - start) * h + 0 * rim) for r, h in zip(radius, height, strict=True)]
    return np.stack([_ring(fit, AZIMUTH, r, y) for r, y in rows])


def _ring(fit: Fit, azimuth: Array, radius: Array | float, y: Array) -> Array:
    """Points [N, 3] at `radius` (1 = the skull plus the margin) and height y [N] (dm)."""
    x, z = fit.axes[0] * radius * np.sin(azimuth), fit.axes[2] * radius * np.cos(azimuth)
    return np.stack([x, y, fit.centre[2] + z], 1)


def _coloured(grid: Array, colour: Array, closed: bool = True) -> SolidMesh:
    return sheet(grid, paint(colour, 0.95, grid.shape[0] * grid.shape[1]), closed)


def _push(grid: Array, rows: slice, amount: Array | float, fit: Fit) -> None:
    """Moves rows outwards from the axis by `amount` (dm), in place."""
    out = grid[rows] - fit.centre
    out[..., 1] = 0
    grid[rows] += unit(out) * np.broadcast_to(amount, grid[rows].shape[:2])[..., None]


def _beanie(hat: Hat, fit: Fit) -> SolidMesh:
    colour, second = fabric(hat.colour), fabric(hat.second)
    radius, height = _superellipse(2.25, 16)
    grid = _dome(fit, radius, height * (1.0 + 0.10 * hat.size))
    rib = 0.010 * np.abs(np.sin(18 * AZIMUTH))
    _push(grid, slice(0, len(grid) - 2), rib, fit)
    cuff = []
    for out, up in HATS["beanie"]["cuff"]:
        ring = grid[0].copy()
        ring[:, 1] = fit.rim_height(AZIMUTH) + up
        above = np.clip(ring[:, 1] - fit.centre[1], 0, None) / fit.axes[1]
        narrow = np.sqrt(np.clip(1 - above**2 * 0.55, 0.1, 1))
        ring[:, 0] *= narrow
        ring[:, 2] = fit.centre[2] + (ring[:, 2] - fit.centre[2]) * narrow
        _push(ring[None], slice(0, 1), out + rib, fit)
        cuff.append(ring)
    tint = second if hat.size > 0.6 else 0.88 * colour
    return join([_coloured(grid, colour), _coloured(np.stack(cuff), tint)])


def _cap(hat: Hat, fit: Fit) -> SolidMesh:
    colour, second = fabric(hat.colour), fabric(hat.second)
    radius, height = _superellipse(2.2, 14)
    grid = _dome(fit, radius, height)
    tints = paint(colour, 0.95, len(grid) * SECTORS).reshape(len(grid), SECTORS, 4)
    tints[:, :: SECTORS // 6, :3] *= 0.72  # the seams between six panels
    crown = sheet(grid, tints.reshape(-1, 4), closed=True)
    x = np.linspace(-1, 1, 29)
    angle = x * np.radians(64)
    base = _ring(fit, angle, 1.0, fit.rim_height(angle) + 0.03)
    reach = 0.62 + 0.16 * hat.size
    bulge = np.sqrt(np.clip(1 - x * x, 0, 1))
    rows = []
    for side, steps in ((1, np.linspace(0, 1, 9)), (-1, np.linspace(1, 0, 9))):
        for t in steps:
            out = np.stack([0.03 * x, -0.16 * t - (0.06 + 0.22 * x * x) * t * bulge, reach * bulge], 1)
            thick = 0.018 * side * (1 if t < 1 else 0.3)
            rows.append(base + out * t + [0, thick, 0])
    visor = _coloured(np.stack(rows), second if hat.size > 0.65 else 0.85 * colour, closed=False)
    radius, height = _superellipse(2.0, 4)
    around, up = np.stack([np.sin(AZIMUTH[::6]), np.cos(AZIMUTH[::6])]), 0.6 * height[:, None] + np.zeros(12)
    x, z = (np.outer(radius, part) for part in around)
    button = grid[-1].mean(0) + 0.05 * np.stack([x, up, z], -1)
    return join([crown, visor, _coloured(button, 0.8 * colour)])


def _brim_rows(grid: Array, fit: Fit, width: float, fall: float, curl: float) -> Array:
    """A brim [14, SECTORS, 3], upper then under side, growing from the rim; it falls, and curls up at the sides."""
    out = grid[0] - fit.centre
    out[:, 1] = 0
    out = unit(out)
    t = np.linspace(0, 1, 7)[:, None]
    rise = -fall * t + curl * t * t * np.sin(AZIMUTH) ** 2
    top = grid[0] + width * t[..., None] * out + rise[..., None] * [0, 1.0, 0]
    return np.concatenate([top, top[::-1] - [0, BRIM_THICKNESS, 0]])


def _brimmed(hat: Hat, fit: Fit) -> SolidMesh:
    """A bucket hat, or a fedora with its pinch and its ribbon."""
    row, colour = HATS[hat.kind], fabric(hat.colour)
    least, more, fall, curl = row["brim"]
    grid = _dome(fit, row["radius"], row["height"])
    brim = _brim_rows(grid, fit, least + more * hat.size, fall, curl)
    if hat.kind == "bucket":
        return join([_coloured(grid, colour), _coloured(brim, 0.9 * colour)])
    pinch = 0.075 * np.exp(-(((np.abs(np.angle(np.exp(1j * AZIMUTH))) - 0.62) / 0.30) ** 2))
    shares = np.array([0.2, 0.6, 1.0, 1.0, 0.7, 0.3])
    _push(grid, slice(7, 13), -pinch * shares[:, None], fit)
    band = grid[:5].copy()
    _push(band, slice(0, 5), 0.012, fit)
    parts = ((grid, colour), (brim, colour), (band, 0.45 * fabric(hat.second)))
    return join([_coloured(part, tint) for part, tint in parts])


def _headband(hat: Hat, fit: Fit) -> SolidMesh:
    rows = []
    for out, up in HATS["headband"]["cuff"]:
        y = fit.rim_height(AZIMUTH) + up
        narrow = np.sqrt(np.clip(1 - np.clip((y - fit.centre[1]) / fit.axes[1], 0, 1) ** 2, 0, 1))
        ring = _ring(fit, AZIMUTH, narrow, y)
        _push(ring[None], slice(0, 1), out, fit)
        rows.append(ring)
    return _coloured(np.stack(rows), fabric(hat.colour))


_BUILDERS = {"beanie": _beanie, "cap": _cap, "brim": _brimmed, "bucket": _brimmed, "headband": _headband}


def build_hat(hat: Hat, fit: Fit) -> SolidMesh:
    """The hat's mesh."""
    return _BUILDERS[hat.kind](hat, replace(fit, axes=fit.axes * [1, HATS[hat.kind]["tall"], 1]))


def squash(strands: Float32, fit: Fit) -> Float32:
    """Strands [S, M, 4] pressed inside the hat above its rim, and let go smoothly below (and above a headband)."""
    q = strands[..., :3] - fit.centre.astype(np.float32)
    high = q[..., 1] > 0
    scaled = q / fit.axes.astype(np.float32)
    scaled[..., 1] *= high
    radius = np.sqrt((scaled**2).sum(-1))
    above = strands[..., 1] - fit.rim_height(np.arctan2(q[..., 0], q[..., 2]))
    held = smoothstep(-0.28, 0.0, above)
    if np.isfinite(fit.band):
        held = held * smoothstep(fit.band + 0.16, fit.band - 0.02, above)
    limit = 0.95 + 1.2 * (1 - held)
    factor = np.where(radius > limit, limit / np.maximum(radius, 1e-6), 1.0).astype(np.float32)
    out = strands.copy()
    out[..., 0] = fit.centre[0] + q[..., 0] * factor
    out[..., 2] = fit.centre[2] + q[..., 2] * factor
    out[..., 1] = fit.centre[1] + q[..., 1] * np.where(high, factor, np.float32(1))
    return out
