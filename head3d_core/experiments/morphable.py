"""An explicit parametric head: a mesh whose shape and colour vary linearly, as LYHM's do (Dai et al. 2017, 2020).

Every head is one mesh of fixed topology: skin and eyeballs of the procedural heads, whose vertices mean the same place
on everybody, moved outwards to where the scan ends, so that hair is the outer shell of the mesh. Colours are read from
the scan's views at the vertices. Principal components of both together (an active appearance model, Cootes et al. 1998)
give x = mean + sum_k c_k a_k with c_k of unit variance over the training heads.

Shape and colour share their components, because hair changes both. The mesh cannot represent strands, gaps between them
or anything behind the first surface, and a pony tail that leaves the head is cut short.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from head3d_core.experiments.head_scans import FLOOR, Surface, Views
from head3d_core.synth.assets import SKULL_CENTRE, asset
from head3d_core.synth.heads import build_head
from head3d_core.synth.identity import identity
from head3d_core.synth.subdivision import corner_matrix, unit, vertex_normals
from head3d_core.synth.types import CENTRE, SCALE

Array = NDArray[np.float32]
REACH = 1.6
"""Largest distance of hair from the skin along its direction, dm."""
STEPS = 26
"""Places along it that are tested."""
THROAT = 6.3
"""Height of the chin on the average adult, dm."""
SMOOTHING = 4
"""Iterations of averaging the shell's height over neighbours."""
NEAR = 0.010
"""A vertex is seen by a view whose depth differs by less than this, world units."""
FILLING = 300
"""Iterations of diffusing colours to vertices that no view sees."""


@dataclass(frozen=True, eq=False)
class Topology:
    """Topology of all heads. V vertices: those of the bust above the images' lower edge, then both eyeballs."""

    skin: NDArray[np.intp]
    """[S] vertices of the head factory's skin that are kept."""
    triangles: NDArray[np.int32]
    """[T, 3]"""
    directions: NDArray[np.float64]
    """[S, 3] unit directions in which hair may lift the skin."""
    reach: NDArray[np.float64]
    """[S] how far (dm): to where the ray would meet the bust again."""
    corners: sp.csr_matrix
    """[V, T] which vertices are corners of which triangle."""
    neighbours: sp.csr_matrix
    """[V, V] mean over a vertex and its neighbours."""


def to_world(points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Decimetres of the base mesh -> world units."""
    return (np.asarray(points, np.float64) - CENTRE) * SCALE


@lru_cache(maxsize=1)
def topology() -> Topology:
    """The shared mesh, computed once per process on the average adult."""
    data = asset()
    head = build_head(identity(0, "heads"))
    high = to_world(data.template)[:, 1] > FLOOR
    skin = np.flatnonzero(high)
    place = np.full(len(high), -1)
    place[skin] = np.arange(len(skin))
    kept = place[data.triangles[high[data.triangles].all(1)]]
    triangles = np.concatenate([kept, head.eyes.triangles + len(skin)]).astype(np.int32)
    count = len(skin) + len(head.eyes.vertices)
    rest = data.template[skin]
    # Outwards from the skull; below its middle from the upright axis through it, upwards again on the shoulders.
    away = rest - SKULL_CENTRE
    away[:, 1] = np.maximum(away[:, 1], 0)
    away[:, 1] += 1.5 * np.clip(5.7 - rest[:, 1], 0, 1)
    directions = np.asarray(unit(away), np.float64)
    at = np.linspace(0, REACH, STEPS + 1)[1:]
    inside = np.stack([data.distance(rest + t * directions)[0] < -0.02 for t in at], 1) & (at > 0.15)
    reach = np.where(inside.any(1), at[inside.argmax(1)], REACH)
    # Below the chin, in front, no camera looks: what it cannot see is not hair.
    throat = (rest[:, 1] < THROAT) & (np.abs(rest[:, 0]) < 1.4 * (rest[:, 2] - SKULL_CENTRE[2] + 0.2))
    reach[throat] = 0
    reach *= data.body[skin] & (data.lids[skin] == 0)
    corners = corner_matrix(triangles.astype(np.int64), count)
    edges = (corners @ corners.T + sp.identity(count)).tocsr()
    edges.data[:] = 1
    mean = sp.diags(1 / np.asarray(edges.sum(1)).ravel()) @ edges
    return Topology(skin, triangles, directions, reach, corners, mean.tocsr())


def lifted(bare: NDArray[np.float64], views: Views) -> NDArray[np.float64]:
    """Skin [S, 3] (dm) moved outwards to where the scan ends: hair becomes the mesh's outer shell.

    The end is the outermost of two neighbouring places along a vertex' direction that no camera looks through, so that
    a single stray strand does not count.
    """
    net = topology()
    height = np.zeros(len(bare))
    rows = np.flatnonzero(net.reach > 0)
    before = np.ones(len(rows), bool)
    for t in np.linspace(0, REACH, STEPS + 1)[1:]:
        empty, unseen = views.carved(to_world(bare[rows] + t * net.directions[rows]))
        filled = ~(empty | unseen) & (t <= net.reach[rows])
        height[rows[filled & before]] = t
        before = filled
    full = np.zeros(net.neighbours.shape[0])
    full[: len(bare)] = height
    for _ in range(SMOOTHING):
        full = net.neighbours @ full
    return bare + full[: len(bare), None] * net.directions * (net.reach > 0)[:, None]


def vertex_colours(vertices: NDArray[np.float64], views: Views) -> NDArray[np.float64]:
    """Colour [V, 3] in [0, 1] of each vertex (world units): the mean over the views that see it, frontal ones first."""
    net = topology()
    normals = vertex_normals(vertices, net.triangles.astype(np.int64), net.corners)
    place, seen, distance = views.pixels(vertices)
    facing = (normals * unit(views.eyes[:, None] - vertices)).sum(-1)
    good = seen & (views.mask[place] == 255) & (np.abs(views.depth[place] - distance) < NEAR) & (facing > 0.1)
    # Weighted colours, and the sum of the weights.
    total = (np.where(good, facing**3, 0)[..., None] * np.insert(views.rgb[place] / 255, 3, 1, -1)).sum(0)
    weight = total[:, 3:]
    known = weight > 1e-3
    mean = np.where(known, total / np.maximum(weight, 1e-9), 0)
    filled = mean
    for _ in range(FILLING):  # unseen vertices take the mean of those neighbours that have a colour
        filled = net.neighbours @ filled
        filled = np.where(known, mean, filled / np.maximum(filled[:, 3:], 1e-9))
    return np.where(filled[:, 3:] > 0.5, filled[:, :3], mean[known[:, 0], :3].mean(0))


def registered(seed: int, views: Views) -> Surface:
    """Head `seed`, scanned from `views`, as the shared mesh.

    The vertices' correspondence is the head factory's own, that is, perfect.
    """
    net = topology()
    head = build_head(identity(seed, "heads"))
    bare = head.skin.vertices[net.skin].astype(np.float64)
    skin = to_world(lifted(bare, views))
    vertices = np.concatenate([skin, to_world(head.eyes.vertices)])
    colours = vertex_colours(vertices, views)
    return Surface(vertices.astype(np.float32), net.triangles, colours.astype(np.float32))


@dataclass(frozen=True, eq=False)
class MorphableModel:
    """x = mean + sum_k c_k axes_k, where x holds vertices (world units) and colours (sRGB in [0, 1])."""

    mean: Array
    """[V, 6]"""
    axes: Array
    """[K, V, 6] one standard deviation each."""
    triangles: NDArray[np.int32]
    """[T, 3]"""
    balance: float
    """World units that weigh as much as the full range of a colour in the components."""

    def surface(self, code: NDArray[np.floating]) -> Surface:
        """The head of a code [K]."""
        x = self.mean + np.tensordot(np.asarray(code, np.float32), self.axes, 1)
        return Surface(x[:, :3], self.triangles, x[:, 3:].clip(0, 1))

    def encode(self, surface: Surface, noise: float = 0.2) -> NDArray[np.float64]:
        """Code [K] of a registered head: the most probable one under a unit Gaussian (ridge regression).

        Args:
            noise: standard deviation of what the axes cannot express, in units of the last axis.
        """
        scale = np.array([1 / self.balance] * 3 + [1.0] * 3)
        x = np.concatenate([surface.vertices, surface.colours], 1).astype(np.float64)
        a = (self.axes * scale).reshape(len(self.axes), -1).astype(np.float64)
        lengths = np.linalg.norm(a, axis=1)
        projected = a @ ((x - self.mean) * scale).ravel()
        return np.asarray(projected / (lengths**2 + (noise * lengths[-1]) ** 2))

    def sample(self, count: int, seed: int, spread: float = 1.0) -> list[Surface]:
        """Heads of codes drawn from the Gaussian fitted to the training heads, which is the unit Gaussian.

        Args:
            spread: factor on the codes; below 1 heads stay nearer to the mean.
        """
        codes = spread * np.random.default_rng(seed).standard_normal((count, len(self.axes)))
        return [self.surface(code) for code in codes]


def fit_morphable(heads: Sequence[Surface]) -> MorphableModel:
    """Principal components of at least three registered heads; with N heads there are N - 1."""
    x = np.stack([np.concatenate([h.vertices, h.colours], 1) for h in heads]).astype(np.float64)
    mean = x.mean(0)
    # Shape and colour get equal shares of the variance, or the one with the larger unit would decide alone.
    balance = float(np.sqrt(x[..., :3].var(0).sum() / max(x[..., 3:].var(0).sum(), 1e-12)))
    scale = np.array([1 / balance] * 3 + [1.0] * 3)
    flat = ((x - mean) * scale).reshape(len(x), -1)
    _, sizes, axes = np.linalg.svd(flat, full_matrices=False)
    kept = len(heads) - 1
    axes = axes[:kept] * (sizes[:kept, None] / np.sqrt(len(heads) - 1))
    axes = axes.reshape(kept, *mean.shape) / scale
    return MorphableModel(
        mean.astype(np.float32), axes.astype(np.float32), heads[0].triangles.astype(np.int32), balance
    )
