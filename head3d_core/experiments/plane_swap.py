"""Exchange of planes between identities and between generators (Fig. 2 and 3, Table 1): what each plane carries.

A head is three planes, a decoder and a code for super-resolution. Each plane gets a share of a second head (0 to 1),
and the mixture is compared with both heads by identity, colour, silhouette and depth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from head3d_core.config import PLANE_NAMES, SLICE_NAMES, Backend
from head3d_core.metrics.identity_encoder import Encoder
from head3d_core.metrics.silhouettes import silhouette_iou
from head3d_core.model import cameras, planes
from head3d_core.model.generator import Generator
from head3d_core.model.rays import camera_rays
from head3d_core.model.seeds import PSI, Heads, heads_of_seeds
from head3d_core.model.volume import render_rays
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.progress import Progress

Array = NDArray[np.float64]
SIDE_VIEW = math.pi / 2
"""Yaw of the side view, radians."""
FINISHED, RAW = "identity", "identity, raw picture"
"""Identity read from the finished frontal image, and from the raw one, which depends on the planes alone."""


def mix(first: Heads, second: Heads, shares: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Planes and codes of mixtures: plane k is (1 - share_k) of the first head and share_k of the second.

    Shares of 0 and 1 exchange planes (Fig. 2), other shares blend them. Super-resolution takes one code as well. It is
    blended by the mean of the three shares, so that (0, 0, 0) and (1, 1, 1) are the two heads and no plane is favoured.

    Args:
        first, second: B heads each, of one generator or of two whose planes have one shape; a tri-plane meets two-slice
            planes as one with equal slices.
        shares: one per plane, in the order of `config.PLANE_NAMES`, the first for both slices of xy; or one for each of
            four planes.

    Returns:
        planes [B, P, C, H, W], ws [B, num_ws, w_dim].
    """
    one, two = first.planes, second.planes
    if one.shape[1] != two.shape[1]:
        one, two = planes.widen(one), planes.widen(two)
    xy = [shares[0], *shares[3:]]
    return planes.blend(one, two, shares), torch.lerp(
        first.ws, second.ws, (sum(xy) / len(xy) + shares[1] + shares[2]) / 3
    )


def exchange(name: str) -> tuple[float, ...]:
    """Shares that exchange the named plane ("xy", "xz", "yz" or "zx"), or slice ("xy_front", "xy_back"), alone."""
    k = planes.plane_index(name)
    return tuple(float(j == k) for j in range(4 if name in SLICE_NAMES else 3))


class View(NamedTuple):
    """A raw image with its geometry, on the device that rendered it."""

    rgb: Tensor
    """[B, 3, R, R] in about [-1, 1]."""
    depth: Tensor
    """[B, R, R], world units along the ray."""
    opacity: Tensor
    """[B, R, R] in [0, 1]."""


@torch.no_grad()
def look(
    G: Generator,
    mixed: Tensor,
    camera: Tensor,
    resolution: int | None = None,
    backend: Backend = "auto",
    samples: int | None = None,
) -> View:
    """The raw image of planes; no super-resolution.

    Args:
        mixed: [B, 3, C, H, W].
        camera: [B, 25], or [1, 25] for all.
        resolution: None: the generator's.
        samples: of each of the two passes along a ray; None: the generator's. Half as many take half the time.
    """
    size = resolution or G.config.neural_resolution
    origins, directions = (x.expand(len(mixed), -1, -1) for x in camera_rays(camera.to(mixed.device), size))
    # Sigma and rgb are the decoder's first four outputs: the other features are for super-resolution.
    weights, options = G.decoder.weights(), G.config.render
    weights = weights._replace(w1=weights.w1[:4].contiguous(), b1=weights.b1[:4].contiguous())
    if samples is not None:
        options = replace(options, depth_resolution=samples, depth_resolution_importance=samples)
    result = render_rays(mixed, weights, origins, directions, options, backend=backend)
    parts = (result.features.transpose(1, 2), result.depth, result.opacity)
    return View(*(part.unflatten(-1, (size, size)) for part in parts))


@torch.no_grad()
def raw_and_picture(
    G: Generator, mixed: Tensor, ws: Tensor, camera: Tensor, backend: Backend = "auto"
) -> tuple[View, Tensor]:
    """Raw views of planes and finished images [B, 3, image, image], in about [-1, 1]; rays are marched once."""
    out = G.render(mixed, ws, camera.to(mixed.device).expand(len(mixed), -1), backend=backend)
    return View(out.raw, out.depth[:, 0], out.opacity[:, 0]), out.image


def picture(G: Generator, mixed: Tensor, ws: Tensor, camera: Tensor, backend: Backend = "auto") -> Tensor:
    """The finished images [B, 3, image, image] of planes and codes."""
    return raw_and_picture(G, mixed, ws, camera, backend)[1]


def _inside(difference: Tensor, a: View, b: View) -> Tensor:
    """Mean of a difference [B, R, R] where both views show a head, [B]; NaN where they nowhere do."""
    both = (a.opacity >= 0.5) & (b.opacity >= 0.5)
    return torch.where(both, difference, 0.0).sum((1, 2)) / both.sum((1, 2))


def colour_change(a: View, b: View) -> Tensor:
    """Mean |rgb difference| where both show a head, [B] in [0, 1]; NaN where they nowhere do."""
    return _inside((a.rgb - b.rgb).abs().mean(1) / 2, a, b)


def depth_change(a: View, b: View) -> Tensor:
    """Mean |depth difference| where both show a head, [B] world units; NaN where they nowhere do."""
    return _inside((a.depth - b.depth).abs(), a, b)


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


@dataclass(frozen=True)
class Changes:
    """Distances of exchanges: over ordered pairs of identities ([N, N], indexed [ID 1, ID 2]), or between two
    generators seed by seed ([N]); measure -> array."""

    names: tuple[str, str, str]
    """Planes, in order."""
    to_first: dict[str, Array]
    """[3, N, N] or [3, N]: from the first head with plane k of the second, to the first head."""
    to_second: dict[str, Array]
    """[3, N, N] or [3, N]: from the same mixture, to the second head."""
    apart: dict[str, Array]
    """[N, N] or [N]: between the two heads themselves."""


class _Seen(NamedTuple):
    """One batch of heads or mixtures from both sides, with the embeddings of their frontal view."""

    front: View
    side: View
    embeddings: dict[str, Tensor]
    """FINISHED and RAW, or RAW alone -> [B, d]."""


def _see(G: Generator, encoder: Encoder, mixed: Tensor, ws: Tensor, finished: bool) -> _Seen:
    front_camera, side_camera = cameras.orbit(torch.tensor([0.0, SIDE_VIEW])).to(mixed.device).split(1)
    if finished:
        front, image = raw_and_picture(G, mixed, ws, front_camera)
        images = {RAW: front.rgb, FINISHED: image}
    else:
        front = look(G, mixed, front_camera)
        images = {RAW: front.rgb}
    embeddings = {name: encoder(x, front_camera.expand(len(mixed), -1)) for name, x in images.items()}
    return _Seen(front, look(G, mixed, side_camera), embeddings)


def _distances(a: _Seen, b: _Seen) -> dict[str, Array]:
    """Measure -> [B]."""
    distances = {name: 1 - (a.embeddings[name] * b.embeddings[name]).sum(1) for name in a.embeddings}
    distances |= {
        name: change(getattr(a, side), getattr(b, side)) for name, (side, change) in _PIXELS.items()
    }
    return {name: value.double().cpu().numpy() for name, value in distances.items()}


def _exchanged(
    G: Generator,
    encoder: Encoder,
    names: tuple[str, str, str],
    heads: tuple[Heads, Heads],
    seen: tuple[_Seen, _Seen],
    finished: bool,
) -> tuple[dict[str, Array], dict[str, Array], dict[str, Array]]:
    """`Changes` of B couples: to the first [3, B], to the second [3, B], apart [B]."""
    rows: list[list[dict[str, Array]]] = [[], []]
    for name in names:
        mixture = _see(G, encoder, *mix(*heads, exchange(name)), finished)
        for row, own in zip(rows, seen, strict=True):
            row.append(_distances(mixture, own))
    first, second = ({m: np.stack([d[m] for d in row]) for m in row[0]} for row in rows)
    return first, second, _distances(*seen)


@torch.no_grad()
def swap_changes(
    G: Generator,
    encoder: Encoder,
    heads: Heads,
    batch: int = 8,
    finished: bool = True,
    progress: Progress | None = None,
) -> Changes:
    """Exchanges each plane within each ordered pair and measures what changed (E1; 3 N (N - 1) mixtures).

    Args:
        heads: N identities.
        batch: mixtures rendered at a time.
        finished: also make the finished image and read identity from it; False saves that time.
        progress: called with (done, total) mixtures.
    """
    count, names = len(heads), PLANE_NAMES[G.config.render.axes]
    if count < 2:
        raise Head3DError(f"an exchange needs at least two identities, got {count}")
    singles = [heads.take([k]) for k in range(count)]
    alone = [_see(G, encoder, one.planes, one.ws, finished) for one in singles]
    changes: list[dict[str, Array]] = [{}, {}, {}]
    pairs = [(i, j) for i in range(count) for j in range(count) if i != j]
    for start in range(0, len(pairs), batch):
        i, j = (list(column) for column in zip(*pairs[start : start + batch], strict=True))
        both = heads.take(i), heads.take(j)
        seen = _rows(alone, i), _rows(alone, j)
        parts = _exchanged(G, encoder, names, both, seen, finished)
        for target, part in zip(changes, parts, strict=True):
            for measure, value in part.items():
                empty = np.full((*value.shape[:-1], count, count), np.nan)
                target.setdefault(measure, empty)[..., i, j] = value
        if progress:
            progress(3 * (start + len(i)), 3 * len(pairs))
    return Changes(names, *changes)


def _rows(seen: Sequence[_Seen], rows: Sequence[int]) -> _Seen:
    """Single heads as a batch."""
    fronts, sides, embeddings = zip(*(seen[k] for k in rows), strict=True)
    front, side = (View(*map(torch.cat, zip(*views, strict=True))) for views in (fronts, sides))
    return _Seen(front, side, {name: torch.cat([e[name] for e in embeddings]) for name in embeddings[0]})


@torch.no_grad()
def between_generators(
    G_first: Generator,
    G_second: Generator,
    encoder: Encoder,
    seeds: Sequence[int],
    truncation_psi: float = PSI,
    batch: int = 8,
    finished: bool = True,
) -> Changes:
    """Puts each plane of the second generator's head into the first's head of the same seed (E2, Fig. 3).

    The mixture is decoded and finished by the first generator. The result is meaningful where the second was fine-tuned
    from the first or the reverse: planes of unrelated generators have unrelated meanings.

    Raises:
        Head3DError: generators whose planes or axes differ.
    """
    check_exchangeable(G_first, G_second)
    names = PLANE_NAMES[G_first.config.render.axes]
    parts = []
    for start in range(0, len(seeds), batch):
        both = tuple(
            heads_of_seeds(G, seeds[start : start + batch], truncation_psi) for G in (G_first, G_second)
        )
        seen = tuple(
            _see(G, encoder, h.planes, h.ws, finished) for G, h in zip((G_first, G_second), both, strict=True)
        )
        parts.append(_exchanged(G_first, encoder, names, both, seen, finished))  # type: ignore[arg-type]
    joined = [
        {m: np.concatenate([d[m] for d in column], -1) for m in column[0]}
        for column in zip(*parts, strict=True)
    ]
    return Changes(names, *joined)


def check_exchangeable(first: Generator, second: Generator) -> None:
    """Raises Head3DError unless planes of either generator fit the other's decoder."""
    for field in ("plane_resolution", "plane_channels", "w_dim", "num_ws", "render.axes"):
        one, two = (attrgetter(field)(G.config) for G in (first, second))
        if one != two:
            raise Head3DError(
                f"generators exchange planes if these have one layout, but {field} is {one} and {two}: "
                "load a generator and one fine-tuned from it"
            )
