"""How far two sets of pictures are apart: kernel and Fréchet distance, each with an interval.

Both compare the features of a fixed network (`features.py`) on real and generated pictures; torchmetrics does the
arithmetic. The name of a distance says whose features they are: FID and KID mean Inception's and nothing else, with
EfficientNet-Lite0 they are FD-EffLite0 and KD-EffLite0, whose values compare only with their own kind.

What concerns single heads stands in `verification.py` (identity) and `completeness.py` (shape, second faces).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from head3d_core.errors import Head3DError
from head3d_core.features import FeatureNetwork, extract, feature_network

Array = NDArray[np.float64]
LEVEL = 0.95
"""Confidence level of every interval."""
_Z = 1.959964
KD_SCALE = 100.0
"""Kernel distances are printed times 100, as in the paper's Tables 2 and 3."""
FEWEST = 10
"""Pictures of each set below which no distance is computed."""
_ROWS = 1024


@dataclass(frozen=True)
class Estimate:
    """A number, its 95 % confidence interval and what it was measured on."""

    value: float
    low: float
    high: float
    count: int
    """Independent things behind it (pictures, heads, identities)."""

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}] (N = {self.count})"

    def times(self, factor: float) -> Estimate:
        """The same in other units; `factor` > 0."""
        return Estimate(self.value * factor, self.low * factor, self.high * factor, self.count)

    def to_dict(self) -> dict[str, float]:
        """Plain JSON-able dictionary."""
        return asdict(self)


def bootstrap_weights(count: int, replicates: int, seed: int = 0) -> Array:
    """How often each of `count` things is drawn in each replicate: [replicates, count], rows sum to `count`.

    A bootstrap replicate draws `count` things with replacement (Efron 1979).
    """
    generator = np.random.default_rng(seed)
    return generator.multinomial(count, np.full(count, 1 / count), size=replicates).astype(np.float64)


def percentiles(value: float, replicates: Array, count: int) -> Estimate:
    """The estimate with the bootstrap's percentile interval; replicates that are not finite are left out."""
    finite = replicates[np.isfinite(replicates)]
    low, high = np.quantile(finite, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if len(finite) else (math.nan,) * 2
    return Estimate(float(value), float(low), float(high), count)


def bootstrap_mean(values: Array | Tensor, replicates: int = 1000, seed: int = 0) -> Estimate:
    """Mean of independent values [N] with its percentile bootstrap interval.

    >>> print(bootstrap_mean(np.full(20, 0.25)))
    0.25 [0.25, 0.25] (N = 20)
    """
    x = np.asarray(values, np.float64).ravel()
    if len(x) < 2 or not np.isfinite(x).all():
        raise Head3DError(
            f"a mean with an interval needs at least 2 finite values, got {len(x)} "
            f"({int((~np.isfinite(x)).sum())} of them not finite)"
        )
    return percentiles(x.mean(), bootstrap_weights(len(x), replicates, seed) @ x / len(x), len(x))


def check_features(features: Tensor, name: str) -> Tensor:
    """[N, d] float64, finite, N >= 10; Head3DError in one sentence otherwise."""
    if features.ndim != 2:
        raise Head3DError(f"features of the {name} set must be [N, d], got {list(features.shape)}")
    if len(features) < FEWEST:
        raise Head3DError(
            f"a distance between sets needs at least {FEWEST} pictures of each, the {name} set has {len(features)}: "
            "render more"
        )
    if not torch.isfinite(features).all():
        bad = int((~torch.isfinite(features)).any(1).sum())
        raise Head3DError(
            f"the {name} set has {bad} pictures with features that are not finite: leave them out"
        )
    return features.double()


def _pair(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    real, fake = check_features(real, "real"), check_features(fake, "generated")
    if real.shape[1] != fake.shape[1]:
        raise Head3DError(
            f"both sets need features of one network, got {real.shape[1]} and {fake.shape[1]} numbers a picture"
        )
    return real, fake.to(real.device)


def kernel_distance(real: Tensor, fake: Tensor, replicates: int = 200, seed: int = 0) -> Estimate:
    r"""Squared maximum mean discrepancy under the cubic kernel, unbiased: KID's arithmetic (Bińkowski et al. 2018).

    MMD² = mean_{i≠j} k(x_i, x_j) + mean_{i≠j} k(y_i, y_j) − 2 mean_{i,j} k(x_i, y_j),  k(a, b) = (aᵀb / d + 1)³.

    Its expectation is 0 for equal sources at every N, so values may be a little negative. The kernel is torchmetrics';
    all pairs are used, where KID averages over subsets of 1,000 to save memory (the expectation is the same). The
    bootstrap redraws pictures of both sets; pairs of a picture with itself stay out, or replicates would be biased.

    Args:
        real, fake: [N, d], [M, d] features.

    Returns:
        MMD², not scaled; tables print it times `KD_SCALE`.
    """
    real, fake = _pair(real, fake)
    weights = [
        torch.from_numpy(
            np.concatenate([np.ones((1, len(x))), bootstrap_weights(len(x), replicates, seed + k)])
        ).to(x)
        for k, x in enumerate((real, fake))
    ]
    values = (
        _mean_kernel(real, real, weights[0], weights[0])
        + _mean_kernel(fake, fake, weights[1], weights[1])
        - 2 * _mean_kernel(real, fake, weights[0], weights[1])
    ).cpu()
    return percentiles(float(values[0]), values[1:].numpy(), min(len(real), len(fake)))


def _mean_kernel(a: Tensor, b: Tensor, wa: Tensor, wb: Tensor) -> Tensor:
    """Weighted mean of k over pairs, [replicates]; for a set with itself (a is b) without the pairs i = i."""
    from torchmetrics.image.kid import poly_kernel

    total = torch.zeros(len(wa), dtype=a.dtype, device=a.device)
    for start in range(0, len(a), _ROWS):
        rows = slice(start, start + _ROWS)
        kernel = poly_kernel(a[rows], b)
        if a is b:
            own = torch.arange(len(kernel), device=a.device)
            kernel[own, own + start] = 0
        total += ((kernel @ wb.T) * wa[:, rows].T).sum(0)
    # The expected product of two different counts of a multinomial is 1 - 1/N, of counts of two draws 1.
    pairs = len(a) * (len(a) - 1.0) if a is b else float(len(a) * len(b))
    scale = torch.full_like(total, 1 - 1 / len(a) if a is b else 1.0)
    scale[0] = 1.0  # the first row is the estimate itself, not a replicate
    return total / (pairs * scale)


class _Given(nn.Module):
    """Stands where torchmetrics expects a network, when the features are there already."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, x: Tensor) -> Tensor:
        return x


def _frechet(real: Tensor, fake: Tensor) -> float:
    from torchmetrics.image.fid import FrechetInceptionDistance

    # On the CPU: not every build of torch has eigenvalues of unsymmetric matrices on a GPU.
    metric = FrechetInceptionDistance(feature=_Given(real.shape[1])).set_dtype(torch.float64)
    metric.update(real.cpu(), real=True)
    metric.update(fake.cpu(), real=False)
    return float(metric.compute())


def _frechet_symmetric(real: Tensor, fake: Tensor) -> float:
    """The same, several times faster: Tr (Σ_r Σ_f)^½ is the sum of the roots of Σ_r^½ Σ_f Σ_r^½'s eigenvalues."""
    means, spreads = [x.mean(0) for x in (real, fake)], [torch.cov(x.T) for x in (real, fake)]
    values, vectors = torch.linalg.eigh(spreads[0])
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ spreads[1] @ root).clamp_min(0).sqrt().sum()
    traces = spreads[0].trace() + spreads[1].trace()
    return float((means[0] - means[1]).square().sum() + traces - 2 * cross)


def frechet_distance(real: Tensor, fake: Tensor, replicates: int = 10, seed: int = 0) -> Estimate:
    """Fréchet distance between the Gaussians fitted to two sets of features: FID's arithmetic (Heusel et al. 2017).

    FD = ‖μ_r − μ_f‖² + Tr(Σ_r + Σ_f − 2 (Σ_r Σ_f)^½), by torchmetrics.

    Biased: two samples of one source are a positive distance apart that shrinks with N, so it means something only
    beside N and `same_source_floor` at that N. Redrawing pictures adds to that bias; the interval is therefore the
    estimate ± 1.96 standard deviations of the replicates, not their percentiles.

    Args:
        real, fake: [N, d], [M, d] features.
        replicates: at least 2; each costs a full distance, about a second at d = 2048.
    """
    real, fake = _pair(real, fake)
    if replicates < 2:
        raise Head3DError(f"an interval needs at least 2 replicates, got {replicates}")
    value = _frechet(real, fake)
    generator = torch.Generator().manual_seed(seed)
    others = []
    for _ in range(replicates):
        drawn = [x[torch.randint(len(x), (len(x),), generator=generator).to(x.device)] for x in (real, fake)]
        others.append(_frechet_symmetric(*drawn))
    half = _Z * float(np.std(others, ddof=1))
    return Estimate(value, max(0.0, value - half), value + half, min(len(real), len(fake)))


def same_source_floor(
    real: Tensor,
    count: int,
    distance: Callable[[Tensor, Tensor], Estimate] = frechet_distance,
    seed: int = 0,
) -> Estimate:
    """The distance between two disjoint random samples of one set, `count` pictures each: what "equal" looks like.

    Raises:
        Head3DError: the set has fewer than 2 `count` pictures.
    """
    if len(real) < 2 * count:
        raise Head3DError(
            f"the floor at N = {count} needs {2 * count} real pictures, got {len(real)}: give more, or lower N"
        )
    order = torch.randperm(len(real), generator=torch.Generator().manual_seed(seed)).to(real.device)
    return distance(real[order[:count]], real[order[count : 2 * count]])


@dataclass(frozen=True)
class Distances:
    """Both distances of one generated set to one real set."""

    features: str
    """Name of the network."""
    kernel: Estimate
    """Times KD_SCALE."""
    kernel_floor: Estimate
    """Between two samples of the real set, times KD_SCALE."""
    frechet: Estimate
    frechet_floor: Estimate
    """Between two samples of the real set, `floor_count` pictures each."""
    floor_count: int
    kernel_name: str
    frechet_name: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, under the distances' names."""
        return {
            "features": self.features,
            "floor_count": self.floor_count,
            f"{self.kernel_name} x100": self.kernel.to_dict(),
            f"{self.kernel_name} x100, same source": self.kernel_floor.to_dict(),
            self.frechet_name: self.frechet.to_dict(),
            f"{self.frechet_name}, same source": self.frechet_floor.to_dict(),
        }

    def __str__(self) -> str:
        return (
            f"{self.kernel_name} ×100 {self.kernel} (same source {self.kernel_floor}); "
            f"{self.frechet_name} {self.frechet} (same source {self.frechet_floor})"
        )


def set_distances(
    real: Tensor,
    fake: Tensor,
    network: FeatureNetwork | None = None,
    batch: int = 32,
    replicates: int = 200,
    seed: int = 0,
) -> Distances:
    """Kernel and Fréchet distance between two sets of pictures, with the floors of the real set.

    Args:
        real, fake: uint8 [N, 3, H, W] and [M, 3, H, W]: one resolution, the same views of both (all frontal, all back).
        network: None takes `features.feature_network()`: Inception where its file is, EfficientNet-Lite0 elsewhere.
        replicates: of the kernel distance's bootstrap; the Fréchet distance takes a twentieth.

    Raises:
        Head3DError: two resolutions, fewer than 10 pictures (real: 20), or pictures that are not uint8.
    """
    if real.shape[1:] != fake.shape[1:]:
        raise Head3DError(
            f"both sets must have one resolution, got {list(real.shape[1:])} and {list(fake.shape[1:])}: "
            "resize the larger one first"
        )
    if len(real) < 2 * FEWEST:
        raise Head3DError(
            f"the real set is also compared with itself and needs {2 * FEWEST} pictures, got {len(real)}"
        )
    network = network or feature_network()
    x, y = extract(network, real, batch), extract(network, fake, batch)
    count = min(len(y), len(x) // 2)
    few = max(2, replicates // 20)
    kernel_floor = same_source_floor(x, count, lambda a, b: kernel_distance(a, b, replicates, seed), seed)
    return Distances(
        features=network.name,
        kernel=kernel_distance(x, y, replicates, seed).times(KD_SCALE),
        kernel_floor=kernel_floor.times(KD_SCALE),
        frechet=frechet_distance(x, y, few, seed),
        frechet_floor=same_source_floor(x, count, lambda a, b: frechet_distance(a, b, few, seed), seed),
        floor_count=count,
        kernel_name=network.kernel_name,
        frechet_name=network.frechet_name,
    )
