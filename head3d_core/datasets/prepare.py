"""Your own images as a data set: detect, align, estimate the camera, cut out, write in EG3D's format.

    python -m head3d_core prepare-data portraits --out my_faces

Per photograph: MTCNN finds the largest face and its five landmarks; `facepose.fit_pose` finds the camera and the crop;
the crop is made and looked at once more, because landmarks are better on a face of the usual size and upright; if
MediaPipe's selfie segmentation is there, the background turns white. What cannot be used is listed in report.json,
with the reason.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tyro.conf import Positional, arg

from head3d_core.datasets import face_detector, face_pose
from head3d_core.datasets.matting import HOW_TO_MATTE, Matte, Matting, load_matte
from head3d_core.datasets.photos import Pixels, Rejected, find_entries, read_photo
from head3d_core.datasets.storage import IMAGE_SUFFIXES
from head3d_core.datasets.writer import Geometry, writing_dataset
from head3d_core.utils import files
from head3d_core.utils.errors import Head3DError, printable
from head3d_core.utils.progress import Progress, bar

_DETECT_SIDE = 1024


@dataclass(frozen=True)
class PrepareDataArgs:
    """A folder of portraits -> a data set with cameras, in EG3D's format."""

    source: Positional[Annotated[Path, arg(metavar="SOURCE")]]
    """Folder of photographs (searched below as well)."""
    out: Path = Path("prepared")
    """Folder, or a name ending in .zip, to write; must not exist."""
    resolution: int = 256
    """Side of the written images, pixels; a power of two."""
    matting: Matting = "auto"
    """auto: white background if the segmentation model is found; on: insist; off: keep backgrounds."""
    matting_model: Path | None = None
    """selfie_segmentation.tflite; None: the one in an installed mediapipe package."""
    min_probability: float = face_detector.THRESHOLD
    """Reject faces the detector is less sure of."""
    min_side: float = 0.5
    """Reject crops narrower than this share of the resolution: they would have to be enlarged."""
    max_yaw: float = 60.0
    """Reject cameras further to the side, degrees: the detector's landmarks are not reliable there."""
    max_residual: float = 0.03
    """Reject landmarks that fit no view of a face better than this, in crop widths."""
    max_outside: float = 0.3
    """Reject crops with more than this share outside the photograph."""


@dataclass(frozen=True)
class Prepared:
    """One photograph, ready to be written."""

    file: str
    image: Pixels
    """[R, R, 3]"""
    mask: NDArray[np.float32] | None
    """[R, R] coverage by the person in [0, 1]; None where the background was kept."""
    pose: face_pose.FacePose
    probability: float
    outside: float
    """Share of the crop that lay outside the photograph (filled with its border)."""
    faces: int
    """Found in the photograph; the largest is used."""
    large: int
    """Those of them that are certain and at least half as high as the largest."""

    def facts(self, image: str) -> dict[str, Any]:
        """Its line in report.json; `image` is its name in the set."""
        angles = {f"{k}_deg": round(math.degrees(getattr(self.pose, k)), 2) for k in ("yaw", "pitch", "roll")}
        return {
            "file": self.file,
            "image": image,
            **angles,
            "crop_side_px": round(self.pose.side, 1),
            "residual": round(self.pose.residual, 4),
            "probability": round(self.probability, 4),
            "outside": round(self.outside, 3),
            "faces": self.faces,
            "matted": self.mask is not None,
        }


@dataclass
class Report:
    """What became of every photograph."""

    accepted: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[dict[str, str]] = field(default_factory=list)
    left_out: list[dict[str, str]] = field(default_factory=list)
    """Entries that are no photographs, with the reason."""
    matting: str = "off"

    def to_dict(self) -> dict[str, Any]:
        """The content of report.json."""
        parts = {k: getattr(self, k) for k in ("accepted", "rejected", "left_out")}
        return {**parts, "background": self.matting}

    def table(self) -> str:
        """The summary that the command prints."""
        total = len(self.accepted) + len(self.rejected)
        lines = [f"{len(self.accepted)} of {total} photographs accepted; background: {self.matting}"]
        for name in ("yaw_deg", "pitch_deg", "roll_deg", "residual"):
            values = [row[name] for row in self.accepted]
            if values:
                low, middle, high = np.percentile(values, [0, 50, 100])
                lines.append(f"  {name:<10} {low:8.3g} .. {high:8.3g}   median {middle:.3g}")
        reasons = Counter(row["reason"].split(":")[0] for row in self.rejected)
        lines += [f"  rejected {count:4d}  {reason}" for reason, count in reasons.most_common()]
        return "\n".join(lines)


def crop(photo: Pixels, pose: face_pose.FacePose, resolution: int) -> tuple[Pixels, float]:
    """The image that the camera of `pose` takes: ([R, R, 3], share of it outside the photograph).

    Large crops are sampled finely and averaged, so that they do not alias; outside, the border is continued.
    """
    fine = resolution * max(1, math.ceil(pose.side / resolution))
    a, b, c, d, e, f = pose.affine(fine)
    ends = np.array([(a * x + b * y + c, d * x + e * y + f) for x in (0, fine) for y in (0, fine)])
    height, width = photo.shape[:2]
    left, top = np.maximum(0, np.ceil(-ends.min(0)) + 2).astype(int)
    right, bottom = np.maximum(0, np.ceil(ends.max(0) - (width, height)) + 2).astype(int)
    padded = np.pad(photo, ((top, bottom), (left, right), (0, 0)), mode="edge")
    moved = (a, b, c + left, d, e, f + top)
    size = (fine, fine)
    picture = Image.fromarray(padded).transform(size, Image.Transform.AFFINE, moved, Image.Resampling.BICUBIC)
    inside = Image.fromarray(np.full((height, width), 255, np.uint8)).transform(
        size, Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.NEAREST
    )
    if fine != resolution:
        picture = picture.reduce(fine // resolution)
    return np.asarray(picture), 1 - float(np.asarray(inside).mean()) / 255


def _largest(photo: Pixels, device: str) -> tuple[face_detector.Face, int, int]:
    """(largest face, number of faces, of large ones), found on a copy of at most 1024 pixels a side."""
    shrink = max(photo.shape[:2]) / _DETECT_SIDE
    small = photo
    if shrink > 1:
        size = (max(1, round(photo.shape[1] / shrink)), max(1, round(photo.shape[0] / shrink)))
        small = np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.LANCZOS))
    if min(small.shape[:2]) < face_detector.SMALLEST:
        raise Rejected(f"too small or too narrow for a face: {photo.shape[1]} x {photo.shape[0]} pixels")
    (faces,) = face_detector.find_faces([small], device)
    if not faces:
        raise Rejected("no face found")
    scale = np.array([photo.shape[1] / small.shape[1], photo.shape[0] / small.shape[0]])
    face = faces[0]
    sure = [f for f in faces if f.probability > face_detector.THRESHOLD]
    large = sum(2 * np.ptp(f.box[1::2]) >= np.ptp(face.box[1::2]) for f in sure)
    enlarged = face_detector.Face(face.probability, face.box * np.tile(scale, 2), face.landmarks * scale)
    return enlarged, len(faces), int(large)


def _again(photo: Pixels, pose: face_pose.FacePose, device: str) -> tuple[face_pose.FacePose, float] | None:
    """(better pose, probability) from landmarks in the upright 256-pixel crop of `pose`; None if no face is found.

    The detector does not find the same points in a mirrored image, so both are looked at and the points averaged.
    """
    picture, _ = crop(photo, pose, face_detector.SIDE)
    both = torch.from_numpy(np.stack([picture, picture[:, ::-1]])).movedim(-1, 1)
    seen, mirrored = face_detector.find_faces(both, device)
    landmarks_seen = [face[0].landmarks for face in (seen,) if face]
    if mirrored:
        flipped = mirrored[0].landmarks * (-1, 1) + (face_detector.SIDE, 0)
        landmarks_seen.append(flipped[list(face_pose.MIRRORED)])
    if not landmarks_seen:
        return None
    a, b, c, d, e, f = pose.affine(face_detector.SIDE)
    points = np.mean(landmarks_seen, 0) @ np.array([[a, d], [b, e]]) + (c, f)
    return face_pose.fit_pose(points), max(faces[0].probability for faces in (seen, mirrored) if faces)


def prepare_photo(
    photo: Pixels, args: PrepareDataArgs, file: str = "", matte: Matte | None = None, device: str = "cpu"
) -> Prepared:
    """One photograph uint8 [H, W, 3] -> crop, camera and mask. Raises Rejected with the reason."""
    face, count, large = _largest(photo, device)
    try:
        pose, probability = face_pose.fit_pose(face.landmarks), face.probability
        if not 1 < pose.side < 8 * max(photo.shape[:2]):
            raise Rejected(f"the landmarks fit no view of a face: its crop is {pose.side:.3g} pixels wide")
        better = _again(photo, pose, device)
    except Head3DError as error:
        raise Rejected(f"the landmarks fit no view of a face: {error}") from None
    if better is not None:
        pose, probability = better
    if probability < args.min_probability:
        raise Rejected(f"the detector is not sure: probability {probability:.2f}")
    if pose.residual > args.max_residual:
        raise Rejected(f"the landmarks fit no view of a face: residual {pose.residual:.3f} crop widths")
    if abs(math.degrees(pose.yaw)) > args.max_yaw:
        raise Rejected(f"seen too far from the side: yaw {math.degrees(pose.yaw):.0f} degrees")
    if pose.side < args.min_side * args.resolution:
        raise Rejected(f"the face is too small: its crop is {pose.side:.0f} pixels wide")
    image, outside = crop(photo, pose, args.resolution)
    if outside > args.max_outside:
        raise Rejected(f"the head is cut off: {outside:.0%} of its crop lie outside the photograph")
    mask = None if matte is None else matte(image)
    if mask is not None:
        white = image * mask[..., None] + 255 * (1 - mask[..., None])
        image = np.rint(white).astype(np.uint8)
    return Prepared(file, image, mask, pose, probability, outside, count, large)


def prepare_data(args: PrepareDataArgs, progress: Progress | None = None) -> Report:
    """Everything: reads `args.source`, writes `args.out` and a report beside the images (or beside the zip).

    No photograph ends the run: what cannot be used is rejected with the reason.

    Raises:
        Head3DError: nothing to read, `args.out` exists or cannot be written (both are found first), or not one
            photograph could be used (the reasons are counted).
    """
    if args.resolution < 32 or args.resolution & (args.resolution - 1):
        raise Head3DError(f"resolution must be a power of two from 32 up, got {args.resolution}")
    photos, left_out = find_entries(args.source)
    if not photos:
        raise Head3DError(
            f"no photographs in {args.source}: expected files ending in {', '.join(IMAGE_SUFFIXES)}"
        )
    listed = args.out.with_suffix(".report.json") if args.out.suffix == ".zip" else args.out / "report.json"
    for path in (args.out, listed):
        if path.exists():
            raise Head3DError(f"{path} exists already: remove it or choose another --out")
    files.check_writable(listed)
    face_detector.load()
    matte = load_matte(args.matting, args.matting_model)
    report = Report(matting="white (selfie segmentation)" if matte else "kept")
    report.left_out = [_line(args, path, why) for path, why in left_out]
    about = {"made_by": "python -m head3d_core prepare-data", "photographs": args.source.name}
    about["background"] = report.matting
    with writing_dataset(args.out, about=about) as add:
        for done, path in enumerate(photos, 1):
            try:
                item = prepare_photo(read_photo(path), args, _name(args, path), matte)
            except Rejected as reason:
                report.rejected.append(_line(args, path, str(reason)))
            except Exception as error:  # whatever one photograph does to a library, the others are written
                report.rejected.append(_line(args, path, f"failed: {type(error).__name__} ({error})"))
            else:
                truth: dict[Geometry, Any] | None = None if item.mask is None else {"mask": item.mask}
                name = add(item.image.transpose(2, 0, 1), item.pose.camera()[0], geometry=truth)
                report.accepted.append(item.facts(name))
            if progress:
                progress(done, len(photos))
        if not report.accepted:
            reasons = " ".join(report.table().split())
            raise Head3DError(f"no photograph of {args.source} could be used; {reasons}")
    files.write(listed, json.dumps(report.to_dict(), indent=1) + "\n")
    return report


def _name(args: PrepareDataArgs, path: Path) -> str:
    """Below the source, with forward slashes; bytes that are no text become question marks."""
    name = path.relative_to(args.source).as_posix()
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _line(args: PrepareDataArgs, path: Path, reason: str) -> dict[str, str]:
    """A line of report.json about an entry that is not used."""
    return {"file": _name(args, path), "reason": reason}


def run(args: PrepareDataArgs) -> None:
    """The command `prepare-data`: a progress bar, then what was accepted and rejected."""
    with bar("photographs") as step:
        report = prepare_data(args, step)
    print(report.table())
    for row in [*report.rejected, *report.left_out]:
        print(f"  {printable(row['file'])}: {printable(row['reason'])}")
    if args.matting == "auto" and report.matting == "kept":
        print(HOW_TO_MATTE)
    print(f"wrote {args.out}")
