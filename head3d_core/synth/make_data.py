"""Renders sets: into memory for a training run, or into a folder in EG3D's format.

    python -m head3d_core make-data faces --count 1000 --resolution 256 --out faces

Folder: `00000/img00000000.png` and `dataset.json` (`{"labels": [[name, 25 numbers], ...]}`), as EG3D's own loader
reads it; coverage, depth and normals as `geometry/00000/img00000000.npz` (not an image file, so that loaders which take
every image they find are not misled); `provenance.json` says how it was made.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tyro.conf import Positional, arg

from head3d_core.datasets import writer
from head3d_core.datasets.camera_checks import LABELS
from head3d_core.synth import sets
from head3d_core.synth.draws import SAMPLER_VERSION
from head3d_core.synth.pool import Task, run_tasks
from head3d_core.synth.renderer import Frame, Renderer
from head3d_core.utils import files
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.progress import Progress, bar


@dataclass(frozen=True)
class MakeDataArgs:
    """Renders faces or heads into a folder in EG3D's format; call it again to go on where it stopped."""

    kind: Positional[Annotated[sets.SetName, arg(metavar="KIND")]]
    """Which set: faces, scenes (faces before textured backgrounds), heads, held_out_faces, held_out_heads."""
    out: Path
    """Folder to write."""
    count: int = 1000
    """Images."""
    resolution: int = 256
    """Pixels per side."""
    views: int = sets.HEAD_VIEWS
    """Views per head (heads only): images are counted head by head."""
    first: int = 0
    """Index of the first image."""
    workers: int = 0
    """Processes; 0 takes one per processor core."""
    format: Literal["png", "jpg"] = "png"
    """png, or jpg (quality 95) for smaller and faster files."""
    geometry: bool | None = None
    """Also coverage, depth (distance along the ray, world units) and normals of every image; by default of heads,
    and of scenes, whose mask is wanted, but not of faces."""

    @property
    def with_geometry(self) -> bool:
        """Whether geometry is written."""
        return not self.kind.endswith("faces") if self.geometry is None else self.geometry


def render_stream(
    renderer: Renderer, items: Sequence[tuple[int, sets.Example]], geometry: bool
) -> Iterator[tuple[int, Frame]]:
    """Frames of examples, tagged. Views of one head should follow each other: geometry and light are made once.

    While the graphics card draws one image, this process already builds the next head.
    """
    from head3d_core.synth.heads import build_head
    from head3d_core.synth.identity import identity

    def cameras() -> Iterator[NDArray[np.float32]]:
        loaded: tuple[str, int] | None = None
        for _, item in items:
            if loaded != (item.kind, item.seed):
                renderer.load(build_head(identity(item.seed, item.kind)), item.light())
                loaded = (item.kind, item.seed)
            yield item.camera

    frames = renderer.draw_many(cameras(), (item.scene for _, item in items), geometry)
    yield from zip((tag for tag, _ in items), frames, strict=True)


class RenderedSet(NamedTuple):
    """Images in memory."""

    images: NDArray[np.uint8]
    """[N, 3, R, R] sRGB."""
    labels: NDArray[np.float32]
    """[N, 25] cameras."""
    masks: NDArray[np.uint8]
    """[N, R, R] coverage, 255 = head."""


def share_out(name: str, pairs: list[tuple[int, int]], views: int, chunk: int = 8) -> list[Task]:
    """Groups (slot, index) pairs: views of one head together, in chunks small enough to share out evenly."""
    heads = sets.spec(name).kind == "heads"
    groups: dict[int, list[tuple[int, int]]] = {}
    for place, (slot, index) in enumerate(sorted(pairs, key=lambda pair: pair[1])):
        groups.setdefault(index // views if heads else place // chunk, []).append((slot, index))
    # A head's views are split only in large pieces, because each piece bakes its light again.
    step = 96 if heads else chunk
    return [group[k : k + step] for group in groups.values() for k in range(0, len(group), step)]


def _draw(name: str, views: int, renderer: Renderer, task: Task) -> list[tuple[int, Frame]]:
    """Frames of one task by slot, without geometry."""
    items = [(slot, sets.example(name, index, views)) for slot, index in task]
    return list(render_stream(renderer, items, geometry=False))


def render(
    name: str,
    indices: Sequence[int],
    resolution: int,
    workers: int = 0,
    views: int = sets.HEAD_VIEWS,
    progress: Progress | None = None,
) -> RenderedSet:
    """Renders images of a set into memory, with coverage.

    Args:
        name: a key of `sets.SETS`.
        indices: [N] which images.
        resolution: pixels per side.
        workers: processes; 0 for one per core, 1 renders in this process.
        views: views per head, which sets the meaning of an index of a head set.
        progress: called with (done, total).
    Raises:
        Head3DError: unknown set, index outside it, or no OpenGL.
    """
    wanted = [int(i) for i in indices]
    labels = np.array([sets.example(name, i, views).camera for i in wanted], np.float32).reshape(-1, 25)
    images = np.empty((len(wanted), 3, resolution, resolution), np.uint8)
    masks = np.empty((len(wanted), resolution, resolution), np.uint8)
    tasks = share_out(name, list(enumerate(wanted)), views)
    draw = partial(_draw, name, views)
    for _, frames in run_tasks(partial(Renderer, resolution), draw, tasks, workers, progress):
        for slot, frame in frames:
            images[slot], masks[slot] = frame.rgb.transpose(2, 0, 1), frame.alpha
    return RenderedSet(images, labels, masks)


def _write(args: MakeDataArgs, renderer: Renderer, task: Task) -> None:
    """Renders the images of one task into the folder."""
    items = [(index, sets.example(args.kind, index, args.views)) for _, index in task]
    for index, frame in render_stream(renderer, items, args.with_geometry):
        name = writer.image_name(index, args.format)
        if args.with_geometry:  # first: the image's presence means "done"
            truth: Any = {"mask": frame.alpha, "depth": frame.depth, "normals": frame.normals}
            files.write(args.out / writer.geometry_name(name), writer.encode_geometry(truth))
        files.write(args.out / name, writer.encode_image(frame.rgb, args.format, level=3))


def _check_folder(args: MakeDataArgs) -> None:
    """Notes what decides the pixels; a folder is only continued under the same."""
    now = {
        "made_by": f"python -m head3d_core make-data (sampler version {SAMPLER_VERSION})",
        "set": args.kind,
        "resolution": args.resolution,
        "views_per_head": args.views if sets.spec(args.kind).kind == "heads" else 1,
        "format": args.format,
        "geometry": args.with_geometry,
        "licence": "CC0-1.0 (rendered from CC0 assets)",
    }
    path = args.out / "provenance.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else now
    changed = ", ".join(f"{k} {before.get(k)!r} -> {v!r}" for k, v in now.items() if before.get(k) != v)
    if changed:
        raise Head3DError(
            f"{args.out} holds another set ({changed}): give the same options to go on, or another folder."
        )
    files.write(path, json.dumps(now, indent=2) + "\n")


def make_data(args: MakeDataArgs, progress: Progress | None = None) -> Path:
    """Renders `args.count` images into `args.out`; what is there already is kept.

    Returns the folder. Raises Head3DError on impossible arguments, a folder made with other options, or no OpenGL.
    """
    if args.format not in ("png", "jpg") or args.count < 1 or args.first < 0 or args.views < 1:
        raise Head3DError(
            f"Expected format png or jpg, count and views >= 1 and first >= 0, got {args.format!r}, {args.count}, "
            f"{args.views} and {args.first}."
        )
    wanted = range(args.first, args.first + args.count)
    sets.example(args.kind, wanted[-1], args.views)
    _check_folder(args)
    missing = [i for i in wanted if not (args.out / writer.image_name(i, args.format)).exists()]
    tasks = share_out(args.kind, [(i, i) for i in missing], args.views)
    for _ in run_tasks(
        partial(Renderer, args.resolution), partial(_write, args), tasks, args.workers, progress
    ):
        pass
    paths = sorted(args.out.glob(f"[0-9]*/img*.{args.format}"))
    cameras = [sets.example(args.kind, int(path.stem[3:]), args.views).camera for path in paths]
    names = [path.relative_to(args.out).as_posix() for path in paths]
    files.write(args.out / LABELS, writer.labels_json(names, np.stack(cameras)))
    return args.out


def run(args: MakeDataArgs) -> None:
    """The command `make-data`."""
    started = time.perf_counter()
    with bar(str(args.kind)) as step:
        make_data(args, step)
    print(f"{args.count} images of {args.kind} in {args.out} ({time.perf_counter() - started:.0f} s).")
