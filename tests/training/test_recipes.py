"""Recipes as data: the paper's numbers, rows that differ in one thing, options that a stage does not use."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import refuses

from head3d_core import cli
from head3d_core.training.options import TrainArgs, check_used
from head3d_core.training.recipes import recipe
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.nested import differences


def test_the_papers_numbers() -> None:
    head, distill = recipe("head", "paper"), recipe("distill", "paper")
    assert (head.batch, head.lr_g, head.lr_d, head.domains[0].gamma) == (16, 0.0025, 0.002, 20)
    front, back = distill.domains
    assert (distill.lr_g, distill.lr_d, front.gamma, back.gamma) == (0.001, 0.0005, 1, 20)
    assert (front.weight, back.weight) == (1, 10)
    losses = distill.losses
    assert (losses.kd, losses.map, losses.rgb, losses.lpips) == (0.5, 1, 1, 1)
    assert distill.tau == pytest.approx(torch.pi / 4)
    assert distill.distil_planes == (0,)


DIFFER: dict[str, set[str]] = {
    "head3d": set(),
    "single-d": {"one_discriminator", "domains.0.start"},
    "no-kd": {"losses.kd"},
    "no-gan-front": {"domains.0.weight"},
    "no-rgb-lpips": {"losses.rgb", "losses.lpips"},
    "all-planes": {"distil_planes"},
    "plane-swap": {"images"},
}
"""What may differ from the full method; a row that is not named here has a test of its own."""


@pytest.mark.parametrize("preset", ["classroom", "paper"])
@pytest.mark.parametrize("row", DIFFER)
def test_a_row_differs_in_one_thing(row: str, preset: str) -> None:
    assert set(differences(recipe("distill", preset), recipe("distill", preset, row))) == DIFFER[row]


@pytest.mark.parametrize(("row", "start"), [("dft", "teacher"), ("fh", "head")])
def test_baselines_are_fine_tuned_as_the_head_stage_is(row: str, start: str) -> None:
    """Rates, γ and augmentation of the head stage; only start, data and the number of images differ."""
    head, own = recipe("head", "classroom"), recipe("distill", "classroom", row)
    assert (own.lr_g, own.lr_d, own.domains[0].gamma, own.ada_target) == (0.0025, 0.002, 5, 0.6)
    assert (own.start, own.domains[0].start, own.domains[0].sources) == (start, start, ("faces", "heads"))
    assert set(differences(head, own)) <= {"stage", "start", "domains.0.start", "domains.0.sources", "images"}
    assert own.images == recipe("distill", "classroom").images
    assert not own.losses.any


def test_one_discriminator_sees_backs_in_half_of_the_steps() -> None:
    full, one = recipe("distill", "classroom"), recipe("distill", "classroom", "single-d")
    assert one.discriminator_starts == ("head",), "as D_back starts"
    assert [d.gamma for d in one.domains] == [d.gamma for d in full.domains]
    assert sum(one.domain_at(k) for k in range(100)) == 50
    pooled = recipe("distill", "classroom", "single-d-pooled")
    assert [d.sources for d in pooled.domains] == [("faces", "heads_back")]
    refuses("one discriminator has one start", dataclasses.replace, full, one_discriminator=True)


def used(stage: Any, changes: dict[str, Any] | None = None, **options: Any) -> None:
    check_used(TrainArgs.of(stage, "faces", Path("run"), changes=changes, **options))


@pytest.mark.parametrize(
    ("stage", "changes", "says"),
    [
        ("teacher", {"recipe.tau": 1.0}, "--recipe.tau has no effect without losses.rgb or losses.lpips"),
        ("head", {"recipe.kd_norm": "l2"}, "--recipe.kd-norm has no effect without losses.kd"),
        ("head", {"recipe.gpc": 0.1}, "--recipe.gpc has no effect without mapping_camera render"),
        ("distill", {"recipe.ada_images": 5}, "--recipe.ada-images has no effect without an ada_target"),
        ("teacher", {"recipe.back_share": 0.3}, "--recipe.back-share has no effect without two domains"),
        ("teacher", {"recipe.stage": "head"}, "recipe.stage follows the command"),
    ],
)
def test_options_without_effect_are_refused(stage: str, changes: dict[str, Any], says: str) -> None:
    refuses(says, used, stage, changes)


def test_options_that_act_are_taken() -> None:
    used("distill", {"recipe.tau": 1.0, "recipe.kd_norm": "l2", "recipe.domains.1.sources": ("heads_side",)})
    used("head", {"recipe.losses.kd": 0.5, "recipe.kd_norm": "l2"}, teacher=Path("t"))
    refuses("--teacher has no use in stage teacher", used, "teacher", teacher=Path("t"))
    refuses("--heads has no use in stage whiten", used, "whiten", heads="heads")


@pytest.mark.parametrize("changes", [{"batch": 0}, {"images": -1}, {"back_share": 1.0}, {"d_reg_interval": 0},
                                     {"distil_planes": ()}, {"distil_planes": (3,)}, {"domains": ()}])  # fmt: skip
def test_numbers_outside_their_range_are_one_sentence(changes: dict[str, Any]) -> None:
    with pytest.raises(Head3DError) as caught:
        dataclasses.replace(recipe("distill", "tiny"), **changes)
    assert "\n" not in str(caught.value)


def test_the_command_line_takes_every_field() -> None:
    """Defaults are those of the stage, preset and row that the same command line names, in any order."""
    words = "distill --data faces --out run --row no-kd --recipe.images 64 --recipe.domains.1.weight 10"
    words += " --recipe.domains.1.sources heads_side --generator.render.axes eg3d --preset=tiny"
    words += " --numerics.precision fp32"
    args, function = cli.parse("train", words.split())
    expected = TrainArgs.of(
        "distill", "faces", Path("run"), "tiny",
        {
            "recipe.images": 64, "recipe.domains.1.weight": 10.0, "recipe.domains.1.sources": ("heads_side",),
            "generator.render.axes": "eg3d", "numerics.precision": "fp32",
        },
        row="no-kd",
    )  # fmt: skip
    assert args == expected
    assert args.recipe.losses.kd == 0
    assert function.__name__ == "run"


def test_names_that_do_not_exist_are_one_sentence() -> None:
    for call, says in (
        (lambda: recipe("studnet", "tiny"), "no stage called 'studnet'"),
        (lambda: recipe("distill", "large"), "no preset called 'large'"),
        (lambda: recipe("distill", "tiny", "nothing"), "no row called 'nothing'"),
        (lambda: recipe("teacher", "tiny", "no-kd"), "belongs to stage 'distill'"),
        (lambda: used("distill", row="plane-swap"), "is not trained"),
    ):
        refuses(says, call)
