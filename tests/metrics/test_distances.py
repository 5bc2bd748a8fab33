"""Distances between sets and their intervals, where the answer is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from helpers import refused, refuses
from torch import Tensor

from head3d_core.metrics import distances
from head3d_core.utils.estimates import percentiles


def gaussian(count: int, width: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return shift + scale * torch.randn(count, width, generator=generator, dtype=torch.float64)


def test_kernel_distance_is_torchmetrics_on_all_pairs() -> None:
    from torchmetrics.image.kid import poly_mmd

    real, fake = gaussian(60, 8, 0), gaussian(60, 8, 1, shift=0.3)
    ours = distances.kernel_distance(real, fake, replicates=2).value
    assert ours == pytest.approx(float(poly_mmd(real, fake)), rel=1e-9)


def test_kernel_distance_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    real, fake = gaussian(50, 4, 0), gaussian(37, 4, 1)
    whole = distances.kernel_distance(real, fake, replicates=20)
    monkeypatch.setattr(distances, "_ROWS", 7)
    parts = distances.kernel_distance(real, fake, replicates=20)
    assert dataclasses.astuple(parts) == pytest.approx(dataclasses.astuple(whole), rel=1e-9)


def test_kernel_distance_sees_shift_and_collapse() -> None:
    real = gaussian(200, 6, 0)
    shifted = distances.kernel_distance(real, gaussian(200, 6, 1, shift=0.5), 100)
    collapsed = distances.kernel_distance(real, gaussian(4, 6, 2).repeat(50, 1), 100)
    assert shifted.low > 0
    assert collapsed.low > 0
    further = distances.kernel_distance(real, gaussian(200, 6, 1, shift=1.0), 100)
    assert further.low > shifted.high


def test_kernel_distance_known_value() -> None:
    """For constant sets x = a 1, y = b 1 the kernel is (a b + 1)³ whatever the width."""
    a, b = 0.5, -1.0
    expected = (a * a + 1) ** 3 + (b * b + 1) ** 3 - 2 * (a * b + 1) ** 3
    found = distances.kernel_distance(torch.full((12, 5), a), torch.full((30, 5), b), 50)
    assert found.value == pytest.approx(expected)
    assert found.count == 12


def test_kernel_distance_of_equal_sources_is_zero_within_its_interval() -> None:
    found = [
        distances.kernel_distance(gaussian(150, 6, k), gaussian(150, 6, 100 + k), 100) for k in range(20)
    ]
    assert sum(e.low <= 0 <= e.high for e in found) >= 17  # 19 expected, and the bootstrap is cautious here
    values = np.array([e.value for e in found])
    assert abs(values.mean()) < 3 * values.std() / np.sqrt(len(values))  # unbiased
    assert values.min() < 0 < values.max()


def test_frechet_distance_is_the_textbook_formula() -> None:
    from scipy.linalg import sqrtm

    real, fake = gaussian(50, 4, 0), gaussian(60, 4, 1) @ torch.diag(torch.tensor([1.0, 2, 3, 0.5]).double())
    x, y = real.numpy(), fake.numpy()
    cx, cy = np.cov(x.T), np.cov(y.T)
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(cx + cy - 2 * sqrtm(cx @ cy).real)
    assert distances.frechet_distance(real, fake, replicates=2).value == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_of_known_gaussians() -> None:
    """N(0, I) and N(m 1, s² I) in d dimensions: d m² + d (1 − s)²."""
    real, fake = gaussian(20_000, 3, 0), gaussian(20_000, 3, 1, shift=2.0, scale=1.5)
    found = distances.frechet_distance(real, fake, replicates=4)
    assert found.value == pytest.approx(3 * 4 + 3 * 0.25, rel=0.02)
    assert found.low < 12.75 < found.high or abs(found.value - 12.75) < 0.15


def test_frechet_distance_of_a_set_with_itself_and_its_floor() -> None:
    real = gaussian(400, 8, 0)
    assert distances.frechet_distance(real, real, replicates=2).value == pytest.approx(0, abs=1e-5)
    small, large = (distances.same_source_floor(real, n).value for n in (20, 200))
    assert small > large > 0  # the bias that N brings


def heads(count: int, views: int, width: int, seed: int) -> tuple[Tensor, Tensor]:
    """Features of some views of each head, alike within one, and which head each shows."""
    who = torch.arange(count).repeat_interleave(views)
    return gaussian(count, width, seed)[who] + 0.2 * gaussian(count * views, width, seed + 1000), who


def test_pairs_within_a_head_are_left_out() -> None:
    """48 views of 20 heads say about as much as 20 images, and their interval must admit it."""
    real, who = heads(20, 48, 4, 0)
    fake = gaussian(300, 4, 7)
    plain = distances.kernel_distance(real, fake, 200)
    grouped = distances.kernel_distance(real, fake, 200, groups=(who, None))
    kernel = (real @ real.T / 4 + 1) ** 3
    apart = who[:, None] != who[None]
    everything = kernel.sum() - kernel.trace()
    within = everything / (960 * 959) - kernel[apart].mean()
    assert plain.value - grouped.value == pytest.approx(float(within))
    assert grouped.count == 20
    assert grouped.high - grouped.low > 2 * (plain.high - plain.low)
    alone = distances.kernel_distance(real, fake, 200, groups=(torch.arange(len(real)), None))
    assert (alone.value, alone.low, alone.high) == (plain.value, plain.low, plain.high)


def _mean_kernel(one: tuple[float, float], other: tuple[float, float], width: int) -> float:
    """E k(x, y) of independent Gaussians, (mean, variance) of every coordinate each."""
    identity, moments = np.eye(width), []
    for mean, variance in (one, other):
        m = np.full(width, mean)
        second = np.outer(m, m) + variance * identity
        third = np.einsum("i,jk->ijk", m, second) + variance * (
            np.einsum("ij,k->ijk", identity, m) + np.einsum("ik,j->ijk", identity, m)
        )
        moments.append((m, second, third))
    first, second, third = (
        float((a * b).sum()) / width**k for k, (a, b) in enumerate(zip(*moments, strict=True), 1)
    )
    return 1 + 3 * first + 3 * second + third


def test_intervals_of_distances_and_ratios_cover() -> None:
    """95 % intervals over 60 heads of two views, and of two generators with the same z: 2,000 simulations."""
    random, width, who = torch.Generator().manual_seed(0), 6, torch.arange(60).repeat_interleave(2)
    real, fakes = (1.0, 0.25), ((1.3, 0.2), (1.5, 0.16))

    def normal(count: int) -> Tensor:
        return torch.randn(count, width, generator=random, dtype=torch.float64)

    def squared(fake: tuple[float, float]) -> float:
        pairs = ((real, real), (fake, fake), (real, fake))
        return float(np.dot([1, 1, -2], [_mean_kernel(*pair, width) for pair in pairs]))

    one, other = map(squared, fakes)
    hits = np.zeros(2)
    for k in range(2000):
        views = 1 + 0.4 * normal(60).repeat_interleave(2, 0) + 0.3 * normal(120)
        z = normal(80)
        sets = [fakes[0][0] + 0.2**0.5 * z, fakes[1][0] + 0.4 * (0.8 * z + 0.6 * normal(80))]
        values, count = distances.kernel_replicates(views, sets, 200, k, (who, None))
        found = (
            percentiles(values[0, 0], values[0, 1:], count, expanded=True),
            distances.paired_ratio(values[1], values[0], count),
        )
        truth = (one, other / one)
        hits += [e.low <= t <= e.high for e, t in zip(found, truth, strict=True)]
    assert count == 60
    assert (hits / 2000 >= 0.93).all(), hits / 2000


def test_a_ratio_to_a_distance_that_is_not_positive_is_infinite() -> None:
    real, fake = gaussian(200, 4, 0), gaussian(200, 4, 1, shift=0.5)
    values, count = distances.kernel_replicates(real, [fake, fake + 0.1], 200)
    assert distances.paired_ratio(values[0], -values[1], count).value == np.inf
    refuses("have one size", distances.kernel_replicates, real, [fake, fake[:50]])


def test_floor_of_views_takes_other_heads() -> None:
    real, who = heads(16, 30, 4, 1)
    mixed = distances.same_source_floor(real, 200, distances.kernel_distance)
    apart = distances.same_source_floor(real, 200, distances.kernel_distance, groups=who)
    # No distance is left between halves of one source; but eight heads against eight leave it far less certain than
    # the same heads on both sides would make believe.
    assert apart.low < 0 < apart.high
    assert apart.high - apart.low > 4 * (mixed.high - mixed.low)
    assert apart.count == 8
    frechet = distances.frechet_distance(real, gaussian(200, 4, 3), 6, groups=(who, None))
    assert frechet.count == 16
    with refused("one of at least 2 groups for each of 480 images, got 480 of 1"):
        distances.kernel_distance(real, real, groups=(torch.zeros(480), None))


def test_bad_input_is_refused_in_a_sentence() -> None:
    good = gaussian(20, 4, 0)
    refuses("at least 10 images of each, the generated set has 9", distances.kernel_distance, good, good[:9])
    refuses("features of one network, got 4 and 3", distances.frechet_distance, good, good[:, :3])
    broken = good.clone()
    broken[3, 1] = float("nan")
    with refused("real set has 1 images with features that are not finite"):
        distances.kernel_distance(broken, good)
    refuses("at least 2 replicates", distances.frechet_distance, good, good, replicates=1)
    refuses("N = 11 needs 22 real images, got 20", distances.same_source_floor, good, 11)


@pytest.mark.parametrize(("count", "tolerance"), [(60, 1e-9), (10, 1e-5)])
def test_frechet_distance_is_torchmetrics(count: int, tolerance: float) -> None:
    """10 images of 12 features have a singular covariance, whose root is less exact."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Given(torch.nn.Module):
        """Takes the network's place where features are given."""

        num_features = 12

        def forward(self, x: Tensor) -> Tensor:
            return x

    x, y = gaussian(count, 12, 5), gaussian(40, 12, 6, shift=0.3, scale=1.7)
    metric = FrechetInceptionDistance(feature=Given()).set_dtype(torch.float64)
    metric.update(x, real=True)
    metric.update(y, real=False)
    assert distances._frechet(x, y) == pytest.approx(float(metric.compute()), rel=tolerance)
