"""Distances between two sets of images: kernel and Fréchet distance, each with an interval.

Both compare the features of a fixed network (`features.py`) on real and generated images. The name of a distance names
the network: FID and KID are Inception's and nothing else; with EfficientNet-Lite0 the distances are called FD-EffLite0
and KD-EffLite0, and their values compare only with their own kind.

Measures on single heads are in `verification.py` (identity), `silhouettes.py` (shape) and `ghost.py` (second faces).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from head3d_core.utils.errors import Head3DError
from head3d_core.utils.estimates import Estimate, bootstrap_weights, percentiles

_Z = 1.959964
KD_SCALE = 100.0
"""Kernel distances are printed times 100, as in the paper's Tables 2 and 3."""
FEWEST = 10
"""Images of each set below which no distance is computed."""
_ROWS = 1024
Groups = tuple[Tensor | None, Tensor | None]
"""Which head each image of either set shows, int [N] and [M]; None where every image is its own."""
UNGROUPED: Groups = (None, None)


def check_features(features: Tensor, name: str) -> Tensor:
    """[N, d] float64, finite, N >= 10; Head3DError in one sentence otherwise."""
    if features.ndim != 2:
        raise Head3DError(f"features of the {name} set must be [N, d], got {list(features.shape)}")
    if len(features) < FEWEST:
        raise Head3DError(
            f"a distance between sets needs at least {FEWEST} images of each, the {name} set has {len(features)}: "
            "render more"
        )
    if not torch.isfinite(features).all():
        bad = int((~torch.isfinite(features)).any(1).sum())
        raise Head3DError(
            f"the {name} set has {bad} images with features that are not finite: leave them out"
        )
    return features.double()


def _pair(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    real, fake = check_features(real, "real"), check_features(fake, "generated")
    if real.shape[1] != fake.shape[1]:
        raise Head3DError(
            f"both sets need features of one network, got {real.shape[1]} and {fake.shape[1]} numbers an image"
        )
    return real, fake.to(real.device)


def _groups(groups: Tensor | None, count: int, name: str) -> tuple[NDArray[np.intp], int]:
    """Row of each image's group [N] and how many groups there are; every image is its own where None."""
    if groups is None:
        return np.arange(count), count
    names, rows = np.unique(groups.cpu().numpy(), return_inverse=True)
    if len(groups) != count or len(names) < 2:
        raise Head3DError(
            f"groups of the {name} set must name one of at least 2 groups for each of {count} images, "
            f"got {len(groups)} of {len(names)}"
        )
    return rows, len(names)


def kernel_distance(
    real: Tensor, fake: Tensor, replicates: int = 200, groups: Groups = UNGROUPED
) -> Estimate:
    r"""Squared maximum mean discrepancy under the cubic kernel, unbiased: KID's arithmetic (Bińkowski et al. 2018).

    MMD² = mean_{i≠j} k(x_i, x_j) + mean_{i≠j} k(y_i, y_j) − 2 mean_{i,j} k(x_i, y_j),  k(a, b) = (aᵀb / d + 1)³.

    Its expectation is 0 for equal sources at every N, so values may be a little negative. The kernel is torchmetrics';
    all pairs are used, where KID averages over subsets of 1,000 to save memory (the expectation is the same).

    Args:
        real, fake: [N, d], [M, d] features.
        groups: images of one head are more similar than images of two heads. So pairs within a head are left out,
            which keeps the estimate unbiased, and the bootstrap redraws heads with all their images; a head drawn twice
            is no pair with itself.

    Returns:
        MMD², not scaled; tables print it times `KD_SCALE`. Its count is that of the smaller set's independent things.
    """
    values, count = kernel_replicates(real, [fake], replicates, groups=groups)
    return percentiles(float(values[0, 0]), values[0, 1:], count, expanded=True)


def kernel_replicates(
    real: Tensor, fakes: Sequence[Tensor], replicates: int = 200, seed: int = 0, groups: Groups = UNGROUPED
) -> tuple[NDArray[np.float64], int]:
    """Kernel distances of several sets to one real set: [K, 1 + replicates], the estimate first, and the count.

    One replicate redraws the same real heads and the same numbers of samples in every set, so that columns belong
    together: `paired_ratio` takes two rows. Row k of every set must then be the same z.

    Args:
        real: [N, d] features.
        fakes: K times [M, d].
        groups: as in `kernel_distance`; of the fakes, one for all.
    """
    pairs = [_pair(real, fake) for fake in fakes]
    sizes = [len(fake) for fake in fakes]
    if len(set(sizes)) > 1:
        raise Head3DError(f"sets that are compared sample by sample have one size, got {sizes}")
    real, sets = pairs[0][0], [fake for _, fake in pairs]
    sides = ((groups[0], real, "real"), (groups[1], sets[0], "generated"))
    (rows, count), (fake_rows, fake_count) = (_groups(g, len(x), name) for g, x, name in sides)
    drawn = (bootstrap_weights(n, replicates, seed + k) for k, n in enumerate((count, fake_count)))
    weights, fake_weights = (
        torch.from_numpy(np.concatenate([np.ones((1, len(row))), weight[:, row]])).to(real)
        for row, weight in zip((rows, fake_rows), drawn, strict=True)
    )
    within = _mean_kernel(real, real, weights, weights, rows)
    values = []
    for fake in sets:
        own = _mean_kernel(fake, fake, fake_weights, fake_weights, fake_rows)
        values.append(within + own - 2 * _mean_kernel(real, fake, weights, fake_weights))
    return torch.stack(values).cpu().numpy(), min(count, fake_count)


def paired_ratio(one: NDArray[np.float64], two: NDArray[np.float64], count: int) -> Estimate:
    """one / two of two rows of `kernel_replicates`; infinite where the denominator is not positive."""
    quotient = np.divide(one, two, where=two > 0, out=np.full_like(one, np.inf))
    return percentiles(float(quotient[0]), quotient[1:], count, expanded=True)


def _mean_kernel(
    a: Tensor, b: Tensor, wa: Tensor, wb: Tensor, groups: NDArray[np.intp] | None = None
) -> Tensor:
    """Weighted mean of k over pairs of two sets, [replicates]; over pairs of different groups of one set, if given."""
    from torchmetrics.image.kid import poly_kernel

    group = None if groups is None else torch.from_numpy(groups).to(a.device)
    total = torch.zeros(len(wa), dtype=a.dtype, device=a.device)
    # Drawn heads have more or fewer images than the set: the mean is over those drawn.
    pairs = wa.sum(1) * wb.sum(1)
    if group is not None:  # all pairs, less those within a group
        count = int(group.max()) + 1
        sums = torch.zeros(len(wa), count, dtype=a.dtype, device=a.device).index_add_(1, group, wa)
        pairs = (pairs - (sums**2).sum(1)).clamp_min(1e-12)
    for start in range(0, len(a), _ROWS):
        part = slice(start, start + _ROWS)
        kernel = poly_kernel(a[part], b)
        if group is not None:
            kernel = kernel.masked_fill_(group[part, None] == group[None], 0)
        total += ((kernel @ wb.T) * wa[:, part].T).sum(0)
    return total / pairs


def _frechet(real: Tensor, fake: Tensor) -> float:
    """FD of two sets; Tr (Σ_r Σ_f)^½ is the sum of the roots of the eigenvalues of Σ_r^½ Σ_f Σ_r^½."""
    means, spreads = [x.mean(0) for x in (real, fake)], [torch.cov(x.T) for x in (real, fake)]
    values, vectors = torch.linalg.eigh(spreads[0])
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ spreads[1] @ root).clamp_min(0).sqrt().sum()
    traces = spreads[0].trace() + spreads[1].trace()
    return float((means[0] - means[1]).square().sum() + traces - 2 * cross)


def frechet_distance(
    real: Tensor, fake: Tensor, replicates: int = 10, groups: Groups = UNGROUPED
) -> Estimate:
    """Fréchet distance between the Gaussians fitted to two sets of features: FID's arithmetic (Heusel et al. 2017).

    FD = ‖μ_r − μ_f‖² + Tr(Σ_r + Σ_f − 2 (Σ_r Σ_f)^½).

    Biased: two samples of one source are a positive distance apart that shrinks with N, so it is to be read
    with N and `same_source_floor` at that N. Redrawing images adds to that bias; the interval is therefore the
    estimate ± 1.96 standard deviations of the replicates, not their percentiles.

    Args:
        real, fake: [N, d], [M, d] features.
        replicates: at least 2; each costs a full distance, about a second at d = 2048.
        groups: as in `kernel_distance`: heads are redrawn with all their images.
    """
    real, fake = _pair(real, fake)
    if replicates < 2:
        raise Head3DError(f"an interval needs at least 2 replicates, got {replicates}")
    value = _frechet(real, fake)
    random = np.random.default_rng(0)
    sides = [
        (real, *_groups(groups[0], len(real), "real")),
        (fake, *_groups(groups[1], len(fake), "generated")),
    ]
    redrawn = []
    for _ in range(replicates):
        drawn = []
        for x, row, count in sides:
            times = np.bincount(random.integers(count, size=count), minlength=count)
            drawn.append(x.repeat_interleave(torch.from_numpy(times[row]).to(x.device), 0))
        redrawn.append(_frechet(*drawn))
    half = _Z * float(np.std(redrawn, ddof=1))
    return Estimate(value, max(0.0, value - half), value + half, min(side[2] for side in sides))


def same_source_floor(
    real: Tensor,
    count: int,
    distance: Callable[..., Estimate] = frechet_distance,
    groups: Tensor | None = None,
) -> Estimate:
    """The distance between two disjoint random samples of one set, at most `count` images each: what "equal" is.

    Args:
        real: [N, d] features.
        groups: which head each image shows, int [N]: each sample then takes half of the heads, as images of one
            head on both sides would be more similar than two sources are. Samples may then have a few images less.

    Raises:
        Head3DError: the set has fewer than 2 `count` pictures.
    """
    if len(real) < 2 * count:
        raise Head3DError(
            f"the floor at N = {count} needs {2 * count} real images, got {len(real)}: give more, or lower N"
        )
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(real), generator=generator)
    if groups is None:
        halves = (order[:count], order[count : 2 * count])
        return distance(*(real[half.to(real.device)] for half in halves), groups=UNGROUPED)
    rows, heads = _groups(groups, len(real), "real")
    first = torch.randperm(heads, generator=generator)[: heads // 2]
    inside = torch.isin(torch.from_numpy(rows), first)[order]
    sides = [order[mask][:count] for mask in (inside, ~inside)]
    one, other = (real[side.to(real.device)] for side in sides)
    return distance(one, other, groups=tuple(groups.cpu()[side] for side in sides))
