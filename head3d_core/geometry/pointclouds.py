"""Surfaces as clouds of points: lighter than a mesh, quick to compare with a known head.

A depth map and its camera are a cloud: p = origin + depth · direction. Clouds of several views of one head share world
coordinates, so the surface that a model renders can be compared with the known one point by point.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from head3d_core.geometry.mesh import density_normals
from head3d_core.model import cameras
from head3d_core.model.generator import Generator, RawOutput
from head3d_core.model.rays import camera_rays
from head3d_core.utils.errors import Head3DError

if TYPE_CHECKING:
    from head3d_core.synth.renderer import Frame

SEEN = 0.5
"""Opacity from which a pixel counts as surface."""
NORMAL_STEP = 8e-3
"""Of sigma's differences in images of normals, world units: about a pixel, as finer wrinkles would be noise."""
MOST = 20_000
"""Points of each cloud that are compared."""


@dataclass(frozen=True)
class Cloud:
    """Points on a surface, world units."""

    points: Tensor
    """[M, 3]"""
    normals: Tensor
    """[M, 3], unit length, outwards."""
    colours: Tensor
    """[M, 3] in [0, 1]"""

    def __len__(self) -> int:
        return len(self.points)

    def thinned(self, count: int) -> Cloud:
        """At most `count` points, drawn at random."""
        if len(self) <= count:
            return self
        kept = torch.randperm(len(self), generator=torch.Generator().manual_seed(0))[:count]
        kept = kept.to(self.points.device)
        return Cloud(self.points[kept], self.normals[kept], self.colours[kept])


def look_around(yaws: int = 12, pitches: Sequence[float] = (-0.35, 0.35)) -> Tensor:
    """Cameras from all sides, [yaws * len(pitches), 25]: evenly spaced yaw at each pitch (radians)."""
    turn = 2 * math.pi * torch.arange(yaws) / yaws
    return torch.cat([cameras.orbit(turn, pitch) for pitch in pitches])


def depth_to_points(depth: Tensor, camera: Tensor) -> Tensor:
    """World points that a depth map shows: p = origin + depth · direction.

    Args:
        depth: [N, 1, R, R] or [N, R, R], distance along the ray.
        camera: [N, 25].

    Returns:
        [N, R, R, 3].
    """
    flat = depth[:, 0] if depth.ndim == 4 else depth
    if flat.ndim != 3 or flat.shape[1] != flat.shape[2] or len(flat) != len(camera):
        raise Head3DError(
            f"depth must be [N, 1, R, R] with a camera [N, 25] each, got {list(depth.shape)} and {list(camera.shape)}"
        )
    origins, directions = camera_rays(camera, flat.shape[-1])
    return (origins + flat.flatten(1)[..., None] * directions).unflatten(1, flat.shape[1:])


def normal_image(G: Generator, planes: Tensor, raw: RawOutput, camera: Tensor) -> Tensor:
    """World normals of what an image shows, as an image: (x, y, z) become (red, green, blue).

    The normal is the falling direction of sigma at the rendered depth; pixels that see nothing are white (1, 1, 1).

    Args:
        planes: [1, 3, C, H, W]; raw: `G.render_raw` of them seen from camera [1, 25].

    Returns:
        [1, 3, R, R] in [-1, 1].
    """
    points = depth_to_points(raw.depth, camera)[0]
    seen = raw.opacity[0, 0] >= SEEN
    picture = points.new_ones(points.shape)
    picture[seen] = density_normals(G, planes, points[seen], NORMAL_STEP)
    return picture.permute(2, 0, 1)[None]


@torch.no_grad()
def model_cloud(G: Generator, planes: Tensor, camera: Tensor, resolution: int | None = None) -> Cloud:
    """The surface of one head as cameras [V, 25] see it.

    Args:
        planes: [1, 3, C, H, W].
        resolution: pixels per side of each view; None: the generator's.
    """
    parts = []
    for view in camera.split(1):
        raw = G.render_raw(planes, view, resolution)
        seen = raw.opacity[0, 0] >= SEEN
        points = depth_to_points(raw.depth, view)[0][seen]
        # Undo 2 c - 1; the little white that shines through the surface's edge is left in.
        colours = ((raw.raw[0].permute(1, 2, 0)[seen] + 1) / 2).clamp(0, 1)
        parts.append((points, density_normals(G, planes, points), colours))
    return Cloud(*(torch.cat(column) for column in zip(*parts, strict=True)))


def factory_views(seed: int, camera: Tensor, resolution: int) -> Frame:
    """A procedural head, in its own light, as cameras [V, 25] see it: one frame whose arrays have a row for each view.

    Args:
        seed: of the identity.
        resolution: pixels per side.

    Raises:
        Head3DError: no OpenGL.
    """
    from head3d_core.synth.heads import build_head
    from head3d_core.synth.identity import identity
    from head3d_core.synth.light import sample_light
    from head3d_core.synth.renderer import Frame, Renderer

    renderer = Renderer(resolution)
    try:
        renderer.load(build_head(identity(seed, "heads")), sample_light(seed, "heads"))
        views = [vars(frame).values() for frame in renderer.draw_many(camera.cpu().numpy(), geometry=True)]
        return Frame(*map(np.stack, zip(*views, strict=True)))
    finally:
        renderer.release()


def true_cloud(seed: int, camera: Tensor, resolution: int = 64) -> Cloud:
    """The surface of a procedural head, hair and glasses included, as cameras [V, 25] see it.

    Arguments and errors as `factory_views`.
    """
    frame = factory_views(seed, camera, resolution)
    depth, normals = torch.as_tensor(frame.depth), torch.as_tensor(frame.normals)
    seen = torch.from_numpy(frame.alpha >= 128) & (depth > 0)
    colours = torch.from_numpy(frame.rgb)[seen].float() / 255
    return Cloud(depth_to_points(depth, camera.cpu())[seen], normals[seen], colours)


@dataclass(frozen=True)
class SurfaceError:
    """How far two surfaces are apart; lengths in world units (a head is about 0.4 tall)."""

    accuracy: float
    """Mean distance from a point of the model to the nearest true one."""
    completeness: float
    """Mean distance from a true point to the nearest one of the model."""
    normal_degrees: float
    """Mean angle between the normals of nearest points, both ways."""

    @property
    def chamfer(self) -> float:
        """Mean of the two distances."""
        return (self.accuracy + self.completeness) / 2


def surface_error(model: Cloud, truth: Cloud) -> SurfaceError:
    r"""Chamfer distance and normal error of two clouds.

    accuracy = mean_a min_b ‖a − b‖, completeness = mean_b min_a ‖b − a‖ (not squared, so that they are lengths). Of
    each cloud at most `MOST` points are used, drawn at random.

    Raises:
        Head3DError: a cloud without points: its images show nothing.
    """
    from scipy.spatial import cKDTree

    if not len(model) or not len(truth):
        raise Head3DError(
            f"surfaces are compared point by point, got {len(model)} and {len(truth)} points: "
            "do the images show heads?"
        )
    a, b = (
        [np.asarray(x.double().cpu()) for x in (c.points, c.normals)]
        for c in (model.thinned(MOST), truth.thinned(MOST))
    )
    there, nearest_b = cKDTree(b[0]).query(a[0])
    back, nearest_a = cKDTree(a[0]).query(b[0])
    cosines = [(a[1] * b[1][nearest_b]).sum(1), (b[1] * a[1][nearest_a]).sum(1)]
    angles = [float(np.degrees(np.arccos(np.clip(c, -1, 1))).mean()) for c in cosines]
    return SurfaceError(float(there.mean()), float(back.mean()), sum(angles) / 2)
