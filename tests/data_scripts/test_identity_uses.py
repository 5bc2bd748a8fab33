"""What the encoder is good for: shares of the strangers' distance, correlations, verdicts and the page."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from helpers import refuses
from torch import Tensor, nn

import identity_data
import identity_uses
from head3d_core.metrics.identity_encoder import Encoder
from head3d_core.model import cameras
from head3d_core.utils import files
from identity_data import People, frontal_people


def shown(people: int = 6) -> People:
    """Four pictures a person, each person a pattern of its own."""
    generator = torch.Generator().manual_seed(0)
    patterns = torch.randint(40, 215, (people, 3, 8, 8), generator=generator).float()
    images = torch.nn.functional.interpolate(patterns, size=64, mode="bilinear").to(torch.uint8)
    person = torch.arange(people).repeat_interleave(4)
    camera, frontal = cameras.orbit(torch.zeros(len(person))), torch.ones(len(person), dtype=torch.bool)
    return People(images[person], camera, person, frontal, tuple(range(10_000_000, 10_000_000 + people)))


class Mean(nn.Module):
    """Colour averages of an 8 by 8 grid, centred: an encoder that blur hardly moves."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, crops: Tensor) -> Tensor:
        small = torch.nn.functional.adaptive_avg_pool2d(crops, 8).flatten(1)
        return small - small.mean(1, keepdim=True)


def test_strangers_are_pairs_of_different_people() -> None:
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert identity_uses.stranger_distance(x, torch.tensor([0, 0, 1])) == pytest.approx(1.0)
    refuses("two people", identity_uses.stranger_distance, x, torch.zeros(3))


def test_shares_are_relative_to_strangers() -> None:
    a = torch.eye(4)
    found = identity_uses.shares(a, a.roll(1, 0), 0.5)
    assert found["value"] == pytest.approx(2.0)
    assert identity_uses.shares(a, a, 0.5)["value"] == pytest.approx(0.0)


def test_blur_keeps_the_mean_and_removes_detail() -> None:
    picture = torch.zeros(1, 3, 33, 33, dtype=torch.uint8)
    picture[..., 16, 16] = 255
    soft = identity_uses.changed(picture)["blur, 1 pixel"]
    assert soft[0, 0, 16, 16] == pytest.approx(255 / (2 * np.pi), abs=1.5)
    flat = torch.full((1, 3, 20, 20), 77, dtype=torch.uint8)
    assert torch.equal(identity_uses.changed(flat)["blur, 3 pixels"], flat)


def test_every_change_changes_pictures() -> None:
    images = shown().images
    for name, other in identity_uses.changed(images).items():
        assert other.dtype == torch.uint8, name
        assert other.shape == images.shape, name
        assert not torch.equal(other, images), name


def test_measure_and_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity_uses, "feature_network", lambda name: None)
    monkeypatch.setattr(identity_uses, "extract", lambda net, x: Mean()(x.float()).detach())
    found = identity_uses.measure(Encoder(Mean(), "means", 64), shown(), 6)
    rows = found["share_of_stranger_distance"]
    changes = set(identity_uses.changed(shown(1).images))
    assert set(rows) == {*changes, "another light and camera", "another look, light and camera"}
    same = rows["another light and camera"]["ours"]["value"]  # the same pictures here
    assert same == pytest.approx(0, abs=1e-6)
    assert rows["blur, 1 pixel"]["ours"]["value"] < rows["blur, 3 pixels"]["ours"]["value"]
    assert -1 <= found["spearman"]["face shape"]["low"] <= found["spearman"]["face shape"]["high"] <= 1
    said = identity_uses.verdicts(found)
    assert "perceptual term" in said["perceptual"]
    for name in changes:
        rows[name]["ours"]["value"] = 0.01
    assert identity_uses.verdicts(found)["perceptual"].startswith("**Not as")
    rows["noise, 5 % of white"]["ours"]["value"] = 0.4
    assert "Only (noise, 5 % of white) move" in identity_uses.verdicts(found)["perceptual"]


def test_the_page_says_what_was_recorded() -> None:
    results = files.DATA / "results"
    names = ("identity_uses", "identity_roc", "cross_check")
    found, roc, check = (json.loads((results / f"{n}.json").read_text(encoding="utf8")) for n in names)
    assert identity_uses.card(found, roc, check) == identity_uses.CARD.read_text(encoding="utf8")
    rows = found["share_of_stranger_distance"]
    nearer = rows["another look, light and camera"]["ours"]["value"]
    assert nearer < 0.5, "one person stays nearer than a stranger"


def test_two_people_at_least() -> None:
    refuses("two people or more", frontal_people, 1)


@pytest.mark.opengl
def test_frontal_people(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity_data, "LOOKS", 1)
    made = frontal_people(2)
    assert made.images.shape == (4, 3, 256, 256)
    assert made.seeds == (10_000_000, 10_000_001)
    yaw, pitch = cameras.yaw_pitch(made.camera)
    assert yaw.abs().max() <= math.radians(20)
    assert pitch.abs().max() <= math.radians(15)


def test_second_opinion_in_words() -> None:
    assert "offline-check" in identity_uses.second_opinion(None)
    rate = {"found": 9, "count": 10}
    assert "does not apply" in identity_uses.second_opinion({"detected": rate, "mirrored": rate})
    auc = {"value": 0.98}
    full = {"detected": rate, "mirrored": rate, "ours": auc, "dlib": auc}
    for low, words in ((0.6, "encoders agree"), (0.1, "need not agree")):
        rank = {"value": 0.7, "low": low, "high": 0.8, "count": 9}
        assert words in identity_uses.second_opinion({**full, "spearman": rank})


# -- the second opinion, with planted encoders in dlib's place


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


def test_agreement_on_images_that_mean_something(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity_uses, "dlib_embeddings", planted())
    found = identity_uses.dlib_cross_check(*scene(), 20)
    assert set(found) == {"detected", "mirrored", "spearman", "ours", "dlib", "decisions"}
    assert (found["detected"]["found"], found["detected"]["count"]) == (23, 24)
    assert found["mirrored"]["found"] == 23
    assert found["dlib"]["value"] == pytest.approx(1)
    assert found["spearman"]["value"] > 0.3
    assert found["decisions"]["same"]["value"] == 1
    # Each accepts 1 % of the strangers, not the same ones.
    assert 0.97 < found["decisions"]["different"]["value"] < 1


def test_no_number_where_mirror_images_are_strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity_uses, "dlib_embeddings", planted(mirror_fails=True))
    found = identity_uses.dlib_cross_check(*scene(), 20)
    assert found["mirrored"]["found"] == 0
    assert "spearman" not in found


def test_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity_uses, "dlib_embeddings", planted())
    images, x, who = scene()
    refuses("every image needs an embedding", identity_uses.dlib_cross_check, images, x[1:], who)
    refuses("a face in 0 of 24", identity_uses.dlib_cross_check, images * 0, x, who)


def test_encoders_that_agree_and_that_do_not() -> None:
    generator = torch.Generator().manual_seed(0)
    who = torch.arange(15).repeat_interleave(3)
    centres = torch.randn(15, 32, generator=generator)[who]
    x = centres + 0.6 * torch.randn(45, 32, generator=generator)
    turn = torch.linalg.qr(torch.randn(32, 32, generator=generator))[0]
    same = identity_uses.encoder_agreement(x, x @ turn, who, 20)
    assert same["spearman"].value == pytest.approx(1, abs=1e-3)
    assert same["same"].value == same["different"].value == 1
    other = torch.randn(45, 32, generator=generator)
    worse = identity_uses.encoder_agreement(x, other, who, 20)
    assert abs(worse["spearman"].value) < 0.3
    assert worse["same"].value < 0.1  # the first accepts them, the second takes everybody for a stranger
    assert worse["different"].value > 0.95
