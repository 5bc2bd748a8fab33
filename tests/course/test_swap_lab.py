"""The plane-swap lab: what is shown for a state, what the widget sends, and how fast."""

from __future__ import annotations

import base64
import io
import time
import timeit
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from helpers import refuses, untrained_encoder, visible
from PIL import Image

from head3d_core.config import Backend, preset
from head3d_core.experiments import plane_swap
from head3d_core.metrics.identity_encoder import Encoder
from head3d_core.model import cameras, seeds
from head3d_core.model.generator import Generator
from head3d_core.model.planes import sample_planes
from head3d_core.utils.images import to_pixels
from head3d_course import swap_lab, swap_widget
from head3d_course.swap_lab import LabState


@pytest.fixture(scope="module")
def generators() -> dict[str, Generator]:
    return {"face": visible(0), "head": visible(5)}


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return untrained_encoder()


def decoded(png: str) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"))


def gap(shown: np.ndarray, image: torch.Tensor) -> int:
    """The largest difference of two images, of 255: [R, R, 3] and [1, 3, R, R] in [-1, 1]."""
    return int(np.abs(shown.astype(int) - to_pixels(image[0])).max())


def test_state_survives_the_browser() -> None:
    state = LabState("face", 3, "head", 4, (0.0, 0.35, 1.0), -45.0, 10.0)
    assert LabState.from_dict(state.to_dict()) == state
    camera = state.camera()
    yaw, pitch = cameras.yaw_pitch(camera)
    assert float(yaw.rad2deg()) == pytest.approx(-45)
    assert float(pitch.rad2deg()) == pytest.approx(10)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"shares": [0, 0]}, "three shares"),
        ({"shares": [0, 0, 1.5]}, "between 0 and 1"),
        ({"shares": [0, 0, float("nan")]}, "between 0 and 1"),
        ({"seed_a": -1}, "seeds must be"),
        ({"yaw": 200}, "yaw must be"),
        ({"pitch": "up"}, "cannot be read"),
        ({"pitch": 90}, "pitch within 60"),
        ({"shares": "111"}, "cannot be read"),
        ({"seed_a": float("inf")}, "cannot be read"),
        ({"seed_b": None}, "cannot be read"),
    ],
)
def test_states_out_of_range_are_refused(changed: dict[str, Any], says: str) -> None:
    refuses(says, LabState.from_dict, {**LabState().to_dict(), **changed})


def test_shown_is_the_generators_picture(generators: dict[str, Generator], encoder: Encoder) -> None:
    state = LabState("face", 2, "face", 3, (1.0, 0.0, 0.4), 35.0, -10.0)
    G, pair = generators["face"], swap_lab.couple(generators, state, encoder)
    one, two = (seeds.heads_of_seeds(G, [s]) for s in (2, 3))
    mixed, ws = plane_swap.mix(one, two, state.shares)
    with torch.no_grad():
        whole = G.render(mixed, ws, state.camera())
        plain = G.render_raw(one.planes, state.camera())
    preview = swap_lab.show(pair, state, finished=False)
    assert gap(preview.picture, whole.raw) <= 1
    assert preview.similarity is None
    heat = ((whole.raw - plain.raw).abs().mean(1)[0] / 2).numpy()
    assert np.allclose(preview.heat, heat, atol=1e-3)
    finished = swap_lab.show(pair, state, beside=preview.ends)
    assert gap(finished.picture, whole.image) <= 1
    assert np.allclose(finished.heat, heat, atol=1e-3)
    front = cameras.orbit(0.0)
    small = [plane_swap.look(G, x, front, swap_lab.FACE_SIDE).raw for x in (mixed, one.planes, two.planes)]
    face, *others = (encoder(rgb, front)[0] for rgb in small)
    assert finished.similarity == pytest.approx([float(face @ o) for o in others], abs=1e-4)


def test_a_head_is_like_itself(generators: dict[str, Generator], encoder: Encoder) -> None:
    plain = LabState("face", 0, "face", 1)
    pair = swap_lab.couple(generators, plain, encoder)
    shown = swap_lab.show(pair, plain)
    assert shown.similarity[0] == pytest.approx(1, abs=1e-5)
    assert float(shown.heat.max()) < 1e-3
    other = swap_lab.show(pair, LabState("face", 0, "face", 1, (1, 1, 1)))
    assert other.similarity[1] == pytest.approx(1, abs=1e-5)
    assert float(other.heat.max()) > 0.01


def test_between_generators_a_decodes(generators: dict[str, Generator]) -> None:
    state = LabState("head", 0, "face", 0, (1.0, 0.0, 0.0))
    pair = swap_lab.couple(generators, state)
    assert pair.G is generators["head"]
    one, two = (seeds.heads_of_seeds(generators[n], [0]) for n in ("head", "face"))
    planes = one.planes.clone()
    planes[:, 0] = two.planes[:, 0]
    raw = plane_swap.look(generators["head"], planes, state.camera()).raw
    assert gap(swap_lab.show(pair, state, finished=False).picture, raw) == 0
    assert swap_lab.show(pair, state).similarity is None
    refuses("no generator called 'heads'", swap_lab.couple, generators, LabState("heads", 0, "face", 0))


def test_reference_and_native_show_the_same(generators: dict[str, Generator]) -> None:
    state = LabState("face", 0, "face", 1, (0.5, 0.0, 1.0), 20.0, 5.0)
    pair = swap_lab.couple(generators, state)
    shown = [swap_lab.show(pair, state, backend=b).picture.astype(int) for b in ("auto", "reference")]
    assert np.abs(shown[0] - shown[1]).max() <= 2


def test_the_widget_shows_what_the_function_computes(
    generators: dict[str, Generator], encoder: Encoder
) -> None:
    viewer = swap_widget.swap_viewer(generators, encoder)
    start = LabState("face", 0, "face", 1)
    assert viewer.options["generators"] == ["face", "head"]
    assert viewer.options["planes"] == ["xy", "xz", "yz"]
    assert viewer.state == start.to_dict()
    assert viewer.shown["similarity"][0] == pytest.approx(1, abs=1e-5)
    # The hand drags the camera and a plane, lets go, takes another seed, another generator.
    changes: tuple[dict[str, Any], ...] = (
        {"yaw": 30.0, "finished": False},
        {"shares": [1.0, 0.0, 0.0], "finished": False},
        {"finished": True},
        {"seed_b": 7},
        {"generator_b": "head", "pitch": -20.0},
    )
    for number, change in enumerate(changes, 1):
        viewer.wanted = {**viewer.state, **viewer.wanted, **change, "request": number}
        state = LabState.from_dict(viewer.wanted)
        expected = swap_lab.show(
            swap_lab.couple(generators, state, encoder), state, viewer.wanted["finished"]
        )
        assert viewer.shown["request"] == number
        assert np.array_equal(decoded(viewer.shown["picture"]), expected.picture)
        assert np.array_equal(decoded(viewer.shown["heat"]), swap_widget.heat_picture(expected.heat))
        assert viewer.shown["heat_says"] == swap_widget.heat_words(expected.heat)
        assert viewer.shown["similarity"] == (expected.similarity and list(expected.similarity))
        assert f"yaw {state.yaw:g}°" in viewer.shown["alt"]


def test_a_and_b_turn_with_the_mixture(generators: dict[str, Generator]) -> None:
    """Raw while the hand turns them, finished after it has let go, and not sent again while only planes change."""
    viewer = swap_widget.swap_viewer(generators)
    first = viewer.portraits
    assert [p["name"] for p in first] == ["face, seed 0", "face, seed 1"]
    G, two = generators["face"], seeds.heads_of_seeds(generators["face"], [1])
    turned = cameras.orbit(np.deg2rad(40.0))
    with torch.no_grad():
        front, side = (G.render(two.planes, two.ws, camera) for camera in (cameras.orbit(0.0), turned))
    assert gap(decoded(first[1]["picture"]), front.image) <= 1
    viewer.wanted = {**viewer.state, "shares": [1, 1, 1], "finished": False, "request": 1}
    assert viewer.shown["ends"] is None
    viewer.wanted = {**viewer.wanted, "yaw": 40, "request": 2}
    assert gap(decoded(viewer.shown["ends"][1]), side.raw) <= 1
    assert viewer.portraits is first, "still under the hand"
    viewer.wanted = {**viewer.wanted, "finished": True, "request": 3}
    second = viewer.portraits
    assert gap(decoded(second[1]["picture"]), side.image) <= 1
    assert "head B: face, seed 1, seen from yaw 40°" in second[1]["alt"]
    viewer.wanted = {**viewer.wanted, "shares": [0, 0, 1], "request": 4}
    assert viewer.shown["ends"] is None
    assert viewer.portraits is second
    viewer.wanted = {**viewer.wanted, "generator_b": "head", "seed_b": 9, "request": 5}
    assert viewer.portraits[0] == second[0]
    assert viewer.portraits[1]["name"] == "head, seed 9"
    head, nine = generators["head"], seeds.heads_of_seeds(generators["head"], [9])
    with torch.no_grad():
        alone = head.render(nine.planes, nine.ws, turned).image
    assert gap(decoded(viewer.portraits[1]["picture"]), alone) <= 1, "B is drawn by its own generator"


def test_the_scale_of_the_heat_map() -> None:
    legend = swap_widget.legend_picture()
    for share, column in ((0.0, 0), (1.0, -1)):
        flat = np.full((1, 1), share * swap_lab.HEAT_LIMIT, dtype=np.float32)
        assert np.array_equal(swap_widget.heat_picture(flat)[0, 0], legend[0, column])
    heat = np.linspace(0, 0.5, 32, dtype=np.float32).reshape(1, -1)
    assert swap_widget.heat_words(heat) == "differs from A by 25.0 %, at most 50 %"
    brightness = swap_widget.heat_picture(heat).astype(float).sum(-1)[0]
    assert (np.diff(brightness) >= -1).all()
    assert brightness[0] < 200 < 500 < brightness[-1]


def test_a_still_is_shown_where_the_widget_is_not(
    generators: dict[str, Generator], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exported pages, code hosts and a page without its kernel show the last images, and no Python repr."""
    shown: list[tuple[Any, dict[str, Any]]] = []

    class Handle:
        def update(self, still: Any, **options: Any) -> None:
            shown.append((still, options))

    def display(thing: Any, **options: Any) -> Handle:
        shown.append((thing, options))
        return Handle()

    monkeypatch.setattr("IPython.display.display", display)
    viewer = swap_widget.swap_viewer(generators)
    viewer._ipython_display_()
    (still, _), (bundle, _) = shown
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert "object at 0x" not in bundle["text/plain"]
    assert "head A" in still["text/html"].partition("src=")[0]

    def pixels(still: dict[str, str]) -> np.ndarray:
        data = base64.b64decode(still["text/html"].partition(";base64,")[2].partition('"')[0])
        assert len(data) < 60_000
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)

    sheet = pixels(still)
    viewer.wanted = {**viewer.state, "shares": [1, 1, 1], "finished": False, "request": "a-1"}
    assert len(shown) == 2, "not while the hand moves"
    viewer.wanted = {**viewer.wanted, "finished": True, "request": "a-2"}
    later = pixels(shown[-1][0])
    assert np.abs(later[28:218, 205:395] - sheet[28:218, 205:395]).max() > 30, "the mixture has changed"


def test_whatever_fails_is_answered_and_the_state_before_stays(
    generators: dict[str, Generator], monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer = swap_widget.swap_viewer(generators)
    before = dict(viewer.shown)

    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of memory")

    for number, (change, says) in enumerate(
        (({"seed_b": 5}, "RuntimeError: out of memory"), ({"yaw": 999}, "yaw must be"))
    ):
        with monkeypatch.context() as patch:
            patch.setattr(swap_widget, "couple", fails)
            viewer.wanted = {**viewer.state, **change, "request": number}
        assert viewer.shown["request"] == number
        assert says in viewer.shown["says"]
        assert viewer.shown["state"] == before["state"]
        assert viewer.shown["picture"] == before["picture"]
    viewer.wanted = {**viewer.state, "seed_b": 5, "request": "a-2"}
    assert viewer.shown["state"]["seed_b"] == 5
    assert viewer.shown["says"] == ""


# --- how fast --------------------------------------------------------------------------------------------------------


def _least(task: Callable[[], object], repeats: int = 7) -> float:
    """Seconds of the fastest of some runs, after one that warms up: what other programs take is not the lab's."""
    return min(timeit.repeat(task, number=1, repeat=repeats + 1)[1:])


def slowness() -> float:
    """How much slower this machine is now than two quiet cores on which the limits hold; at least 1.

    The same sums as a preview: planes are read at random points and decoded. That took 0.088 seconds there (Zen 4,
    torch 2.14.1, 30 November).
    """
    torch.manual_seed(0)
    planes = torch.randn(1, 3, 128, 128, 32).permute(0, 1, 4, 2, 3)
    points = torch.rand(1, 65536, 3) - 0.5
    return max(1.0, _least(lambda: sample_planes(planes, points, backend="reference").exp()) / 0.088)


@pytest.mark.alone
@pytest.mark.parametrize(
    ("backend", "limit"), [pytest.param("native", 0.150, marks=pytest.mark.native), ("reference", 0.700)]
)
def test_the_lab_follows_the_hand(backend: Backend, limit: float) -> None:
    """A preview within its limit, what is shown after the hand lets go within 600 ms an image."""
    torch.manual_seed(0)
    G = Generator(preset("classroom").generator).eval().requires_grad_(False)
    session = swap_widget.Session({"face": G}, untrained_encoder(), backend=backend)
    angle = iter(range(1, 100))
    wanted = {**session.state.to_dict(), "shares": [1, 0, 0], "finished": False}

    def drag() -> None:  # the camera moves, so A and B are rendered anew as well: the dearest case
        assert session.answer({**wanted, "yaw": next(angle)})["ends"]

    def release() -> None:
        assert session.answer({**wanted, "yaw": 6, "finished": True})["similarity"]

    for task, most in {drag: limit, release: 0.600, session.portraits: 2 * 0.600}.items():
        for pause in (0, 5, 10, 20):  # bursts of other programs are waited out; slow code stays slow
            time.sleep(pause)
            before, taken = slowness(), _least(task)
            slow = max(before, slowness())
            print(f"{task.__name__}, {backend}: {taken * 1e3:.0f} ms, limit {most * 1e3:.0f} ms x {slow:.2f}")
            if taken <= most * slow:
                break
        assert taken <= most * slow
