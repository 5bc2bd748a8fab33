"""Turntables: one turn of a head as MP4, GIF or WebP, with a contact sheet of its frames."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from head3d_core.config import Backend
from head3d_core.model.cameras import orbit
from head3d_core.model.generator import Generator
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.files import atomic, check_place, check_writable
from head3d_core.utils.images import from_pixels, montage, to_pixels
from head3d_core.utils.progress import Progress, counted

ENDINGS = (".mp4", ".gif", ".webp")
"""Files that `turntable` writes."""


def views(
    G: Generator,
    planes: Tensor,
    ws: Tensor,
    yaws: Sequence[float] = (0.0, 90.0, 180.0),
    pitch: float = 0.0,
    backend: Backend = "auto",
) -> Tensor:
    """Heads seen from several yaws: [N, V, 3, R, R] in about [-1, 1].

    Args:
        planes, ws: of N heads, [N, 3, C, H, W] and [N, num_ws, w_dim].
        yaws: V of them, degrees; 0 is the front, 90 the subject's left side.
        pitch: of every camera, degrees; from above is positive.
    """
    images = []
    with torch.no_grad():
        for yaw in yaws:
            camera = orbit(math.radians(yaw), math.radians(pitch), G.config.camera_radius).to(planes.device)
            images.append(G.render(planes, ws, camera.expand(len(planes), -1), backend=backend).image)
    return torch.stack(images, 1)


def frames(
    G: Generator, ws: Tensor, count: int = 60, pitch: float = 0.1, progress: Progress | None = None
) -> NDArray[np.uint8]:
    """Images of one head from `count` evenly spaced yaw angles of a full turn, from the front.

    Sampling is fixed and the exposure constant, so that nothing flickers: [-1, 1] always maps to [0, 255].

    Args:
        ws: [1, num_ws, w_dim].
        pitch: of every camera, radians.
        progress: called with (done, total).

    Returns:
        [count, R, R, 3] uint8.
    """
    if len(ws) != 1:
        raise Head3DError(f"a turntable shows one head, got {len(ws)}: pass ws[k:k+1]")
    with torch.no_grad():
        planes = G.planes(ws)
    turn = counted([360 * k / count for k in range(count)], progress)
    return np.stack([to_pixels(views(G, planes, ws, (yaw,), math.degrees(pitch))[0, 0]) for yaw in turn])


def flicker(images: NDArray[np.uint8]) -> float:
    """Largest over median mean absolute change between neighbouring frames, the last and the first included.

    About 1 for a smooth turn; a jump or a flash stands out.
    """
    if len(images) < 3:
        raise Head3DError(f"flicker needs at least three frames, got {len(images)}")
    values = images.astype(np.float32)
    change = np.abs(values - np.roll(values, 1, 0)).mean((1, 2, 3))
    return float(change.max() / max(float(np.median(change)), 1e-6))


def contact_sheet(images: NDArray[np.uint8], columns: int = 8) -> NDArray[np.uint8]:
    """Up to two rows of evenly chosen frames side by side: [rows R, columns R, 3] uint8."""
    columns = min(columns, len(images))
    rows = 2 if len(images) >= 2 * columns else 1
    chosen = np.linspace(0, len(images), rows * columns, endpoint=False).astype(int)
    return montage(from_pixels(images[chosen]), columns)


def contact_path(film: Path | str) -> Path:
    """Where the contact sheet of a film goes: NAME_sheet.png in the same folder."""
    film = Path(film)
    return film.with_name(f"{film.stem}_sheet.png")


def check_places(film: Path | str, sheet: bool = True) -> None:
    """Before any rendering: raises Head3DError if a turntable (and its sheet) could not be written to `film`."""
    check_place(film, ENDINGS, "turntable")
    if Path(film).suffix.lower() == ".mp4":
        importlib.import_module("imageio_ffmpeg")  # where it is missing, that is said before the work
    if sheet:
        check_writable(contact_path(film))


def write(images: NDArray[np.uint8], path: Path | str, rate: int = 30, sheet: bool = False) -> Path:
    """Writes the frames as MP4, GIF or WebP, whole or not at all.

    Args:
        images: [count, R, R, 3] uint8.
        rate: frames per second, at least 1.
        sheet: write the contact sheet to `contact_path(path)` as well; both files or neither.

    Raises:
        Head3DError: for an unknown ending, a place that cannot be written to, or a disk that fills up.
    """
    from PIL import Image

    path = Path(path)
    check_places(path, sheet)
    with ExitStack() as together:
        temporary = together.enter_context(atomic(path))
        if path.suffix.lower() == ".mp4":
            _write_film(images, temporary, path, rate)
        else:
            first, *rest = map(Image.fromarray, images)
            first.save(
                temporary, format=path.suffix[1:].upper(), save_all=True, append_images=rest,
                duration=round(1000 / rate), loop=0,
            )  # fmt: skip
        if sheet:
            paper = together.enter_context(atomic(contact_path(path)))
            Image.fromarray(contact_sheet(images)).save(paper, format="PNG")
    return path


def _write_film(images: NDArray[np.uint8], temporary: Path, path: Path, rate: int) -> None:
    import imageio.v3 as imageio

    with suppress(OSError):  # ffmpeg went away; the text of the error is its whole log
        imageio.imwrite(
            temporary, images, extension=".mp4", plugin="FFMPEG", fps=rate, codec="libx264", quality=8,
            macro_block_size=2, output_params=["-f", "mp4"],  # the temporary file's ending does not say it
        )  # fmt: skip
    # ffmpeg writes the film's index last, and a full disk may end it without an error here.
    if _frame_count(temporary) < len(images):
        raise Head3DError(f"{path} was not written, the film came out short: is the disk full?")


def _frame_count(film: Path) -> int:
    """Frames of a film; 0 if it cannot be read."""
    import imageio_ffmpeg

    try:
        return int(imageio_ffmpeg.count_frames_and_secs(str(film))[0])
    except RuntimeError:
        return 0


def turntable(
    G: Generator,
    ws: Tensor,
    path: Path | str,
    seconds: float = 4.0,
    rate: int = 30,
    pitch: float = 0.1,
    sheet: bool = True,
    progress: Progress | None = None,
) -> Path:
    """One full turn of a head as a film, with a contact sheet (`contact_path`); both are written or neither.

    Args:
        ws: [1, num_ws, w_dim].
        path: of the film; MP4, GIF or WebP.
        seconds: length of the film.
        rate: frames per second.
        pitch: of every camera, radians.
        sheet: False leaves the contact sheet out.
        progress: called with (done, total) frames.

    Raises:
        Head3DError: before any rendering, for an unknown ending, a place that cannot be written to, or a film without
            frames; more than one head; a disk that fills up.
    """
    check_places(path, sheet)
    count = round(seconds * rate) if math.isfinite(seconds) else 0
    if rate < 1 or count < 1:
        raise Head3DError(
            f"a turntable needs at least one frame, got {seconds:g} seconds at {rate} per second"
        )
    return write(frames(G, ws, count, pitch=pitch, progress=progress), path, rate, sheet)
