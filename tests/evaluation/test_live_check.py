"""The same weights pass, planted wrong ones do not."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path

import pytest
import torch
from test_sampling import model

from head3d_core.evaluation import live_check
from head3d_core.evaluation.live_check import LiveCheckArgs
from head3d_core.model.cameras import orbit
from head3d_core.utils.errors import Head3DError

COUNT = 16


@pytest.fixture(scope="module")
def real() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(20, 1280, generator=generator), orbit(torch.linspace(-0.3, 0.3, 20))


def test_planted_wrong_models_fail(tmp_path: Path, real: tuple[torch.Tensor, torch.Tensor]) -> None:
    good = model(0).generator
    args = LiveCheckArgs(str(tmp_path), count=COUNT, record=tmp_path / "live.json")
    live_check.write_record(good, args, real)
    assert live_check.check_live(good, args.record, COUNT, real).same
    assert {"date", "commit", "command", "torch"} <= set(json.loads(args.record.read_text()))
    noisy = copy.deepcopy(good)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in noisy.parameters():
            p.add_(0.2 * p.std() * torch.randn(p.shape, generator=generator) if p.numel() > 1 else 0 * p)
    for wrong in (model(1).generator, noisy):
        verdict = live_check.check_live(wrong, args.record, COUNT, real)
        assert not verdict.same
        assert "NOT as recorded" in str(verdict)


def test_another_number_of_samples_is_refused(
    tmp_path: Path, real: tuple[torch.Tensor, torch.Tensor]
) -> None:
    path = tmp_path / "live.json"
    with pytest.raises(Head3DError, match=r"not recorded yet.*--write"):
        live_check.check_live(model(0).generator, path, COUNT, real)
    path.write_text(json.dumps({"count": 200, "kernel x100": {}}))
    with pytest.raises(Head3DError, match="only at one N"):
        live_check.check_live(model(0).generator, path, COUNT, real)


def test_real_features(tmp_path: Path) -> None:
    features, camera = live_check.load_real()
    assert features.shape == (live_check.COUNT, 1280)
    assert camera.shape == (live_check.COUNT, 25)
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    stored = live_check.store_real(images, camera[:3], tmp_path / "real.npz")
    assert live_check.load_real(stored)[0].shape == (3, 1280)
    with pytest.raises(Head3DError, match="is not there"):
        live_check.load_real(tmp_path / "none.npz")


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from head3d_core.checkpoints import weights

    for seed in (0, 1):
        weights.save_generator(model(seed).generator, tmp_path / str(seed))
    args = LiveCheckArgs(str(tmp_path / "0"), count=12, write=True, record=tmp_path / "live.json")
    assert live_check.run(args) == 0
    again = dataclasses.replace(args, write=False)
    assert live_check.run(again) == 0
    assert live_check.run(dataclasses.replace(again, weights=str(tmp_path / "1"))) == 1
    assert "NOT as recorded" in capsys.readouterr().out
