"""Camera conventions of other tools, to and from ours.

Ours (EG3D's): cam2world, camera axes x right, y down, z forward (OpenCV), world y up, intrinsics divided by image size.

    tool            pose       camera axes               world   intrinsics
    OpenGL, NeRF    cam2world  x right, y up, z backward  y up    field of view
    Blender         cam2world  x right, y up, z backward  z up    lens (mm) on a sensor (mm)
    COLMAP          world2cam  x right, y down, z forward  any    pixels

The conversions are exact and come in pairs that undo each other. A face that looks along +z here looks along -y in
Blender, i.e. towards Blender's "front" view.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from head3d_core.model.cameras import pack, unpack
from head3d_core.utils.errors import Head3DError

_FLIP = (1.0, -1.0, -1.0, 1.0)
"""OpenCV's camera axes in OpenGL's: y and z change sign."""
_Z_UP = ((1.0, 0.0, 0.0, 0.0), (0.0, 0.0, -1.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))
"""(x, y, z) of a world with y up -> (x, -z, y) of one with z up."""


def _checked(matrix: Tensor) -> Tensor:
    if matrix.shape[-2:] != (4, 4):
        raise Head3DError(f"poses must be [N, 4, 4], got {list(matrix.shape)}: append the row [0, 0, 0, 1]")
    return matrix


def to_opengl(cam2world: Tensor) -> Tensor:
    """cam2world [N, 4, 4] with OpenCV's camera axes -> the same pose with OpenGL's (as in NeRF's transforms.json)."""
    return _checked(cam2world) * cam2world.new_tensor(_FLIP)


def from_opengl(cam2world: Tensor) -> Tensor:
    """Inverse of `to_opengl` (the same flip of the second and third column)."""
    return to_opengl(cam2world)


def to_blender(cam2world: Tensor) -> Tensor:
    """cam2world [N, 4, 4] -> Blender's `matrix_world` of a camera object: OpenGL's camera axes, world z up."""
    return cam2world.new_tensor(_Z_UP) @ to_opengl(cam2world)


def from_blender(matrix_world: Tensor) -> Tensor:
    """Inverse of `to_blender`. The matrix must be free of scale (apply the object's scale first)."""
    return from_opengl(matrix_world.new_tensor(_Z_UP).mT @ _checked(matrix_world))


def focal_to_fov(focal: float) -> float:
    """Focal length in image widths -> horizontal field of view, radians (NeRF's `camera_angle_x`).

    >>> round(math.degrees(focal_to_fov(4.2647)), 2)
    13.37
    """
    return 2 * math.atan(0.5 / focal)


def fov_to_focal(fov: float) -> float:
    """Inverse of `focal_to_fov`."""
    return 0.5 / math.tan(fov / 2)


def focal_to_lens(focal: float, sensor_width: float = 36.0) -> float:
    """Focal length in image widths -> Blender's lens in mm for a sensor of `sensor_width` mm.

    >>> round(focal_to_lens(4.2647), 1)
    153.5
    """
    return focal * sensor_width


def lens_to_focal(lens: float, sensor_width: float = 36.0) -> float:
    """Inverse of `focal_to_lens`."""
    return lens / sensor_width


@dataclass(frozen=True)
class Colmap:
    """Cameras as COLMAP's images.txt and cameras.txt hold them (model PINHOLE)."""

    quaternion: Tensor
    """[N, 4] world2cam rotation (w, x, y, z), unit length, w >= 0."""
    translation: Tensor
    """[N, 3] world2cam translation."""
    params: Tensor
    """[N, 4] fx, fy, cx, cy in pixels; (0, 0) is the corner of the first pixel, its centre (0.5, 0.5)."""
    width: int
    height: int


def to_colmap(camera: Tensor, width: int, height: int | None = None) -> Colmap:
    """camera [N, 25] -> COLMAP, for images of `width` x `height` pixels (square by default).

    Raises:
        Head3DError: a camera has skew, which COLMAP's PINHOLE model does not know.
    """
    height = width if height is None else height
    cam2world, k = unpack(camera)
    if bool((k[..., 0, 1].abs() > 1e-6).any()):
        raise Head3DError("COLMAP's PINHOLE model has no skew: expected intrinsics[0, 1] = 0")
    rotation = cam2world[..., :3, :3].mT
    translation = -(rotation @ cam2world[..., :3, 3:])[..., 0]
    params = torch.stack(
        [k[..., 0, 0] * width, k[..., 1, 1] * height, k[..., 0, 2] * width, k[..., 1, 2] * height], -1
    )
    return Colmap(rotation_to_quaternion(rotation), translation, params, width, height)


def from_colmap(views: Colmap) -> Tensor:
    """COLMAP -> camera [N, 25]. Quaternions need not be normalised."""
    rotation = quaternion_to_rotation(views.quaternion).mT
    position = -(rotation @ views.translation[..., None])
    last = rotation.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*rotation.shape[:-2], 1, 4)
    cam2world = torch.cat([torch.cat([rotation, position], -1), last], -2)
    k = torch.zeros_like(rotation)
    fx, fy, cx, cy = views.params.unbind(-1)
    k[..., 0, 0], k[..., 1, 1] = fx / views.width, fy / views.height
    k[..., 0, 2], k[..., 1, 2] = cx / views.width, cy / views.height
    k[..., 2, 2] = 1
    return pack(cam2world, k)


def quaternion_to_rotation(quaternion: Tensor) -> Tensor:
    """(w, x, y, z) [N, 4] -> rotation [N, 3, 3]: the matrix of v -> q v q*."""
    length = quaternion.norm(dim=-1, keepdim=True)
    if bool((length < 1e-8).any()):
        raise Head3DError("a quaternion of length zero is no rotation: expected (w, x, y, z) of unit length")
    w, x, y, z = (quaternion / length).unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def rotation_to_quaternion(rotation: Tensor) -> Tensor:
    """Rotation [N, 3, 3] -> (w, x, y, z) [N, 4], unit length, w >= 0.

    The outer product q q^T follows from the matrix without square roots; its row with the largest diagonal entry is q
    times that entry, which is never close to zero. So half turns, where w = 0, are as exact as the rest.
    """
    r = rotation
    xx, yy, zz = r[..., 0, 0], r[..., 1, 1], r[..., 2, 2]
    wx, wy, wz = r[..., 2, 1] - r[..., 1, 2], r[..., 0, 2] - r[..., 2, 0], r[..., 1, 0] - r[..., 0, 1]
    xy, xz, yz = r[..., 0, 1] + r[..., 1, 0], r[..., 0, 2] + r[..., 2, 0], r[..., 1, 2] + r[..., 2, 1]
    outer = torch.stack(
        [
            torch.stack([1 + xx + yy + zz, wx, wy, wz], -1),
            torch.stack([wx, 1 + xx - yy - zz, xy, xz], -1),
            torch.stack([wy, xy, 1 - xx + yy - zz, yz], -1),
            torch.stack([wz, xz, yz, 1 - xx - yy + zz], -1),
        ],
        -2,
    )
    best = outer.diagonal(dim1=-2, dim2=-1).argmax(-1)
    row = outer.gather(-2, best[..., None, None].expand(*best.shape, 1, 4))[..., 0, :]
    quaternion = row / row.norm(dim=-1, keepdim=True)
    return torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)
