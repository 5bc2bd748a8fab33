"""Folders and zip archives as they come: names cleaned, files read with one sentence for whatever is damaged."""

from __future__ import annotations

import io
import os
import unicodedata
import warnings
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from head3d_core.datasets.camera_checks import LABELS
from head3d_core.utils.errors import Head3DError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
"""What a data set may hold."""
OTHER_SUFFIXES = (
    *(".tif", ".tiff", ".gif", ".heic", ".heif", ".avif", ".jp2", ".ppm", ".tga"),
    *(".jfif", ".jpe", ".dib", ".pgm"),
)
"""Images too, but not in a data set."""
LARGEST_FILE = 1 << 30
"""Bytes; what a damaged or hostile archive claims beyond it is not unpacked."""
LARGEST_IMAGE = 1 << 26
"""Pixels of an image of a data set, 8192²."""


ALLOW = "change its permissions"


def _files_below(folder: Path) -> list[str]:
    """Names of all files, with forward slashes; Head3DError for a folder that cannot be opened."""

    def closed(error: OSError) -> None:
        raise Head3DError(f"{error.filename} cannot be opened ({error.strerror}): {ALLOW}")

    return [
        path.relative_to(folder).as_posix()
        for root, _, names in os.walk(folder, onerror=closed)
        for path in (Path(root, name) for name in names)
        if path.is_file()
    ]


def clean_name(name: str) -> str:
    """A name with forward slashes and composed characters, as data sets made on any system write it.

    >>> clean_name("a\\\\b.png")
    'a/b.png'
    """
    return unicodedata.normalize("NFC", name.replace("\\", "/")).removeprefix("./")


def is_hidden(name: str) -> bool:
    """Whether a system or an editor put the file there: .DS_Store, ._x.png, __MACOSX/, .ipynb_checkpoints/."""
    return any((part.startswith(".") and part != "..") or part == "__MACOSX" for part in name.split("/"))


def is_image(name: str, endings: tuple[str, ...] = IMAGE_SUFFIXES) -> bool:
    """Whether the ending is an image's; ground truth below geometry/ is none."""
    return name.lower().endswith(endings) and not name.startswith("geometry/")


class Store:
    """Read access to a folder or a zip. Works in any number of processes, forked or not.

    A single top folder that holds dataset.json is looked into, as in the archives that file managers make.

    Args:
        path: folder or zip; Head3DError if it is neither.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._zip: zipfile.ZipFile | None = None
        self._owner = 0
        if not self.path.exists():
            raise Head3DError(
                f"no data set at {self.path}: expected a folder or a zip with images and {LABELS}; "
                "make-data and prepare-data write one"
            )
        if self.path.is_dir():
            listed = _files_below(self.path)
        elif self.path.is_file():
            listed = [n for n in self._opened().namelist() if not n.endswith(("/", "\\"))]
        else:  # reading a pipe would wait for ever
            raise Head3DError(f"{self.path} is no file: expected a folder or a zip with images and {LABELS}")
        kept = {clean_name(n): n for n in listed}
        counts = Counter(clean_name(n) for n in listed)
        self.twice = sorted(n for n, count in counts.items() if count > 1 and not is_hidden(n))
        """Clean names that several files have, such as Zoë.png in both Unicode forms."""
        files = {n: kept[n] for n in sorted(kept) if not is_hidden(n)}
        tops = {n.split("/")[0] for n in files}
        if LABELS not in files and len(tops) == 1 and f"{(top := tops.pop())}/{LABELS}" in files:
            files = {n.removeprefix(f"{top}/"): stored for n, stored in files.items()}
        self.files = files
        """Clean name -> name as stored, sorted."""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_zip": None, "_owner": 0}  # an open file cannot go to another process

    def _opened(self) -> zipfile.ZipFile:
        """This process's own handle: forked processes would share the position in the file."""
        if self._zip is None or self._owner != os.getpid():
            try:
                self._zip, self._owner = zipfile.ZipFile(self.path), os.getpid()
            except PermissionError as error:
                raise Head3DError(f"{self.path} cannot be opened ({error.strerror}): {ALLOW}") from None
            except Exception as error:  # zipfile raises many kinds on damaged archives
                raise Head3DError(
                    f"{self.path} is not a readable zip ({error}): expected a folder or a zip with {LABELS}; "
                    "was it cut short?"
                ) from None
        return self._zip

    def read(self, name: str) -> bytes:
        """Bytes of a file by its clean name.

        Raises:
            FileNotFoundError: it is not there.
            Head3DError: it cannot be read; the text says why, not where.
        """
        if name not in self.files:
            raise FileNotFoundError(name)
        stored = self.files[name]
        try:
            if self.path.is_dir():
                return (self.path / stored).read_bytes()
            archive = self._opened()
            size = archive.getinfo(stored).file_size
            if size > LARGEST_FILE:
                raise Head3DError(f"the archive says that it has {size:,} bytes: leave it out")
            return archive.read(stored)
        except Head3DError:
            raise
        except PermissionError as error:
            raise Head3DError(f"the file cannot be opened ({error.strerror}): {ALLOW}") from None
        except Exception as error:  # damaged, encrypted or unknown to zipfile, which raises many kinds
            if "encrypt" in str(error):  # of either kind
                raise Head3DError("the file is encrypted: unpack the archive with its password") from None
            raise Head3DError(f"the file is truncated or damaged ({_reason(error)}): copy it again") from None


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def decode(data: bytes) -> NDArray[np.uint8]:
    """Pixels [H, W, 3] of an 8-bit RGB image; raises Head3DError with a sentence for all else."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data))
        with image:
            if image.mode != "RGB":
                raise Head3DError(
                    f"the image has mode {image.mode}: expected 8-bit RGB without alpha, convert it"
                )
            if image.width * image.height > LARGEST_IMAGE:
                raise Head3DError(f"the image is {image.width} x {image.height}: shrink it")
            return np.asarray(image)
    except Head3DError:
        raise
    except UnidentifiedImageError:
        raise Head3DError("not an image that can be read: copy it again") from None
    except Image.DecompressionBombError:
        raise Head3DError(
            "the image says that it is larger than any screen: shrink it, or copy it again"
        ) from None
    except Exception as error:  # Pillow's readers raise many kinds on damaged files
        raise Head3DError(f"the image is truncated or damaged ({_reason(error)}): copy it again") from None
