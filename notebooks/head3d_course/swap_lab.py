"""The plane-swap lab without its controls: pure functions from a state to what is shown.

`swap_widget` shows nothing that is not computed here, so what the browser shows can be compared with
`show(couple, state)`. While the hand moves, the raw image is shown (64²); when it lets go, the finished one and the
similarities.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from head3d_core import ops
from head3d_core.config import PLANE_NAMES, Backend
from head3d_core.experiments import plane_swap
from head3d_core.metrics.identity_encoder import Encoder
from head3d_core.model import cameras
from head3d_core.model.generator import Generator, RawOutput
from head3d_core.model.seeds import Heads, heads_of_seeds
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.images import to_pixels

MAX_PITCH = 60.0
"""Degrees."""
MAX_SEED = 2**32 - 1
PREVIEW_SAMPLES = 12
"""Samples of each pass along a ray while the hand moves, where the compiled renderer is missing: half as many."""
HEAT_LIMIT = 0.25
"""Difference that gets the brightest colour of the heat-map, as a share of the way from black to white."""
FACE_SIDE = 40
"""Pixels per side of the frontal pictures that similarities are read from: the bars follow the hand's release."""


def _shares(given: Any) -> tuple[float, ...]:
    if isinstance(given, str):
        raise TypeError("shares are three numbers, not a text")
    return tuple(map(float, given))


_READ: dict[str, Callable[[Any], Any]] = {
    "generator_a": str,
    "seed_a": int,
    "generator_b": str,
    "seed_b": int,
}
_READ |= {"shares": _shares, "yaw": float, "pitch": float}
"""How each value of a state is read that came from a browser."""


@dataclass(frozen=True)
class LabState:
    """Everything a reader can choose."""

    generator_a: str = "face"
    """Generator of head A; it decodes and finishes the mixture."""
    seed_a: int = 0
    generator_b: str = "face"
    seed_b: int = 1
    shares: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Share of B in each plane: 0 is A's plane, 1 is B's, between them a blend."""
    yaw: float = 0.0
    """Degrees, in [-180, 180]."""
    pitch: float = 0.0
    """Degrees, in [-60, 60]."""

    def __post_init__(self) -> None:
        shares = list(self.shares)
        if len(shares) != 3 or not all(0 <= s <= 1 for s in shares):
            raise Head3DError(f"each of the three shares must be between 0 and 1, got {shares}")
        if not (0 <= self.seed_a <= MAX_SEED and 0 <= self.seed_b <= MAX_SEED):
            raise Head3DError(f"seeds must be between 0 and 2^32 - 1, got {self.seed_a} and {self.seed_b}")
        if not (abs(self.yaw) <= 180 and abs(self.pitch) <= MAX_PITCH):
            raise Head3DError(
                f"yaw must be within 180° and pitch within {MAX_PITCH:g}°, got {self.yaw:g} and {self.pitch:g}"
            )

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> LabState:
        """The state of a dictionary that came from a browser.

        Raises:
            Head3DError: values that are not numbers in their ranges.
        """
        try:
            values = {name: read(given[name]) for name, read in _READ.items()}
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise Head3DError(f"the lab's state cannot be read ({error}): reload the widget") from error
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, as `from_dict` reads it."""
        return {**vars(self), "shares": list(self.shares)}

    def camera(self) -> Tensor:
        """[1, 25]"""
        return cameras.orbit(math.radians(self.yaw), math.radians(self.pitch))


@dataclass(frozen=True)
class Couple:
    """Heads A and B, ready to be mixed."""

    G: Generator
    """A's generator."""
    G_second: Generator
    """B's generator."""
    first: Heads
    second: Heads
    encoder: Encoder | None
    faces: Tensor | None
    """[2, d] embeddings of A's and B's raw frontal pictures, each by its own generator; None without an encoder."""
    names: tuple[str, str, str]
    """Of the planes."""


@torch.no_grad()
def couple(generators: Mapping[str, Generator], state: LabState, encoder: Encoder | None = None) -> Couple:
    """Planes and embeddings of the state's two heads: what must be computed anew when a seed changes.

    Raises:
        Head3DError: an unknown generator, or two that cannot exchange planes.
    """
    for name in (state.generator_a, state.generator_b):
        if name not in generators:
            raise Head3DError(f"no generator called {name!r} here: choose one of {', '.join(generators)}")
    one, two = generators[state.generator_a], generators[state.generator_b]
    plane_swap.check_exchangeable(one, two)
    first, second = heads_of_seeds(one, [state.seed_a]), heads_of_seeds(two, [state.seed_b])
    faces = None
    if encoder is not None:
        front = cameras.orbit(0.0)
        raw = [plane_swap.look(G, h.planes, front, FACE_SIDE).raw for G, h in ((one, first), (two, second))]
        faces = torch.cat([encoder(rgb, front) for rgb in raw])
    return Couple(one, two, first, second, encoder, faces, PLANE_NAMES[one.config.render.axes])


def preview_samples(pair: Couple, backend: Backend) -> int | None:
    """`PREVIEW_SAMPLES` where the reference renders and the generators take more; None: the generators' own."""
    few = max(G.config.render.depth_resolution for G in (pair.G, pair.G_second)) <= PREVIEW_SAMPLES
    return None if few or ops.use_native(backend, pair.first.planes) else PREVIEW_SAMPLES


@dataclass(frozen=True)
class Ends:
    """Heads A and B as they are, without exchange, from one camera; each by its own generator."""

    first: RawOutput
    second: RawOutput
    samples: int | None
    """Along A's rays, per pass, if they are fewer than the generator's."""

    def pictures(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Raw pictures [R, R, 3] of A and of B."""
        return to_pixels(self.first.raw[0]), to_pixels(self.second.raw[0])


def ends(pair: Couple, camera: Tensor, backend: Backend = "auto", finished: bool = False) -> Ends:
    """A and B from a camera [1, 25]: what must be rendered anew when the camera moves.

    Args:
        finished: False: the preview that follows the hand.
    """
    preview = preview_samples(pair, backend)
    samples = None if finished else preview
    # B stands beside the mixture, nothing is measured on it: without the kernel it is drawn with a quarter of the rays.
    kernel = ops.use_native(backend, pair.second.planes)
    side = pair.G_second.config.neural_resolution // (1 if kernel else 2)
    return Ends(
        plane_swap.look(pair.G, pair.first.planes, camera, None, backend, samples),
        plane_swap.look(pair.G_second, pair.second.planes, camera, side, backend, preview),
        samples,
    )


def portraits(
    pair: Couple, state: LabState, backend: Backend = "auto"
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Finished pictures [R, R, 3] of A and B from the state's camera, each by its own generator."""
    a, b = (
        plane_swap.finish(G, head.planes, head.ws, state.camera(), backend).image
        for G, head in ((pair.G, pair.first), (pair.G_second, pair.second))
    )
    return to_pixels(a[0]), to_pixels(b[0])


@dataclass(frozen=True)
class Shown:
    """What is on the screen for a state."""

    picture: NDArray[np.uint8]
    """[R, R, 3]: raw while the hand moves, finished after it has let go."""
    heat: NDArray[np.float32]
    """[R, R]: |difference to A| from the same camera, mean over rgb, in [0, 1]."""
    similarity: tuple[float, float] | None
    """Cosine of the mixture's raw frontal face to A's and to B's; None while the hand moves, or without an encoder."""
    ends: Ends
    """A and B from this camera: give them to the next `show` if the camera stays."""


@torch.no_grad()
def show(
    pair: Couple,
    state: LabState,
    finished: bool = True,
    beside: Ends | None = None,
    backend: Backend = "auto",
) -> Shown:
    """What a state looks like.

    Args:
        pair: of the state's seeds and generators.
        finished: False: the raw preview, without similarities.
        beside: A and B from the state's camera if they are known.
    """
    G, camera = pair.G, state.camera()
    mixed, ws = plane_swap.mix(pair.first, pair.second, state.shares)
    samples = None if finished else preview_samples(pair, backend)
    if beside is None or beside.samples != samples:  # differences are taken between pictures of one quality
        beside = ends(pair, camera, backend, finished)
    if not finished:
        rgb = plane_swap.look(G, mixed, camera, None, backend, samples).raw
        return Shown(to_pixels(rgb[0]), _heat(rgb, beside.first), None, beside)
    seen = plane_swap.finish(G, mixed, ws, camera, backend)
    similarity = None
    if pair.encoder is not None and pair.faces is not None:
        front = cameras.orbit(0.0)
        frontal = plane_swap.look(G, mixed, front, FACE_SIDE, backend).raw
        cosine = pair.faces @ pair.encoder(frontal, front)[0]
        similarity = (float(cosine[0]), float(cosine[1]))
    return Shown(to_pixels(seen.image[0]), _heat(seen.raw, beside.first), similarity, beside)


def _heat(rgb: Tensor, plain: RawOutput) -> NDArray[np.float32]:
    difference: NDArray[np.float32] = ((rgb - plain.raw).abs().mean(1)[0] / 2).clamp(0, 1).cpu().numpy()
    return difference
