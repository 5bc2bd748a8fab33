"""From visible samples to pixels, in compute passes: sort by material, shade, filter.

Sorting first lets every material have a program of its own. It also thins the work: a pixel that shows one smooth
piece of skin is shaded at one sample per row instead of all.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from head3d_core.synth import gl
from head3d_core.synth.bake import HALF_WIDTH
from head3d_core.synth.light import Light
from head3d_core.synth.types import CENTRE, SCALE, Material

_MATERIALS = ("skin", "eye", "solid", "hair")
_EMPTY_LISTS = np.array([[0, 1, 1, 0]] * len(_MATERIALS), np.uint32)
"""Per material: work groups (x, y, z) and entries."""
_WRINKLED_FROM = 0.05
"""Younger skin (`Material.ageing`) is drawn by a program without wrinkles."""


class Shading:
    """Programs and buffers that turn the visibility buffer into images.

    Args:
        size: pixels per side.
        factor: samples per pixel side.
    """

    def __init__(self, context: Any, size: int, factor: int) -> None:
        self._context = context
        self._size = size
        width = size * factor
        self._classify = gl.compute_program(context, "classify")
        self._young, self._old = (
            gl.compute_program(context, "shade", MATERIAL=0, WRINKLES=wrinkles) for wrinkles in (0, 1)
        )
        self._others = [gl.compute_program(context, "shade", MATERIAL=k, WRINKLES=0) for k in (1, 2, 3)]
        self._resolve = {
            scene: gl.compute_program(context, "resolve", SCENE=int(scene)) for scene in (False, True)
        }
        self._skin = self._young
        self._shaders = [self._young, self._old, *self._others]
        for program in (self._classify, *self._shaders, *self._resolve.values()):
            gl.set_uniforms(program, size=size, width=width, factor=factor, seen=0, depth=1)
        constants = {
            "key_solid": 2,
            "key_hair": 3,
            "centre": CENTRE,
            "half_width": HALF_WIDTH,
            "hair_centre": CENTRE,
        }
        self._set(world_scale=SCALE, **constants)
        self._samples = context.buffer(reserve=width * width * 16)
        self._work = context.buffer(_EMPTY_LISTS)
        self._entries = context.buffer(reserve=len(_MATERIALS) * width * width * 4)

    def _set(self, **values: Any) -> None:
        for program in self._shaders:
            gl.set_uniforms(program, **values)

    def set_light(self, light: Light, **baked: Any) -> None:
        """The light, and what its bake left: the key light's axes and how strands were thinned."""
        self._set(sky=light.sky, key_colour=light.key_colour, exposure=light.exposure, **baked)

    def set_counts(self, skin_triangles: int, eye_triangles: int) -> None:
        """Where in the merged mesh the materials change."""
        gl.set_uniforms(self._classify, skin_triangles=skin_triangles, eye_triangles=eye_triangles)

    def set_material(self, m: Material) -> None:
        """Colours and surface parameters of the head."""
        self._skin = self._old if m.ageing > _WRINKLED_FROM else self._young
        self._set(**vars(m))

    def run(
        self,
        frame: Any,
        background: tuple[float, float, float],
        scene: int | None,
        near_far: tuple[float, float],
        **view: Any,
    ) -> None:
        """Shades what the visibility buffer (texture units 0 and 1) shows and writes a frame.

        `view` holds eye, ray_x, ray_y and ray_origin as the shaders name them.
        """
        barrier = self._context.memory_barrier
        self._work.write(_EMPTY_LISTS)
        self._samples.bind_to_storage_buffer(11)
        self._work.bind_to_storage_buffer(13)
        self._entries.bind_to_storage_buffer(14)
        gl.set_uniforms(self._classify, near_far=near_far)
        barrier()
        groups = -(-self._size // 8)
        self._classify.run(groups, groups)
        barrier()
        for k, program in enumerate((self._skin, *self._others)):
            gl.set_uniforms(program, near_far=near_far, **view)
            program.run_indirect(self._work, k * 16)
        frame.bind_to_storage_buffer(12)
        resolve = self._resolve[scene is not None]
        gl.set_uniforms(resolve, background=background, scene=(scene or 0) & 0x7FFFFFFF)
        barrier()
        resolve.run(groups, groups)
        barrier()
