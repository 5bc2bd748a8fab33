"""The person cut out of a portrait by MediaPipe's selfie segmentation, where that model is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from head3d_core.utils.errors import Head3DError

Matting = Literal["auto", "on", "off"]
Matte = Callable[[NDArray[np.uint8]], NDArray[np.float32] | None]
"""Image [H, W, 3] -> the person's coverage [H, W] in [0, 1]; None keeps the background."""
_MODEL = "modules/selfie_segmentation/selfie_segmentation.tflite"
HOW_TO_MATTE = (
    "backgrounds are kept: for white ones, pip install ai-edge-litert==2.3.0, unpack the result of "
    "`npm pack @mediapipe/selfie_segmentation` and give --matting-model package/selfie_segmentation.tflite"
)


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
    """A function from an image to the person's coverage; None where there is none to be had.

    It runs MediaPipe's selfie segmentation (256 x 256, Apache-2.0) in LiteRT. It separates a person, clothes and hat
    included, from the background; it knows no parts of the face.

    Raises:
        Head3DError: mode is "on" and the model or LiteRT is missing, or the file is no such model.
    """
    if mode == "off":
        return None
    model = matting_model(path)
    if model is None or importlib.util.find_spec("ai_edge_litert") is None:
        if mode == "on":
            raise Head3DError(f"no matting: {HOW_TO_MATTE}")
        return None
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(model_path=str(model), num_threads=2)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise Head3DError(f"{model} is no model that LiteRT reads ({error}): fetch it again") from None
    entry, exit_ = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    side = int(entry["shape"][1])

    def matte(image: NDArray[np.uint8]) -> NDArray[np.float32]:
        small = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))
        interpreter.set_tensor(entry["index"], small[None].astype(np.float32) / 255)
        interpreter.invoke()
        mask = interpreter.get_tensor(exit_["index"])[0, ..., 0].astype(np.float32)
        full = Image.fromarray(mask).resize(image.shape[1::-1], Image.Resampling.BICUBIC)
        # The soft values are a classifier's doubt, not coverage: steepen them, so that no veil of background stays.
        return np.clip((np.asarray(full, np.float32) - 0.3) / 0.5, 0, 1)

    return matte
