"""What parametric head models are trained on: heads seen by a ring of cameras that also measure distance.

The explicit and the implicit model (`morphable`, `implicit_heads`) learn from scans, as LYHM and i3DMM do, not from
single pictures as Head3D. A scan is 24 views of a head of the procedural set, with colour, coverage and depth under the
head's own light; it also keeps a frontal, a side and a back view that no model is trained on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from head3d_core.geometry.rasterize import seen_by
from head3d_core.synth import sets
from head3d_core.synth.draws import SAMPLER_VERSION
from head3d_core.synth.heads import build_head
from head3d_core.synth.identity import identity
from head3d_core.synth.light import sample_light
from head3d_core.synth.renderer import Renderer
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.files import atomic

Array = NDArray[np.float32]
SIZE = 256
"""Pixels per side of a scan's views."""
RINGS = ((5.0, 10), (42.0, 8), (-25.0, 5), (80.0, 1))
"""Pitch (degrees) and number of cameras of each ring."""
SHOWN = {"front": 0.0, "side": 90.0, "back": 180.0}
"""Yaw (degrees) of the views that figures show and errors are measured in; the side is the subject's left."""
SHOWN_PITCH = 5.0
"""Pitch of these views, degrees."""
BOX = 0.5
"""Half the side of the cube around the origin that holds what is modelled, world units."""
POROUS = 0.03
"""How deep a look may go between strands before it is stopped, world units."""
FLOOR = -0.42
"""Below this height (world units) a bust is cut off: the pictures end there."""
FACTOR = 3
"""Samples per pixel side of drawn meshes; odd, so that a pixel has a middle sample for its depth."""


def scan_cameras() -> Array:
    """[24, 25] labels of the ring of cameras, neighbouring rings turned against each other."""
    labels = []
    for k, (pitch, count) in enumerate(RINGS):
        for j in range(count):
            yaw = 2 * math.pi * (j + 0.5 * (k % 2)) / count
            labels.append(sets.orbit_camera(yaw, math.radians(pitch)))
    return np.stack(labels)


def shown_cameras() -> Array:
    """[3, 25] labels of the frontal, side and back view."""
    return np.stack(
        [sets.orbit_camera(math.radians(yaw), math.radians(SHOWN_PITCH)) for yaw in SHOWN.values()]
    )


@dataclass(frozen=True)
class Views:
    """Pictures of one head with what a depth camera adds. Row 0 is the top."""

    cameras: Array
    """[N, 25]"""
    rgb: NDArray[np.uint8]
    """[N, R, R, 3] sRGB over white."""
    mask: NDArray[np.uint8]
    """[N, R, R] coverage, 255 = head."""
    depth: Array
    """[N, R, R] distance along the ray, world units; 0 where the pixel's middle sees nothing."""

    def __len__(self) -> int:
        return len(self.cameras)

    @cached_property
    def eyes(self) -> NDArray[np.float64]:
        """[N, 3] camera centres."""
        return self.cameras[:, :16].reshape(-1, 4, 4)[:, :3, 3].astype(np.float64)

    def project(self, points: NDArray[np.floating]) -> tuple[Array, Array]:
        """Where points [M, 3] appear: image coordinates (column, row) [N, M, 2], in [0, 1] within the picture and -1
        behind the camera, and distances from the camera centres [N, M]."""
        pose = self.cameras[:, :16].reshape(-1, 4, 4).astype(np.float64)
        lens = self.cameras[:, 16:].reshape(-1, 3, 3).astype(np.float64)
        turn = pose[:, :3, :3] @ lens.transpose(0, 2, 1)  # world directions (rows) to the picture
        shift = -(self.eyes[:, None] @ turn)
        at = np.asarray(points, np.float32) @ turn.astype(np.float32) + shift.astype(np.float32)
        distance = np.sqrt(
            np.square(np.asarray(points, np.float32) - self.eyes[:, None].astype(np.float32)).sum(-1)
        )
        ahead = at[..., 2:] > 1e-6
        return np.where(ahead, at[..., :2] / np.where(ahead, at[..., 2:], 1), -1), distance

    def pixels(self, points: NDArray[np.floating]) -> tuple[NDArray[np.int32], NDArray[np.bool_], Array]:
        """The pixel that sees each point: flat index [N, M], whether it is in the picture, distance [N, M]."""
        side = self.rgb.shape[1]
        at, distance = self.project(points)
        cell = np.floor(at * side).astype(np.int32)
        seen = ((cell >= 0) & (cell < side)).all(-1)
        cell = cell.clip(0, side - 1)
        return cell[..., 1] * side + cell[..., 0], seen, distance

    def surface(self) -> tuple[Array, Array]:
        """Every pixel that sees the head, as a point [M, 3] (world units) and its colour [M, 3] in [0, 1]."""
        side = self.rgb.shape[1]
        middle = (np.arange(side) + 0.5) / side
        u, v = np.meshgrid(middle, middle)
        at = np.stack([u, v, np.ones_like(u)], -1)
        points, colours = [], []
        for camera, rgb, mask, depth in zip(self.cameras, self.rgb, self.mask, self.depth, strict=True):
            pose, lens = camera[:16].reshape(4, 4).astype(np.float64), camera[16:].reshape(3, 3)
            rays = at @ np.linalg.inv(lens.astype(np.float64)).T @ pose[:3, :3].T
            rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
            full = (depth > 0) & (mask == 255)
            points.append(pose[:3, 3] + rays[full] * depth[full][:, None])
            colours.append(rgb[full] / 255)
        return np.concatenate(points).astype(np.float32), np.concatenate(colours).astype(np.float32)

    def carved(
        self, points: NDArray[np.floating], margin: float = 0.004
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Where there is nothing, and what lies in no picture: two bool [M].

        A view looks through a point if its pixel sees nothing, or something farther away by `margin` (world units); it
        is stopped there if it sees something up to `POROUS` in front. A point is empty if more views look through it
        than are stopped: hair has gaps, and one look through a gap must not carve it away.
        """
        index, seen, distance = self.pixels(points)
        balance = np.zeros(len(points), np.int32)
        for k in range(len(self)):
            depth, mask = self.depth[k].ravel()[index[k]], self.mask[k].ravel()[index[k]]
            through = (mask < 64) | (depth > distance[k] + margin)
            stopped = ~through & (depth > distance[k] - POROUS)
            balance += seen[k] * (through.astype(np.int32) - stopped)
        return balance > 0, np.asarray(~seen.any(0))


@dataclass(frozen=True)
class Surface:
    """A coloured triangle mesh."""

    vertices: NDArray[np.float32]
    """[V, 3] world units."""
    triangles: NDArray[np.int32]
    """[T, 3]"""
    colours: NDArray[np.float32]
    """[V, 3] sRGB in [0, 1]."""

    def check(self) -> None:
        """Raises Head3DError unless shapes fit, numbers are finite and triangles point at vertices."""
        if (
            self.vertices.shape != self.colours.shape
            or self.vertices.ndim != 2
            or self.vertices.shape[1] != 3
        ):
            raise Head3DError(
                f"a surface needs vertices and colours [V, 3], got {self.vertices.shape} and {self.colours.shape}"
            )
        if not (np.isfinite(self.vertices).all() and np.isfinite(self.colours).all()):
            raise Head3DError("a surface has vertices or colours that are not finite: its model has diverged")
        if len(self.triangles) == 0 or not 0 <= self.triangles.min() <= self.triangles.max() < len(
            self.vertices
        ):
            raise Head3DError("a surface needs triangles between its own vertices, got none or others")


def draw(surface: Surface, cameras: NDArray[np.floating[Any]], size: int = SIZE) -> Views:
    """A surface over white from every camera label [N, 25]; its colours carry their own light.

    Args:
        size: pixels per side.

    Raises:
        Head3DError: a broken surface.
    """
    surface.check()
    rgb, mask, depth = [], [], []
    for camera in torch.from_numpy(np.asarray(cameras, np.float32)).split(1):
        seen, distance = seen_by(camera, surface.vertices, surface.triangles, size * FACTOR)
        row, column = seen.pixel.T
        fine = np.tile(np.array([1.0, 1.0, 1.0, 0.0], np.float32), (size * FACTOR, size * FACTOR, 1))
        fine[row, column] = np.concatenate([seen.interpolate(surface.colours), np.ones((len(row), 1))], 1)
        mean = (fine.reshape(size, FACTOR, size, FACTOR, 4).mean((1, 3)) * 255).round().astype(np.uint8)
        far = np.zeros(fine.shape[:2], np.float32)
        far[row, column] = distance
        rgb.append(mean[..., :3])
        mask.append(mean[..., 3])
        depth.append(far[FACTOR // 2 :: FACTOR, FACTOR // 2 :: FACTOR])
    return Views(np.asarray(cameras, np.float32), np.stack(rgb), np.stack(mask), np.stack(depth))


@dataclass(frozen=True)
class HeadScan:
    """One head of a set."""

    seed: int
    training: Views
    """24 views."""
    shown: Views
    """Front, side, back: for pictures and errors only."""


def _views(renderer: Renderer, cameras: Array) -> Views:
    frames = list(renderer.draw_many(cameras, geometry=True))
    depth = np.stack([f.depth for f in frames if f.depth is not None])
    return Views(cameras, np.stack([f.rgb for f in frames]), np.stack([f.alpha for f in frames]), depth)


def render_scan(renderer: Renderer, seed: int) -> HeadScan:
    """Scans head `seed` of the head population, in its own light."""
    renderer.load(build_head(identity(seed, "heads")), sample_light(seed, "heads"))
    return HeadScan(seed, _views(renderer, scan_cameras()), _views(renderer, shown_cameras()))


def _path(folder: Path, seed: int) -> Path:
    return folder / f"scan_v{SAMPLER_VERSION}_{seed:05d}.npz"


def save_scan(scan: HeadScan, folder: Path) -> Path:
    """Writes a scan, compressed (about 4 MB); returns the file."""
    path = _path(folder, scan.seed)
    parts = {
        f"{name}_{part}": getattr(getattr(scan, name), part)
        for name in ("training", "shown")
        for part in ("cameras", "rgb", "mask", "depth")
    }
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **parts)
    return path


def load_scan(folder: Path, seed: int) -> HeadScan:
    """Reads a scan that `scan_heads` has written.

    Raises:
        Head3DError: there is none.
    """
    path = _path(folder, seed)
    if not path.is_file():
        raise Head3DError(
            f"there is no scan of head {seed} in {folder}: make it with python -m head3d_core parametric"
        )
    with np.load(path) as data:
        training, shown = (
            Views(*(data[f"{name}_{part}"] for part in ("cameras", "rgb", "mask", "depth")))
            for name in ("training", "shown")
        )
    return HeadScan(seed, training, shown)


def scan_heads(
    seeds: Sequence[int], folder: Path, progress: Callable[[int, int], None] | None = None
) -> None:
    """Makes the scans of these heads that `folder` does not hold yet. Needs OpenGL."""
    missing = [seed for seed in seeds if not _path(folder, seed).is_file()]
    if not missing:
        return
    renderer = Renderer(SIZE)
    try:
        for done, seed in enumerate(missing):
            save_scan(render_scan(renderer, seed), folder)
            if progress:
                progress(done + 1, len(missing))
    finally:
        renderer.release()
