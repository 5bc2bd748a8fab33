"""The contact sheets in `data/samples/`.

    python data/scripts/sheets.py --out data/samples

Nothing is picked by hand: the sheets show the first identities of the sets.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from head3d_core.synth import sets
from head3d_core.synth.heads import build_head
from head3d_core.synth.identity import identity
from head3d_core.synth.make_data import render
from head3d_core.synth.renderer import Renderer
from head3d_core.utils import files
from head3d_core.utils.images import from_pixels, from_uint8, montage, save
from script import main

YAWS = 8


def faces_sheet(resolution: int, workers: int = 0, count: int = 16, columns: int = 4) -> NDArray[np.uint8]:
    """The first faces of the face set, as a training run sees them."""
    shown = render("faces", range(count), resolution, workers).images
    return montage(from_uint8(torch.from_numpy(shown)), columns)


def heads_sheet(resolution: int, count: int = 6, yaws: int = YAWS) -> NDArray[np.uint8]:
    """The first heads of the head set, one row each, all the way round in equal steps."""
    renderer = Renderer(resolution)
    cameras = [sets.orbit_camera(2 * math.pi * k / yaws, 0.0) for k in range(yaws)]
    images = []
    for seed in sets.SETS["heads"].seeds[:count]:
        renderer.load(build_head(identity(seed, "heads")), sets.sample_light(seed, "heads"))
        images += [frame.rgb for frame in renderer.draw_many(cameras)]
    renderer.release()
    return montage(from_pixels(np.stack(images)), yaws)


def run(out: Path = files.DATA / "samples", resolution: int = 256, workers: int = 0) -> None:
    """Draws the contact sheets.

    Args:
        out: folder to write.
        resolution: pixels per side of one image.
        workers: processes; 0 takes one per processor core.
    """
    # 48 heads: at the full resolution this sheet alone would weigh more than all faces.
    faces, heads = faces_sheet(resolution, workers), heads_sheet(resolution * 5 // 8)
    for name, sheet in (("faces_16.jpg", faces), ("heads_6x8.jpg", heads)):
        print(save(sheet, out / name, quality=78))


if __name__ == "__main__":
    raise SystemExit(main(run))
