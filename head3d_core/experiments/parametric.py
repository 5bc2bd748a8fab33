"""Parametric head models to compare Head3D with (the paper's Fig. 7): trained on the same 50 heads, measured, drawn.

    python -m head3d_core parametric

The explicit model is of LYHM's kind, the implicit one of i3DMM's. Their released weights need licences, so both are
trained from scratch on scans of the head set (`head_scans`). Measured on heads that neither has seen, with the same
cameras. What is written to `--out`: `parametric.json` and `parametric_*.jpg`; models and scans stay in `--work`.

Images of random heads are uint8 [N, 3, R, R, 3]: N heads from the front, the side and the back, R² pixels. Fig. 7
takes them from the recorded sheets, from Head3D itself, and from a folder of renders that a reader made with models
whose licences keep them out of this repository (LYHM, i3DMM, DECA); `data/external/README.md` describes that folder.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from head3d_core.datasets import face_detector
from head3d_core.experiments import head_scans, implicit, morphable, study
from head3d_core.experiments.head_scans import SHOWN, SHOWN_PITCH, Array, Surface, Views, cached, draw, scan
from head3d_core.experiments.implicit import ImplicitHeads
from head3d_core.experiments.morphable import MorphableModel
from head3d_core.geometry import turntable
from head3d_core.metrics import silhouettes
from head3d_core.model.generator import Generator
from head3d_core.model.seeds import heads_of_seeds
from head3d_core.synth import sets
from head3d_core.synth.draws import SAMPLER_VERSION
from head3d_core.synth.identity import HEADS, HELD_OUT_HEADS
from head3d_core.utils import files, images, records
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.estimates import bootstrap_mean
from head3d_core.utils.progress import counted

Pictures = NDArray[np.uint8]
T = TypeVar("T")
MODELS = {"explicit": "explicit (PCA mesh, as LYHM)", "implicit": "implicit (auto-decoded SDF, as i3DMM)"}
"""The models that `parametric` records, and how figures call them."""
EXTERNAL = files.DATA / "external"
"""Where renders of other people's models are looked for; empty in the repository."""
MOST_BYTES = 64_000
"""Size of a recorded sheet, at most."""
_RENDER = re.compile(rf"(.+)_({'|'.join(SHOWN)})\.png")


@dataclass(frozen=True)
class ParametricArgs:
    """Trains both parametric head models, measures them on held-out heads and draws samples of them."""

    heads: int = 50
    """Training heads, the first of the head set."""
    held_out: int = 10
    """Heads that the models have not seen, on which errors are measured."""
    samples: int = 16
    """Random heads of each model in which faces are looked for."""
    steps: int = implicit.ImplicitConfig.steps
    """Training steps of the implicit model."""
    finishing_steps: int = implicit.ImplicitConfig.finishing_steps
    """Its last steps, which look at faces; with a GPU both can be ten times as many."""
    spread: float = 0.7
    """Random codes are this many standard deviations from the mean, as Head3D's samples are truncated to 0.7."""
    resolution: int = 144
    """Grid points along the implicit model's box when its surface is taken."""
    work: Path = Path("out/parametric")
    """Folder for scans and models; what is there is used again."""
    out: Path = Path("out/parametric/results")
    """Folder for the table and the images."""
    device: str = "cpu"
    """Where the implicit model is trained."""


def registered_head(work: Path, seed: int) -> Surface:
    """The scan of head `seed` in `work` as the explicit model's mesh, kept in a file."""
    path = work / f"registered_v{SAMPLER_VERSION}_{seed:05d}.npz"
    return Surface(**cached(path, lambda: vars(morphable.registered(seed, scan(work, seed)[0]))))


def points_of(work: Path, seed: int) -> Array:
    """The scan of head `seed` in `work` as the implicit model's points [M, 7] (`head_points`), kept in a file."""
    path = work / f"point_rows_v{SAMPLER_VERSION}_{seed:05d}.npz"
    return cached(path, lambda: {"rows": implicit.head_points(scan(work, seed)[0], seed=seed)})["rows"]


def _timed(train: Callable[[], T]) -> tuple[T, dict[str, float]]:
    """What training makes, and the seconds that it took: by the clock ("wall") and of processor time ("cpu")."""
    clocks = {"wall": time.perf_counter, "cpu": time.process_time}
    start = {name: clock() for name, clock in clocks.items()}
    model = train()
    return model, {name: round(clock() - start[name], 1) for name, clock in clocks.items()}


def _implicit(args: ParametricArgs, seeds: Sequence[int]) -> tuple[ImplicitHeads, dict[str, float]]:
    """The implicit model and how long its training took; trained only where none made of the same is kept."""
    config = implicit.ImplicitConfig(steps=args.steps, finishing_steps=args.finishing_steps)
    points = [points_of(args.work, seed) for seed in seeds]
    digest = hashlib.sha256(json.dumps([asdict(config), *seeds, SAMPLER_VERSION]).encode()).hexdigest()

    def train() -> dict[str, NDArray[Any]]:
        with study.bar("steps of the implicit model") as step:
            made, seconds = _timed(lambda: implicit.train_implicit(points, config, args.device, step))
        arrays = {name: tensor.numpy() for name, tensor in made.state_dict().items()}
        return {**arrays, "seconds": np.array([seconds["wall"], seconds["cpu"]])}

    arrays = cached(args.work / f"implicit_{digest[:8]}.npz", train)
    wall, cpu = arrays.pop("seconds").tolist()
    model = ImplicitHeads(config, len(seeds))
    model.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    return model.eval().requires_grad_(False), {"wall": wall, "cpu": cpu}


def view_errors(drawn: Sequence[Views], truth: Sequence[Views]) -> dict[str, Any]:
    """Silhouette, depth and colour of drawn heads against the true ones, each with an interval over heads.

    Returns:
        As `metrics.Estimate` dictionaries, over the pixels that both cover: "depth_error" (world units; a head is about
        0.4 tall), "colour_error" (mean absolute difference of sRGB in [0, 1]); and "silhouette_iou".
    """
    errors: dict[str, list[float]] = {"silhouette_iou": [], "depth_error": [], "colour_error": []}
    for a, b in zip(drawn, truth, strict=True):
        masks = [torch.from_numpy(v.mask) for v in (a, b)]
        both = (a.mask > 127) & (b.mask > 127) & (a.depth > 0) & (b.depth > 0)
        depth = np.where(both, np.abs(a.depth.astype(float) - b.depth), 0).sum((1, 2)) / both.sum((1, 2))
        errors["silhouette_iou"].append(float(silhouettes.silhouette_iou(*masks).mean()))
        errors["depth_error"].append(float(depth.mean()))
        errors["colour_error"].append(float(np.abs(a.rgb.astype(float) - b.rgb)[both].mean() / 255))
    return {name: bootstrap_mean(np.array(values)).to_dict() for name, values in errors.items()}


def _reconstructions(
    args: ParametricArgs, explicit: MorphableModel, fields: ImplicitHeads, seeds: Sequence[int], trained: bool
) -> dict[str, list[Views]]:
    """Heads as they are ("truth"), as both models write them, and as the mesh that the explicit one is given."""
    drawn: dict[str, list[Views]] = {name: [] for name in ("truth", *MODELS, "registered")}
    for seed in seeds:
        mesh = registered_head(args.work, seed)
        code = fields.codes[seed] if trained else implicit.fit_code(fields, points_of(args.work, seed))
        drawn["truth"].append(scan(args.work, seed)[1])
        drawn["explicit"].append(draw(explicit.surface(explicit.encode(mesh))))
        drawn["implicit"].append(draw(implicit.implicit_surface(fields, code, args.resolution)))
        drawn["registered"].append(draw(mesh))
    return drawn


def _errors(drawn: dict[str, list[Views]]) -> dict[str, Any]:
    """`view_errors` of everything that is not the truth."""
    return {name: view_errors(drawn[name], drawn["truth"]) for name in (*MODELS, "registered")}


def _faces_found(views: Sequence[Views]) -> dict[str, Any]:
    """In how many heads a face is found in front, and in how many one behind."""
    front, _, back = torch.from_numpy(np.stack([v.rgb for v in views])).permute(1, 0, 4, 2, 3)
    rates = {"front": face_detector.detection_rate(front), "back": face_detector.detection_rate(back)}
    return {side: {**rate.to_dict(), "found": rate.found} for side, rate in rates.items()}


def _about(args: ParametricArgs, explicit: MorphableModel, fields: ImplicitHeads) -> dict[str, Any]:
    """What each model is made of and made from."""
    views = len(head_scans.scan_cameras())
    data = {"heads": args.heads, "views_per_head": views, "pictures": args.heads * views}
    data |= {"resolution": head_scans.SIZE, "depth": True}
    head3d = {"faces": "one picture each, with its camera", "heads": len(HEADS)}
    head3d |= {"views_per_head": sets.HEAD_VIEWS, "depth": False, "registered_meshes": 0}
    return {
        "explicit": {
            "data": data | {"registered_meshes": args.heads, "vertices": len(explicit.mean)},
            "includes": "skin, eyeballs, shirt and hair as the outer shell of one mesh; colours carry the light",
            "code": len(explicit.axes),
            "parameters": explicit.mean.size + explicit.axes.size,
        },
        "implicit": {
            "data": data | {"points_per_head": 40_000},
            "includes": "the whole outer surface with colour; colours carry the light",
            "code": fields.config.code,
            "parameters": sum(p.numel() for p in fields.parameters()) - fields.codes.numel(),
            "config": asdict(fields.config),
        },
        "head3d": {"data": head3d},
    }


def record(args: ParametricArgs) -> dict[str, Any]:
    """Scans, trains, measures, draws; returns what is written to `parametric.json`.

    Raises:
        Head3DError: impossible counts, no OpenGL, or no face detector.
    """
    if not 3 <= args.heads <= len(HEADS) or not 2 <= args.held_out <= len(HELD_OUT_HEADS) or args.samples < 4:
        raise Head3DError(
            f"Expected 3 to {len(HEADS)} heads, 2 to {len(HELD_OUT_HEADS)} held-out ones and 4 samples or more, got "
            f"{args.heads}, {args.held_out} and {args.samples}."
        )
    face_detector.load()  # before OpenGL, see there
    seeds, held_out = HEADS[: args.heads], HELD_OUT_HEADS[: args.held_out]
    with study.bar("scans") as step:
        for seed in counted([*seeds, *held_out], step):
            scan(args.work, seed)
    meshes = [registered_head(args.work, seed) for seed in seeds]
    explicit, explicit_seconds = _timed(lambda: morphable.fit_morphable(meshes))
    fields, implicit_seconds = _implicit(args, seeds)
    about = _about(args, explicit, fields)
    about["explicit"]["training_seconds"] = explicit_seconds
    about["implicit"]["training_seconds"] = implicit_seconds
    unseen = _reconstructions(args, explicit, fields, held_out, False)
    seen = _reconstructions(args, explicit, fields, seeds[: args.held_out], True)
    rows = [
        images.from_pixels(unseen[name][k].rgb)
        for k in range(min(3, args.held_out))
        for name in ("truth", *MODELS)
    ]
    sheet = images.montage(images.shrink(torch.cat(rows), 160), 9)
    save_sheet(sheet, args.out / "parametric_reconstructions.jpg")
    codes = fields.sample_codes(args.samples, 1, args.spread)
    random = {
        "explicit": explicit.sample(args.samples, 1, args.spread),
        "implicit": [implicit.implicit_surface(fields, code, args.resolution) for code in codes],
    }
    faces = {}
    for name, surfaces in random.items():
        views = [draw(surface) for surface in surfaces]
        faces[name] = _faces_found(views)
        pictures = images.from_pixels(np.concatenate([v.rgb for v in views[:4]]))
        save_sheet(images.montage(pictures, 3), args.out / f"parametric_{name}.jpg")
    table = {
        "models": about,
        "held_out": _errors(unseen),
        "training_heads": _errors(seen),
        "faces_found": faces,
        "views": list(SHOWN),
        "provenance": study.provenance("parametric", replace(args, work=ParametricArgs.work))
        | {"sampler_version": SAMPLER_VERSION, "samples_seed": 1, "spread": args.spread},
    }
    records.write(args.out / "parametric.json", table)
    return table


def run(args: ParametricArgs) -> None:
    """The command `parametric`."""
    for folder in (args.out, args.work):
        files.check_writable(folder / "x")
    table = record(args)
    for name in MODELS:
        error = table["held_out"][name]
        print(
            f"{name}: silhouette IoU {error['silhouette_iou']['value']:.3f}, depth error "
            f"{error['depth_error']['value']:.4f}, colour error {error['colour_error']['value']:.3f} on held-out heads"
        )


def save_sheet(picture: NDArray[np.uint8], path: Path) -> Path:
    """Writes a sheet as JPEG in the best quality that stays within `MOST_BYTES`.

    Raises:
        Head3DError: even a poor quality is larger.
    """
    for quality in (92, 88, 84, 80, 75, 70, 60, 50):
        images.save(picture, path, quality)
        if path.stat().st_size <= MOST_BYTES:
            return path
    raise Head3DError(f"{path.name} does not fit into {MOST_BYTES} bytes: fewer or smaller heads")


def recorded(model: str, folder: Path = files.DATA / "results") -> Pictures:
    """The random heads of "explicit" or "implicit" in `data/results/parametric_<model>.jpg`.

    Raises:
        Head3DError: not recorded yet.
    """
    path = folder / f"parametric_{model}.jpg"
    if not path.is_file():
        raise Head3DError(
            f"{path.name} is not recorded yet: run `python -m head3d_core parametric --out data/results`"
        )
    picture = np.asarray(Image.open(path).convert("RGB"))
    side = picture.shape[1] // 3
    return picture.reshape(-1, side, 3, side, 3).swapaxes(1, 2)


def external_pictures(folder: Path | str = EXTERNAL, size: int = 256) -> dict[str, Pictures]:
    """A reader's own renders: model name -> its heads, in the order of their file names.

    A folder below `folder` is a model; in it, `<head>_front.png`, `<head>_side.png` and `<head>_back.png` are one head.
    Transparency becomes white; other sizes are resampled. Without such folders the result is empty.

    Raises:
        Head3DError: a model's folder without such files, a head without all three views, or a file that is no image.
    """
    found = {}
    for model in sorted(p for p in Path(folder).glob("[!.]*") if p.is_dir()):
        renders = {path.name.lower(): path for path in model.iterdir()}
        heads = sorted({match[1] for match in map(_RENDER.fullmatch, renders) if match}) or ["<head>"]
        names = [f"{head}_{view}.png" for head in heads for view in SHOWN]
        missing = [name for name in names if name not in renders]
        if missing:
            raise Head3DError(f"{model} lacks {missing[0]}: a head needs its views {', '.join(SHOWN)}")
        pictures = np.stack([_render(renders[name], size) for name in names])
        found[model.name] = pictures.reshape(len(heads), 3, size, size, 3)
    return found


def _render(path: Path, size: int) -> NDArray[np.uint8]:
    """A square image over white, [size, size, 3]."""
    try:
        with Image.open(path) as file:
            image = file.convert("RGBA")
    except (UnidentifiedImageError, OSError) as error:
        raise Head3DError(f"{path} is not an image that can be read: save it as PNG again") from error
    if image.width != image.height:
        raise Head3DError(f"{path} must be square, got {image.width} x {image.height}: crop it")
    flat = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return np.asarray(flat.resize((size, size), Image.Resampling.LANCZOS))


def figure7(G: Generator | None = None, heads: int = 2, folder: Path | str = EXTERNAL) -> dict[str, Pictures]:
    """What Fig. 7 shows: title -> random heads from the front, the side and the back.

    In this order: the recorded explicit and implicit model, a reader's own renders if there are any, Head3D from the
    same cameras (seeds 0 to heads - 1, truncated to `seeds.PSI`).

    Args:
        G: Head3D's generator; None leaves it out.
        heads: of each model, at most.

    Raises:
        Head3DError: the parametric models' images are not recorded yet, or a reader's folder is incomplete.
    """
    if heads < 1:
        raise Head3DError(f"a figure shows at least one head of each model, got {heads}")
    shown = {title: recorded(name)[:heads] for name, title in MODELS.items()}
    shown |= {name: pictures[:heads] for name, pictures in external_pictures(folder).items()}
    if G is not None:
        made = heads_of_seeds(G, range(heads))
        views = turntable.views(G, made.planes, made.ws, list(SHOWN.values()), SHOWN_PITCH)
        shown["Head3D"] = images.to_pixels(views)
    return shown
