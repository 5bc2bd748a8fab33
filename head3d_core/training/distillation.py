"""Tri-plane feature distillation: the terms that it adds to the student's GAN loss (section 3.3 and 3.4).

The teacher G_t (faces, frozen) and the student G_s (heads) get the same z, the same mapping camera and the same
random numbers, so that their planes and images differ by their weights alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from head3d_core.model.generator import Generator, RenderOutput
from head3d_core.training import losses
from head3d_core.training.perceptual import RandomVGG
from head3d_core.training.recipes import Recipe
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.nested import differences

TERMS = ("kd", "map", "rgb", "lpips", "kd_back")
"""Names of the distillation terms, in Eq. 10's order; the last is ours."""
XY_BACK = 3
"""Index of the back slice of F_xy among four planes."""


@dataclass(frozen=True)
class Sample:
    """A generator's output with its codes and planes."""

    ws: Tensor
    """[N, num_ws, w_dim]"""
    planes: Tensor
    """[N, P, C, H, W]"""
    output: RenderOutput | None
    """Images; None where only codes and planes were asked for."""


def check_match(teacher: Generator, student: Generator) -> None:
    """Raises Head3DError, naming the fields, if the two architectures differ in more than slices and back_blocks."""
    # Planes in another frame or of another extent are no targets for one another; how rays are sampled is free.
    differing = {
        name: values
        for name, values in differences(teacher.config, student.config).items()
        if name in ("render.axes", "render.box_warp")
        or not (name.startswith("render.") or name in ("front_slices", "back_blocks"))
    }
    if differing:
        (theirs, ours) = next(iter(differing.values()))
        raise Head3DError(
            f"teacher and student must have one architecture, but {', '.join(differing)} differ ({theirs} and {ours}): "
            "train both with the same preset"
        )


def distillation_terms(
    recipe: Recipe, teacher: Sample, student: Sample, camera: Tensor, perceptual: nn.Module | None
) -> dict[str, Tensor]:
    """The weighted terms of Eq. 10 that compare student and teacher, by name: kd, map, rgb, lpips.

    Terms of weight 0 are left out. Gradients reach the student only.

    Args:
        recipe: weights, planes, τ.
        teacher, student: samples of the same z, mapping camera and rendering camera.
        camera: [N, 25], the rendering camera; its yaw gates rgb and lpips.
        perceptual: distance of `perceptual.perceptual_distance`; may be None without an lpips term.
    """
    weights = recipe.losses
    terms: dict[str, Tensor] = {}
    if weights.kd:
        value = losses.kd_loss(teacher.planes, student.planes, recipe.distil_planes, recipe.kd_norm)
        terms["kd"] = weights.kd * value
    if weights.map:
        terms["map"] = weights.map * losses.map_loss(teacher.ws, student.ws)
    if teacher.output is None or student.output is None:
        return terms
    gate = losses.front_gate(camera, recipe.tau)
    t, s = teacher.output, student.output
    if weights.rgb:
        terms["rgb"] = weights.rgb * losses.rgb_loss(t.image, s.image, t.raw, s.raw, gate)
    if weights.lpips and perceptual is not None:
        scale = weights.lpips * (recipe.perceptual_scale if isinstance(perceptual, RandomVGG) else 1.0)
        terms["lpips"] = scale * losses.lpips_loss(perceptual, t.image, s.image, gate)
    return terms


@torch.no_grad()
def planes_of_both(
    teacher: Generator, student: Generator, z: Tensor, mapping_camera: Tensor
) -> tuple[Tensor, Tensor]:
    """Planes of teacher and student for one z [N, z_dim] and one mapping camera [N, 25] (Fig. 3 and 4)."""
    check_match(teacher, student)
    return (
        teacher.planes(teacher.mapping(z, mapping_camera)),
        student.planes(student.mapping(z, mapping_camera)),
    )
