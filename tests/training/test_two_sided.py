"""Two slices of F_xy: a face in front, the head generator behind, one discriminator or two."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import training_toys as toys
from helpers import refused, refuses

from head3d_core.checkpoints.weights import load_generator
from head3d_core.config import preset
from head3d_core.model.cameras import frontal
from head3d_core.model.generator import Generator
from head3d_core.model.stylegan2 import ToRGB
from head3d_core.training import distillation, stages
from head3d_core.training.numerics import join_world
from head3d_core.training.parts import Phase
from head3d_core.training.recipes import LossWeights, Recipe, recipe
from head3d_core.training.trainer import Trainer
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.nested import differences

TWO = {"generator.front_slices": 2}


def only(**losses: float) -> Recipe:
    """Those distillation terms and nothing else."""
    how = toys.toy_recipe("distill", "two-sided", losses=LossWeights(**losses), density_weight=0.0)
    return dataclasses.replace(how, domains=tuple(dataclasses.replace(d, weight=0.0) for d in how.domains))


def pull_of_planes(trainer: Trainer) -> torch.Tensor:
    """Largest gradient of the ToRGB rows that make each of the four planes: [4]."""
    trainer.run_phase(Phase.G_MAIN, 0)
    pulls = []
    for module in trainer.generator.backbone.synthesis.modules():
        if isinstance(module, ToRGB):
            assert module.weight.grad is not None
            pulls.append(module.weight.grad.unflatten(0, (4, -1)).abs().amax((1, 2, 3, 4)))
    return torch.stack(pulls).amax(0)


@pytest.mark.parametrize(
    ("losses", "reached"),
    [({"kd_back": 1.0}, [3]), ({"kd": 1.0}, [0]), ({"kd": 1.0, "kd_back": 1.0}, [0, 3])],
)
def test_each_target_reaches_its_own_slice(losses: dict[str, float], reached: list[int]) -> None:
    trainer = toys.trainer(only(**losses), slices=2)
    trainer.generator_optimiser.adam.step = lambda *a, **k: None  # type: ignore[method-assign, assignment]
    assert pull_of_planes(trainer).nonzero()[:, 0].tolist() == reached


@pytest.mark.parametrize(("loss", "plane"), [("kd", 0), ("kd_back", 3)])
def test_a_target_pulls_its_plane_and_only_it(loss: str, plane: int) -> None:
    """On a fixed problem: that plane approaches the target's, and far more than the others do."""
    trainer = toys.trainer(dataclasses.replace(only(**{loss: 1.0}), noise="const", lr_g=0.005), slices=2)
    target = trainer.teacher if loss == "kd" else trainer.head
    assert target is not None
    z, camera, frozen = torch.randn(8, 32), frontal(8), toys.weights(target)

    def gaps() -> list[float]:
        theirs, ours = distillation.planes_of_both(target, trainer.generator, z, camera)
        pairs = ((0, 0), (1, 1), (2, 2), (-1, 3))
        return [float((theirs[:, j] - ours[:, k]).square().mean()) for j, k in pairs]

    first = gaps()
    for _ in range(30):
        trainer.step()
    ratios = [now / then for now, then in zip(gaps(), first, strict=True)]
    assert ratios.pop(plane) < min(0.6, 0.8 * min(ratios))
    assert toys.same(frozen, target.state_dict())


def test_planes_may_learn_before_anything_is_rendered() -> None:
    how = toys.toy_recipe("distill", "two-sided", batch=4, planes_first=8, density_weight=0.25)
    trainer = toys.trainer(how, slices=2)
    G, D = trainer.generator, trainer.discriminators[0]
    rendering = [*G.decoder.parameters(), *G.superresolution.parameters(), *D.parameters()]
    before, planes = [p.clone() for p in rendering], toys.weights(G.backbone)
    for _ in range(2):
        trainer.step()
    assert all(torch.equal(p, q) for p, q in zip(rendering, before, strict=True))
    assert not toys.same(planes, G.backbone.state_dict())
    assert set(trainer.read_metrics()) == {"kd", "map", "kd_back", "bad_gradients"}
    trainer.step()
    judged = before[-len([*D.parameters()]) :]
    assert not any(torch.equal(p, q) for p, q in zip(D.parameters(), judged, strict=True))
    assert {"rgb", "d_loss_front"} <= set(trainer.read_metrics())
    with pytest.raises(Head3DError, match="no plane has a target"):
        toys.toy_recipe("teacher", planes_first=8)


@pytest.mark.parametrize("preset_name", ["classroom", "paper"])
def test_rows_by_name(preset_name: str) -> None:
    """They differ from the head3d row in the slices and the back target; the last also in its discriminator."""
    full, two, one = (
        recipe("distill", preset_name, row) for row in ("head3d", "two-sided-shared", "two-sided-single-d")
    )
    back_target = {"losses.kd_back", "planes_first", "domains.1.sources"}
    assert set(differences(full, two)) == back_target
    assert two.losses == dataclasses.replace(full.losses, kd_back=0.1)
    assert set(differences(two, one)) == {"one_discriminator", "domains.0.start"}
    assert (one.discriminator_starts, two.discriminator_starts) == (("head",), ("teacher", "head"))
    args = toys.TrainArgs.of("distill", "f", Path("x"), preset_name, row="two-sided-single-d")
    assert args.generator == dataclasses.replace(preset(preset_name).generator, front_slices=2)


@pytest.mark.parametrize("preset_name", ["tiny", "classroom", "paper"])
def test_the_two_sided_row_also_has_blocks_of_its_own(preset_name: str) -> None:
    shared, own = (
        toys.TrainArgs.of("distill", "f", Path("x"), preset_name, row=row)
        for row in ("two-sided-shared", "two-sided")
    )
    assert set(differences(shared.recipe, own.recipe)) <= {"planes_first"}
    assert differences(shared.generator, own.generator) == {"back_blocks": (0, 32)}


@pytest.mark.parametrize(("own", "wanted"), [((1, 0), (2, 16)), ((2, 0), (2, 16)), ((2, 16), (2, 16))])
def test_a_run_starts_with_the_planes_of_the_one_before(
    own: tuple[int, int], wanted: tuple[int, int]
) -> None:
    one, other = (
        dataclasses.replace(toys.smaller().generator, front_slices=slices, back_blocks=blocks)
        for slices, blocks in (own, wanted)
    )
    start = Generator(one)
    copy, ws = stages.copy_of(start, other), torch.randn(2, start.num_ws, 32)
    before, after = start.planes(ws), copy.planes(ws)
    assert copy.config == other
    torch.testing.assert_close(after[:, :3], before[:, :3], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(after[:, 3], before[:, 0 if own[0] == 1 else 3], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("wanted", [0, 32])
def test_a_run_with_other_back_blocks_is_refused(wanted: int) -> None:
    config = dataclasses.replace(toys.smaller().generator, front_slices=2, back_blocks=16)
    other = dataclasses.replace(config, back_blocks=wanted)
    says = f"has back_blocks 16 and this one {wanted}: pass --generator.back-blocks 16"
    refuses(says, stages.copy_of, Generator(config), other)


@toys.with_toy_data
def test_from_a_one_slice_teacher_to_a_two_sided_student(tmp_path: Path) -> None:
    teacher = toys.run("teacher", tmp_path / "teacher", images=4)
    sets: dict[str, Any] = {"heads": "heads", "teacher": teacher}
    start = toys.run("head", tmp_path / "start", images=0, changes=TWO, **sets)
    planes = [load_generator(f / "weights") for f in (teacher, start)]
    three, four = (G.planes(G.mapping(torch.ones(1, 32), frontal(1))) for G in planes)
    assert torch.equal(four[:, 3], three[:, 0])
    assert torch.equal(four[:, :3], three)
    head = toys.run("head", tmp_path / "head", images=8, changes=TWO, **sets)
    G = load_generator(head / "weights")
    moved = G.planes(G.mapping(torch.ones(1, 32), frontal(1)))
    assert not torch.equal(moved[:, 3], moved[:, 0]), "the slices part"

    for row in ("two-sided", "two-sided-single-d"):
        whole = toys.run("distill", tmp_path / f"{row}-whole", images=16, row=row, head=head, **sets)
        parts = toys.run("distill", tmp_path / f"{row}-parts", images=8, row=row, head=head, **sets)
        toys.run("distill", parts, images=16, row=row, head=head, resume=True, **sets)
        assert toys.same(toys.state_of(whole), toys.state_of(parts)), "a resumed run goes on bit for bit"
        assert load_generator(whole / "weights").config.front_slices == 2

    two = tmp_path / "two-sided-whole"
    again = toys.run("distill", tmp_path / "again", images=0, row="two-sided", head=two, **sets)
    one, other = toys.state_of(two), toys.state_of(again)
    name = next(k for k in one if k.startswith("d1."))
    assert torch.allclose(one[name], other[name]), "D_back starts from a distillation's D_back"
    with refused(r"2 slices of F_xy and this one 1: pass --generator.front-slices 2"):
        toys.run("distill", tmp_path / "x", head=head, **sets)
    flat_student = {"generator.back_blocks": 0, "generator.front_slices": 1}
    with refused("losses.kd_back needs an xy_back to act on"):
        toys.run("distill", tmp_path / "x", row="two-sided", head=head, changes=flat_student, **sets)


@toys.with_toy_data
def test_the_back_may_follow_another_generator(tmp_path: Path) -> None:
    teacher = toys.run("teacher", tmp_path / "teacher", images=4)
    sets: dict[str, Any] = {"heads": "heads", "teacher": teacher}
    head = toys.run("head", tmp_path / "head", images=4, **sets)
    other = toys.run("head", tmp_path / "other", images=8, **sets)
    sets["head"] = head
    for name, target in (("own", None), ("others", other)):
        args = toys.arguments("distill", tmp_path / name, row="two-sided", back_target=target, **sets)
        trainer = stages.build_trainer(args, join_world("cpu"))
        followed = load_generator((target or head) / "weights")
        z, camera = torch.ones(1, 32), frontal(1)
        theirs = followed.planes(followed.mapping(z, camera))[:, 0]
        assert trainer.head is not None
        ours = trainer.head.planes(trainer.head.mapping(z, camera))
        torch.testing.assert_close(ours[:, 3], theirs, rtol=1e-2, atol=1e-2)  # the stored weights are halved
    with refused("--back-target has no use in stage distill"):
        toys.run("distill", tmp_path / "x", back_target=other, **sets)


def test_a_real_image_with_a_wrong_camera_counts_as_generated() -> None:
    trainer = toys.trainer(toys.toy_recipe("head", wrong_camera=1.0))
    before = toys.trainer(toys.toy_recipe("head"))
    for each in (trainer, before):
        each.run_phase(Phase.D_MAIN, 0)
    a, b = trainer.read_metrics(), before.read_metrics()
    assert a["d_loss_all"] > b["d_loss_all"]
    assert "sign_wrong_all" in a
    assert "sign_wrong_all" not in b


def test_rates_warm_up_again_when_rendering_begins() -> None:
    how = toys.toy_recipe(
        "distill", "two-sided", batch=4, planes_first=16, warmup_steps=4, density_weight=0.0
    )
    trainer = toys.trainer(how, slices=2)
    rates = []
    for _ in range(8):
        trainer.step()
        rates.append(float(trainer.generator_optimiser.adam.param_groups[0]["lr"]) / how.lr_g)
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[4:] == pytest.approx(rates[:4])


def test_planes_and_discriminators_do_not_learn_alone_together() -> None:
    with pytest.raises(Head3DError, match="cannot both learn alone"):
        toys.toy_recipe("distill", "two-sided", discriminator_first=4)
