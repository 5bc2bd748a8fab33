"""Real pictures: which views they are, how silhouettes are compared, folders, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from head3d_core.evaluation import references
from head3d_core.evaluation.references import Networks, Wanted
from head3d_core.metrics.features import FeatureNetwork
from head3d_core.model.cameras import orbit, yaw_pitch
from head3d_core.utils.errors import Head3DError


class Colours(FeatureNetwork):
    """Mean and spread of the colours over quarters of a picture, [N, 24]: enough to tell pictures apart."""

    name, kernel_name, frechet_name, num_features = "Colours", "KD-Colours", "FD-Colours", 24

    def forward(self, images: Tensor) -> Tensor:
        x = images.float() / 255
        small = torch.nn.functional.adaptive_avg_pool2d(x, 2)
        square = torch.nn.functional.adaptive_avg_pool2d(x * x, 2)
        return torch.cat([small.flatten(1), square.flatten(1)], 1)


class Stub(Networks):
    """Calls a picture a face if its middle is darker than its border: no detector needed."""

    def find(self, images: Tensor) -> Tensor:
        x = images.float().mean(1)
        r = x.shape[-1] // 4
        return (x[:, r:-r, r:-r].mean((1, 2)) < x.mean((1, 2))).float()


def stub(batch: int = 4) -> Stub:
    return Stub(Colours(), None, "cpu", batch)


def test_people_around_are_seen_once_in_every_step() -> None:
    for person in (10_000_123, 10_009_999):
        yaw, pitch = yaw_pitch(torch.from_numpy(references.around_camera(person)))
        degrees = torch.rad2deg(yaw).abs()
        assert float(degrees[0]) <= 20
        steps = (degrees[1:] / 15).floor().long().clamp(max=11)
        assert steps.tolist() == list(range(12))
        assert float(torch.rad2deg(pitch).abs().max()) <= 15
    assert not np.array_equal(references.around_camera(1), references.around_camera(2))


def test_silhouettes_from_the_right_are_mirrored() -> None:
    mask = torch.zeros(2, 128, 128, dtype=torch.uint8)
    mask[:, :, :40] = 255
    left, right = references.silhouettes(mask, orbit(torch.tensor([0.5, -0.5])))
    assert torch.equal(left, right.flip(-1))
    assert left.shape == (64, 64)
    assert left[:, :20].min() == 255
    assert left[:, 20:].max() == 0
    soft = references.silhouettes(torch.full((1, 16, 16), 0.25), orbit(0.0))
    assert soft.unique().tolist() == [64]


def test_sources() -> None:
    assert references.source_count("synth:faces:200", "faces") == 200
    assert references.source_count("somewhere/faces", "faces") is None
    for bad in ("synth:heads:200", "synth:faces", "synth:faces:3", "synth:faces:many"):
        with pytest.raises(Head3DError, match="synth:faces:COUNT"):
            references.source_count(bad, "faces")


def test_spread_reaches_both_ends() -> None:
    assert references._spread(list(range(100)), 4) == [0, 25, 50, 75]
    assert references._spread([1, 2], 5) == [1, 2]


def write_set(folder: Path, yaws: Tensor, resolution: int = 32) -> Path:
    """A data set in EG3D's format, with grey pictures."""
    folder.mkdir()
    labels = []
    for k, camera in enumerate(orbit(yaws)):
        name = f"img{k:08d}.png"
        pixels = np.full((resolution, resolution, 3), 3 * k, np.uint8)
        pixels[8:24, 8:24] //= 2
        Image.fromarray(pixels).save(folder / name)
        labels.append([name, [float(x) for x in camera]])
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
    return folder


def test_a_folder_gives_its_frontal_and_its_back_views(tmp_path: Path) -> None:
    yaws = torch.cat([torch.linspace(-0.3, 0.3, 25), torch.full((5,), 1.5), torch.linspace(2.6, 3.6, 22)])
    path = str(write_set(tmp_path / "set", yaws))
    wanted = Wanted(path, path, around=0, training=0, detector=7, turned=0, resolution=32)
    cache = tmp_path / "cache"
    found = references.real_reference(wanted, stub(), cache)
    assert found["front.features"].shape == (25, 24)
    assert found["back.index"].tolist() == list(range(30, 52))
    assert found["front.found"].shape == (7,)
    assert not found.has("around")
    again = references.real_reference(wanted, stub(9), cache)  # from the file, whatever the batch
    assert torch.equal(again["back.features"], found["back.features"])
    assert len(list(cache.iterdir())) == 1
    few = str(write_set(tmp_path / "few", torch.cat([yaws[:25], torch.full((5,), 3.0)])))
    with pytest.raises(Head3DError, match="5 back views: 20 or more"):
        references.real_reference(Wanted(few, few, 0, 0, 0, 0, 32), stub())


@pytest.mark.opengl
def test_one_person_from_all_sides() -> None:
    images, masks = references.render_around((10_009_999,), 32, workers=1)
    assert images.shape == (1, 13, 3, 32, 32)
    covered = (masks > 127).float().mean((0, 2, 3))
    assert float(covered.min()) > 0.2
    assert float(covered.max()) < 0.9
    assert (images[0, 1].float() - images[0, 12].float()).abs().mean() > 5  # front and back differ
