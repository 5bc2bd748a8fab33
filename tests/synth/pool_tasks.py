"""What the processes of a pool do in `test_synth_sets.py`: in a file of its own, which a new process reads at once."""

from __future__ import annotations

from head3d_core.utils.errors import Head3DError


def no_renderer() -> None:
    """A start that fails."""
    raise Head3DError("No OpenGL here.")


def double(state: object, task: list[tuple[int, int]]) -> list[int]:
    """Twice the indices of a task."""
    return [2 * index for _, index in task]
