"""Faces found by a detector: facenet-pytorch's MTCNN, whose weights come with the package.

It is this project's yardstick for "that is a face" (a detection is a probability above 0.9 on the 256² image) and,
through its five landmarks, the first step of `prepare.py`. The network was trained on photographs of people, by
others: its own rates differ between groups, so every rate here is a fact about a detector *and* a set of images.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from head3d_core.utils.errors import Head3DError
from head3d_core.utils.estimates import Estimate, share

THRESHOLD = 0.9
"""Probability above which a face counts as detected."""
SIDE = 256
"""Side of the images that rates are defined on, pixels."""
SMALLEST = 20
"""Side of the smallest face that is looked for, pixels; nothing is found in images that are narrower."""
_BATCH = 16
LANDMARKS = ("right eye", "left eye", "nose", "right mouth corner", "left mouth corner")
"""Order of the five points, named from the subject: its right eye is on the image's left in a frontal image."""


@dataclass(frozen=True)
class Face:
    """One detected face; pixel positions have (0, 0) at the corner of the first pixel."""

    probability: float
    box: NDArray[np.float64]
    """[4] left, top, right, bottom."""
    landmarks: NDArray[np.float64]
    """[5, 2] x, y in the order of LANDMARKS."""


@functools.lru_cache(maxsize=2)
def _mtcnn(device: str) -> Any:
    try:
        from facenet_pytorch import MTCNN
    except ImportError:
        raise Head3DError("finding faces needs facenet-pytorch: pip install facenet-pytorch==2.5.3") from None
    return MTCNN(device=torch.device(device))


def load(device: str = "cpu") -> None:
    """Loads the detector, which `find_faces` otherwise does at its first call.

    Do so before opening an OpenGL context in the same process: torchvision brings in Triton, whose LLVM and that of
    Mesa's software renderer do not get on if Mesa's comes first (the process ends in a segmentation fault).

    Raises Head3DError if facenet-pytorch is not installed.
    """
    _mtcnn(device)


def find_faces(images: Tensor | Sequence[NDArray[np.uint8]], device: str = "cpu") -> list[list[Face]]:
    """All faces of each image, largest first, by MTCNN with its defaults.

    Args:
        images: uint8 [N, 3, H, W], or a sequence of uint8 [H, W, 3] arrays of any sizes (then one at a time).
        device: where the detector runs.

    Returns:
        One list per image, empty where nothing was found (MTCNN's own thresholds are 0.6, 0.7, 0.7).
    """
    detector = _mtcnn(device)
    chunks: list[NDArray[np.uint8]]
    if isinstance(images, Tensor):
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise Head3DError(f"images must be uint8 [N, 3, H, W], got {images.dtype} {list(images.shape)}")
        pixels = images.movedim(1, -1).cpu().contiguous().numpy()
        chunks = [pixels[i : i + _BATCH] for i in range(0, len(pixels), _BATCH)]
    else:
        chunks = [np.ascontiguousarray(image)[None] for image in images]
    found: list[list[Face]] = []
    for chunk in chunks:
        if min(chunk.shape[1:3]) < SMALLEST:  # which MTCNN cannot take
            found += [[] for _ in chunk]
            continue
        boxes, probabilities, points = detector.detect(chunk, landmarks=True)
        for b, p, q in zip(boxes, probabilities, points, strict=True):
            # The arrays come back with dtype object, and as None where there is no face.
            rows = [] if b is None else zip(b, p, q, strict=True)
            found.append(
                [Face(float(x[1]), np.asarray(x[0], np.float64), np.asarray(x[2], np.float64)) for x in rows]
            )
    return found


def face_probability(images: Tensor, device: str = "cpu") -> Tensor:
    """Probability of the most certain face in each image, [N] float32; 0 where there is none.

    Images are uint8 [N, 3, H, W]; other sizes than 256² are resized to it first (antialiased), because the rates of
    this project are defined there.
    """
    if images.ndim == 4 and tuple(images.shape[-2:]) != (SIDE, SIDE) and len(images):
        resized = torch.nn.functional.interpolate(
            images.float(), size=(SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False
        )
        images = resized.round().clamp(0, 255).to(torch.uint8)
    return torch.tensor(
        [max((f.probability for f in faces), default=0.0) for faces in find_faces(images, device)]
    )


def detection_rate(images: Tensor) -> Estimate:
    """Share of images uint8 [N, 3, H, W] in which a face is found with probability > `THRESHOLD`.

    On back views (|yaw| >= 135 degrees) this is the Janus rate: the share of heads with a second face.
    """
    return share(int((face_probability(images) > THRESHOLD).sum()), len(images))
