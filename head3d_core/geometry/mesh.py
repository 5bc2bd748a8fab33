"""Surfaces of a head as meshes that other tools open: grid of sigma, marching cubes, colours, files.

World units and EG3D's frame throughout: y up, the face looks along +z, which is also glTF's "right way up". A surface
is where the decoder's raw output `sigma` crosses a level; EG3D's customary level is 10.
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from head3d_core.geometry.colour import colours_at, ray_options
from head3d_core.geometry.manifold import part_sheets
from head3d_core.model.generator import Generator
from head3d_core.model.volume import render_rays
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.files import atomic, check_place
from head3d_core.utils.progress import Progress, counted
from head3d_core.utils.srgb import linear_light

if TYPE_CHECKING:
    import trimesh

LEVEL = 10.0
"""Raw sigma on the surface (density = softplus(sigma - 1), so about 9 per world unit)."""
BORDER = 0.02
"""Share of the cube's side, at each face, that is treated as empty, so that surfaces close inside the cube."""
OUTSIDE = -1e3
"""Sigma given to the border."""
ENDINGS = (".glb", ".obj", ".ply")
"""Files that `save` writes."""
GRIDS = 6
"""Memory of a surface in grids' worth (float32): the grid, what marching cubes copies of it, and its triangles."""
CLEARANCE = 1e-4
"""Least distance of a grid point's sigma from the level, as a share of sigma's range."""
BOXED = 0.6
"""Share of the cube's faces above the level from which on the surface would be the cube's, not the head's."""
_BLOCK = 2**18


def density_grid(
    G: Generator, planes: Tensor, resolution: int = 256, progress: Progress | None = None
) -> NDArray[np.float32]:
    """Raw sigma (density = softplus(sigma - 1)) on a regular grid over the cube of the planes.

    Grid point (i, j, k) is at x, y, z = -side/2 + side (i, j, k) / (resolution - 1). The outermost `BORDER` of
    the cube is set to `OUTSIDE`.

    Args:
        planes: [1, 3, C, H, W].
        resolution: points per side, at least 8.
        progress: called with (done, total) blocks of slices.

    Returns:
        [resolution, resolution, resolution] float32, indexed x, y, z.

    Raises:
        Head3DError: more than one head, or a grid that would not fit in memory.
    """
    if len(planes) != 1:
        raise Head3DError(f"density_grid takes the planes of one head, got {len(planes)}: pass planes[k:k+1]")
    if resolution < 8:
        raise Head3DError(f"a grid of sigma needs at least 8 points per side, got {resolution}")
    check_memory(resolution)
    half = G.config.render.box_warp / 2
    axis = torch.linspace(-half, half, resolution, device=planes.device)
    grid = np.empty((resolution,) * 3, np.float32)
    slices = max(1, _BLOCK // resolution**2)
    with torch.no_grad():
        for start in counted(range(0, resolution, slices), progress):
            x = axis[start : start + slices]
            sigma, _ = G.query(planes, torch.cartesian_prod(x, axis, axis)[None])
            grid[start : start + len(x)] = sigma.reshape(len(x), resolution, resolution).cpu().numpy()
    margin = max(1, round(BORDER * resolution))
    for k in range(3):
        side = np.moveaxis(grid, k, 0)
        side[:margin] = OUTSIDE
        side[-margin:] = OUTSIDE
    return grid


def _free_memory() -> int | None:
    """Bytes that the system can still give, or None where it does not say (anywhere but on Linux)."""
    info = Path("/proc/meminfo")
    lines = info.read_text().splitlines() if info.exists() else []
    # Counts the disk cache, which is given up when needed, as free.
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return found[0] if found else None


def check_memory(resolution: int) -> None:
    """Raises Head3DError if surfaces from a grid of `resolution`³ points would not fit into the free memory."""
    needed = GRIDS * 4 * resolution**3
    free = _free_memory()
    if free is not None and needed > free:
        fitting = int((free / (4 * GRIDS)) ** (1 / 3)) // 32 * 32
        raise Head3DError(
            f"a {resolution}³ grid of sigma needs about {needed / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are free: "
            f"lower the resolution to {fitting}"
        )


def surface(grid: NDArray[np.float32], box_warp: float, level: float = LEVEL) -> trimesh.Trimesh:
    """Marching cubes of a grid of sigma: triangles in world units, facing outwards.

    Raises:
        Head3DError: if the level lies outside the grid's values, or below those of the empty space around the head.
    """
    import trimesh
    from skimage.measure import marching_cubes

    inner = grid[grid > OUTSIDE]
    low, high = (float(inner.min()), float(inner.max())) if inner.size else (0.0, 0.0)
    if not low < level < high:
        raise Head3DError(f"no surface at level {level:g}: sigma runs from {low:.3g} to {high:.3g}")
    rim = _rim(grid)
    above = float((rim > level).mean())
    if above > BOXED:
        raise Head3DError(
            f"no surface at level {level:g}: sigma is higher on {100 * above:.0f} % of the cube's faces, where nothing "
            f"should be, and a box would come out; take a level above {np.quantile(rim, 1 - BOXED):.3g}"
        )
    spacing = box_warp / (len(grid) - 1)
    # Interpolating towards the border's arbitrary value would bend the surface: the level is crossed half a cell out.
    clipped = np.maximum(grid, 2 * level - high)
    # A grid point on the level would lay several vertices into one place, where programs that weld them tear a hole.
    least = CLEARANCE * (high - low)
    clipped[np.abs(clipped - level) < least] = level + least
    vertices, faces, _, _ = marching_cubes(
        clipped, level, spacing=(spacing,) * 3, gradient_direction="descent"
    )
    mesh = trimesh.Trimesh(vertices - box_warp / 2, faces, process=False)
    if mesh.volume < 0:
        mesh.invert()
    return mesh


def _rim(grid: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sigma on the faces of the cube, just inside the border that `density_grid` empties."""
    filled, spans = grid > OUTSIDE, []
    for axis in range(3):  # an axis at a time: the places of all filled points would weigh more than the grid
        there = np.flatnonzero(filled.any(tuple(k for k in range(3) if k != axis)))
        spans.append(slice(there[0], there[-1] + 1))
    inner = grid[tuple(spans)]
    return np.concatenate([np.take(inner, [0, -1], axis).ravel() for axis in range(3)])


def pieces(mesh: trimesh.Trimesh) -> NDArray[np.int64]:
    """Number of the connected piece that each triangle belongs to, [faces]: 0, 1, 2, ..."""
    import trimesh

    of_vertex = trimesh.graph.connected_component_labels(mesh.edges, len(mesh.vertices))
    _, of_face = np.unique(of_vertex[mesh.faces[:, 0]], return_inverse=True)
    return np.asarray(of_face, np.int64)


def largest_component(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """The connected piece that encloses the largest volume: floaters are dropped."""
    piece = pieces(mesh)
    if not len(piece) or piece.max() == 0:
        return mesh
    a, b, c = (np.asarray(mesh.vertices)[mesh.faces[:, k]] for k in range(3))
    # Six times the volume between each triangle and the origin; over a closed piece they sum to its volume.
    volume = np.bincount(piece, np.einsum("nk,nk->n", a, np.cross(b, c)))
    return _chosen(mesh, np.flatnonzero(piece == np.abs(volume).argmax()))


def simplify(mesh: trimesh.Trimesh, faces: int) -> trimesh.Trimesh:
    """Quadric decimation to at most `faces` triangles (fast-simplification).

    Sheets that it makes touch are parted, and crumbs of two or three triangles, which enclose nothing, dropped.
    """
    import fast_simplification
    import trimesh

    if len(mesh.faces) <= faces:
        return mesh
    vertices, triangles = fast_simplification.simplify(
        np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.int32), target_count=faces
    )
    small = part_sheets(trimesh.Trimesh(vertices, triangles, process=True))
    piece = pieces(small)
    whole = np.bincount(piece) >= 4  # a tetrahedron's triangles
    return small if whole.all() else _chosen(small, np.flatnonzero(whole[piece]))


def _chosen(mesh: trimesh.Trimesh, faces: NDArray[np.integer[Any]]) -> trimesh.Trimesh:
    """Some triangles of a mesh and their vertices."""
    kept = mesh.submesh([faces], append=True, repair=False)
    assert not isinstance(kept, list)  # `append` makes one mesh of the list
    return kept


def density_normals(G: Generator, planes: Tensor, points: Tensor, step: float = 2e-3) -> Tensor:
    """Unit normals [M, 3] from sigma's gradient (central differences): they point where it falls, as density does.

    Args:
        points: [M, 3], world units.
        step: of the differences, world units.
    """
    moves = step * torch.eye(3, device=points.device)
    around = torch.cat([points[:, None] + moves, points[:, None] - moves], 1)
    with torch.no_grad():
        blocks = around.reshape(-1, 3).split(_BLOCK)
        sigma = torch.cat([G.query(planes, block[None])[0] for block in blocks], 1)
    plus, minus = sigma.reshape(-1, 2, 3).unbind(1)
    return torch.nn.functional.normalize(minus - plus, dim=-1)


def outward_normals(G: Generator, planes: Tensor, mesh: trimesh.Trimesh, step: float) -> NDArray[np.float32]:
    """Unit normals of a mesh's vertices, [V, 3]: `density_normals`, but never into the surface.

    In a thin sheet or a hollow narrower than `step` the gradient belongs to another side. Where it points against the
    triangles around the vertex, their mean normal is taken.

    Args:
        step: of the differences, world units; what the grid resolves gives the least noise.
    """
    points = torch.as_tensor(np.asarray(mesh.vertices), dtype=torch.float32, device=planes.device)
    normals = density_normals(G, planes, points, step).cpu().numpy()
    around = np.asarray(mesh.vertex_normals, np.float32)
    inwards = np.einsum("nk,nk->n", normals, around) <= 0
    normals[inwards] = around[inwards]
    return normals


def extract_mesh(
    G: Generator,
    ws: Tensor,
    resolution: int = 256,
    level: float = LEVEL,
    faces: int | None = None,
    keep_largest: bool = True,
    colours: bool = True,
    smooth: int = 0,
    progress: Progress | None = None,
) -> trimesh.Trimesh:
    """The surface of a head with normals and vertex colours.

    `metadata` of the result says how it was made: "resolution", "level" and "pieces" (found, before any was dropped).

    Args:
        ws: [1, num_ws, w_dim], from `G.mapping`.
        resolution: grid points per side.
        level: raw sigma on the surface.
        faces: decimate to at most so many triangles; None keeps all.
        keep_largest: drop everything but the largest connected piece.
        colours: colour the vertices.
        smooth: rounds of Taubin's smoothing, which takes off the grid's steps without shrinking the head.
        progress: called with (done, total) blocks of the grid.

    Returns:
        trimesh.Trimesh in world units: y up, the face looks along +z.

    Raises:
        Head3DError: no surface at this level, a grid too large for memory, or more than one head.
    """
    import trimesh

    with torch.no_grad():
        planes = G.planes(ws)
    mesh = surface(density_grid(G, planes, resolution, progress), G.config.render.box_warp, level)
    found = int(pieces(mesh).max()) + 1
    if keep_largest:
        mesh = largest_component(mesh)
    if smooth:
        trimesh.smoothing.filter_taubin(mesh, iterations=smooth)
    if faces is not None:
        mesh = simplify(mesh, faces)
        if keep_largest:  # decimation may have cut a thin bridge
            mesh = largest_component(mesh)
    normals = outward_normals(G, planes, mesh, G.config.render.box_warp / (resolution - 1))
    mesh.vertex_normals = normals  # type: ignore[method-assign]
    if colours:
        rgb = colours_at(G, planes, mesh, np.asarray(mesh.vertices))
        rgba = np.concatenate([(rgb * 255).round(), np.full((len(rgb), 1), 255)], 1).astype(np.uint8)
        mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=rgba)
    mesh.metadata = {"resolution": resolution, "level": level, "pieces": found}
    return mesh


def _as_gltf(mesh: trimesh.Trimesh) -> bytes:
    """A GLB: matte white material, times linear vertex colours in 32-bit floats or the mesh's sRGB texture."""
    import trimesh

    visual: Any = mesh.visual
    changed = mesh.copy()
    changed.vertex_normals = np.asarray(mesh.vertex_normals)  # type: ignore[method-assign]
    if visual.kind != "texture":  # a mesh without a material is a metal, which viewers show nearly black
        matte = trimesh.visual.material.PBRMaterial(
            baseColorFactor=[1.0, 1.0, 1.0, 1.0], metallicFactor=0.0, roughnessFactor=1.0
        )
        changed.visual = trimesh.visual.TextureVisuals(material=matte)
    if visual.kind == "vertex":
        rgb = linear_light(np.asarray(visual.vertex_colors)[:, :3] / 255)
        changed.vertex_attributes["_RGB"] = rgb.astype(np.float32)

    def name_colours(tree: dict[str, Any]) -> None:
        for part in tree["meshes"]:
            attributes = part["primitives"][0]["attributes"]
            if (
                "_RGB" in attributes
            ):  # trimesh's own COLOR_0 has 8 bits, too few for dark hair in linear light
                attributes["COLOR_0"] = attributes.pop("_RGB")

    return bytes(trimesh.exchange.gltf.export_glb(changed.scene(), True, tree_postprocessor=name_colours))


def _with_own_material(mesh: trimesh.Trimesh, stem: str) -> trimesh.Trimesh:
    """A copy with a texture file of its own, shown at full brightness (Kd 1); an untextured mesh as it is."""
    import trimesh

    visual: Any = mesh.visual
    if visual.kind != "texture":
        return mesh
    changed = mesh.copy()
    changed.vertex_normals = np.asarray(mesh.vertex_normals)  # type: ignore[method-assign]
    white = [255, 255, 255, 255]
    material = trimesh.visual.material.SimpleMaterial(
        image=visual.material.to_simple().image, diffuse=white, name=re.sub(r"\W+", "_", stem)
    )
    changed.visual = trimesh.visual.TextureVisuals(uv=visual.uv, material=material)
    return changed


def save(mesh: trimesh.Trimesh, path: Path | str) -> Path:
    """Writes GLB, OBJ (with MTL and texture in the same folder) or binary PLY, whole or not at all.

    Colours are sRGB here and in OBJ and PLY; a GLB's vertex colours are linear, as glTF asks (see `_as_gltf`).

    Raises:
        Head3DError: for an unknown ending or a place that cannot be written to.
    """
    path = Path(path)
    check_place(path, ENDINGS, "mesh file")
    ending = path.suffix.lower()
    extra: dict[str, bytes] = {}
    if ending == ".obj":
        from trimesh.exchange.obj import export_obj

        mesh = _with_own_material(mesh, path.stem)
        text, extra = export_obj(mesh, include_normals=True, return_texture=True, mtl_name=f"{path.stem}.mtl")
        data = text.encode()
    elif ending == ".glb":
        data = _as_gltf(mesh)
    else:
        exported = mesh.export(file_type=ending[1:])
        data = exported if isinstance(exported, bytes) else str(exported).encode()
    with ExitStack() as together:  # all files or none
        for name, content in [*extra.items(), (path.name, data)]:
            together.enter_context(atomic(path.parent / name)).write_bytes(content)
    return path


def closedness(G: Generator, planes: Tensor, directions: int = 2000) -> Tensor:
    """Share of directions from which a ray aimed at the middle of the head meets it, [N].

    Rays start on a sphere around the cube, evenly distributed (Fibonacci), and end in the middle; one whose opacity
    is then at least 0.5 has met a surface. A face without a back is open from behind.

    Args:
        planes: [N, 3, C, H, W].
    """
    index = torch.arange(directions, device=planes.device) + 0.5
    height = 1 - 2 * index / directions
    turn = torch.pi * (1 + 5**0.5) * index
    level_radius = (1 - height.square()).sqrt()
    outward = torch.stack([level_radius * turn.cos(), height, level_radius * turn.sin()], -1)
    side = G.config.render.box_warp
    options = ray_options(G, side, 48, 48)
    start = (outward * side).expand(len(planes), -1, -1)
    with torch.no_grad():
        seen = render_rays(planes, G.decoder.weights(), start, -outward.expand_as(start), options)
    return (seen.opacity >= 0.5).float().mean(1)
