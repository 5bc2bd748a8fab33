"""Seeds to pictures, from the command line: ``python -m head3d_core generate --seeds 0-3``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from head3d_core.checkpoints import weights as checkpoint
from head3d_core.config import Backend
from head3d_core.geometry.turntable import views
from head3d_core.model.seeds import PSI, heads_of_seeds
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
    truncation_psi: float = PSI
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


def generate(args: GenerateArgs) -> list[Path]:
    """Writes `seed0000.png` for every seed; returns the paths.

    The mapping camera is the frontal one for every view, so that a head does not change as the camera moves.
    Raises Head3DError for seeds, weights or a device that cannot be had.
    """
    from tqdm import tqdm

    seeds = parse_seeds(args.seeds)
    if not args.yaw:
        raise Head3DError("no views: give at least one --yaw, degrees")
    G = checkpoint.load_generator(args.weights, device=usable_device(args.device))
    written = []
    for seed in tqdm(seeds, desc="generate", unit="head"):
        head = heads_of_seeds(G, [seed], args.truncation_psi)
        row = views(G, head.planes, head.ws, args.yaw, args.pitch, args.backend)[0]
        path = args.out / f"seed{seed:04d}.png"
        written.append(images.save(images.montage(row, len(row)), path))
    return written


def run(args: GenerateArgs) -> None:
    """The command: `generate`, and one line on where the pictures are."""
    written = generate(args)
    print(f"{len(written)} pictures in {args.out}")
