"""Photographs as people have them: every entry of a folder by name, and pixels from any kind of image file."""

from __future__ import annotations

import os
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from head3d_core.datasets.camera_checks import LABELS
from head3d_core.datasets.storage import IMAGE_SUFFIXES, OTHER_SUFFIXES, is_hidden
from head3d_core.utils.errors import Head3DError

Pixels = NDArray[np.uint8]
_DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
"""Pillow's modes of more than 8 bits."""
_WHITES = (1.0, 255.0, 1023.0, 4095.0, 65535.0)
"""What white may be in them: a share, or 8, 10, 12 or 16 bits."""
_LARGEST_SIDE = 8192


class Rejected(Exception):
    """Why a photograph is not used, in a few words."""


def find_entries(source: Path) -> tuple[list[Path], list[tuple[Path, str]]]:
    """(files to try, sorted; what is left out and why) of a folder and those below it.

    Hidden files, links to folders, files that are no images by their ending, and data sets (a folder with
    dataset.json, such as an earlier run's output) are left out.

    Raises:
        Head3DError: there is no such folder.
    """
    if not source.is_dir():
        raise Head3DError(f"no folder {source}: expected one with portraits ({', '.join(IMAGE_SUFFIXES)})")
    wanted: list[Path] = []
    left: list[tuple[Path, str]] = []

    def closed(error: OSError) -> None:
        left.append((Path(error.filename), f"it cannot be opened ({error.strerror})"))

    for root, folders, names in os.walk(source, onerror=closed):
        here = Path(root)
        if LABELS in names:
            left.append((here, f"a data set ({LABELS} lies in it)"))
            folders.clear()
            continue
        left += [(here / n, "a link to a folder") for n in folders if (here / n).is_symlink()]
        left += [(here / n, "hidden") for n in [*folders, *names] if is_hidden(n)]
        folders[:] = sorted(n for n in folders if not is_hidden(n))
        for name in sorted(n for n in names if not is_hidden(n)):
            path = here / name
            if path.is_symlink() and not path.exists():
                left.append((path, "a link to nothing"))
            elif not path.is_file():
                left.append((path, "not a file"))
            elif name.lower().endswith((*IMAGE_SUFFIXES, *OTHER_SUFFIXES)):
                wanted.append(path)
            else:
                left.append((path, f"not an image by its ending ({path.suffix or 'none'})"))
    return sorted(wanted), sorted(left)


def _eight_bit(picture: Image.Image) -> Image.Image:
    """An image of one deep channel in 8 bits; white is the smallest of `_WHITES` that no pixel exceeds."""
    values = np.asarray(picture, np.float64)
    if not np.isfinite(values).all():
        raise Rejected("unreadable: it has values that are not finite")
    top = float(values.max(initial=0))
    white = next((w for w in _WHITES if top <= w), top)
    return Image.fromarray(np.rint(values.clip(0) * (255 / white)).astype(np.uint8))


def read_photo(path: Path) -> Pixels:
    """[H, W, 3] upright (EXIF orientation applied), transparency over white, the first of several frames.

    Deep greys are scaled to 8 bits; sides beyond 8192 pixels are shrunk by a whole factor. Raises Rejected with the
    reason if there is nothing to use.
    """
    suffix = path.suffix.lower()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes and odd tags: the report says what matters
            if suffix in (".heic", ".heif"):
                with suppress(ImportError):
                    from pillow_heif import register_heif_opener

                    register_heif_opener()
            with Image.open(path) as opened:
                picture: Image.Image = opened
                if max(picture.size) > _LARGEST_SIDE:
                    picture = picture.reduce(-(-max(picture.size) // _LARGEST_SIDE))
                picture = ImageOps.exif_transpose(picture)
                if picture.mode in _DEEP:
                    picture = _eight_bit(picture)
                if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
                    picture = picture.convert("RGBA")
                    picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
                return np.asarray(picture.convert("RGB"))
    except Rejected:
        raise
    except Image.DecompressionBombError:
        raise Rejected("too large: it says that it has more than 178 million pixels") from None
    except UnidentifiedImageError:
        package = {".heic": "pillow-heif", ".heif": "pillow-heif", ".avif": "pillow>=11.3"}.get(suffix)
        do = f"pip install '{package}', or save it as JPEG" if package else "it is no image that Pillow knows"
        raise Rejected(f"unreadable: {do}") from None
    except Exception as error:  # Pillow's readers raise many kinds on damaged files
        raise Rejected(f"unreadable: {' '.join(str(error).split()) or type(error).__name__}") from None
