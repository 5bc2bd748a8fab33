"""Walking the latent space (the paper's Fig. 10, E10): straight lines in w, mixed layers, truncation, directions.

Everything here is arithmetic on `ws` [N, num_ws, w_dim]: what `G.mapping` returns and `G.planes` takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from head3d_core.model import cameras
from head3d_core.model.generator import Generator
from head3d_core.utils.errors import Head3DError


def interpolate(ws_a: Tensor, ws_b: Tensor, count: int) -> Tensor:
    """The straight line between two heads in w: (1 − t) ws_a + t ws_b, t = 0, 1/(count − 1), ..., 1.

    Args:
        ws_a, ws_b: [1, num_ws, w_dim].
        count: heads on the way, both ends included, at least 2.

    Returns:
        [count, num_ws, w_dim].
    """
    _check_pair(ws_a, ws_b)
    if count < 2:
        raise Head3DError(f"a path has at least 2 heads, its ends, got {count}")
    t = torch.linspace(0, 1, count, device=ws_a.device, dtype=ws_a.dtype)[:, None, None]
    return torch.lerp(ws_a, ws_b, t)


def mix_layers(ws_a: Tensor, ws_b: Tensor, layers: Iterable[int]) -> Tensor:
    """Style mixing (StyleGAN): head A with head B's codes in some layers.

    Args:
        ws_a, ws_b: [N, num_ws, w_dim].
        layers: numbers of the codes that come from B; 0 is the coarsest.

    Returns:
        [N, num_ws, w_dim].
    """
    _check_pair(ws_a, ws_b)
    chosen = sorted(set(layers))
    if chosen and not 0 <= chosen[0] <= chosen[-1] < ws_a.shape[1]:
        raise Head3DError(f"layers must lie in 0 to {ws_a.shape[1] - 1}, got {chosen}")
    mixed = ws_a.clone()
    mixed[:, chosen] = ws_b[:, chosen]
    return mixed


def layer_sides(num_ws: int) -> list[int]:
    """Side of the feature map that each code steers, texels.

    Code 0 drives the convolution at side 4, codes 2k − 1 and 2k the two at side 2^(k + 2), the last the final ToRGB.

    >>> layer_sides(6)
    [4, 8, 8, 16, 16, 16]
    """
    sides = [4, *[2 ** (k // 2 + 3) for k in range(num_ws - 2)]]
    return [*sides, sides[-1]]


def _check_pair(ws_a: Tensor, ws_b: Tensor) -> None:
    if ws_a.ndim != 3 or ws_a.shape != ws_b.shape:
        raise Head3DError(
            f"codes are combined head by head, got {list(ws_a.shape)} and {list(ws_b.shape)}: both [N, num_ws, w_dim]"
        )


@dataclass(frozen=True)
class Path:
    """How evenly something changes along a path of K heads, from embeddings (unit vectors)."""

    distance: tuple[float, ...]
    """[K] cosine distance from the first head, 1 − cos."""
    bend: float
    """Largest |distance(t) / distance(1) − t|: 0 where identity changes in proportion to t."""
    unevenness: float
    """Longest step over the mean step (angles between neighbours), 1 where all steps are alike."""
    detour: float
    """Sum of the steps over the angle between the ends: 1 on the shortest way."""


def path_linearity(embeddings: Tensor) -> Path:
    """Identity distance along a path against a straight line.

    Args:
        embeddings: [K, d], of heads at t = 0, 1/(K − 1), ..., 1; K >= 3.

    Raises:
        Head3DError: fewer than three heads, or ends that show the same identity.
    """
    if embeddings.ndim != 2 or len(embeddings) < 3:
        raise Head3DError(f"a path needs embeddings [K, d] of at least 3 heads, got {list(embeddings.shape)}")
    x = torch.nn.functional.normalize(embeddings.double(), dim=1)
    distance = 1 - (x * x[:1]).sum(1)
    end = float(distance[-1])
    if end < 1e-6:
        raise Head3DError("both ends of the path show the same identity: choose other seeds")
    t = torch.linspace(0, 1, len(x), dtype=x.dtype, device=x.device)
    # The half-chord keeps its digits for small angles, where acos of a cosine loses them.
    steps = 2 * torch.asin(((x[1:] - x[:-1]).norm(dim=1) / 2).clamp(max=1))
    whole = 2 * torch.asin(((x[-1] - x[0]).norm() / 2).clamp(max=1))
    return Path(
        distance=tuple(float(d) for d in distance),
        bend=float((distance / end - t).abs().max()),
        unevenness=float(steps.max() / steps.mean()),
        detour=float(steps.sum() / whole),
    )


@dataclass(frozen=True)
class Directions:
    """Principal directions of w (PCA, as in GANSpace): found without labels."""

    mean: Tensor
    """[w_dim]"""
    axes: Tensor
    """[K, w_dim], orthonormal, by falling variance; the sign of each is that of its largest entry."""
    deviation: Tensor
    """[K] standard deviation of w along each axis."""
    share: Tensor
    """[K] share of the variance of w that each axis explains."""

    def move(self, ws: Tensor, amounts: Sequence[float], layers: Iterable[int] | None = None) -> Tensor:
        """ws [N, num_ws, w_dim] moved by amounts[k] standard deviations along axis k.

        Args:
            amounts: one per axis, at most K of them.
            layers: codes that move; None: all.
        """
        if len(amounts) > len(self.axes):
            raise Head3DError(f"there are {len(self.axes)} directions, got {len(amounts)} amounts")
        by = torch.tensor(list(amounts), dtype=ws.dtype, device=ws.device)
        shift = (by * self.deviation[: len(by)].to(ws)) @ self.axes[: len(by)].to(ws)
        if layers is None:
            return ws + shift
        return mix_layers(ws, ws + shift, layers)


@torch.no_grad()
def principal_directions(G: Generator, count: int = 8, samples: int = 4096, seed: int = 0) -> Directions:
    """Principal components of w over random z, under the frontal mapping camera.

    Args:
        count: directions to keep, at most w_dim.
        samples: draws of z, more than `count`.
    """
    if not 1 <= count <= G.config.w_dim or samples <= count:
        raise Head3DError(
            f"count must be 1 to {G.config.w_dim} and samples more than that, got {count} and {samples}"
        )
    z = torch.randn(samples, G.z_dim, generator=torch.Generator().manual_seed(seed)).to(G.device)
    w = G.mapping(z, cameras.frontal(samples, G.device))[:, 0].double()
    mean = w.mean(0)
    values, vectors = torch.linalg.eigh((w - mean).T @ (w - mean) / (samples - 1))
    values, axes = values.flip(0).clamp_min(0), vectors.flip(1).T
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    axes = axes * largest.sign()
    return Directions(
        mean.float(),
        axes[:count].float(),
        values[:count].sqrt().float(),
        (values[:count] / values.sum()).float(),
    )
