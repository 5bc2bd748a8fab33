"""Notebook 06: exchanges, the plane-swap lab's stills, its recorded tables, and planes in colour."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from head3d_core.config import PLANE_NAMES
from head3d_core.experiments import plane_swap, swap_study
from head3d_core.model import cameras
from head3d_core.model.generator import Generator
from head3d_core.model.planes import PROJECTION
from head3d_core.model.seeds import Heads
from head3d_core.utils import records
from head3d_core.utils.estimates import Estimate
from head3d_course import figures
from head3d_course.exercises import Exercise, choice, random
from head3d_course.swap_lab import HEAT_LIMIT, Shown

# --- exchanges --------------------------------------------------------------------------------------------------------


def swap_row(G: Generator, one: Heads, G_second: Generator, two: Heads, camera: Tensor) -> Tensor:
    """One row of Fig. 2 or 3: head 1, head 2, then head 1 with each plane of head 2, [5, 3, R, R].

    Args:
        G: of head 1; it decodes and finishes the mixtures.
        one, two: one head each.
        camera: [1, 25].
    """
    names = PLANE_NAMES[G.config.render.axes]
    drawn = [(G, one.planes, one.ws), (G_second, two.planes, two.ws)]
    drawn += [(G, *plane_swap.mix(one, two, plane_swap.exchange(name))) for name in names]
    return torch.cat([plane_swap.finish(net, planes, ws, camera).image for net, planes, ws in drawn])


def shown_states(shown: Sequence[Shown], titles: Sequence[str]) -> Any:
    """The still of the widget: images of some states above their difference to head A."""
    figure, axes = figures.panels(1.9 * len(shown) + 0.6, 4.3, 2, len(shown))
    for column, (one, title) in enumerate(zip(shown, titles, strict=True)):
        likeness = ""
        if one.similarity is not None:
            likeness = f"\nto A {one.similarity[0]:.2f}, to B {one.similarity[1]:.2f}"
        axes[0, column].imshow(one.picture)
        axes[0, column].set_title(title + likeness, fontsize=10)
        drawn = axes[1, column].imshow(one.heat, cmap="cividis", vmin=0, vmax=HEAT_LIMIT)
    for axis in axes.flat:
        axis.axis("off")
    figure.colorbar(drawn, ax=axes[1], shrink=0.8, extend="max", label="difference to A")
    return figure


# --- records ----------------------------------------------------------------------------------------------------------


def carried_dots(*studies: dict[str, Any]) -> Any:
    """The share of each measure's difference that travels with each plane, with its 95 % interval (see `swap_study`).

    One panel for each study, titled with its axes where there are several.
    """
    measures = list(studies[0]["measures"])
    height = 0.45 * len(measures) + 1.2
    figure, panels = figures.panels(8.5, height * len(studies), len(studies), sharex=True, squeeze=False)
    for axis, found in zip(panels[:, 0], studies, strict=True):
        for k, name in enumerate(found["planes"]):
            rows = [found["measures"][m]["planes"][name]["carried"] for m in measures]
            estimates = [Estimate(**row) for row in rows]
            figures.dots(axis, estimates, k, 0.25 * (k - 1), f"F_{name}")
        axis.axvline(1, color="#444444", linewidth=1, linestyle=":")
        axis.set_yticks(range(len(measures)), measures)
        if len(studies) > 1:
            axis.set_title(f"axes {found['axes']}", fontsize=12, loc="left")
        axis.legend(ncols=3, fontsize=10, loc="lower right", bbox_to_anchor=(1, 1), frameon=False)
    axis.set_xlabel("share carried")
    return figure


def table_beside_paper(studies: Sequence[dict[str, Any]]) -> str:
    """Table 1 as text: how near each exchange comes to ID 2, (1 + cos) / 2, for each study and in the paper."""
    names = [f"{s['axes']} (N = {s['identities']})" for s in studies]
    lines = [f"{'planes xy, xz, third':24s}{'paper':>8s}" + "".join(f"{n:>18s}" for n in names)]
    for k, (source, _, paper) in enumerate(swap_study.PAPER_TABLE_1):
        ours = [s["table_1"][plane_swap.FINISHED][k]["to ID 2, (1+cos)/2"]["value"] for s in studies]
        lines.append(f"{', '.join(source):24s}{paper:8.3f}" + "".join(f"{v:18.3f}" for v in ours))
    return "\n".join(lines)


def between_table() -> str:
    """How near one plane of a second generator brings the first one's head to the second's, from its record."""
    found = records.read("swap_generators", "python -m head3d_core swap-study --weights head --second face")
    distance, second = found["measures"]["identity"], found["second"]

    def line(what: str, value: dict[str, float]) -> str:
        return f"{what:24s} {value['value']:.2f} [{value['low']:.2f}, {value['high']:.2f}]"

    planes = [line(f"F_{name} from {second}", row["to second"]) for name, row in distance["planes"].items()]
    head = f"identity: distance to the head that {second} makes of the same z, {found['identities']} seeds"
    return "\n".join([head, line("no plane exchanged", distance["apart"]), *planes])


# --- planes --------------------------------------------------------------------------------------------------


def plane_colours(planes: Tensor, texels: int = 96) -> NDArray[np.float64]:
    """Planes [P, C, H, W] as colours [P, texels, texels, 3] in [0, 1]: their first three principal components.

    The components are those of all P planes together, so that equal colours mean equal features.
    """
    small = torch.nn.functional.adaptive_avg_pool2d(planes.detach().float(), texels)
    flat = small.movedim(1, -1).flatten(0, 2)
    _, _, axes = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
    axes = axes[:3] * axes[:3].sum(1, keepdim=True).sign()  # whose sign is arbitrary: make it repeatable
    scores = (flat - flat.mean(0)) @ axes.T
    low, high = scores.quantile(0.02, dim=0), scores.quantile(0.98, dim=0)
    shown = ((scores - low) / (high - low).clamp_min(1e-9)).clamp(0, 1)
    return shown.reshape(len(planes), texels, texels, 3).double().numpy()


def planes_flat(G: Generator, heads: Heads) -> Any:
    """The planes of some heads in colours, a row a head: rendered head, then each plane, y upwards where it sees y."""
    names, rows = PLANE_NAMES[G.config.render.axes], len(heads.planes)
    figure, axes = figures.panels(9.6, 2.5 * rows, rows, 4, squeeze=False)
    for k, name in enumerate(names):
        for row, picture in enumerate(plane_colours(heads.planes[:, k])):
            across, up = name[0], name[1]
            if across == "y":  # or the head would lie on its side
                picture, across, up = picture.transpose(1, 0, 2), up, across
            axes[row, k + 1].imshow(picture, origin="lower", extent=(-0.5, 0.5, -0.5, 0.5))
            axes[row, k + 1].set(title=f"F_{name}" if row == 0 else "", xlabel=across, ylabel=up)
    for row in range(rows):
        view = plane_swap.look(G, heads.planes[row : row + 1], cameras.orbit(0.5, 0.2))
        axes[row, 0].imshow(figures.to_pixels(view.raw[0]))
        axes[row, 0].axis("off")
    return figure


# --- intervals --------------------------------------------------------------------------------------------------------


def two_bootstraps(values: Tensor, mean: Callable[[Tensor], Any]) -> dict[str, NDArray[np.float64]]:
    """Means over pairs when people are redrawn, and when pairs are redrawn as if they were independent.

    Args:
        values: [P, P], one for each ordered pair.
        mean: the mean over ordered pairs of different people, of a matrix [P, P].
    """
    people, draw = len(values), torch.Generator().manual_seed(0)
    outside = ~torch.eye(people, dtype=torch.bool)
    pairs = values[outside]
    found: dict[str, list[float]] = {"people redrawn": [], "pairs redrawn": []}
    for _ in range(400):
        who = torch.randint(people, (people,), generator=draw)
        again = values[who][:, who]
        met = who[:, None] != who  # a person drawn twice makes no pair with itself
        found["people redrawn"].append(float(mean(torch.where(met, again, again[met].mean()))))
        some = torch.randint(len(pairs), (len(pairs),), generator=draw)
        found["pairs redrawn"].append(float(pairs[some].mean()))
    return {name: np.array(means) for name, means in found.items()}


# --- exercises --------------------------------------------------------------------------------------------------------


def _exchange(planes_1: Tensor, planes_2: Tensor, k: int | slice) -> Tensor:
    mixed = planes_1.clone()
    mixed[:, k] = planes_2[:, k]
    return mixed


exchange_plane = Exercise(
    truth=_exchange,
    cases=[(random(6, 2, 3, 4, 5, 5), random(7, 2, 3, 4, 5, 5), k) for k in range(3)],
    mistakes={
        "that is ID 2 with one plane of ID 1: start from planes_1": lambda a, b, k: _exchange(b, a, k),
        "that exchanges channel k of every plane: planes are [N, 3, C, H, W], the plane comes second": lambda a, b, k: (
            _exchange(a.mT, b.mT, k)
        ),
        "that takes all planes from k on: exchange k only": lambda a, b, k: _exchange(a, b, slice(k, 3)),
        "half of plane k is still that of ID 1: replace it": lambda a, b, k: (_exchange(a, b, k) + a) / 2,
    },
    keeps_inputs=True,
)


def _pair_mean(values: Tensor) -> Tensor:
    count = len(values)
    return (values.sum() - values.diagonal().sum()) / (count * (count - 1))


pair_mean = Exercise(
    truth=_pair_mean,
    cases=[
        (torch.tensor([[1.0, 0.2, 0.4], [0.1, 1.0, 0.3], [0.6, 0.5, 1.0]], dtype=torch.float64),),
        (torch.tensor([[1.0, -0.5], [0.25, 1.0]], dtype=torch.float64),),
        (random(8, 5, 5).double(),),
    ],
    mistakes={
        "the diagonal compares people with themselves: leave it out": lambda v: v.mean(),
        "pairs are ordered: average both triangles": lambda v: 2 * v.triu(1).sum() / (v.numel() - len(v)),
        "N (N - 1) pairs are left, not N²": lambda v: (v.sum() - v.diagonal().sum()) / len(v) ** 2,
    },
)

planes_that_see = Exercise(
    truth=lambda projection, coordinate: sum(coordinate in pair for pair in projection),
    cases=[(PROJECTION[axes], coordinate) for axes in ("xyz", "eg3d") for coordinate in range(3)],
    mistakes={
        "a plane sees its row as well as its column": lambda p, c: sum(pair[0] == c for pair in p),
        "true for xyz; under EG3D's axes only one plane sees y": lambda p, c: 2,
        "(x, z) and (z, x) are two planes": lambda p, c: len({frozenset(pair) for pair in p if c in pair}),
    },
)

where_would_identity_be = choice("06.where_would_identity_be")
