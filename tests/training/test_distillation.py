"""Distillation: what the student learns from, what stays frozen, and what the rows of the comparison switch off."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
import training_toys as toys
from helpers import refuses

from head3d_core.model import cameras
from head3d_core.training import distillation
from head3d_core.training.parts import Phase
from head3d_core.training.recipes import LossWeights, Recipe
from head3d_core.training.trainer import Trainer


def names(trainer: Trainer, domain: int = 0) -> dict[str, float]:
    trainer.run_phase(Phase.G_MAIN, domain)
    return {k: v for k, v in trainer.read_metrics().items() if k != "bad_gradients"}


def test_all_terms_act_in_front_and_none_in_pictures_from_behind() -> None:
    trainer = toys.trainer(toys.toy_recipe("distill"))
    front = names(trainer, domain=0)
    assert set(front) == {"g_gan_front", "kd", "map", "rgb", "lpips"}
    assert min(front.values()) > 0
    back = names(trainer, domain=1)
    assert set(back) == {"g_gan_back", "kd", "map"}, "back views lie outside tau: no pictures to compare"
    assert back["kd"] > 0


def test_leaving_out_pictures_from_behind_changes_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    def gradients() -> tuple[dict[str, float], dict[str, torch.Tensor]]:
        trainer = toys.trainer(toys.toy_recipe("distill"))
        monkeypatch.setattr(trainer.generator_optimiser.adam, "step", lambda: None)
        trainer.run_phase(Phase.G_MAIN, 1)
        found = {n: p.grad for n, p in trainer.generator.named_parameters() if p.grad is not None}
        return trainer.read_metrics(), found

    short = gradients()[1]
    monkeypatch.setattr(Recipe, "compares_images", lambda self, domain: True)
    metrics, full = gradients()
    assert metrics["rgb"] == metrics["lpips"] == 0
    assert short.keys() == full.keys()
    assert len(short) > 10
    torch.testing.assert_close(short, full, rtol=1e-5, atol=1e-7)


def test_side_views_can_go_to_the_back_and_only_views_within_tau_are_compared() -> None:
    recipe = toys.toy_recipe("distill")
    assert [recipe.compares_images(k) for k in (0, 1)] == [True, False]
    side = dataclasses.replace(recipe.domains[1], sources=("heads_side",))
    wide = dataclasses.replace(recipe, domains=(recipe.domains[0], side))
    assert not wide.compares_images(1)
    narrow_pool, wide_pool = (toys.trainer(each).pools[1] for each in (recipe, wide))
    assert len(wide_pool) > len(narrow_pool)
    yaw = cameras.yaw_pitch(wide_pool.cameras)[0].abs()
    assert recipe.tau < yaw.min() < recipe.split_angle
    assert dataclasses.replace(recipe, tau=2.0).compares_images(1)
    assert not dataclasses.replace(recipe, losses=LossWeights(kd=1.0)).compares_images(0)


def test_the_teacher_stays_as_it_was_and_gets_no_gradient() -> None:
    trainer = toys.trainer(toys.toy_recipe("distill"))
    assert trainer.teacher is not None
    before = toys.weights(trainer.teacher)
    for _ in range(2):
        trainer.step()
    assert toys.same(before, trainer.teacher.state_dict())
    assert all(p.grad is None for p in trainer.teacher.parameters())


def test_discriminators_alternate_and_see_their_own_views() -> None:
    recipe = toys.toy_recipe("distill")
    trainer = toys.trainer(recipe)
    for step in range(2):
        before = [toys.weights(d) for d in trainer.discriminators]
        trainer.step()
        for k, (d, old) in enumerate(zip(trainer.discriminators, before, strict=True)):
            assert toys.same(old, d.state_dict()) == (k != step % 2), (
                f"step {step}: only D_{('front', 'back')[step % 2]} learns"
            )
    assert trainer.visits == [1, 1]
    front, back = (cameras.yaw_pitch(pool.cameras.flatten(0, 1))[0].abs() for pool in trainer.pools)
    assert front.max() < 0.7
    assert back.min() > math.pi / 2


def test_both_discriminators_get_their_r1() -> None:
    """With two that alternate, a shared step counter would regularise one of them only."""
    trainer = toys.trainer(toys.toy_recipe("distill", d_reg_interval=2))
    for _ in range(6):
        trainer.step()
    assert {"r1_front", "r1_back"} <= set(trainer.read_metrics())


def test_teacher_and_student_share_everything_random() -> None:
    """A student that is the teacher has no distillation loss at all."""
    trainer = toys.trainer(toys.toy_recipe("distill", noise="random"))
    assert trainer.teacher is not None
    trainer.generator.load_state_dict(trainer.teacher.state_dict())
    values = names(trainer)
    assert max(values[k] for k in ("kd", "map", "rgb", "lpips")) < 1e-6


def test_mapping_cameras_come_from_the_face_set() -> None:
    trainer = toys.trainer(toys.toy_recipe("distill"))
    camera, mapping = trainer.mapping_cameras(Phase.G_MAIN, 1)
    assert cameras.yaw_pitch(camera)[0].abs().min() > math.pi / 2, "renders the back"
    assert cameras.yaw_pitch(mapping)[0].abs().max() < 0.7, (
        "but the code comes from a face camera (decision 7)"
    )


@pytest.mark.parametrize(
    ("row", "gone"),
    [
        ("no-kd", {"kd"}),
        ("no-rgb-lpips", {"rgb", "lpips"}),
        ("no-gan-front", {"g_gan_front"}),
        ("all-planes", set()),
    ],
)
def test_rows_drop_their_terms(row: str, gone: set[str]) -> None:
    trainer = toys.trainer(toys.toy_recipe("distill", row))
    assert set(names(trainer)) == {"g_gan_front", "kd", "map", "rgb", "lpips"} - gone


def test_baselines_train_without_a_teacher_on_everything() -> None:
    for row in ("dft", "fh"):
        trainer = toys.trainer(toys.toy_recipe("distill", row))
        assert trainer.teacher is None
        assert len(trainer.pools[0]) == 48
        trainer.step()
    trainer = toys.trainer(toys.toy_recipe("distill", "single-d-pooled"))
    assert 24 < len(trainer.pools[0]) < 48
    trainer.step()
    assert len(trainer.discriminators) == 1


def test_one_discriminator_takes_turns_with_both_sides() -> None:
    """The single difference to the full method: one network, with each side's own images, γ and turn."""
    full, one = (toys.trainer(toys.toy_recipe("distill", row)) for row in ("head3d", "single-d"))
    assert (len(full.discriminators), len(one.discriminators)) == (2, 1)
    for a, b in zip(full.pools, one.pools, strict=True):
        assert torch.equal(a.images, b.images)
    for step in range(2):
        before = toys.weights(one.discriminators[0])
        one.step()
        assert not toys.same(before, one.discriminators[0].state_dict())
        assert one.visits == [[1, 0], [1, 1]][step]
    assert {"d_loss_front", "d_loss_back", "r1_front", "r1_back"} <= set(one.read_metrics())


def test_a_discriminator_nobody_listens_to_is_not_trained() -> None:
    trainer = toys.trainer(toys.toy_recipe("distill", "no-gan-front"))
    before = toys.weights(trainer.discriminators[0])
    trainer.step()
    assert toys.same(before, trainer.discriminators[0].state_dict())


def test_architectures_must_match() -> None:
    teacher, student = toys.networks()[0], toys.networks()[0]
    render = teacher.config.render
    for changes, named in (
        ({"plane_channels": 16}, r"one architecture, but plane_channels differ \(8 and 16\)"),
        ({"render": dataclasses.replace(render, axes="eg3d")}, r"render\.axes differ"),
        ({"render": dataclasses.replace(render, box_warp=2 * render.box_warp)}, r"render\.box_warp differ"),
    ):
        student.config = dataclasses.replace(teacher.config, **changes)
        refuses(named, distillation.check_match, teacher, student)
