"""What is measured on one generator: its samples, described by the fixed networks and kept by name; and their grids.

Everything follows from (seed, number of the sample): z, and which real camera looks at it. So neither the batch size
nor how many samples are asked for changes a sample, and two generators get the same z and cameras sample by sample.

The mapping camera is the frontal one for every sample, so a head does not change with the view. Beside it stand two
others, for the distances alone: the rendering camera itself, and another sample's (`MAPPING`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from head3d_core.evaluation.real import STEPS, Networks, Reference, Tensors, kept
from head3d_core.geometry import turntable
from head3d_core.metrics.ghost import DEPTH_SIDE, GhostViews, ghost_scores
from head3d_core.metrics.silhouettes import MASK_SIDE, hair_colour, silhouettes
from head3d_core.metrics.verification import nearest_training
from head3d_core.model.cameras import frontal, orbit
from head3d_core.model.generator import Generator
from head3d_core.model.seeds import z_of_numbers
from head3d_core.synth import sets
from head3d_core.synth.make_data import render
from head3d_core.training.distillation import check_match
from head3d_core.utils import images as grids
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.images import to_uint8

PART = 50
"""Samples that are kept together: a run that was stopped goes on where it was, a larger one takes a smaller one's."""
FIRST_STRAIGHT = 48
"""Number of the first straight sample: the ghost measure was developed on those before it."""
MAPPING = ("rendering", "random")
"""Mapping cameras whose distances stand beside the frontal one's: the camera that renders, and another sample's."""
FACE_YAWS = (-40, -20, 0, 20, 40)
"""Views of a face generator, degrees."""
TURN = (0, 45, 90, 135, 180, 225, 270, 315)
"""Views of a head, degrees: a full turn."""
ROWS = 8
CELL = 128
"""Largest side of an image in a grid, pixels: eyes and strands can be judged, and a grid of 8 x 8 is about 130 kB."""


@dataclass(frozen=True)
class Sampling:
    """How many samples of each kind."""

    count: int = 10_000
    """For the distances, without truncation; each is seen from the front and from behind."""
    detector: int = 1000
    """For the detector and for identity, truncated."""
    around: int = 200
    """Seen from all sides, truncated; at most the reference's people."""
    turned: int = 100
    """Of these, how many the detector sees."""
    again: int = 2000
    """Seen a second time from another frontal camera, not truncated."""
    straight: int = 1000
    """Seen from straight in front and straight behind, truncated: for hair colour, second faces, diversity of backs."""
    mapping: int = 2000
    """Not truncated, each with two other mapping cameras."""
    truncation: float = 0.7
    seed: int = 0


class Model:
    """A generator, or one with another's F_xy put in (Fig. 8 a).

    Args:
        generator: mapping, planes, decoder and super-resolution.
        front: its plane 0 takes the place of the generator's, for the same z and mapping camera.
    """

    def __init__(self, generator: Generator, front: Generator | None = None) -> None:
        if front is not None:
            check_match(front, generator)
        self.generator, self.front = generator.eval(), front

    @property
    def resolution(self) -> int:
        """Side of its images, pixels."""
        return self.generator.config.image_resolution

    @torch.inference_mode()
    def heads(
        self, numbers: range, seed: int, psi: float, mapping: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """ws and planes of samples; `mapping`: cameras [N, 25] for the mapping network, default the frontal one."""
        G = self.generator
        z = z_of_numbers(seed, numbers, G.z_dim, G.device)
        camera = frontal(len(z), G.device) if mapping is None else mapping.to(G.device)
        ws = G.mapping(z, camera, psi)
        planes = G.planes(ws)
        if self.front is not None:
            theirs = self.front.planes(self.front.mapping(z, camera, psi))
            planes = torch.cat([theirs[:, :1], planes[:, 1:]], 1)
        return ws, planes

    @torch.inference_mode()
    def view(self, head: tuple[Tensor, Tensor], camera: Tensor) -> tuple[Tensor, Tensor]:
        """Images uint8 [N, 3, R, R] and opacity [N, r, r] of heads from cameras [N, 25]."""
        ws, planes = head
        out = self.generator.render(planes, ws, camera.to(ws.device))
        return to_uint8(out.image), out.opacity[:, 0]

    @torch.inference_mode()
    def ghost_views(self, head: tuple[Tensor, Tensor], images: Tensor, opacity: Tensor) -> GhostViews:
        """What ghost scores need beside images uint8 [N, 3, R, R] and opacity [N, r, r] from straight behind."""
        planes = head[1]
        sides = (orbit(yaw).expand(len(planes), 25).to(planes.device) for yaw in (math.pi, 0.0))
        back, front = (self.generator.render_raw(planes, camera, DEPTH_SIDE) for camera in sides)
        reliefs = (x[:, 0] for raw in (back, front) for x in (raw.depth, raw.opacity))
        return GhostViews(images, opacity, *reliefs)

    def digest(self) -> str:
        """Names the weights."""
        found = hashlib.sha256()
        for net in (self.generator, self.front):
            for name, tensor in sorted(net.state_dict().items()) if net is not None else ():
                found.update(name.encode() + tensor.detach().float().cpu().contiguous().numpy().tobytes())
        return found.hexdigest()[:16]


def cycled(camera: Tensor, numbers: range, shift: int = 0) -> Tensor:
    """The real cameras of samples: number k takes camera k + shift, from the start again after the last."""
    return camera[(torch.arange(numbers.start, numbers.stop) + shift) % len(camera)]


# -- parts: each describes the samples of a batch ------------------------------------------------------------------


@dataclass(frozen=True)
class _Batch:
    model: Model
    reference: Reference
    networks: Networks
    how: Sampling
    numbers: range

    def heads(self, psi: float | None = None, mapping: Tensor | None = None) -> tuple[Tensor, Tensor]:
        psi = self.how.truncation if psi is None else psi
        return self.model.heads(self.numbers, self.how.seed, psi, mapping)

    def seen(self, head: tuple[Tensor, Tensor], side: str, shift: int = 0) -> Tensor:
        """Images from the real cameras of a side ("front", "back")."""
        return self.model.view(head, cycled(self.reference[f"{side}.camera"], self.numbers, shift))[0]


def _plain(b: _Batch) -> Tensors:
    """Features of untruncated samples, front and back."""
    head = b.heads(1.0)
    return {f"{side}.features": b.networks.describe(b.seen(head, side)) for side in ("front", "back")}


def _again(b: _Batch) -> Tensors:
    return {"again.features": b.networks.describe(b.seen(b.heads(1.0), "front", 1))}


def _mapping(b: _Batch) -> Tensors:
    """Features of untruncated samples whose mapping camera is the rendering one, or another sample's frontal one."""
    found = {}
    for side in ("front", "back"):
        cameras = (b.reference[f"{side}.camera"], 0), (b.reference["front.camera"], 7)
        for name, (camera, shift) in zip(MAPPING, cameras, strict=True):
            head = b.heads(1.0, cycled(camera, b.numbers, shift))
            found[f"{side}.{name}"] = b.networks.describe(b.seen(head, side))
    return found


def _truncated(b: _Batch) -> Tensors:
    """Detector, embeddings and features of truncated samples: frontal, back, and straight from the front."""
    head = b.heads()
    near, back = (b.seen(head, side) for side in ("front", "back"))
    ahead = frontal(len(near))
    straight = b.model.view(head, ahead)[0]
    return {
        "near.features": b.networks.describe(near),
        "near.found": b.networks.find(near),
        "near_back.found": b.networks.find(back),
        "straight.face": b.networks.embed(straight, ahead),
        "straight.dlib": b.networks.embed_again(straight),
    }


def _around(b: _Batch) -> Tensors:
    """Features, embeddings, detector and silhouettes from all sides, with the cameras of the reference's people."""
    rows: dict[str, list[Tensor]] = {}
    for number in b.numbers:
        camera = b.reference["around.camera"][number]
        one = b.model.heads(range(number, number + 1), b.how.seed, b.how.truncation)
        ws, planes = (x.expand(STEPS + 1, *x.shape[1:]) for x in one)
        images, opacity = b.model.view((ws, planes.contiguous()), camera)
        found = {
            "around.features": b.networks.describe(images),
            "around.face": b.networks.embed(images, camera),
            "around.silhouette": silhouettes(opacity, camera),
        }
        if number < b.how.turned:
            found["around.found"] = b.networks.find(images)
        for name, row in found.items():
            rows.setdefault(name, []).append(row)
    return {name: torch.stack(parts) for name, parts in rows.items()}


def _straight(b: _Batch) -> Tensors:
    """Hair colours, ghost scores and features of truncated samples from straight in front and straight behind."""
    head, found = b.heads(), {}
    for side, yaw in (("ahead", 0.0), ("behind", math.pi)):
        images, opacity = b.model.view(head, orbit(yaw).expand(len(b.numbers), 25))
        found[f"{side}.hair"] = hair_colour(images, opacity).cpu()
        found[f"{side}.features"] = b.networks.describe(images)
    scores = ghost_scores(b.model.ghost_views(head, images, opacity))._asdict()
    return found | {f"behind.{name}": score for name, score in scores.items()}


Describe = Callable[[_Batch], Tensors]
_PARTS: dict[str, tuple[Describe, str, int]] = {
    "plain": (_plain, "count", 0),
    "again": (_again, "again", 0),
    "mapping": (_mapping, "mapping", 0),
    "truncated": (_truncated, "detector", 0),
    "around": (_around, "around", 0),
    "straight": (_straight, "straight", FIRST_STRAIGHT),
}
"""Name -> what describes a batch, the field of `Sampling` that counts its samples, and the first one's number."""
ALL = tuple(_PARTS)


def draw_samples(
    model: Model,
    reference: Reference,
    networks: Networks,
    how: Sampling,
    cache: Path | None = None,
    parts: Iterable[str] = ALL,
) -> Tensors:
    """Everything that is measured on a model's samples, by name, on the CPU.

    front.features, back.features, again.features [N, d], front.rendering, front.random, back.rendering, back.random
    [m, d] (not truncated); near.features, near.found, near_back.found, straight.face, straight.dlib [n, ...]
    (truncated); around.features, around.face [h, 13, ...], around.silhouette [h, 13, 64, 64], around.found [g, 13];
    ahead.hair, behind.hair [s, 3], ahead.features, behind.features [s, d], behind.eye_pair, behind.relief_pair,
    behind.front_relief [s] (truncated).

    Args:
        cache: folder that keeps them for the next call (the teacher's are compared with every row's).
        parts: which of `ALL`.
    """
    if model.resolution != reference.wanted.resolution:
        raise Head3DError(
            f"the real pictures have {reference.wanted.resolution} pixels a side, this model's {model.resolution}: "
            "render real ones of that size"
        )
    w, step = reference.wanted, networks.batch
    about: list[Any] = [model.digest(), networks.fingerprint, how.truncation, how.seed, w.resolution]
    seen: list[Any] = [w.faces, w.heads, w.held_out]
    views = {"straight": [], "around": [w.around, how.turned, MASK_SIDE], "again": seen[:1]}

    def described(describe: Describe, low: int, high: int) -> Tensors:
        batches = (range(k, min(k + step, high)) for k in range(low, high, step))
        return _joined([describe(_Batch(model, reference, networks, how, b)) for b in batches])

    tensors: Tensors = {}
    for name in parts:
        describe, field, first = _PARTS[name]
        end = first + getattr(how, field)
        if name == "around":
            end = min(end, len(reference["around.camera"])) if reference.has("around") else 0
        settings = [*about, *views.get(name, seen)]
        known = []
        for low in range(first, end, PART):
            high = min(low + PART, end)
            make = partial(described, describe, low, high)
            known.append(kept(cache, f"samples-{name}", [*settings, low, high], make))
        tensors |= _joined(known)
    return tensors


def _joined(parts: list[Tensors]) -> Tensors:
    """Rows of several parts under each name; some parts may lack a name."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: torch.cat([part[name] for part in parts if name in part]) for name in names}


# -- image grids -------------------------------------------------------------------------------------------------------


def seen_from(
    model: Model, codes: Sequence[int], yaws: Sequence[float], psi: float = 0.7, seed: int = 0
) -> Tensor:
    """Samples of a model by number, the same z in every model: [codes, V, 3, H, W] from `yaws`, degrees."""
    heads = [model.heads(range(k, k + 1), seed, psi) for k in codes]
    ws, planes = (torch.cat(parts) for parts in zip(*heads, strict=True))
    return turntable.views(model.generator, planes, ws, tuple(yaws))


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
