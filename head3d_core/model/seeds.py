"""From a seed to a head: the one meaning of a seed in commands, notebooks and recorded pictures.

A seed is a whole number from 0 to 2**32 - 1. It means one z, whatever the generator, the batch or the device,
and z becomes ws under the frontal mapping camera. Measures over many samples draw by number instead (`z_of_numbers`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import torch
from torch import Tensor

from head3d_core.model.cameras import frontal
from head3d_core.model.generator import Generator
from head3d_core.ops import random
from head3d_core.utils.errors import Head3DError

PSI = 0.7
"""Truncation of samples that are shown: unusual heads become rarer."""


def z_of_seeds(seeds: Iterable[int], z_dim: int) -> Tensor:
    """z [len(seeds), z_dim] float32 on the CPU, one independent draw per seed.

    Drawn from NumPy's legacy generator, as EG3D's tools do, so that a seed means the same head here and there.

    Raises:
        Head3DError: no seeds, or one that is no whole number from 0 to 2**32 - 1.
    """
    rows = [np.random.RandomState(seed).randn(z_dim) for seed in _checked(seeds)]
    return torch.from_numpy(np.stack(rows)).to(torch.float32)


def z_of_numbers(seed: int, numbers: range, z_dim: int, device: torch.device | str = "cpu") -> Tensor:
    """z [len(numbers), z_dim] of the samples `numbers` of a series: a function of seed and number alone.

    Counter-based and computed on `device`: 10,000 samples take no time there, and every split into batches or processes
    gives the same ones. The recorded measures use it.
    """
    keys = torch.arange(numbers.start, numbers.stop, dtype=torch.int64, device=device)
    return random.normal(keys + (seed + 1) * 2**32, 1, z_dim, 0)[:, 0]


@torch.no_grad()
def ws_of_seeds(G: Generator, seeds: Iterable[int], psi: float = 1.0) -> Tensor:
    """ws [len(seeds), num_ws, w_dim] under the frontal mapping camera, truncated by `psi`."""
    z = z_of_seeds(seeds, G.z_dim).to(G.device)
    return G.mapping(z, frontal(len(z), G.device, G.config.camera_radius), truncation_psi=psi)


@dataclass(frozen=True)
class Heads:
    """Heads of one generator, their planes computed once."""

    seeds: tuple[int, ...]
    ws: Tensor
    """[N, num_ws, w_dim]"""
    planes: Tensor
    """[N, P, C, H, W], channels innermost in memory."""

    def __len__(self) -> int:
        return len(self.seeds)

    def take(self, rows: Sequence[int] | Tensor) -> Heads:
        """The heads in these rows, repeated ones included.

        Raises:
            Head3DError: rows that are no list of whole numbers below the number of heads.
        """
        index = torch.as_tensor(rows, device=self.ws.device)
        if index.ndim != 1 or index.is_floating_point() or len(index) < 1:
            raise Head3DError(f"rows must be a list of whole numbers, as in [0, 2], got {rows!r}")
        if int(index.min()) < 0 or int(index.max()) >= len(self.seeds):
            raise Head3DError(f"there are heads 0 to {len(self.seeds) - 1}, got rows {index.tolist()}")
        chosen = self.planes.permute(0, 1, 3, 4, 2)[index].permute(0, 1, 4, 2, 3)
        return Heads(tuple(self.seeds[k] for k in index.tolist()), self.ws[index], chosen)


@torch.no_grad()
def heads_of_seeds(G: Generator, seeds: Sequence[int], psi: float = PSI) -> Heads:
    """Codes and planes of seeds, under the frontal mapping camera.

    Args:
        psi: truncation, see `Generator.mapping`.

    Raises:
        Head3DError: no seeds, or one that is no whole number from 0 to 2**32 - 1.
    """
    ws = ws_of_seeds(G, seeds, psi)
    made = [G.planes(part).permute(0, 1, 3, 4, 2).contiguous() for part in ws.split(16)]
    return Heads(tuple(int(seed) for seed in seeds), ws, torch.cat(made).permute(0, 1, 4, 2, 3))


def _checked(seeds: object) -> list[int]:
    values = list(seeds) if isinstance(seeds, Iterable) else []
    whole = [isinstance(seed, Integral) and not isinstance(seed, bool) for seed in values]
    if not values or not all(whole) or not all(0 <= seed < 2**32 for seed in values):
        raise Head3DError(
            f"seeds must be a list of whole numbers from 0 to 4,294,967,295, as in [3, 7], got {seeds!r:.80}"
        )
    return [int(seed) for seed in values]
