"""What is measured on one generator: its samples, described by the fixed networks and kept by name.

Everything follows from (seed, number of the sample): z, and which real camera looks at it. So neither the batch size
nor how many samples are asked for changes a sample, and two generators get the same z and cameras sample by sample.

The mapping camera is the frontal one for every sample: a head does not change with the view.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from head3d_core.evaluation.references import (
    MASK_SIDE,
    STEPS,
    Networks,
    Reference,
    Tensors,
    fingerprint,
    silhouettes,
)
from head3d_core.geometry import mesh
from head3d_core.metrics.ghost import DEPTH_SIDE, SCORES, GhostViews, ghost_scores
from head3d_core.metrics.hair import hair_colour
from head3d_core.model.cameras import frontal, orbit
from head3d_core.model.generator import Generator
from head3d_core.model.seeds import z_of_numbers
from head3d_core.training.distillation import check_match
from head3d_core.utils import files
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.images import to_uint8


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
    closed: int = 64
    """Heads whose closedness is measured."""
    again: int = 2000
    """Seen a second time from another frontal camera, not truncated."""
    straight: int = 1000
    """Seen from straight in front and straight behind, truncated: for hair colour, second faces, diversity of backs."""
    truncation: float = 0.7
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("count", "detector", "around", "turned", "closed", "again", "straight"):
            least = 1 if name in ("count", "detector") else 0
            if getattr(self, name) < least:
                raise Head3DError(
                    f"{name} counts samples, so it is at least {least}, got {getattr(self, name)}"
                )
        if not math.isfinite(self.truncation):
            raise Head3DError(f"truncation must be a number, e.g. 0.7, got {self.truncation}")


STRAIGHT = {"ahead": 0.0, "behind": math.pi}
"""Yaw of straight views, radians; the last one is from behind."""


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
        """Side of its pictures, pixels."""
        return self.generator.config.image_resolution

    @torch.inference_mode()
    def heads(self, numbers: range, seed: int, psi: float) -> tuple[Tensor, Tensor]:
        """ws and planes of samples."""
        G = self.generator
        z = z_of_numbers(seed, numbers, G.z_dim, G.device)
        camera = frontal(len(z), G.device)
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
        return GhostViews(
            images, opacity, *(x[:, 0] for raw in (back, front) for x in (raw.depth, raw.opacity))
        )

    def digest(self) -> str:
        """Names the weights."""
        found = hashlib.sha256()
        for net in (self.generator, self.front):
            for name, tensor in sorted(net.state_dict().items()) if net is not None else ():
                found.update(name.encode() + tensor.detach().float().cpu().contiguous().numpy().tobytes())
        return found.hexdigest()[:16]


def _batches(count: int, batch: int) -> list[range]:
    return [range(k, min(k + batch, count)) for k in range(0, count, batch)]


def _cycle(camera: Tensor, numbers: range, shift: int = 0) -> Tensor:
    """The real cameras of samples: number k takes camera k + shift, from the start again after the last."""
    return camera[(torch.arange(numbers.start, numbers.stop) + shift) % len(camera)]


def _plain(model: Model, reference: Reference, networks: Networks, how: Sampling) -> Tensors:
    """Features of untruncated samples, front and back, and how fast they were made."""
    parts: dict[str, list[Tensor]] = {"front": [], "back": [], "again": []}
    seconds, timed = 0.0, 0
    for turn, numbers in enumerate(_batches(how.count, networks.batch)):
        start = time.perf_counter()
        head = model.heads(numbers, how.seed, 1.0)
        images = {
            "front": model.view(head, _cycle(reference["front.camera"], numbers))[0],
            "back": model.view(head, _cycle(reference["back.camera"], numbers))[0],
        }
        if images["front"].is_cuda:
            torch.cuda.synchronize()
        if turn:  # the first one also warms up
            seconds, timed = seconds + time.perf_counter() - start, timed + 2 * len(numbers)
        seen = numbers[: max(0, how.again - numbers.start)]
        if seen:
            first = (head[0][: len(seen)], head[1][: len(seen)])
            images["again"] = model.view(first, _cycle(reference["front.camera"], seen, 1))[0]
        for name, pictures in images.items():
            parts[name].append(networks.describe(pictures))
    found = {f"{name}.features": torch.cat(rows) for name, rows in parts.items() if rows}
    found["speed"] = torch.tensor([timed / seconds if timed else 0.0, timed], dtype=torch.float64)
    return found


def _truncated(model: Model, reference: Reference, networks: Networks, how: Sampling) -> Tensors:
    """Detector, embeddings and features of truncated samples: frontal, back, and straight from the front."""
    names = ("near.features", "near.found", "near_back.found", "straight.face")
    parts: dict[str, list[Tensor]] = {name: [] for name in names}
    for numbers in _batches(how.detector, networks.batch):
        head = model.heads(numbers, how.seed, how.truncation)
        near = model.view(head, _cycle(reference["front.camera"], numbers))[0]
        back = model.view(head, _cycle(reference["back.camera"], numbers))[0]
        ahead = frontal(len(near))
        straight = model.view(head, ahead)[0]
        rows = (
            networks.describe(near),
            networks.find(near),
            networks.find(back),
            networks.embed(straight, ahead),
        )
        for name, row in zip(names, rows, strict=True):
            parts[name].append(row)
    return {name: torch.cat(rows) for name, rows in parts.items() if rows}


def _around(model: Model, reference: Reference, networks: Networks, how: Sampling) -> Tensors:
    """Features, embeddings, detector and silhouettes from all sides, with the cameras of the reference's people."""
    if not reference.has("around") or not how.around:
        return {}
    camera = reference["around.camera"]
    heads = min(how.around, len(camera))
    names = ("around.features", "around.face", "around.silhouette")
    parts: dict[str, list[Tensor]] = {name: [] for name in (*names, "around.found")}
    for number in range(heads):
        one = model.heads(range(number, number + 1), how.seed, how.truncation)
        ws, planes = (x.expand(STEPS + 1, *x.shape[1:]) for x in one)
        images, opacity = model.view((ws, planes.contiguous()), camera[number])
        rows = (
            networks.describe(images),
            networks.embed(images, camera[number]),
            silhouettes(opacity, camera[number]),
        )
        for name, row in zip(names, rows, strict=True):
            parts[name].append(row)
        if number < how.turned:
            parts["around.found"].append(networks.find(images))
    return {name: torch.stack(rows) for name, rows in parts.items() if rows}


def _straight(model: Model, reference: Reference, networks: Networks, how: Sampling) -> Tensors:
    """Hair colours, ghost scores and features of truncated samples from straight in front and straight behind."""
    parts: dict[str, list[Tensor]] = {}
    for numbers in _batches(how.straight, networks.batch):
        head = model.heads(numbers, how.seed, how.truncation)
        for side, yaw in STRAIGHT.items():
            images, opacity = model.view(head, orbit(yaw).expand(len(numbers), 25))
            parts.setdefault(f"{side}.hair", []).append(hair_colour(images, opacity).cpu())
        parts.setdefault("behind.features", []).append(networks.describe(images))
        scores = ghost_scores(model.ghost_views(head, images, opacity))
        for name in SCORES:
            parts.setdefault(f"behind.{name}", []).append(getattr(scores, name))
    return {name: torch.cat(rows) for name, rows in parts.items()}


def _closed(model: Model, networks: Networks, how: Sampling) -> Tensors:
    """Closedness of truncated samples."""
    rows = []
    for numbers in _batches(how.closed, 4):
        _, planes = model.heads(numbers, how.seed, how.truncation)
        rows.append(mesh.closedness(model.generator, planes).cpu())
    return {"closed": torch.cat(rows)} if rows else {}


def draw_samples(
    model: Model, reference: Reference, networks: Networks, how: Sampling, cache: Path | None = None
) -> Tensors:
    """Everything that is measured on a model's samples, by name, on the CPU.

    front.features, back.features, again.features [N, d] (not truncated); near.features, near.found, near_back.found,
    straight.face [n, ...] (truncated); around.features, around.face [h, 13, ...], around.silhouette [h, 13, 64, 64],
    around.found [g, 13]; ahead.hair, behind.hair [s, 3], behind.features [s, d], behind.eye_pair, behind.relief_pair,
    behind.front_relief [s] (truncated); closed [c]; speed [2]: pictures a second while generating, and of how many.

    Args:
        cache: folder that keeps them for the next call (the teacher's are compared with every row's).
    """
    if model.resolution != reference.wanted.resolution:
        raise Head3DError(
            f"the real pictures have {reference.wanted.resolution} pixels a side, this model's {model.resolution}: "
            "render real ones of that size"
        )
    settings = [asdict(how), asdict(reference.wanted), fingerprint(networks), model.digest(), MASK_SIDE]
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    path = None if cache is None else Path(cache) / f"samples-{key}.safetensors"
    if path is not None and path.is_file():
        return load_file(path)
    tensors: Tensors = {}
    for part in (_plain, _truncated, _around, _straight):
        tensors |= part(model, reference, networks, how)
    tensors |= _closed(model, networks, how)
    tensors = {name: t.contiguous() for name, t in tensors.items()}
    if path is not None:
        with files.atomic(path) as temporary:
            save_file(tensors, temporary)
    return tensors
