"""The trainer on toy data at preset tiny: draws, schedules, who learns in which phase, and the same on a GPU."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
import training_toys as toys

from head3d_core.training import recipes, train
from head3d_core.training.numerics import Numerics
from head3d_core.training.parts import Draws, Phase, Purpose, blur
from head3d_core.training.trainer import Trainer


def test_draws_are_the_same_for_any_number_of_processes() -> None:
    cpu = torch.device("cpu")
    whole = Draws(3, 8, 0, 1, cpu)
    whole.step.fill_(5)
    for world in (2, 4):
        for rank in range(world):
            part = Draws(3, 8, rank, world, cpu)
            part.step.fill_(5)
            for draw in (
                lambda d: d.normal(Phase.G_MAIN, Purpose.Z, 16),
                lambda d: d.uniform(Phase.D_MAIN, Purpose.CAMERA, 2, shift=-1),
            ):
                assert torch.equal(draw(part), draw(whole)[rank::world])


def test_draws_differ_by_seed_step_phase_purpose_and_sample() -> None:
    seen = set()
    for seed in (0, 1):
        draws = Draws(seed, 4, 0, 1, torch.device("cpu"))
        for step in (0, 1, 100_000):
            draws.step.fill_(step)
            for phase in Phase:
                for purpose in Purpose:
                    seen.update(draws.seeds(phase, purpose).tolist())
    assert len(seen) == 2 * 3 * len(Phase) * len(Purpose) * 4


def test_blur_matches_its_formula_and_fades_to_nothing() -> None:
    x = torch.zeros(1, 3, 33, 33)
    x[..., 16, 16] = 1
    y = blur(x, torch.tensor(2.0), largest=4.0)
    assert y.sum().item() == pytest.approx(3.0, abs=1e-5)
    assert (y[0, 0, 16, 18] / y[0, 0, 16, 16]).item() == pytest.approx(0.5, abs=1e-5), "2^-(2/2)^2"
    assert y[0, 0, 16, 23].item() == 0, "cut at 3 sigma"
    torch.testing.assert_close(blur(x, torch.tensor(1e-6), largest=4.0), x)


def test_schedules_at_their_ends() -> None:
    recipe = toys.toy_recipe("teacher", batch=4, blur_sigma=2.0, blur_images=32, gpc=0.8, gpc_images=32,
                             neural_resolution=4, neural_images=32, ema_images=16.0, ema_rampup=0.05)  # fmt: skip
    start, middle, end = 0, 16, 4000
    assert [recipe.blur_at(n) for n in (start, middle, end)] == [2.0, pytest.approx(1.0), 0.0]
    assert [recipe.swap_at(n) for n in (start, middle, end)] == pytest.approx([1, 0.9, 0.8])
    assert [recipe.resolution_at(n, 8) for n in (start, middle, end)] == [4, 6, 8]
    assert recipe.ema_beta_at(start) < 1e-6, "the average starts as a copy"
    assert recipe.ema_beta_at(end) == pytest.approx(0.5 ** (4 / 16))
    warm = dataclasses.replace(recipe, warmup_steps=4)
    assert [warm.warmth_at(n) for n in (0, 1, 9)] == [0.25, 0.5, 1.0]


def test_two_domains_alternate_and_keep_their_share() -> None:
    recipe = recipes.recipe("distill", "tiny")
    assert [recipe.domain_at(k) for k in range(6)] == [0, 1, 0, 1, 0, 1]
    uneven = dataclasses.replace(recipe, back_share=0.25)
    assert sum(uneven.domain_at(k) for k in range(400)) == 100


def test_each_phase_moves_its_own_network_only() -> None:
    trainer = toys.trainer(toys.toy_recipe("teacher"))
    g, d = toys.weights(trainer.generator), toys.weights(trainer.discriminators[0])

    def changed(net: torch.nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
        return {k for k, v in net.state_dict().items() if not torch.equal(v, before[k])}

    trainer.run_phase(Phase.G_MAIN, 0)
    assert not changed(trainer.discriminators[0], d)
    moved = changed(trainer.generator, g)
    assert {"backbone.mapping.w_avg", "decoder.net.0.weight", "superresolution.block1.torgb.weight"} <= moved
    assert all(k in moved for k in g if k.endswith("conv1.weight")), "every convolution learns"
    g = toys.weights(trainer.generator)
    trainer.run_phase(Phase.G_REG, 0)
    moved = changed(trainer.generator, g)
    assert "decoder.net.0.weight" in moved
    assert not any(torch.equal(p.grad, torch.zeros_like(p)) for n, p in trainer.generator.named_parameters()
                   if n == "backbone.synthesis.b32.conv1.weight" and p.grad is not None)  # fmt: skip
    assert not any(p.grad.any() for n, p in trainer.generator.named_parameters()
                   if n.startswith("superresolution") and p.grad is not None), "density knows no pictures"  # fmt: skip
    g = toys.weights(trainer.generator)
    for phase in (Phase.D_MAIN, Phase.D_REG):
        d = toys.weights(trainer.discriminators[0])
        trainer.run_phase(phase, 0)
        assert not changed(trainer.generator, g)
        moved = changed(trainer.discriminators[0], d)
        assert {"b64.fromrgb.weight", "b4.out.weight", "mapping.embed.weight"} <= moved


def test_a_discriminator_may_learn_first() -> None:
    trainer = toys.trainer(toys.toy_recipe("teacher", batch=4, discriminator_first=8))
    start, discriminator = toys.weights(trainer.generator), toys.weights(trainer.discriminators[0])
    for _ in range(2):
        trainer.step()
    assert toys.same(start, trainer.generator.state_dict())
    assert not toys.same(discriminator, trainer.discriminators[0].state_dict())
    trainer.step()
    assert not toys.same(start, trainer.generator.state_dict())


def test_one_pass_of_d_equals_two() -> None:
    trainer = toys.trainer(toys.toy_recipe("teacher", batch=8))
    fake, real = ((torch.randn(8, 3, 64, 64), torch.randn(8, 3, 8, 8), toys.faces(8)[1]) for _ in range(2))
    together = trainer._logits_of_both(0, fake, real)
    apart = trainer._logits(0, *fake), trainer._logits(0, *real)
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-5)


def test_d_learns_to_tell_and_g_moves_towards_the_data() -> None:
    """A fixed toy problem: discs on white. D separates untrained pictures, then G's pictures approach the real mean."""
    recipe = toys.toy_recipe("teacher", batch=8, density_weight=0.0, noise="const")
    trainer = toys.trainer(recipe)

    def colour_gap() -> float:
        real = toys.faces()[0].float().mean([0, 2, 3]) / 127.5 - 1
        fake = train.sample_views(trainer.average, range(32), (0.0,)).mean([0, 2, 3])
        return float((fake - real).abs().mean())

    for _ in range(6):
        trainer.run_phase(Phase.D_MAIN, 0)
        trainer.step_count += 1
    first = trainer.read_metrics()["d_loss_front"]
    for _ in range(4):
        trainer.run_phase(Phase.D_MAIN, 0)
        trainer.step_count += 1
    assert trainer.read_metrics()["d_loss_front"] < first
    before = colour_gap()
    for _ in range(32):  # it overshoots at first: step 12 is farther away than the start
        trainer.step()
    assert colour_gap() < before


def test_not_finite_gradients_are_counted_and_do_no_harm() -> None:
    trainer = toys.trainer(toys.toy_recipe("teacher", density_weight=0.0))
    optimiser, before = trainer.generator_optimiser, toys.weights(trainer.generator)
    for bad in (torch.nan, torch.inf, -torch.inf):
        optimiser.minimise((optimiser.parameters[0] * bad).sum())
        assert trainer.read_metrics()["bad_gradients"] == optimiser.parameters[0].numel()
        if math.isnan(bad):  # the others count as a large gradient
            assert toys.same(before, trainer.generator.state_dict())
    assert trainer.broken_parameter() is None


# -- on a GPU --------------------------------------------------------------------------------------------------


def _on_gpu(stage: str, **options: Any) -> Trainer:
    stage, row = ("distill", stage) if stage == "two-sided" else (stage, None)
    recipe = toys.toy_recipe(
        stage, row, batch=4, blur_sigma=2.0, blur_images=10_000, ada_target=0.6, ada_start=0.3
    )
    return toys.trainer(recipe, device="cuda", numerics=Numerics(**options))


@pytest.mark.gpu
@pytest.mark.parametrize("stage", ["teacher", "distill", "two-sided"])
def test_no_step_waits_for_the_gpu(stage: str) -> None:
    trainer = _on_gpu(stage, graphs=False)
    for _ in range(2):  # fills caches of constants
        trainer.step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(4):
            trainer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.parametrize("stage", ["teacher", "distill", "two-sided"])
def test_graphs_train_like_plain_steps(stage: str) -> None:
    """Same draws, same schedules: only the order of atomic sums differs, which Adam's first steps can amplify."""
    plain, captured = (_on_gpu(stage, precision="fp32", graphs=g) for g in (False, True))
    for _ in range(12):
        plain.step()
        captured.step()
    a, b = plain.read_metrics(), captured.read_metrics()
    assert a.keys() == b.keys()
    for name in ("kd", "map", "kd_back", "d_loss_front", "g_gan_front"):
        if name in a:
            assert b[name] == pytest.approx(a[name], rel=0.05), name
    assert captured.device_queue.graphs


@pytest.mark.gpu
def test_half_precision_follows_full_precision() -> None:
    """One G and one D step: metrics of bf16 within its rounding (8 bits) of fp32."""
    full, half = (_on_gpu("teacher", precision=p, graphs=False) for p in ("fp32", "bf16"))
    full.step()
    half.step()
    a, b = full.read_metrics(), half.read_metrics()
    for name in ("d_loss_front", "g_gan_front"):
        assert b[name] == pytest.approx(a[name], rel=0.05, abs=0.02), name
