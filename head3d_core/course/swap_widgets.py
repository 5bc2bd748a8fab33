"""The plane-swap lab as a widget: two heads, a slider per plane, a picture that is turned by dragging it."""

from __future__ import annotations

import base64
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from head3d_core.config import Backend
from head3d_core.course import swap_lab
from head3d_core.course.swap_lab import Couple, Ends, LabState, Shown
from head3d_core.course.widgets import to_png
from head3d_core.metrics.identity_encoder import Encoder
from head3d_core.model.generator import Generator
from head3d_core.utils.errors import Head3DError

HEAT_LIMIT = 0.25
"""Difference that gets the brightest colour of the heat-map, as a share of the way from black to white."""


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
        self.pair: Couple = swap_lab.couple(generators, self.state, encoder)
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
        pictures = swap_lab.portraits(self.pair, state, self.backend)
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
                self.pair, self.ends = swap_lab.couple(self.generators, state, self.encoder), None
            if _view(state) != _view(self.state):
                self.ends = None
            self.state = state
            shown = swap_lab.show(self.pair, state, finished, self.ends, self.backend)
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
            "max_pitch": swap_lab.MAX_PITCH,
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
