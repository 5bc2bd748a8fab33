"""Exercise checks: `check.name(my_function)` prints one line and never raises.

``○ not attempted`` while the stub returns None, ``✓ correct on N cases``, or ``✗`` with the misconception named.
Each exercise lists its typical wrong answers as code; the same list is what the tests plant.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from head3d_core.model import cameras

Answer = Callable[..., Any]


@dataclass(frozen=True)
class Mistake:
    """A typical wrong answer and what to say about it."""

    answer: Answer
    hint: str


@dataclass(frozen=True)
class Exercise:
    """A function to write: inputs, the right answer, typical wrong ones."""

    truth: Answer
    cases: list[tuple[Any, ...]]
    mistakes: list[Mistake] = field(default_factory=list)
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
        for mistake in self.mistakes:
            try:
                alike = all(
                    not self._difference(_call(answer, c), _call(mistake.answer, c)) for c in self.cases
                )
            except Exception:  # the reader's code fails on a later case: then it is no mistake that we know
                continue
            if alike:
                return mistake.hint
        return ""


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
    return answer(
        *[_copy(a) for a in case]
    )  # copies: whatever it does to them, the next call sees the case as it was


def _vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# 01: cameras and rays


def _position(yaw: float, pitch: float, radius: float) -> Tensor:
    return radius * _vector(math.sin(yaw) * math.cos(pitch), math.sin(pitch), math.cos(yaw) * math.cos(pitch))


camera_position = Exercise(
    truth=_position,
    cases=[(0.0, 0.0, 2.7), (math.pi / 2, 0.0, 2.7), (0.4, 0.2, 2.7), (math.pi, -0.3, 1.0)],
    mistakes=[
        Mistake(
            lambda y, p, r: _position(math.pi / 2 - y, p, r),
            "sine and cosine of the yaw are exchanged: yaw 0 must be the front, on the +z axis",
        ),
        Mistake(
            lambda y, p, r: _position(-y, p, r), "positive yaw moves the camera to +x (the subject's left)"
        ),
        Mistake(
            lambda y, p, r: _position(y, -p, r),
            "positive pitch moves the camera up: the world has y up, though the image has y down",
        ),
        Mistake(
            lambda y, p, r: r * _vector(math.sin(y), math.sin(p), math.cos(y)),
            "the camera leaves its sphere: x and z need a factor cos(pitch)",
        ),
    ],
)


def _direction(focal: float, row: int, col: int, resolution: int, half: float = 0.5) -> Tensor:
    x = ((col + half) / resolution - 0.5) / focal
    y = ((row + half) / resolution - 0.5) / focal
    return F.normalize(_vector(x, y, 1.0), dim=0)


pixel_direction = Exercise(
    truth=_direction,
    cases=[(4.2647, 0, 0, 4), (4.2647, 1, 2, 4), (1.0, 3, 0, 4), (2.0, 10, 63, 64)],
    mistakes=[
        Mistake(
            lambda f, r, c, n: _direction(f, r, c, n, half=0.0),
            "a ray leaves through the centre of its pixel: (col + 0.5) / R",
        ),
        Mistake(
            lambda f, r, c, n: _direction(f, c, r, n),
            "rows and columns are exchanged: x goes with the column",
        ),
        Mistake(
            lambda f, r, c, n: _direction(f, r, c, n) * _vector(1, -1, 1),
            "the camera's y axis points down, like the rows of the image",
        ),
        Mistake(
            lambda f, r, c, n: _direction(f, r, c, n) / _direction(f, r, c, n)[2],
            "the direction must have length 1, or depths are not distances",
        ),
    ],
    tolerance=1e-5,
)


def _mirror(camera: Tensor) -> Tensor:
    return cameras.mirror(camera[None])[0]


def _mirror_position_only(camera: Tensor) -> Tensor:
    flipped = camera.clone()
    flipped[3] *= -1
    return flipped


def _mirror_rotation_only(camera: Tensor) -> Tensor:
    flipped = _mirror(camera)
    flipped[3] = camera[3]
    return flipped


mirror_camera = Exercise(
    truth=_mirror,
    cases=[(cameras.orbit(0.3, 0.1)[0],), (cameras.orbit(-1.2, -0.2)[0],), (cameras.orbit(2.5, 0.4)[0],)],
    mistakes=[
        Mistake(lambda c: c, "flipping the picture without its camera teaches the wrong pose"),
        Mistake(_mirror_position_only, "the position is mirrored, but the camera still looks the old way"),
        Mistake(_mirror_rotation_only, "the camera is turned, but it still stands on the old side"),
    ],
)


# 02: three planes make a volume


def _third_plane(point: Tensor, box_warp: float, order: tuple[int, int] = (1, 2)) -> Tensor:
    return torch.stack([point[order[0]], point[order[1]]]) * (2 / box_warp)


third_plane = Exercise(
    truth=_third_plane,
    cases=[
        (torch.tensor([0.1, 0.2, 0.3]), 1.0),
        (torch.tensor([-0.4, 0.5, 0.0]), 1.0),
        (torch.tensor([0.3, -0.6, 0.7]), 1.6),
    ],
    mistakes=[
        Mistake(
            lambda p, b: _third_plane(p, b, (2, 0)),
            "you used (z, x): that is what EG3D's released code does; a third plane should see (y, z)",
        ),
        Mistake(lambda p, b: _third_plane(p, b, (2, 1)), "the column is y and the row is z, not the reverse"),
        Mistake(
            lambda p, b: _third_plane(p, b) * b / 2, "scale by 2 / box_warp, so that the cube becomes [-1, 1]"
        ),
    ],
)


def _texel(u: float, width: int) -> Tensor:
    return _vector(((u + 1) * width - 1) / 2)[0]


texel = Exercise(
    truth=_texel,
    cases=[(-1.0, 4), (0.0, 4), (0.75, 4), (1.0, 256)],
    mistakes=[
        Mistake(
            lambda u, w: _vector((u + 1) / 2 * (w - 1))[0],
            "that puts u = -1 on the first texel's centre (align_corners=True); here it is the texel's outer edge",
        ),
        Mistake(
            lambda u, w: _vector((u + 1) / 2 * w)[0],
            "half a texel too far: texel 0 has its centre at u = 1/W - 1",
        ),
    ],
)


def _ray_weights(sigma: Tensor, delta: Tensor, shift: float = 1.0) -> Tensor:
    alpha = 1 - torch.exp(-F.softplus(sigma - shift) * delta)
    through = torch.cumprod(1 - alpha, 0)
    return alpha * torch.cat([torch.ones(1, dtype=through.dtype), through[:-1]])


def _inclusive(sigma: Tensor, delta: Tensor) -> Tensor:
    alpha = 1 - torch.exp(-F.softplus(sigma - 1) * delta)
    return alpha * torch.cumprod(1 - alpha, 0)


ray_weights = Exercise(
    truth=_ray_weights,
    cases=[
        (torch.tensor([0.0, 3.0, 8.0, -4.0]), torch.tensor([0.1, 0.1, 0.1, 0.1])),
        (torch.tensor([-9.0, 12.0, 12.0]), torch.tensor([0.5, 0.25, 0.25])),
        (torch.zeros(5), torch.linspace(0.1, 0.5, 5)),
    ],
    mistakes=[
        Mistake(
            lambda s, d: _ray_weights(s, d, 0.0),
            "density = softplus(sigma - 1): without the -1 empty space is foggy",
        ),
        Mistake(
            lambda s, d: 1 - torch.exp(-F.softplus(s - 1) * d),
            "that is alpha alone: multiply by the light that is left, the product of (1 - alpha) before it",
        ),
        Mistake(
            _inclusive,
            "the transmittance of interval i takes the intervals before i, not i itself: shift the product",
        ),
        Mistake(
            lambda s, d: _ray_weights(s, torch.ones_like(d)),
            "the length of the interval is missing: alpha = 1 - exp(-density * delta)",
        ),
    ],
)
