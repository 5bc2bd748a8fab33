"""The sets: which identity, light, camera and background stands behind each index.

Everything here is a pure function of (set, index): no state, no OpenGL. As in the paper's section 4.1, `faces` has
one roughly frontal view per identity and `heads` 50 identities from all around; `scenes` is `faces` with textured
images behind (for the white-background fine-tuning); the `held_out_` sets are for evaluation only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from head3d_core.synth.draws import Draws
from head3d_core.synth.identity import HEADS, HELD_OUT_FACES, HELD_OUT_HEADS, Kind
from head3d_core.synth.light import Light, sample_light
from head3d_core.utils.errors import Head3DError

RADIUS = 2.7
"""Camera distance from the head's centre, world units (EG3D)."""
FOCAL = 2985.29 / 700
"""Focal length in image widths (EG3D's FFHQ cameras; 13.4° field of view)."""
FACE_YAW, FACE_PITCH = 0.30, 0.12
"""Standard deviations of the faces' angles, radians, as in-the-wild portraits have them."""
FACE_YAW_LIMIT, FACE_PITCH_LIMIT = 0.75, 0.30
HEAD_PITCH = math.radians(25)
HEAD_VIEWS = 96
"""Views per head unless more are asked for."""
_GOLDEN, _SILVER = (math.sqrt(5) - 1) / 2, math.sqrt(2) - 1
"""Steps of the views' yaw and pitch, as shares of their ranges: multiples of such numbers fill a range evenly."""

SetName = Literal["faces", "scenes", "heads", "held_out_faces", "held_out_heads"]


@dataclass(frozen=True)
class SetSpec:
    """How indices of one set map to identities."""

    kind: Kind
    """Which of the two populations, lights and camera distributions."""
    seeds: range
    """Seeds of the identities."""
    scenes: bool = False
    """A textured image behind, instead of white."""


SETS: dict[str, SetSpec] = {
    "faces": SetSpec("faces", range(0, HELD_OUT_FACES.start)),
    "scenes": SetSpec("faces", range(0, HELD_OUT_FACES.start), scenes=True),
    "heads": SetSpec("heads", HEADS),
    "held_out_faces": SetSpec("faces", HELD_OUT_FACES),
    "held_out_heads": SetSpec("heads", HELD_OUT_HEADS),
}


@dataclass(frozen=True)
class Example:
    """What one image shows."""

    seed: int
    """Of the identity, within `kind`."""
    kind: Kind
    camera: NDArray[np.float32]
    """[25] cam2world (OpenCV axes) and normalised intrinsics."""
    scene: int | None
    """Seed of the textured image behind; None for white."""

    def light(self) -> Light:
        """The light of this identity: one per head, the same for all its views."""
        return sample_light(self.seed, self.kind)


def spec(name: str) -> SetSpec:
    """The set of that name; raises Head3DError if there is none."""
    if name not in SETS:
        raise Head3DError(f"There is no set {name!r}: choose one of {', '.join(SETS)}.")
    return SETS[name]


def size(name: str, views: int = HEAD_VIEWS) -> int:
    """How many images the set has with `views` views per head (faces have one)."""
    chosen = spec(name)
    return len(chosen.seeds) * (views if chosen.kind == "heads" else 1)


def orbit_camera(yaw: float, pitch: float) -> NDArray[np.float32]:
    """[25] label of a camera on the sphere around the origin that looks at it, upright.

    The NumPy counterpart of `head3d_core.model.cameras.orbit` (a test compares them), so that rendering needs no torch.

    Args:
        yaw: radians; 0 in front, positive moves the camera to +x (the subject's left).
        pitch: radians, positive from above, |pitch| < pi/2.
    """
    position = RADIUS * np.array(
        [math.sin(yaw) * math.cos(pitch), math.sin(pitch), math.cos(yaw) * math.cos(pitch)]
    )
    forward = -position / RADIUS
    right = np.cross(forward, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3] = np.stack([right, np.cross(forward, right), forward, position], 1)
    lens = [FOCAL, 0, 0.5, 0, FOCAL, 0.5, 0, 0, 1]
    return np.concatenate([pose.ravel(), lens]).astype(np.float32)


def face_angles(seed: int) -> tuple[float, float]:
    """Yaw and pitch (radians) of the one view of face `seed`: normal, cut at the limits."""
    draws = Draws(seed, "faces camera")
    yaw = draws.normal("yaw", FACE_YAW, limit=FACE_YAW_LIMIT / FACE_YAW)
    return yaw, draws.normal("pitch", FACE_PITCH, limit=FACE_PITCH_LIMIT / FACE_PITCH)


def head_angles(seed: int, view: int) -> tuple[float, float]:
    """Yaw in [-pi, pi) and pitch within ±25° (radians): uniform, and even for any number of first views."""
    draws = Draws(seed, "heads camera")
    u = (draws.uniform("yaw") + view * _GOLDEN) % 1.0
    v = (draws.uniform("pitch") + view * _SILVER) % 1.0
    return (2 * u - 1) * math.pi, (2 * v - 1) * HEAD_PITCH


def example(name: str, index: int, views: int = HEAD_VIEWS) -> Example:
    """What image `index` of a set shows.

    Raises:
        Head3DError: no such set, or an index outside it.
    """
    chosen = spec(name)
    if not 0 <= index < size(name, views):
        raise Head3DError(f"Index of {name} must lie in [0, {size(name, views)}), got {index}.")
    if chosen.kind == "heads":
        seed = chosen.seeds[index // views]
        yaw, pitch = head_angles(seed, index % views)
    else:
        seed = chosen.seeds[index]
        yaw, pitch = face_angles(seed)
    scene = int(Draws(seed, "scene").uniform("seed", 0, 2**31 - 1)) if chosen.scenes else None
    return Example(seed, chosen.kind, orbit_camera(yaw, pitch), scene)
