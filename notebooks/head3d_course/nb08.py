"""Notebook 08: feature distillation."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from head3d_core.model import cameras
from head3d_core.training import losses
from head3d_course import figures
from head3d_course.exercises import Exercise, random
from head3d_course.figures import PALETTE, arrow, box


def _plane_stack(axis: Any, x: float, y: float, colour: str) -> None:
    """Three planes as sheets, F_xy in front and marked."""
    from matplotlib.patches import Rectangle

    for k, name in enumerate(("F_yz", "F_xz", "F_xy")):
        left, low, front = x - 0.45 + 0.24 * (2 - k), y - 0.4 - 0.27 * (k - 1), name == "F_xy"
        style: dict[str, Any] = dict(
            facecolor="#DDF3EA" if front else "white", edgecolor=PALETTE[2] if front else colour
        )
        sheet = Rectangle((left, low), 0.95, 0.62, linewidth=2.2 if front else 1.2, zorder=3 + k, **style)
        axis.add_patch(sheet)
        axis.text(left + 0.08, low + 0.47, name, fontsize=8, zorder=3.5 + k, color="#111111", va="center")


def distillation_diagram() -> Any:
    """Fig. 4 of the paper, redrawn: what teacher and student share, and where each loss of Eq. 10 acts."""
    figure, axis = figures.canvas(14.4, 6.6, (12, 5.6))
    blue, red, _, violet = PALETTE[:4]
    top, low = 5.2, 1.9
    box(axis, 0.95, 3.55, "z ~ N(0, 1)", "#555555", width=1.4, height=0.6)
    box(axis, 0.95, 2.5, "mapping\ncamera p\n(face set)", "#555555", width=1.4, height=1.0)
    for y, colour, ink, who in ((top, blue, blue, "G_t, frozen"), (low, red, "#C25600", "G_s, learns")):
        box(axis, 3.15, y, "mapping M", colour, width=1.35, height=0.6)
        box(axis, 5.1, y, "synthesis", colour, width=1.25, height=0.6)
        _plane_stack(axis, 6.9, y, colour)
        box(axis, 9.2, y, "render +\nsuper-resolve", colour, width=1.5)
        arrow(axis, (1.75, 3.1), (2.4, y), colour="#555555")
        arrow(axis, (3.9, y), (4.4, y), "w")
        for start, end in ((5.8, 6.3), (7.75, 8.38), (10.0, 10.45)):
            arrow(axis, (start, y), (end, y))
        above = y + (0.55 if y == top else -0.75)
        axis.text(4.1, above, who, ha="center", fontsize=11, color=ink, fontweight="bold")
    box(axis, 11.2, top, "I, I_raw\n(faces)", blue, width=1.3)
    box(axis, 11.2, low, "I, I_raw\n(heads)", red, width=1.3)
    for x, text in (
        (4.1, "L_map (Eq. 7)\n|w_t − w_s|"),
        (6.9, "L_kd (Eq. 5)\nF_xy only"),
        (11.2, "L_rgb (8), L_lpips (9)\nwhere |yaw| ≤ 45°"),
    ):
        figures.ties(axis, x, low + 0.65, top - 0.65)
        axis.text(x + 0.1, 3.55, text, ha="left", va="center", fontsize=10, color="#00694D")
    box(axis, 13.5, 2.6, "D_front\nreal: faces", violet, width=1.4, height=0.75)
    box(axis, 13.5, 1.1, "D_back\nreal: backs\nof heads", violet, width=1.4, height=0.95)
    arrow(axis, (11.95, 2.05), (12.7, 2.5), colour=violet)
    arrow(axis, (11.95, 1.75), (12.7, 1.25), colour=violet)
    axis.text(12.9, 0.2, "L_gan (Eq. 6), in turns", ha="center", fontsize=10, color="#8A4A70")
    camera = "camera of the picture:\nface camera or back camera, in turns"
    axis.text(9.2, 0.95, camera, ha="center", va="top", fontsize=10)
    arrow(axis, (9.2, 1.0), (9.2, 1.42), colour="#555555")
    return figure


# --- exercises --------------------------------------------------------------------------------------------------------


kd_loss = Exercise(
    truth=losses.kd_loss,
    cases=[
        (random(10, 2, 3, 4, 8, 8), random(11, 2, 3, 4, 8, 8)),
        (random(12, 1, 3, 2, 4, 4), 5 * random(13, 1, 3, 2, 4, 4)),
    ],
    mistakes={
        "only F_xy is distilled: the teacher never saw a back": lambda t, s: (t - s).square().mean(),
        "that is the L1 norm: Eq. 5 takes squares": lambda t, s: (t[:, 0] - s[:, 0]).abs().mean(),
        "take the mean, or λ_kd depends on a plane's size": lambda t, s: (t[:, 0] - s[:, 0]).square().sum(),
        "the first index is the sample, the second the plane": lambda t, s: (t[0] - s[0]).square().mean(),
    },
)


_CAMERAS = cameras.orbit(
    torch.tensor([0.0, 0.7, -0.7, 1.2, math.pi]), torch.tensor([0.1, 0.0, 0.5, 0.0, 0.0])
)


def _each(image_t: Tensor, image_s: Tensor) -> Tensor:
    return (image_t - image_s).abs().mean([1, 2, 3])


def _gated(image_t: Tensor, image_s: Tensor, camera: Tensor, tau: float) -> Tensor:
    return (_each(image_t, image_s) * losses.front_gate(camera, tau)).mean()


gated_difference = Exercise(
    truth=_gated,
    cases=[
        (random(14, 5, 3, 4, 4), random(15, 5, 3, 4, 4), _CAMERAS, math.pi / 4),
        (random(16, 5, 3, 8, 8), random(17, 5, 3, 8, 8), _CAMERAS, 0.5),
    ],
    mistakes={
        "the gate is missing: behind the ear nothing is to be learnt": lambda t, s, *_: _each(t, s).mean(),
        "the gate takes |yaw|: a camera at -90 degrees is as far from the front as one at +90": lambda t, s, c, tau: (
            (_each(t, s) * (cameras.yaw_pitch(c)[0] <= tau)).mean()
        ),
        "samples outside the gate count as zero (Eq. 8): divide by the whole batch": lambda t, s, c, tau: (
            _gated(t, s, c, tau) / losses.front_gate(c, tau).mean()
        ),
        "tau is in radians already, like the yaw": lambda t, s, c, tau: _gated(t, s, c, math.radians(tau)),
        "Eq. 8 takes absolute differences, not squares": lambda t, s, c, tau: (
            (t - s).square().mean([1, 2, 3]) * losses.front_gate(c, tau)
        ).mean(),
    },
)


# Bayes: of what a probe with this recall and false-alarm rate finds, the share that is there.
real_share = Exercise(
    truth=lambda found, recall, false: (found - false) / (recall - false) * recall / found,
    cases=[(0.025, 1.0, 0.014), (0.162, 0.987, 0.010), (0.5, 0.8, 0.2)],
    mistakes={
        "that is the share of all samples: divide by all finds": lambda f, r, a: (f - a) / (r - a),
        "false alarms come from bare heads alone: (1 - p) f, not f": lambda f, r, a: (f - a) / f,
        "that is recall; the question is how many finds are hats": lambda f, r, a: r,
        "that is the share of bare heads that are called bare": lambda f, r, a: 1 - a,
    },
    tolerance=1e-6,
)
