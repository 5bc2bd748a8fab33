"""Cameras as 25 numbers: cam2world (16, row-major) and normalised intrinsics (9, row-major).

Axes are OpenCV's: x right, y down, z forward. The world has y up; a face looks along +z and the frontal
camera is at (0, 0, 2.7). Angles are radians.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from head3d_core.utils.errors import Head3DError

RADIUS = 2.7
"""EG3D's camera distance from the world origin, world units."""
FOCAL = 2985.29 / 700
"""EG3D's FFHQ focal length in image widths (4.2647; field of view 13.4 degrees)."""
_POLE = 1e-4


def intrinsics(focal: float = FOCAL) -> Tensor:
    """Normalised intrinsics [3, 3] with the principal point in the middle of the image."""
    return torch.tensor([[focal, 0.0, 0.5], [0.0, focal, 0.5], [0.0, 0.0, 1.0]])


def pack(cam2world: Tensor, intrinsics: Tensor) -> Tensor:
    """[N, 4, 4] and [N, 3, 3] -> camera [N, 25]."""
    if cam2world.shape[-2:] != (4, 4) or intrinsics.shape[-2:] != (3, 3):
        raise Head3DError(
            "cam2world must be [N, 4, 4] and intrinsics [N, 3, 3], "
            f"got {list(cam2world.shape)} and {list(intrinsics.shape)}"
        )
    return torch.cat([cam2world.flatten(-2), intrinsics.flatten(-2)], -1)


def unpack(camera: Tensor) -> tuple[Tensor, Tensor]:
    """camera [N, 25] -> cam2world [N, 4, 4], intrinsics [N, 3, 3]."""
    return camera[..., :16].unflatten(-1, (4, 4)), camera[..., 16:].unflatten(-1, (3, 3))


def pose_looking_at(position: Tensor, target: Tensor) -> Tensor:
    """cam2world [N, 4, 4] of cameras at `position` [N, 3] that look at `target` [N, 3], up = +y, no roll."""
    forward = torch.nn.functional.normalize(target - position, dim=-1)
    up = torch.tensor([0.0, 1.0, 0.0], dtype=position.dtype, device=position.device).expand_as(forward)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, up), dim=-1)
    down = torch.linalg.cross(forward, right)
    top = torch.stack([right, down, forward, position], -1)
    last = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=position.dtype, device=position.device)
    return torch.cat([top, last.expand(*top.shape[:-2], 1, 4)], -2)


def orbit(
    yaw: Tensor | float, pitch: Tensor | float = 0.0, radius: float = RADIUS, focal: float = FOCAL
) -> Tensor:
    """Cameras on a sphere about the world origin, which they look at.

    Args:
        yaw: [N] or a number, radians; 0 is the front, positive moves the camera to +x (the subject's left).
        pitch: [N] or a number, radians; positive moves the camera up. Kept 1e-4 away from the poles.
        radius: distance from the world origin, world units.
        focal: focal length in image widths.

    Returns:
        camera [N, 25].

    Raises:
        Head3DError: a yaw beyond two turns or a pitch beyond the poles: degrees, most likely. Tensors on a GPU are not
            looked at (it would wait).

    >>> orbit(0.0, 0.0)[0, [3, 7, 11]]
    tensor([0.0000, 0.0000, 2.7000])
    """
    turn, rise = torch.broadcast_tensors(
        torch.as_tensor(yaw, dtype=torch.float32), torch.as_tensor(pitch, dtype=torch.float32)
    )
    for name, angle, most in (("yaw", turn, 4 * math.pi), ("pitch", rise, math.pi / 2 + _POLE)):
        largest = float(angle.detach().abs().max()) if angle.device.type == "cpu" and angle.numel() else 0.0
        if not largest <= most:
            raise Head3DError(
                f"{name} must be within {math.degrees(most):.0f} degrees, got {math.degrees(largest):.4g}: "
                "in code it is in radians, math.radians and torch.deg2rad convert"
            )
    turn, rise = turn.reshape(-1), rise.reshape(-1).clamp(-math.pi / 2 + _POLE, math.pi / 2 - _POLE)
    level = rise.cos()
    position = radius * torch.stack([turn.sin() * level, rise.sin(), turn.cos() * level], -1)
    matrix = pose_looking_at(position, torch.zeros_like(position))
    return pack(matrix, intrinsics(focal).to(matrix).expand(len(matrix), 3, 3))


def frontal(count: int = 1, device: torch.device | str = "cpu", radius: float = RADIUS) -> Tensor:
    """The frontal camera, repeated: [count, 25]."""
    return orbit(0.0, 0.0, radius).to(device).expand(count, 25)


def yaw_pitch(camera: Tensor) -> tuple[Tensor, Tensor]:
    """Angles of cameras on their sphere about the origin: yaw [N] in (-pi, pi], pitch [N], radians."""
    x, y, z = camera[..., 3], camera[..., 7], camera[..., 11]
    return torch.atan2(x, z), torch.atan2(y, torch.hypot(x, z))


def mirror(camera: Tensor) -> Tensor:
    """The camera [N, 25] of the horizontally flipped image: M P M with M = diag(-1, 1, 1, 1).

    The principal point and the skew are mirrored with it.
    """
    flipped = camera.clone()
    flipped[..., [1, 2, 3, 4, 8]] *= -1
    flipped[..., 17] *= -1
    flipped[..., 18] = 1 - flipped[..., 18]
    return flipped


def check_tensor(name: str, thing: object) -> None:
    """Raises Head3DError if `thing` is no tensor."""
    if not isinstance(thing, Tensor):
        raise Head3DError(f"{name} must be a tensor, got {type(thing).__name__}: torch.as_tensor makes one")


def check_camera(camera: Tensor) -> Tensor:
    """Returns `camera` if it is [N, 25], finite and normalised; raises Head3DError otherwise.

    Values on a GPU are not read back (that would stall the stream): there only the shape is checked.
    """
    check_tensor("camera", camera)
    if camera.ndim != 2 or camera.shape[-1] != 25:
        raise Head3DError(
            f"camera must be [N, 25] (cam2world 16 + intrinsics 9), got {list(camera.shape)}: "
            "build it with cameras.orbit or cameras.pack"
        )
    if not camera.is_floating_point():
        raise Head3DError(f"camera must be floating point, got {camera.dtype}")
    if camera.device.type != "cpu" or torch.compiler.is_compiling():
        return camera
    if not bool(torch.isfinite(camera).all()):
        raise Head3DError("camera has values that are not finite: check the pose it was built from")
    largest = float(camera[:, [16, 18, 20, 21]].detach().abs().max()) if len(camera) else 0.0
    if largest > 40:
        raise Head3DError(
            "intrinsics must be normalised by the image size (focal about 4.26, centre 0.5), "
            f"got {largest:g}: divide pixels by the width"
        )
    return camera
