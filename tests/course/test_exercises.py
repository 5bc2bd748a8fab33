"""The exercise checks: right answers pass, planted mistakes get their hint, nothing ever raises."""

from __future__ import annotations

import importlib
import pkgutil
import re
from typing import Any

import pytest
import torch

import head3d_course as course
from head3d_core.metrics import distances
from head3d_course.exercises import Choice, Exercise
from head3d_course.nb01 import camera_position

EVERY = {
    f"{module.name}.{name}": value
    for module in pkgutil.iter_modules(course.__path__)
    if module.name.startswith("nb")
    for name, value in vars(importlib.import_module(f"head3d_course.{module.name}")).items()
    if isinstance(value, Exercise | Choice)
}
EXERCISES = {name: value for name, value in EVERY.items() if isinstance(value, Exercise)}
CHOICES = {name: value for name, value in EVERY.items() if isinstance(value, Choice)}
PLANTED = [(name, hint) for name, exercise in EXERCISES.items() for hint in exercise.mistakes]


def test_there_are_exercises_with_mistakes() -> None:
    assert len(EVERY) >= 30, sorted(EVERY)
    assert {name.removeprefix("nb") for name in CHOICES} == set(course.words("choices"))
    assert all(len(e.mistakes) >= 2 for e in EXERCISES.values())


def unfinished(*_: Any) -> None:
    raise NotImplementedError


@pytest.mark.parametrize("name", EXERCISES)
def test_the_right_answer_passes_stubs_are_not_attempted_and_nonsense_is_wrong(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    exercise = EXERCISES[name]
    assert exercise.verdict(exercise.truth) == f"✓ correct on {len(exercise.cases)} cases"
    for stub in (lambda *_: None, lambda *_: ..., unfinished):
        assert exercise.verdict(stub) == "○ not attempted"
    for nonsense in (lambda *_: "text", lambda *_: torch.zeros(7), lambda *_: float("nan"), lambda: 0):
        exercise(nonsense)
        lines = capsys.readouterr().out.splitlines()
        assert [line[0] for line in lines if not line.startswith("  ")] == ["✗"]


@pytest.mark.parametrize(("name", "hint"), PLANTED, ids=[f"{n}-{hint[:30]}" for n, hint in PLANTED])
def test_planted_mistake_gets_its_hint(name: str, hint: str) -> None:
    said = EXERCISES[name].verdict(EXERCISES[name].mistakes[hint])
    assert said.startswith(f"✗ {hint}\n  case ")
    assert re.search(r"case \d+: input .+; expected .+, got .+", said, re.DOTALL)


@pytest.mark.parametrize("name", CHOICES)
def test_every_choice_has_a_reply(name: str) -> None:
    choice = CHOICES[name]
    assert len(choice.replies) >= 3
    assert choice.verdict(...) == "○ not attempted"
    marks = {key: choice.verdict(key.lower())[0] for key in choice.replies}
    assert [key for key, mark in marks.items() if mark == "✓"] == [choice.right]
    assert choice.verdict("nothing of these").startswith("✗ expected one of")


def test_a_forgotten_return_is_told() -> None:
    exercise = Exercise(truth=lambda a, b: a + b, cases=[(1, 2.5)])

    def forgot(a: float, b: float) -> None:
        _ = a + b

    assert "needs a `return`" in exercise.verdict(forgot)


def test_a_wrong_case_shows_input_expected_and_got() -> None:
    exercise = Exercise(truth=lambda a, b: a + b, cases=[(1, 2.5), (torch.ones(3, 2), 1)])
    assert exercise.verdict(lambda a, b: a * b).endswith(
        "case 1: input a = 1, b = 2.5; expected 3.5, got 2.5"
    )
    second = exercise.verdict(lambda a, b: a + b if isinstance(a, int) else a)
    assert "case 2: input a = [3, 2] starting 1, 1" in second
    assert second.endswith("got [3, 2] starting 1, 1, 1, 1, 1, 1")


def test_a_mistake_is_known_when_it_is_written_into_the_argument() -> None:
    def doubles(a: torch.Tensor) -> torch.Tensor:
        return a.mul_(2)

    hints = {"nothing is changed": lambda a: a, "twice is not thrice": lambda a: 2 * a}
    exercise = Exercise(truth=lambda a: 3 * a, cases=[(torch.ones(2),)], mistakes=hints)
    assert "twice is not thrice" in exercise.verdict(doubles)


def test_an_exception_says_its_line() -> None:
    def fails(a: torch.Tensor) -> torch.Tensor:
        b = a + 1
        return b.reshape(5)

    said = Exercise(truth=lambda a: a, cases=[(torch.zeros(2),)]).verdict(fails)
    assert said.startswith("✗ case 1 raised RuntimeError")
    assert said.endswith("line 3 of your function: return b.reshape(5)")


def test_the_readers_function_is_used_when_it_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    exercise = Exercise(truth=lambda a: a + 1, cases=[(1,)])

    def mine(a: int) -> int:
        return 1 + a

    assert exercise.yours(mine) is mine
    assert exercise.yours(lambda a: a) is exercise.truth
    assert capsys.readouterr().out.splitlines()[1] == "uses the course's function until yours is right"


def test_unknown_mistake_says_how_far_off() -> None:
    assert "off by" in camera_position.verdict(lambda *_: torch.full((3,), 17.0))
    assert "expected shape [3]" in camera_position.verdict(lambda *_: torch.zeros(2))


def test_cases_survive_answers_that_change_them() -> None:
    """A wrong answer that writes into its input must not change what the next answer is compared with."""
    exercise = EXERCISES["nb06.exchange_plane"]
    right = exercise.verdict(exercise.truth)

    def overwrites(a: torch.Tensor, b: torch.Tensor, *_: Any) -> torch.Tensor:
        a[:] = b
        return a

    assert exercise.verdict(overwrites).startswith("✗")
    assert exercise.verdict(lambda a, *_: a).startswith("✗")
    assert exercise.verdict(exercise.truth) == right


def test_a_right_result_that_changes_its_input_is_told() -> None:
    exercise = EXERCISES["nb06.exchange_plane"]

    def in_place(a: torch.Tensor, *rest: Any) -> torch.Tensor:
        a.copy_(exercise.truth(a.clone(), *rest))
        return a

    assert "the input was changed" in exercise.verdict(in_place)


def test_an_answer_that_fails_on_a_later_case_never_raises() -> None:
    wrong = next(iter(camera_position.mistakes.values()))

    def fails_later(yaw: float, pitch: float, radius: float) -> Any:
        if pitch:
            raise KeyError(1)
        return wrong(yaw, pitch, radius)

    assert camera_position.verdict(fails_later).startswith("✗ off by")


def test_the_exercise_of_notebook_10_is_the_librarys_distance() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(12, 4, generator=generator), torch.randn(15, 4, generator=generator)
    own = EXERCISES["nb10a.kernel_distance"].truth(x.double(), y.double())
    assert float(own) == pytest.approx(distances.kernel_distance(x, y, 2).value, rel=1e-6)
