"""Exercises of notebook 03: what a fused kernel saves, and how its memory is laid out."""

from __future__ import annotations

import torch
from torch import Tensor

from head3d_core.course.exercises import Exercise, Mistake


def _stored_bytes(rays: int, samples: int, channels: int, hidden: int, outputs: int) -> int:
    # Three plane readings, their mean, the hidden layer, the decoder's outputs: float32 each.
    return 4 * rays * samples * (3 * channels + channels + hidden + outputs)


stored_bytes = Exercise(
    truth=_stored_bytes,
    cases=[(4096, 96, 32, 64, 33), (1, 1, 1, 1, 1), (256, 24, 8, 16, 9)],
    mistakes=[
        Mistake(
            lambda r, s, c, h, o: _stored_bytes(r, s, c, h, o) // 4,
            "float32 takes 4 bytes, not 1: count bytes, not numbers",
        ),
        Mistake(
            lambda r, s, c, h, o: 4 * r * s * (c + c + h + o),
            "each of the three planes is read into its own array before the mean is taken",
        ),
        Mistake(
            lambda r, s, c, h, o: 4 * r * (4 * c + h + o),
            "every sample along the ray has its own values, not every ray",
        ),
    ],
)


def _texel_offset(
    plane: int, row: int, column: int, channel: int, channels: int, height: int, width: int
) -> int:
    return ((plane * height + row) * width + column) * channels + channel


texel_offset = Exercise(
    truth=_texel_offset,
    cases=[(0, 0, 0, 1, 32, 256, 256), (1, 2, 3, 4, 32, 16, 8), (2, 7, 0, 0, 8, 8, 16)],
    mistakes=[
        Mistake(
            lambda p, r, q, k, c, h, w: ((p * c + k) * h + r) * w + q,
            "that is channels first: neighbouring channels of a texel are then h * w numbers apart, a cache line each",
        ),
        Mistake(
            lambda p, r, q, k, c, h, w: ((p * h + q) * w + r) * c + k,
            "row and column are exchanged: a row holds `width` texels",
        ),
        Mistake(
            lambda p, r, q, k, c, h, w: (r * w + q) * c + k,
            "planes 1 and 2 start after height * width * channels numbers each",
        ),
    ],
)


def _needed(weights: Tensor, tolerance: float) -> int:
    """Fewest samples whose colour must be computed so that the rest weighs at most `tolerance` together."""
    ascending = torch.sort(weights).values
    return int((torch.cumsum(ascending, 0) > tolerance).sum())


colours_needed = Exercise(
    truth=_needed,
    cases=[
        (torch.tensor([0.0, 0.0, 0.5, 0.3, 0.2, 0.0], dtype=torch.float64), 0.01),
        (torch.tensor([0.004, 0.9, 0.004, 0.004], dtype=torch.float64), 0.009),
        (torch.tensor([0.25, 0.25, 0.25, 0.25], dtype=torch.float64), 0.6),
    ],
    mistakes=[
        Mistake(
            lambda w, t: int((w > t).sum()),
            "each dropped sample is below the tolerance, but together they may not be: bound their sum",
        ),
        Mistake(
            lambda w, t: int((w > 0).sum()),
            "samples of tiny weight may be dropped too, as long as their sum stays below",
        ),
    ],
)
