"""sRGB values as linear light. It needs no torch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def linear_light(srgb: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """sRGB values in [0, 1] as linear light (IEC 61966-2-1).

    >>> float(linear_light(np.array(0.5)).round(3))
    0.214
    """
    x = np.asarray(srgb, np.float64)
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
