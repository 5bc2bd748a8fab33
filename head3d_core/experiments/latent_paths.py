"""The latent space in numbers: how straight paths are, and what truncation costs.

python -m head3d_core walk --weights face head3d
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from head3d_core.checkpoints import weights as checkpoint
from head3d_core.checkpoints.weights import read_notes
from head3d_core.datasets import face_detector
from head3d_core.experiments import latent
from head3d_core.metrics.distances import bootstrap_mean
from head3d_core.metrics.identity_encoder import Encoder, load_encoder
from head3d_core.metrics.verification import diversity
from head3d_core.model import cameras
from head3d_core.model.generator import Generator
from head3d_core.model.seeds import ws_of_seeds
from head3d_core.utils import files, records
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.images import to_uint8


@dataclass(frozen=True)
class WalkArgs:
    """Measures straight paths in w and the trade-off of truncation."""

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
    out: Path = files.DATA / "results" / "latent.json"
    """File to write."""
    device: str = "cpu"
    """Where to run: cpu, cuda, ..."""


@torch.no_grad()
def frontal_pictures(G: Generator, ws: Tensor, yaw: float = 0.0) -> Tensor:
    """Pictures uint8 [N, 3, R, R] of heads ws [N, num_ws, w_dim] from one camera, on the CPU."""
    camera = cameras.orbit(yaw).to(G.device)
    images = [G.render(G.planes(one), one, camera).image for one in ws.split(1)]
    return to_uint8(torch.cat(images)).cpu()


def embed(G: Generator, ws: Tensor, encoder: Encoder) -> Tensor:
    """Identity embeddings [N, d] of heads, from their frontal pictures."""
    return encoder.embed(frontal_pictures(G, ws), cameras.frontal(len(ws)))


def straightness(G: Generator, pairs: list[tuple[int, int]], steps: int, encoder: Encoder) -> dict[str, Any]:
    """`latent.path_linearity` of straight paths between seeds: means with intervals, and the mean curve."""
    ends = ws_of_seeds(G, [seed for pair in pairs for seed in pair])
    found = []
    for k in range(len(pairs)):
        path = latent.interpolate(ends[2 * k : 2 * k + 1], ends[2 * k + 1 : 2 * k + 2], steps)
        found.append(latent.path_linearity(embed(G, path, encoder)))
    distance = torch.tensor([p.distance for p in found])
    relative = (distance / distance[:, -1:]).mean(0)
    row: dict[str, Any] = {"mean curve": [round(float(x), 4) for x in relative]}
    for name in ("bend", "unevenness", "detour"):
        row[name] = bootstrap_mean(torch.tensor([asdict(p)[name] for p in found])).to_dict()
    return row


def truncation(
    G: Generator, psi: tuple[float, ...], heads: int, encoder: Encoder, device: str
) -> list[dict[str, Any]]:
    """For each psi: how different heads are (mean identity distance) and how surely a detector finds their faces."""
    rows = []
    for value in psi:
        ws = ws_of_seeds(G, list(range(heads)), value)
        pictures = frontal_pictures(G, ws)
        spread = diversity(encoder.embed(pictures, cameras.frontal(heads)))
        certain = face_detector.face_probability(pictures, device)
        rows.append(
            {
                "psi": value,
                "diversity": spread.to_dict(),
                "face probability": bootstrap_mean(certain).to_dict(),
                "found": int((certain > face_detector.THRESHOLD).sum()),
                "heads": heads,
            }
        )
    return rows


def measure(args: WalkArgs, progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
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
    for k, name in enumerate(args.weights):
        G = checkpoint.load_generator(name, device=args.device)
        directions = latent.principal_directions(G, min(16, G.config.w_dim))
        models[name] = {
            "path": straightness(G, pairs, args.steps, encoder),
            "truncation": truncation(G, args.psi, args.heads, encoder, args.device),
            "variance share": [round(float(s), 4) for s in directions.share],
        }
        if progress:
            progress(k + 1, len(args.weights))
    command = (
        f"python -m head3d_core walk --weights {' '.join(args.weights)} --pairs {args.pairs} --heads {args.heads} "
        f"--device {args.device}"
    )
    return {
        "about": {
            "path": "identity distance (1 - cos) along straight lines in w, frontal view",
            "encoder": encoder.name,
            "pairs": args.pairs,
            "steps": args.steps,
        },
        "models": models,
        "provenance": records.provenance(
            command, args.device, {name: read_notes(name) for name in args.weights}
        ),
    }


def run(args: WalkArgs) -> None:
    """The command `walk`: measures, writes the file, prints a summary."""
    from head3d_core.geometry.export import bar

    files.check_writable(args.out)
    with bar("models") as step:
        found = measure(args, step)
    records.write(args.out, found)
    for name, row in found["models"].items():
        path = row["path"]
        print(f"{name:8s} bend {path['bend']['value']:.3f}, detour {path['detour']['value']:.2f}")
        for r in row["truncation"]:
            print(
                f"{name:8s} psi {r['psi']:.2f}: diversity {r['diversity']['value']:.3f}, "
                f"faces found {r['found']} of {r['heads']}"
            )
    print(f"wrote {args.out}")
