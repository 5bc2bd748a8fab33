"""From a camera to rays, and from rays to the stretch of them that crosses the cube."""

from __future__ import annotations

import torch
from torch import Tensor

from head3d_core.config import RenderOptions
from head3d_core.model.cameras import check_camera, unpack
from head3d_core.utils.errors import Head3DError


def camera_rays(camera: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """One ray through the centre of every pixel.

    Pixel (row, col) has x = (col + 0.5) / R, y = (row + 0.5) / R; in the camera's frame
    Y = (y - cy) / fy, X = (x - cx - skew Y) / fx, Z = 1, and the direction is R_c2w (X, Y, 1) normalised.

    Args:
        camera: [N, 25].
        resolution: R, pixels per side.

    Returns:
        ray_origins [N, R*R, 3] and unit ray_directions [N, R*R, 3]; ray index = row * R + col.
    """
    if resolution < 1:
        raise Head3DError(f"resolution must be at least 1, got {resolution}")
    cam2world, matrix = unpack(check_camera(camera))
    centre = (torch.arange(resolution, device=camera.device, dtype=camera.dtype) + 0.5) / resolution
    y, x = torch.meshgrid(centre, centre, indexing="ij")
    x, y = x.reshape(1, -1), y.reshape(1, -1)
    fx, skew, cx = (matrix[:, 0, k, None] for k in range(3))
    fy, cy = matrix[:, 1, 1, None], matrix[:, 1, 2, None]
    image_y = (y - cy) / fy
    image_x = (x - cx - skew * image_y) / fx
    local = torch.stack([image_x, image_y, torch.ones_like(image_x)], -1)
    # A sum instead of a matrix product, which TF32 or autocast would round to 10 or 7 bits.
    turned = (local[:, :, None] * cam2world[:, None, :3, :3]).sum(-1)
    directions = torch.nn.functional.normalize(turned, dim=-1)
    origins = cam2world[:, None, :3, 3].expand_as(directions)
    return origins, directions


def box_bounds(ray_origins: Tensor, ray_directions: Tensor, box_warp: float) -> tuple[Tensor, Tensor]:
    """Where each ray enters and leaves the cube of side `box_warp` about the origin.

    Rays that miss get near = min and far = max of the *near* values of the rays that hit, over the whole batch:
    EG3D does the same, and parity needs it. If none hits, both are 0 and the ray is empty.

    Returns:
        near [N, R], far [N, R].
    """
    half = box_warp / 2
    # A zero component would give 0/0 on the faces; a tiny one gives +-inf there, which min and max handle.
    safe = torch.where(ray_directions == 0, torch.full_like(ray_directions, 1e-12), ray_directions)
    low, high = (-half - ray_origins) / safe, (half - ray_origins) / safe
    near = torch.minimum(low, high).amax(-1)
    far = torch.maximum(low, high).amin(-1)
    hit = far > near
    smallest = torch.where(hit, near, torch.inf).amin() if hit.numel() else near.new_zeros(())
    largest = torch.where(hit, near, -torch.inf).amax() if hit.numel() else near.new_zeros(())
    smallest = torch.where(torch.isfinite(smallest), smallest, 0.0)
    largest = torch.where(torch.isfinite(largest), largest, 0.0)
    return torch.where(hit, near, smallest), torch.where(hit, far, largest)


def ray_bounds(ray_origins: Tensor, ray_directions: Tensor, options: RenderOptions) -> tuple[Tensor, Tensor]:
    """near [N, R] and far [N, R] of the stretch that is sampled, as `options` ask for it."""
    if options.ray_start == "auto":
        return box_bounds(ray_origins, ray_directions, options.box_warp)
    shape = ray_origins.shape[:-1]
    return (
        ray_origins.new_full(shape, float(options.ray_start)),
        ray_origins.new_full(shape, float(options.ray_end)),
    )
