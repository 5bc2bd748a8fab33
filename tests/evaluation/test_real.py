"""Real pictures: which views they are, how silhouettes are compared, folders, refusals."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import refuses
from torch import Tensor

from head3d_core.datasets.writer import write_dataset
from head3d_core.evaluation import real
from head3d_core.evaluation.real import Networks, Reference, Wanted
from head3d_core.metrics.features import FeatureNetwork
from head3d_core.metrics.silhouettes import silhouettes
from head3d_core.model.cameras import orbit, yaw_pitch
from head3d_core.synth import sets


class Colours(FeatureNetwork):
    """Mean and spread of the colours over quarters of a picture, [N, 24]: enough to tell pictures apart."""

    name, kernel_name = "Colours", "KD-Colours"

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
        yaw, pitch = yaw_pitch(torch.from_numpy(real.around_camera(person)))
        degrees = torch.rad2deg(yaw).abs()
        assert float(degrees[0]) <= 20
        steps = (degrees[1:] / 15).floor().long().clamp(max=11)
        assert steps.tolist() == list(range(12))
        assert float(torch.rad2deg(pitch).abs().max()) <= 15
    assert not np.array_equal(real.around_camera(1), real.around_camera(2))


def test_silhouettes_from_the_right_are_mirrored() -> None:
    mask = torch.zeros(2, 128, 128, dtype=torch.uint8)
    mask[:, :, :40] = 255
    left, right = silhouettes(mask, orbit(torch.tensor([0.5, -0.5])))
    assert torch.equal(left, right.flip(-1))
    assert left.shape == (64, 64)
    assert left[:, :20].min() == 255
    assert left[:, 20:].max() == 0
    soft = silhouettes(torch.full((1, 16, 16), 0.25), orbit(0.0))
    assert soft.unique().tolist() == [64]


def test_sources(tmp_path: Path) -> None:
    assert real.source_count("synth:faces:200", "faces") == 200
    assert real.source_count(str(tmp_path), "faces") is None
    for bad in ("somewhere/faces", "synth:heads:200", "synth:faces", "synth:faces:3", "synth:faces:many"):
        refuses("synth:faces:COUNT", real.source_count, bad, "faces")


def test_spread_reaches_both_ends() -> None:
    assert real._spread(list(range(100)), 4) == [0, 25, 50, 75]
    assert real._spread([1, 2], 5) == [1, 2]


def write_set(folder: Path, yaws: Tensor) -> str:
    """A data set in EG3D's format, with grey pictures."""
    images = (3 * torch.arange(len(yaws), dtype=torch.uint8))[:, None, None, None].repeat(1, 3, 32, 32)
    images[..., 8:24, 8:24] //= 2
    write_dataset(folder, images, orbit(yaws))
    return str(folder)


def test_a_folder_gives_its_frontal_and_its_back_views(tmp_path: Path) -> None:
    yaws = torch.cat([torch.linspace(-0.3, 0.3, 25), torch.full((5,), 1.5), torch.linspace(2.6, 3.6, 22)])
    path = write_set(tmp_path / "set", yaws)
    wanted = Wanted(path, path, around=0, training=0, detector=7, turned=0, resolution=32, straight=0)
    found = real.real_reference(wanted, stub())
    assert found["front.features"].shape == (25, 24)
    assert found["back.index"].tolist() == list(range(30, 52))
    assert found["front.found"].shape == (7,)
    assert not found.has("around")
    few = write_set(tmp_path / "few", torch.cat([yaws[:25], torch.full((5,), 3.0)]))
    wanted = dataclasses.replace(wanted, faces=few, heads=few)
    refuses("5 back views: 20 or more", real.real_reference, wanted, stub())


def test_groups_are_kept_by_name_and_settings(tmp_path: Path) -> None:
    made = []

    def make() -> dict[str, Tensor]:
        made.append(1)
        return {"x": torch.ones(2)}

    for settings in ({"n": 1}, {"n": 1}, {"n": 2}):
        assert torch.equal(real.kept(tmp_path, "real-a", settings, make)["x"], torch.ones(2))
    assert len(made) == len(list(tmp_path.iterdir())) == 2


def test_more_held_out_heads_than_there_are() -> None:
    for changes in ({"held_out": 1001}, {"straight": 900, "fresh": 101}, {"straight": 3}):
        refuses("there are 1000 held-out heads", real.real_reference, Wanted(**changes), stub())


def test_back_views_are_of_all_wanted_heads() -> None:
    views = real.back_views(60, 20)
    chosen = real._spread(real._fitting("held_out_heads", 10**9, views, False, 20), 60)
    assert {index // views for index in chosen} == set(range(20))
    tensors = {"back.index": torch.tensor(chosen)}
    found = Reference(tensors, Wanted(heads="synth:heads:60", held_out=20)).heads("back")
    assert found.unique().tolist() == list(range(20))


def with_straight(count: int = 40, fresh: int = 20) -> dict[str, Tensor]:
    """Half heads, half people; of either the last are fresh ones; scores are 0, 1, 2, ..."""
    fresh_ones = (torch.arange(count) % (count // 2)) >= (count - fresh) // 2
    numbers = torch.rand(count, 9, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    numbers[:, :3] = torch.arange(count, dtype=torch.float64)[:, None]
    return {
        "straight.numbers": numbers,
        "straight.features": torch.rand(count, 24, generator=torch.Generator().manual_seed(6)),
        "straight.hat": torch.arange(count) % 10 == 0,
        "straight.fresh": fresh_ones,
    }


def test_limits_come_from_others_than_the_fresh_backs() -> None:
    found = Reference(with_straight(80, 40), Wanted())
    fresh = found["straight.numbers"][found["straight.fresh"]][:, 0]
    assert fresh.tolist() == [*range(20, 40), *range(60, 80)]
    limit = found.ghost_limits()
    assert limit["eye_pair"] == pytest.approx(np.quantile([*range(20), *range(40, 60)], 0.95))
    assert Reference({}, Wanted()).ghost_limits() is None


@pytest.mark.opengl
def test_one_person_from_all_sides() -> None:
    views = np.stack([real.around_camera(10_009_999)])
    people = real.render_people("faces", (10_009_999,), views, 32, workers=1)
    assert people.images.shape == (1, 13, 3, 32, 32)
    covered = (people.coverage > 127).float().mean((0, 2, 3))
    assert float(covered.min()) > 0.2
    assert float(covered.max()) < 0.9
    front, back = people.images[0, (1, 12)].float()
    assert (front - back).abs().mean() > 5
    assert people.depth.numel() == 0


@pytest.mark.opengl
def test_real_heads_from_behind_can_be_measured() -> None:
    cameras = np.stack([np.stack([sets.orbit_camera(yaw, 0.0) for yaw in (math.pi, 0.0)])] * 2)
    numbers, backs = real.straight_numbers(real.render_people("heads", (1050, 1051), cameras, 256, 1, True))
    assert numbers.shape == (2, 9)
    assert numbers.isfinite().all()
    assert float(numbers[:, 0].max()) < 2.5, "no eyes behind"
    assert backs.shape == (2, 3, 256, 256)
