"""Pictures for the comparison with parametric head models (Fig. 7): heads from the front, the side and the back.

Everything here hands out uint8 [N, 3, R, R, 3]: N heads, three views, R² pixels. Sources are the strips that
`parametric` has recorded, Head3D itself, and a folder of renders that a reader made with models whose licences keep
them out of this repository (LYHM, i3DMM, DECA); `data/external/README.md` says how such a folder looks.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from head3d_core.experiments.head_scans import SHOWN, SHOWN_PITCH
from head3d_core.model import cameras
from head3d_core.model.generator import Generator
from head3d_core.model.seeds import PSI, heads_of_seeds
from head3d_core.utils import files, images
from head3d_core.utils.errors import Head3DError

Pictures = NDArray[np.uint8]
VIEWS = tuple(SHOWN)
"""Names of the three views, in the order of every array here."""
MODELS = {"explicit": "explicit (PCA mesh, as LYHM)", "implicit": "implicit (auto-decoded SDF, as i3DMM)"}
"""The models that `parametric` records, and how figures call them."""
EXTERNAL = files.DATA / "external"
"""Where renders of other people's models are looked for; empty in the repository."""
COMMAND = "python -m head3d_core parametric --out data/results"
_MOST_BYTES = 64_000
_NAME = re.compile(rf"(.+)_({'|'.join(VIEWS)})\.png", re.IGNORECASE)


def _check(pictures: Pictures) -> None:
    if pictures.ndim != 5 or pictures.shape[1] != 3 or pictures.shape[4] != 3 or pictures.dtype != np.uint8:
        raise Head3DError(
            f"pictures must be uint8 [N, 3, R, R, 3] (front, side, back), got {pictures.dtype} {pictures.shape}"
        )
    if 0 in pictures.shape or pictures.shape[2] != pictures.shape[3]:
        raise Head3DError(f"pictures must be square and not empty, got {pictures.shape}")


def sheet(pictures: Pictures) -> NDArray[np.uint8]:
    """[N, 3, R, R, 3] as one picture [N R, 3 R, 3]: a row per head."""
    _check(pictures)
    n, views, side = pictures.shape[:3]
    return pictures.swapaxes(1, 2).reshape(n * side, views * side, 3)


def save_sheet(picture: NDArray[np.uint8], path: Path) -> Path:
    """Writes a sheet as JPEG in the best quality that stays within 64 kB.

    Raises:
        Head3DError: even a poor quality is larger.
    """
    for quality in (92, 88, 84, 80, 75, 70, 60, 50):
        images.save(picture, path, quality)
        if path.stat().st_size <= _MOST_BYTES:
            return path
    raise Head3DError(f"{path.name} does not fit into {_MOST_BYTES} bytes: fewer or smaller heads")


def recorded(model: str, folder: Path = files.DATA / "results") -> Pictures:
    """The random heads of "explicit" or "implicit" that stand in `data/results/parametric_<model>.jpg`.

    Raises:
        Head3DError: another name, or not recorded yet.
    """
    from PIL import Image

    if model not in MODELS:
        raise Head3DError(f"recorded are the models {' and '.join(MODELS)}, got {model!r}")
    path = folder / f"parametric_{model}.jpg"
    if not path.is_file():
        raise Head3DError(f"{path.name} is not recorded yet: run `{COMMAND}`")
    picture = np.asarray(Image.open(path).convert("RGB"))
    side = picture.shape[1] // 3
    return picture.reshape(-1, side, 3, side, 3).swapaxes(1, 2)


@torch.inference_mode()
def head3d_pictures(G: Generator, seeds: Sequence[int] = (0, 1), truncation_psi: float = PSI) -> Pictures:
    """Random heads of Head3D (or any generator), from the same cameras as the parametric models.

    Args:
        seeds: one head each.
        truncation_psi: see `Generator.mapping`.
    """
    yaw = torch.deg2rad(torch.tensor(list(SHOWN.values())))
    views = cameras.orbit(yaw, math.radians(SHOWN_PITCH)).to(G.device)
    rows = []
    for seed in seeds:
        head = heads_of_seeds(G, [seed], truncation_psi)
        shown = [images.to_pixels(G.render(head.planes, head.ws, view[None]).image) for view in views]
        rows.append(np.concatenate(shown))
    return np.stack(rows)


def external_pictures(folder: Path | str = EXTERNAL, size: int = 256) -> dict[str, Pictures]:
    """A reader's own renders: model name -> its heads, in the order of their file names.

    A folder below `folder` is a model; in it, `<head>_front.png`, `<head>_side.png` and `<head>_back.png` are one head.
    Transparency becomes white; other sizes are resampled. Without such folders the result is empty.

    Raises:
        Head3DError: a model's folder without such files, a head without all three views, or a file that is no picture.
    """
    root = Path(folder)
    models = (
        sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
        if root.is_dir()
        else []
    )
    return {model.name: _external_model(model, size) for model in models}


def _external_model(folder: Path, size: int) -> Pictures:
    heads: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        found = _NAME.fullmatch(path.name)
        if found:
            heads.setdefault(found[1], {})[found[2].lower()] = path
    if not heads:
        raise Head3DError(
            f"{folder} holds no renders: name them <head>_front.png, <head>_side.png and <head>_back.png"
        )
    for head, views in heads.items():
        missing = [name for name in VIEWS if name not in views]
        if missing:
            raise Head3DError(f"{folder} lacks {head}_{missing[0]}.png: a head needs {', '.join(VIEWS)}")
    return np.stack([np.stack([_picture(views[name], size) for name in VIEWS]) for views in heads.values()])


def _picture(path: Path, size: int) -> NDArray[np.uint8]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as file:
            picture = file.convert("RGBA")
    except (UnidentifiedImageError, OSError) as error:
        raise Head3DError(f"{path} is not a picture that can be read: save it as PNG again") from error
    if picture.width != picture.height:
        raise Head3DError(f"{path} must be square, got {picture.width} x {picture.height}: crop it")
    white = Image.new("RGBA", picture.size, "white")
    flat = Image.alpha_composite(white, picture).convert("RGB")
    return np.asarray(flat.resize((size, size), Image.Resampling.LANCZOS))


def figure7(
    G: Generator | None = None,
    heads: int = 2,
    folder: Path | str = EXTERNAL,
    seeds: Sequence[int] | None = None,
) -> dict[str, Pictures]:
    """What Fig. 7 shows: title -> random heads from the front, the side and the back.

    In this order: the recorded explicit and implicit model, a reader's own renders if there are any, Head3D.

    Args:
        G: Head3D's generator; None leaves it out.
        heads: of each model, at most.
        seeds: of Head3D's heads; None: 0 to heads - 1.

    Raises:
        Head3DError: the parametric models' pictures are not recorded yet, or a reader's folder is incomplete.
    """
    if heads < 1:
        raise Head3DError(f"a figure shows at least one head of each model, got {heads}")
    shown = {title: recorded(name)[:heads] for name, title in MODELS.items()}
    shown |= {name: pictures[:heads] for name, pictures in external_pictures(folder).items()}
    if G is not None:
        shown["Head3D"] = head3d_pictures(G, range(heads) if seeds is None else seeds)
    return shown
