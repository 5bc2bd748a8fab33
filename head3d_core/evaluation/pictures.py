"""Picture grids of an evaluated row, as JPEG: views, same z beside the other generators, what is worn, neighbours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from head3d_core.evaluation.references import Reference, Tensors
from head3d_core.evaluation.sampling import Model, Sampling
from head3d_core.metrics.verification import nearest_training
from head3d_core.model.cameras import frontal, orbit
from head3d_core.synth import sets
from head3d_core.utils import images as grids

FACE_YAWS = (-40, -20, 0, 20, 40)
"""Views of a face generator, degrees."""
TURN = (0, 45, 90, 135, 180, 225, 270, 315)
"""Views of a head, degrees: a full turn."""
ROWS = 8
CELL = 128
"""Largest side of a picture in a grid, pixels: eyes and strands can be judged, and a grid of 8 x 8 is about 130 kB."""


def shrink(images: Tensor, side: int = CELL) -> Tensor:
    """uint8 [N, 3, R, R] as [-1, 1] of at most `side` pixels (area-averaged)."""
    x = grids.from_uint8(images)
    return x if x.shape[-1] <= side else F.interpolate(x, size=(side, side), mode="area")


def views(model: Model, yaws: tuple[float, ...], numbers: list[int], how: Sampling, psi: float) -> Tensor:
    """[len(numbers) * len(yaws), 3, r, r] in [-1, 1]: one sample a row, one yaw (degrees) a column."""
    rows = []
    camera = orbit(torch.deg2rad(torch.tensor(yaws, dtype=torch.float32)))
    for number in numbers:
        ws, planes = model.heads(range(number, number + 1), how.seed, psi)
        many = (x.expand(len(yaws), *x.shape[1:]).contiguous() for x in (ws, planes))
        rows.append(shrink(model.view((*many,), camera)[0]).cpu())  # type: ignore[arg-type]  # two tensors
    return torch.cat(rows)


def ahead(model: Model, numbers: list[int], how: Sampling, psi: float) -> Tensor:
    """[len(numbers), 3, r, r]: samples straight from the front."""
    rows = []
    for number in numbers:
        head = model.heads(range(number, number + 1), how.seed, psi)
        rows.append(shrink(model.view(head, frontal(1))[0]).cpu())
    return torch.cat(rows)


def _neighbours(
    model: Model, reference: Reference, samples: Tensors, how: Sampling, teacher: bool
) -> Tensor | None:
    """Samples over the training pictures that the encoder finds most like them; None without encoder or pictures."""
    group = "faces" if teacher else "heads"
    faces = samples.get("straight.face", torch.zeros(0, 0))
    if not reference.has(group) or len(faces) < ROWS or not faces.shape[-1]:
        return None
    from head3d_core.synth.make_data import render

    found = nearest_training(faces[:ROWS], reference[f"{group}.face"], 10).index
    chosen = [int(reference[f"{group}.index"][int(k)]) for k in found]
    workers = 1 if reference.wanted.workers == 1 else 2  # others than this process, whose GPU is busy
    drawn = render(group, chosen, reference.wanted.resolution, workers, sets.HEAD_VIEWS)
    real = shrink(torch.from_numpy(drawn.images))
    return torch.cat([ahead(model, list(range(ROWS)), how, how.truncation), real])


def write_pictures(
    out: Path,
    row: str,
    model: Model,
    others: dict[str, Model | None],
    reference: Reference,
    samples: Tensors,
    how: Sampling,
    is_teacher: bool,
    worn: list[int] | None = None,
) -> dict[str, Any]:
    """Writes the grids of a row into `out`; returns what each shows, by file name.

    Args:
        others: "teacher" and "head", to stand beside `model` for the same z.
        worn: numbers of untruncated samples to show beside the teacher's (those with hats and glasses).
    """
    made: dict[str, Any] = {}
    psi, first = how.truncation, list(range(ROWS))

    def save(name: str, images: Tensor, columns: int, text: str) -> None:
        grids.save(grids.montage(images, columns), out / f"{row}_{name}.jpg")
        made[f"{row}_{name}.jpg"] = text

    yaws = FACE_YAWS if is_teacher else TURN
    degrees = ", ".join(f"{y}°" for y in yaws)
    save("views", views(model, yaws, first, how, psi), len(yaws), f"{ROWS} samples, one a row; yaw {degrees}")
    beside = {name: other for name, other in others.items() if other is not None}
    if beside and not is_teacher:
        rows = [ahead(m, first, how, psi) for m in beside.values()] + [ahead(model, first, how, psi)]
        behind = views(model, (180.0,), first, how, psi)
        save(
            "same_z",
            torch.cat([*rows, behind]),
            ROWS,
            f"same z a column; rows: {', '.join(beside)}, {row}, its back",
        )
    teacher = others.get("teacher")
    if worn and teacher is not None:
        numbers = worn[:ROWS]
        sides = views(model, (0.0, 70.0, 180.0), numbers, how, 1.0).unflatten(0, (len(numbers), 3))
        rows = [ahead(teacher, numbers, how, 1.0), *(sides[:, k] for k in range(3))]
        text = f"teacher's samples with a hat or glasses; {row}'s of the same z from the front, the side and behind"
        save("worn", torch.cat(rows), len(numbers), text)
    pairs = _neighbours(model, reference, samples, how, is_teacher)
    if pairs is not None:
        save("nearest", pairs, ROWS, "samples; below each, the training picture most like it to the encoder")
    return made
