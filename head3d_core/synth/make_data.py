"""Renders sets: into memory for a training run, or into a folder in EG3D's format.

    python -m head3d_core make-data faces --count 1000 --resolution 256 --out faces

Folder: `00000/img00000000.png` and `dataset.json` (`{"labels": [[name, 25 numbers], ...]}`), as EG3D's own loader
reads it; coverage, depth and normals as `geometry/00000/img00000000.npz` (not a picture, so that loaders which take
every picture they find are not misled); `provenance.json` says how it was made.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from tyro.conf import Positional, arg

from head3d_core.datasets.camera_checks import LABELS
from head3d_core.datasets.writer import (
    Geometry,
    encode_geometry,
    encode_image,
    geometry_name,
    image_name,
    labels_json,
)
from head3d_core.synth import sets
from head3d_core.synth.draws import SAMPLER_VERSION
from head3d_core.synth.pool import Progress, Task, reserve_shared, run_tasks, shared_array
from head3d_core.synth.renderer import Frame, Renderer
from head3d_core.utils import files
from head3d_core.utils.errors import Head3DError


@dataclass(frozen=True)
class MakeDataArgs:
    """Renders faces or heads into a folder in EG3D's format; call it again to go on where it stopped."""

    kind: Positional[Annotated[sets.SetName, arg(metavar="KIND")]]
    """Which set: faces, scenes (faces with textured pictures behind), heads, held_out_faces, held_out_heads."""
    out: Path
    """Folder to write."""
    count: int = 1000
    """Pictures."""
    resolution: int = 256
    """Pixels per side."""
    views: int = sets.HEAD_VIEWS
    """Views per head (heads only): pictures are counted head by head."""
    first: int = 0
    """Index of the first picture."""
    workers: int = 0
    """Processes; 0 takes one per processor core."""
    format: str = "png"
    """png, or jpg (quality 95) for smaller and faster files."""
    geometry: bool | None = None
    """Also coverage, depth (distance along the ray, world units) and normals of every picture; by default of heads,
    and of scenes, whose mask is wanted, but not of faces."""

    @property
    def with_geometry(self) -> bool:
        """Whether geometry is written."""
        return not self.kind.endswith("faces") if self.geometry is None else self.geometry


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file so that it is there whole or not at all."""
    with files.atomic(path) as temporary:
        temporary.write_bytes(data)


def render_stream(
    renderer: Renderer, items: Sequence[tuple[int, sets.Example]], geometry: bool
) -> Iterator[tuple[int, Frame]]:
    """Frames of examples, tagged. Views of one head should follow each other: geometry and light are made once.

    While the graphics card draws one picture, this process already builds the next head.
    """
    from head3d_core.synth.heads import build_head
    from head3d_core.synth.identity import identity

    loaded: tuple[str, int] | None = None
    waiting: list[int] = []
    for tag, item in items:
        if loaded != (item.kind, item.seed):
            renderer.load(build_head(identity(item.seed, item.kind)), item.light())
            loaded = (item.kind, item.seed)
        if len(waiting) == 2:
            yield waiting.pop(0), renderer.collect()
        renderer.submit(item.camera, scene=item.scene, geometry=geometry)
        waiting.append(tag)
    while waiting:
        yield waiting.pop(0), renderer.collect()


@dataclass(frozen=True)
class RenderedSet:
    """Pictures in memory."""

    images: NDArray[np.uint8]
    """[N, 3, R, R] sRGB."""
    labels: NDArray[np.float32]
    """[N, 25] cameras."""
    masks: NDArray[np.uint8]
    """[N, R, R] coverage, 255 = head."""


@dataclass(frozen=True)
class _MemoryJob:
    """What a worker needs to render into shared memory; called once per task."""

    name: str
    resolution: int
    supersample: int
    views: int
    shared: Path
    count: int

    def arrays(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Images [N, 3, R, R] and masks [N, R, R], one behind the other in shared space."""
        n, r = self.count, self.resolution
        both = shared_array(self.shared)
        end = n * 3 * r * r
        return both[:end].reshape(n, 3, r, r), both[end : end + n * r * r].reshape(n, r, r)

    def start(self) -> tuple[Renderer, NDArray[np.uint8], NDArray[np.uint8]]:
        return Renderer(self.resolution, self.supersample), *self.arrays()

    def run(self, state: tuple[Renderer, NDArray[np.uint8], NDArray[np.uint8]], task: Task) -> int:
        renderer, images, masks = state
        items = [(slot, sets.example(self.name, index, self.views)) for slot, index in task]
        for slot, frame in render_stream(renderer, items, geometry=False):
            images[slot] = frame.rgb.transpose(2, 0, 1)
            masks[slot] = frame.alpha
        return len(task)


def share_out(name: str, pairs: list[tuple[int, int]], views: int, chunk: int) -> list[Task]:
    """Groups (slot, index) pairs: views of one head together, in chunks small enough to share out evenly."""
    heads = sets.spec(name).kind == "heads"
    pairs = sorted(pairs, key=lambda pair: pair[1])
    groups: dict[int, Task] = {}
    for place, (slot, index) in enumerate(pairs):
        key = index // views if heads else place // chunk
        groups.setdefault(key, []).append((slot, index))
    tasks: list[Task] = []
    for (
        group
    ) in groups.values():  # a head's views are worth splitting only in large pieces: each repeats its bake
        step = 96 if heads else chunk
        tasks += [group[k : k + step] for k in range(0, len(group), step)]
    return tasks


def render(
    name: str,
    indices: Sequence[int],
    resolution: int,
    workers: int = 0,
    views: int = sets.HEAD_VIEWS,
    supersample: int = 3,
    progress: Callable[[int, int], None] | None = None,
) -> RenderedSet:
    """Renders pictures of a set into memory, with coverage.

    Args:
        name: a key of `sets.SETS`.
        indices: [N] which pictures.
        resolution: pixels per side.
        workers: processes; 0 for one per core, 1 renders in this process.
        views: views per head, which sets the meaning of an index of a head set.
        supersample: samples per pixel side, odd.
        progress: called with (done, total).
    Raises:
        Head3DError: unknown set, index outside it, or no OpenGL.
    """
    wanted = [int(i) for i in indices]
    labels = np.array([sets.example(name, i, views).camera for i in wanted], np.float32).reshape(-1, 25)
    shared = reserve_shared(len(wanted) * 4 * resolution**2)
    try:
        job = _MemoryJob(name, resolution, supersample, views, shared, len(wanted))
        run_tasks(job, share_out(name, list(enumerate(wanted)), views, 8), workers, progress)
        images, masks = job.arrays()
    finally:
        shared.unlink()  # the mapping stays until the arrays are gone
    return RenderedSet(images, labels, masks)


def render_set(
    kind: str,
    indices: Sequence[int],
    resolution: int,
    workers: int = 0,
    views: int = sets.HEAD_VIEWS,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Images uint8 [N, 3, R, R] and camera labels float32 [N, 25]; arguments as `render`."""
    found = render(kind, indices, resolution, workers, views, progress=progress)
    return found.images, found.labels


@dataclass(frozen=True)
class _FolderJob:
    """What a worker needs to render into a folder."""

    args: MakeDataArgs

    def start(self) -> Renderer:
        return Renderer(self.args.resolution)

    def run(self, renderer: Renderer, task: Task) -> int:
        args = self.args
        items = [(index, sets.example(args.kind, index, args.views)) for _, index in task]
        for index, frame in render_stream(renderer, items, args.with_geometry):
            name = image_name(index, args.format)
            if (
                frame.depth is not None and frame.normals is not None
            ):  # first: the image's presence means "done"
                truth: dict[Geometry, Any] = {
                    "mask": frame.alpha,
                    "depth": frame.depth,
                    "normals": frame.normals,
                }
                write_atomically(args.out / geometry_name(name), encode_geometry(truth))
            write_atomically(args.out / name, encode_image(frame.rgb, args.format, level=3))
        return len(task)


def _provenance(args: MakeDataArgs) -> dict[str, Any]:
    """What decides the pixels; a folder is only continued under the same."""
    return {
        "made_by": f"python -m head3d_core make-data (sampler version {SAMPLER_VERSION})",
        "set": args.kind,
        "resolution": args.resolution,
        "views_per_head": args.views if sets.spec(args.kind).kind == "heads" else 1,
        "format": args.format,
        "geometry": args.with_geometry,
        "licence": "CC0-1.0 (rendered from CC0 assets)",
    }


def _check_folder(args: MakeDataArgs) -> None:
    path, now = args.out / "provenance.json", _provenance(args)
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        if before != now:
            changed = ", ".join(
                f"{k} {before.get(k)!r} -> {v!r}" for k, v in now.items() if before.get(k) != v
            )
            raise Head3DError(
                f"{args.out} holds another set ({changed}): give the same options to go on, or another folder."
            )
    write_atomically(path, (json.dumps(now, indent=2) + "\n").encode())


def _write_labels(args: MakeDataArgs) -> None:
    """`dataset.json` of every picture of the set that lies in the folder."""
    paths = sorted(args.out.glob(f"[0-9]*/img*.{args.format}"))
    cameras = [sets.example(args.kind, int(path.stem[3:]), args.views).camera for path in paths]
    names = [f"{path.parent.name}/{path.name}" for path in paths]
    write_atomically(args.out / LABELS, labels_json(names, np.stack(cameras)).encode())


def make_data(args: MakeDataArgs, progress: Callable[[int, int], None] | None = None) -> Path:
    """Renders `args.count` pictures into `args.out`; what is there already is kept.

    Returns the folder. Raises Head3DError on impossible arguments, a folder made with other options, or no OpenGL.
    """
    if args.format not in ("png", "jpg") or args.count < 1 or args.first < 0 or args.views < 1:
        raise Head3DError(
            f"Expected format png or jpg, count and views >= 1 and first >= 0, got {args.format!r}, {args.count}, "
            f"{args.views} and {args.first}."
        )
    last = args.first + args.count - 1
    sets.example(args.kind, last, args.views)
    _check_folder(args)
    wanted = range(args.first, last + 1)
    missing = [i for i in wanted if not (args.out / image_name(i, args.format)).exists()]
    tasks = share_out(args.kind, [(i, i) for i in missing], args.views, 8)
    run_tasks(_FolderJob(args), tasks, args.workers, progress)
    _write_labels(args)
    return args.out


def run(args: MakeDataArgs) -> None:
    """The command `make-data`."""
    started = time.perf_counter()
    show = Progress(str(args.kind), sys.stderr)
    make_data(args, show)
    print(f"{args.count} pictures of {args.kind} in {args.out} ({time.perf_counter() - started:.0f} s).")
