"""Identity measures, where the answer is forced."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import refuses
from torch import Tensor

from head3d_core.metrics import verification as v


def people(count: int, views: int, noise: float, seed: int = 0, width: int = 32) -> tuple[Tensor, Tensor]:
    """Embeddings of `count` people, random directions with noise, and who is shown."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(count, 1, width, generator=generator)
    x = centres + noise * torch.randn(count, views, width, generator=generator)
    return torch.nn.functional.normalize(x.flatten(0, 1), dim=1), torch.arange(count).repeat_interleave(views)


def test_perfect_encoder() -> None:
    x, who = people(20, 3, 0.01)
    found = v.verification(x, who, 50)
    assert [found.auc.value, found.auc.low, found.auc.high] == pytest.approx([1, 1, 1])
    assert found.tar.value == found.tar.low == 1
    assert found.threshold < found.same_median
    assert (found.same_pairs, found.different_pairs) == (60, 20 * 19 // 2 * 9)


def test_shuffled_identities_are_chance() -> None:
    x, who = people(60, 3, 0.3)
    shuffled = who[torch.randperm(len(who), generator=torch.Generator().manual_seed(1))]
    found = v.verification(x, shuffled, 100)
    assert found.auc.low < 0.5 < found.auc.high
    assert abs(found.auc.value - 0.5) < 0.1
    assert found.tar.value < 0.1


def test_a_blind_encoder_is_chance_in_spite_of_ties() -> None:
    x = torch.ones(30, 4)
    found = v.verification(x, torch.arange(10).repeat_interleave(3), 20)
    assert found.auc.value == pytest.approx(0.5)
    assert found.tar.value == 0  # no threshold accepts 1 %: all or nothing


def test_auc_and_tar_by_hand() -> None:
    x, who = people(12, 3, 1.2, width=6)
    found = v.verification(x, who, 10)
    cosine = (x @ x.T).double().numpy()
    i, j = np.triu_indices(len(x), 1)
    same = (who[i] == who[j]).numpy()
    inside, across = cosine[i, j][same], cosine[i, j][~same]
    assert found.auc.value == pytest.approx((inside[:, None] > across).mean(), abs=1e-6)
    best = max((inside >= t).mean() for t in np.unique(cosine) if (across >= t).mean() <= 0.01)
    assert found.tar.value == pytest.approx(best)
    area = np.trapezoid(found.true_accept, found.false_accept)
    assert area == pytest.approx(found.auc.value, abs=0.02)  # the stored curve is thinned out


def test_many_pairs_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    x, who = people(40, 3, 0.8)
    everything = v.verification(x, who, 10)
    monkeypatch.setattr(v, "MOST_PAIRS", 1000)
    some = v.verification(x, who, 10)
    assert some.same_pairs == everything.same_pairs == 120
    assert some.different_pairs <= 1000
    assert some.auc.value == pytest.approx(everything.auc.value, abs=0.03)


def test_similarity_is_the_cosine_and_its_share() -> None:
    x, _ = people(30, 1, 0.0)
    assert v.identity_similarity(x, 3 * x).value == pytest.approx(1)
    assert v.as_share(v.identity_similarity(x, -x)).value == pytest.approx(0, abs=1e-6)
    turned = torch.cat([-x[:, 16:], x[:, :16]], 1)
    assert v.identity_similarity(x, turned).value == pytest.approx(0, abs=1e-6)
    refuses("row by row", v.identity_similarity, x, x[:-1])


def test_diversity_of_collapsed_and_orthogonal_sets() -> None:
    assert v.diversity(torch.ones(20, 4)).value == pytest.approx(0, abs=1e-12)
    assert v.diversity(torch.eye(8)).value == pytest.approx(1)
    assert v.diversity(torch.tensor([[1.0, 0], [-1, 0]])).value == pytest.approx(2)
    two = v.diversity(torch.eye(2).repeat(10, 1))
    assert two.value == pytest.approx(200 / 380)
    assert two.low <= two.value <= two.high


def test_the_most_alike_pairs_use_nobody_twice() -> None:
    x = torch.eye(8)[:5].clone()
    x[3] = x[1] + 0.1 * x[0]  # nearest to 1
    x[4] = x[1] + 0.3 * x[2]  # next to 1, but 1 is taken
    pairs = v.most_alike(x, 3)
    assert [(i, j) for i, j, _ in pairs] == [(1, 3), (2, 4)]
    assert pairs[0][2] == pytest.approx(1 / 1.01**0.5, abs=1e-6)
    assert pairs[1][2] == pytest.approx(0.3 / 1.09**0.5, abs=1e-6)
    assert len(v.most_alike(torch.randn(16, 4, generator=torch.Generator().manual_seed(0)), 3)) == 3


def test_near_duplicates() -> None:
    x, _ = people(10, 1, 0.0)
    none = v.near_duplicates(x, 0.9)
    assert none.value == none.low == 0
    assert none.high == pytest.approx(0.2775, abs=1e-3)  # Wilson's bound at 0 of 10: not certainly none
    assert v.near_duplicates(torch.cat([x, x[:2]]), 0.9).value == pytest.approx(4 / 12)
    many, _ = people(1500, 1, 0.0, width=64)  # more than one block
    assert v.near_duplicates(torch.cat([many, many[-3:]]), 0.999).value == pytest.approx(6 / 1503)


def test_nearest_training_finds_copies() -> None:
    training, _ = people(20, 1, 0.0)
    strangers, _ = people(20, 1, 0.0, seed=5)
    copies = v.nearest_training(training[[3, 7]], training)
    assert copies.index.tolist() == [3, 7]
    assert copies.mean.value == pytest.approx(1)
    assert v.nearest_training(strangers, training).mean.high < 0.9
    refuses("one encoder", v.nearest_training, strangers, training[:, :5])


def test_bad_embeddings_are_refused() -> None:
    x, who = people(20, 2, 0.1)
    refuses("N >= 2", v.diversity, x[:1])
    refuses("zero or not finite", v.diversity, torch.cat([x, torch.zeros(1, 32)]))
    refuses("zero or not finite", v.near_duplicates, x / 0, 0.5)
    refuses("one identity per embedding", v.verification, x, who[:-1])
    refuses("an identity with two images", v.verification, x, torch.arange(40))
    refuses("100 pairs of different people", v.verification, x[:8], who[:8])
