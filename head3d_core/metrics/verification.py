"""Identity metrics on embeddings (unit vectors, one per image).

Embeddings come from `identity_encoder.py`. Similarity is the cosine; the paper's Table 1 can only be (1 + cos) / 2, so
`as_share` gives that too. Intervals are bootstrap ones over identities, not over pairs: pairs share people.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from head3d_core.utils.errors import Head3DError
from head3d_core.utils.estimates import (
    Estimate,
    bootstrap_mean,
    bootstrap_weights,
    percentiles,
    share,
)

Array = NDArray[np.float64]
Index = NDArray[np.intp]
Bools = NDArray[np.bool_]
FAR = 0.01
"""False accept rate at which the true accept rate is reported."""
MOST_PAIRS = 200_000
"""Pairs of different people that are compared; a random choice if there are more."""
FEWEST_ROWS = 11
"""Rows of two sets that are compared: there must be 100 pairs of different ones."""


def check_embeddings(embeddings: Tensor, name: str = "embeddings", fewest: int = 2) -> Array:
    """[N, d] float64 of unit length; Head3DError for too few, wrong shapes or values that are not finite."""
    if embeddings.ndim != 2 or len(embeddings) < fewest:
        raise Head3DError(f"{name} must be [N, d] with N >= {fewest}, got {list(embeddings.shape)}")
    x = embeddings.detach().double().cpu().numpy()
    length = np.linalg.norm(x, axis=1, keepdims=True)
    if not np.isfinite(length).all() or (length == 0).any():
        raise Head3DError(f"{name} has rows that are zero or not finite: look at the images behind them")
    return np.asarray(x / length)


def as_share(estimate: Estimate) -> Estimate:
    """(1 + cos) / 2, the scale of the paper's Table 1, of an estimate of a cosine.

    >>> as_share(Estimate(0.062, 0.0, 0.1, 100)).value
    0.531
    """
    return Estimate((1 + estimate.value) / 2, (1 + estimate.low) / 2, (1 + estimate.high) / 2, estimate.count)


def identity_similarity(a: Tensor, b: Tensor, replicates: int = 1000) -> Estimate:
    """Mean cosine between row k of `a` and row k of `b`, [N, d] each: the ID column of Table 3."""
    x, y = check_embeddings(a, "the first embeddings"), check_embeddings(b, "the second embeddings")
    if x.shape != y.shape:
        raise Head3DError(f"embeddings are compared row by row, got {list(x.shape)} and {list(y.shape)}")
    return bootstrap_mean((x * y).sum(1), replicates)


@dataclass(frozen=True)
class Verification:
    """How well a threshold on the cosine tells "same person" from "different persons"."""

    auc: Estimate
    """Area under the ROC curve: the probability that a same pair has a larger cosine than a different pair."""
    tar: Estimate
    """True accept rate at FAR 1 %."""
    threshold: float
    """Cosine above which 1 % of the different pairs lie."""
    same_median: float
    """Median cosine of same pairs: above it two heads count as near-duplicates."""
    false_accept: Array
    true_accept: Array
    """[K] the ROC curve, both rising."""
    same_pairs: int
    different_pairs: int


def verification(
    embeddings: Tensor, identities: Sequence[int] | Tensor, replicates: int = 200
) -> Verification:
    """ROC, AUC and TAR at FAR 1 % over all pairs of images.

    A pair is accepted if its cosine exceeds a threshold; TAR is the share of same pairs accepted, FAR that of
    different ones (Grother et al., FRVT). AUC is the Mann-Whitney statistic, ties count half. The bootstrap redraws
    identities; a pair counts as often as both of its people were drawn.

    Args:
        embeddings: [N, d].
        identities: [N] who is shown.

    Raises:
        Head3DError: no identity with two images, or fewer than 100 different pairs (1 % of them would be none).
    """
    x = check_embeddings(embeddings)
    names, who = np.unique(np.asarray(identities), return_inverse=True)
    if len(who) != len(x):
        raise Head3DError(f"there must be one identity per embedding, got {len(who)} for {len(x)}")
    a, b = _pairs(who)
    same = who[a] == who[b]
    if not same.any() or (~same).sum() < 100:
        raise Head3DError(
            "verification needs an identity with two images and 100 pairs of different people, "
            f"got {int(same.sum())} same and {int((~same).sum())} different pairs"
        )
    return _roc(np.einsum("nd,nd->n", x[a], x[b]), same, who[a], who[b], len(names), replicates)


def _roc(
    score: Array, same: Bools, first: Index, second: Index, people: int, replicates: int
) -> Verification:
    """The curve of pairs of people `first` and `second`, with bootstrap intervals over the `people`."""
    order = np.argsort(-score, kind="stable")
    score, same, first, second = score[order], same[order], first[order], second[order]
    last = np.append(np.flatnonzero(np.diff(score)), len(score) - 1)  # of each group of equal scores
    far, tar = _curve(same, np.ones(len(same)), last)
    aucs, tars = [], []
    for drawn in bootstrap_weights(people, replicates):
        weight = pair_weights(drawn, same, first, second)
        if weight[same].sum() and weight[~same].sum():
            curve = _curve(same, weight, last)
            aucs.append(float(np.trapezoid(curve[1], curve[0])))
            tars.append(_tar(*curve))
    different = score[~same]
    keep = np.unique(np.searchsorted(far, np.concatenate([np.linspace(0, 1, 201), np.logspace(-4, 0, 81)])))
    keep = keep[keep < len(far)]
    return Verification(
        auc=percentiles(float(np.trapezoid(tar, far)), np.array(aucs), people),
        tar=percentiles(_tar(far, tar), np.array(tars), people),
        threshold=float(np.quantile(different, 1 - FAR)),
        same_median=float(np.median(score[same])),
        false_accept=np.append(far[keep], 1.0),
        true_accept=np.append(tar[keep], 1.0),
        same_pairs=int(same.sum()),
        different_pairs=int((~same).sum()),
    )


def _pairs(who: Index) -> tuple[Index, Index]:
    """Indices of all same pairs and of up to `MOST_PAIRS` different ones."""
    first, second = np.triu_indices(len(who), 1)
    different = np.flatnonzero(who[first] != who[second])
    if len(different) > MOST_PAIRS:
        drop = np.random.default_rng(0).permutation(different)[MOST_PAIRS:]
        first, second = np.delete(first, drop), np.delete(second, drop)
    return first, second


def pair_weights(drawn: Array, same: Bools, first: Index, second: Index) -> Array:
    """How often a bootstrap replicate has each pair [N], if it has each person `drawn` [P] times.

    Two images of one person are one pair each time that the person was drawn, not a pair of strangers.

    Args:
        same: [N] whether both images show one person.
        first, second: [N] the persons' numbers.
    """
    return np.where(same, drawn[first], drawn[first] * drawn[second])


def _curve(same: Bools, weight: Array, last: Index) -> tuple[Array, Array]:
    """False and true accept rates as the threshold falls, from (0, 0) to (1, 1); equal scores are one step."""
    true = np.cumsum(np.where(same, weight, 0.0))
    false = np.cumsum(np.where(same, 0.0, weight))
    return np.append(0.0, false[last] / false[-1]), np.append(0.0, true[last] / true[-1])


def _tar(far: Array, tar: Array) -> float:
    """The largest true accept rate whose false accept rate is at most 1 %."""
    return float(tar[np.searchsorted(far, FAR + 1e-12, side="right") - 1])


def paired_verification(first: Tensor, second: Tensor, replicates: int = 200) -> Verification:
    """ROC, AUC and TAR at FAR 1 % of "row k of both is one person": teacher and student of one z, say.

    Same pairs are (first k, second k), different ones (first j, second k) with j ≠ k, so both kinds compare the two
    sides only, and of those at most `MOST_PAIRS`. The bootstrap redraws rows.

    Args:
        first, second: [N, d] each.

    Raises:
        Head3DError: two shapes, or fewer than 11 rows (there must be 100 different pairs).
    """
    x, y = check_embeddings(first, "the first embeddings"), check_embeddings(second, "the second embeddings")
    if x.shape != y.shape or len(x) < FEWEST_ROWS:
        raise Head3DError(
            f"pairs need {FEWEST_ROWS} rows or more on both sides, got {list(x.shape)} and {list(y.shape)}"
        )
    count = len(x)
    a, b = np.nonzero(~np.eye(count, dtype=bool))
    if len(a) > MOST_PAIRS:
        chosen = np.random.default_rng(0).choice(len(a), MOST_PAIRS, replace=False)
        a, b = a[chosen], b[chosen]
    a, b = (np.concatenate([np.arange(count), k]) for k in (a, b))
    return _roc(np.einsum("nd,nd->n", x[a], y[b]), a == b, a, b, count, replicates)


def near_duplicates(embeddings: Tensor, threshold: float) -> Estimate:
    """Share of samples [N, d] with another sample whose cosine exceeds `threshold` (`Verification.same_median`).

    It depends on which same pairs gave the threshold: pairs that differ in camera only make a stricter one than pairs
    of one person in two looks. It also grows with N, because every further sample may duplicate an earlier one:
    compare at one N. Wilson's interval: redrawing samples would call a share of none certain.
    """
    x, near = check_embeddings(embeddings), 0
    for start in range(0, len(x), 1024):  # 10,000 samples at once would take 800 MB
        cosines = x[start : start + 1024] @ x.T
        own = np.arange(len(cosines))
        cosines[own, own + start] = -1.0
        near += int((cosines > threshold).any(1).sum())
    return share(near, len(x))


def most_alike(embeddings: Tensor, count: int = 3) -> list[tuple[int, int, float]]:
    """The `count` pairs of samples [N, d] of largest cosine: (i, j, cosine), i < j; each sample in one pair only."""
    x = check_embeddings(embeddings)
    cosines = np.tril(np.full((len(x), len(x)), -np.inf)) + x @ x.T
    pairs: list[tuple[int, int, float]] = []
    for _ in range(min(count, len(x) // 2)):
        i, j = divmod(int(cosines.argmax()), len(x))
        pairs.append((i, j, float(cosines[i, j])))
        cosines[[i, j]], cosines[:, [i, j]] = -np.inf, -np.inf
    return pairs


def diversity(embeddings: Tensor, replicates: int = 1000) -> Estimate:
    """Mean pairwise identity distance, mean_{i≠j} (1 − cos(x_i, x_j)), of samples [N, d]: 0 for a collapsed set.

    From the sum of all vectors, so that no N × N matrix is needed: Σ_{i≠j} x_iᵀx_j = ‖Σ x_i‖² − N.
    """
    x = check_embeddings(embeddings)
    weights = np.concatenate([np.ones((1, len(x))), bootstrap_weights(len(x), replicates)])
    # Copies of one sample are not a pair: Σ w_i² takes them out.
    pairs = weights.sum(1) ** 2 - (weights**2).sum(1)
    values = 1 - (((weights @ x) ** 2).sum(1) - (weights**2).sum(1)) / np.maximum(pairs, 1e-12)
    values = np.maximum(values, 0.0)  # rounding
    return percentiles(float(values[0]), np.where(pairs > 0, values, math.nan)[1:], len(x))


@dataclass(frozen=True)
class Nearest:
    """The training image nearest to each sample."""

    index: Index
    """[N] row of the training embeddings."""
    cosine: Array
    """[N]"""
    mean: Estimate
    """Mean of `cosine`."""


def nearest_training(samples: Tensor, training: Tensor, replicates: int = 1000) -> Nearest:
    """For each sample [N, d] the most similar row of the training set [M, d]: a test of memorisation.

    The same for held-out heads says how near a stranger comes; only what exceeds that is memory.
    """
    x, y = check_embeddings(samples, "the samples"), check_embeddings(training, "the training set", 1)
    if x.shape[1] != y.shape[1]:
        raise Head3DError(f"both sets need one encoder, got {x.shape[1]} and {y.shape[1]} numbers an image")
    cosines = np.concatenate([part @ y.T for part in np.array_split(x, math.ceil(len(x) / 1024))])
    best = cosines.max(1)
    return Nearest(cosines.argmax(1), best, bootstrap_mean(best, replicates))
