"""A texture instead of vertex colours: the decimated surface is unwrapped (xatlas), its colours baked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from head3d_core.geometry.colour import facing, surface_colours
from head3d_core.geometry.mesh import Progress
from head3d_core.geometry.rasterize import rasterise
from head3d_core.model.generator import Generator
from head3d_core.utils.errors import Head3DError

if TYPE_CHECKING:
    import trimesh

FACES = 30_000
"""Triangles to decimate to before unwrapping, which takes seconds at this size and minutes at ten times as many."""
_BLOCK = 2**16


def bake_texture(
    G: Generator, ws: Tensor, mesh: trimesh.Trimesh, size: int = 1024, progress: Progress | None = None
) -> trimesh.Trimesh:
    """The same surface with a UV atlas and a baked colour texture instead of vertex colours.

    Args:
        ws: [1, num_ws, w_dim], the codes that the mesh was made from.
        mesh: decimated, for example to `FACES` triangles.
        size: side of the texture, pixels.
        progress: called with (done, total) texels.

    Raises:
        Head3DError: a texture smaller than 16 or larger than 8192 pixels.
    """
    import trimesh
    import xatlas
    from PIL import Image
    from scipy import ndimage

    if not 16 <= size <= 8192:
        raise Head3DError(f"a texture has 16 to 8192 pixels per side, got {size}")
    mapping, triangles, uv = xatlas.parametrize(
        np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.uint32)
    )
    vertices = np.asarray(mesh.vertices)[mapping]
    # v points up, rows point down.
    place = np.stack([uv[:, 0] * size - 0.5, (1 - uv[:, 1]) * size - 0.5], 1)
    covered = rasterise(place, triangles.astype(np.int64), size)
    places = covered.interpolate(vertices)
    points, towards = (
        torch.as_tensor(x, dtype=torch.float32, device=G.device) for x in (places, facing(mesh, places))
    )
    with torch.no_grad():
        planes = G.planes(ws)
    picture = np.zeros((size, size, 3), np.float32)
    filled = np.zeros((size, size), bool)
    for start in range(0, len(points), _BLOCK):
        part = slice(start, start + _BLOCK)
        row, column = covered.pixel[part].T
        picture[row, column] = surface_colours(G, planes, points[part], towards[part]).cpu().numpy()
        filled[row, column] = True
        if progress:
            progress(min(start + _BLOCK, len(points)), len(points))
    # Empty texels take their nearest neighbour's colour, or filtering would draw seams along the charts.
    nearest = ndimage.distance_transform_edt(~filled, return_distances=False, return_indices=True)
    image = Image.fromarray((picture[tuple(nearest)] * 255).round().astype(np.uint8))
    material = trimesh.visual.material.PBRMaterial(
        baseColorTexture=image, metallicFactor=0.0, roughnessFactor=1.0
    )
    textured = trimesh.Trimesh(vertices, triangles, process=False)
    textured.visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
    textured.vertex_normals = np.asarray(mesh.vertex_normals)[mapping]  # type: ignore[method-assign]
    textured.metadata = dict(mesh.metadata)
    return textured
