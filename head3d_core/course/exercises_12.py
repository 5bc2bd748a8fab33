"""Exercises of notebook 12: places in a grid, outward normals, distances between surfaces."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from head3d_core.course.exercises import Exercise, Mistake


def _grid_point(index: int, resolution: int, box_warp: float) -> float:
    return -box_warp / 2 + box_warp * index / (resolution - 1)


grid_point = Exercise(
    truth=_grid_point,
    cases=[(0, 5, 1.0), (4, 5, 1.0), (3, 9, 1.6), (100, 256, 1.0)],
    mistakes=[
        Mistake(
            lambda i, r, b: -b / 2 + b * i / r,
            "the last point stands on the far face: r points have r - 1 gaps between them",
        ),
        Mistake(
            lambda i, r, b: -b / 2 + b * (i + 0.5) / r,
            "that is the middle of a cell; the grid's points stand on the faces of the cube, not half a cell inside",
        ),
        Mistake(lambda i, r, b: b * i / (r - 1), "the cube is centred: index 0 stands at -box_warp / 2"),
        Mistake(
            lambda i, r, b: -1 + 2 * i / (r - 1),
            "world units: the cube's side is box_warp, it is not [-1, 1]",
        ),
    ],
    tolerance=1e-6,
)


def _outward(plus: Tensor, minus: Tensor) -> Tensor:
    return F.normalize(minus - plus, dim=0)


outward_normal = Exercise(
    truth=_outward,
    cases=[
        (torch.tensor([1.0, 2.0, -9.0]), torch.tensor([1.5, 2.0, 3.0])),
        (torch.tensor([-4.0, 0.0, 0.5]), torch.tensor([2.0, 1.0, 0.0])),
        (torch.tensor([10.0, 3.0, 7.0]), torch.tensor([9.0, 5.0, 7.5])),
    ],
    mistakes=[
        Mistake(
            lambda p, m: F.normalize(p - m, dim=0),
            "that points inwards, where sigma rises: the normal points to where it falls",
        ),
        Mistake(lambda p, m: m - p, "a normal has length 1"),
        Mistake(
            lambda p, m: F.normalize(m + p, dim=0), "a derivative is a difference of the two sides, not a sum"
        ),
    ],
    tolerance=1e-5,
)


def _nearest(a: Tensor, b: Tensor) -> Tensor:
    return (a[:, None] - b[None]).norm(dim=-1).min(1).values


def _chamfer(a: Tensor, b: Tensor) -> float:
    return float((_nearest(a, b).mean() + _nearest(b, a).mean()) / 2)


_DRAW = torch.Generator().manual_seed(4)

chamfer = Exercise(
    truth=_chamfer,
    cases=[
        (torch.tensor([[0.0, 0, 0], [1, 0, 0]]), torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 3, 0]])),
        (torch.rand(20, 3, generator=_DRAW), torch.rand(31, 3, generator=_DRAW)),
        (torch.rand(8, 3, generator=_DRAW), 2 + torch.rand(5, 3, generator=_DRAW)),
    ],
    mistakes=[
        Mistake(
            lambda a, b: float(_nearest(a, b).mean()),
            "one way only: half a head is accurate, but not complete; average both ways",
        ),
        Mistake(
            lambda a, b: float(_nearest(b, a).mean()),
            "one way only: a head with floaters is complete, but not accurate; average both ways",
        ),
        Mistake(
            lambda a, b: float((_nearest(a, b).square().mean() + _nearest(b, a).square().mean()) / 2),
            "those are squares: here the distances are averaged, so that the result is a length",
        ),
        Mistake(
            lambda a, b: float((a[:, None] - b[None]).norm(dim=-1).mean()),
            "each point is compared with its nearest one, not with all",
        ),
        Mistake(lambda a, b: 2 * _chamfer(a, b), "the mean of the two ways, not their sum"),
    ],
    tolerance=1e-5,
)
