"""Counter-based random draws: every number is a pure function of (seed, part, name).

No state and no order: adding a draw, or asking for draws in another order, changes no other draw. Scalars
use only integer arithmetic and the exactly rounded operations + - * /, so they are equal bit for bit on
every machine; that is what makes an identity's hash portable.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

SAMPLER_VERSION = 1
"""Raised whenever a change here or in `identity.py` would turn a seed into another head."""

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
T = TypeVar("T")
Bits = TypeVar("Bits", int, NDArray[np.uint64])


def mix(x: Bits) -> Bits:
    """splitmix64's finaliser (Steele, Lea, Flood 2014): 64 bits in, 64 well-mixed bits out; of a number or an array."""
    y: Any = (x + _GOLDEN) & _MASK
    y = ((y ^ (y >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    y = ((y ^ (y >> 27)) * 0x94D049BB133111EB) & _MASK
    return y ^ (y >> 31)


@lru_cache(maxsize=4096)
def _fnv(name: str) -> int:
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = ((h ^ byte) * 0x100000001B3) & _MASK
    return mix(h)


def stream_key(seed: int, *names: str) -> int:
    """A 64-bit key for (sampler version, seed, names): FNV-1a over each name's bytes, mixed."""
    key = mix((seed & _MASK) ^ mix(SAMPLER_VERSION))
    for name in names:
        key = mix(key ^ _fnv(name))
    return key


class Draws:
    """Named draws of one part of one head, e.g. `Draws(7, "nose").normal("hump", 0.2)`."""

    def __init__(self, seed: int, part: str) -> None:
        self._key = stream_key(seed, part)

    def _bits(self, name: str, counter: int = 0) -> int:
        return mix((self._key ^ _fnv(name)) + counter)

    def uniform(self, name: str, low: float = 0.0, high: float = 1.0) -> float:
        """A number in [low, high)."""
        return low + (high - low) * ((self._bits(name) >> 11) * 2.0**-53)

    def normal(self, name: str, sd: float = 1.0, mean: float = 0.0, limit: float = 2.5) -> float:
        """About normal, cut at `limit` sd: a sum of 12 uniforms, so no logarithm whose last bit could differ."""
        words = [self._bits(name, k) for k in range(3)]
        quarters = sum((word >> shift) & 0xFFFF for word in words for shift in (0, 16, 32, 48))
        total = (quarters - 6 * 65535) / 65536
        return mean + sd * min(max(total, -limit), limit)

    def chance(self, name: str, probability: float) -> bool:
        """True with the given probability."""
        return self.uniform(name) < probability

    def choice(self, name: str, options: Sequence[T], weights: Sequence[float] | None = None) -> T:
        """One of `options`, with relative `weights` (equal if None)."""
        shares = [1.0] * len(options) if weights is None else list(weights)
        left = self.uniform(name) * sum(shares)
        for option, share in zip(options, shares, strict=True):
            left -= share
            if left < 0:
                return option
        return [o for o, share in zip(options, shares, strict=True) if share > 0][-1]

    def permutation(self, name: str, n: int) -> list[int]:
        """The numbers 0..n-1 in a drawn order."""
        return sorted(range(n), key=lambda k: (self._bits(name, k), k))


def _words(key: int, shape: tuple[int, ...]) -> NDArray[np.uint64]:
    """Array of `shape` with 64-bit words of the stream `key`."""
    count = np.arange(math.prod(shape), dtype=np.uint64)
    return mix(count + np.uint64(mix(key))).reshape(shape)


def uniforms(key: int, *shape: int) -> NDArray[np.float64]:
    """Array of `shape` with numbers in [0, 1)."""
    return (_words(key, shape) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def normals(key: int, *shape: int) -> NDArray[np.float64]:
    """Array of `shape`, about standard normal: the four 16-bit quarters of each word, summed and scaled."""
    quarters = _words(key, (*shape, 1)).view(np.uint16).astype(np.float64).sum(-1)
    return (quarters - 2 * 65535) * (3.0**0.5 / 65536)
