"""Near-frontal pictures of people that no model was trained on, in two looks: what encoders are compared on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from head3d_core.synth import sets
from head3d_core.synth.draws import SAMPLER_VERSION
from head3d_core.synth.renderer import Renderer
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.files import atomic
from identity_data import FIRST_HELD_OUT, RENDER_SIDE, angles, dressed, light_of

LOOKS = 2
"""Looks per person: expression, gaze, make-up, clothes, glasses, hat."""
VIEWS = (0, 2)
"""Views of `identity_data.angles` that are frontal, each with a light of its own."""


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


def _person(renderer: Renderer, seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    from head3d_core.synth.heads import build_head

    pictures, cameras = [], []
    for look in range(LOOKS):
        head = build_head(dressed(seed, look))
        for view in VIEWS:
            light = light_of(seed, look, view)
            if view == VIEWS[0]:
                renderer.load(head, light)
            else:
                renderer.relight(light)
            cameras.append(sets.orbit_camera(*angles(seed, look, view)))
            pictures.append(renderer.draw(cameras[-1]).rgb.transpose(2, 0, 1))
    return pictures, cameras


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
                p, c = _person(renderer, FIRST_HELD_OUT + k)
                pictures += p
                cameras += c
                if progress:
                    progress(k + 1, people)
        finally:
            renderer.release()
        images, camera = np.stack(pictures), np.stack(cameras)
        if path is not None:
            with atomic(path) as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, images=images, camera=camera)
    else:
        with np.load(path) as data:
            images, camera = data["images"], data["camera"]
    each = LOOKS * len(VIEWS)
    person = torch.arange(people).repeat_interleave(each)
    look = torch.arange(LOOKS).repeat_interleave(len(VIEWS)).repeat(people)
    return FrontalPeople(torch.from_numpy(images), torch.from_numpy(camera), person, look)
