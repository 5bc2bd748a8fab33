"""Exercise checks: `check.name(answer)` prints a verdict and never raises.

``○ not attempted`` for a stub, ``✓ correct on N cases``, or ``✗`` with the misconception and the case that shows it.
Each exercise lists its typical wrong answers as code; tests plant the same list. The exercises themselves are in the
modules `nbNN`, one for each notebook.
"""

from __future__ import annotations

import copy
import dis
import inspect
import linecache
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from head3d_course import words

Answer = Callable[..., Any]
NOT_ATTEMPTED = "○ not attempted"


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
        """The text that calling the exercise prints."""
        for number, case in enumerate(self.cases, 1):
            given = copy.deepcopy(case)
            try:
                result = answer(*given)
            except NotImplementedError:
                return NOT_ATTEMPTED
            except Exception as error:  # whatever the reader's code raises becomes the verdict
                return f"✗ case {number} raised {type(error).__name__}: {error}{_line(error, answer)}"
            if result is Ellipsis or (result is None and _is_stub(answer)):
                return NOT_ATTEMPTED
            if result is None:
                return "✗ the function ran and gave nothing back: its last line needs a `return`"
            truth = self.truth(*copy.deepcopy(case))
            problem = self._difference(result, truth)
            if problem:
                shown = f"input {_inputs(self.truth, case)}; expected {_brief(truth)}, got {_brief(result)}"
                return f"✗ {self._recognise(answer) or problem}\n  case {number}: {shown}"
            pairs = [pair for pair in zip(given, case, strict=True) if isinstance(pair[0], Tensor)]
            if self.keeps_inputs and not all(torch.equal(*pair) for pair in pairs):
                return f"✗ case {number}: the result is right, but the input was changed: work on a copy"
        return f"✓ correct on {len(self.cases)} cases"

    def yours(self, answer: Answer) -> Answer:
        """The reader's function if it is right, else the course's; prints which. For what the next figure draws."""
        right = self.verdict(answer).startswith("✓")
        print("uses your function" if right else "uses the course's function until yours is right")
        return answer if right else self.truth

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
                # One copy for each answer: the reader's may write into its arguments.
                copies = [(copy.deepcopy(case), copy.deepcopy(case)) for case in self.cases]
                if not any(self._difference(answer(*mine), wrong(*its)) for mine, its in copies):
                    return hint
            except Exception:  # the reader's code fails on a later case: then it is no mistake that we know
                continue
        return ""


@dataclass(frozen=True)
class Choice:
    """A question with an answer to pick: find the bug, read the figure, design the experiment."""

    right: str
    replies: dict[str, str]
    """Every answer -> what to say to it; that to the right one says why."""

    def __call__(self, answer: Any) -> None:
        """Prints the verdict on `answer`, a key of `replies` in either case; never raises."""
        print(self.verdict(answer))

    def verdict(self, answer: Any) -> str:
        """The line that calling the question prints."""
        if answer is Ellipsis or answer is None or answer == "":
            return NOT_ATTEMPTED
        picked = str(answer).strip().upper()
        if picked not in self.replies:
            return f"✗ expected one of {', '.join(self.replies)}, got {picked}"
        return f"{'✓' if picked == self.right else '✗'} {self.replies[picked]}"


def choice(name: str) -> Choice:
    """The question `name` of `choices.json`, such as "04.which_gap"."""
    return Choice(**words("choices")[name])


def vector(*values: float) -> Tensor:
    """Numbers as a float64 tensor [n]."""
    return torch.tensor(values, dtype=torch.float64)


def random(seed: int, *shape: int) -> Tensor:
    """Normal numbers of a shape, the same for the same seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _is_stub(answer: Answer) -> bool:
    """Whether a function's body is `...`, `pass` or `return None`."""
    code = getattr(answer, "__code__", None)
    empty = {"RESUME", "NOP", "LOAD_CONST", "RETURN_VALUE", "RETURN_CONST"}
    return code is not None and {step.opname for step in dis.get_instructions(code)} <= empty


def _line(error: Exception, answer: Answer) -> str:
    """Where in the reader's function an error arose: the number of the line in it, and the line."""
    code = getattr(answer, "__code__", None)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if code is not None and frame.filename == code.co_filename and frame.lineno:
            text = linecache.getline(frame.filename, frame.lineno).strip()
            number = frame.lineno - code.co_firstlineno + 1
            return f"\n  line {number} of your function{': ' if text else ''}{text}"
    return ""


def _inputs(function: Answer, case: tuple[Any, ...]) -> str:
    names = [*inspect.signature(function).parameters][: len(case)]
    return ", ".join(f"{name} = {_brief(value)}" for name, value in zip(names, case, strict=False))


def _brief(value: Any) -> str:
    """A value in a few words: numbers as they are, of a large tensor its shape and first numbers."""
    if isinstance(value, bool | int | str):
        return repr(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple) and not all(isinstance(v, int | float) for v in value):
        return "[" + ", ".join(map(_brief, value)) + "]"
    try:
        numbers = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        return type(value).__name__
    first = ", ".join(f"{float(v):.4g}" for v in numbers.flatten()[:6])
    if numbers.ndim == 0:
        return first
    if numbers.ndim == 1 and len(numbers) <= 6:
        return f"[{first}]"
    return f"{list(numbers.shape)} starting {first}"
