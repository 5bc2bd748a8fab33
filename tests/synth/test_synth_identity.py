"""Identities: draws, hashes for ever, parts apart, balance, strata."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, replace

import numpy as np
import pytest
from helpers import refuses

from head3d_core.synth import TABLES
from head3d_core.synth import identity as identities
from head3d_core.synth.assets import asset
from head3d_core.synth.draws import Draws, mix, normals, stream_key, uniforms
from head3d_core.synth.growth import STYLES as GROWN
from head3d_core.synth.identity import STYLES, identity
from head3d_core.synth.wardrobe import GLASSES, HATS

GOLDEN = {
    (0, "faces"): "3eb132099cecb70a187b0ec3b8e8f9e03c87131c973161a6e2616502e478d0ed",
    (1, "faces"): "078df130748a7ead632a77bd1327f61e4b702c2fae3564e8e7119bdfa4965a6e",
    (123456, "faces"): "aae26d1e3c2be4d469fa153f1e6d187c05d44783e319b78b81d2e79d4c71267d",
    (0, "heads"): "a587dc4e5c3969449c91afaf1ad446889a3e9f944f1c6b9726e440ba0a45608b",
    (17, "heads"): "b0880821702ffb6d4c9f942b250ea01c3a59ac430e27fa3bd90d096658ce8b5e",
    (1003, "heads"): "e4338c4ccc40ffcbc0a1b9d044faac9701a3f2c574eefb2ac0e6d2fa4117c177",
}
"""Raise SAMPLER_VERSION when these change: a seed has become another person."""


def test_splitmix_matches_its_published_sequence() -> None:
    """First outputs of splitmix64 started at 0: the state advances by the golden gamma, which `mix` adds itself."""
    state = [(k * 0x9E3779B97F4A7C15) % 2**64 for k in range(3)]
    assert [mix(s) for s in state] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_array_draws_equal_scalar_draws_and_look_right() -> None:
    key = stream_key(5, "x")
    expected = [(mix((mix(key) + k) % 2**64) >> 11) * 2.0**-53 for k in range(4)]
    np.testing.assert_array_equal(uniforms(key, 4), expected)
    x = normals(key, 40000)
    assert abs(x.mean()) < 0.02
    assert abs(x.std() - 1) < 0.02
    y = np.array([Draws(k, "a").normal("b") for k in range(4000)])
    assert abs(y.mean()) < 0.05
    assert abs(y.std() - 1) < 0.05


def test_draws_do_not_depend_on_order_or_on_each_other() -> None:
    a, b = Draws(3, "part"), Draws(3, "part")
    first = a.uniform("one"), a.uniform("two")
    assert (b.uniform("two"), b.uniform("one")) == first[::-1]
    assert Draws(3, "other").uniform("one") != first[0] != Draws(4, "part").uniform("one")
    assert sorted(a.permutation("p", 25)) == list(range(25))
    assert {a.choice(f"c{k}", "xyz", (0, 1, 0)) for k in range(30)} == {"y"}


@pytest.mark.parametrize(("seed", "kind"), GOLDEN)
def test_golden_hashes(seed: int, kind: str) -> None:
    text = json.dumps(asdict(identity(seed, kind)), sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(text.encode()).hexdigest() == GOLDEN[seed, kind]


def test_parameters_are_rounded_and_survive_json() -> None:
    for seed in range(40):
        text = json.dumps(asdict(identity(seed)))
        numbers = re.findall(r"-?\d+\.\d+(?:e-?\d+)?", text)
        assert all(len(n.split(".")[-1]) <= 5 for n in numbers)


def test_a_part_can_change_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other hats, other clothes or another hair sampler leave every other part as it was."""
    before = [identity(seed) for seed in range(30)]
    monkeypatch.setattr(identities.wardrobe, "draw_hat", lambda d, style: None)
    monkeypatch.setattr(identities, "_eyes", lambda *_: before[0].eyes)
    after = [identity(seed) for seed in range(30)]
    assert any(b.hat is not None for b in before)
    for b, a in zip(before, after, strict=True):
        assert replace(b, hat=None, eyes=before[0].eyes) == a


def test_every_target_named_exists_in_the_asset() -> None:
    known = set(asset().target_names)
    for seed in range(60):
        person = identity(seed)
        assert {name for name, _ in (*person.features, *person.expression)} <= known


def test_faces_are_balanced() -> None:
    people = [identity(seed) for seed in range(1500)]
    assert 0.46 < np.mean([p.person.gender > 0.5 for p in people]) < 0.54
    melanin = np.array([p.skin.melanin for p in people])
    thirds = np.histogram(melanin, [0, 1 / 3, 2 / 3, 1])[0] / len(people)
    assert thirds.min() > 0.24
    assert melanin.mean() < 0.5  # in-the-wild face sets are lighter than even
    years = np.array([p.person.years for p in people])
    assert years.min() >= 10
    assert years.max() <= 80
    assert (np.histogram(years, [10, 18, 35, 55, 81])[0] / len(people) > 0.05).all()
    assert abs(np.corrcoef(melanin, years)[0, 1]) < 0.08
    worn = [p.glasses.kind for p in people if p.glasses]
    assert 0.15 < len(worn) / len(people) < 0.30
    assert worn.count("sunglasses") / len(people) <= 0.04
    assert set(worn) == set(GLASSES)
    assert {p.hat.kind for p in people if p.hat} == set(HATS)
    assert {p.hair.style for p in people} == set(STYLES)


@pytest.mark.parametrize("block", [0, 20])
def test_heads_are_stratified(block: int) -> None:
    heads = [identity(50 * block + k, "heads") for k in range(50)]
    assert all(h.hat is None and h.glasses is None for h in heads)
    for male, who in ((True, "men"), (False, "women")):
        group = [h for h in heads if (h.person.gender > 0.5) == male]
        assert sorted(h.hair.style for h in group) == sorted(TABLES["styles"][f"block_of_{who}"])
        years, tones = [h.person.years for h in group], [h.skin.melanin for h in group]
        for values, low, width in ((years, 15, 63), (tones, 0.03, 0.92)):
            bins = np.floor((np.array(values) - low) / width * 25).clip(0, 24)
            assert len(np.unique(bins)) >= 24  # one head per bin, but for rounding at an edge
    assert min(h.person.years for h in heads if h.hair.style in ("bald", "balding")) > 30


def test_styles_are_complete() -> None:
    blocks = [TABLES["styles"][f"block_of_{who}"] for who in ("men", "women")]
    assert {*blocks[0], *blocks[1]} == set(STYLES) == {*GROWN, "bald"}
    assert [len(block) for block in blocks] == [25, 25]


def test_bad_arguments_are_refused() -> None:
    refuses("seed >= 0", identity, -1)
    refuses("heads", identity, 1, "bodies")
