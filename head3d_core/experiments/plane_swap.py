"""Exchange of planes between identities and between generators (Fig. 2 and 3, Table 1): what each plane carries.

A head is three planes, a decoder and a code for super-resolution. Each plane gets a share of a second head (0 to 1),
and the mixture is compared with both heads by identity, colour, silhouette and depth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
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
from head3d_core.model.generator import Generator, RawOutput, RenderOutput
from head3d_core.model.rays import camera_rays
from head3d_core.model.seeds import PSI, Heads, heads_of_seeds
from head3d_core.model.volume import render_rays
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.progress import Progress, counted

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


@torch.no_grad()
def look(
    G: Generator,
    mixed: Tensor,
    camera: Tensor,
    resolution: int | None = None,
    backend: Backend = "auto",
    samples: int | None = None,
) -> RawOutput:
    """The raw image of planes, its three colours as the only features; no super-resolution.

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
    parts = (result.features.transpose(1, 2), result.depth[:, None], result.opacity[:, None])
    return RawOutput(*(part.unflatten(-1, (size, size)) for part in parts))


@torch.no_grad()
def finish(
    G: Generator, mixed: Tensor, ws: Tensor, camera: Tensor, backend: Backend = "auto"
) -> RenderOutput:
    """Raw and finished images of planes and codes [B, num_ws, w_dim]; camera as for `look`."""
    return G.render(mixed, ws, camera.to(mixed.device).expand(len(mixed), -1), backend=backend)


def _inside(difference: Tensor, a: RawOutput, b: RawOutput) -> Tensor:
    """Mean of a difference [B, 1, R, R] where both views show a head, [B]; NaN where they nowhere do."""
    both = (a.opacity >= 0.5) & (b.opacity >= 0.5)
    return torch.where(both, difference, 0.0).sum((1, 2, 3)) / both.sum((1, 2, 3))


def colour_change(a: RawOutput, b: RawOutput) -> Tensor:
    """Mean |rgb difference| where both show a head, [B] in [0, 1]; NaN where they nowhere do."""
    return _inside((a.raw - b.raw).abs().mean(1, keepdim=True) / 2, a, b)


def depth_change(a: RawOutput, b: RawOutput) -> Tensor:
    """Mean |depth difference| where both show a head, [B] world units; NaN where they nowhere do."""
    return _inside((a.depth - b.depth).abs(), a, b)


def silhouette_change(a: RawOutput, b: RawOutput) -> Tensor:
    """1 - IoU of the silhouettes, [B]."""
    return 1 - silhouette_iou(a.opacity, b.opacity)


_PIXELS: dict[str, tuple[str, Callable[[RawOutput, RawOutput], Tensor]]] = {
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
    """Heads or mixtures from both sides, with the embeddings of their frontal view."""

    front: RawOutput
    side: RawOutput
    embeddings: dict[str, Tensor]
    """FINISHED and RAW, or RAW alone -> [B, d]."""


def _see(G: Generator, encoder: Encoder, mixed: Tensor, ws: Tensor, finished: bool) -> _Seen:
    front_camera, side_camera = cameras.orbit(torch.tensor([0.0, SIDE_VIEW])).to(mixed.device).split(1)
    front = finish(G, mixed, ws, front_camera) if finished else look(G, mixed, front_camera)
    images = {RAW: front.raw} | ({FINISHED: front.image} if isinstance(front, RenderOutput) else {})
    embeddings = {name: encoder(x, front_camera.expand(len(mixed), -1)) for name, x in images.items()}
    return _Seen(front, look(G, mixed, side_camera), embeddings)


def _rows(seen: Sequence[_Seen], rows: Sequence[int]) -> _Seen:
    """Single heads as a batch."""
    chosen = [seen[k] for k in rows]
    front, side = (
        RawOutput(
            *(torch.cat([getattr(view, part) for view in views]) for part in ("raw", "depth", "opacity"))
        )
        for views in ([s.front for s in chosen], [s.side for s in chosen])
    )
    names = chosen[0].embeddings
    return _Seen(front, side, {name: torch.cat([s.embeddings[name] for s in chosen]) for name in names})


def _distances(a: _Seen, b: _Seen) -> dict[str, Array]:
    """Measure -> [B]."""
    distances = {name: 1 - (a.embeddings[name] * b.embeddings[name]).sum(1) for name in a.embeddings}
    distances |= {
        name: change(getattr(a, side), getattr(b, side)) for name, (side, change) in _PIXELS.items()
    }
    return {name: value.double().cpu().numpy() for name, value in distances.items()}


def _exchanged(
    G: Generator, encoder: Encoder, couples: Iterable[tuple[Heads, Heads, _Seen, _Seen]], finished: bool
) -> Changes:
    """`Changes` of M couples of heads, which come in batches: [3, M] and, between the heads, [M]."""
    names = PLANE_NAMES[G.config.render.axes]
    parts: list[list[dict[str, list[Array]]]] = []
    for one, two, *own in couples:
        mixtures = [_see(G, encoder, *mix(one, two, exchange(name)), finished) for name in names]
        rows = [[_distances(mixture, head) for mixture in mixtures] for head in own]
        parts.append([{m: [d[m] for d in row] for m in row[0]} for row in [*rows, [_distances(*own)]]])
    first, second, apart = (
        {m: np.concatenate([part[m] for part in column], -1) for m in column[0]}
        for column in zip(*parts, strict=True)
    )
    return Changes(names, first, second, {m: values[0] for m, values in apart.items()})


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
        batch: pairs rendered at a time.
        finished: also make the finished image and read identity from it; False saves that time.
        progress: called with (done, total) batches.
    """
    count = len(heads)
    if count < 2:
        raise Head3DError(f"an exchange needs at least two identities, got {count}")
    singles = [heads.take([k]) for k in range(count)]
    alone = [_see(G, encoder, one.planes, one.ws, finished) for one in singles]
    i, j = np.array(list(permutations(range(count), 2))).T

    def couples() -> Iterator[tuple[Heads, Heads, _Seen, _Seen]]:
        for start in counted(range(0, len(i), batch), progress):
            a, b = (rows[start : start + batch].tolist() for rows in (i, j))
            yield heads.take(a), heads.take(b), _rows(alone, a), _rows(alone, b)

    def square(values: Array) -> Array:
        out = np.full((*values.shape[:-1], count, count), np.nan)
        out[..., i, j] = values
        return out

    flat = _exchanged(G, encoder, couples(), finished)
    measured = (flat.to_first, flat.to_second, flat.apart)
    return Changes(flat.names, *({m: square(v) for m, v in part.items()} for part in measured))


@torch.no_grad()
def between_generators(
    G_first: Generator,
    G_second: Generator,
    encoder: Encoder,
    seeds: Sequence[int],
    truncation_psi: float = PSI,
    batch: int = 8,
    finished: bool = True,
    progress: Progress | None = None,
) -> Changes:
    """Puts each plane of the second generator's head into the first's head of the same seed (E2, Fig. 3).

    The mixture is decoded and finished by the first generator. The result is meaningful where the second was fine-tuned
    from the first or the reverse: planes of unrelated generators have unrelated meanings.

    Raises:
        Head3DError: generators whose planes or axes differ.
    """
    check_exchangeable(G_first, G_second)

    def couples() -> Iterator[tuple[Heads, Heads, _Seen, _Seen]]:
        for start in counted(range(0, len(seeds), batch), progress):
            some = seeds[start : start + batch]
            one, two = (heads_of_seeds(G, some, truncation_psi) for G in (G_first, G_second))
            seen = _see(G_first, encoder, one.planes, one.ws, finished)
            yield one, two, seen, _see(G_second, encoder, two.planes, two.ws, finished)

    return _exchanged(G_first, encoder, couples(), finished)


def check_exchangeable(first: Generator, second: Generator) -> None:
    """Raises Head3DError unless planes of either generator fit the other's decoder."""
    for field in ("plane_resolution", "plane_channels", "w_dim", "num_ws", "render.axes"):
        one, two = (attrgetter(field)(G.config) for G in (first, second))
        if one != two:
            raise Head3DError(
                f"generators exchange planes if these have one layout, but {field} is {one} and {two}: "
                "load a generator and one fine-tuned from it"
            )
