"""Commands from seeds to files: images, surfaces and turntables.

python -m head3d_core generate --seeds 0-3
python -m head3d_core mesh --seed 5 --out head.glb
python -m head3d_core turntable --seed 5 --out head.mp4
python -m head3d_core turns --seeds 1 --weights face head3d --out turns.jpg
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from head3d_core.checkpoints import weights as checkpoint
from head3d_core.config import Backend
from head3d_core.geometry import colour, mesh, turntable
from head3d_core.model.cameras import orbit
from head3d_core.model.generator import Generator
from head3d_core.model.seeds import PSI, ws_of_seeds
from head3d_core.utils import files, images
from head3d_core.utils.devices import usable_device
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.progress import bar, counted

if TYPE_CHECKING:
    import trimesh

MOST_SEEDS = 100_000
"""Seeds in one range of `generate`."""


@dataclass(frozen=True, kw_only=True)
class _SampleArgs:
    """Which generator, and how its samples are drawn."""

    weights: str = "head3d"
    """A bundled name, or a path of ours or of an EG3D .pkl."""
    truncation_psi: float = PSI
    """1: everything the generator knows; 0: the average head."""
    device: str = "cpu"
    """Where to run: cpu, cuda, cuda:1, ..."""


@dataclass(frozen=True, kw_only=True)
class GenerateArgs(_SampleArgs):
    """Images of seeds: one PNG per seed, its views side by side."""

    seeds: tuple[str, ...] = ("0-3",)
    """Seeds or ranges of them: 0 5 10-19."""
    out: Path = Path("out/generate")
    """Folder for the images; made if missing."""
    yaw: tuple[float, ...] = (0.0,)
    """Views, degrees: 0 is the front, 90 the side, 180 the back."""
    pitch: float = 0.0
    """Degrees, up is positive."""
    backend: Backend = "auto"
    """Renderer: the compiled one where it is built, or the reference."""


@dataclass(frozen=True, kw_only=True)
class MeshArgs(_SampleArgs):
    """The surface of one head as a file that other tools open: y up, the face looks along +z."""

    seed: int = 0
    """Which head."""
    out: Path = Path("out/head.glb")
    """File to write: .glb, .obj (and .mtl and texture in the same folder) or .ply (binary)."""
    resolution: int = 256
    """Points of the grid of sigma per side."""
    level: float = mesh.LEVEL
    """The decoder's raw output (sigma) on the surface: lower is further out."""
    faces: int | None = None
    """Decimate to at most so many triangles; by default all are kept, or 30,000 with a texture."""
    texture: int | None = None
    """Side of a baked texture, pixels; by default vertices carry the colours."""
    smooth: int = 0
    """Rounds of smoothing (Taubin's, which does not shrink)."""
    all_pieces: bool = False
    """Keep floaters; by default only the largest connected piece is kept."""
    colours: bool = True
    """False leaves the surface grey."""


@dataclass(frozen=True, kw_only=True)
class TurntableArgs(_SampleArgs):
    """One full turn of a head as a film, and a contact sheet of it."""

    seed: int = 0
    """Which head."""
    out: Path = Path("out/head.mp4")
    """Film to write: .mp4, .gif or .webp; the contact sheet takes its name and ends in .png."""
    seconds: float = 4.0
    """Length of the film."""
    rate: int = 30
    """Frames per second."""
    pitch: float = 6.0
    """Degrees, from above is positive."""


@dataclass(frozen=True, kw_only=True)
class TurnsArgs(_SampleArgs):
    """The same seeds from all around by several generators, one row each, as one small JPEG."""

    weights: tuple[str, ...] = ("face", "head3d")  # type: ignore[assignment]
    """Generators, top to bottom: bundled names, or paths of ours or of an EG3D .pkl."""
    seeds: tuple[int, ...] = (1,)
    """Heads; every generator has one row for each."""
    out: Path = Path("out/turns.jpg")
    """File to write."""
    views: int = 8
    """Evenly spaced yaws of one full turn, from the front."""
    side: int = 128
    """Side of one image, pixels, at most the generators'."""
    pitch: float = 0.0
    """Degrees, from above is positive."""


def load_head(weights: str, seed: int, psi: float, device: str) -> tuple[Generator, Tensor]:
    """The generator and ws [1, num_ws, w_dim] of a seed, under the frontal mapping camera.

    Raises:
        Head3DError: a seed, weights or device that cannot be had.
    """
    place = usable_device(device)
    G = checkpoint.load_generator(weights, device=place)
    return G, ws_of_seeds(G, [seed], psi)


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
            raise Head3DError(f"{word} asks for more than {MOST_SEEDS} images: give a shorter range")
        seeds.extend(range(int(first), int(last) + 1))
    if not seeds:
        raise Head3DError("no seeds: give numbers or ranges such as 0 5 10-19")
    return seeds


def generate(args: GenerateArgs) -> None:
    """The command `generate`: writes `seed0000.png` for every seed.

    The mapping camera is the frontal one for every view, so that a head does not change as the camera moves.
    Raises Head3DError for seeds, weights or a device that cannot be had.
    """
    seeds = parse_seeds(args.seeds)
    if not args.yaw:
        raise Head3DError("no views: give at least one --yaw, degrees")
    G = checkpoint.load_generator(args.weights, device=usable_device(args.device))
    with bar("heads") as step:
        for seed in counted(seeds, step):
            ws = ws_of_seeds(G, [seed], args.truncation_psi)
            with torch.no_grad():
                row = turntable.views(G, G.planes(ws), ws, args.yaw, args.pitch, args.backend)[0]
            images.save(images.montage(row, len(row)), args.out / f"seed{seed:04d}.png")
    print(f"{len(seeds)} images in {args.out}")


def export_mesh(args: MeshArgs) -> None:
    """The command `mesh`: writes the surface of a seed, and says in one line what is in the file.

    Raises:
        Head3DError: a level without a surface, a grid that does not fit into memory, an unknown ending, a place that
            cannot be written, or anything `load_head` refuses. Nothing is written then.
    """
    start = time.perf_counter()
    files.check_place(args.out, mesh.ENDINGS, "mesh file")
    if args.texture is not None and not args.colours:
        raise Head3DError("a texture holds colours: leave out --texture, or allow colours")
    if args.faces is not None and args.faces < 4:
        raise Head3DError(f"faces must be at least 4 triangles, got {args.faces}")
    if args.smooth < 0:
        raise Head3DError(f"smooth counts rounds, so it is at least 0, got {args.smooth}")
    G, ws = load_head(args.weights, args.seed, args.truncation_psi, args.device)
    faces = colour.FACES if args.faces is None and args.texture is not None else args.faces
    with bar("sigma") as step:
        head = mesh.extract_mesh(
            G,
            ws,
            args.resolution,
            args.level,
            faces,
            keep_largest=not args.all_pieces,
            colours=args.colours and args.texture is None,
            smooth=args.smooth,
            progress=step,
        )
    if args.texture is not None:
        with bar("texture") as step:
            head = colour.bake_texture(G, ws, head, args.texture, step)
    mesh.save(head, args.out)
    print(f"{args.out}: {summary(head)}, {time.perf_counter() - start:.1f} s")


def summary(head: trimesh.Trimesh) -> str:
    """One line about a surface: triangles, whether it is watertight, pieces found, size in world units."""
    welded = head.copy()
    welded.merge_vertices(merge_tex=True, merge_norm=True)  # an atlas cuts the surface along its charts
    closed = "watertight" if welded.is_watertight else "not watertight"
    pieces = int(head.metadata["pieces"])
    size = " x ".join(f"{side:.2f}" for side in head.extents)
    found = f"{pieces} piece{'s' * (pieces != 1)} found"
    return f"{len(head.faces)} triangles, {closed}, {found}, {size} world units"


def export_turntable(args: TurntableArgs) -> None:
    """The command `turntable`: writes the film and its contact sheet, and says how smooth the turn is.

    Raises:
        Head3DError: an unknown ending, a place that cannot be written, a length without three frames, or anything
            `load_head` refuses. Nothing is written then.
    """
    turntable.check_places(args.out)
    count = round(args.seconds * args.rate) if math.isfinite(args.seconds) else 0
    if args.rate < 1 or not 3 <= count <= 10_000:
        raise Head3DError(
            f"a turntable has 3 to 10000 frames, got {args.seconds:g} seconds at {args.rate} per second"
        )
    orbit(0.0, math.radians(args.pitch))
    G, ws = load_head(args.weights, args.seed, args.truncation_psi, args.device)
    with bar("frames") as step:
        film = turntable.frames(G, ws, count, pitch=math.radians(args.pitch), progress=step)
    turntable.write(film, args.out, args.rate, sheet=True)
    largest = f"largest change between frames {turntable.flicker(film):.2f} times the median"
    print(f"{args.out} and {turntable.contact_path(args.out).name}: {largest}")


def turns(args: TurnsArgs) -> None:
    """The command `turns`: a row for each seed and generator, `args.views` images of `args.side` pixels, with names.

    Raises:
        Head3DError: no generator, seed or view, a side or pitch out of range, another ending than .jpg, a place that
            cannot be written, or anything `load_head` refuses. Nothing is written then.
    """
    files.check_place(args.out, (".jpg",), "sheet of turns")
    orbit(0.0, math.radians(args.pitch))
    if not (args.weights and args.seeds and args.views > 0 and args.side > 0):
        raise Head3DError(
            "turns needs generators, seeds, views and a side, got "
            f"{len(args.weights)}, {len(args.seeds)}, {args.views} and {args.side}"
        )
    yaws = [360 * k / args.views for k in range(args.views)]
    rows, names = [], []
    for seed in args.seeds:
        for name in args.weights:
            G, ws = load_head(name, seed, args.truncation_psi, args.device)
            with torch.no_grad():
                turn = turntable.views(G, G.planes(ws), ws, yaws, args.pitch)[0]
            rows.append(images.shrink(turn, args.side))
            names.append(Path(name).name + (f", seed {seed}" if len(args.seeds) > 1 else ""))
    sheet = images.montage(torch.cat(rows), args.views)
    images.save(images.with_names(sheet, names, [f"{yaw:.0f}°" for yaw in yaws]), args.out)
    print(f"{args.out}: {len(rows)} rows of {args.views}, {args.out.stat().st_size} bytes")
