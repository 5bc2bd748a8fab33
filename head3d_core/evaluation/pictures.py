"""Image grids of an evaluated row, as JPEG: views, same z beside the other generators, accessories, neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from head3d_core.evaluation.ablations import seen_from
from head3d_core.evaluation.real import Reference, Tensors
from head3d_core.evaluation.samples import Model, Sampling
from head3d_core.metrics.verification import nearest_training
from head3d_core.synth import sets
from head3d_core.synth.make_data import render
from head3d_core.utils import images as grids

FACE_YAWS = (-40, -20, 0, 20, 40)
"""Views of a face generator, degrees."""
TURN = (0, 45, 90, 135, 180, 225, 270, 315)
"""Views of a head, degrees: a full turn."""
ROWS = 8
CELL = 128
"""Largest side of an image in a grid, pixels: eyes and strands can be judged, and a grid of 8 x 8 is about 130 kB."""


def _cells(images: Tensor) -> Tensor:
    """[N, 3, R, R] at most `CELL` pixels wide."""
    return grids.shrink(images, min(CELL, images.shape[-1]))


def views(
    model: Model, numbers: Sequence[int], how: Sampling, psi: float, yaws: Sequence[float] = (0.0,)
) -> Tensor:
    """[len(numbers) * len(yaws), 3, r, r] in [-1, 1]: one sample a row, one yaw (degrees) a column."""
    return torch.cat([_cells(seen_from(model, [k], yaws, psi, how.seed)[0]).cpu() for k in numbers])


def _neighbours(
    model: Model, reference: Reference, samples: Tensors, how: Sampling, teacher: bool
) -> Tensor | None:
    """Samples over the training images that the encoder finds most like them; None without encoder, images or
    samples of that part."""
    group = "faces" if teacher else "heads"
    faces = samples.get("straight.face")
    if faces is None or not reference.has(group) or len(faces) < ROWS or not faces.shape[-1]:
        return None
    found = nearest_training(faces[:ROWS], reference[f"{group}.face"], 10).index
    chosen = [int(reference[f"{group}.index"][int(k)]) for k in found]
    workers = 1 if reference.wanted.workers == 1 else 2  # others than this process, whose GPU is busy
    drawn = render(group, chosen, reference.wanted.resolution, workers, sets.HEAD_VIEWS)
    nearest = _cells(grids.from_uint8(torch.from_numpy(drawn.images)))
    return torch.cat([views(model, range(ROWS), how, how.truncation), nearest])


def write_pictures(
    out: Path,
    name: str,
    model: Model,
    others: Mapping[str, Model],
    is_teacher: bool,
    reference: Reference,
    samples: Tensors,
    how: Sampling,
    worn: Sequence[int] = (),
) -> dict[str, str]:
    """Writes the grids of a row into `out`; returns what each shows, by file name.

    Args:
        name: of the row's files.
        others: "teacher" and "head", to stand beside `model` for the same z.
        worn: numbers of untruncated samples to show beside the teacher's (those with hats and glasses).
    """
    made: dict[str, str] = {}
    psi, first = how.truncation, range(ROWS)

    def save(kind: str, images: Tensor, columns: int, text: str) -> None:
        grids.save(grids.montage(images, columns), out / f"{name}_{kind}.jpg")
        made[f"{name}_{kind}.jpg"] = text

    yaws = FACE_YAWS if is_teacher else TURN
    text = f"{ROWS} samples, one a row; yaw {', '.join(f'{y}°' for y in yaws)}"
    save("views", views(model, first, how, psi, yaws), len(yaws), text)
    if others and not is_teacher:
        rows = [views(m, first, how, psi) for m in (*others.values(), model)]
        rows.append(views(model, first, how, psi, (180.0,)))
        text = f"same z a column; rows: {', '.join(others)}, {name}, its back"
        save("same_z", torch.cat(rows), ROWS, text)
    if worn and "teacher" in others:
        numbers = worn[:ROWS]
        sides = views(model, numbers, how, 1.0, (0.0, 70.0, 180.0)).unflatten(0, (len(numbers), 3))
        rows = [views(others["teacher"], numbers, how, 1.0), *(sides[:, k] for k in range(3))]
        text = f"teacher's samples with a hat or glasses; {name}'s of the same z from the front, the side and behind"
        save("worn", torch.cat(rows), len(numbers), text)
    pairs = _neighbours(model, reference, samples, how, is_teacher)
    if pairs is not None:
        save("nearest", pairs, ROWS, "samples; below each, the training picture most like it to the encoder")
    return made
