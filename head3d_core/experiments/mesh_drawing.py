"""Coloured meshes as pictures with depth, from any camera label: plain OpenGL, no light of its own.

The parametric head models carry their light in their colours (as scanned textures do), so nothing is shaded here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from head3d_core.experiments.head_scans import Views
from head3d_core.synth import gl
from head3d_core.synth.renderer import View
from head3d_core.synth.types import CENTRE, SCALE
from head3d_core.utils.errors import Head3DError

FACTOR = 3
"""Samples per pixel side; odd, so that a pixel has a middle sample for its depth."""
_VERTEX = """#version 430
uniform mat4 view_projection;
in vec3 position;
in vec3 colour;
out vec3 shown;
out vec3 place;
void main() {
    shown = colour;
    place = position;
    gl_Position = view_projection * vec4(position, 1.0);
}
"""
_FRAGMENT = """#version 430
uniform vec3 eye;
in vec3 shown;
in vec3 place;
layout(location = 0) out vec4 colour;
layout(location = 1) out float distance_seen;
void main() {
    colour = vec4(shown, 1.0);
    distance_seen = distance(eye, place);
}
"""


@dataclass(frozen=True)
class Surface:
    """A coloured triangle mesh."""

    vertices: NDArray[np.float32]
    """[V, 3] world units."""
    triangles: NDArray[np.int32]
    """[T, 3]"""
    colours: NDArray[np.float32]
    """[V, 3] sRGB in [0, 1]."""

    def check(self) -> None:
        """Raises Head3DError unless shapes fit, numbers are finite and triangles point at vertices."""
        if (
            self.vertices.shape != self.colours.shape
            or self.vertices.ndim != 2
            or self.vertices.shape[1] != 3
        ):
            raise Head3DError(
                f"a surface needs vertices and colours [V, 3], got {self.vertices.shape} and {self.colours.shape}"
            )
        if not (np.isfinite(self.vertices).all() and np.isfinite(self.colours).all()):
            raise Head3DError("a surface has vertices or colours that are not finite: its model has diverged")
        if len(self.triangles) == 0 or not 0 <= self.triangles.min() <= self.triangles.max() < len(
            self.vertices
        ):
            raise Head3DError("a surface needs triangles between its own vertices, got none or others")


class Drawer:
    """An OpenGL context that draws surfaces; use it through `drawer`.

    Args:
        size: pixels per side.
    """

    def __init__(self, size: int, backend: str = "egl") -> None:
        self.size, self.width = size, size * FACTOR
        self.context = gl.create_context(backend)
        with self.context:
            self._program = self.context.program(vertex_shader=_VERTEX, fragment_shader=_FRAGMENT)
            shape = (self.width, self.width)
            self._colour = self.context.texture(shape, 4, dtype="f1")
            self._distance = self.context.texture(shape, 1, dtype="f4")
            self._target = self.context.framebuffer(
                [self._colour, self._distance], self.context.depth_renderbuffer(shape)
            )

    def draw(self, surface: Surface, cameras: NDArray[np.floating[Any]]) -> Views:
        """A surface over white from every camera label [N, 25].

        Raises:
            Head3DError: a broken surface or label.
        """
        surface.check()
        with self.context:
            data = np.concatenate([surface.vertices, surface.colours], 1).astype("f4")
            vertices = self.context.buffer(data.tobytes())
            indices = self.context.buffer(np.ascontiguousarray(surface.triangles, "i4").tobytes())
            array = self.context.vertex_array(
                self._program, [(vertices, "3f 3f", "position", "colour")], indices, index_element_size=4
            )
            frames = [self._frame(array, camera) for camera in cameras]
            for thing in (array, indices, vertices):
                thing.release()
        rgb, mask, depth = (np.stack(parts) for parts in zip(*frames, strict=True))
        return Views(np.asarray(cameras, np.float32), rgb, mask, depth)

    def _frame(
        self, array: Any, camera: NDArray[np.floating[Any]]
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32]]:
        view = View.of(camera)
        to_mesh = np.eye(4)  # `View` counts in decimetres of the base mesh
        to_mesh[:3, :3] /= SCALE
        to_mesh[:3, 3] = CENTRE
        gl.set_uniforms(
            self._program,
            view_projection=np.ascontiguousarray((view.view_projection @ to_mesh).T),
            eye=tuple((view.eye - np.asarray(CENTRE)) * SCALE),
        )
        self._target.use()
        self._target.clear(1.0, 1.0, 1.0, 0.0)
        array.render()
        n, k = self.size, FACTOR
        fine = np.frombuffer(self._colour.read(), np.uint8).reshape(n, k, n, k, 4)
        distance = np.frombuffer(self._distance.read(), np.float32).reshape(n, k, n, k)[:, k // 2, :, k // 2]
        covered = fine[:, k // 2, :, k // 2, 3] > 0
        mean = fine.astype(np.float32).mean((1, 3))
        return (
            mean[..., :3].round().astype(np.uint8),
            mean[..., 3].round().astype(np.uint8),
            np.where(covered, distance, 0).astype(np.float32),
        )


@contextmanager
def drawer(size: int) -> Iterator[Drawer]:
    """A `Drawer` for the length of a block. Raises Head3DError without OpenGL."""
    made = Drawer(size)
    try:
        yield made
    finally:
        made.context.release()


def draw_all(surfaces: Sequence[Surface], cameras: NDArray[np.floating[Any]], size: int) -> list[Views]:
    """`Views` of every surface from the same cameras [N, 25]."""
    with drawer(size) as pen:
        return [pen.draw(surface, cameras) for surface in surfaces]
