"""The plane-swap lab as a widget: two heads, a slider per plane, a picture that is turned by dragging it."""

from __future__ import annotations

import base64
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from head3d_core.config import Backend
from head3d_core.metrics.identity_encoder import Encoder
from head3d_core.model.generator import Generator
from head3d_core.utils.errors import Head3DError
from head3d_course import swap_lab
from head3d_course.stills import bundle
from head3d_course.swap_lab import HEAT_LIMIT, MAX_PITCH, MAX_SEED, Couple, Ends, LabState, couple, show
from head3d_course.widgets import to_png

STILL = "A still of the lab: its controls need a running kernel. Run this cell to use them."


def heat_picture(heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Differences [R, R] in [0, 1] as a picture [R, R, 3] uint8; `HEAT_LIMIT` and more is the brightest."""
    import matplotlib as mpl

    # cividis looks alike to readers who see colours differently.
    level = (np.clip(heat / HEAT_LIMIT, 0, 1) * 255).round().astype(np.int64)
    return np.asarray(mpl.colormaps["cividis"](level)[..., :3] * 255).round().astype(np.uint8)


def legend_picture() -> NDArray[np.uint8]:
    """[1, 256, 3] uint8: the colours of the heat-map, from no difference to `HEAT_LIMIT`."""
    return heat_picture(np.linspace(0, HEAT_LIMIT, 256, dtype=np.float32)[None])


def heat_words(heat: NDArray[np.float32]) -> str:
    """The heat-map in numbers, for its caption and its alt text; 100 % would be black against white."""
    return f"differs from A by {100 * heat.mean():.1f} %, at most {100 * heat.max():.0f} %"


def _base64(pixels: NDArray[np.uint8]) -> str:
    return base64.b64encode(to_png(pixels)).decode()


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
        self.still = [np.full((1, 1, 3), 255, np.uint8)] * 4
        """The last finished images of A, the mixture, B and the difference, [R, R, 3] each."""

    @property
    def turned(self) -> bool:
        """Whether the finished pictures of A and B, if there are any, are not those of this state."""
        return self.portrayed is None or _view(self.portrayed) != _view(self.state)

    def portraits(self) -> list[dict[str, str]]:
        """Heads A and B as they are without exchange, finished, from the state's camera."""
        state = self.state
        names = (f"{state.generator_a}, seed {state.seed_a}", f"{state.generator_b}, seed {state.seed_b}")
        pictures = swap_lab.portraits(self.pair, state, self.backend)
        self.portrayed, self.still[::2] = state, pictures
        return [
            {"picture": _base64(pixels), "name": name, "alt": f"head {side}: {name}, {_seen_from(state)}"}
            for side, name, pixels in zip("AB", names, pictures, strict=True)
        ]

    def answer(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """The message for a state from the browser; whatever fails gives one sentence and the state still shown.

        While the hand turns the heads, "ends" holds raw pictures of A and B, so that all three turn together.
        """
        try:
            return self._shown(LabState.from_dict(wanted), bool(wanted.get("finished", True)))
        except Head3DError as error:
            says = str(error)
        except Exception as error:  # an unanswered request would leave the lab waiting
            logging.getLogger(__name__).exception("the swap lab could not show %s", dict(wanted))
            says = f"{type(error).__name__}: {error}"
        return {"says": f"{says}. Shown is the state before.", "state": self.state.to_dict()}

    def _shown(self, state: LabState, finished: bool) -> dict[str, Any]:
        """Two PNGs in base64, what they show in words, and the similarities."""
        pair, beside = self.pair, self.ends
        if _heads(state) != _heads(self.state):
            pair, beside = couple(self.generators, state, self.encoder), None
        if _view(state) != _view(self.state):
            beside = None
        shown = show(pair, state, finished, beside, self.backend)
        self.pair, self.state, self.ends = pair, state, shown.ends
        heat, shares = heat_picture(shown.heat), zip(pair.names, state.shares, strict=True)
        if finished:
            self.still[1::2] = [shown.picture, heat]
        parts = [f"F_{n} {'of A' if s == 0 else 'of B' if s == 1 else f'{s:.0%} of B'}" for n, s in shares]
        return {
            "picture": _base64(shown.picture),
            "heat": _base64(heat),
            "heat_says": heat_words(shown.heat),
            "similarity": shown.similarity and list(shown.similarity),
            "alt": f"a head with {', '.join(parts)}, {_seen_from(state)}",
            "says": "",
            "state": state.to_dict(),
            "finished": finished,
            "ends": [_base64(pixels) for pixels in shown.ends.pictures()] if self.turned else None,
        }

    def sheet(self, side: int = 190) -> Image.Image:
        """The last finished images side by side, with a line on how to get the controls back."""
        titles = ("head A", "the mixture", "head B", "difference to A")
        sheet = Image.new("RGB", (4 * (side + 10), side + 60), "white")
        pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=16)
        for k, (title, pixels) in enumerate(zip(titles, self.still, strict=True)):
            x = 5 + k * (side + 10)
            pen.text((x + side / 2, 14), title, "black", font, anchor="mm")
            sheet.paste(Image.fromarray(pixels).resize((side, side), Image.Resampling.LANCZOS), (x, 28))
        pen.text((5, side + 36), STILL, "black", font)
        return sheet


def _heads(state: LabState) -> tuple[str, int, str, int]:
    return state.generator_a, state.seed_a, state.generator_b, state.seed_b


def _view(state: LabState) -> tuple[object, ...]:
    """What pictures of A and B depend on: the heads and the camera, not the shares."""
    return *_heads(state), state.yaw, state.pitch


def _viewer_class(session: Session) -> Any:
    """The widget's class; `anywidget` is imported only where a widget is made."""
    import anywidget
    import traitlets
    from IPython.display import display

    class SwapViewer(anywidget.AnyWidget):
        _esm = Path(__file__).with_name("swap_lab.js")
        options = traitlets.Dict().tag(sync=True)
        state = traitlets.Dict().tag(sync=True)
        wanted = traitlets.Dict().tag(sync=True)
        shown = traitlets.Dict().tag(sync=True)
        portraits: Any = traitlets.List().tag(sync=True)
        handle: Any = None

        def still(self) -> dict[str, str]:
            """What is seen where the widget is not: without a kernel, in exported pages, on a code host."""
            alt = f"Still of the swap lab: head A, {self.shown['alt']} as the mixture, head B, and their difference"
            return bundle(session.sheet(), alt)

        def _ipython_display_(self) -> None:
            self.handle = display(self.still(), raw=True, display_id=True)
            found = self._repr_mimebundle_()
            data, metadata = found if isinstance(found, tuple) else (found or {}, {})
            display({**data, "text/plain": STILL}, metadata=metadata, raw=True)

    return SwapViewer


def swap_viewer(
    generators: Mapping[str, Generator],
    encoder: Encoder | None = None,
    state: LabState | None = None,
) -> Any:
    """The widget. Its trait `wanted` is the state that the browser asks for, `shown` what Python answered.

    The mixture stands between A and B, which turn with it; beside them is where it differs from A, with a scale in
    numbers. Sliders work with the arrow keys; so does the picture, once it has the focus (Tab).

    Args:
        generators: name -> generator; heads A and B choose among them. All must be able to exchange planes.
        encoder: for the similarity bars; None: no bars.
        state: to begin with; None: seeds 0 and 1 of the first generator.
    """
    session = Session(generators, encoder, state)
    start = session.state.to_dict()

    viewer = _viewer_class(session)(
        options={
            "generators": list(generators),
            "planes": list(session.pair.names),
            "max_pitch": MAX_PITCH,
            "max_seed": MAX_SEED,
            "legend": _base64(legend_picture()),
            "heat_limit": HEAT_LIMIT,
        },
        state=start,
        shown={**session.answer(start), "request": ""},
        portraits=session.portraits(),
    )

    def update(change: Any) -> None:
        answer = session.answer(change["new"])
        # What an error leaves out stays as it was.
        viewer.shown = {**viewer.shown, **answer, "request": change["new"].get("request", "")}
        # The hand has let go: the mixture is on the screen, now A and B become sharp as well.
        if answer.get("finished") and session.turned:
            viewer.portraits = session.portraits()
        if answer.get("finished") and viewer.handle is not None:
            viewer.handle.update(viewer.still(), raw=True)

    viewer.observe(update, names="wanted")
    return viewer
