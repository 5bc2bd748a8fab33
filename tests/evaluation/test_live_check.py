"""The same weights pass, planted wrong ones do not."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path

import pytest
import torch
from helpers import refuses
from test_samples import model

from head3d_core.checkpoints import weights
from head3d_core.checkpoints.weights import load_generator
from head3d_core.evaluation import live_check
from head3d_core.evaluation.live_check import LiveCheckArgs
from head3d_core.evaluation.samples import Model
from head3d_core.model.cameras import orbit

COUNT = 16


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty real images stand for the stored ones, and few samples are enough."""
    generator = torch.Generator().manual_seed(1)
    real = torch.rand(20, 1280, generator=generator), orbit(torch.linspace(-0.3, 0.3, 20))
    monkeypatch.setattr(live_check, "load_real", lambda: real)
    monkeypatch.setattr(live_check, "COUNTS", (COUNT,))


@pytest.mark.usefixtures("few")
def test_planted_wrong_models_fail(tmp_path: Path) -> None:
    good, other, path = model(0).generator, model(1).generator, tmp_path / "live.json"
    for name, G in (("good", good), ("other", other)):  # the second leaves the first in the record
        live_check.write_record({name: G}, path)
    for name, G in (("good", good), ("other", other)):
        assert live_check.check_live(G, name, COUNT, path).same
    assert {"date", "commit", "command", "torch"} <= set(json.loads(path.read_text())["provenance"])
    noisy = copy.deepcopy(good)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in noisy.parameters():
            p.add_(0.2 * p.std() * torch.randn(p.shape, generator=generator) if p.numel() > 1 else 0 * p)
    for wrong in (other, noisy):
        verdict = live_check.check_live(wrong, "good", COUNT, path)
        assert not verdict.same
        assert "NOT as recorded" in str(verdict)


@pytest.mark.usefixtures("few")
def test_what_is_not_recorded_is_named(tmp_path: Path) -> None:
    path, good = tmp_path / "live.json", model(0).generator
    refuses(r"not recorded yet.*--write", live_check.check_live, good, "good", COUNT, path)
    live_check.write_record({"good": good}, path)
    for name, count in (("good", 200), ("other", COUNT)):
        says = rf"nothing of '{name}' with {count} samples: it has good \({COUNT}\)"
        refuses(says, live_check.check_live, good, name, count, path)


def test_every_bundled_generator_is_recorded_as_it_is() -> None:
    known = json.loads(live_check.RECORD.read_text())["generators"]
    assert set(known) == set(live_check.bundled())
    for name, found in known.items():
        assert found["digest"] == Model(load_generator(name)).digest(), name
        assert {str(count) for count in live_check.COUNTS} < set(found)


def test_real_features(tmp_path: Path) -> None:
    features, camera = live_check.load_real()
    assert features.shape == (live_check.COUNT, 1280)
    assert camera.shape == (live_check.COUNT, 25)
    refuses("is not there", live_check.load_real, tmp_path / "none.npz")


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(live_check, "COUNTS", (12,))
    for seed in (0, 1):
        weights.save_generator(model(seed).generator, tmp_path / str(seed) / "a")
    right, wrong = (str(tmp_path / str(seed) / "a") for seed in (0, 1))
    args = LiveCheckArgs((right,), 12, True, tmp_path / "live.json")
    assert live_check.run(args) == 0
    again = dataclasses.replace(args, write=False)
    assert live_check.run(again) == 0
    assert live_check.run(dataclasses.replace(again, weights=(wrong,))) == 1
    assert "NOT as recorded" in capsys.readouterr().out
