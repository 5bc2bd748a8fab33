"""The bust on which every head is built: base mesh, targets, masks and the template for hair.

Everything is derived from `data/assets/head.npz` (see `data/scripts/build_assets.py`) once per process by `asset()`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from scipy.spatial import cKDTree

from head3d_core.synth.masks import crown, smoothstep, spherical
from head3d_core.synth.subdivision import (
    Array,
    Index,
    catmull_clark,
    corner_matrix,
    neighbour_mean,
    split_quads,
    unit,
    vertex_normals,
)
from head3d_core.synth.targets import TEMPLATE, blend, macro_weights
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.files import DATA

ASSET_PATH = DATA / "assets" / "head.npz"
SKIN_PARTS = (0, 3, 4, 5)
"""Parts drawn by the skin shader: body, upper teeth, lower teeth, tongue."""
SKULL_CENTRE = np.array([0.0, 7.45, 0.50])
"""Middle of the template's skull (dm): hair is described by directions from here."""


@dataclass(frozen=True, eq=False)
class DistanceField:
    """Signed distance to the template's skin on a regular grid."""

    low: Array
    """[3] corner of the grid (dm)."""
    step: float
    """Cell size (dm)."""
    values: NDArray[np.float32]
    """[X, Y, Z] distance (dm), positive outside."""

    @cached_property
    def gradients(self) -> list[NDArray[np.float32]]:
        """Three [X, Y, Z] arrays: the distance's derivative along x, y, z."""
        return list(np.gradient(self.values, self.step))

    def __call__(self, points: Array) -> tuple[Array, Array]:
        """Distance [N] and outward unit direction [N, 3] at points [N, 3]."""
        at = ((points - self.low) / self.step).T
        value = map_coordinates(self.values, at, order=1, mode="nearest", output=np.float64)
        slope = [map_coordinates(g, at, order=1, mode="nearest", output=np.float64) for g in self.gradients]
        return value, unit(np.stack(slope, -1))


@dataclass(frozen=True, eq=False)
class Asset:
    """Constant data of the bust. B base vertices, V vertices after one subdivision, lengths in dm."""

    base: Array
    """[B, 3] base mesh."""
    quads: Index
    """[Q, 4] base faces of all parts."""
    part: NDArray[np.uint8]
    """[Q] part of each face: 0 body, 1 and 2 eyes, 3 and 4 teeth, 5 tongue, 6 upper lashes."""
    joints: Index
    """[7, 8] vertices whose mean is the joint l-eye, r-eye, head, head-2 (crown), neck, jaw, mouth."""
    target_names: tuple[str, ...]
    targets: sp.csc_matrix
    """[3B, T]: column t moves the base by one unit of target t."""
    subdivide: sp.csr_matrix
    """[V, B] Catmull-Clark matrix."""
    triangles: Index
    """[T, 3] of the subdivided skin parts."""
    corners: sp.csr_matrix
    """[V, T] incidence of `triangles`."""
    smooth: sp.csr_matrix
    """[V, B] mean over a neighbourhood of the base mesh, read at the subdivided vertices."""
    coarse_triangles: Index
    """Triangles of the base mesh's skin parts: occluder, and normals before subdivision."""
    coarse_corners: sp.csr_matrix
    """[B, .] incidence of `coarse_triangles`."""
    rest: Array
    """[V, 3] subdivided base mesh: the coordinates in which masks and textures are written."""
    vertex_part: NDArray[np.float32]
    """[V] part of each subdivided vertex."""
    body: NDArray[np.bool_]
    """[V] true on the body."""
    lips: Array
    """[V] lip mask in [0, 1]."""
    ears: Array
    """[V] ear mask in [0, 1]."""
    body_triangles: Index
    """[., 3] those of `triangles` on the body: hair roots lie on them."""
    template: Array
    """[V, 3] the average adult: hair is grown on it."""
    template_base: Array
    """[B, 3] the same before subdivision."""
    template_normals: Array
    """[V, 3] unit normals of the template."""
    mirror: Index
    """[V] vertex at the mirrored place (x to -x)."""
    distance: DistanceField

    @cached_property
    def azimuth_elevation(self) -> tuple[Array, Array]:
        """[V] and [V]: where `rest` lies about the skull's centre (see `masks.spherical`)."""
        return spherical(self.rest)

    @cached_property
    def crown(self) -> Array:
        """[V] the part of the scalp that goes bald (see `masks.crown`)."""
        return crown(self.rest) * self.body

    @cached_property
    def base_skin(self) -> NDArray[np.bool_]:
        """[B] true on the body (base vertices)."""
        mask = np.zeros(len(self.base), bool)
        mask[self.vertices_of[0]] = True
        return mask

    @cached_property
    def skull(self) -> Index:
        """Body vertices above the widest part of the skull: what a hat is measured on."""
        return np.flatnonzero(self.body & (self.rest[:, 1] > 7.6))

    @cached_property
    def template_area(self) -> Array:
        """Twice the area of each of `body_triangles` on the template [.] (dm^2)."""
        a, b, c = (self.template[self.body_triangles[:, k]] for k in range(3))
        return np.linalg.norm(np.cross(b - a, c - a), axis=1)

    @cached_property
    def vertices_of(self) -> list[Index]:
        """Base vertices of each part."""
        return [np.unique(self.quads[self.part == k]) for k in range(7)]

    def eyeballs(self, base: Array) -> list[tuple[Array, float]]:
        """Centre (dm) and radius of the left and right eyeball of a head [B, 3], fitted to their vertices' bounds."""
        bounds = [(base[eye].min(0), base[eye].max(0)) for eye in self.vertices_of[1:3]]
        return [(0.5 * (low + high), 0.5 * float(high[1] - low[1])) for low, high in bounds]

    @cached_property
    def lids(self) -> Array:
        """[V] 1 on the lid margin, falling to 0 within 0.035 dm of the eyeball."""
        mask = np.zeros(len(self.template))
        for centre, radius in self.eyeballs(self.template_base):
            gap = np.linalg.norm(self.template - centre, axis=1) - radius
            near = (gap < 0.035) & (self.template[:, 2] - centre[2] > 0.02) & self.body
            mask = np.maximum(mask, np.where(near, 1 - smoothstep(0, 1, (gap - 0.005) / 0.03), 0.0))
        return mask

    @cached_property
    def lash_faces(self) -> tuple[Index, Index]:
        """Base vertices of the upper lashes [L], and triangles into them."""
        used, index = np.unique(self.quads[self.part == 6], return_inverse=True)
        return used, split_quads(index.reshape(-1, 4))


def _arrays(path: Path) -> dict[str, Any]:
    """The asset's arrays by name; Head3DError says how to get a file that is missing or cannot be unpacked."""
    if not path.is_file():
        raise Head3DError(
            f"The head asset should be at {path}, but is not there: build it with "
            "python data/scripts/build_assets.py (see its docstring)."
        )
    try:
        with np.load(path) as file:
            return {name: file[name] for name in file.files}
    except RuntimeError as error:  # zipfile's, where Python was built without the lzma module
        raise Head3DError(
            f"{path.name} cannot be unpacked ({error}): install Python with lzma (on Debian and Ubuntu liblzma-dev "
            "before building it)"
        ) from None


@lru_cache(maxsize=1)
def asset(path: Path = ASSET_PATH) -> Asset:
    """Loads the asset (about half a second, once per process)."""
    data = _arrays(path)
    base = data["base"].astype(np.float64)
    quads, part = data["quads"].astype(np.int64), data["part"]
    ends, index = data["target_ends"], data["target_index"].astype(np.int64)
    column = np.repeat(np.arange(len(ends) - 1), np.diff(ends))
    rows = (3 * index[:, None] + np.arange(3)).ravel()
    entries = data["target_delta"].astype(np.float64).ravel(), (rows, np.repeat(column, 3))
    targets = sp.csc_matrix(entries, shape=(3 * len(base), len(ends) - 1))
    names = tuple(str(n) for n in data["target_names"])
    skin = np.isin(part, SKIN_PARTS)
    subdivide, fine = catmull_clark(quads[skin], len(base))
    count = subdivide.shape[0]
    fine_part = np.tile(part[skin], 4)
    vertex_part = np.zeros(count, np.float32)
    for p in SKIN_PARTS[1:]:
        vertex_part[np.unique(fine[fine_part == p])] = p
    body = np.zeros(count, bool)
    body[np.unique(fine[fine_part == 0])] = True
    triangles = split_quads(fine)
    corners = corner_matrix(triangles, count)
    coarse = split_quads(quads[skin])
    rest = subdivide @ base
    mean = neighbour_mean(quads[skin], len(base))
    template_base = blend(base, targets, names, macro_weights(TEMPLATE))
    template = subdivide @ template_base
    low, (step, unit_length) = data["grid"][:3], data["grid"][3:]
    return Asset(
        base=base,
        quads=quads,
        part=part,
        joints=data["joints"].astype(np.int64),
        target_names=names,
        targets=targets,
        subdivide=subdivide,
        triangles=triangles,
        corners=corners,
        smooth=(subdivide @ mean @ mean).astype(np.float32).tocsr(),
        coarse_triangles=coarse,
        coarse_corners=corner_matrix(coarse, len(base)),
        rest=rest,
        vertex_part=vertex_part,
        body=body,
        lips=data["lips"] / 255.0,
        ears=data["ears"] / 255.0,
        body_triangles=triangles[np.tile(fine_part, 2) == 0],
        template=template,
        template_base=template_base,
        template_normals=vertex_normals(template, triangles, corners),
        mirror=np.asarray(cKDTree(rest).query(rest * [-1, 1, 1])[1]),
        distance=DistanceField(low, float(step), (data["distance"] * unit_length).astype(np.float32)),
    )
