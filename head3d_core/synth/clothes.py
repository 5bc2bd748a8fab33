"""The shirt: the skin below a neckline, pushed out a little; its edge is drawn per pixel by the renderer."""

from __future__ import annotations

import numpy as np

from head3d_core.synth.masks import smoothstep
from head3d_core.synth.subdivision import Array

THICKNESS = 0.045
"""How far cloth stands off the skin (dm)."""


def neckline(rest: Array, kind: int) -> Array:
    """Height y (dm) below which cloth covers rest points [N, 3]: 0 crew, 1 vee, 2 turtleneck, 3 tank.

    The skin shader evaluates the same formula per pixel; keep the two alike.
    """
    a = np.abs(rest[:, 0])
    back = 1 - smoothstep(-0.4, 0.45, rest[:, 2])
    if kind == 0:
        return 5.72 + 0.40 * back
    if kind == 1:
        return 5.78 + 0.36 * back - 0.75 * np.exp(-((a / 0.34) ** 1.3)) * smoothstep(-0.1, 0.7, rest[:, 2])
    if kind == 2:
        return 6.02 + 0.16 * back
    return 5.20 + 0.15 * back + 0.75 * np.exp(-(((a - 0.92) / 0.17) ** 2))


def cloth_mask(rest: Array, kind: int) -> Array:
    """[N] 1 under cloth, 0 on bare skin."""
    return smoothstep(0.02, -0.08, rest[:, 1] - neckline(rest, kind))
