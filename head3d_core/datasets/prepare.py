"""Your own pictures as a data set: detect, align, estimate the camera, cut out, write in EG3D's format.

    python -m head3d_core prepare-data portraits --out my_faces

Per photograph: MTCNN finds the largest face and its five landmarks; `facepose.fit_pose` finds the camera and the crop;
the crop is made and looked at once more, because landmarks are better on a face of the usual size and upright; if
MediaPipe's selfie segmentation is there, the background turns white. What cannot be used is listed in report.json,
with the reason.
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from tyro.conf import Positional, arg

from head3d_core.datasets import face_detector, face_pose
from head3d_core.datasets.format import IMAGE_SUFFIXES, image_name, write_dataset
from head3d_core.utils import files
from head3d_core.utils.errors import Head3DError

Pixels = NDArray[np.uint8]
Matting = Literal["auto", "on", "off"]
_DETECT_SIDE = 1024
_MODEL = "modules/selfie_segmentation/selfie_segmentation.tflite"
HOW_TO_MATTE = (
    "backgrounds are kept: for white ones, pip install ai-edge-litert==2.3.0, unpack the result of "
    "`npm pack @mediapipe/selfie_segmentation` and give --matting-model package/selfie_segmentation.tflite"
)


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

    def facts(self, index: int) -> dict[str, Any]:
        """Its line in report.json."""
        return {
            "file": self.file,
            "image": image_name(index),
            "yaw_deg": round(math.degrees(self.pose.yaw), 2),
            "pitch_deg": round(math.degrees(self.pose.pitch), 2),
            "roll_deg": round(math.degrees(self.pose.roll), 2),
            "crop_side_px": round(self.pose.side, 1),
            "residual": round(self.pose.residual, 4),
            "probability": round(self.probability, 4),
            "outside": round(self.outside, 3),
            "faces": self.faces,
            "matted": self.mask is not None,
        }


class Rejected(Exception):
    """Why a photograph is not used, in a few words."""


Matte = Callable[[Pixels], NDArray[np.float32]]


@dataclass
class Report:
    """What became of every photograph."""

    accepted: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[dict[str, str]] = field(default_factory=list)
    matting: str = "off"

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


def read_photo(path: Path) -> Pixels:
    """[H, W, 3] upright (EXIF orientation applied), transparency over white. Raises Rejected if it cannot be read."""
    try:
        with Image.open(path) as opened:
            picture = ImageOps.exif_transpose(opened)
            if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
                picture = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
            return np.asarray(picture.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise Rejected(f"unreadable: {error}") from None


def crop(photo: Pixels, pose: face_pose.FacePose, resolution: int) -> tuple[Pixels, float]:
    """The picture that the camera of `pose` takes: ([R, R, 3], share of it outside the photograph).

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


def _largest(photo: Pixels, device: str) -> tuple[face_detector.Face, int]:
    """(largest face, number of faces), found on a copy of at most 1024 pixels a side."""
    shrink = max(photo.shape[:2]) / _DETECT_SIDE
    small = photo
    if shrink > 1:
        size = (round(photo.shape[1] / shrink), round(photo.shape[0] / shrink))
        small = np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.LANCZOS))
    (faces,) = face_detector.find_faces([small], device)
    if not faces:
        raise Rejected("no face found")
    scale = np.array([photo.shape[1] / small.shape[1], photo.shape[0] / small.shape[0]])
    face = faces[0]
    return face_detector.Face(face.probability, face.box * np.tile(scale, 2), face.landmarks * scale), len(
        faces
    )


def _again(photo: Pixels, pose: face_pose.FacePose, device: str) -> tuple[face_pose.FacePose, float] | None:
    """(better pose, probability) from landmarks in the upright 256-pixel crop of `pose`; None if no face is found.

    The detector does not find the same points in a mirrored picture, so both are looked at and the points averaged.
    """
    picture, _ = crop(photo, pose, face_detector.SIDE)
    both = torch.from_numpy(np.stack([picture, picture[:, ::-1]])).movedim(-1, 1)
    seen, mirrored = face_detector.find_faces(both, device)
    found = [face[0].landmarks for face in (seen,) if face]
    if mirrored:
        flipped = mirrored[0].landmarks * (-1, 1) + (face_detector.SIDE, 0)
        found.append(flipped[list(face_pose.MIRRORED)])
    if not found:
        return None
    a, b, c, d, e, f = pose.affine(face_detector.SIDE)
    points = np.mean(found, 0) @ np.array([[a, d], [b, e]]) + (c, f)
    return face_pose.fit_pose(points), max(faces[0].probability for faces in (seen, mirrored) if faces)


def prepare_photo(
    photo: Pixels, args: PrepareDataArgs, file: str = "", matte: Matte | None = None, device: str = "cpu"
) -> Prepared:
    """One photograph uint8 [H, W, 3] -> crop, camera and mask. Raises Rejected with the reason."""
    face, count = _largest(photo, device)
    pose, probability = face_pose.fit_pose(face.landmarks), face.probability
    better = _again(photo, pose, device)
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
    mask = None
    if matte is not None:
        mask = matte(image)
        white = image * mask[..., None] + 255 * (1 - mask[..., None])
        image = np.rint(white).astype(np.uint8)
    return Prepared(file, image, mask, pose, probability, outside, count)


def matting_model(path: Path | None = None) -> Path | None:
    """The segmentation model: `path`, or the one inside an installed mediapipe package (which is not imported)."""
    if path is not None:
        if not path.is_file():
            raise Head3DError(f"no segmentation model at {path}: expected selfie_segmentation.tflite")
        return path
    spec = importlib.util.find_spec("mediapipe")
    folders = (spec.submodule_search_locations or []) if spec else []
    return next((Path(folder) / _MODEL for folder in folders if (Path(folder) / _MODEL).is_file()), None)


def load_matte(mode: Matting = "auto", path: Path | None = None) -> Matte | None:
    """A function from an image [H, W, 3] to the person's coverage [H, W] in [0, 1]; None where there is none to be had.

    It runs MediaPipe's selfie segmentation (256 x 256, Apache-2.0) in LiteRT. It separates a person, clothes and hat
    included, from the background; it knows no parts of the face. Raises Head3DError if mode is "on" and it is missing.
    """
    if mode == "off":
        return None
    model = matting_model(path)
    if model is None or importlib.util.find_spec("ai_edge_litert") is None:
        if mode == "on":
            raise Head3DError(f"no matting: {HOW_TO_MATTE}")
        return None
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(model), num_threads=2)
    interpreter.allocate_tensors()
    entry, exit_ = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    side = int(entry["shape"][1])

    def matte(image: Pixels) -> NDArray[np.float32]:
        small = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))
        interpreter.set_tensor(entry["index"], small[None].astype(np.float32) / 255)
        interpreter.invoke()
        mask = interpreter.get_tensor(exit_["index"])[0, ..., 0].astype(np.float32)
        full = Image.fromarray(mask).resize(image.shape[1::-1], Image.Resampling.BICUBIC)
        # The soft values are a classifier's doubt, not coverage: steepen them, so that no veil of background stays.
        return np.clip((np.asarray(full, np.float32) - 0.3) / 0.5, 0, 1)

    return matte


def find_photos(source: Path) -> list[Path]:
    """Images below a folder, sorted. Raises Head3DError if there is no such folder or nothing in it."""
    if not source.is_dir():
        raise Head3DError(f"no folder {source}: expected one with portraits ({', '.join(IMAGE_SUFFIXES)})")
    photos = sorted(p for p in source.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    if not photos:
        raise Head3DError(f"no photographs in {source}: expected files ending in {', '.join(IMAGE_SUFFIXES)}")
    return photos


def prepare_data(args: PrepareDataArgs, progress: Callable[[int, int], None] | None = None) -> Report:
    """Everything: reads `args.source`, writes `args.out` and a report beside the images (or beside the zip).

    Raises:
        Head3DError: nothing to read, `args.out` exists, or not one photograph could be used (the reasons are counted).
    """
    if args.resolution < 32 or args.resolution & (args.resolution - 1):
        raise Head3DError(f"resolution must be a power of two from 32 up, got {args.resolution}")
    if args.out.exists():
        raise Head3DError(f"{args.out} exists already: remove it or choose another --out")
    photos = find_photos(args.source)
    matte = load_matte(args.matting, args.matting_model)
    report = Report(matting="white (selfie segmentation)" if matte else "kept")
    kept: list[Prepared] = []
    for done, path in enumerate(photos):
        name = path.relative_to(args.source).as_posix()
        try:
            kept.append(prepare_photo(read_photo(path), args, name, matte))
        except Rejected as reason:
            report.rejected.append({"file": name, "reason": str(reason)})
        if progress:
            progress(done + 1, len(photos))
    if not kept:
        raise Head3DError(f"no photograph of {args.source} could be used; {' '.join(report.table().split())}")
    report.accepted = [item.facts(index) for index, item in enumerate(kept)]
    _write(args, kept, report)
    return report


def _write(args: PrepareDataArgs, kept: Sequence[Prepared], report: Report) -> None:
    masks = [item.mask for item in kept if item.mask is not None]
    write_dataset(
        args.out,
        (torch.from_numpy(item.image.copy()).movedim(-1, 0) for item in kept),
        face_pose.as_cameras([item.pose for item in kept]),
        geometry={"mask": masks} if masks else None,
        about={
            "made_by": "python -m head3d_core prepare-data",
            "photographs": args.source.name,
            "background": report.matting,
        },
    )
    document = {"accepted": report.accepted, "rejected": report.rejected, "background": report.matting}
    beside = args.out.with_suffix(".report.json") if args.out.suffix == ".zip" else args.out / "report.json"
    with files.atomic(beside) as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def run(args: PrepareDataArgs) -> None:
    """The command `prepare-data`: a progress bar, then what was accepted and rejected."""
    from tqdm import tqdm

    if args.matting == "auto" and load_matte("auto", args.matting_model) is None:
        print(HOW_TO_MATTE)
    with tqdm(unit="photo") as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        report = prepare_data(args, progress)
    print(report.table())
    for row in report.rejected:
        print(f"  {row['file']}: {row['reason']}")
    print(f"wrote {args.out}")
