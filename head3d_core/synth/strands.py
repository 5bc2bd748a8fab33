"""Strands from guides, once per style, and their fit to a head.

The expensive part (roots, guides, interpolation) happens in template space and is cached per (style, length, curl).
Fitting a head then costs two sparse products and one gather: the head's displacement from the template is spread on a
lattice, read at the guides' points, passed on to the strands of each guide, and corrected so that roots sit exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from head3d_core.synth import TABLES, masks
from head3d_core.synth.assets import SKULL_CENTRE, Asset, asset
from head3d_core.synth.draws import normals, stream_key, uniforms
from head3d_core.synth.growth import STYLES, Comb, Guides, Scalp, grow_baby_hair, grow_style
from head3d_core.synth.identity import Beard, Brows
from head3d_core.synth.subdivision import Array, Index, unit, weighted_rows

Float32 = NDArray[np.float32]
STRANDS = 14000
"""Scalp strands of a head (before the hairline takes some away)."""
GUIDES = 1300
BABY_STRANDS = 1100
CELL = 0.28
"""Lattice step of the warp (dm)."""
LOW, COUNTS = np.array([-2.52, 4.4, -2.4]), (19, 20, 20)
"""The lattice: symmetric about x = 0, so that mirrored hair needs no second one."""
ROOT_REACH = 0.35
"""Distance (dm) over which the correction at the root fades along a strand."""
CACHED_STYLES = 96


def scatter_roots(mask: Array, count: int, key: int, data: Asset) -> sp.csr_matrix:
    """[count, V] matrix that reads a vertex's values at roots, by barycentric weights in the body's triangles.

    The roots' density is proportional to `mask` [V]; they are evenly spread (stratified along the triangles).
    """
    triangles = data.body_triangles
    density = mask[triangles].mean(1) * data.template_area
    ends = np.cumsum(density)
    at = (np.arange(count) + uniforms(key, count)) / count * ends[-1]
    chosen = triangles[np.minimum(np.searchsorted(ends, at), len(triangles) - 1)]
    r = uniforms(key + 1, count, 2)
    s = np.sqrt(r[:, 0])
    weights = np.stack([1 - s, s * (1 - r[:, 1]), s * r[:, 1]], 1)
    first_entries = np.arange(0, chosen.size + 1, 3)
    return sp.csr_matrix((weights.ravel(), chosen.ravel(), first_entries), shape=(count, len(mask)))


@dataclass(frozen=True)
class Style:
    """A cached hairstyle in template space: N strands of M points, G guides."""

    roots: sp.csr_matrix
    """[N, V] reads vertices' values at the roots (see `scatter_roots`)."""
    place: tuple[Array, Array]
    """Azimuth and elevation [N] of the roots in rest space (see `masks.spherical`)."""
    crown: Array
    """[N] whether a root lies where men go bald."""
    chance: Array
    """[N] uniforms that decide which strands thinning removes."""
    points: Float32
    """[N, M, 4] strands: xyz and width (dm)."""
    guide: Index
    """[N] guide whose displacement a strand takes."""
    lattice: sp.csr_matrix
    """[G M, L] trilinear weights of the guides' points in the lattice."""
    hold: Float32
    """[M] share of the root's correction that reaches each point."""


def _trilinear(points: Array) -> sp.csr_matrix:
    """[P, L] interpolation weights of points [P, 3] in the lattice, clamped to its sides."""
    q = np.clip((points - LOW) / CELL, 0, np.array(COUNTS) - 1.000001)
    cell = q.astype(np.int64)
    corners = np.array(list(np.ndindex(2, 2, 2)))
    share = (q - cell)[:, None]
    columns = np.ravel_multi_index(tuple(np.moveaxis(cell[:, None] + corners, -1, 0)), COUNTS)
    return weighted_rows(np.where(corners, share, 1 - share).prod(-1), columns, int(np.prod(COUNTS)))


@lru_cache(maxsize=1)
def warp() -> tuple[Index, sp.csr_matrix]:
    """What spreads the body's displacement over the lattice (built once per process).

    Every third body vertex [K], and a matrix [L, K] of the inverse-distance weights of the 24 nearest of them.
    """
    data = asset()
    source = np.unique(data.body_triangles)[::3]
    axes = [LOW[k] + CELL * np.arange(COUNTS[k]) for k in range(3)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    distance, index = cKDTree(data.template[source]).query(grid, k=24)
    weight = 1 / ((distance / 0.30) ** 4 + 0.02)
    weight /= weight.sum(1, keepdims=True)
    return source, weighted_rows(weight, index, len(source))


def interpolate(guides: Guides, roots: Array, key: int) -> tuple[Float32, Index]:
    """Strands [N, M, 3] at `roots` [N, 3] from guides, and the guide of each strand.

    A strand is the mean of its three nearest guides, moved towards the nearest one as the comb says; where the three
    part ways (across a parting) only the nearest counts. Then length is varied, curl and frizz are added.
    """
    points, comb = guides
    base, g = points[:, 0], points.astype(np.float32)
    count, steps = len(roots), g.shape[1]
    if comb.parting is None:
        distance, index = cKDTree(base).query(roots, k=3)
    else:  # a fourth coordinate keeps the two sides of the parting apart
        sides = [np.column_stack([x, 0.3 * np.sign(x[:, 0] - comb.parting)]) for x in (base, roots)]
        distance, index = cKDTree(sides[0]).query(sides[1], k=3)
    weight = 1 / (distance + 0.015)
    weight = (weight / weight.sum(1, keepdims=True)).astype(np.float32)
    offsets = g - g[:, :1]
    near = offsets[index[:, 0]]
    mean = sum(weight[:, k, None, None] * offsets[index[:, k]] for k in range(3))
    apart = np.max([np.linalg.norm(offsets[index[:, k], -1] - near[:, -1], axis=1) for k in (1, 2)], axis=0)
    agree = apart < 0.6 * (np.linalg.norm(near[:, -1], axis=1) + 0.05)
    mean = np.where(agree[:, None, None], mean, near)
    clump = comb.clump.astype(np.float32)[None, :, None]
    start = roots.astype(np.float32)
    closer = (g[index[:, 0], 0] - start)[:, None] * np.float32(comb.pull)
    p = start[:, None] + mean + clump * (near - mean + closer)
    if comb.ragged:
        keep = 1 - comb.ragged * uniforms(stream_key(key, "ragged"), count) ** 2
        at = (keep[:, None] * np.arange(steps)).astype(np.float32)
        low, rows = np.minimum(at.astype(np.int64), steps - 2), np.arange(count)[:, None]
        f = (at - low)[..., None]
        p = p[rows, low] * (1 - f) + p[rows, low + 1] * f
    return _curl(p, index[:, 0], comb, key, steps).astype(np.float32), index[:, 0]


def _curl(points: NDArray[np.float32], guide: Index, comb: Comb, key: int, steps: int) -> NDArray[np.float32]:
    """Adds a helix (phase shared within a guide, up to `loose`) and smooth frizz across the strands."""
    count = len(points)
    tangent = unit(np.gradient(points, axis=1))
    a = unit(np.cross(tangent, np.array([0.3, 0.2, 0.93], np.float32)))
    b = np.cross(tangent, a)
    u = np.linspace(0, 1, steps, dtype=np.float32)
    if comb.curl:
        phase = 2 * np.pi * uniforms(stream_key(key, "phase"), int(guide.max()) + 1)[guide]
        phase = phase + 2 * comb.loose * normals(stream_key(key, "loose"), count)
        length = np.linalg.norm(np.diff(points, axis=1), axis=-1).sum(1)
        angle = (phase[:, None] + 2 * np.pi * comb.turns * u * length[:, None]).astype(np.float32)
        sizes = (0.7 + 0.6 * uniforms(stream_key(key, "size"), count))[:, None]
        size = (comb.curl * masks.smoothstep(0.0, 0.35, u) * sizes).astype(np.float32)
        points = points + (size * np.cos(angle))[..., None] * a + (size * np.sin(angle))[..., None] * b
    r = normals(stream_key(key, "frizz"), 4, count, 1).astype(np.float32)
    x = comb.frizz * u * (r[0] + r[2] * np.sin(7 * u + 3 * r[1]))
    y = comb.frizz * u * (r[1] + r[3] * np.cos(6 * u + 3 * r[0]))
    return points + x[..., None] * a + y[..., None] * b


@dataclass(frozen=True)
class _Group:
    """Strands grown together: their roots, points [N, M, 3], guide of each, the guides [G, M, 3] and their comb."""

    roots: sp.csr_matrix
    points: Float32
    guide: Index
    guides: Array
    comb: Comb


def _grow_group(
    mask: Array, guides: int, strands: int, key: int, grower: Callable[[Scalp], Guides]
) -> _Group:
    data = asset()
    roots = scatter_roots(mask, guides, stream_key(key, "guides"), data)
    d = roots @ data.template - SKULL_CENTRE
    rings = np.round((roots @ data.template)[:, 1], 1)
    roots = roots[np.lexsort((np.arctan2(d[:, 0], d[:, 2]), rings))]  # neighbours come close together
    scalp = Scalp(roots @ data.template, unit(roots @ data.template_normals), key, data)
    grown = grower(scalp)
    places = scatter_roots(mask, strands, stream_key(key, "strands"), data)
    _, nearest = cKDTree(scalp.points).query(places @ data.template)
    places = places[np.argsort(nearest, kind="stable")]  # neighbours share baked light
    points, guide = interpolate(grown, places @ data.template, key)
    x, y, z = np.moveaxis(points, -1, 0)
    before_throat = (np.abs(x) < 0.55) & (y < 6.7) & (z > 0.75)  # where single stray strands look wrong
    clear = np.flatnonzero(~before_throat.any(1))
    return _Group(places[clear], points[clear], guide[clear], *grown)


def resample(points: Array, steps: int) -> Array:
    """Strands [N, M, C] with `steps` points instead of M, linear between the old ones."""
    if steps == points.shape[1]:
        return points
    at = np.linspace(0, points.shape[1] - 1, steps)
    low = np.minimum(at.astype(int), points.shape[1] - 2)
    f = (at - low).astype(points.dtype)[None, :, None]
    return points[:, low] * (1 - f) + points[:, low + 1] * f


def _with_width(points: Array, width: float) -> Float32:
    """Strands [N, M, 4] of points [N, M, 3]."""
    return np.pad(points.astype(np.float32), ((0, 0), (0, 0), (0, 1)), constant_values=width)


@lru_cache(maxsize=CACHED_STYLES)
def _grown(style: str, length: int, curl: int) -> Style:
    data = asset()
    key = stream_key(length * 8 + curl, "style", style)
    mask = masks.scalp(data.rest, data.azimuth_elevation, softness=6.0) * data.body
    if style == "balding":
        mask = mask * (1 - masks.crown(data.rest))
    if style == "mohawk":
        mask = mask * np.exp(-((data.rest[:, 0] / 0.24) ** 4))
    count = STRANDS + 1000 if style in ("buzz", "balding") else STRANDS
    groups = [_grow_group(mask, GUIDES, count, key, lambda s: grow_style(s, style, length, curl))]
    if STYLES[style]["family"] == "pulled":
        edge = np.exp(-((masks.above_hairline(*data.azimuth_elevation) / 5.0) ** 2))
        hairy = masks.scalp(data.rest, data.azimuth_elevation, softness=8.0) > 0
        edge = edge * (data.rest[:, 2] > 0.2) * data.body * hairy
        groups.append(_grow_group(edge, 400, BABY_STRANDS, stream_key(key, "baby"), grow_baby_hair))
    steps = groups[0].points.shape[1]
    guides = np.concatenate([resample(g.guides, steps) for g in groups])
    shifts = np.cumsum([0, *(len(g.guides) for g in groups)])
    roots = sp.vstack([g.roots for g in groups]).tocsr()
    points = [_with_width(resample(g.points, steps), g.comb.width) for g in groups]
    reach = np.linalg.norm(guides - guides[:, :1], axis=-1).mean(0)
    return Style(
        roots=roots,
        place=masks.spherical(roots @ data.rest),
        crown=masks.crown(roots @ data.rest),
        chance=uniforms(stream_key(key, "chance"), roots.shape[0]),
        points=np.concatenate(points),
        guide=np.concatenate([g.guide + k for g, k in zip(groups, shifts, strict=False)]),
        lattice=_trilinear(guides.reshape(-1, 3)).astype(np.float32),
        hold=np.exp(-reach / ROOT_REACH).astype(np.float32),
    )


def grown_style(style: str, length: int, curl: int) -> Style:
    """The cached strands of a style (0.1 to 0.2 s of growth at the first call). Not for "bald"."""
    return _grown(style, length, curl if "wave" in STYLES[style] else 0)


def fit(style: Style, skin: Array, mirrored: bool, keep: Index | slice = slice(None)) -> Float32:
    """The strands `keep` of a style on a head's skin [V, 3]: [S, M, 4], xyz and width (dm).

    `mirrored` swaps left and right: the head is mirrored, gets the hair, and both are mirrored back.
    """
    data = asset()
    flip = np.array([-1.0, 1, 1])
    if mirrored:
        skin = skin[data.mirror] * flip
    steps = len(style.hold)
    source, spread = warp()
    shift = style.lattice @ (spread @ (skin - data.template)[source]).astype(np.float32)
    moved = _with_width(shift.reshape(-1, steps, 3), 0.0)  # four channels: whole rows are copied below
    strands = np.take(moved, style.guide[keep], axis=0)
    strands += style.points[keep]
    error = style.roots[keep] @ skin - strands[:, 0, :3]
    strands += _with_width(error[:, None], 0.0) * style.hold[:, None]
    if mirrored:
        strands[..., 0] *= -1
    return strands


# -- brows and beards: short strands rooted on the head's own skin

BROW_WIDTH = -0.0030
"""Negative: the renderer takes the brow colour for it (dm)."""
BEARD_WIDTH = 0.0068


@lru_cache(maxsize=8)
def beard_mask(kind: str, data: Asset) -> Array:
    """[V] where a beard of this kind grows; "none" gives the area of stubble."""
    area = masks.beard(data.rest, data.lips) * data.body
    parts = {"goatee": masks.goatee, "moustache": masks.moustache, "circle": masks.circle}
    return area * parts[kind](data.rest) if kind in parts else area


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
    return roots @ skin, unit(roots @ skin_normals), roots @ data.rest, u


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
    points = p[:, None] + length[:, None, None] * (u * unit(d)[:, None] + 0.22 * u * u * bend[:, None])
    return _with_width(points, BROW_WIDTH)


def grow_beard(
    beard: Beard, seed: int, steps: int, skin: Array, skin_normals: Array, data: Asset
) -> Float32 | None:
    """Beard strands [S, steps, 4], downwards and longer towards the chin; None without a beard."""
    if beard.kind == "none":
        return None
    key = stream_key(seed, "beard strands")
    count = TABLES["beards"][beard.kind]
    p, n, rest, u = _bundle(beard_mask(beard.kind, data), count, key, steps, skin, skin_normals, data)
    d = np.stack([0.3 * rest[:, 0], np.full(len(p), -1.0), np.full(len(p), 0.12)], 1)
    lip = masks.moustache(rest)  # a moustache parts in the middle and runs outwards
    d[:, 0] += 0.75 * np.tanh(rest[:, 0] / 0.10) * lip
    d = unit(d - n * (d * n).sum(1, keepdims=True)) + 0.16 * normals(key + 7, len(p), 3)
    d = d + (0.18 - 0.10 * lip)[:, None] * n
    length = beard.length * (0.6 + 0.5 * uniforms(key + 8, len(p)))
    if beard.kind == "full":
        length = length * (0.35 + 0.65 * masks.smoothstep(6.75, 6.2, rest[:, 1]))
    length = np.where(lip > 0.3, np.minimum(length, 0.055), length)
    length = length * (0.45 + 0.55 * masks.smoothstep(0.5, 0.95, rest[:, 2]))
    bend = -0.15 * n + np.array([0, -0.12, 0])
    points = p[:, None] + length[:, None, None] * (u * unit(d)[:, None] + u * u * bend[:, None])
    wave = np.sin(5 * u + 2 * np.pi * uniforms(key + 9, len(p), 1, 3)) * u
    return _with_width(points + 0.05 * length[:, None, None] * wave, BEARD_WIDTH)
