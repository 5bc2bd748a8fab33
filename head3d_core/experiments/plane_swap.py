"""What does each plane carry? Exchange of planes between identities and between generators (Fig. 2 and 3, Table 1).

A head is three planes, a decoder and a code for super-resolution. Everything here takes planes of two heads, gives each
plane a share of the second head (0, 1 or between), and looks at the result: how similar is it to either head, by
identity, colour, silhouette and depth?
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from head3d_core.config import PLANE_NAMES, Backend
from head3d_core.metrics.distances import Estimate, bootstrap_weights, percentiles
from head3d_core.metrics.identity_encoder import Encoder
from head3d_core.metrics.silhouettes import silhouette_iou
from head3d_core.model import cameras, planes
from head3d_core.model.generator import Generator
from head3d_core.model.quick import quick_rays, three_colours
from head3d_core.model.rays import camera_rays
from head3d_core.model.seeds import PSI, Heads, heads_of_seeds
from head3d_core.utils.errors import Head3DError

Array = NDArray[np.float64]
SIDE_VIEW = math.pi / 2
"""Yaw of the side view, radians."""
FINISHED, RAW = "identity", "identity, raw picture"
"""Identity read from the finished frontal picture, and from the raw one, in which only the planes speak."""


def mix(first: Heads, second: Heads, shares: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Planes and codes of mixtures: plane k is (1 - share_k) of the first head and share_k of the second.

    Shares of 0 and 1 exchange planes (Fig. 2); shares between blend them. Super-resolution takes one code as well: the
    blend by the mean of the three shares, so that (0, 0, 0) and (1, 1, 1) are the two heads themselves and no plane is
    favoured.

    Args:
        first, second: B heads each, of one generator or of two whose planes have one shape.
        shares: one per plane, in the order of `config.PLANE_NAMES`.

    Returns:
        planes [B, 3, C, H, W], ws [B, num_ws, w_dim].
    """
    mixed = planes.blend(first.planes, second.planes, shares)
    if first.ws.shape != second.ws.shape:
        raise Head3DError(
            f"both heads need codes of one shape, got {list(first.ws.shape)} and {list(second.ws.shape)}"
        )
    return mixed, torch.lerp(first.ws, second.ws, sum(shares) / 3)


def exchange(name: str) -> tuple[float, float, float]:
    """Shares that exchange the named plane ("xy", "xz", "yz" or "zx") and nothing else."""
    k = planes.plane_index(name)
    return tuple(float(j == k) for j in range(3))  # type: ignore[return-value]


@dataclass(frozen=True)
class View:
    """A raw picture with its geometry, on the device that rendered it."""

    rgb: Tensor
    """[B, 3, R, R] in about [-1, 1]."""
    depth: Tensor
    """[B, R, R], world units along the ray."""
    opacity: Tensor
    """[B, R, R] in [0, 1]."""

    def expand(self, count: int) -> View:
        """One view as `count` equal ones."""
        return View(*(x.expand(count, *x.shape[1:]) for x in (self.rgb, self.depth, self.opacity)))


def _march(
    G: Generator, mixed: Tensor, camera: Tensor, size: int, backend: Backend, colours_only: bool
) -> tuple[Tensor, View]:
    """Features [B, C or 3, size, size] of planes, and the same as a picture with its geometry."""
    origins, directions = (x.expand(len(mixed), -1, -1) for x in camera_rays(camera.to(mixed.device), size))
    weights = G.decoder.weights()
    if colours_only:
        weights = three_colours(weights)
    result = quick_rays(mixed, weights, origins, directions, G.config.render, backend)
    features = result.features.transpose(1, 2).unflatten(-1, (size, size))
    depth, opacity = (x.unflatten(-1, (size, size)) for x in (result.depth, result.opacity))
    return features, View(features[:, :3], depth, opacity)


@torch.no_grad()
def look(
    G: Generator, mixed: Tensor, camera: Tensor, resolution: int | None = None, backend: Backend = "auto"
) -> View:
    """The raw picture of planes, by the fastest way there is; no super-resolution.

    Args:
        mixed: [B, 3, C, H, W].
        camera: [B, 25], or [1, 25] for all.
        resolution: None: the generator's.
    """
    return _march(G, mixed, camera, resolution or G.config.neural_resolution, backend, colours_only=True)[1]


@torch.no_grad()
def raw_and_picture(
    G: Generator, mixed: Tensor, ws: Tensor, camera: Tensor, backend: Backend = "auto"
) -> tuple[View, Tensor]:
    """Raw views of planes and finished pictures [B, 3, image, image], in about [-1, 1]; rays are marched once."""
    features, raw = _march(G, mixed, camera, G.config.neural_resolution, backend, colours_only=False)
    return raw, G.superresolution(features, raw.rgb, ws)


def picture(G: Generator, mixed: Tensor, ws: Tensor, camera: Tensor, backend: Backend = "auto") -> Tensor:
    """The finished pictures [B, 3, image, image] of planes and codes."""
    return raw_and_picture(G, mixed, ws, camera, backend)[1]


def colour_change(a: View, b: View) -> Tensor:
    """Mean |rgb difference| where both show a head, [B] in [0, 1]; NaN where they nowhere do."""
    inside = (a.opacity >= 0.5) & (b.opacity >= 0.5)
    difference = (a.rgb - b.rgb).abs().mean(1) / 2
    return (difference * inside).sum((1, 2)) / inside.sum((1, 2))


def depth_change(a: View, b: View) -> Tensor:
    """Mean |depth difference| where both show a head, [B] world units; NaN where they nowhere do."""
    inside = (a.opacity >= 0.5) & (b.opacity >= 0.5)
    difference = torch.where(inside, (a.depth - b.depth).abs(), 0.0)
    return difference.sum((1, 2)) / inside.sum((1, 2))


def silhouette_change(a: View, b: View) -> Tensor:
    """1 - IoU of the silhouettes, [B]."""
    return 1 - silhouette_iou(a.opacity, b.opacity)


_PIXELS: dict[str, tuple[str, Callable[[View, View], Tensor]]] = {
    "colour, front": ("front", colour_change),
    "colour, side": ("side", colour_change),
    "silhouette, front": ("front", silhouette_change),
    "silhouette, side": ("side", silhouette_change),
    "depth, front": ("front", depth_change),
}


def ordered_pairs(count: int) -> list[tuple[int, int]]:
    """All (i, j) with i != j, as the rows of Table 1 average over them: count (count - 1) of them."""
    return [(i, j) for i in range(count) for j in range(count) if i != j]


def pair_mean(values: Array, replicates: int = 1000, seed: int = 0) -> Estimate:
    """Mean of values[i, j] over ordered pairs i != j, with a bootstrap interval over identities.

    Pairs share people, so pairs are not independent: redrawing them would give an interval that is far too narrow. A
    replicate redraws the N identities; a pair then counts as often as both of its people were drawn.

    Args:
        values: [N, N]; the diagonal is ignored, NaN leaves a pair out.
    """
    total, weight = _weighted(values, len(values), replicates, seed)
    means = total / weight
    return percentiles(float(means[0]), means[1:], len(values))


def pair_ratio(above: Array, below: Array, replicates: int = 1000, seed: int = 0) -> Estimate:
    """Ratio of two means over ordered pairs, numerator and denominator redrawn together; as `pair_mean`."""
    usable = np.isfinite(above) & np.isfinite(below)
    up, _ = _weighted(np.where(usable, above, np.nan), len(above), replicates, seed)
    down, _ = _weighted(np.where(usable, below, np.nan), len(above), replicates, seed)
    ratio = up / np.where(down > 0, down, np.nan)
    return percentiles(float(ratio[0]), ratio[1:], len(above))


def _weighted(values: Array, count: int, replicates: int, seed: int) -> tuple[Array, Array]:
    """Sums of values and of weights over i != j, [1 + replicates]: first all pairs once, then the replicates."""
    if values.shape != (count, count) or count < 2:
        raise Head3DError(f"pair values must be [N, N] with N >= 2, got {list(values.shape)}")
    usable = np.isfinite(values) & ~np.eye(count, dtype=bool)
    if not usable.any():
        raise Head3DError("no pair has a finite value: the pictures are empty, or the model has diverged")
    drawn = np.concatenate([np.ones((1, count)), bootstrap_weights(count, replicates, seed)])
    total = np.einsum("ri,ij,rj->r", drawn, np.where(usable, values, 0.0), drawn, optimize=True)
    weight = np.einsum("ri,ij,rj->r", drawn, usable.astype(np.float64), drawn, optimize=True)
    return total, np.where(weight > 0, weight, np.nan)


@dataclass(frozen=True)
class Changes:
    """Distances of all exchanges over all ordered pairs; every array is indexed [ID 1, ID 2]."""

    names: tuple[str, str, str]
    """Planes, in order."""
    to_first: dict[str, Array]
    """Measure -> [3, N, N]: from ID 1 with plane k of ID 2, to ID 1."""
    to_second: dict[str, Array]
    """Measure -> [3, N, N]: from the same mixture, to ID 2."""
    apart: dict[str, Array]
    """Measure -> [N, N]: between ID 1 and ID 2 themselves."""


@dataclass(frozen=True)
class _Seen:
    """One batch of heads or mixtures from both sides, with the embeddings of their frontal view."""

    front: View
    side: View
    embeddings: dict[str, Tensor]
    """FINISHED and RAW, or RAW alone -> [B, d]."""


def _see(
    G: Generator, encoder: Encoder, mixed: Tensor, ws: Tensor, finished: bool, backend: Backend
) -> _Seen:
    front_camera, side_camera = cameras.orbit(torch.tensor([0.0, SIDE_VIEW])).to(mixed.device).split(1)
    if finished:
        front, image = raw_and_picture(G, mixed, ws, front_camera, backend)
        shown = {RAW: front.rgb, FINISHED: image}
    else:
        front = look(G, mixed, front_camera, backend=backend)
        shown = {RAW: front.rgb}
    embeddings = {name: encoder(x, front_camera.expand(len(mixed), -1)) for name, x in shown.items()}
    return _Seen(front, look(G, mixed, side_camera, backend=backend), embeddings)


def _distances(a: _Seen, b: _Seen) -> dict[str, Tensor]:
    found = {name: 1 - (a.embeddings[name] * b.embeddings[name]).sum(1) for name in a.embeddings}
    for measure, (where, change) in _PIXELS.items():
        found[measure] = change(getattr(a, where), getattr(b, where))
    return {name: value.double().cpu() for name, value in found.items()}


@torch.no_grad()
def swap_changes(
    G: Generator,
    encoder: Encoder,
    heads: Heads,
    batch: int = 8,
    finished: bool = True,
    backend: Backend = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> Changes:
    """Exchanges each plane within each ordered pair and measures what changed (E1; 3 N (N - 1) mixtures).

    Args:
        heads: N identities.
        batch: mixtures rendered at a time.
        finished: also make the finished picture and read identity from it; False saves that time.
        progress: called with (done, total) mixtures.
    """
    count, names = len(heads), PLANE_NAMES[G.config.render.axes]
    if count < 2:
        raise Head3DError(f"an exchange needs at least two identities, got {count}")
    own = [
        _see(G, encoder, part.planes, part.ws, finished, backend)
        for part in (heads.take(rows) for rows in _chunks(range(count), batch))
    ]
    alone = _join(own)
    measures = [*alone.embeddings, *_PIXELS]
    to_first = {m: np.full((3, count, count), np.nan) for m in measures}
    to_second = {m: np.full((3, count, count), np.nan) for m in measures}
    apart = {m: np.full((count, count), np.nan) for m in measures}
    pairs, done = ordered_pairs(count), 0
    for part in _chunks(pairs, batch):
        i, j = (list(column) for column in zip(*part, strict=True))
        first, second = heads.take(i), heads.take(j)
        one, two = _rows(alone, i), _rows(alone, j)
        for measure, value in _distances(one, two).items():
            apart[measure][i, j] = value
        for k, name in enumerate(names):
            mixed, ws = mix(first, second, exchange(name))
            seen = _see(G, encoder, mixed, ws, finished, backend)
            for target, other in ((to_first, one), (to_second, two)):
                for measure, value in _distances(seen, other).items():
                    target[measure][k, i, j] = value
        done += len(part)
        if progress:
            progress(3 * done, 3 * len(pairs))
    return Changes(names, to_first, to_second, apart)


def _chunks(items: Sequence, size: int) -> Iterator[Sequence]:
    return (items[k : k + size] for k in range(0, len(items), size))


def _join(parts: Sequence[_Seen]) -> _Seen:
    def views(side: str) -> View:
        fields = ("rgb", "depth", "opacity")
        return View(*(torch.cat([getattr(getattr(p, side), f) for p in parts]) for f in fields))

    embeddings = {name: torch.cat([p.embeddings[name] for p in parts]) for name in parts[0].embeddings}
    return _Seen(views("front"), views("side"), embeddings)


def _rows(seen: _Seen, rows: list[int]) -> _Seen:
    def take(view: View) -> View:
        return View(view.rgb[rows], view.depth[rows], view.opacity[rows])

    return _Seen(take(seen.front), take(seen.side), {k: x[rows] for k, x in seen.embeddings.items()})


@dataclass(frozen=True)
class Between:
    """Distances of exchanges between two generators, seed by seed."""

    names: tuple[str, str, str]
    to_first: dict[str, Array]
    """Measure -> [3, N]: from the first generator's head with plane k of the second's, to the first's own head."""
    to_second: dict[str, Array]
    """Measure -> [3, N]: from the same mixture to the second generator's own head."""
    apart: dict[str, Array]
    """Measure -> [N]: between the two generators' heads of one seed."""


@torch.no_grad()
def between_generators(
    G_first: Generator,
    G_second: Generator,
    encoder: Encoder,
    seeds: Sequence[int],
    truncation_psi: float = PSI,
    batch: int = 8,
    finished: bool = True,
) -> Between:
    """Puts each plane of the second generator's head into the first's head of the same seed (E2, Fig. 3).

    The mixture is decoded and finished by the first generator. It says something where the second was fine-tuned from
    the first or the reverse: planes of strangers mean different things.

    Raises:
        Head3DError: generators whose planes or axes differ.
    """
    check_exchangeable(G_first, G_second)
    names = PLANE_NAMES[G_first.config.render.axes]
    first: dict[str, Array] = {}
    second: dict[str, Array] = {}
    apart: dict[str, Array] = {}
    parts: dict[str, list[list[dict[str, Tensor]]]] = {"first": [[], [], []], "second": [[], [], []]}
    gaps = []
    for some in _chunks(seeds, batch):
        one = heads_of_seeds(G_first, some, truncation_psi)
        two = heads_of_seeds(G_second, some, truncation_psi)
        seen_one = _see(G_first, encoder, one.planes, one.ws, finished, "auto")
        seen_two = _see(G_second, encoder, two.planes, two.ws, finished, "auto")
        gaps.append(_distances(seen_one, seen_two))
        for k, name in enumerate(names):
            seen = _see(G_first, encoder, *mix(one, two, exchange(name)), finished, "auto")
            parts["first"][k].append(_distances(seen, seen_one))
            parts["second"][k].append(_distances(seen, seen_two))
    for measure in gaps[0]:
        apart[measure] = np.concatenate([g[measure].numpy() for g in gaps])
        for target, side in ((first, "first"), (second, "second")):
            rows = [np.concatenate([g[measure].numpy() for g in parts[side][k]]) for k in range(3)]
            target[measure] = np.stack(rows)
    return Between(names, first, second, apart)


def check_exchangeable(first: Generator, second: Generator) -> None:
    """Raises Head3DError unless planes of either generator fit the other's decoder."""
    fields = ("plane_resolution", "plane_channels", "w_dim", "num_ws")
    one, two = first.config, second.config
    for field in fields:
        if getattr(one, field) != getattr(two, field):
            raise Head3DError(
                f"generators exchange planes if they are built alike, but {field} is "
                f"{getattr(one, field)} and {getattr(two, field)}: load a generator and one fine-tuned from it"
            )
    if one.render.axes != two.render.axes:
        raise Head3DError(
            f"generators exchange planes under one axes convention, got {one.render.axes!r} and {two.render.axes!r}"
        )
