"""The second opinion, with planted encoders in dlib's place."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import cross_check
from head3d_core.utils.errors import Head3DError


def scene(people: int = 8, views: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures whose first pixels say who is shown, embeddings and identities; the last one has no face."""
    generator = torch.Generator().manual_seed(0)
    who = torch.arange(people).repeat_interleave(views)
    images = torch.zeros(len(who), 3, 4, 4, dtype=torch.uint8)
    images[:, 0] = (10 + who)[:, None, None].to(torch.uint8)
    images[-1] = 0
    centres = torch.nn.functional.normalize(torch.randn(people, 16, generator=generator), dim=1)
    return images, centres[who] + 0.05 * torch.randn(len(who), 16, generator=generator), who


def planted(mirror_fails: bool = False):  # type: ignore[no-untyped-def]
    generator = torch.Generator().manual_seed(1)
    centres = torch.nn.functional.normalize(torch.randn(40, 128, generator=generator), dim=1)
    calls = []

    def encode(images: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(len(images))
        seen = images[:, 0, 0, 0] > 0
        rows = centres[images[seen, 0, 0, 0].long()]
        return (rows + 2.0 if mirror_fails and len(calls) == 2 else rows), seen

    return encode


def test_agreement_on_pictures_that_mean_something(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_check, "dlib_embeddings", planted())
    images, x, who = scene()
    found = cross_check.dlib_cross_check(images, x, who, 20)
    assert (found.detected.found, found.detected.count) == (23, 24)
    assert found.mirrored.value == 1
    assert found.agreement is not None
    assert found.agreement.second.auc.value == pytest.approx(1)
    assert found.agreement.spearman.value > 0.3
    assert {"detected", "mirrored", "spearman", "ours", "dlib", "decisions"} == set(found.to_dict())
    assert found.agreement.same.value == 1
    assert 0.97 < found.agreement.different.value < 1  # each accepts 1 % of the strangers, not the same ones


def test_no_number_where_mirror_images_are_strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_check, "dlib_embeddings", planted(mirror_fails=True))
    found = cross_check.dlib_cross_check(*scene(), 20)
    assert found.mirrored.value == 0
    assert found.agreement is None
    assert "spearman" not in found.to_dict()


def test_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_check, "dlib_embeddings", planted())
    images, x, who = scene()
    with pytest.raises(Head3DError, match="every picture needs an embedding"):
        cross_check.dlib_cross_check(images, x[1:], who)
    with pytest.raises(Head3DError, match="a face in 0 of 24"):
        cross_check.dlib_cross_check(images * 0, x, who)
