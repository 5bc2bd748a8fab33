"""Triangles to pixels, in NumPy: which pixels lie in which triangle, what a camera sees of a mesh, and its image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from head3d_core.model.cameras import check_camera, unpack
from head3d_core.utils.errors import Head3DError

if TYPE_CHECKING:
    import trimesh


@dataclass(frozen=True)
class Covered:
    """Pairs of a pixel and a triangle that covers its centre, M of them; a pixel may be in several pairs."""

    pixel: NDArray[np.int64]
    """[M, 2] row, column."""
    corner: NDArray[np.int64]
    """[M, 3] vertex numbers of the triangle."""
    weight: NDArray[np.float64]
    """[M, 3] barycentric weights of the pixel's centre, sum 1."""

    def interpolate(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Values of vertices [V, k] at the pixels, [M, k]."""
        return np.asarray((values[self.corner] * self.weight[..., None]).sum(1))


def rasterise(place: NDArray[np.floating[Any]], triangles: NDArray[np.int64], size: int) -> Covered:
    """Pixels of a size x size image whose centres lie in triangles.

    Args:
        place: [V, 2] column and row of each vertex, pixels; (0, 0) is the centre of the first pixel.
        triangles: [T, 3] vertex numbers, either orientation.
    """
    corner = np.asarray(place, np.float64)[triangles]
    pixels, owners, weights = [], [], []
    low, high = np.floor(corner.min(1)).astype(np.int64), np.ceil(corner.max(1)).astype(np.int64)
    seen = ((high >= 0) & (low < size)).all(1)
    low, high = low.clip(0, size - 1), high.clip(0, size - 1)
    span = np.where(seen[:, None], high - low + 1, 0)
    # Triangles of one bounding-box size are handled together: few sizes, many triangles.
    for box in np.unique(span[seen], axis=0):
        chosen = np.flatnonzero((span == box).all(1))
        dx, dy = np.meshgrid(np.arange(box[0]), np.arange(box[1]))
        at = low[chosen][:, None] + np.stack([dx.ravel(), dy.ravel()], 1)[None]
        a, b, c = (corner[chosen][:, None, k] for k in range(3))
        area = _cross(b - a, c - a)
        area = np.where(np.abs(area) < 1e-12, 1e-12, area)
        w = np.stack(
            [_cross(c - b, at - b) / area, _cross(a - c, at - c) / area, _cross(b - a, at - a) / area], -1
        )
        inside = (w >= -1e-6).all(-1)
        pixels.append(at[inside][:, ::-1])
        owners.append(triangles[np.broadcast_to(chosen[:, None], inside.shape)[inside]])
        weights.append(w[inside])
    if not pixels:
        return Covered(np.zeros((0, 2), np.int64), np.zeros((0, 3), np.int64), np.zeros((0, 3)))
    return Covered(np.concatenate(pixels), np.concatenate(owners), np.concatenate(weights))


def _cross(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0])


def seen_by(
    camera: Tensor, vertices: NDArray[np.floating[Any]], triangles: NDArray[np.integer[Any]], size: int
) -> tuple[Covered, NDArray[np.float64]]:
    """The nearest triangle in every pixel that sees one, and its distance along the ray [M], world units.

    Args:
        camera: [1, 25].
        vertices: [V, 3] world units, all in front of the camera.
        triangles: [T, 3] vertex numbers.
        size: pixels per side.
    """
    if len(check_camera(camera)) != 1:
        raise Head3DError(f"a mesh is seen by one camera, got {len(camera)}: pass camera[k:k+1]")
    pose, lens = (x[0].double().cpu().numpy() for x in unpack(camera))
    local = (np.asarray(vertices, np.float64) - pose[:3, 3]) @ pose[:3, :3]
    image = local @ lens.T
    flat = rasterise(image[:, :2] / image[:, 2:] * size - 0.5, np.asarray(triangles, np.int64), size)
    # Halfway across an image of a triangle is not halfway across the triangle: weights count by 1 / z.
    weight = flat.weight / local[flat.corner, 2]
    weight /= weight.sum(1, keepdims=True)
    distance = np.linalg.norm((local[flat.corner] * weight[..., None]).sum(1), axis=1)
    order = np.argsort(distance, kind="stable")
    _, first = np.unique(flat.pixel[order] @ [size, 1], return_index=True)
    near = order[first]
    return Covered(flat.pixel[near], flat.corner[near], weight[near]), distance[near]


def vertex_colours(mesh: trimesh.Trimesh) -> NDArray[np.float64]:
    """Colours of a mesh's vertices, [V, 3] in [0, 1]; a textured mesh is read at its vertices."""
    visual: Any = mesh.visual
    colours = visual.to_color().vertex_colors if visual.kind == "texture" else visual.vertex_colors
    return np.asarray(colours)[:, :3] / 255


def mesh_picture(mesh: trimesh.Trimesh, camera: Tensor, size: int = 256, coloured: bool = True) -> Tensor:
    """A mesh as a camera sees it, lit from the camera: a still for where nothing can be turned.

    Args:
        mesh: with vertex normals, and vertex colours if `coloured`.
        camera: [1, 25].
        size: pixels per side.
        coloured: vertex colours; False: grey, which shows shape better.

    Returns:
        [3, size, size] in [-1, 1] on white.
    """
    covered, _ = seen_by(camera, mesh.vertices, mesh.faces, size)
    normal = covered.interpolate(np.asarray(mesh.vertex_normals))
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    facing = np.abs(normal @ unpack(camera)[0][0, :3, 2].double().cpu().numpy())
    # Shape needs contrast, colours need light.
    light = 0.5 + 0.5 * facing if coloured else 0.25 + 0.75 * facing
    rgb = covered.interpolate(vertex_colours(mesh)) if coloured else np.full((len(light), 3), 0.8)
    picture = np.ones((size, size, 3))
    row, column = covered.pixel.T
    picture[row, column] = rgb * light[:, None]
    return torch.from_numpy(picture * 2 - 1).float().permute(2, 0, 1)
