"""Metric snapshots: which pictures they take, and that a better generator gets a smaller distance."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import training_toys as toys
from torch import Tensor

from head3d_core.training import metric_snapshots
from head3d_core.training.metric_snapshots import MetricSnapshots
from head3d_core.training.parts import Pool


class _Colours(torch.nn.Module):
    """Mean colour, contrast and size of what is not white: features that the test understands."""

    kernel_name = "KD-colours"

    def forward(self, images: Tensor) -> Tensor:
        x = images.float() / 255
        return torch.cat([x.mean((2, 3)), x.std((2, 3)), (x < 0.9).float().mean((2, 3))], 1)


@pytest.fixture(autouse=True)
def _network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric_snapshots, "feature_network", lambda name, device: _Colours())


def pool(data: tuple[Tensor, Tensor]) -> Pool:
    return Pool(*data, torch.device("cpu"))


def test_real_pictures_come_evenly_from_all_pools_with_their_cameras() -> None:
    pools = [pool(toys.heads(80)), pool(toys.discs(80, math.pi, seed=5))]
    snapshots = MetricSnapshots(pools, 20)
    found = snapshots._real("back")
    assert found is not None
    features, cameras = found
    assert len(features) == len(cameras) == 20
    held = torch.cat([p.cameras[0] for p in pools])
    images = torch.cat([p.images for p in pools])
    for feature, camera in zip(features, cameras, strict=True):
        (index,) = (held == camera).all(1).nonzero()[:, 0].tolist()
        torch.testing.assert_close(_Colours()(images[index : index + 1])[0].double(), feature)
    first = (held[:80, None] == cameras[None]).all(2).any(0)
    assert 5 <= int(first.sum()) <= 15, "both pools take part"


def test_a_view_that_is_not_there_is_left_out_and_measuring_repeats() -> None:
    net = toys.networks()[0].eval()
    snapshots = MetricSnapshots([pool(toys.faces(64))], 24)
    first = snapshots.measure(net)
    assert list(first) == ["KD-colours_x100_front"]
    assert snapshots.measure(net) == first


def test_pictures_like_the_data_are_nearer(monkeypatch: pytest.MonkeyPatch) -> None:
    net = toys.networks()[0].eval()
    snapshots = MetricSnapshots([pool(toys.faces(64))], 24)
    noise = snapshots.measure(net)["KD-colours_x100_front"]
    images = iter(toys.discs(64, 0.6, seed=9)[0].float().split(24))

    def real_ones(planes: Tensor, ws: Tensor, camera: Tensor) -> Any:
        picture = next(images)[: len(camera)] / 127.5 - 1
        return type("Output", (), {"image": picture})

    monkeypatch.setattr(net, "render", real_ones)
    assert snapshots.measure(net)["KD-colours_x100_front"] < noise / 4
