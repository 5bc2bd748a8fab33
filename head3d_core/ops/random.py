"""Counter-based random numbers: a pure function of (seed, row, column, stream).

The renderer needs the same random offsets in the Python reference, in C++ and in CUDA, whatever the batch
split, so numbers come from a hash of their own index instead of a generator with state. The mixing function
is the 32-bit "lowbias32" finaliser (C. Wellons' hash prospector, public domain); csrc/common/random.h holds
the same lines.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from head3d_core import ops

_MASK = 0xFFFFFFFF
_GOLDEN = 0x9E3779B9
_MIX_A = 0x7FEB352D
_MIX_B = 0x846CA68B

STREAM_DEPTH = 0
"""Offsets of the stratified samples."""
STREAM_IMPORTANCE = 1
"""Positions of the importance samples in the cumulative distribution."""
STREAM_DENSITY_NOISE = 2
"""Gaussian noise on sigma (two streams: 2 and 3)."""
STREAM_NOISE_MAPS = 16
"""Noise maps of the synthesis layers: 16 + 2 * layer and the one after it."""


def _has_kernel(seeds: Tensor) -> bool:
    """Whether `uniform` and `normal` have a kernel for these seeds: on a GPU, unless torch.compile fuses them."""
    if not seeds.is_cuda or torch.compiler.is_compiling():
        return False
    return ops.has_cuda() and ops.runs_on(seeds.device)


def _mix(x: Tensor) -> Tensor:
    # int64 holds uint32 values; products wrap modulo 2**64, which leaves the low 32 bits right.
    x = x ^ (x >> 16)
    x = (x * _MIX_A) & _MASK
    x = x ^ (x >> 15)
    x = (x * _MIX_B) & _MASK
    return x ^ (x >> 16)


def uniform(seeds: Tensor, rows: int, columns: int, stream: int = 0) -> Tensor:
    """Uniform numbers in [0, 1), one per (seed, row, column).

    key = mix(mix(lo(seed) + g) ^ hi(seed));  row_key = mix(key ^ mix(row + g (stream + 1)));
    u = (mix(row_key + g column) >> 8) / 2**24, all modulo 2**32, with g = 0x9E3779B9.

    Args:
        seeds: [N] int64.
        rows: number of rows, for example rays.
        columns: number of columns, for example samples along a ray.
        stream: 0 or more; different streams are independent.

    Returns:
        [N, rows, columns] float32, multiples of 2**-24 in [0, 1).
    """
    if _has_kernel(seeds):
        return torch.ops.head3d.uniform(seeds, rows, columns, stream)
    low, high = seeds & _MASK, (seeds >> 32) & _MASK
    key = _mix(_mix((low + _GOLDEN) & _MASK) ^ high)
    row = torch.arange(rows, device=seeds.device, dtype=torch.int64)
    column = torch.arange(columns, device=seeds.device, dtype=torch.int64)
    row_key = _mix(key[:, None] ^ _mix((row + (_GOLDEN * (stream + 1) & _MASK)) & _MASK)[None])
    bits = _mix((row_key[:, :, None] + (column * _GOLDEN & _MASK)[None, None]) & _MASK)
    return (bits >> 8).to(torch.float32) * 2.0**-24


def normal(seeds: Tensor, rows: int, columns: int, stream: int) -> Tensor:
    """Standard normal numbers by Box-Muller; uses streams `stream` and `stream + 1`.

    Returns [N, rows, columns] float32.
    """
    if _has_kernel(seeds):
        return torch.ops.head3d.normal(seeds, rows, columns, stream)
    u, v = uniform(seeds, rows, columns, stream), uniform(seeds, rows, columns, stream + 1)
    radius = torch.sqrt(-2.0 * torch.log1p(-u))
    return radius * torch.cos(2.0 * math.pi * v)
