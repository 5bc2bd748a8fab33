"""Notebook 14: one plane for two sides: the ghost as a map, representations from the side, the front slice's share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from head3d_core.config import Slices
from head3d_core.metrics import ghost
from head3d_core.model.planes import front_share
from head3d_core.utils.images import from_uint8
from head3d_course import figures
from head3d_course.exercises import Exercise, choice, random, vector
from head3d_course.figures import PALETTE


def ghost_maps(images: Tensor, opacity: Tensor, names: Sequence[str]) -> Any:
    """Back views (above) and what the eye-pair score sees of them (below): dark detail is blue, light is red.

    Circles are at the pupils of real fronts.

    Args:
        images: uint8 [N, 3, 256, 256] from straight behind.
        opacity: [N, r, r].
        names: above the pictures.
    """
    from matplotlib.patches import Circle

    detail, _ = ghost.eye_detail(images, opacity)
    figure, axes = figures.panels(2.1 * len(images), 4.6, 2, len(images), squeeze=False)
    for above, below, image, one, name in zip(*axes, from_uint8(images), detail, names, strict=True):
        above.imshow(figures.to_pixels(image))
        above.set_title(name, fontsize=11)
        below.imshow(one, cmap="RdBu_r", vmin=-0.4, vmax=0.4)
        for axis in (above, below):
            axis.set(xlim=(48, 208), ylim=(208, 48), xticks=[], yticks=[])
            for x in (127 - ghost.EYE_COLUMN, 128 + ghost.EYE_COLUMN):
                axis.add_patch(Circle((x, ghost.EYE_ROW), 9, fill=False, edgecolor="black", linewidth=1.2))
    return figure


def representations_figure() -> Any:
    """Five ways to store a head, from the side: where the sheets lie that a point in front and one behind read."""
    from matplotlib.patches import Circle, Ellipse

    names = ["tri-plane\n(EG3D)", "two slices of F_xy\n(this notebook)", "tri-grid\n(PanoHead)"]
    names += ["spheres\n(SphereHead)", "plane and sphere\n(HyPlaneHead)"]
    sheets = ((0.0,), (-0.1, 0.1), (-0.4, 0.0, 0.4), (), (0.0,))
    figure, axes = figures.panels(12, 3.2, 1, len(names), sharey=True)
    for axis, name, places, sphere in zip(axes, names, sheets, (0, 0, 0, 1, 1), strict=True):
        axis.add_patch(Ellipse((0.02, 0.05), 0.36, 0.46, facecolor="0.88", edgecolor="0.5"))
        axis.text(0.24, 0.06, "nose", fontsize=10)
        for place in places:
            axis.plot([place, place], [-0.45, 0.45], color=PALETTE[0], linewidth=3)
        if sphere:
            style: dict[str, Any] = {"edgecolor": PALETTE[1], "linewidth": 2, "linestyle": "--"}
            axis.add_patch(Circle((0, 0), 0.42, fill=False, **style))
        for z, marker in ((0.14, "o"), (-0.14, "s")):
            axis.plot(z, 0.1, marker, color="black", markersize=6)
        axis.set(title=name, xlabel="z", aspect="equal", xticks=[], yticks=[])
        axis.set(xlim=(-0.5, 0.5), ylim=(-0.5, 0.5))
        axis.title.set_fontsize(11)
    axes[0].set_ylabel("y")
    return figure


# --- exercises --------------------------------------------------------------------------------------------------------


def _share(z: Tensor, h: float) -> Tensor:
    return front_share(F.pad(z[:, None], (2, 0)), Slices(half_distance=h))


front_weight = Exercise(
    truth=_share,
    cases=[(vector(-0.2, -0.1, -0.05, 0.0, 0.05, 0.1, 0.2), 0.1), (vector(-0.3, 0.1, 0.3), 0.25)],
    mistakes={
        "outside the slices nothing is mixed: clamp to [0, 1]": lambda z, h: 0.5 + z / (2 * h),
        "the slices are 2 h apart: t goes from 0 to 1 over 2 h": lambda z, h: (0.5 + z / h).clamp(0, 1),
        "half-way between the slices, at z = 0, both count one half": lambda z, h: (z / (2 * h)).clamp(0, 1),
        "+z is the face: in front the *front* slice counts 1": lambda z, h: 1 - _share(z, h),
        "a hard switch at z = 0 makes a seam: mix linearly": lambda z, h: (z > 0).double(),
    },
)


def _above(scores: Tensor, real: Tensor) -> Tensor:
    known, honest = scores[scores.isfinite()], real[real.isfinite()]
    return (known > honest.quantile(0.95)).double().mean()


_SCORES = random(5, 40).double() + 1
_HOLES = torch.where(torch.arange(40) % 8 == 0, torch.nan, _SCORES)

share_above = Exercise(
    truth=_above,
    cases=[(_SCORES, random(6, 60).double()), (_HOLES, random(7, 30).double())],
    mistakes={
        "the limit comes from real backs, not from the samples": lambda s, r: _above(s, s),
        "one real image decides: take a percentile": lambda s, r: (s[s.isfinite()] > r.max()).double().mean(),
        "leave NaN out of the denominator as well": lambda s, r: (s > r.quantile(0.95)).double().mean(),
        "this is the share of real backs above the samples' limit": lambda s, r: _above(r, s),
    },
)

distillable = choice("14.distillable")
