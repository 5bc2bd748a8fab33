"""Exercise checks: `check.name(my_function)` prints one line and never raises.

``○ not attempted`` while the stub returns None, ``✓ correct on N cases``, or ``✗`` with the misconception named.
Each exercise lists its typical wrong answers as code; the same list is what the tests plant. The exercises themselves
stand in the modules `nbNN`, one for each notebook.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Answer = Callable[..., Any]


@dataclass(frozen=True)
class Exercise:
    """A function to write: inputs, the right answer, typical wrong ones."""

    truth: Answer
    cases: list[tuple[Any, ...]]
    mistakes: dict[str, Answer] = field(default_factory=dict)
    """What to say about a typical wrong answer -> that answer."""
    tolerance: float = 1e-4
    keeps_inputs: bool = False
    """The exercise asks to leave its inputs as they are."""

    def __call__(self, answer: Answer) -> None:
        """Prints the verdict on `answer`; never raises."""
        print(self.verdict(answer))

    def verdict(self, answer: Answer) -> str:
        """The line that calling the exercise prints."""
        for number, case in enumerate(self.cases, 1):
            given = [_copy(a) for a in case]
            try:
                result = answer(*given)
            except NotImplementedError:
                return "○ not attempted"
            except Exception as error:  # whatever the reader's code raises becomes the verdict
                return f"✗ case {number} raised {type(error).__name__}: {error}"
            if result is None or result is Ellipsis:
                return "○ not attempted"
            problem = self._difference(result, self.truth(*case))
            if problem:
                return f"✗ {self._recognise(answer) or f'case {number}: {problem}'}"
            if self.keeps_inputs and not all(map(_same, given, case)):
                return f"✗ case {number}: the result is right, but the input was changed: work on a copy"
        return f"✓ correct on {len(self.cases)} cases"

    def _difference(self, result: Any, truth: Any) -> str:
        try:
            got = torch.as_tensor(result, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError):
            return f"expected numbers, got {type(result).__name__}"
        want = torch.as_tensor(truth, dtype=torch.float64)
        if got.shape != want.shape:
            return f"expected shape {list(want.shape)}, got {list(got.shape)}"
        if not bool(torch.isfinite(got).all()):
            return "the answer has values that are not finite"
        error = float((got - want).abs().max()) if want.numel() else 0.0
        scale = max(1.0, float(want.abs().max())) if want.numel() else 1.0
        return "" if error <= self.tolerance * scale else f"off by up to {error:.2g}"

    def _recognise(self, answer: Answer) -> str:
        for hint, wrong in self.mistakes.items():
            try:
                pairs = [(_call(answer, case), _call(wrong, case)) for case in self.cases]
                if not any(self._difference(*pair) for pair in pairs):
                    return hint
            except Exception:  # the reader's code fails on a later case: then it is no mistake that we know
                continue
        return ""


def wrong(*pairs: Any) -> dict[str, Answer]:
    """Typical wrong answers, written as a hint, the answer that it is for, the next hint, and so on."""
    return dict(zip(pairs[::2], pairs[1::2], strict=True))


def vector(*values: float) -> Tensor:
    """Numbers as a float64 tensor [n]."""
    return torch.tensor(values, dtype=torch.float64)


def random(seed: int, *shape: int) -> Tensor:
    """Normal numbers of a shape, the same for the same seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _copy(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(map(_copy, value))
    return value.clone() if isinstance(value, Tensor) else copy.copy(value)


def _same(value: Any, before: Any) -> bool:
    if isinstance(value, list | tuple):
        return len(value) == len(before) and all(map(_same, value, before))
    if isinstance(value, Tensor):
        return value.shape == before.shape and bool(((value == before) | (value != value)).all())
    return True


def _call(answer: Answer, case: tuple[Any, ...]) -> Any:
    """The answer on copies: whatever it does to them, the next call sees the case as it was."""
    return answer(*map(_copy, case))
