"""Pictures of many people who change their looks: what the identity encoder learns from.

A person keeps face shape, age, skin, eyes, brows, hair and beard. Expression, gaze, make-up, clothes, glasses and hat
are drawn anew for every look, light and camera for every picture. Half of the pictures are frontal (|yaw| <= 20°,
|pitch| <= 15°), the others lie within ±90° and ±25°. Everything is a pure function of (person, look, view).
"""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from head3d_core.metrics.identity_encoder import CROP, SIDE, face_crop
from head3d_core.synth import sets, wardrobe
from head3d_core.synth.draws import SAMPLER_VERSION, Draws, stream_key
from head3d_core.synth.identity import HELD_OUT_FACES, Identity, identity
from head3d_core.synth.light import Light, sample_light
from head3d_core.synth.pool import Progress, Task, run_tasks
from head3d_core.synth.renderer import Renderer
from head3d_core.synth.targets import draw_expression
from head3d_core.utils import files
from head3d_core.utils.errors import Head3DError

FIRST_PERSON = 5_000_000
"""Seed of the first person to learn from: none of the generators' training faces, nor a held-out one."""
FIRST_HELD_OUT = HELD_OUT_FACES.start
"""Seed of the first person to test on."""
MARGIN_SIDE = 144
"""Side of the stored crops: the encoder's 128 pixels and 8 around them, so that training can move them."""
RENDER_SIDE = 256
"""Pictures are rendered at the size of `classroom` and then cropped as any other picture is."""


def dressed(person: int, look: int) -> Identity:
    """Person `person` with look `look`: the same face with another expression, gaze, make-up and other things worn."""
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


def light_of(person: int, look: int, view: int) -> Light:
    """The light of one picture, as different as those of the face set."""
    return sample_light(stream_key(person, f"look {look} light {view}") % 2**31, "faces")


@dataclass(frozen=True)
class People:
    """Crops of people, on any device."""

    crops: Tensor
    """uint8 [N, 3, 144, 144]"""
    person: Tensor
    """[N] int64, 0 to the number of people - 1."""
    yaw: Tensor
    """[N] radians."""
    frontal: Tensor
    """[N] bool"""
    seeds: tuple[int, ...]
    """Of the people."""

    @property
    def count(self) -> int:
        """How many people."""
        return len(self.seeds)

    def to(self, device: torch.device | str) -> People:
        """The same, resident on a device."""
        moved = {f: getattr(self, f).to(device) for f in ("crops", "person", "yaw", "frontal")}
        return dataclasses.replace(self, **moved)


def render_looks(
    renderer: Renderer, person: int, looks: int, views: Sequence[int]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Images [looks * views, 3, R, R] and cameras [looks * views, 25] of one person, look by look."""
    from head3d_core.synth.heads import build_head

    images, cameras = [], []
    for look in range(looks):
        head = build_head(dressed(person, look))
        for view in views:
            light = light_of(person, look, view)
            if view == views[0]:
                renderer.load(head, light)
            else:
                renderer.relight(light)
            cameras.append(sets.orbit_camera(*angles(person, look, view)))
            images.append(renderer.draw(cameras[-1]).rgb.transpose(2, 0, 1))
    return np.stack(images), np.stack(cameras)


def render_person(renderer: Renderer, person: int, looks: int, views: int) -> NDArray[np.uint8]:
    """Crops [looks * views, 3, 144, 144] of one person, look by look."""
    images, cameras = render_looks(renderer, person, looks, range(views))
    crops = face_crop(
        torch.from_numpy(images), torch.from_numpy(cameras), MARGIN_SIDE, CROP * MARGIN_SIDE / SIDE
    )
    return np.asarray(crops.round().clamp(0, 255).to(torch.uint8).numpy())


def _people(looks: int, views: int, renderer: Renderer, task: Task) -> NDArray[np.uint8]:
    torch.set_num_threads(1)
    return np.stack([render_person(renderer, person, looks, views) for _, person in task])


def render_people(
    first: int,
    count: int,
    looks: int,
    views: int,
    minutes: float = 0.0,
    workers: int = 0,
    resolution: int = RENDER_SIDE,
) -> People:
    """Renders people `first`, `first + 1`, … with `looks` looks of `views` images each.

    Args:
        minutes: stop then and return the people who are complete; 0 renders all.
        workers: processes; 0 for one per core, 1 renders in this process.

    Raises:
        Head3DError: no OpenGL, or fewer than 2 people complete when the time was up.
    """
    if min(count, looks, views) < 1:
        raise Head3DError(f"people, looks and views must be at least 1, got {count}, {looks}, {views}")
    start, show = time.monotonic(), Progress("people", sys.stderr, 15.0)
    tasks = [[(k, first + k)] for k in range(count)]
    whole: dict[int, NDArray[np.uint8]] = {}
    begin, work = partial(Renderer, resolution), partial(_people, looks, views)
    for ((_, seed),), crops in run_tasks(begin, work, tasks, workers, show):
        whole[seed] = crops
        if minutes and len(whole) < count and time.monotonic() - start > 60 * minutes:
            print(f"people: {minutes:g} minutes are up", file=sys.stderr)
            break
    if len(whole) < min(2, count):
        raise Head3DError(f"only {len(whole)} people were rendered in {minutes:g} minutes: allow more")
    kept = torch.from_numpy(np.concatenate([whole[seed][0] for seed in sorted(whole)]))
    return _labelled(kept, sorted(whole), looks, views)


def _labelled(crops: Tensor, seeds: Sequence[int], looks: int, views: int) -> People:
    each = [(look, view) for look in range(looks) for view in range(views)]
    yaw = torch.tensor([angles(s, look, view)[0] for s in seeds for look, view in each])
    frontal = torch.tensor([view % 2 == 0 for _ in seeds for _, view in each])
    person = torch.arange(len(seeds)).repeat_interleave(len(each))
    return People(crops, person, yaw, frontal, tuple(seeds))


def cached_people(
    cache: Path | None, first: int, count: int, looks: int, views: int, minutes: float = 0.0, workers: int = 0
) -> People:
    """`render_people`, kept in a file of folder `cache` for the next call; None keeps nothing.

    A set that `minutes` cut short is kept as it is, so that a run can be resumed on the same people.
    """
    if cache is None:
        return render_people(first, count, looks, views, minutes, workers)
    path = Path(cache) / f"people-v{SAMPLER_VERSION}-{first}-{count}-{looks}x{views}.npz"
    if path.is_file():
        with np.load(path) as stored:
            seeds = tuple(int(s) for s in stored["seeds"])
            return _labelled(torch.from_numpy(stored["crops"]), seeds, looks, views)
    people = render_people(first, count, looks, views, minutes, workers)
    with files.atomic(path) as temporary, temporary.open("wb") as file:
        np.savez(file, crops=people.crops.numpy(), seeds=np.array(people.seeds))
    return people


# -- near-frontal pictures of people that no model was trained on, in two looks: what encoders are compared on

LOOKS = 2
"""Looks per person: expression, gaze, make-up, clothes, glasses, hat."""
VIEWS = (0, 2)
"""Views of `angles` that are frontal, each with a light of its own."""


@dataclass(frozen=True)
class FrontalPeople:
    """Pictures in the order person, look, view."""

    images: Tensor
    """uint8 [N, 3, 256, 256]"""
    camera: Tensor
    """[N, 25]"""
    person: Tensor
    """[N] int64 from 0."""
    look: Tensor
    """[N] int64"""

    @property
    def seeds(self) -> list[int]:
        """Of the people, in the order of their numbers."""
        return [FIRST_HELD_OUT + k for k in range(int(self.person.max()) + 1)]


def frontal_people(
    people: int, cache: Path | None = None, progress: Callable[[int, int], None] | None = None
) -> FrontalPeople:
    """The first `people` held-out people, four pictures each. Needs OpenGL unless `cache` holds them.

    Args:
        cache: folder that keeps the pictures for a later call.

    Raises:
        Head3DError: fewer than two people, or no OpenGL.
    """
    if people < 2:
        raise Head3DError(f"encoders are compared on two people or more, got {people}")
    path = None if cache is None else cache / f"frontal_v{SAMPLER_VERSION}_{people}.npz"
    if path is None or not path.is_file():
        renderer = Renderer(RENDER_SIDE)
        pictures, cameras = [], []
        try:
            for k in range(people):
                p, c = render_looks(renderer, FIRST_HELD_OUT + k, LOOKS, VIEWS)
                pictures.append(p)
                cameras.append(c)
                if progress:
                    progress(k + 1, people)
        finally:
            renderer.release()
        images, camera = np.concatenate(pictures), np.concatenate(cameras)
        if path is not None:
            with files.atomic(path) as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, images=images, camera=camera)
    else:
        with np.load(path) as data:
            images, camera = data["images"], data["camera"]
    each = LOOKS * len(VIEWS)
    person = torch.arange(people).repeat_interleave(each)
    look = torch.arange(LOOKS).repeat_interleave(len(VIEWS)).repeat(people)
    return FrontalPeople(torch.from_numpy(images), torch.from_numpy(camera), person, look)
