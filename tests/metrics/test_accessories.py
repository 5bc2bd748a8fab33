"""The probe finds what is there, misses what is not, and the shares are the ones planted."""

from __future__ import annotations

import pytest
import torch
from helpers import refuses
from torch import Tensor

from head3d_core.metrics import accessories


def people(count: int, seed: int, lift: float = 6.0) -> tuple[Tensor, Tensor]:
    """Features [count, 16] whose first number is `lift` higher for wearers (every fourth)."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 16, generator=generator)
    wears = torch.arange(count) % 4 == 0
    x[:, 0] += lift * wears
    return x, wears


def test_labels_follow_the_factory() -> None:
    labels = accessories.labels_of("held_out_faces", range(300))
    hats, glasses = labels.float().mean(0).tolist()
    assert labels.shape == (300, 2)
    assert 0.05 < hats < 0.25
    assert 0.12 < glasses < 0.35
    assert accessories.labels_of("faces", []).shape == (0, 2)


def test_a_clear_sign_is_found_and_none_is_not() -> None:
    probe = accessories.fit_probe(*people(400, 0), *people(800, 1))
    assert probe.auc > 0.99
    assert probe.recall.value > 0.95
    assert probe.false.value < 0.04
    blind = accessories.fit_probe(*people(400, 0, 0.0), *people(800, 1, 0.0))
    assert 0.35 < blind.auc < 0.65
    assert blind.recall.value < 0.1


def test_shares_are_the_planted_ones() -> None:
    probe = accessories.fit_probe(*people(400, 0), *people(800, 1))
    teacher, wears = people(400, 2)
    half = teacher.clone()
    lost = wears.nonzero().flatten()[::2]
    half[lost, 0] -= 6
    found = accessories.kept(probe, teacher, teacher[:100], half)
    assert found["teacher"].value == pytest.approx(0.25, abs=0.02)
    assert found["again"].value == 1
    assert found["student"].value == pytest.approx(0.5, abs=0.06)
    assert found["chance"].value == pytest.approx(0.125, abs=0.03)
    nothing = accessories.kept(probe, teacher, teacher[:0], people(400, 3, 0.0)[0])
    assert nothing["student"].value < 0.05
    assert nothing["again"].count == 0
    refuses("of the same z", accessories.kept, probe, teacher, teacher, half[:5])


def test_too_few_wearers_are_refused() -> None:
    refuses("20 wearers", accessories.fit_probe, *people(40, 0), *people(800, 1))
