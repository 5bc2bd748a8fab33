"""Brows and beards: short strands rooted on the head's own skin."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from head3d_core.synth import masks
from head3d_core.synth.assets import Asset
from head3d_core.synth.draws import normals, stream_key, uniforms
from head3d_core.synth.identity import Beard, Brows
from head3d_core.synth.strands import Float32, scatter_roots
from head3d_core.synth.subdivision import Array, unit

BROW_WIDTH = -0.0030
"""Negative: the renderer takes the brow colour for it (dm)."""
BEARD_WIDTH = 0.0068
BEARD_STRANDS = {"full": 6500, "short": 6500, "goatee": 2400, "moustache": 1500, "circle": 3600}


@lru_cache(maxsize=8)
def beard_mask(kind: str, data: Asset) -> Array:
    """[V] where a beard of this kind grows; "none" gives the area of stubble."""
    area = masks.beard(data.rest, data.lips) * data.body
    if kind == "goatee":
        return area * masks.goatee(data.rest)
    if kind == "moustache":
        return area * masks.moustache(data.rest)
    return area * masks.circle(data.rest) if kind == "circle" else area


def brow_mask(brows: Brows, data: Asset) -> Array:
    """[V] where the brows grow."""
    mask = masks.brow(data.rest, brows.thickness, brows.arch, brows.gap, brows.length, brows.height)
    return mask * data.body


def _bundle(
    mask: Array, count: int, key: int, steps: int, skin: Array, skin_normals: Array, data: Asset
) -> tuple[Array, Array, Array, Array]:
    """Roots on the skin: points, unit normals, rest points [N, 3], and positions along a strand [1, steps, 1]."""
    roots = scatter_roots(mask, count, key, data)
    u = np.linspace(0, 1, steps)[None, :, None]
    return roots.on(skin), unit(roots.on(skin_normals)), roots.on(data.rest), u


def _strands(points: Array, width: float) -> Float32:
    out = np.empty((*points.shape[:2], 4), np.float32)
    out[..., :3] = points
    out[..., 3] = width
    return out


def grow_brows(
    brows: Brows, mask: Array, seed: int, steps: int, skin: Array, skin_normals: Array, data: Asset
) -> Float32:
    """Brow strands [S, steps, 4] on skin [V, 3] where `brow_mask` says: upwards at the inner end, then outwards."""
    key = stream_key(seed, "brow strands")
    p, n, rest, u = _bundle(mask, brows.strands, key, steps, skin, skin_normals, data)
    t = np.clip((np.abs(rest[:, 0]) - brows.gap) / brows.length, 0, 1)
    d = np.stack([np.sign(rest[:, 0]) * (0.55 + 0.8 * t), 0.70 - 1.0 * t, 0 * t], 1)
    d = unit(d - n * (d * n).sum(1, keepdims=True)) + 0.07 * normals(key + 7, len(p), 3) + 0.06 * n
    length = (0.058 - 0.016 * t) * (0.6 + 0.5 * uniforms(key + 8, len(p)))
    bend = -0.35 * n + np.array([0, -0.12, 0])
    return _strands(
        p[:, None] + length[:, None, None] * (u * unit(d)[:, None] + 0.22 * u * u * bend[:, None]), BROW_WIDTH
    )


def grow_beard(
    beard: Beard, seed: int, steps: int, skin: Array, skin_normals: Array, data: Asset
) -> Float32 | None:
    """Beard strands [S, steps, 4], downwards and longer towards the chin; None without a beard."""
    if beard.kind == "none":
        return None
    key = stream_key(seed, "beard strands")
    count = BEARD_STRANDS[beard.kind]
    p, n, rest, u = _bundle(beard_mask(beard.kind, data), count, key, steps, skin, skin_normals, data)
    d = np.stack([0.3 * rest[:, 0], np.full(len(p), -1.0), np.full(len(p), 0.12)], 1)
    lip = masks.moustache(rest)  # a moustache parts in the middle and runs outwards
    d[:, 0] += 0.75 * np.tanh(rest[:, 0] / 0.10) * lip
    d = (
        unit(d - n * (d * n).sum(1, keepdims=True))
        + 0.16 * normals(key + 7, len(p), 3)
        + (0.18 - 0.10 * lip)[:, None] * n
    )
    length = beard.length * (0.6 + 0.5 * uniforms(key + 8, len(p)))
    if beard.kind == "full":
        length = length * (0.35 + 0.65 * masks.smoothstep(6.75, 6.2, rest[:, 1]))
    length = np.where(lip > 0.3, np.minimum(length, 0.055), length)
    length = length * (0.45 + 0.55 * masks.smoothstep(0.5, 0.95, rest[:, 2]))
    bend = -0.15 * n + np.array([0, -0.12, 0])
    points = p[:, None] + length[:, None, None] * (u * unit(d)[:, None] + u * u * bend[:, None])
    wave = np.sin(5 * u + 2 * np.pi * uniforms(key + 9, len(p), 1, 3)) * u
    return _strands(points + 0.05 * length[:, None, None] * wave, BEARD_WIDTH)
