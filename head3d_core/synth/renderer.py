"""Draws a `HeadGeometry` from any camera: colour, coverage, depth, normals.

Three passes per view. Rasterisation only finds out *which* triangle or strand segment each sample sees (a
visibility buffer with `supersample`² samples per pixel); a compute pass shades every sample once; a second one
filters samples to pixels (Gaussian, sd 0.45 pixel) over the background. Light is baked once per head (`bake.py`),
so further views are cheap, and images are read back one behind the other so that nobody waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from head3d_core.synth import gl
from head3d_core.synth.bake import LightBake, RibbonIndices
from head3d_core.synth.light import Light
from head3d_core.synth.shading import Shading
from head3d_core.synth.types import CENTRE, SCALE, HeadGeometry
from head3d_core.utils.errors import Head3DError

WHITE = (1.0, 1.0, 1.0)
TAPER = 0.55
"""Share of a strand's width lost at its tip."""
_IN_FLIGHT = 3
_HAIR_FLAG = 1 << 31
_DEPTH_REACH = 6.0
"""Near and far plane stand this far (dm) on both sides of the head's centre."""
Bytes = NDArray[np.uint8]


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


@dataclass(frozen=True)
class View:
    """A camera label as the shaders want it, in decimetres."""

    eye: NDArray[np.float64]
    """[3] camera centre."""
    view_projection: NDArray[np.float64]
    """[4, 4] maps points to clip space; image row 0 lies at y = -1, so nothing needs flipping."""
    rays: NDArray[np.float64]
    """[3, 3] columns a, b, c: the ray through image point (u, v) in [0, 1]² is a u + b v + c, 1 long along the axis."""
    near_far: tuple[float, float]

    @staticmethod
    def of(camera: NDArray[np.floating[Any]]) -> View:
        """From 25 numbers: cam2world (OpenCV axes, world units) and intrinsics normalised by the image size."""
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
        rays = rotation @ np.linalg.inv(lens)
        return View(eye, projection @ world_to_camera, rays, (near, far))


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
        self.size = size
        self.width = size * supersample
        self.context = context = gl.create_context()
        self.device = str(context.info["GL_RENDERER"])
        self._ribbons = RibbonIndices(context)
        self._bake = LightBake(context, self._ribbons)
        self._mesh_program = gl.draw_program(context, "visible_mesh", "visible")
        self._hair_program = gl.draw_program(context, "visible_hair", "visible")
        self._shading = Shading(context, size, supersample)
        gl.set_uniforms(self._mesh_program, flag=0)
        gl.set_uniforms(self._hair_program, flag=_HAIR_FLAG, taper=TAPER)
        self._seen = context.texture((self.width, self.width), 1, dtype="u4")
        self._seen.filter = (context.NEAREST, context.NEAREST)
        self._depth = context.depth_texture((self.width, self.width))
        self._depth.compare_func = ""
        self._depth.filter = (context.NEAREST, context.NEAREST)
        self._target = context.framebuffer([self._seen], self._depth)
        self._frames = [context.buffer(reserve=size * size * 12) for _ in range(_IN_FLIGHT)]
        self._pending: deque[tuple[Any, bool]] = deque()
        self._submitted = 0
        names = ("positions", "normals", "rest", "extra", "smooth", "part", "indices")
        self._stores = {name: gl.Store(context, binding) for binding, name in enumerate(names)}
        self._hair = gl.Store(context, 9)
        self._mesh_array: tuple[tuple[int, int], Any] | None = None
        self._hair_size = (0, 0)
        self._counts = (0, 0, 0, 0)

    def load(self, head: HeadGeometry, light: Light) -> None:
        """Takes a head and bakes its light; all later views show it."""
        skin, eyes, solids = head.skin, head.eyes, head.solids
        meshes = [skin, eyes, solids]
        n_skin, n_eyes, n_solid = (len(mesh.vertices) for mesh in meshes)
        with self.context:  # several renderers may live in a process
            store = self._stores
            store["positions"].write([m.vertices for m in meshes])
            store["normals"].write([m.normals for m in meshes])
            store["rest"].reserve((n_skin + n_eyes + n_solid) * 12)
            store["rest"].write([skin.rest, eyes.local])
            store["extra"].write([skin.mask, np.zeros((n_eyes, 4), np.float32), solids.colour])
            store["smooth"].write([skin.smooth_normals])
            store["part"].write([skin.part])
            starts = np.array([0, n_skin, n_skin + n_eyes], np.int32)
            store["indices"].write([m.triangles + k for m, k in zip(meshes, starts, strict=True)])
            self._hair.write([head.hair])
            triangles = sum(len(m.triangles) for m in meshes)
            self._hair_size = head.hair.shape[:2]
            self._counts = (n_skin, n_eyes, n_skin + n_eyes + n_solid, triangles)
            self._bind()
            self._bake.set_head(head)
            self._shading.set_material(head.material)
            self._shading.set_counts(len(skin.triangles), len(eyes.triangles))
            self.relight(light)

    def relight(self, light: Light) -> None:
        """Lights the loaded head anew."""
        with self.context:
            self._bind()
            self._bake.run(light, self._counts[2], self._counts[0])
            thin = self._bake.thinning
            hair = {"strand_points": self._hair_size[1], "kept_strands": thin.strands, **thin.uniforms}
            self._shading.set_light(light, **hair, **self._bake.key_axes)

    def submit(
        self,
        camera: NDArray[np.floating[Any]],
        background: tuple[float, float, float] = WHITE,
        scene: int | None = None,
        geometry: bool = False,
    ) -> None:
        """Starts a view; `collect` returns views in the order they were started, at most three may wait.

        Args:
            camera: [25] label.
            background: sRGB in [0, 1].
            scene: seed of a textured image to stand behind instead.
            geometry: also depth and normals.
        """
        view = View.of(camera)
        with self.context:
            self._bind()
            self._rasterise(view)
            self._seen.use(0)
            self._depth.use(1)
            self._bake.bind_for_shading(2, 3)
            frame = self._frames[self._submitted % _IN_FLIGHT]
            x, y, origin = view.rays.T
            self._shading.run(
                frame,
                background,
                scene,
                view.near_far,
                eye=tuple(view.eye),
                ray_x=x,
                ray_y=y,
                ray_origin=origin,
            )
        self._pending.append((frame, geometry))
        self._submitted += 1

    def collect(self) -> Frame:
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

    def draw(
        self,
        camera: NDArray[np.floating[Any]],
        background: tuple[float, float, float] = WHITE,
        scene: int | None = None,
        geometry: bool = False,
    ) -> Frame:
        """One view, waited for; arguments as `submit`."""
        self.submit(camera, background, scene, geometry)
        while len(self._pending) > 1:
            self.collect()
        return self.collect()

    def draw_many(
        self, cameras: Iterable[NDArray[np.floating[Any]]], geometry: bool = False
    ) -> Iterator[Frame]:
        """Views of the loaded head, in order; the next ones are drawn while one is read back."""
        for camera in cameras:
            if len(self._pending) == _IN_FLIGHT:
                yield self.collect()
            self.submit(camera, geometry=geometry)
        while self._pending:
            yield self.collect()

    def release(self) -> None:
        """Frees the OpenGL context; the renderer cannot be used afterwards."""
        self.context.release()

    def _rasterise(self, view: View) -> None:
        matrix = np.ascontiguousarray(view.view_projection.T)
        self._target.use()
        self._target.clear(depth=1.0)
        gl.set_uniforms(self._mesh_program, view_projection=matrix)
        self._view_array().render(vertices=self._counts[3] * 3)
        strands, points = self._hair_size
        if strands:
            moved = {"view_projection": matrix, "eye": tuple(view.eye), "strand_points": points}
            gl.set_uniforms(self._hair_program, **moved)
            array = self._ribbons.array(self._hair_program, strands, points)
            array.render(vertices=strands * (points - 1) * 6)

    def _view_array(self) -> Any:
        """Vertex array of the merged mesh; made again when one of its buffers had to grow."""
        positions, indices = self._stores["positions"], self._stores["indices"]
        state = (positions.generation, indices.generation)
        if self._mesh_array is None or self._mesh_array[0] != state:
            content = [(positions.buffer, "3f", "position")]
            array = self.context.vertex_array(
                self._mesh_program, content, indices.buffer, index_element_size=4
            )
            self._mesh_array = (state, array)
        return self._mesh_array[1]

    def _bind(self) -> None:
        for store in (*self._stores.values(), self._hair):
            store.bind()
