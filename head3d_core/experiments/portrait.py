"""From one photograph to a head: the nearest drawn person, from all sides.

    python -m head3d_core portrait me.jpg --out me

The largest face is detected and aligned, its camera estimated from five landmarks (`datasets.prepare`), and the
background made white: by the segmentation model where it is installed, else where the background is plain. Then the
inversion starts at the nearest of many samples and fits code and pose together. Our generators know procedural people
only, so the result is the nearest drawn person, not a likeness. Its distance from the photograph is printed beside
distances that say what is near.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from tyro.conf import Positional, arg

from head3d_core.checkpoints import weights as checkpoint
from head3d_core.datasets import matting, prepare
from head3d_core.datasets.photos import Rejected, read_photo
from head3d_core.experiments import study
from head3d_core.experiments.inversion import Inversion, InversionOptions, invert, view_errors
from head3d_core.geometry import mesh, turntable
from head3d_core.metrics.identity_encoder import load_encoder
from head3d_core.model import cameras
from head3d_core.model.generator import Generator
from head3d_core.model.seeds import ws_of_seeds
from head3d_core.utils import images, records
from head3d_core.utils.devices import usable_device
from head3d_core.utils.errors import Head3DError

SIDE = 256
"""Side of the aligned crop, pixels."""
PULL = 3e-2
"""Pull of the codes to those that the generator knows, see `InversionOptions.typical`."""
STRANGERS = 16
"""Samples whose mutual distance is shown as that of unrelated drawn people."""
FACE, HEAD = (0.5, 0.62, 0.2, 0.26), (0.5, 0.55, 0.36, 0.42)
"""Ellipses in an aligned crop, as shares of its side: centre (x, y) and half axes."""
PLAIN = 8.0
"""Difference from a plane of colour within which a background is plain, CIELAB units."""
HOW = matting.HOW_TO_MATTE.removeprefix("backgrounds are kept: for white ones, ")
"""How to get the segmentation model."""
SHOWN = (0.0, 90.0, 180.0)
"""Yaws of the comparison, degrees: front, side and back."""


@dataclass(frozen=True)
class PortraitArgs:
    """One photograph of a person -> the nearest head that a generator knows, from all sides."""

    photo: Positional[Annotated[Path, arg(metavar="PHOTO")]]
    """A photograph with one large face, not too far from the front."""
    out: Path = Path("out/portrait")
    """Folder to write; must not exist, or be empty."""
    weights: str = "head3d"
    """A bundled name, or a path of ours or of an EG3D .pkl."""
    other: Path | None = None
    """Another photograph of the same person: its distance is shown beside that of the head."""
    candidates: int = 512
    """Samples that are looked at for a start."""
    steps: int = 150
    """Iterations with one code w."""
    layer_steps: int = 50
    """Iterations with one code per layer afterwards."""
    rate: float = InversionOptions.rate
    """Largest step in w, in standard deviations of w. With fewer iterations take a smaller one: after 40 and
    20 iterations, rounding decides where steps of 0.05 end, and does not with 0.02."""
    matting: matting.Matting = "auto"
    """auto: white background if the segmentation model is found; on: insist; off: keep the background."""
    matting_model: Path | None = None
    """selfie_segmentation.tflite; None: the one in an installed mediapipe package."""
    resolution: int = 192
    """Points of the grid of sigma per side, for the surface in head.glb."""
    frames: int = 60
    """Of the turntable."""
    device: str = "cpu"
    """Where to run: cpu, cuda, ..."""


def aligned(path: Path, args: PortraitArgs, matte: matting.Matte | None) -> prepare.Prepared:
    """The aligned crop and camera of the one large face of a photograph.

    Raises:
        Head3DError: a file that is no image, no face, several large faces, or a face that is too small, cut off or seen
            too far from the side; each in one sentence that names the file.
    """
    if not path.is_file():
        raise Head3DError(f"no photograph at {path}: expected an image file with one face")
    if matte is None and args.matting == "auto":
        matte = plain_background
    try:
        options = prepare.PrepareDataArgs(source=path.parent, resolution=SIDE)
        made = prepare.prepare_photo(read_photo(path), options, path.name, matte, args.device)
        if made.large > 1:
            raise Rejected(f"it shows {made.large} large faces: crop it to one person")
    except Rejected as reason:
        raise Head3DError(f"{path} cannot be used: {reason}") from None
    return made


def plain_background(image: NDArray[np.uint8]) -> NDArray[np.float32] | None:
    """Coverage [R, R] by the person in [0, 1], if the background is plain; else None.

    A plane of colour (CIELAB, linear in x and y) is fitted to the upper border. Where most of that border is near the
    plane, the background is what hangs together with it and differs little from it.

    Args:
        image: [R, R, 3], a person in the middle, cut off by the lower edge.
    """
    from scipy import ndimage
    from skimage.color import rgb2lab

    side = len(image)
    lab = ndimage.gaussian_filter(rgb2lab(image), (1, 1, 0))
    y, x = np.mgrid[:side, :side] / side
    terms = np.stack([np.ones_like(x), x, y], -1)
    border = ((x < 0.03) | (x > 0.97) | (y < 0.03)) & (y < 0.6)
    plane, *_ = np.linalg.lstsq(terms[border], lab[border], rcond=None)
    apart = np.linalg.norm(lab - terms @ plane, axis=-1)
    if np.quantile(apart[border], 0.9) > PLAIN:
        return None
    regions, _ = ndimage.label(apart < 1.5 * PLAIN)
    outside = np.isin(regions, np.unique(regions[border & (regions > 0)]))
    person, _ = ndimage.label(ndimage.binary_fill_holes(ndimage.binary_opening(~outside, iterations=2)))
    middle = person == person[side // 2, side // 2]
    if not person[side // 2, side // 2] or not 0.1 < middle.mean() < 0.9:
        return None
    return ndimage.gaussian_filter(middle.astype(np.float32), 1.0)


def pixel_weight(kept: bool) -> Tensor:
    """[1, 1, SIDE, SIDE] in [0, 1]: the face counts most, then the head; a background that was kept does not count."""
    at = (torch.arange(SIDE) + 0.5) / SIDE

    def ellipse(x: float, y: float, a: float, b: float) -> Tensor:
        radius = (((at[None] - x) / a).square() + ((at[:, None] - y) / b).square()).sqrt()
        return ((1.1 - radius) / 0.2).clamp(0, 1)

    outside = 0.0 if kept else 1 / 3
    return torch.maximum(ellipse(*FACE), ellipse(*HEAD) / 3).clamp_min(outside)[None, None]


@torch.no_grad()
def identity_distances(
    G: Generator, result: Inversion, photo: prepare.Prepared, other: prepare.Prepared | None
) -> dict[str, Any]:
    """1 - cosine of face embeddings: photograph to head, and what to compare it with.

    A second photograph is the fair comparison. Without one, the photograph's mirror image stands in for it (a lower
    bound: same light, same moment), and the mean between unrelated samples says how far strangers are apart.
    """
    encoder = load_encoder("auto", G.device)

    def embedded(pixels: NDArray[np.uint8], view: Tensor) -> Tensor:
        return encoder.embed(images.from_pixels(pixels)[None], view)

    def rendered(ws: Tensor, view: Tensor) -> Tensor:
        return encoder.embed(G.render(G.planes(ws), ws, view.to(G.device)).image.clamp(-1, 1).cpu(), view)

    face = embedded(photo.image, photo.pose.camera())

    def apart(other: Tensor) -> float:
        return round(float(1 - face @ other.T), 4)

    mirrored = np.ascontiguousarray(photo.image[:, ::-1])
    samples = ws_of_seeds(G, range(STRANGERS), 0.7).split(1)
    strangers = torch.cat([rendered(ws, cameras.frontal(1)) for ws in samples])
    between = (1 - strangers @ strangers.T)[~torch.eye(STRANGERS, dtype=torch.bool)].mean()
    found = {
        "encoder": encoder.name,
        "photograph to head": apart(rendered(result.ws, result.camera.cpu())),
        "photograph to its mirror image": apart(
            embedded(mirrored, cameras.orbit(-photo.pose.yaw, photo.pose.pitch))
        ),
        "between unrelated samples": round(float(between), 4),
    }
    if other is not None:
        found["photograph to other photograph"] = apart(embedded(other.image, other.pose.camera()))
    return found


def comparison(G: Generator, result: Inversion, photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Photograph, the head from the photograph's camera, and from front, side and back, with names: [H, W, 3]."""
    with torch.no_grad():
        planes = G.planes(result.ws)
        seen = G.render(planes, result.ws, result.camera).image
    around = turntable.views(G, planes, result.ws, SHOWN)[0]
    cells = torch.cat([seen, around]).clamp(-1, 1).cpu()
    target = images.from_pixels(photo)[None]
    target = F.interpolate(target, size=cells.shape[-2:], mode="bilinear", antialias=True)
    sheet = images.montage(torch.cat([target.clamp(-1, 1), cells]), 5)
    return images.with_names(
        sheet, ["nearest drawn person"], ["photograph", "same view", "front", "side", "back"]
    )


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A new folder that becomes `out` when the block ends, and vanishes if it raises.

    Raises:
        Head3DError: `out` is there already and not empty.
    """
    if out.is_dir() and not any(out.iterdir()):
        out.rmdir()
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as neighbour:
        made = Path(neighbour, out.name)
        made.mkdir()
        yield made
        made.rename(out)


def portrait(args: PortraitArgs, bar: Callable[[str], Any] = lambda _: nullcontext()) -> dict[str, Any]:
    """Writes comparison.png, turntable.mp4 with its sheet, head.glb and portrait.json; returns the content of the last.

    Args:
        bar: opens a progress bar with a name, as `study.bar`; none by default.

    Raises:
        Head3DError: a photograph that cannot be used (see `aligned`), an `out` that is in use or cannot be written,
            options out of range, or weights that cannot be had. Nothing is written then.
    """
    start = time.perf_counter()
    if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        raise Head3DError(f"{args.out} exists already: give --out another folder")
    turntable.check_places(args.out / "turntable.mp4")
    if args.frames < 3 or args.resolution < 8 or args.candidates < 1:
        raise Head3DError(
            "a portrait needs at least 1 candidate, 3 frames and a grid of 8 points per side, got "
            f"{args.candidates}, {args.frames} and {args.resolution}"
        )
    # Near the estimated pose, and among codes that the generator was trained on.
    how = InversionOptions(camera_rate=0.01, refine=True, pull=PULL, typical=True)
    sizes = {name: getattr(args, name) for name in ("steps", "layer_steps", "candidates", "rate")}
    options = replace(how, **sizes)
    matte = matting.load_matte(args.matting, args.matting_model)
    photo = aligned(args.photo, args, matte)
    other = None if args.other is None else aligned(args.other, args, matte)
    G = checkpoint.load_generator(args.weights, device=usable_device(args.device))
    image, camera = images.from_pixels(photo.image)[None], photo.pose.camera()
    weight = pixel_weight(photo.mask is None)
    with bar("samples") as looking, bar("iterations") as step:
        result = invert(G, image, camera, options, step, weight=weight, looking=looking)
    yaw, pitch = (math.degrees(float(a)) for a in cameras.yaw_pitch(result.camera.cpu()))
    stages = {"nearest sample": result.start, "one code": result.w, "a code per layer": result.ws}
    with bar("surface") as step:
        head = mesh.extract_mesh(G, result.ws, args.resolution, progress=step)
    with bar("frames") as step:
        film = turntable.frames(G, result.ws, args.frames, progress=step)
    named = replace(args, photo=Path(args.photo.name), other=args.other and Path(args.other.name))
    record = {
        "about": "the nearest person that the generator can draw; it knows procedural people only",
        "photograph": photo.facts(args.photo.name),
        "background": "white" if photo.mask is not None else "kept: outside the head it does not count",
        "camera": {"yaw_deg": round(yaw, 2), "pitch_deg": round(pitch, 2)},
        "image_error": {
            k: round(float(view_errors(G, ws, image, result.camera, weight)), 4) for k, ws in stages.items()
        },
        "identity_distance": identity_distances(G, result, photo, other),
        "loss": [round(float(x), 6) for x in result.loss[:, 0]],
        "seconds": round(time.perf_counter() - start, 1),
        "provenance": records.provenance(study.command("portrait", named), args.device),
    }
    with whole_folder(args.out) as folder:
        images.save(comparison(G, result, photo.image), folder / "comparison.png")
        turntable.write(film, folder / "turntable.mp4", 20, sheet=True)
        mesh.save(head, folder / "head.glb")
        records.write(folder / "portrait.json", record)
    return record


def lines(record: dict[str, Any]) -> list[str]:
    """The record as text: pose, errors, and the distance beside the distances that say what is near."""
    errors = ", ".join(f"{stage} {value:.3f}" for stage, value in record["image_error"].items())
    distances = dict(record["identity_distance"])
    encoder = distances.pop("encoder")
    camera = record["camera"]
    return [
        "This is the nearest person that the generator can draw. It knows procedural people only; it is no likeness.",
        f"camera: yaw {camera['yaw_deg']:.1f}°, pitch {camera['pitch_deg']:.1f}°",
        f"image error (share of black to white): {errors}",
        f"identity distance (1 - cosine, {encoder}): "
        + ", ".join(f"{k} {v:.2f}" for k, v in distances.items()),
        f"{record['seconds']:.0f} s",
    ]


def run(args: PortraitArgs) -> None:
    """The command `portrait`."""
    record = portrait(args, study.bar)
    print(*lines(record), sep="\n")
    if record["background"].startswith("kept"):
        print(
            f"The background was kept and outside the head it did not count: a plain one works best, or {HOW}"
        )
    print(f"wrote {args.out}")
