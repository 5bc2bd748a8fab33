"""Cameras of whole sets: every convention of other tools is named, and good sets of any kind pass."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from head3d_core.datasets import camera_checks
from head3d_core.datasets.camera_checks import check_label, check_labels, check_set
from head3d_core.model import cameras
from head3d_core.synth import sets

RAYS = (2.25, 3.3)
Array = np.ndarray


def eg3d_portraits(count: int = 200, seed: int = 0, jitter: float = 0.02, yaw: float = 0.3) -> Array:
    """Cameras as EG3D's FFHQ set has them: 2.7 from the origin, looking at (0, 0, 0.2) or a little beside it."""
    draw = np.random.default_rng(seed)
    angles = draw.normal(size=(2, count)) * [[yaw], [0.155]]
    position = cameras.orbit(*(torch.tensor(a, dtype=torch.float32) for a in angles))[:, [3, 7, 11]]
    target = torch.tensor([0, 0, 0.2]) + jitter * torch.tensor(draw.normal(size=(count, 3))).float()
    matrix = cameras.pose_looking_at(position, target)
    return cameras.pack(matrix, cameras.intrinsics().expand(count, 3, 3)).double().numpy()


def changed(
    labels: Array, before: Array | None = None, after: Array | None = None, inverse: bool = False
) -> Array:
    """The set with cam2world M replaced by (before M after), inverted at the end if wanted."""
    m = labels[:, :16].reshape(-1, 4, 4)
    m = (np.eye(4) if before is None else before) @ m @ (np.eye(4) if after is None else after)
    m = np.linalg.inv(m) if inverse else m
    return np.concatenate([m.reshape(-1, 16), labels[:, 16:]], 1)


def turn(*rows: list[int]) -> Array:
    matrix = np.eye(4)
    matrix[:3, :3] = rows
    return matrix


def lens(labels: Array, focal: float, centre: float) -> Array:
    k = [focal, 0, centre, 0, focal, centre, 0, 0, 1]
    return np.concatenate([labels[:, :16], np.tile(k, (len(labels), 1))], 1)


MOVED = np.array([[1.0, 0, 0, 2], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
FLIP = np.diag([1.0, -1, -1, 1])
WRONG: dict[str, tuple[Callable[[Array], Array], str]] = {
    "world2cam": (lambda c: changed(c, inverse=True), r"holds world2cam matrices: .* invert each matrix \("),
    "OpenGL": (lambda c: changed(c, after=FLIP), "every camera looks away .* columns 1 and 2"),
    "OpenGL world2cam": (lambda c: changed(c, after=FLIP, inverse=True), "world2cam matrices with OpenGL's axes"),
    "PyTorch3D": (lambda c: changed(c, after=np.diag([-1.0, -1, 1, 1])), "upside down, as with PyTorch3D"),
    "Blender's world": (
        lambda c: changed(c, before=turn([1, 0, 0], [0, 0, -1], [0, 1, 0])),
        r"up is z, as in Blender: expected y, write rows \(x, z, -y\)",
    ),
    "COLMAP's world": (lambda c: changed(c, before=np.diag([1.0, -1, -1, 1])), "upside down and face -z.*COLMAP"),
    "x up": (lambda c: changed(c, before=turn([0, 1, 0], [-1, 0, 0], [0, 0, 1])), "up is x: expected y"),
    "backs": (lambda c: changed(c, before=np.diag([-1.0, 1, -1, 1])), "behind the head .*rows 0 and 2"),
    "side": (lambda c: changed(c, before=turn([0, 0, 1], [0, 1, 0], [-1, 0, 0])), "beside the head .*turn the world"),
    "NDC": (lambda c: lens(c, 2 * cameras.FOCAL, 0.0), "as in NDC"),
    "radians": (lambda c: lens(c, 0.2325, 0.5), "field of view in radians, 4.28 then"),
    "moved": (lambda c: changed(c, before=MOVED), "past the origin"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**20), jitter=st.floats(0, 0.04), count=st.sampled_from([8, 9, 64, 300]))
def test_a_wrong_convention_is_named(name: str, seed: int, jitter: float, count: int) -> None:
    """Generated sets of every size, in each convention: the first sentence is about it, and one stands for all."""
    change, sentence = WRONG[name]
    labels = change(eg3d_portraits(count, seed, jitter))
    assert not any(check_label(label) for label in labels), "no single label shows it"
    problems = check_labels([f"{k}.png" for k in range(count)], labels.tolist())
    assert re.search(sentence, problems[0].text), problems[0]
    assert problems[0].file == "dataset.json"
    assert len(problems) <= 2
    assert problems[0].fatal == (name not in ("backs", "side"))


@pytest.mark.parametrize("name", ["world2cam", "OpenGL", "OpenGL world2cam"])
def test_conventions_of_views_from_all_around(name: str) -> None:
    change, sentence = WRONG[name]
    labels = np.stack([sets.example("heads", k).camera for k in range(192)]).astype(np.float64)
    problems = check_labels([str(k) for k in range(192)], change(labels).tolist())
    assert len(problems) == 1
    assert re.search(sentence, problems[0].text)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**20), jitter=st.floats(0, 0.06), yaw=st.floats(0.01, 0.7), count=st.integers(1, 100)
)
def test_good_portraits_pass(seed: int, jitter: float, yaw: float, count: int) -> None:
    """EG3D's own statistics, narrower and wider, with its pivot and jitter: no alarm, and none when mirrored."""
    labels = eg3d_portraits(count, seed, jitter, yaw)
    mirrored = cameras.mirror(torch.from_numpy(labels)).numpy()
    assert check_set(labels, *RAYS) == check_set(mirrored, *RAYS) == []
    assert check_labels([str(k) for k in range(count)], labels.tolist()) == []


@pytest.mark.parametrize("name", sets.SETS)
def test_our_sets_pass(name: str) -> None:
    labels = np.stack([sets.example(name, k).camera for k in range(200)]).astype(np.float64)
    assert check_set(labels, *RAYS) == []


@settings(max_examples=40, deadline=None)
@given(radius=st.floats(0.05, 4000), seed=st.integers(0, 99))
def test_distance_is_compared_with_the_rays(radius: float, seed: int) -> None:
    labels = eg3d_portraits(20, seed)
    labels[:, [3, 7, 11]] *= radius / 2.7
    problems = check_set(labels, *RAYS)
    assert check_set(labels) == [], "without rays there is nothing to compare with"
    if RAYS[0] + camera_checks.HEAD <= radius * 0.999 and radius * 1.001 <= RAYS[1] - camera_checks.HEAD:
        assert problems == []
    elif not 2.49 < radius < 3.06:
        (problem,) = problems
        factor = float(re.search(r"multiply the translations by ([\d.e+-]+)", problem.text)[1])  # type: ignore[index]
        assert factor * radius == pytest.approx(2.775, rel=0.01)
        labels[:, [3, 7, 11]] *= factor
        assert check_set(labels, *RAYS) == [], "the advice mends it"


def test_a_few_cameras_elsewhere_are_a_warning() -> None:
    labels = eg3d_portraits(20)
    labels[3, [3, 7, 11]] *= 3
    (problem,) = check_set(labels, *RAYS)
    assert "1 of 20 cameras are 8.1 or so from the head" in problem.text
    assert not problem.fatal


def test_advice_about_matrices_mends_them() -> None:
    """What the sentences say, done: the set passes."""
    good = eg3d_portraits(50)
    mended = {  # the others mend themselves: done twice, they change nothing
        **{name: WRONG[name][0] for name in ("world2cam", "OpenGL", "PyTorch3D", "COLMAP's world", "backs")},
        "OpenGL world2cam": lambda c: changed(changed(c, inverse=True), after=FLIP),
        "Blender's world": lambda c: changed(c, before=turn([1, 0, 0], [0, 0, 1], [0, -1, 0])),
        "x up": lambda c: changed(c, before=turn([0, -1, 0], [1, 0, 0], [0, 0, 1])),
    }
    for name, mend in mended.items():
        again = mend(WRONG[name][0](good))
        assert check_set(again, *RAYS) == [], name
        np.testing.assert_allclose(again, good, atol=1e-9)


def test_two_mistakes_are_named_in_the_order_of_mending() -> None:
    labels = WRONG["world2cam"][0](WRONG["Blender's world"][0](eg3d_portraits(50)))
    first, second = check_set(labels)
    assert "world2cam" in first.text
    assert "Blender" in second.text


LEAF = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        LEAF,
        lambda x: st.lists(x, max_size=26) | st.dictionaries(st.text(max_size=3), x, max_size=3),
        max_leaves=30,
    )
)
def test_any_label_gets_a_sentence(label: object) -> None:
    assert isinstance(check_label(label), str)
    assert isinstance(check_label([label] * 25), str)
