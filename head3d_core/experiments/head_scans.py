"""What parametric head models are trained on: heads seen by a ring of cameras that also measure distance.

The explicit and the implicit model (`morphable`, `implicit`) learn from scans, as LYHM and i3DMM do, not from
single images as Head3D. A scan is 24 views of a head of the procedural set, with colour, coverage and depth under the
head's own light, and a frontal, a side and a back view that no model is trained on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from head3d_core.geometry.pointclouds import depth_to_points, factory_views
from head3d_core.geometry.rasterize import seen_by
from head3d_core.model.cameras import orbit
from head3d_core.synth.draws import SAMPLER_VERSION
from head3d_core.utils import files
from head3d_core.utils.errors import Head3DError

Array = NDArray[np.float32]
Places = tuple[NDArray[np.intp], NDArray[np.int32], NDArray[np.int32]]
"""View [N, 1], row [N, M] and column [N, M]."""
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
"""A view is blocked at a point by what it sees at most this far in front of it, world units, because hair has gaps."""
FLOOR = -0.42
"""Below this height (world units) a bust is cut off: the images end there."""
FACTOR = 3
"""Samples per pixel side of drawn meshes; odd, so that a pixel has a middle sample for its depth."""


def scan_cameras() -> Array:
    """[24, 25] labels of the ring of cameras, neighbouring rings turned against each other."""
    rings = [
        orbit(2 * math.pi * (torch.arange(count) + 0.5 * (k % 2)) / count, math.radians(pitch))
        for k, (pitch, count) in enumerate(RINGS)
    ]
    return torch.cat(rings).numpy()


def shown_cameras() -> Array:
    """[3, 25] labels of the frontal, side and back view."""
    yaw = torch.deg2rad(torch.tensor(list(SHOWN.values())))
    return orbit(yaw, math.radians(SHOWN_PITCH)).numpy()


@dataclass(frozen=True)
class Views:
    """Images of one head with what a depth camera adds. Row 0 is the top."""

    cameras: Array
    """[N, 25]"""
    rgb: NDArray[np.uint8]
    """[N, R, R, 3] sRGB over white."""
    mask: NDArray[np.uint8]
    """[N, R, R] coverage, 255 = head."""
    depth: Array
    """[N, R, R] distance along the ray, world units; 0 where the pixel's middle sees nothing."""

    @property
    def eyes(self) -> NDArray[np.float64]:
        """[N, 3] camera centres."""
        return self.cameras[:, :16].reshape(-1, 4, 4)[:, :3, 3].astype(np.float64)

    def pixels(self, points: NDArray[np.floating]) -> tuple[Places, NDArray[np.bool_], Array]:
        """The pixel that sees each point [M, 3]: its place, which indexes the images, whether it is in the image
        [N, M], and the distance from the camera centre [N, M], world units."""
        side, points = self.rgb.shape[1], np.asarray(points, np.float32)
        pose = self.cameras[:, :16].reshape(-1, 4, 4).astype(np.float64)
        lens = self.cameras[:, 16:].reshape(-1, 3, 3).astype(np.float64)
        turn = pose[:, :3, :3] @ lens.transpose(0, 2, 1)  # world directions (rows) to the image
        shift = -(self.eyes[:, None] @ turn)
        at = points @ turn.astype(np.float32) + shift.astype(np.float32)
        ahead = at[..., 2:] > 1e-6
        cell = np.floor(at[..., :2] / np.where(ahead, at[..., 2:], 1) * side).astype(np.int32)
        seen = (ahead & (cell >= 0) & (cell < side)).all(-1)
        cell = cell.clip(0, side - 1)
        distance = np.linalg.norm(points - self.eyes[:, None].astype(np.float32), axis=-1)
        return (np.arange(len(cell))[:, None], cell[..., 1], cell[..., 0]), seen, distance

    def surface(self) -> tuple[Array, Array]:
        """Every pixel that sees the head, as a point [M, 3] (world units) and its colour [M, 3] in [0, 1]."""
        full = (self.depth > 0) & (self.mask == 255)
        points = depth_to_points(torch.from_numpy(self.depth), torch.from_numpy(self.cameras)).numpy()
        return points[full], (self.rgb[full] / 255).astype(np.float32)

    def carved(
        self, points: NDArray[np.floating], margin: float = 0.004
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Where there is nothing, and what lies in no image: two bool [M].

        A view looks through a point if its pixel sees nothing, or something farther away by `margin` (world units); it
        is stopped there if it sees something up to `POROUS` in front. A point is empty if more views look through it
        than are stopped: hair has gaps, and one look through a gap must not carve it away.
        """
        place, seen, distance = self.pixels(points)
        depth = self.depth[place]
        through = (self.mask[place] < 64) | (depth > distance + margin)
        stopped = ~through & (depth > distance - POROUS)
        balance = (seen * (through.astype(np.int32) - stopped)).sum(0)
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


def draw(surface: Surface, cameras: Array | None = None, size: int = SIZE) -> Views:
    """A surface over white; its colours carry their own light.

    Args:
        cameras: labels [N, 25]; None: `shown_cameras`.
        size: pixels per side.

    Raises:
        Head3DError: vertices or colours that are not finite.
    """
    cameras = shown_cameras() if cameras is None else cameras
    if not (np.isfinite(surface.vertices).all() and np.isfinite(surface.colours).all()):
        raise Head3DError("a surface has vertices or colours that are not finite: its model has diverged")
    rgb, mask, depth = [], [], []
    for camera in torch.from_numpy(cameras).split(1):
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
    return Views(cameras, np.stack(rgb), np.stack(mask), np.stack(depth))


def cached(path: Path, make: Callable[[], dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """The arrays of an npz file, made and written first if it is not there."""
    if not path.is_file():
        arrays = make()
        with files.atomic(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    with np.load(path) as data:
        return dict(data)


def scan(folder: Path, seed: int) -> tuple[Views, Views]:
    """Head `seed` of the head population in its own light: 24 views to train on, and front, side and back.

    The latter are for images and errors only. What `folder` does not keep yet (4 MB) is drawn first, with OpenGL.
    """
    rings = scan_cameras()
    cameras = np.concatenate([rings, shown_cameras()])

    def drawn() -> dict[str, NDArray[Any]]:
        seen = factory_views(seed, torch.from_numpy(cameras), SIZE)
        return {part: getattr(seen, part) for part in ("rgb", "alpha", "depth")}

    arrays = cached(folder / f"scan_of_27_v{SAMPLER_VERSION}_{seed:05d}.npz", drawn)
    parts = (cameras, arrays["rgb"], arrays["alpha"], arrays["depth"])
    training, shown = zip(*(np.split(part, [len(rings)]) for part in parts), strict=True)
    return Views(*training), Views(*shown)
