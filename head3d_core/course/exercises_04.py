"""Exercise checks of notebook 04, in the manner of `checks.py`: data sets, conventions, statistics of light."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from head3d_core.course import figures_04
from head3d_core.course.exercises import Exercise, Mistake
from head3d_core.model import cameras

_BACK = math.radians(figures_04.BACK)


def _poses() -> Tensor:
    camera = cameras.orbit(torch.tensor([0.0, 0.7, -2.6, 3.0]), torch.tensor([0.0, 0.3, -0.2, 0.4]))
    return cameras.unpack(camera)[0].double()


back_share = Exercise(
    truth=figures_04.share_of_back_views,
    cases=[
        (torch.tensor([0.0, 3.0, -3.0, 1.0]),),
        (torch.tensor([2.4, 2.3, -2.4, -2.3, 0.1]),),
        (torch.tensor([2 * math.pi, 2 * math.pi - 3.0, 4.0]),),
    ],
    mistakes=[
        Mistake(
            lambda yaw: (yaw >= _BACK).float().mean(),
            "only one side counts: the back is seen from yaw +135 up and from -135 down",
        ),
        Mistake(
            lambda yaw: (yaw.abs() >= _BACK).float().mean(),
            "a yaw of 360 degrees is the front again: wrap the angle into (-pi, pi] first",
        ),
        Mistake(
            lambda yaw: (torch.atan2(yaw.sin(), yaw.cos()).abs() >= figures_04.BACK).float().mean(),
            "radians are compared with degrees: 135 degrees are 3/4 pi",
        ),
        Mistake(
            lambda yaw: (torch.atan2(yaw.sin(), yaw.cos()).abs() >= _BACK).float().sum(),
            "this is the number of back views: divide by how many cameras there are",
        ),
    ],
)


def _columns(matrix: Tensor, *signs: float) -> Tensor:
    return matrix * matrix.new_tensor([*signs, 1.0])


def _from_opengl(cam2world: Tensor) -> Tensor:
    """cam2world [..., 4, 4] with OpenGL's camera axes -> the same pose with OpenCV's; it undoes itself."""
    return _columns(cam2world, 1, -1, -1)


from_opengl = Exercise(
    truth=_from_opengl,
    cases=[(_from_opengl(_poses())[k],) for k in range(4)],
    mistakes=[
        Mistake(
            lambda m: m * m.new_tensor([1.0, -1.0, -1.0, 1.0])[:, None],
            "the rows are flipped, which turns the world: the camera's axes are the columns",
        ),
        Mistake(
            lambda m: _columns(m, 1, 1, -1),
            "only z is flipped, which mirrors the camera (determinant -1): y changes its direction too",
        ),
        Mistake(
            lambda m: _columns(m, 1, -1, 1),
            "only y is flipped, which mirrors the camera: z changes its direction too",
        ),
        Mistake(
            lambda m: torch.linalg.inv(m),
            "this is world2cam: both conventions are cam2world, so no inverse is needed",
        ),
        Mistake(lambda m: m, "nothing is changed: OpenGL's camera looks along -z, OpenCV's along +z"),
    ],
)


def _picture(seed: int) -> tuple[Tensor, Tensor]:
    """A bright round head on white, lit from one side: brightness and mask [8, 8]."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.linspace(-1, 1, 8), torch.linspace(-1, 1, 8), indexing="ij")
    mask = ((x - 0.3 * (seed - 1)) ** 2 + y**2 < 0.6).double()
    shade = 0.4 + 0.3 * (1 - 2 * (seed % 2)) * x + 0.05 * torch.rand(8, 8, generator=generator)
    return torch.where(mask > 0, shade.double(), torch.ones(8, 8, dtype=torch.float64)), mask


def _side(brightness: Tensor, mask: Tensor) -> Tensor:
    half = brightness.shape[-1] // 2
    left = (brightness[:, :half] * mask[:, :half]).sum() / mask[:, :half].sum()
    right = (brightness[:, half:] * mask[:, half:]).sum() / mask[:, half:].sum()
    return (left - right) / (left + right)


def _sums(brightness: Tensor, mask: Tensor) -> Tensor:
    half = brightness.shape[-1] // 2
    left, right = (brightness * mask)[:, :half].sum(), (brightness * mask)[:, half:].sum()
    return (left - right) / (left + right)


def _halves(brightness: Tensor, mask: Tensor) -> Tensor:
    half = brightness.shape[-1] // 2
    left, right = (brightness * mask)[:, :half].mean(), (brightness * mask)[:, half:].mean()
    return (left - right) / (left + right)


side_light = Exercise(
    truth=_side,
    cases=[_picture(seed) for seed in range(4)],
    mistakes=[
        Mistake(
            lambda b, m: _side(b, torch.ones_like(m)),
            "the white background is counted as well: weight by the mask",
        ),
        Mistake(lambda b, m: -_side(b, m), "the sign is turned: left minus right"),
        Mistake(
            _sums,
            "sums instead of means: a head further left would look lit from the left; divide by the mask's sum",
        ),
        Mistake(lambda b, m: 2 * _side(b, m), "divide by the sum of both sides, not by their mean"),
    ],
)
