"""The light of one head, worked out on the GPU and kept there.

Sky light: one small orthographic depth tile per direction says what each vertex can see; a compute pass sums
radiance over the visible directions, and a few steps over the mesh's edges let light diffuse under the skin.
Key light: one larger depth map. Strands are thinned for both, since neighbours share their light.
"""

from __future__ import annotations

from dataclasses import dataclass
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
DIFFUSION_SHARE = 0.65
_OCCLUDING_STRANDS = 1000
_LIT_STRANDS = 4000
_SKIN_DENSITY, _HAIR_DENSITY = 16.0, 7.0
"""Extinction (1/dm) behind the first strand: for skin, whose hair is in front of it, and inside the hair."""


@dataclass(frozen=True)
class Thinning:
    """A subset of strands and of the points along them."""

    strand_step: int
    point_step: int
    strands: int
    points: int

    @property
    def uniforms(self) -> dict[str, int]:
        """As the shaders name them."""
        return {"strand_step": self.strand_step, "point_step": self.point_step, "kept_points": self.points}

    @staticmethod
    def of(strands: int, points: int, wanted: int) -> Thinning:
        """About `wanted` of `strands`, and every second point (the last one included)."""
        step = max(1, strands // wanted)
        point_step = 2 if points > 6 else 1
        return Thinning(step, point_step, max(1, strands // step), -(-(points - 1) // point_step) + 1)


def ribbon_indices(strands: int, points: int) -> Index:
    """[strands * (points - 1) * 6] two triangles per segment, two vertices per point."""
    segment = (np.arange(strands)[:, None] * points + np.arange(points - 1)).reshape(-1, 1) * 2
    return (segment + np.array([0, 1, 2, 2, 1, 3])).astype(np.int32).ravel()


def neighbour_lists(triangles: Index, vertices: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Neighbours over edges as starts [V + 1] and a flat list."""
    pairs = np.concatenate(
        [triangles[:, [a, b]] for a, b in ((0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2))]
    )
    keys = np.unique(pairs[:, 0].astype(np.int64) * vertices + pairs[:, 1])
    starts = np.searchsorted(keys, np.arange(vertices + 1, dtype=np.int64) * vertices)
    return starts.astype(np.uint32), (keys % vertices).astype(np.uint32)


class RibbonIndices:
    """Index buffers of ribbons, one per number of points: the first strands' indices serve fewer strands too."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._arrays: dict[tuple[Any, int], tuple[int, Any]] = {}

    def array(self, program: Any, strands: int, points: int) -> Any:
        """A vertex array of `program` with indices for at least `strands`."""
        room, array = self._arrays.get((program, points), (0, None))
        if room < strands:
            room = 1 << (strands - 1).bit_length() if strands > 1 else 1
            buffer = self._context.buffer(ribbon_indices(room, points))
            array = self._context.vertex_array(program, [], buffer, index_element_size=4)
            self._arrays[program, points] = (room, array)
        return array


class LightBake:
    """Depth maps and light buffers of the loaded head."""

    def __init__(self, context: Any, ribbons: RibbonIndices) -> None:
        self._context = context
        self._ribbons = ribbons
        directions = fibonacci_sphere(DIRECTIONS)
        axes = dict(zip(("axis_u", "axis_v"), tangents(directions), strict=True)) | {"axis_d": directions}
        box = {"centre": CENTRE, "half_width": HALF_WIDTH}
        self._sky_programs, self._key_programs = (self._depth_programs(n) for n in (DIRECTIONS, 1))
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
        self.vertex_light = gl.Store(context, 7)
        self.soft_light = gl.Store(context, 8)
        self.hair_light = gl.Store(context, 10)
        self._scratch = gl.Store(context, 12)
        self._starts = gl.Store(context, 13)
        self._neighbours = gl.Store(context, 14)
        self._positions, self._indices = gl.Store(context, 11), gl.Store(context, 12)
        self._triangles: Index | None = None
        self._index_count, self._hair = 0, (0, 0)
        self.thinning = Thinning(1, 1, 1, 2)
        self.key_axes: dict[str, NDArray[np.float64]] = {}

    def _depth_programs(self, directions: int) -> tuple[Any, Any]:
        mesh, hair = (
            gl.draw_program(self._context, name, "empty", DIRECTIONS=directions)
            for name in ("depth_mesh", "depth_hair")
        )
        return mesh, hair

    def _depth_map(self, size: tuple[int, int]) -> Any:
        texture = self._context.depth_texture(size)
        texture.compare_func = ""
        texture.filter = (self._context.LINEAR, self._context.LINEAR)
        texture.repeat_x = texture.repeat_y = False
        return texture

    def bind_for_shading(self, solid: int, hair: int) -> None:
        """Binds the baked light, and the key light's two depth maps to texture units."""
        self._maps[2].use(solid)
        self._maps[3].use(hair)
        for store in (self.vertex_light, self.soft_light, self.hair_light):
            store.bind()

    def set_head(self, head: HeadGeometry) -> None:
        """The head whose light is baked; the skin's neighbours are computed again only when its triangles change."""
        self._positions.write([head.occluder.vertices])
        self._indices.write([head.occluder.triangles])
        self._index_count, self._hair = head.occluder.triangles.size, head.hair.shape[:2]
        triangles = head.skin.triangles
        if self._triangles is None or not np.array_equal(triangles, self._triangles):
            starts, neighbours = neighbour_lists(triangles, len(head.skin.vertices))
            self._starts.write([starts])
            self._neighbours.write([neighbours])
        self._triangles = triangles
        self._draw_depth(0, self._sky_programs, DIRECTIONS)

    def _draw_depth(self, first: int, programs: tuple[Any, Any], instances: int) -> None:
        """Fills two depth maps, `first` with the occluder and the next one with the hair."""
        mesh, ribbons = programs
        gl.clip_to_tiles(self._context, True)
        for target in self._targets[first : first + 2]:
            target.clear(depth=1.0)
        self._targets[first].use()
        content = [(self._positions.buffer, "3f", "position")]
        array = self._context.vertex_array(mesh, content, self._indices.buffer, index_element_size=4)
        array.render(vertices=self._index_count, instances=instances)
        array.release()
        strands, points = self._hair
        if strands:
            self._targets[first + 1].use()
            thin = Thinning.of(strands, points, _OCCLUDING_STRANDS)
            gl.set_uniforms(
                ribbons, strand_points=points, ribbon_width=0.015 * thin.strand_step**0.8, **thin.uniforms
            )
            array = self._ribbons.array(ribbons, thin.strands, thin.points)
            array.render(vertices=thin.strands * (thin.points - 1) * 6, instances=instances)
        gl.clip_to_tiles(self._context, False)

    def run(self, light: Light, vertices: int, skin_vertices: int) -> None:
        """Sums the light at all vertices and strands, and diffuses it over the skin."""
        direction = light.key_direction.astype(np.float64)[None]
        u, v = tangents(direction)
        self.key_axes = {"key_u": u[0], "key_v": v[0], "key_direction": direction[0]}
        for program in self._key_programs:
            gl.set_uniforms(program, axis_u=u, axis_v=v, axis_d=direction)
        self._draw_depth(2, self._key_programs, 1)
        for unit, texture in enumerate(self._maps):
            texture.use(unit)
        gl.set_uniforms(self._transfer, sky=light.sky, **self.key_axes)
        self._sum_light(self.vertex_light, vertices, for_hair=0, hair_density=_SKIN_DENSITY)
        strands, points = self._hair
        if strands:
            self.thinning = thin = Thinning.of(strands, points, _LIT_STRANDS)
            more = {"strand_points": points, "hair_density": _HAIR_DENSITY, **thin.uniforms}
            self._sum_light(self.hair_light, thin.strands * thin.points, for_hair=1, **more)
        for store in (self.soft_light, self._scratch):
            store.reserve(skin_vertices * 16)
        self._starts.bind()
        self._neighbours.bind()
        gl.set_uniforms(self._diffuse, count=skin_vertices)
        source = self.vertex_light
        for step in range(DIFFUSION_STEPS):
            target = self.soft_light if step % 2 else self._scratch
            self._context.memory_barrier()
            source.bind(11)
            target.bind(12)
            self._diffuse.run(-(-skin_vertices // 64))
            source = target
        self._context.memory_barrier()

    def _sum_light(self, store: gl.Store, count: int, **uniforms: Any) -> None:
        """Fills a store with the light of `count` vertices or points of strands."""
        store.reserve(count * 16)
        store.bind()
        gl.set_uniforms(self._transfer, count=count, **uniforms)
        self._transfer.run(-(-count // 64))
