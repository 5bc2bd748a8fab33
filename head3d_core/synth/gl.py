"""OpenGL without a window: context, shader files, growing buffers.

moderngl is imported when a context is asked for, so that everything else in the package works without it.
"""

from __future__ import annotations

import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from head3d_core.utils.errors import Head3DError

SHADERS = Path(__file__).parent / "shaders"
_INCLUDE = re.compile(r'^#include "([^"]+)"$', re.MULTILINE)
INSTALL_HINT = (
    "pip install moderngl, and a driver with EGL (NVIDIA's, or on Debian and Ubuntu: "
    "apt install libegl1 libgl1 libegl-mesa0 libgl1-mesa-dri)"
)


def create_context() -> Any:
    """A moderngl context of OpenGL 4.3 or newer: on Linux through EGL, which needs no display.

    Raises:
        Head3DError: moderngl is not installed, or the machine offers no such context.
    """
    try:
        import moderngl
    except ImportError as error:
        raise Head3DError(
            f"Drawing heads needs OpenGL through moderngl, which is missing: {INSTALL_HINT}."
        ) from error
    try:
        options: dict[str, Any] = {"backend": "egl"} if sys.platform == "linux" else {}
        context = moderngl.create_standalone_context(require=430, **options)
    except Exception as error:  # moderngl raises bare Exception for every driver problem
        raise Head3DError(
            f"Drawing heads needs OpenGL 4.3 without a window (EGL), but this machine gave: {error}; "
            f"install {INSTALL_HINT}."
        ) from error
    context.enable(moderngl.DEPTH_TEST)
    context.disable(moderngl.CULL_FACE)
    return context


@cache
def shader_source(name: str) -> str:
    """Text of `shaders/<name>` with its includes put in place."""
    text = (SHADERS / name).read_text(encoding="utf-8")
    return _INCLUDE.sub(lambda found: shader_source(found.group(1)), text)


def _source(name: str, defines: dict[str, int]) -> str:
    lines = "".join(f"#define {key} {value}\n" for key, value in defines.items())
    return f"#version 430\n{lines}{shader_source(name)}"


def draw_program(context: Any, vertex: str, fragment: str, **defines: int) -> Any:
    """A program from `shaders/<vertex>.vert.glsl` and `shaders/<fragment>.frag.glsl`."""
    return context.program(
        vertex_shader=_source(f"{vertex}.vert.glsl", defines),
        fragment_shader=_source(f"{fragment}.frag.glsl", defines),
    )


def compute_program(context: Any, name: str, **defines: int) -> Any:
    """A compute program from `shaders/<name>.comp.glsl`."""
    return context.compute_shader(_source(f"{name}.comp.glsl", defines))


def set_uniforms(program: Any, **values: Any) -> None:
    """Sets the uniforms that the compiler kept; arrays are given as float arrays."""
    for name, value in values.items():
        if name not in program:
            continue
        member = program[name]
        if isinstance(value, np.ndarray):
            member.write(np.ascontiguousarray(value, np.float32).tobytes())
        else:
            member.value = value


class Store:
    """A GPU buffer that grows, at a shader-storage slot."""

    def __init__(self, context: Any, binding: int) -> None:
        self._context, self._binding = context, binding
        self.buffer = context.buffer(reserve=4096)

    def reserve(self, size: int) -> None:
        """Makes room for `size` bytes; the content is lost when it grows."""
        if size > self.buffer.size:
            self.buffer.release()
            self.buffer = self._context.buffer(reserve=size + size // 2)
        self.bind()

    def write(self, arrays: list[NDArray[Any]]) -> None:
        """Puts arrays one behind the other."""
        self.reserve(sum(a.nbytes for a in arrays))
        self.buffer.orphan()  # nothing is kept: the driver need not wait until the last head is drawn
        offset = 0
        for array in filter(np.size, arrays):
            self.buffer.write(np.ascontiguousarray(array), offset=offset)
            offset += array.nbytes

    def bind(self, binding: int | None = None) -> None:
        """Binds to its shader-storage slot (or another)."""
        self.buffer.bind_to_storage_buffer(self._binding if binding is None else binding)


def draw_mesh(
    context: Any, program: Any, positions: Store, indices: Store, count: int, instances: int = 1
) -> None:
    """Draws the triangles of `count` indices into positions [V, 3]."""
    content = [(positions.buffer, "3f", "position")]
    array = context.vertex_array(program, content, indices.buffer, index_element_size=4)
    array.render(vertices=count, instances=instances)
    array.release()


class Ribbons:
    """Draws strands as ribbons. Index buffers are kept by number of points: they serve fewer strands too."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._arrays: dict[tuple[Any, int], tuple[int, Any]] = {}

    def draw(self, program: Any, strands: int, points: int, instances: int = 1) -> None:
        """Draws the ribbons of `strands` > 0 with `points` each, which the vertex shader places."""
        room, array = self._arrays.get((program, points), (0, None))
        if room < strands:
            room = 1 << (strands - 1).bit_length()
            buffer = self._context.buffer(_ribbon_indices(room, points))
            array = self._context.vertex_array(program, [], buffer, index_element_size=4)
            self._arrays[program, points] = (room, array)
        array.render(vertices=strands * (points - 1) * 6, instances=instances)


def _ribbon_indices(strands: int, points: int) -> NDArray[np.int32]:
    """[strands * (points - 1) * 6] two triangles per segment, two vertices per point."""
    segment = (np.arange(strands)[:, None] * points + np.arange(points - 1)).reshape(-1, 1) * 2
    return (segment + np.array([0, 1, 2, 2, 1, 3])).astype(np.int32).ravel()
