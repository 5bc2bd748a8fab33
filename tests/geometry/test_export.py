"""The commands that make images, meshes and films of seeds: files that open, one sentence for what cannot be done."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from helpers import refuses
from PIL import Image

from head3d_core import cli
from head3d_core.checkpoints import weights as checkpoint
from head3d_core.config import preset
from head3d_core.geometry import export, mesh
from head3d_core.model import cameras
from head3d_core.model.generator import Generator
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.images import to_pixels


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An untrained tiny generator: its volume has no head, but a level set all the same."""
    torch.manual_seed(3)
    G = Generator(preset("tiny").generator)
    return str(checkpoint.save_generator(G, tmp_path_factory.mktemp("weights") / "tiny.safetensors"))


@pytest.fixture(scope="module")
def level(weights: str) -> float:
    """A level among its upper densities: below, more of the cube than not would be inside."""
    G, ws = export.load_head(weights, 1, 0.7, "cpu")
    with torch.no_grad():
        grid = mesh.density_grid(G, G.planes(ws), 16)
    return float(np.quantile(grid[grid > mesh.OUTSIDE], 0.75))


def test_images_are_what_the_generator_renders(weights: str, tmp_path: Path) -> None:
    args = export.GenerateArgs(
        seeds=("7", "2-3"), weights=weights, out=tmp_path / "new", yaw=(0.0, 90.0), truncation_psi=0.8
    )
    export.generate(args)
    names = [p.name for p in sorted((tmp_path / "new").iterdir())]
    assert names == ["seed0002.png", "seed0003.png", "seed0007.png"]
    picture = np.asarray(Image.open(tmp_path / "new" / "seed0007.png"))
    assert picture.shape == (64, 128, 3)
    G = checkpoint.load_generator(weights)
    z = torch.from_numpy(np.random.RandomState(7).randn(1, G.z_dim)).float()
    with torch.no_grad():
        image = G(z, cameras.orbit(torch.pi / 2, 0.0), truncation_psi=0.8).image[0]
    assert np.abs(picture[:, 64:].astype(int) - to_pixels(image)).max() <= 1


def test_seeds() -> None:
    assert export.parse_seeds(["0", "5-7", "5"]) == [0, 5, 6, 7, 5]
    for words in (["x"], ["3-1"], ["-1"], ["1.5"], ["4294967296"], ["1-"]):
        refuses("a seed must be a number or a range", export.parse_seeds, words)
    refuses("more than 100000 images", export.parse_seeds, ["0-999999999"])
    refuses("no seeds", export.parse_seeds, [])
    refuses("no views", export.generate, export.GenerateArgs(yaw=()))


@pytest.mark.parametrize("ending", mesh.ENDINGS)
def test_mesh_command_writes_a_file_that_opens(
    weights: str, level: float, tmp_path: Path, capsys: pytest.CaptureFixture[str], ending: str
) -> None:
    out = tmp_path / "deep" / f"head{ending}"
    words = f"mesh --seed 1 --weights {weights} --resolution 24 --out {out} --level {level}".split()
    assert cli.main(words) == 0
    line = capsys.readouterr().out
    again = trimesh.load(out, force="mesh")
    assert len(again.faces) > 50
    assert f"{len(again.faces)} triangles" in line
    assert "world units" in line


def test_texture_and_decimation(weights: str, level: float, tmp_path: Path) -> None:
    args = export.MeshArgs(
        seed=1, out=tmp_path / "head.glb", weights=weights, resolution=24, level=level, faces=300, texture=64
    )
    export.export_mesh(args)
    again = trimesh.load(args.out, force="mesh")
    assert len(again.faces) <= 300
    assert again.visual.material.baseColorTexture.size == (64, 64)


def test_a_seed_is_one_head(weights: str, level: float, tmp_path: Path) -> None:
    args = export.MeshArgs(seed=1, out=tmp_path / "a.ply", weights=weights, resolution=16, level=level)
    names = {"a.ply": 1, "b.ply": 1, "c.ply": 2}
    made = [dataclasses.replace(args, seed=seed, out=tmp_path / name) for name, seed in names.items()]
    for args in made:
        export.export_mesh(args)
    first, second, other = (args.out.read_bytes() for args in made)
    assert first == second != other


@pytest.mark.parametrize(
    ("message", "change"),
    {
        r"no surface at level 1e\+06: sigma runs from": {"level": 1e6},
        r"a 30000³ grid of sigma needs about .* GiB .* lower the resolution to \d+": {"resolution": 30_000},
        "at least 8": {"resolution": 4},
        r"a mesh file ends in \.glb, \.obj, \.ply": {"out": Path("head.stl")},
        "seeds must be a list of whole numbers": {"seed": -1},
        "16 to 8192 pixels": {"texture": 9, "resolution": 16},
        "at least 4 triangles": {"faces": 0},
        "smooth counts rounds": {"smooth": -1},
        "a texture holds colours": {"texture": 64, "colours": False},
    }.items(),
)
def test_bad_mesh_input_is_one_sentence(
    weights: str, level: float, tmp_path: Path, message: str, change: dict[str, Any]
) -> None:
    args = export.MeshArgs(seed=1, out=tmp_path / "x" / "head.glb", weights=weights, level=level)
    refuses(message, export.export_mesh, dataclasses.replace(args, **change))
    assert list(tmp_path.iterdir()) == [], "nothing half-written"


def test_places_that_cannot_be_written(weights: str, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    (tmp_path / "folder.glb").mkdir()
    for out in (blocked / "head.glb", tmp_path / "folder.glb"):
        refuses("cannot write", export.export_mesh, export.MeshArgs(out=out, weights=weights))
    film = export.TurntableArgs(out=tmp_path / "head.avi", weights=weights)
    refuses("cannot write", export.export_turntable, film)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.glb"]


def test_turntable_command_writes_film_and_sheet(
    weights: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "turn.gif"
    words = f"turntable --weights {weights} --seconds 1.6 --rate 10 --out {out}".split()
    assert cli.main(words) == 0
    assert "times the median" in capsys.readouterr().out
    with Image.open(out) as film, Image.open(tmp_path / "turn_sheet.png") as sheet:
        assert film.n_frames == 16
        assert sheet.size == (8 * 64, 2 * 64)


@pytest.mark.parametrize(
    ("says", "change"), {"has 3 to 10000 frames": {"seconds": 0.0}, "pitch must": {"pitch": 91.0}}.items()
)
def test_bad_turntable_input(weights: str, tmp_path: Path, says: str, change: dict[str, float]) -> None:
    refuses(
        says, export.export_turntable, export.TurntableArgs(out=tmp_path / "a.mp4", weights=weights, **change)
    )
    assert list(tmp_path.iterdir()) == []


def test_turns_command_writes_a_row_for_each_generator(
    weights: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "turns.jpg"
    words = f"turns --weights {weights} {weights} --seeds 1 2 --views 4 --side 32 --out {out}".split()
    assert cli.main(words) == 0
    assert "4 rows of 4" in capsys.readouterr().out
    with Image.open(out) as sheet:
        left, top = sheet.width - 4 * 32, sheet.height - 4 * 32  # the names of rows and columns
        assert left > 20
        assert top > 20
        assert np.asarray(sheet)[:, :left].min() < 50, "row names in black"
        values = np.asarray(sheet)[top:, left:].astype(int)
    same, other = (np.abs(values[:32] - rows).mean() for rows in (values[32:64], values[64:96]))
    assert other > 5 * same, "the same generator twice, but another seed is another head"


@pytest.mark.parametrize("change", [{"views": 0}, {"seeds": ()}, {"side": 100_000}, {"out": "turns.png"}])
def test_bad_turns_input(weights: str, tmp_path: Path, change: dict[str, Any]) -> None:
    change = {**change, "out": tmp_path / change.get("out", "turns.jpg")}
    args = dataclasses.replace(export.TurnsArgs(weights=(weights,)), **change)
    with pytest.raises(Head3DError):
        export.turns(args)
    assert list(tmp_path.iterdir()) == []
