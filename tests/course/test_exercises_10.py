"""The right answer passes, every planted wrong one is recognised."""

from __future__ import annotations

import pytest

from head3d_core.course import exercises_10
from head3d_core.course.exercises import Exercise

ALL = {name: e for name, e in vars(exercises_10).items() if isinstance(e, Exercise)}


@pytest.mark.parametrize("name", ALL)
def test_the_truth_passes(name: str) -> None:
    exercise = ALL[name]
    assert exercise.verdict(exercise.truth) == f"✓ correct on {len(exercise.cases)} cases"
    assert exercise.verdict(lambda *_: None) == "○ not attempted"


@pytest.mark.parametrize("name", ALL)
def test_each_mistake_is_named(name: str) -> None:
    exercise = ALL[name]
    for mistake in exercise.mistakes:
        assert exercise.verdict(mistake.answer) == f"✗ {mistake.hint}"
    assert exercise.verdict(lambda *_: 12.34).startswith("✗ case 1")


def test_the_exercise_is_the_librarys_distance() -> None:
    import torch

    from head3d_core.metrics.distances import kernel_distance

    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(12, 4, generator=generator), torch.randn(15, 4, generator=generator)
    own = exercises_10.kernel_distance.truth(x.double(), y.double())
    assert float(own) == pytest.approx(kernel_distance(x, y, 2).value, rel=1e-6)
