"""The plane-swap lab: two heads, a slider per plane, a picture that is turned by dragging it.

Pure functions lead from a state to what is shown, so what the browser shows (`swap_lab.js`) can be compared with
`show(couple, state)`. While the hand moves, the raw image is shown (64²); when it lets go, the finished one and the
similarities.
"""

from __future__ import annotations

import base64
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from head3d_core import ops
from head3d_core.config import PLANE_NAMES, Backend
from head3d_core.course.widgets import to_png
from head3d_core.experiments import plane_swap
from head3d_core.experiments.plane_swap import View
from head3d_core.metrics.identity_encoder import Encoder
from head3d_core.model import cameras
from head3d_core.model.generator import Generator
from head3d_core.model.seeds import PSI, Heads, heads_of_seeds
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.images import to_pixels

MAX_PITCH = 60.0
"""Degrees."""
PREVIEW_SAMPLES = 12
"""Samples of each pass along a ray while the hand moves, where the compiled renderer is missing: half as many."""
HEAT_LIMIT = 0.25
"""Difference that gets the brightest colour of the heat-map, as a share of the way from black to white."""
FACE_SIDE = 40
"""Pixels per side of the frontal pictures that similarities are read from: the bars follow the hand's release."""


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
        if not (0 <= self.seed_a < 2**32 and 0 <= self.seed_b < 2**32):
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
            if isinstance(given["shares"], str):
                raise TypeError("shares are three numbers, not a text")
            shares = tuple(float(s) for s in given["shares"])
            return cls(
                str(given["generator_a"]),
                int(given["seed_a"]),
                str(given["generator_b"]),
                int(given["seed_b"]),
                shares,  # type: ignore[arg-type]
                float(given["yaw"]),
                float(given["pitch"]),
            )
        except Head3DError:  # a value out of its range, already in words
            raise
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise Head3DError(f"the lab's state cannot be read ({error}): reload the widget") from error

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
def couple(
    generators: Mapping[str, Generator],
    state: LabState,
    encoder: Encoder | None = None,
    truncation_psi: float = PSI,
) -> Couple:
    """Planes and embeddings of the state's two heads: what must be computed anew when a seed changes.

    Raises:
        Head3DError: an unknown generator, or two that cannot exchange planes.
    """
    for name in (state.generator_a, state.generator_b):
        if name not in generators:
            raise Head3DError(f"no generator called {name!r} here: choose one of {', '.join(generators)}")
    one, two = generators[state.generator_a], generators[state.generator_b]
    plane_swap.check_exchangeable(one, two)
    first = heads_of_seeds(one, [state.seed_a], truncation_psi)
    second = heads_of_seeds(two, [state.seed_b], truncation_psi)
    faces = None
    if encoder is not None:
        front = cameras.orbit(0.0)
        raw = [plane_swap.look(G, h.planes, front, FACE_SIDE).rgb for G, h in ((one, first), (two, second))]
        faces = torch.cat([encoder(rgb, front) for rgb in raw])
    return Couple(one, two, first, second, encoder, faces, PLANE_NAMES[one.config.render.axes])


def preview_samples(pair: Couple, backend: Backend) -> int | None:
    """`PREVIEW_SAMPLES` where the reference renders and the generators take more; None: the generators' own."""
    few = max(G.config.render.depth_resolution for G in (pair.G, pair.G_second)) <= PREVIEW_SAMPLES
    return None if few or ops.use_native(backend, pair.first.planes) else PREVIEW_SAMPLES


@dataclass(frozen=True)
class Ends:
    """Heads A and B as they are, without exchange, from one camera; each by its own generator."""

    first: View
    second: View
    samples: int | None
    """Along A's rays, per pass, if they are fewer than the generator's."""

    def pictures(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Raw pictures [R, R, 3] of A and of B."""
        return to_pixels(self.first.rgb[0]), to_pixels(self.second.rgb[0])


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
        plane_swap.picture(G, head.planes, head.ws, state.camera(), backend)
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
        rgb = plane_swap.look(G, mixed, camera, None, backend, samples).rgb
        return Shown(to_pixels(rgb[0]), _heat(rgb, beside.first), None, beside)
    raw, image = plane_swap.raw_and_picture(G, mixed, ws, camera, backend)
    similarity = None
    if pair.encoder is not None and pair.faces is not None:
        front = cameras.orbit(0.0)
        frontal = plane_swap.look(G, mixed, front, FACE_SIDE, backend).rgb
        cosine = pair.faces @ pair.encoder(frontal, front)[0]
        similarity = (float(cosine[0]), float(cosine[1]))
    return Shown(to_pixels(image[0]), _heat(raw.rgb, beside.first), similarity, beside)


def _heat(rgb: Tensor, plain: View) -> NDArray[np.float32]:
    difference: NDArray[np.float32] = ((rgb - plain.rgb).abs().mean(1)[0] / 2).clamp(0, 1).cpu().numpy()
    return difference


# --- the widget -------------------------------------------------------------------------------------------------------


@functools.cache
def _cividis() -> NDArray[np.uint8]:
    """[256, 3]: dark blue to yellow, told apart under every common colour-vision deficiency."""
    import matplotlib as mpl

    table: NDArray[np.uint8] = (
        (mpl.colormaps["cividis"](np.arange(256))[:, :3] * 255).round().astype(np.uint8)
    )
    return table


def heat_picture(heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Differences [R, R] in [0, 1] as a picture [R, R, 3] uint8; `HEAT_LIMIT` and more is the brightest."""
    return _cividis()[(np.clip(heat / HEAT_LIMIT, 0, 1) * 255).round().astype(np.int64)]


def legend_picture() -> NDArray[np.uint8]:
    """[1, 256, 3] uint8: the colours of the heat-map, from no difference to `HEAT_LIMIT`."""
    return heat_picture(np.linspace(0, HEAT_LIMIT, 256, dtype=np.float32)[None])


def heat_words(heat: NDArray[np.float32]) -> str:
    """The heat-map in numbers, for its caption and its alt text; 100 % would be black against white."""
    return f"differs from A by {100 * heat.mean():.1f} %, at most {100 * heat.max():.0f} %"


def _base64(pixels: NDArray[np.uint8]) -> str:
    return base64.b64encode(to_png(pixels)).decode()


def message(shown: Shown, state: LabState, names: tuple[str, str, str], finished: bool) -> dict[str, Any]:
    """What is sent to the browser for a state: two PNGs in base64, what they show in words, and the similarities."""
    parts = [
        f"F_{n} {'of A' if s == 0 else 'of B' if s == 1 else f'{s:.0%} of B'}"
        for n, s in zip(names, state.shares, strict=True)
    ]
    return {
        "picture": _base64(shown.picture),
        "heat": _base64(heat_picture(shown.heat)),
        "heat_says": heat_words(shown.heat),
        "similarity": list(shown.similarity) if shown.similarity else None,
        "alt": f"a head with {', '.join(parts)}, {_seen_from(state)}",
        "says": "",
        "finished": finished,
        "ends": None,
    }


def _seen_from(state: LabState) -> str:
    return f"seen from yaw {state.yaw:g}°, pitch {state.pitch:g}°"


class Session:
    """What the widget keeps between two states: the couple of heads, and both from the camera of the last picture."""

    def __init__(
        self,
        generators: Mapping[str, Generator],
        encoder: Encoder | None = None,
        state: LabState | None = None,
        backend: Backend = "auto",
    ) -> None:
        self.generators, self.encoder, self.backend = generators, encoder, backend
        first = next(iter(generators))
        self.state = state or LabState(first, 0, first, 1)
        self.pair: Couple = couple(generators, self.state, encoder)
        self.ends: Ends | None = None
        self.portrayed: LabState | None = None

    @property
    def turned(self) -> bool:
        """Whether the finished pictures of A and B, if there are any, are not those of this state."""
        return self.portrayed is None or _view(self.portrayed) != _view(self.state)

    def portraits(self) -> list[dict[str, str]]:
        """Heads A and B as they are without exchange, finished, from the state's camera."""
        state = self.portrayed = self.state
        names = (f"{state.generator_a}, seed {state.seed_a}", f"{state.generator_b}, seed {state.seed_b}")
        pictures = portraits(self.pair, state, self.backend)
        return [
            {"picture": _base64(pixels), "name": name, "alt": f"head {side}: {name}, {_seen_from(state)}"}
            for side, name, pixels in zip("AB", names, pictures, strict=True)
        ]

    def answer(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """The message for a state from the browser; a state that cannot be shown gives one sentence instead.

        While the hand turns the heads, "ends" holds raw pictures of A and B, so that all three turn together.
        """
        finished = bool(wanted.get("finished", True))
        try:
            state = LabState.from_dict(wanted)
            if _heads(state) != _heads(self.state):
                self.pair, self.ends = couple(self.generators, state, self.encoder), None
            if _view(state) != _view(self.state):
                self.ends = None
            self.state = state
            shown = show(self.pair, state, finished, self.ends, self.backend)
        except Head3DError as error:
            return {"says": str(error)}
        self.ends = shown.ends
        answer = message(shown, state, self.pair.names, finished)
        if self.turned:
            answer["ends"] = [_base64(pixels) for pixels in shown.ends.pictures()]
        return answer


def _heads(state: LabState) -> tuple[str, int, str, int]:
    return state.generator_a, state.seed_a, state.generator_b, state.seed_b


def _view(state: LabState) -> tuple[object, ...]:
    """What pictures of A and B depend on: the heads and the camera, not the shares."""
    return *_heads(state), state.yaw, state.pitch


def swap_viewer(
    generators: Mapping[str, Generator],
    encoder: Encoder | None = None,
    state: LabState | None = None,
    backend: Backend = "auto",
) -> Any:
    """The widget. Its trait `wanted` is the state that the browser asks for, `shown` what Python answered.

    The mixture stands between A and B, which turn with it; beside them is where it differs from A, with a scale in
    numbers. Sliders work with the arrow keys; so does the picture, once it has the focus (Tab).

    Args:
        generators: name -> generator; heads A and B choose among them. All must be able to exchange planes.
        encoder: for the similarity bars; None: no bars.
        state: to begin with; None: seeds 0 and 1 of the first generator.
    """
    import anywidget
    import traitlets

    first = next(iter(generators))
    state = state or LabState(first, 0, first, 1)
    session = Session(generators, encoder, state, backend)

    class SwapViewer(anywidget.AnyWidget):
        _esm = Path(__file__).with_name("swap_lab.js")
        options = traitlets.Dict().tag(sync=True)
        state = traitlets.Dict().tag(sync=True)
        wanted = traitlets.Dict().tag(sync=True)
        shown = traitlets.Dict().tag(sync=True)
        portraits: Any = traitlets.List().tag(sync=True)

    viewer = SwapViewer(
        options={
            "generators": list(generators),
            "planes": list(session.pair.names),
            "max_pitch": MAX_PITCH,
            "legend": _base64(legend_picture()),
            "heat_limit": HEAT_LIMIT,
        },
        state=state.to_dict(),
        shown={**session.answer(state.to_dict()), "request": 0},
        portraits=session.portraits(),
    )

    def update(change: Any) -> None:
        answer = session.answer(change["new"])
        # What an error leaves out stays as it was.
        viewer.shown = {**viewer.shown, **answer, "request": change["new"]["request"]}
        # The hand has let go: the mixture is on the screen, now A and B become sharp as well.
        if answer.get("finished") and session.turned:
            viewer.portraits = session.portraits()

    viewer.observe(update, names="wanted")
    return viewer
