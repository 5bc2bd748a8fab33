"""Images of many people who change their looks: what the identity encoder learns from.

A person keeps face shape, age, skin, eyes, brows, hair and beard. Expression, gaze, make-up, clothes, glasses and hat
are drawn anew for every look, light and camera for every image. Half of the images are frontal (|yaw| <= 20°,
|pitch| <= 15°), the others lie within ±90° and ±25°. Everything is a pure function of (person, look, view).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from head3d_core.metrics.identity_encoder import CROP, SIDE, face_crop
from head3d_core.synth import sets, wardrobe
from head3d_core.synth.draws import Draws, stream_key
from head3d_core.synth.heads import build_head
from head3d_core.synth.identity import HELD_OUT_FACES, Identity, identity
from head3d_core.synth.light import sample_light
from head3d_core.synth.pool import Task, run_tasks
from head3d_core.synth.renderer import Renderer
from head3d_core.synth.targets import draw_expression
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.progress import bar

FIRST_PERSON = 5_000_000
"""Seed of the first person to learn from: none of the generators' training faces, nor a held-out one."""
FIRST_HELD_OUT = HELD_OUT_FACES.start
"""Seed of the first person to test on."""
MARGIN_SIDE = 144
"""Side of the stored crops: the encoder's 128 pixels and 8 around them, so that training can move them."""
RENDER_SIDE = 256
"""Images are rendered at the size of `classroom` and then cropped as any other image is."""
LOOKS, VIEWS, FRONTAL_VIEWS = 2, (0, 1, 2, 3), (0, 2)
"""Looks of a person, views of a look, and those views that are frontal (see `angles`)."""


def dressed(person: int, look: int) -> Identity:
    """Person `person` with look `look`: the same face with another expression, gaze, make-up and other accessories."""
    base = identity(person)

    def part(name: str) -> Draws:
        return Draws(person, f"look {look} {name}")

    made_up = part("make-up")
    woman = base.person.gender < 0.5 and base.person.years > 16
    skin = dataclasses.replace(
        base.skin,
        lipstick=made_up.uniform("lipstick", 0.3, 0.8) if woman and made_up.chance("lips", 0.35) else 0.0,
        lip_colour=made_up.choice("colour", (0, 1, 2, 3, 4)),
        eyeshadow=made_up.uniform("shadow", 0.15, 0.5) if woman and made_up.chance("lids", 0.3) else 0.0,
    )
    gaze = part("gaze")
    return dataclasses.replace(
        base,
        expression=draw_expression(part("expression"), strong=True),
        skin=skin,
        eyes=dataclasses.replace(base.eyes, gaze=(gaze.normal("yaw", 0.08), gaze.normal("pitch", 0.04))),
        clothes=wardrobe.draw_clothes(part("clothes"), male=base.person.gender > 0.5),
        glasses=wardrobe.draw_glasses(part("glasses"), base.person.years),
        hat=wardrobe.draw_hat(part("hat"), base.hair.style),
    )


def angles(person: int, look: int, view: int) -> tuple[float, float]:
    """Yaw and pitch of the camera, radians; even views are frontal."""
    draws = Draws(person, f"look {look} view {view}")
    yaw, pitch = (20.0, 15.0) if view % 2 == 0 else (90.0, 25.0)
    return math.radians(draws.uniform("yaw", -yaw, yaw)), math.radians(draws.uniform("pitch", -pitch, pitch))


@dataclass(frozen=True)
class People:
    """Images of people in the order person, look, view, on any device."""

    images: Tensor
    """uint8 [N, 3, 144, 144] crops, or [N, 3, 256, 256] whole"""
    camera: Tensor
    """[N, 25]"""
    person: Tensor
    """[N] int64, 0 to the number of people - 1."""
    frontal: Tensor
    """[N] bool"""
    seeds: tuple[int, ...]
    """Of the people."""


def _drawn(
    looks: int, views: Sequence[int], whole: bool, renderer: Renderer, task: Task
) -> tuple[Tensor, Tensor]:
    """Images [looks * views, 3, R, R] and cameras [looks * views, 25] of the one person of a task, look by look."""
    torch.set_num_threads(1)
    _, person = task[0]
    drawn = []
    for look in range(looks):
        head = build_head(dressed(person, look))
        for view in views:
            light = sample_light(stream_key(person, f"look {look} light {view}") % 2**31, "faces")
            if view == views[0]:
                renderer.load(head, light)
            else:
                renderer.relight(light)
            camera = sets.orbit_camera(*angles(person, look, view))
            drawn.append((renderer.draw(camera).rgb.transpose(2, 0, 1), camera))
    images, cameras = (torch.from_numpy(np.stack(part)) for part in zip(*drawn, strict=True))
    if whole:
        return images, cameras
    crops = face_crop(images, cameras, MARGIN_SIDE, CROP * MARGIN_SIDE / SIDE)
    return crops.round().clamp(0, 255).byte(), cameras


def render_people(
    first: int,
    count: int,
    looks: int = LOOKS,
    views: Sequence[int] = VIEWS,
    workers: int = 0,
    whole: bool = False,
) -> People:
    """People `first`, `first + 1`, …: `views` of every look (see `angles`), each with its own light and camera.

    Args:
        workers: processes; 0 for one per core, 1 renders in this process.
        whole: the images as rendered instead of crops.

    Raises:
        Head3DError: nobody to render, or no OpenGL.
    """
    if min(count, looks, len(views)) < 1:
        raise Head3DError(f"people, looks and views must be at least 1, got {count}, {looks}, {len(views)}")
    tasks = [[(k, first + k)] for k in range(count)]
    work = partial(_drawn, looks, views, whole)
    with bar("people") as step:
        done = run_tasks(partial(Renderer, RENDER_SIDE), work, tasks, workers, step)
        slots = {slot: part for ((slot, _),), part in done}
    images, camera = map(torch.cat, zip(*(slots[k] for k in range(count)), strict=True))
    person = torch.arange(count).repeat_interleave(looks * len(views))
    frontal = (torch.tensor(views) % 2 == 0).repeat(count * looks)
    return People(images, camera, person, frontal, tuple(range(first, first + count)))


def frontal_people(people: int) -> People:
    """The first `people` held-out people, whole: two looks, two lights and near-frontal cameras each.

    Raises:
        Head3DError: fewer than two people, or no OpenGL.
    """
    if people < 2:
        raise Head3DError(f"encoders are compared on two people or more, got {people}")
    return render_people(FIRST_HELD_OUT, people, LOOKS, FRONTAL_VIEWS, 1, whole=True)
