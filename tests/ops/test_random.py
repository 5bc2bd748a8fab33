"""Random numbers that depend on their index only."""

from __future__ import annotations

import plain
import pytest
import torch

from head3d_core.ops import random


@pytest.mark.parametrize("stream", [0, 1, 17])
def test_uniform_is_the_scalar_formula(stream: int) -> None:
    seeds = [0, 1, 2**31, 2**32, 2**62 - 1, 123456789012345678]
    found = random.uniform(torch.tensor(seeds), 3, 4, stream)
    for n, seed in enumerate(seeds):
        for row in range(3):
            for column in range(4):
                assert float(found[n, row, column]) == plain.uniform(seed, row, column, stream)


def test_batch_split_changes_nothing() -> None:
    """What distributed training needs: a sample's numbers do not depend on its batch."""
    seeds = torch.arange(7) * 2**40 + 5
    whole = random.uniform(seeds, 5, 6, 2)
    assert torch.equal(whole, torch.cat([random.uniform(part, 5, 6, 2) for part in seeds.split(3)]))
    assert torch.equal(whole[:, :2, :3], random.uniform(seeds, 2, 3, 2)), (
        "a smaller request is a corner of a larger one"
    )


def test_distribution() -> None:
    u = random.uniform(torch.arange(4), 200, 250).double()
    assert float(u.min()) >= 0
    assert float(u.max()) < 1
    assert abs(float(u.mean()) - 0.5) < 3e-3  # five standard errors of 200 000 draws
    assert abs(float(u.var()) - 1 / 12) < 2e-3
    flat = u.flatten(1)
    for a, b in ((flat[0], flat[1]), (u[0, :-1].flatten(), u[0, 1:].flatten()), (flat[0, :-1], flat[0, 1:])):
        assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 0.025
    other = random.uniform(torch.arange(4), 200, 250, 1).double().flatten(1)
    assert abs(float(torch.corrcoef(torch.stack([flat[0], other[0]]))[0, 1])) < 0.025


def test_normal() -> None:
    x = random.normal(torch.arange(4), 200, 250, 2).double()
    assert bool(torch.isfinite(x).all())
    assert abs(float(x.mean())) < 0.012
    assert abs(float(x.std()) - 1) < 0.01
    assert abs(float((x.abs() < 1).double().mean()) - 0.6827) < 0.006


@pytest.mark.gpu
@pytest.mark.native
def test_the_gpu_kernel_draws_the_same_numbers() -> None:
    seeds = torch.tensor([0, 1, 2**40 + 7, 2**62 - 1, -5])
    on_gpu = seeds.cuda()
    assert random._has_kernel(on_gpu)
    for rows, columns, stream in ((1, 1, 0), (3, 33, 1), (64, 64, 19), (0, 4, 0)):
        expected = random.uniform(seeds, rows, columns, stream)
        assert torch.equal(random.uniform(on_gpu, rows, columns, stream).cpu(), expected)
        # log1p and cos differ in their last bits; near u = 0 the root amplifies that.
        normal = random.normal(on_gpu, rows, columns, stream).cpu()
        torch.testing.assert_close(normal, random.normal(seeds, rows, columns, stream), rtol=1e-4, atol=1e-5)
