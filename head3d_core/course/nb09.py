"""Notebook 09: two discriminators."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from head3d_core.course import figures
from head3d_core.course.exercises import Exercise, random, wrong
from head3d_core.evaluation.tables import Records
from head3d_core.training import losses
from head3d_core.utils.estimates import Estimate

STARTED_ALIKE = {
    "two discriminators": ("head3d-seed0-fitted", "head3d-seed1-fitted"),
    "one discriminator": ("single-d-seed0-fitted", "single-d-seed1-fitted"),
    "all planes distilled": ("all-planes", "all-planes-seed1-fitted"),
}
"""Recipe -> its rows with seeds 0 and 1, all from discriminators that were fitted first."""


def distance_by_yaw(record: Mapping[str, Any]) -> dict[tuple[int, int], Estimate]:
    """Kernel distance × 100 of a row to real people seen from the same side, by step of |yaw| (degrees)."""
    steps = [step for step in record.get("by_yaw", []) if step.get("distance", {}).get("kernel")]
    return {(step["low"], step["high"]): Estimate.of(step["distance"]["kernel"]) for step in steps}


def yaw_figure(records: Records, least: float = 45.0) -> Any:
    """The distance by yaw, from `least` degrees on: a colour a recipe of `STARTED_ALIKE`, a line style a seed."""
    figure, axis = figures.panels(8.5, 4.0)
    for k, (name, rows) in enumerate(STARTED_ALIKE.items()):
        for seed, row in enumerate(rows):
            found = {step: e for step, e in distance_by_yaw(records.get(row, {})).items() if step[0] >= least}
            x = [sum(step) / 2 for step in found]
            band = ([e.low for e in found.values()], [e.high for e in found.values()])
            style: dict[str, Any] = {"color": figures.PALETTE[k], "linestyle": figures.STYLES[seed]}
            label = f"{name}, seed {seed}"
            axis.plot(x, [e.value for e in found.values()], marker=figures.MARKERS[k], label=label, **style)
            axis.fill_between(x, *band, color=figures.PALETTE[k], alpha=0.12, linewidth=0)
    axis.set(xlabel="|yaw| (degrees)", ylabel="KD × 100 to real people", xticks=range(45, 181, 15))
    axis.grid(alpha=0.3)
    axis.legend(fontsize=9)
    return figure


def farther_steps(records: Records, recipe: str) -> list[list[str]]:
    """Steps of |yaw| at which each run of a recipe is farther from real people than two discriminators, seed by seed.

    A step counts if the two 95 % intervals are apart.
    """
    found = []
    for full, other in zip(STARTED_ALIKE["two discriminators"], STARTED_ALIKE[recipe], strict=True):
        a, b = (distance_by_yaw(records.get(row, {})) for row in (full, other))
        found.append(
            [f"{low}–{high}°" for low, high in a if (e := b.get((low, high))) and e.low > a[low, high].high]
        )
    return found


# --- exercises --------------------------------------------------------------------------------------------------------


def _back_share(faces: int, backs: int, share: float, weight: float, together: bool) -> float:
    """Back views' share in what moves the generator."""
    if together:
        return backs / (faces + backs)
    return share * weight / (share * weight + (1 - share))


back_influence = Exercise(
    truth=_back_share,
    cases=[
        (20000, 2400, 0.5, 10.0, True),
        (20000, 2400, 0.5, 10.0, False),
        (1000, 1000, 0.25, 1.0, False),
        (300, 100, 0.5, 1.0, True),
    ],
    mistakes=wrong(
        "with two discriminators each step draws from its own set: how many pictures that has no longer counts",
        lambda f, b, s, w, one: b / (f + b),
        "the weight is missing: D_back's loss counts λ times as much as D_front's",
        lambda f, b, s, w, one: b / (f + b) if one else s,
        "the alternation is missing: only `share` of the steps listen to D_back",
        lambda f, b, s, w, one: b / (f + b) if one else w / (w + 1),
        "divide by all pictures, not by the faces alone",
        lambda f, b, s, w, one: b / f if one else _back_share(f, b, s, w, one),
    ),
    tolerance=1e-6,
)


def _domain_at(step: int, share: float) -> int:
    return math.floor((step + 1) * share) - math.floor(step * share)


def _schedule(share: float, steps: int) -> Tensor:
    return torch.tensor([_domain_at(step, share) for step in range(steps)])


schedule = Exercise(
    truth=_schedule,
    cases=[(0.5, 8), (0.25, 12), (0.75, 8), (0.1, 30)],
    mistakes=wrong(
        "strict alternation is only right for a share of one half",
        lambda share, steps: torch.arange(steps) % 2,
        "the steps are not spread: G would forget the front while it trains on backs alone",
        lambda share, steps: (torch.arange(steps) >= steps * (1 - share)).long(),
        "0 is D_front and 1 is D_back: you have them the other way round",
        lambda share, steps: 1 - _schedule(share, steps),
        "one step late: step 0 takes floor(1 share) - floor(0 share)",
        lambda share, steps: torch.tensor([_domain_at(step - 1, share) for step in range(steps)]),
    ),
)


def _d_loss(real: Tensor, fake: Tensor, gradient_norm: Tensor, gamma: float) -> Tensor:
    """Eq. 6 for one discriminator, D high for real, as a loss to minimise."""
    return losses.discriminator_loss(real, fake) + gamma / 2 * gradient_norm.square().mean()


discriminator_loss = Exercise(
    truth=_d_loss,
    cases=[
        (random(18, 4, 1) + 1, random(19, 4, 1) - 1, random(20, 4).abs(), 20.0),
        (torch.zeros(2, 1), torch.zeros(2, 1), torch.ones(2), 1.0),
    ],
    mistakes=wrong(
        "real and fake are exchanged: here D is high for real pictures (Eq. 6 as printed has it high for fakes)",
        lambda r, f, g, gamma: _d_loss(f, r, g, gamma),
        "this is Eq. 6 letter by letter, which D would have to maximise: flip the signs and make it a loss",
        lambda r, f, g, gamma: -F.softplus(-f).mean() - F.softplus(r).mean() + gamma * g.square().mean(),
        "the penalty has the wrong sign: D would be rewarded for steep slopes",
        lambda r, f, g, gamma: losses.discriminator_loss(r, f) - gamma / 2 * g.square().mean(),
        "half of gamma is missing: the code adds γ/2 ‖∇D‖²",
        lambda r, f, g, gamma: losses.discriminator_loss(r, f) + gamma * g.square().mean(),
    ),
)
