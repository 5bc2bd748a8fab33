"""The light of one head, worked out on the GPU and kept there.

Sky light: one small orthographic depth tile per direction says what each vertex can see; a compute pass sums
radiance over the visible directions, and a few steps over the mesh's edges let light diffuse under the skin.
Key light: one larger depth map. Strands are thinned for both, since neighbours share their light.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from head3d_core.synth import gl
from head3d_core.synth.light import Light, fibonacci_sphere, tangents
from head3d_core.synth.subdivision import Index
from head3d_core.synth.types import CENTRE, HeadGeometry

DIRECTIONS = 32
TILES = (8, 4)
TILE = 128
"""Side of one direction's depth tile, texels over 2 x HALF_WIDTH."""
KEY_SIZE = 1024
HALF_WIDTH = 3.0
"""Of the light's box, dm: farther parts of the bust are out of every frame."""
DIFFUSION_STEPS = 4
"""An even number: light ends in the store that shading reads."""
DIFFUSION_SHARE = 0.65
_CLIP_PLANES = range(0x3000, 0x3004)
"""GL_CLIP_DISTANCE0 to 3."""
_OCCLUDING_STRANDS = 1000
_LIT_STRANDS = 4000
_SKIN_DENSITY, _HAIR_DENSITY = 16.0, 7.0
"""Extinction (1/dm) behind the first strand: for skin, whose hair is in front of it, and inside the hair."""


def _thinned(strands: int, points: int, wanted: int) -> dict[str, int]:
    """About `wanted` of `strands`, and every second point (the last one included), as the shaders name it."""
    step, point_step = max(1, strands // wanted), 2 if points > 6 else 1
    return {
        "strand_points": points,
        "strand_step": step,
        "point_step": point_step,
        "kept_strands": max(1, strands // step),
        "kept_points": -(-(points - 1) // point_step) + 1,
    }


def neighbour_lists(triangles: Index, vertices: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Neighbours over edges as starts [V + 1] and a flat list."""
    pairs = np.concatenate(
        [triangles[:, [a, b]] for a, b in ((0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2))]
    )
    keys = np.unique(pairs[:, 0].astype(np.int64) * vertices + pairs[:, 1])
    starts = np.searchsorted(keys, np.arange(vertices + 1, dtype=np.int64) * vertices)
    return starts.astype(np.uint32), (keys % vertices).astype(np.uint32)


class LightBake:
    """Depth maps and light buffers of the loaded head."""

    def __init__(self, context: Any, ribbons: gl.Ribbons) -> None:
        self._context = context
        self._ribbons = ribbons
        directions = fibonacci_sphere(DIRECTIONS)
        axes = dict(zip(("axis_u", "axis_v"), tangents(directions), strict=True)) | {"axis_d": directions}
        box = {"centre": CENTRE, "half_width": HALF_WIDTH}
        self._sky_programs, self._key_programs = (
            [gl.draw_program(context, f"depth_{what}", "empty", DIRECTIONS=n) for what in ("mesh", "hair")]
            for n in (DIRECTIONS, 1)
        )
        self._transfer = gl.compute_program(context, "transfer", DIRECTIONS=DIRECTIONS)
        self._diffuse = gl.compute_program(context, "diffuse")
        for program in (*self._sky_programs, self._transfer):
            gl.set_uniforms(program, tiles=TILES, **axes, **box)
        for program in self._key_programs:
            gl.set_uniforms(program, tiles=(1, 1), **box)
        gl.set_uniforms(self._transfer, sky_solid=0, sky_hair=1, key_solid=2, key_hair=3, hair_centre=CENTRE)
        gl.set_uniforms(self._diffuse, share=DIFFUSION_SHARE)
        sizes = [(TILE * TILES[0], TILE * TILES[1])] * 2 + [(KEY_SIZE, KEY_SIZE)] * 2
        self._maps = [self._depth_map(size) for size in sizes]
        self._targets = [context.framebuffer(depth_attachment=texture) for texture in self._maps]
        slots = {"vertex_light": 7, "soft_light": 8, "hair_light": 10, "positions": 11, "indices": 12}
        slots |= {"scratch": 12, "starts": 13, "neighbours": 14}
        self._stores = {name: gl.Store(context, slot) for name, slot in slots.items()}
        self._triangles: Index | None = None

    def _depth_map(self, size: tuple[int, int]) -> Any:
        texture = self._context.depth_texture(size)
        texture.compare_func = ""
        texture.filter = (self._context.LINEAR, self._context.LINEAR)
        texture.repeat_x = texture.repeat_y = False
        return texture

    def set_head(self, head: HeadGeometry, vertices: int) -> None:
        """The head whose light is baked at its `vertices`, of which the skin's come first.

        The skin's neighbours are computed again only when its triangles change.
        """
        self._stores["positions"].write([head.occluder.vertices])
        self._stores["indices"].write([head.occluder.triangles])
        self._index_count, self._hair = head.occluder.triangles.size, head.hair.shape[:2]
        self._vertices, self._skin_vertices = vertices, len(head.skin.vertices)
        triangles = head.skin.triangles
        if self._triangles is None or not np.array_equal(triangles, self._triangles):
            starts, neighbours = neighbour_lists(triangles, self._skin_vertices)
            self._stores["starts"].write([starts])
            self._stores["neighbours"].write([neighbours])
        self._triangles = triangles
        self._draw_depth(0, self._sky_programs, DIRECTIONS)

    def _draw_depth(self, first: int, programs: list[Any], instances: int) -> None:
        """Fills two depth maps, `first` with the occluder and the next one with the hair."""
        context, (mesh, ribbons) = self._context, programs
        for plane in _CLIP_PLANES:  # the sides of an atlas tile
            context.enable_direct(plane)
        for target in self._targets[first : first + 2]:
            target.clear(depth=1.0)
        self._targets[first].use()
        positions, indices = self._stores["positions"], self._stores["indices"]
        gl.draw_mesh(context, mesh, positions, indices, self._index_count, instances)
        strands, points = self._hair
        if strands:
            self._targets[first + 1].use()
            thin = _thinned(strands, points, _OCCLUDING_STRANDS)
            gl.set_uniforms(ribbons, ribbon_width=0.015 * thin["strand_step"] ** 0.8, **thin)
            self._ribbons.draw(ribbons, thin["kept_strands"], thin["kept_points"], instances)
        for plane in _CLIP_PLANES:
            context.disable_direct(plane)

    def run(self, light: Light) -> dict[str, Any]:
        """Sums the light at all vertices and strands, and diffuses it over the skin.

        The light, and the key light's depth maps at texture units 2 and 3, stay bound for shading. Returns what shading
        must know besides: the key light's axes and how strands were thinned, as the shaders name them.
        """
        direction = light.key_direction.astype(np.float64)[None]
        u, v = tangents(direction)
        baked: dict[str, Any] = {"key_u": u[0], "key_v": v[0], "key_direction": direction[0]}
        for program in self._key_programs:
            gl.set_uniforms(program, axis_u=u, axis_v=v, axis_d=direction)
        self._draw_depth(2, self._key_programs, 1)
        for unit, texture in enumerate(self._maps):
            texture.use(unit)
        gl.set_uniforms(self._transfer, sky=light.sky, **baked)
        self._sum_light("vertex_light", self._vertices, for_hair=0, hair_density=_SKIN_DENSITY)
        strands, points = self._hair
        if strands:
            thin = _thinned(strands, points, _LIT_STRANDS)
            baked |= thin
            count = thin["kept_strands"] * thin["kept_points"]
            self._sum_light("hair_light", count, for_hair=1, hair_density=_HAIR_DENSITY, **thin)
        self._diffuse_light()
        return baked

    def _sum_light(self, store: str, count: int, **uniforms: Any) -> None:
        """Fills a store with the light of `count` vertices or points of strands."""
        self._stores[store].reserve(count * 16)
        gl.set_uniforms(self._transfer, count=count, **uniforms)
        self._transfer.run(-(-count // 64))

    def _diffuse_light(self) -> None:
        """Lets the light of the skin's vertices diffuse over edges, from vertex_light into soft_light."""
        source, *targets = (self._stores[name] for name in ("vertex_light", "scratch", "soft_light"))
        for target in targets:
            target.reserve(self._skin_vertices * 16)
        self._stores["starts"].bind()
        self._stores["neighbours"].bind()
        gl.set_uniforms(self._diffuse, count=self._skin_vertices)
        for step in range(DIFFUSION_STEPS):
            target = targets[step % 2]
            self._context.memory_barrier()
            source.bind(11)
            target.bind(12)
            self._diffuse.run(-(-self._skin_vertices // 64))
            source = target
        self._context.memory_barrier()
