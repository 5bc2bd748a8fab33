"""Distances between sets and their intervals, where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from head3d_core import metrics
from head3d_core.errors import Head3DError
from head3d_core.features import FeatureNetwork


def gaussian(count: int, width: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return shift + scale * torch.randn(count, width, generator=generator, dtype=torch.float64)


class _Means(FeatureNetwork):
    """Features that tests can compute: mean colour of each quarter of the picture."""

    name, kernel_name, frechet_name, num_features = "Means", "KD-Means", "FD-Means", 12

    def forward(self, images: Tensor) -> Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(images.float() / 255, 2).flatten(1)


def pictures(count: int, seed: int, low: int = 0, high: int = 256) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, (count, 3, 8, 8), generator=generator).to(torch.uint8)


def test_kernel_distance_is_torchmetrics_on_all_pairs() -> None:
    from torchmetrics.image.kid import poly_mmd

    real, fake = gaussian(60, 8, 0), gaussian(60, 8, 1, shift=0.3)
    ours = metrics.kernel_distance(real, fake, replicates=2).value
    assert ours == pytest.approx(float(poly_mmd(real, fake)), rel=1e-9)


def test_kernel_distance_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    real, fake = gaussian(50, 4, 0), gaussian(37, 4, 1)
    whole = metrics.kernel_distance(real, fake, replicates=20)
    monkeypatch.setattr(metrics, "_ROWS", 7)
    parts = metrics.kernel_distance(real, fake, replicates=20)
    assert [parts.value, parts.low, parts.high] == pytest.approx(
        [whole.value, whole.low, whole.high], rel=1e-9
    )


def test_kernel_distance_of_equal_sources_is_zero_within_its_interval() -> None:
    found = [metrics.kernel_distance(gaussian(150, 6, k), gaussian(150, 6, 100 + k), 100) for k in range(20)]
    assert sum(e.low <= 0 <= e.high for e in found) >= 17  # 19 expected, and the bootstrap is cautious here
    values = np.array([e.value for e in found])
    assert abs(values.mean()) < 3 * values.std() / np.sqrt(len(values))  # unbiased
    assert values.min() < 0 < values.max()


def test_kernel_distance_sees_shift_and_collapse() -> None:
    real = gaussian(200, 6, 0)
    shifted = metrics.kernel_distance(real, gaussian(200, 6, 1, shift=0.5), 100)
    collapsed = metrics.kernel_distance(real, gaussian(4, 6, 2).repeat(50, 1), 100)
    assert shifted.low > 0
    assert collapsed.low > 0
    further = metrics.kernel_distance(real, gaussian(200, 6, 1, shift=1.0), 100)
    assert further.low > shifted.high


def test_kernel_distance_known_value() -> None:
    """For constant sets x = a 1, y = b 1 the kernel is (a b + 1)³ whatever the width."""
    a, b = 0.5, -1.0
    expected = (a * a + 1) ** 3 + (b * b + 1) ** 3 - 2 * (a * b + 1) ** 3
    found = metrics.kernel_distance(torch.full((12, 5), a), torch.full((30, 5), b), 50)
    assert found.value == pytest.approx(expected)
    assert found.count == 12


def test_frechet_distance_of_known_gaussians() -> None:
    """N(0, I) and N(m 1, s² I) in d dimensions: d m² + d (1 − s)²."""
    real, fake = gaussian(20_000, 3, 0), gaussian(20_000, 3, 1, shift=2.0, scale=1.5)
    found = metrics.frechet_distance(real, fake, replicates=4)
    assert found.value == pytest.approx(3 * 4 + 3 * 0.25, rel=0.02)
    assert found.low < 12.75 < found.high or abs(found.value - 12.75) < 0.15


def test_frechet_distance_of_a_set_with_itself_and_its_floor() -> None:
    real = gaussian(400, 8, 0)
    assert metrics.frechet_distance(real, real, replicates=2).value == pytest.approx(0, abs=1e-5)
    small, large = (metrics.same_source_floor(real, n).value for n in (20, 200))
    assert small > large > 0  # the bias that N brings


def test_frechet_distance_is_the_textbook_formula() -> None:
    from scipy.linalg import sqrtm

    real, fake = gaussian(50, 4, 0), gaussian(60, 4, 1) @ torch.diag(torch.tensor([1.0, 2, 3, 0.5]).double())
    x, y = real.numpy(), fake.numpy()
    cx, cy = np.cov(x.T), np.cov(y.T)
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(cx + cy - 2 * sqrtm(cx @ cy).real)
    assert metrics.frechet_distance(real, fake, replicates=2).value == pytest.approx(expected, rel=1e-6)


def test_bootstrap_mean_covers() -> None:
    generator = np.random.default_rng(0)
    hits = 0
    for k in range(100):
        e = metrics.bootstrap_mean(generator.normal(3, 1, 50), 300, seed=k)
        hits += e.low <= 3 <= e.high
    assert 87 <= hits <= 100
    one = metrics.bootstrap_mean(generator.normal(0, 1, 400))
    assert one.high - one.low == pytest.approx(2 * 1.96 / 20, rel=0.2)


def test_estimates_scale_and_print() -> None:
    e = metrics.Estimate(0.02, 0.01, 0.03, 7).times(100)
    assert str(e) == "2 [1, 3] (N = 7)"
    assert e.to_dict() == {"value": 2.0, "low": 1.0, "high": 3.0, "count": 7}


def test_set_distances_name_their_features_and_rank_sets() -> None:
    network = _Means()
    real = pictures(80, 0)
    same = metrics.set_distances(real, pictures(40, 1), network, replicates=40)
    dark = metrics.set_distances(real, pictures(40, 2, 0, 128), network, replicates=40)
    assert same.kernel.low <= 0 <= same.kernel.high
    assert dark.kernel.low > same.kernel.high
    assert dark.frechet.value > 10 * same.frechet.value
    assert same.floor_count == 40
    assert same.frechet.value < 4 * same.frechet_floor.value
    assert {"KD-Means x100", "FD-Means", "FD-Means, same source"} <= set(dark.to_dict())
    assert "FID" not in str(dark)
    assert "KID" not in str(dark)


def test_bad_input_is_refused_in_a_sentence() -> None:
    good = gaussian(20, 4, 0)
    with pytest.raises(Head3DError, match="at least 10 pictures of each, the generated set has 9"):
        metrics.kernel_distance(good, good[:9])
    with pytest.raises(Head3DError, match="features of one network, got 4 and 3"):
        metrics.frechet_distance(good, good[:, :3])
    broken = good.clone()
    broken[3, 1] = float("nan")
    with pytest.raises(Head3DError, match="real set has 1 pictures with features that are not finite"):
        metrics.kernel_distance(broken, good)
    with pytest.raises(Head3DError, match="at least 2 replicates"):
        metrics.frechet_distance(good, good, replicates=1)
    with pytest.raises(Head3DError, match="N = 11 needs 22 real pictures, got 20"):
        metrics.same_source_floor(good, 11)
    with pytest.raises(Head3DError, match="one resolution"):
        metrics.set_distances(pictures(20, 0), pictures(20, 1)[..., :4], _Means())
    with pytest.raises(Head3DError, match="compared with itself and needs 20"):
        metrics.set_distances(pictures(19, 0), pictures(20, 1), _Means())
    with pytest.raises(Head3DError, match="at least 2 finite values"):
        metrics.bootstrap_mean(np.array([1.0]))


def test_the_faster_frechet_arithmetic_is_the_librarys() -> None:
    generator = torch.Generator().manual_seed(5)
    x, y = (
        torch.randn(60, 12, generator=generator).double(),
        torch.randn(40, 12, generator=generator).double(),
    )
    y = y * 1.7 + 0.3
    assert metrics._frechet_symmetric(x, y) == pytest.approx(metrics._frechet(x, y), rel=1e-9)
    short = x[:10]  # fewer pictures than features: singular covariance
    assert metrics._frechet_symmetric(short, y) == pytest.approx(metrics._frechet(short, y), rel=1e-5)
