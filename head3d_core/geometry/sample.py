"""Seeds to pictures, from the command line: ``python -m head3d_core generate --seeds 0-3``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from head3d_core.checkpoints import weights as checkpoint
from head3d_core.config import Backend
from head3d_core.model import cameras
from head3d_core.utils import images
from head3d_core.utils.devices import usable_device
from head3d_core.utils.errors import Head3DError

MOST_SEEDS = 100_000


@dataclass(frozen=True)
class GenerateArgs:
    """Pictures of seeds: one PNG per seed, its views side by side."""

    seeds: tuple[str, ...] = ("0-3",)
    """Seeds or ranges of them: 0 5 10-19."""
    weights: str = "head3d"
    """A bundled name, or a path of ours or of an EG3D .pkl."""
    out: Path = Path("out/generate")
    """Folder for the pictures; made if missing."""
    yaw: tuple[float, ...] = (0.0,)
    """Views, degrees: 0 is the front, 90 the side, 180 the back."""
    pitch: float = 0.0
    """Degrees, up is positive."""
    truncation_psi: float = 0.7
    """1: everything the generator knows; 0: the average head."""
    device: str = "cpu"
    """Where to run: cpu, cuda, cuda:1, ..."""
    backend: Backend = "auto"
    """Renderer: the compiled one where it is built, or the reference."""


def parse_seeds(words: Sequence[str]) -> list[int]:
    """Seeds and ranges as numbers.

    >>> parse_seeds(["3", "10-12"])
    [3, 10, 11, 12]

    Raises Head3DError for anything else.
    """
    seeds: list[int] = []
    for word in words:
        first, dash, last = word.partition("-")
        last = last if dash else first
        if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last) < 2**32):
            raise Head3DError(f"a seed must be a number or a range such as 10-19, got {word!r}")
        if int(last) - int(first) >= MOST_SEEDS:
            raise Head3DError(f"{word} asks for more than {MOST_SEEDS} pictures: give a shorter range")
        seeds.extend(range(int(first), int(last) + 1))
    if not seeds:
        raise Head3DError("no seeds: give numbers or ranges such as 0 5 10-19")
    return seeds


def _checked_seeds(seeds: object) -> list[int]:
    if isinstance(seeds, str) or not isinstance(seeds, Iterable):
        raise Head3DError(f"seeds must be a list of whole numbers, as in [3, 7], got {seeds!r}")
    found = list(seeds)
    if not found:
        raise Head3DError("there must be at least one seed, got none")
    for seed in found:
        if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= int(seed) < 2**32:
            raise Head3DError(f"a seed is a whole number from 0 to 4,294,967,295, got {seed!r}")
    return [int(seed) for seed in found]


def z_of_seeds(seeds: Sequence[int], z_dim: int) -> Tensor:
    """z [len(seeds), z_dim] float32, one independent draw per seed.

    Drawn from NumPy's legacy generator, as EG3D's tools do, so that a seed means the same head here and there.

    Raises:
        Head3DError: no seeds, or one that is no whole number from 0 to 2**32 - 1.
    """
    rows = [np.random.RandomState(seed).randn(z_dim) for seed in _checked_seeds(seeds)]
    return torch.from_numpy(np.stack(rows)).to(torch.float32)


@torch.inference_mode()
def generate(args: GenerateArgs) -> list[Path]:
    """Writes `seed0000.png` for every seed; returns the paths.

    The mapping camera is the frontal one for every view, so that a head does not change as the camera moves.
    Raises Head3DError for seeds, weights or a device that cannot be had.
    """
    from tqdm import tqdm

    seeds = parse_seeds(args.seeds)
    if not args.yaw:
        raise Head3DError("no views: give at least one --yaw, degrees")
    device = usable_device(args.device)
    G = checkpoint.load_generator(args.weights, device=device)
    views = cameras.orbit(torch.deg2rad(torch.tensor(args.yaw)), math.radians(args.pitch)).to(device)
    written = []
    for seed in tqdm(seeds, desc="generate", unit="head"):
        z = z_of_seeds([seed], G.z_dim).to(device)
        ws = G.mapping(z, cameras.frontal(1, device), truncation_psi=args.truncation_psi)
        planes = G.planes(ws)
        row = [G.render(planes, ws, view[None], backend=args.backend).image[0] for view in views]
        path = args.out / f"seed{seed:04d}.png"
        written.append(images.save(images.to_pixels(torch.cat(row, -1)), path))
    return written


def run(args: GenerateArgs) -> None:
    """The command: `generate`, and one line on where the pictures are."""
    written = generate(args)
    print(f"{len(written)} pictures in {args.out}")
