"""Latent paths (the paper's Fig. 10, E10): interpolation in w, style mixing, truncation, principal directions.

    python -m head3d_core walk --weights face head3d

The functions are arithmetic on `ws` [N, num_ws, w_dim]: what `G.mapping` returns and `G.planes` takes. The command
measures how straight paths are, and what truncation costs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from head3d_core.checkpoints import weights as checkpoint
from head3d_core.datasets import face_detector
from head3d_core.experiments import study
from head3d_core.geometry.turntable import views
from head3d_core.metrics.identity_encoder import Encoder, load_encoder
from head3d_core.metrics.verification import diversity
from head3d_core.model import cameras
from head3d_core.model.generator import Generator
from head3d_core.model.seeds import ws_of_seeds
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.estimates import bootstrap_mean
from head3d_core.utils.images import to_uint8
from head3d_core.utils.progress import Progress, counted


@dataclass(frozen=True)
class WalkArgs:
    """Measures interpolation in w and the trade-off of truncation."""

    weights: tuple[str, ...] = ("face", "head3d")
    """Generators to compare, teacher first."""
    pairs: int = 16
    """Paths, each between two seeds."""
    steps: int = 11
    """Heads on a path, both ends included."""
    psi: tuple[float, ...] = (0.0, 0.25, 0.5, 0.7, 0.85, 1.0)
    """Truncations."""
    heads: int = 32
    """Heads for each truncation."""
    out: Path = Path("out/latent.json")
    """File to write."""
    device: str = "cpu"
    """Where to run: cpu, cuda, ..."""


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


def path_linearity(embeddings: Tensor) -> tuple[Tensor, dict[str, float]]:
    """How evenly identity changes along a path of K heads, against a straight line.

    Args:
        embeddings: [K, d], of heads at t = 0, 1/(K − 1), ..., 1; K >= 3.

    Returns:
        Cosine distances from the first head, 1 − cos, [K] in float64; and three numbers. "bend": the largest
        |distance(t) / distance(1) − t|, 0 where identity changes in proportion to t. "unevenness": the longest step
        over the mean step (angles between neighbours), 1 where all steps are equal. "detour": the sum of the steps over
        the angle between the ends, 1 on the shortest way.

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
    found = {
        "bend": (distance / end - t).abs().max(),
        "unevenness": steps.max() / steps.mean(),
        "detour": steps.sum() / whole,
    }
    return distance, {name: float(value) for name, value in found.items()}


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
def w_of_noise(G: Generator, samples: int) -> Tensor:
    """w [samples, w_dim] of random z under the frontal mapping camera, not truncated."""
    z = torch.randn(samples, G.z_dim, generator=torch.Generator().manual_seed(0)).to(G.device)
    return G.mapping(z, cameras.frontal(samples, G.device))[:, 0]


@torch.no_grad()
def principal_directions(G: Generator, count: int = 8, samples: int = 4096) -> Directions:
    """Principal components of w over random z, under the frontal mapping camera.

    Args:
        count: directions to keep, at most w_dim.
        samples: draws of z, more than `count`.
    """
    if not 1 <= count <= G.config.w_dim or samples <= count:
        raise Head3DError(
            f"count must be 1 to {G.config.w_dim} and samples more than that, got {count} and {samples}"
        )
    w = w_of_noise(G, samples).double()
    mean = w.mean(0)
    values, vectors = torch.linalg.eigh((w - mean).T @ (w - mean) / (samples - 1))
    values, axes = values.flip(0).clamp_min(0), vectors.flip(1).T
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    axes = axes * largest.sign()
    kept = (axes[:count], values[:count].sqrt(), values[:count] / values.sum())
    return Directions(mean.float(), *(part.float() for part in kept))


@torch.no_grad()
def frontal_images(G: Generator, ws: Tensor) -> Tensor:
    """Frontal images uint8 [N, 3, R, R] of heads ws [N, num_ws, w_dim], on the CPU."""
    return to_uint8(torch.cat([views(G, G.planes(one), one, (0.0,))[0] for one in ws.split(1)])).cpu()


def straightness(G: Generator, pairs: list[tuple[int, int]], steps: int, encoder: Encoder) -> dict[str, Any]:
    """`path_linearity` of straight paths between seeds: means with intervals, and the mean curve."""
    paths = []
    for pair in pairs:
        first, last = ws_of_seeds(G, pair).split(1)
        path = interpolate(first, last, steps)
        paths.append(path_linearity(encoder.embed(frontal_images(G, path), cameras.frontal(steps))))
    distances, found = zip(*paths, strict=True)
    distance = torch.stack(distances).float()
    relative = (distance / distance[:, -1:]).mean(0)
    row: dict[str, Any] = {"mean curve": [round(float(x), 4) for x in relative]}
    for name in found[0]:
        row[name] = bootstrap_mean(torch.tensor([numbers[name] for numbers in found])).to_dict()
    return row


def truncation(
    G: Generator, psi: tuple[float, ...], heads: int, encoder: Encoder, device: str
) -> list[dict[str, Any]]:
    """For each psi: how different heads are (mean identity distance) and how surely a detector finds their faces."""
    rows = []
    for value in psi:
        images = frontal_images(G, ws_of_seeds(G, range(heads), value))
        certain = face_detector.face_probability(images, device)
        rows.append(
            {
                "psi": value,
                "diversity": diversity(encoder.embed(images, cameras.frontal(heads))).to_dict(),
                "face probability": bootstrap_mean(certain).to_dict(),
                "found": int((certain > face_detector.THRESHOLD).sum()),
                "heads": heads,
            }
        )
    return rows


def measure(args: WalkArgs, progress: Progress | None = None) -> dict[str, Any]:
    """The record that the command writes.

    Raises:
        Head3DError: weights or the identity encoder are missing, or too few paths, steps or heads.
    """
    if args.pairs < 2 or args.steps < 3 or args.heads < 2:
        raise Head3DError(
            f"a walk needs at least 2 pairs, 3 steps and 2 heads, got {args.pairs}, {args.steps} and {args.heads}"
        )
    encoder = load_encoder(device=args.device)
    pairs = [(2 * k, 2 * k + 1) for k in range(args.pairs)]
    models: dict[str, Any] = {}
    for name in counted(args.weights, progress):
        G = checkpoint.load_generator(name, device=args.device)
        directions = principal_directions(G, min(16, G.config.w_dim))
        models[name] = {
            "path": straightness(G, pairs, args.steps, encoder),
            "truncation": truncation(G, args.psi, args.heads, encoder, args.device),
            "variance share": [round(float(s), 4) for s in directions.share],
        }
    about = {
        "path": "identity distance (1 - cos) along straight lines in w, frontal view",
        "encoder": encoder.name,
        "pairs": args.pairs,
        "steps": args.steps,
    }
    return {"about": about, "models": models, "provenance": study.provenance("walk", args, args.weights)}


def lines(record: dict[str, Any]) -> list[str]:
    """The record as text: how straight paths are, and every truncation."""
    out = []
    for name, row in record["models"].items():
        path = row["path"]
        out.append(f"{name:8s} bend {path['bend']['value']:.3f}, detour {path['detour']['value']:.2f}")
        out += [
            f"{name:8s} psi {r['psi']:.2f}: diversity {r['diversity']['value']:.3f}, "
            f"faces found {r['found']} of {r['heads']}"
            for r in row["truncation"]
        ]
    return out


run = partial(study.run, measure=measure, lines=lines, unit="models")
"""The command `walk`."""
