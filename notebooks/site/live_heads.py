"""Planes, decoder and stills of a few heads as files that `assets/lab.js` draws in a browser.

Planes become 8-bit textures with a scale and an offset for each channel: value = offset + scale * byte / 255. A head is
one gzip-compressed file of 24 RGBA layers (three planes, eight layers of four channels each), loaded on demand.
"""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import numpy as np
from torch import Tensor

import head3d_core as h3d
from head3d_core.experiments import plane_swap
from head3d_core.geometry.turntable import views
from head3d_core.model.cameras import FOCAL, RADIUS
from head3d_core.model.generator import Generator
from head3d_core.utils.images import montage, save, shrink

GENERATORS = {"face": "Face generator (teacher)", "head3d": "Head3D"}
SEEDS = (3, 8, 20, 28)
STRIP_YAWS = (0.0, 45.0, 90.0, 135.0, 180.0, 225.0, 270.0, 315.0)
"""Views of the still that stands in where WebGL 2 is missing, degrees."""


def quantise(planes: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """planes [3, C, H, W] -> bytes [3 C / 4, H, W, 4], scale [3 C], offset [3 C].

    A byte b of channel c stands for offset_c + scale_c b / 255, so the error is at most scale_c / 510.
    """
    flat = planes.flatten(0, 1)  # [3 C, H, W]
    low, high = flat.amin((1, 2)), flat.amax((1, 2))
    scale = (high - low).clamp_min(1e-8)
    levels = ((flat - low[:, None, None]) / scale[:, None, None] * 255).round().byte()
    texels = levels.unflatten(0, (-1, 4)).permute(0, 2, 3, 1).contiguous()
    return texels.numpy(), scale.numpy(), low.numpy()


def decoder_table(G: Generator) -> list[float]:
    """What the raw image needs of the decoder, in the order of the shader's uniform block (4 x 4 blocks by columns).

    w0 as [hidden / 4, C / 4] blocks, b0 [hidden], the rows of w1 for sigma and rgb as [hidden / 4] blocks, b1 [4].
    """
    w = G.decoder.weights()
    first = (
        w.w0.unflatten(0, (-1, 4)).unflatten(2, (-1, 4)).permute(0, 2, 3, 1)
    )  # group, layer, channel, unit
    second = w.w1[:4].unflatten(1, (-1, 4)).permute(1, 2, 0)  # group, unit, row
    parts = [first, w.b0, second, w.b1[:4]]
    return [round(v, 6) for part in parts for v in part.detach().flatten().tolist()]


def write(folder: Path) -> dict[str, object]:
    """Writes heads, decoder and strips below `folder`; returns the index, which is `folder / "heads.json"` as well."""
    folder.mkdir(parents=True, exist_ok=True)
    index: dict[str, object] = {"seeds": SEEDS, "generators": {}, "radius": RADIUS, "focal": FOCAL}
    for name, title in GENERATORS.items():
        G = h3d.load_generator(name)
        heads = plane_swap.heads_of_seeds(G, SEEDS)
        entries = []
        for k, seed in enumerate(SEEDS):
            texels, scale, offset = quantise(heads.planes[k])
            path = folder / f"{name}-{seed}.bin.gz"
            path.write_bytes(gzip.compress(texels.tobytes(), 9, mtime=0))
            entries.append(
                {
                    "file": path.name,
                    "scale": [round(float(v), 6) for v in scale],
                    "offset": [round(float(v), 6) for v in offset],
                }
            )
        turned = views(G, heads.planes, heads.ws, STRIP_YAWS).flatten(0, 1)
        save(montage(shrink(turned, 128), len(STRIP_YAWS)), folder / f"{name}-strip.jpg", quality=82)
        options = G.config.render
        generators = index["generators"]
        assert isinstance(generators, dict)
        generators[name] = {
            "title": title,
            "decoder": decoder_table(G),
            "heads": entries,
            "strip": f"{name}-strip.jpg",
            "near": options.ray_start,
            "far": options.ray_end,
            "coarse": options.depth_resolution,
            "fine": options.depth_resolution_importance,
            "box": options.box_warp,
            "size": G.config.plane_resolution,
        }
    (folder / "heads.json").write_text(json.dumps(index), encoding="utf8")
    return index


def truth(name: str, first: int, second: int, shares: tuple[float, ...], yaw: float, pitch: float) -> Tensor:
    """What the shader must draw: the raw image [3, 64, 64] of the package's own renderer, by the same seeds."""
    G = h3d.load_generator(name)
    a, b = (plane_swap.heads_of_seeds(G, [SEEDS[k]]) for k in (first, second))
    mixed, _ = plane_swap.mix(a, b, shares)
    camera = h3d.cameras.orbit(math.radians(yaw), math.radians(pitch))
    return plane_swap.look(G, mixed, camera).raw[0]
