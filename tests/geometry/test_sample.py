"""Seeds to pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from head3d_core import config
from head3d_core.checkpoints import weights as checkpoint
from head3d_core.geometry import sample
from head3d_core.geometry.sample import GenerateArgs
from head3d_core.model import cameras
from head3d_core.model.generator import Generator
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.images import to_pixels


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("weights")
    return checkpoint.save_generator(Generator(config.preset("tiny").generator), folder / "tiny.safetensors")


def test_pictures_are_what_the_generator_renders(weights: Path, tmp_path: Path) -> None:
    args = GenerateArgs(("7", "2-3"), str(weights), tmp_path / "new", yaw=(0.0, 90.0), truncation_psi=0.8)
    written = sample.generate(args)
    assert [p.name for p in written] == ["seed0007.png", "seed0002.png", "seed0003.png"]
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == sorted(p.name for p in written)
    picture = np.asarray(Image.open(written[0]))
    assert picture.shape == (64, 128, 3)
    G = checkpoint.load_generator(weights)
    z = torch.from_numpy(np.random.RandomState(7).randn(1, G.z_dim)).float()
    with torch.no_grad():
        image = G(z, cameras.orbit(torch.pi / 2, 0.0), truncation_psi=0.8).image[0]
    expected = to_pixels(image)
    assert np.abs(picture[:, 64:].astype(int) - expected).max() <= 1


def test_seeds() -> None:
    assert sample.parse_seeds(["0", "5-7", "5"]) == [0, 5, 6, 7, 5]
    for words in (["x"], ["3-1"], ["-1"], ["1.5"], ["4294967296"], ["1-"]):
        with pytest.raises(Head3DError, match="a seed must be a number or a range"):
            sample.parse_seeds(words)
    with pytest.raises(Head3DError, match="more than 100000 pictures"):
        sample.parse_seeds(["0-999999999"])
    with pytest.raises(Head3DError, match="no seeds"):
        sample.parse_seeds([])


def test_bad_arguments(weights: Path, tmp_path: Path) -> None:
    for args, says in (
        (GenerateArgs(weights=str(weights), out=tmp_path, yaw=()), "no views"),
        (
            GenerateArgs(weights=str(weights), out=tmp_path, device="toaster"),
            "device 'toaster' cannot be used",
        ),
        (GenerateArgs(weights=str(tmp_path / "no.safetensors"), out=tmp_path), "there is no file"),
    ):
        with pytest.raises(Head3DError, match=says):
            sample.generate(args)
    assert list(tmp_path.iterdir()) == []
