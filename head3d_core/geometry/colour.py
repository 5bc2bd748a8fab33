"""Colours of a surface as rendered images show them, at vertices or in a baked texture.

An image shows what is about 0.02 world units below the surface of `mesh.surface`. Rays along the normals of a rough
surface cross, which smears eyes and lips. Parallel rays do not, so a surface gets its colours from six directions.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from head3d_core.config import RenderOptions
from head3d_core.geometry.rasterize import rasterise
from head3d_core.model.generator import Generator
from head3d_core.model.volume import render_rays
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.progress import Progress, counted

if TYPE_CHECKING:
    import trimesh

WIDTH = 0.03
"""World units over which `facing` averages: about an eye's width."""
SHARPNESS = 8
"""Exponent of the six sides' shares: two sides are mixed where the surface is oblique to both."""
OUTSIDE, INSIDE = 0.03, 0.06
"""Where rays start and end, world units from the surface."""
LEAST = 0.05
"""Share below which a side is left out."""
FACES = 30_000
"""Triangles to decimate to before a texture is unwrapped: seconds at this size, minutes at ten times as many."""
_BLOCK = 2**16


def facing(mesh: trimesh.Trimesh, points: NDArray[Any]) -> NDArray[np.float64]:
    """Where the surface around points looks, without its wrinkles: unit vectors [M, 3].

    The normals of all triangles, times their areas, blurred over `WIDTH` (standard deviation, world units).

    Args:
        points: [M, 3] on the surface.
    """
    from scipy import ndimage

    corner = np.asarray(mesh.vertices)[mesh.faces]
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    cell, low = WIDTH / 2, np.asarray(mesh.bounds[0]) - 3 * WIDTH
    shape = tuple(np.ceil((mesh.bounds[1] + 3 * WIDTH - low) / cell).astype(int) + 1)
    place = np.ravel_multi_index(tuple(((corner.mean(1) - low) / cell).round().astype(int).T), shape)
    at = ((np.asarray(points) - low) / cell).T
    out = np.empty((at.shape[1], 3))
    for k in range(3):
        total = np.bincount(place, normal[:, k], int(np.prod(shape))).reshape(shape)
        blurred = ndimage.gaussian_filter(total, WIDTH / cell, mode="constant")
        out[:, k] = ndimage.map_coordinates(blurred, at, order=1, mode="nearest")
    length = np.linalg.norm(out, axis=1, keepdims=True)
    return np.where(length > 0, out / np.maximum(length, 1e-30), [0.0, 0.0, 1.0])


def ray_options(G: Generator, length: float, coarse: int, fine: int) -> RenderOptions:
    """Options of rays from 0 to `length` through planes of `G`, over black, with so many samples in each pass."""
    return dataclasses.replace(
        G.config.render,
        ray_start=0.0,
        ray_end=length,
        depth_resolution=coarse,
        depth_resolution_importance=fine,
        white_back=False,
        disparity=False,
        density_noise=0.0,
    )


def surface_colours(G: Generator, planes: Tensor, points: Tensor, towards: Tensor) -> Tensor:
    r"""What observers in front, behind, at both sides, above and below see of a surface: rgb [M, 3] in [0, 1].

    A point is seen along each axis k, from the side that it faces, by a short ray from `OUTSIDE` to `INSIDE` of it,
    so that thin layers count as they do in an image. The colours are mixed by $|n_k|^8 / \sum_j |n_j|^8$.

    Args:
        points: [M, 3].
        towards: [M, 3] unit vectors n, from `facing`.
    """
    options, weights = ray_options(G, OUTSIDE + INSIDE, 28, 0), G.decoder.weights()

    share = towards.abs() ** SHARPNESS
    share = share / share.sum(1, keepdim=True)
    share = torch.where(share < LEAST, 0.0, share)
    share = share / share.sum(1, keepdim=True)
    rgb = torch.zeros_like(points)
    with torch.no_grad():
        for k in range(3):
            chosen = share[:, k] > 0
            out = torch.zeros_like(points[chosen])
            out[:, k] = towards[chosen, k].sign()
            seen = render_rays(planes, weights, (points[chosen] + OUTSIDE * out)[None], -out[None], options)
            # Undo 2 c - 1 and the part of the light that passed through.
            colours = (seen.features[0, :, :3] + 1) / 2 / seen.opacity[0, :, None].clamp_min(1e-3)
            rgb[chosen] += share[chosen, k, None] * colours
    return rgb.clamp(0, 1)


def colours_at(
    G: Generator,
    planes: Tensor,
    mesh: trimesh.Trimesh,
    points: NDArray[np.floating[Any]],
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """`surface_colours` of points [M, 3] on a mesh, for the directions in which the mesh faces there: [M, 3]."""
    rows = np.concatenate([points, facing(mesh, points)], 1)
    blocks = torch.as_tensor(rows, dtype=torch.float32, device=planes.device).split(_BLOCK)
    parts = [surface_colours(G, planes, *block.split(3, 1)) for block in counted(blocks, progress)]
    return np.asarray(torch.cat(parts).cpu())


def bake_texture(
    G: Generator, ws: Tensor, mesh: trimesh.Trimesh, size: int = 1024, progress: Progress | None = None
) -> trimesh.Trimesh:
    """The same surface, unwrapped (xatlas), with a UV atlas and a baked colour texture instead of vertex colours.

    Args:
        ws: [1, num_ws, w_dim], the codes that the mesh was made from.
        mesh: decimated, for example to `FACES` triangles.
        size: side of the texture, pixels.
        progress: called with (done, total) blocks of texels.

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
    with torch.no_grad():
        planes = G.planes(ws)
    picture = np.zeros((size, size, 3), np.float32)
    filled = np.zeros((size, size), bool)
    row, column = covered.pixel.T
    picture[row, column] = colours_at(G, planes, mesh, covered.interpolate(vertices), progress)
    filled[row, column] = True
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
