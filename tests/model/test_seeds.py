"""Seeds: one head each, whatever the generator, the batch or the order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers import refused, refuses

from head3d_core.config import preset
from head3d_core.model import seeds
from head3d_core.model.cameras import frontal
from head3d_core.model.generator import Generator
from head3d_core.model.seeds import Heads


@pytest.fixture(scope="module")
def G() -> Generator:
    torch.manual_seed(0)
    return Generator(preset("tiny").generator).eval()


@pytest.fixture(scope="module")
def heads(G: Generator) -> Heads:
    return seeds.heads_of_seeds(G, range(4), psi=1.0)


def test_z_is_eg3ds() -> None:
    z = seeds.z_of_seeds([3, 4], 8)
    assert torch.equal(z[1], torch.from_numpy(np.random.RandomState(4).randn(1, 8))[0].float())
    assert torch.equal(z[1:], seeds.z_of_seeds([4], 8))
    assert torch.equal(seeds.z_of_seeds(np.arange(2), 8), seeds.z_of_seeds(range(2), 8))


@pytest.mark.parametrize("wrong", [3, "7", ["7"], [1.5], [-1], [2**32], [True], []])
def test_seeds_that_are_none_are_refused_in_a_sentence(wrong: Any) -> None:
    refuses("seed", seeds.z_of_seeds, wrong, 8)


def test_z_of_numbers_is_a_function_of_seed_and_number() -> None:
    many = seeds.z_of_numbers(1, range(0, 40), 512)
    assert torch.equal(many[7:9], seeds.z_of_numbers(1, range(7, 9), 512))
    assert not torch.equal(many, seeds.z_of_numbers(2, range(0, 40), 512))
    assert abs(float(many.mean())) < 0.03
    assert float(many.std()) == pytest.approx(1, abs=0.03)


def test_ws_repeat_and_truncate(G: Generator) -> None:
    ws = seeds.ws_of_seeds(G, [3, 4, 3])
    with torch.no_grad():
        alone = G.mapping(seeds.z_of_seeds([3], G.z_dim), frontal())
    torch.testing.assert_close(ws[2:], alone, rtol=1e-4, atol=1e-5)
    assert torch.allclose(ws[0], ws[2], atol=1e-5)
    assert not torch.allclose(ws[0], ws[1], atol=0.1)
    average = seeds.ws_of_seeds(G, [3, 4], psi=0.0)
    assert torch.allclose(average[0], average[1])


def test_heads_do_not_depend_on_the_batch(G: Generator, heads: Heads) -> None:
    again = seeds.heads_of_seeds(G, [2, 3], psi=1.0)
    assert torch.allclose(again.planes, heads.planes[2:], atol=1e-5)
    assert heads.planes.stride(2) == 1, "channels are innermost"
    taken = heads.take([2, 0, 2])
    assert taken.seeds == (2, 0, 2)
    assert torch.equal(taken.planes[0], heads.planes[2])
    assert taken.planes.stride(2) == 1
    for rows in (5, [], [0.5], [4], [-1]):
        with refused(r"rows must be a list|there are heads 0 to 3"):
            heads.take(rows)  # type: ignore[arg-type]
