"""Faces of the compiled operators `torch.ops.head3d.*`, and the choice between them and the reference."""

from __future__ import annotations

from torch import Tensor

from head3d_core.config import Backend, RenderOptions
from head3d_core.errors import Head3DError


def available() -> bool:
    """True if the compiled extension is loaded."""
    return False


def instruction_set() -> str:
    """The CPU path that the extension chose: "avx512", "avx2", "neon" or "scalar"; "none" without it."""
    return "none"


def use_native(backend: Backend, *tensors: Tensor) -> bool:
    """Whether the compiled operator serves this call.

    Raises Head3DError for an unknown backend, or for "native" without the extension.
    """
    if backend not in ("auto", "reference", "native"):
        raise Head3DError(f'backend must be "auto", "reference" or "native", got {backend!r}')
    if backend == "native" and not available():
        raise Head3DError(
            'backend="native" needs the compiled extension, which is not built: install a C++ compiler and run `make venv`, or use backend="auto"'
        )
    return backend != "reference" and available()


def sample_planes(planes: Tensor, points: Tensor, *, axes: str, box_warp: float) -> Tensor:
    """Native twin of `planes.sample_planes`."""
    raise Head3DError("the compiled extension is not built")


def query_planes(
    planes: Tensor, w0: Tensor, b0: Tensor, w1: Tensor, b1: Tensor, points: Tensor, *, axes: str, box_warp: float
) -> tuple[Tensor, Tensor]:
    """Native twin of `planes.query`."""
    raise Head3DError("the compiled extension is not built")


def render_rays(
    planes: Tensor,
    w0: Tensor,
    b0: Tensor,
    w1: Tensor,
    b1: Tensor,
    ray_origins: Tensor,
    ray_directions: Tensor,
    near: Tensor,
    far: Tensor,
    seeds: Tensor | None,
    options: RenderOptions,
) -> tuple[Tensor, Tensor, Tensor]:
    """Native twin of `volume.render_rays`: features [N, R, F], depth [N, R] (+inf: nothing met), opacity [N, R]."""
    raise Head3DError("the compiled extension is not built")
