"""Draws a `HeadGeometry` from any camera: colour, coverage, depth, normals.

Rasterisation only finds out *which* triangle or strand segment each sample sees (a visibility buffer with
`supersample`² samples per pixel). Then compute passes sort samples by material, shade them, and filter them to pixels
(Gaussian, sd 0.45 pixel) over the background. Sorting lets every material have a program of its own, and thins the
work: a pixel that shows one smooth piece of skin is shaded at one sample per row instead of all.
Light is baked once per head (`bake.py`), so further views are cheap, and images are read back one behind the other so
that nobody waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from head3d_core.synth import gl
from head3d_core.synth.bake import HALF_WIDTH, LightBake
from head3d_core.synth.light import Light
from head3d_core.synth.types import CENTRE, SCALE, HeadGeometry
from head3d_core.utils.errors import Head3DError

WHITE = (1.0, 1.0, 1.0)
TAPER = 0.55
"""Share of a strand's width lost at its tip."""
_IN_FLIGHT = 3
_HAIR_FLAG = 1 << 31
_DEPTH_REACH = 6.0
"""Near and far plane stand this far (dm) on both sides of the head's centre."""
_MATERIALS = ("skin", "eye", "solid", "hair")
_EMPTY_LISTS = np.array([[0, 1, 1, 0]] * len(_MATERIALS), np.uint32)
"""Per material: work groups (x, y, z) and entries."""
_WRINKLED_FROM = 0.05
"""Younger skin (`Material.ageing`) is drawn by a program without wrinkles."""
Bytes = NDArray[np.uint8]
Camera = NDArray[np.floating[Any]]
"""[25] label: cam2world (OpenCV axes, world units) and intrinsics normalised by the image size."""


@dataclass(frozen=True)
class Frame:
    """One image; row 0 is the top."""

    rgb: Bytes
    """[H, W, 3] sRGB, composited over the background."""
    alpha: Bytes
    """[H, W] coverage, 255 = head."""
    depth: NDArray[np.float32] | None
    """[H, W] distance from the camera centre along the pixel's ray (EG3D's `depth`), world units; 0 where the pixel's
    middle sees nothing."""
    normals: NDArray[np.float32] | None
    """[H, W, 3] unit normals in world axes, mean over the pixel; 0 where depth is 0."""


def view_uniforms(camera: Camera) -> dict[str, Any]:
    """A camera as the shaders want it, in decimetres.

    `eye` [3] is the camera's centre. `view_projection` [4, 4] (transposed, as OpenGL stores it) maps points to clip
    space; image row 0 lies at y = -1, so nothing needs flipping. The ray through image point (u, v) in [0, 1]² is
    u `ray_x` + v `ray_y` + `ray_origin`, 1 long along the optical axis.
    """
    label = np.asarray(camera, np.float64).reshape(25)
    pose, lens = label[:16].reshape(4, 4), label[16:].reshape(3, 3)
    rotation, eye = pose[:3, :3], pose[:3, 3] / SCALE + np.asarray(CENTRE)
    distance = float(np.linalg.norm(eye - np.asarray(CENTRE)))
    near, far = max(0.5, distance - _DEPTH_REACH), distance + _DEPTH_REACH
    world_to_camera = np.eye(4)
    world_to_camera[:3, :3] = rotation.T
    world_to_camera[:3, 3] = -rotation.T @ eye
    projection = np.zeros((4, 4))
    projection[:2, :3] = 2 * lens[:2]
    projection[:2, 2] -= 1
    projection[2, 2], projection[2, 3] = (far + near) / (far - near), -2 * far * near / (far - near)
    projection[3, 2] = 1
    rays = dict(zip(("ray_x", "ray_y", "ray_origin"), (rotation @ np.linalg.inv(lens)).T, strict=True))
    return {"eye": eye, "view_projection": (projection @ world_to_camera).T, "near_far": (near, far), **rays}


class Renderer:
    """An OpenGL renderer of heads without a window.

    Args:
        size: pixels per side.
        supersample: samples per pixel side; odd, so that a pixel has a middle sample for its depth.
    Raises:
        Head3DError: no OpenGL 4.3 (the message says what to install), or an impossible size.
    """

    def __init__(self, size: int, supersample: int = 3) -> None:
        if size < 1 or supersample < 1 or supersample % 2 == 0:
            raise Head3DError(
                f"Expected size >= 1 and an odd supersample >= 1, got {size} and {supersample}."
            )
        self.size, self.context = size, gl.create_context()
        context, width = self.context, size * supersample
        self.device = str(context.info["GL_RENDERER"])
        self._ribbons = gl.Ribbons(context)
        self._bake = LightBake(context, self._ribbons)
        self._mesh_program = gl.draw_program(context, "visible_mesh", "visible")
        self._hair_program = gl.draw_program(context, "visible_hair", "visible")
        gl.set_uniforms(self._mesh_program, flag=0)
        gl.set_uniforms(self._hair_program, flag=_HAIR_FLAG, taper=TAPER)
        self._classify = gl.compute_program(context, "classify")
        variants = [(0, 0), (0, 1), (1, 0), (2, 0), (3, 0)]
        self._shaders = [gl.compute_program(context, "shade", MATERIAL=k, WRINKLES=w) for k, w in variants]
        self._resolve = [gl.compute_program(context, "resolve", SCENE=scene) for scene in (0, 1)]
        constants: dict[str, Any] = {
            "size": size,
            "width": width,
            "factor": supersample,
            "seen": 0,
            "depth": 1,
        }
        constants |= {"key_solid": 2, "key_hair": 3, "centre": CENTRE, "hair_centre": CENTRE}
        constants |= {"half_width": HALF_WIDTH, "world_scale": SCALE, "background": WHITE}
        for program in (self._classify, *self._shaders, *self._resolve):
            gl.set_uniforms(program, **constants)
        self._seen = context.texture((width, width), 1, dtype="u4")
        self._depth = context.depth_texture((width, width))
        self._depth.compare_func = ""
        self._seen.filter = self._depth.filter = (context.NEAREST, context.NEAREST)
        self._target = context.framebuffer([self._seen], self._depth)
        self._samples = context.buffer(reserve=width * width * 16)
        self._work = context.buffer(_EMPTY_LISTS)
        self._entries = context.buffer(reserve=len(_MATERIALS) * width * width * 4)
        self._frames = [context.buffer(reserve=size * size * 12) for _ in range(_IN_FLIGHT)]
        self._pending: deque[tuple[Any, bool]] = deque()
        self._submitted = 0
        slots = {
            "positions": 0,
            "normals": 1,
            "rest": 2,
            "extra": 3,
            "smooth": 4,
            "part": 5,
            "indices": 6,
            "hair": 9,
        }
        self._stores = {name: gl.Store(context, slot) for name, slot in slots.items()}

    def load(self, head: HeadGeometry, light: Light) -> None:
        """Takes a head and bakes its light; all later views show it."""
        skin, eyes, solids = head.skin, head.eyes, head.solids
        meshes = [skin, eyes, solids]
        n_skin, n_eyes, n_solid = (len(mesh.vertices) for mesh in meshes)
        starts = np.array([0, n_skin, n_skin + n_eyes], np.int32)
        content = {
            "positions": [m.vertices for m in meshes],
            "normals": [m.normals for m in meshes],
            "rest": [skin.rest, eyes.local, np.zeros((n_solid, 3), np.float32)],
            "extra": [skin.mask, np.zeros((n_eyes, 4), np.float32), solids.colour],
            "smooth": [skin.smooth_normals],
            "part": [skin.part],
            "indices": [m.triangles + k for m, k in zip(meshes, starts, strict=True)],
            "hair": [head.hair],
        }
        self._index_count, self._hair_size = 3 * sum(len(m.triangles) for m in meshes), head.hair.shape[:2]
        young, old, *others = self._shaders
        self._used = [old if head.material.ageing > _WRINKLED_FROM else young, *others]
        with self.context:  # several renderers may live in a process
            for name, arrays in content.items():
                self._stores[name].write(arrays)
            counts = {"skin_triangles": len(skin.triangles), "eye_triangles": len(eyes.triangles)}
            gl.set_uniforms(self._classify, **counts)
            for program in self._used:
                gl.set_uniforms(program, **vars(head.material))
            self._bake.set_head(head, n_skin + n_eyes + n_solid)
            self.relight(light)

    def relight(self, light: Light) -> None:
        """Lights the loaded head anew."""
        with self.context:
            baked = self._bake.run(light)
            for program in self._used:
                gl.set_uniforms(program, **vars(light) | baked)

    def draw(self, camera: Camera, scene: int | None = None, geometry: bool = False) -> Frame:
        """One view of the loaded head.

        Args:
            camera: [25] label.
            scene: seed of a textured image to stand behind; None: white.
            geometry: also depth and normals.
        """
        *_, frame = self.draw_many([camera], [scene], geometry)
        return frame

    def draw_many(
        self, cameras: Iterable[Camera], scenes: Iterable[int | None] = repeat(None), geometry: bool = False
    ) -> Iterator[Frame]:
        """Views in order, as `draw` gives them; the next ones are drawn while one is read back.

        A generator of cameras may load another head before it gives a camera.
        """
        for camera, scene in zip(cameras, scenes, strict=False):
            if len(self._pending) == _IN_FLIGHT:
                yield self._collect()
            self._submit(camera, scene, geometry)
        while self._pending:
            yield self._collect()

    def release(self) -> None:
        """Frees the OpenGL context; the renderer cannot be used afterwards."""
        self.context.release()

    def _submit(self, camera: Camera, scene: int | None, geometry: bool) -> None:
        view, frame = view_uniforms(camera), self._frames[self._submitted % _IN_FLIGHT]
        with self.context:
            self._rasterise(view)
            self._shade(view, frame, scene)
        self._pending.append((frame, geometry))
        self._submitted += 1

    def _rasterise(self, view: dict[str, Any]) -> None:
        """Draws the visibility buffer."""
        self._target.use()
        self._target.clear(depth=1.0)
        gl.set_uniforms(self._mesh_program, **view)
        positions, indices = self._stores["positions"], self._stores["indices"]
        gl.draw_mesh(self.context, self._mesh_program, positions, indices, self._index_count)
        strands, points = self._hair_size
        if strands:
            gl.set_uniforms(self._hair_program, strand_points=points, **view)
            self._ribbons.draw(self._hair_program, strands, points)

    def _shade(self, view: dict[str, Any], frame: Any, scene: int | None) -> None:
        """Shades what the visibility buffer shows and writes a frame."""
        barrier, groups = self.context.memory_barrier, -(-self.size // 8)
        self._seen.use(0)
        self._depth.use(1)
        self._work.write(_EMPTY_LISTS)
        for slot, buffer in {11: self._samples, 12: frame, 13: self._work, 14: self._entries}.items():
            buffer.bind_to_storage_buffer(slot)
        gl.set_uniforms(self._classify, **view)
        barrier()
        self._classify.run(groups, groups)
        barrier()
        for k, program in enumerate(self._used):
            gl.set_uniforms(program, **view)
            program.run_indirect(self._work, k * 16)
        resolve = self._resolve[scene is not None]
        gl.set_uniforms(resolve, scene=(scene or 0) & 0x7FFFFFFF)
        barrier()
        resolve.run(groups, groups)
        barrier()

    def _collect(self) -> Frame:
        """The oldest view under way; waits for it if need be."""
        buffer, geometry = self._pending.popleft()
        n = self.size
        with self.context:
            content = buffer.read(n * n * (12 if geometry else 4))
        planes = np.frombuffer(content, np.uint32).reshape(-1, n, n)
        rgba = planes[0].view(np.uint8).reshape(n, n, 4)
        if not geometry:
            return Frame(rgba[..., :3], rgba[..., 3], None, None)
        packed = planes[2].view(np.int8).reshape(n, n, 4)[..., :3].astype(np.float32)
        length = np.linalg.norm(packed, axis=-1, keepdims=True)
        normals = packed / np.maximum(length, 1e-6)
        return Frame(rgba[..., :3], rgba[..., 3], planes[1].view(np.float32), normals)
