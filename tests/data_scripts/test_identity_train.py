"""Learning people: the loss by hand, the looks of one person, and a tiny training run that must get better."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import refuses

import identity_data
import identity_train
from head3d_core.metrics.identity_encoder import EncoderConfig, load_encoder
from head3d_core.model.cameras import orbit
from head3d_core.synth.identity import identity
from identity_data import People

SMALL = identity_train.TrainOptions(
    steps=50, batch=24, config=EncoderConfig((8, 16, 16, 24), 1), rate=5e-3, margin=0.2
)


def patterns(count: int, each: int, first: int) -> People:
    """ "People" for a CPU: a face is a coarse coloured pattern, seen under other light and noise each time."""
    crops = []
    for seed in range(first, first + count):
        generator = torch.Generator().manual_seed(seed)
        face = torch.rand(1, 3, 4, 4, generator=generator)
        face = torch.nn.functional.interpolate(face, size=(144, 144), mode="bicubic").clamp(0, 1)
        light = 0.5 + 0.5 * torch.rand(each, 1, 1, 1, generator=generator)
        noise = 0.15 * torch.randn(each, 3, 144, 144, generator=generator)
        crops.append(((face * light + noise).clamp(0, 1) * 255).to(torch.uint8))
    person = torch.arange(count).repeat_interleave(each)
    frontal = (torch.arange(each) < 0.55 * each).repeat(count)
    seeds = tuple(range(first, first + count))
    return People(torch.cat(crops), orbit(torch.zeros(len(person))), person, frontal, seeds)


def test_angular_margin_by_hand() -> None:
    loss = identity_train.AngularMargin(3, scale=2.0)
    with torch.no_grad():
        loss.centres.copy_(torch.eye(128)[:3] * torch.tensor([[1.0], [5.0], [0.1]]))  # only directions count
    angle, margin = 0.7, 0.3
    x = (math.cos(angle) * torch.eye(128)[0] + math.sin(angle) * torch.eye(128)[1])[None]
    others = 2 * torch.tensor([math.cos(angle + margin), math.sin(angle), 0.0])
    expected = -torch.log_softmax(others, 0)[0]
    assert loss(x, torch.tensor([0]), margin).item() == pytest.approx(expected.item(), rel=1e-5)
    plain = -torch.log_softmax(2 * torch.tensor([math.cos(angle), math.sin(angle), 0.0]), 0)[0]
    assert loss(x, torch.tensor([0]), 0.0).item() == pytest.approx(plain.item(), rel=1e-5)


def test_angular_margin_never_rewards_a_larger_angle() -> None:
    loss = identity_train.AngularMargin(2)
    with torch.no_grad():
        loss.centres.copy_(torch.eye(128)[:2])
    angles = torch.linspace(0.01, math.pi - 0.01, 200)
    x = angles.cos()[:, None] * torch.eye(128)[0] + angles.sin()[:, None] * torch.eye(128)[2]
    values = torch.stack([loss(row[None], torch.tensor([0]), 0.5) for row in x])
    assert (values.diff() >= -1e-5).all()


def test_tar_rises(tmp_path: Path) -> None:
    learned, tested = patterns(30, 6, 0), patterns(16, 4, 1000)
    found = identity_train.train_encoder(learned, tested, SMALL, tmp_path)
    before, after = (r["all"]["tar_at_far_0.01"] for r in (found["untrained"], found))
    assert after["low"] > before["value"] + 0.1, (before, after)
    assert found["all"]["auc"]["value"] > 0.95
    stored = json.loads((tmp_path / "identity_roc.json").read_text())
    assert stored["provenance"]["people"] == 30
    assert {"date", "commit", "torch", "device"} <= set(stored["provenance"])
    assert stored["provenance"]["options"]["margin"] == 0.2
    assert len(stored["all"]["roc"]["true_accept"]) > 20
    encoder = load_encoder("ours", weights=tmp_path / "encoder.safetensors")
    assert encoder.name == "head3d-identity"


def test_a_run_repeats() -> None:
    options = dataclasses.replace(SMALL, steps=4, batch=4)
    one, again = (identity_train.learn(patterns(6, 2, 0), options) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), again.parameters(), strict=True))


def test_augmented_crops_stay_the_same_person() -> None:
    crops = patterns(4, 1, 0).images
    x = identity_train.augmented(crops, torch.Generator().manual_seed(0))
    assert x.shape == (4, 3, 128, 128)
    assert x.min() >= -1
    assert x.max() <= 1
    plain = identity_train.centred(crops)
    assert (x - plain).abs().mean() > 0.01
    again = identity_train.augmented(crops, torch.Generator().manual_seed(0))
    assert torch.equal(x, again)


def test_bad_runs_are_refused(tmp_path: Path) -> None:
    people = patterns(4, 2, 0)
    again = (people, people, SMALL, tmp_path)
    refuses("4 people are both learned and tested on", identity_train.train_encoder, *again)
    refuses("at least 2", identity_train.learn, patterns(1, 4, 0), SMALL)
    refuses("must be at least 1", identity_data.render_people, 0, 0)


def test_looks_change_what_is_worn_and_nothing_else() -> None:
    kept = ("person", "features", "hair", "brows", "beard", "seed", "kind")
    hats = set()
    expressions = set()
    for look in range(12):
        base, found = identity(5_000_007), identity_data.dressed(5_000_007, look)
        assert all(getattr(found, name) == getattr(base, name) for name in kept)
        assert found.eyes.iris == base.eyes.iris
        assert (found.skin.melanin, found.skin.noise) == (base.skin.melanin, base.skin.noise)
        hats.add(found.hat is not None)
        expressions.add(found.expression)
        assert found == identity_data.dressed(5_000_007, look)
    assert len(expressions) == 12
    frontal = np.degrees([identity_data.angles(1, look, 0) for look in range(40)])
    assert np.abs(frontal[:, 0]).max() <= 20
    assert np.abs(frontal[:, 1]).max() <= 15
    turned = np.degrees([identity_data.angles(1, look, 1) for look in range(40)])
    assert np.abs(turned[:, 0]).max() > 60


@pytest.mark.opengl
def test_rendered_people() -> None:
    people = identity_data.render_people(10, 2, 1, (0, 1), workers=1)
    assert people.images.shape == (4, 3, 144, 144)
    assert people.person.tolist() == [0, 0, 1, 1]
    assert people.frontal.tolist() == [True, False, True, False]
    assert people.seeds == (10, 11)
    middle = people.images[:, :, 62:82, 62:82].float().std((2, 3)).mean()
    assert people.images.float().std() > 20
    assert middle > 1  # a face, not a white page
