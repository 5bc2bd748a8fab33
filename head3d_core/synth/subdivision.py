"""Triangles of grids and quads, and constant sparse matrices: a Catmull-Clark level, neighbours, vertex normals."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Index = NDArray[np.integer[Any]]


def weighted_rows(weights: Array | float, columns: Index, count: int) -> sp.csr_matrix:
    """[N, count] matrix whose row n sums `weights` [N, K] times the entries `columns` [N, K]."""
    rows = np.repeat(np.arange(len(columns)), columns.shape[1])
    entries = np.broadcast_to(weights, columns.shape).ravel(), (rows, columns.ravel())
    return sp.csr_matrix(entries, shape=(len(columns), count))


def catmull_clark(quads: Index, count: int) -> tuple[sp.csr_matrix, Index]:
    """One level of subdivision (Catmull and Clark 1978) as a matrix.

    quads [Q, 4], count = number of vertices N. Returns (S [N + E + Q, N], quads [4Q, 4]); rows of S are the
    moved vertices, the edge points and the face points, in that order. Child k*Q + q is the corner k of quad q.
    Vertices in no quad keep their place.
    """
    q = len(quads)
    faces = np.arange(q)
    edges = np.concatenate([np.stack([quads[:, k], quads[:, (k + 1) % 4]], 1) for k in range(4)])
    unique, inverse = np.unique(np.sort(edges, 1), axis=0, return_inverse=True)
    inverse = inverse.reshape(-1)
    edge_of = inverse.reshape(4, q).T
    e = len(unique)
    boundary = np.bincount(inverse, minlength=e) < 2

    face_points, middles = weighted_rows(0.25, quads, count), weighted_rows(0.5, unique, count)
    of_face, of_edge, edge_faces = (
        corner_matrix(corners, n) for corners, n in ((quads, count), (unique, count), (edge_of, e))
    )
    edge_points = sp.diags(np.where(boundary, 1.0, 0.5)) @ middles
    edge_points = edge_points + sp.diags(np.where(boundary, 0.0, 0.25)) @ (edge_faces @ face_points)
    n = np.asarray(of_face.sum(1)).ravel()
    n1 = np.maximum(n, 1)
    n_edges = np.maximum(np.asarray(of_edge.sum(1)).ravel(), 1)
    identity = sp.identity(count)
    inner = sp.diags(1 / n1**2) @ of_face @ face_points
    inner = inner + sp.diags(2 / (n1 * n_edges)) @ of_edge @ middles + sp.diags((n1 - 3) / n1)
    rim_edges = of_edge @ sp.diags(boundary.astype(float))
    rim_count = np.asarray(rim_edges.sum(1)).ravel()
    rim = sp.diags(0.5 / np.maximum(rim_count, 1)) @ rim_edges @ middles + 0.5 * identity
    on_rim = rim_count > 0
    vertices = sp.diags(np.where(on_rim | (n == 0), 0.0, 1.0)) @ inner
    vertices = vertices + sp.diags((on_rim & (n > 0)).astype(float)) @ rim + sp.diags((n == 0).astype(float))
    children = [
        np.stack([quads[:, k], count + edge_of[:, k], count + e + faces, count + edge_of[:, k - 1]], 1)
        for k in range(4)
    ]
    return sp.vstack([vertices, edge_points, face_points]).tocsr(), np.concatenate(children)


def neighbour_mean(quads: Index, count: int) -> sp.csr_matrix:
    """[N, N] matrix whose row averages a vertex's edge neighbours."""
    edges = np.concatenate([np.stack([quads[:, k], quads[:, (k + 1) % 4]], 1) for k in range(4)])
    rows = np.concatenate([edges[:, 0], edges[:, 1]])
    columns = np.concatenate([edges[:, 1], edges[:, 0]])
    m = sp.coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(count, count)).tocsr()
    m.data[:] = 1.0
    return (sp.diags(1 / np.maximum(np.asarray(m.sum(1)).ravel(), 1)) @ m).tocsr()


def grid_triangles(rows: int, columns: int, closed: bool) -> Index:
    """Triangles [T, 3] of a rows x columns grid of vertices (row-major); `closed` joins last column to first."""
    i = np.arange(rows - 1)[:, None] * columns
    j = np.arange(columns if closed else columns - 1)[None]
    k = (j + 1) % columns
    a, b, c, d = i + j, i + k, i + columns + j, i + columns + k
    return np.concatenate([np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)])


def split_quads(quads: Index) -> Index:
    """[Q, 4] quads to [2Q, 3] triangles."""
    return np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


def corner_matrix(faces: Index, count: int) -> sp.csr_matrix:
    """[N, F] incidence: sums a value per face (triangle, quad or edge, [F, K]) into its corners."""
    return weighted_rows(1.0, faces, count).T.tocsr()


def unit(a: Array) -> Array:
    """Vectors [..., 3] scaled to length 1 (zero stays zero)."""
    length = np.sqrt(np.einsum("...i,...i->...", a, a))
    return a / np.maximum(length, 1e-12)[..., None]


def vertex_normals(vertices: Array, triangles: Index, corners: sp.csr_matrix) -> Array:
    """Unit normals [N, 3]: the triangles' cross products summed at their corners (area-weighted)."""
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    u, v = b - a, c - a
    cross = np.empty_like(u)
    for k in range(3):
        i, j = (k + 1) % 3, (k + 2) % 3
        cross[:, k] = u[:, i] * v[:, j] - u[:, j] * v[:, i]
    return unit(corners @ cross)
