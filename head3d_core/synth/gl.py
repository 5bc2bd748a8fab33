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
_GL_CLIP_DISTANCE0 = 0x3000
INSTALL_HINT = (
    "pip install moderngl, and a driver with EGL (NVIDIA's, or on Debian and Ubuntu: "
    "apt install libegl1 libgl1 libegl-mesa0 libgl1-mesa-dri)"
)


def create_context(backend: str = "egl") -> Any:
    """A moderngl context of OpenGL 4.3 or newer.

    Args:
        backend: moderngl's back end on Linux; "egl" needs no display. Elsewhere the system's own is taken.

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
        options: dict[str, Any] = {"backend": backend} if sys.platform == "linux" else {}
        context = moderngl.create_standalone_context(require=430, **options)
    except Exception as error:  # moderngl raises bare Exception for every driver problem
        raise Head3DError(
            f"Drawing heads needs OpenGL 4.3 without a window ({backend}), but this machine gave: {error}; "
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


def clip_to_tiles(context: Any, on: bool) -> None:
    """Switches the four clip planes of an atlas tile on or off."""
    for k in range(4):
        (context.enable_direct if on else context.disable_direct)(_GL_CLIP_DISTANCE0 + k)


class Store:
    """A GPU buffer that grows."""

    def __init__(self, context: Any, binding: int) -> None:
        self._context = context
        self._binding = binding
        self.buffer = context.buffer(reserve=4096)
        self.generation = 0

    def reserve(self, size: int) -> None:
        """Makes room for `size` bytes; the content is lost when it grows."""
        if size > self.buffer.size:
            self.buffer.release()
            self.buffer = self._context.buffer(reserve=size + size // 2)
            self.generation += 1

    def write(self, arrays: list[NDArray[Any]]) -> None:
        """Puts arrays one behind the other."""
        self.reserve(sum(a.nbytes for a in arrays))
        self.buffer.orphan()  # nothing is kept: the driver need not wait until the last head is drawn
        offset = 0
        for array in arrays:
            if array.nbytes:
                self.buffer.write(np.ascontiguousarray(array), offset=offset)
            offset += array.nbytes

    def bind(self, binding: int | None = None) -> None:
        """Binds to its shader-storage slot (or another)."""
        self.buffer.bind_to_storage_buffer(self._binding if binding is None else binding)
