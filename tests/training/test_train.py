"""Whole runs on toy data at preset tiny: stages, stopping, resuming, what is noticed, bad input."""

from __future__ import annotations

import os
import re
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import training_toys as toys
from helpers import refused, refuses

from head3d_core.checkpoints.weights import load_generator
from head3d_core.model.discriminator import Discriminator
from head3d_core.model.generator import Generator
from head3d_core.training import metric_snapshots, snapshots, stages, train
from head3d_core.training.trainer import Trainer
from head3d_core.utils.errors import Head3DError

run = toys.run
pytestmark = toys.with_toy_data


def test_every_stage_runs_and_feeds_the_next(tmp_path: Path) -> None:
    scenes = run("teacher", tmp_path / "scenes", changes={"generator.render.white_back": False})
    teacher = run("whiten", tmp_path / "teacher", teacher=scenes)
    head = run("head", tmp_path / "head", heads="heads", teacher=teacher)
    out = run("distill", tmp_path / "head3d", heads="heads", teacher=teacher, head=head)
    for folder in (scenes, teacher, head, out):
        lines = toys.log(folder)
        assert [lines[0]["event"], lines[-1]["event"], lines[-1]["reason"]] == ["start", "end", "done"]
        assert any("rate" in line for line in lines)
        assert (folder / "grid-0000000008.png").is_file()
        assert load_generator(folder / "weights").num_ws
    names = {k for line in lines for k in line}
    assert {"kd", "map", "rgb", "lpips", "g_gan_front", "g_gan_back", "d_loss_front", "d_loss_back"} <= names
    assert lines[0]["perceptual"] == "lpips_randvgg16(seed=0)"
    assert {"date", "commit"} <= lines[0].keys()


def test_resume_is_bit_exact(tmp_path: Path) -> None:
    whole = run("teacher", tmp_path / "whole", images=24)
    parts = run("teacher", tmp_path / "parts", images=12)
    run("teacher", parts, images=24, resume=True)
    assert toys.same(toys.state_of(whole), toys.state_of(parts))
    assert snapshots.load_latest(whole)[1]["step"] == snapshots.load_latest(parts)[1]["step"]


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        ("seed", 5, "another seed (seed was 0, is 5)"),
        ("recipe.batch", 8, "another recipe.batch (recipe.batch was 4, is 8)"),
        ("recipe.mirror", False, "another recipe.mirror"),
        ("generator.render.depth_resolution", 6, "another generator.render.depth_resolution"),
    ],
)
def test_resume_refuses_another_run(option: str, value: int, named: str, tmp_path: Path) -> None:
    run("teacher", tmp_path, images=4)
    before = snapshots.latest(tmp_path)
    refuses(re.escape(named), run, "teacher", tmp_path, images=16, resume=True, changes={option: value})
    assert snapshots.latest(tmp_path) == before


def test_resume_says_what_it_changes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = {"recipe.lr_g": 0.001, "recipe.domains.0.gamma": 2.0}
    run("teacher", tmp_path, images=4)
    run("teacher", tmp_path, images=8, resume=True, changes=changes)
    said = capsys.readouterr().out
    for change in (
        "images was 4 and is 8",
        "lr_g was 0.0025 and is 0.001",
        "domains.0.gamma was 1.0 and is 2.0",
    ):
        assert f"note: recipe.{change} from here on" in said


def test_a_run_from_before_a_field_goes_on(tmp_path: Path) -> None:
    """A snapshot that says nothing of back_blocks has none."""
    run("teacher", tmp_path, images=4)
    tensors, meta = snapshots.load_latest(tmp_path)
    del meta["generator"]["back_blocks"]
    snapshots.save(tmp_path, 4, tensors, meta)
    run("teacher", tmp_path, images=8, resume=True)
    assert snapshots.load_latest(tmp_path)[1]["images"] == 8


def test_a_carried_run_goes_on_elsewhere(tmp_path: Path) -> None:
    """The small state: float16, no optimiser, a file a network; a run resumes and later stages start from it."""
    run("teacher", tmp_path / "here", images=8, carry=True)
    carry = tmp_path / "there" / "carry"
    carry.parent.mkdir()
    (tmp_path / "here" / "carry").rename(carry)
    assert {p.stem for p in carry.iterdir()} == {"generator", "average", "d0", "rest"}
    tensors, meta = snapshots.load_latest(carry.parent)
    assert tensors["generator.decoder.net.0.weight"].dtype == torch.float16
    assert not any(k.startswith("adam") for k in tensors)
    run("teacher", carry.parent, images=16, carry=True, resume=True)
    assert meta["warm_from"] == 0
    assert snapshots.load_latest(carry.parent)[1]["warm_from"] == 2
    run("head", tmp_path / "head", heads="heads", teacher=carry, images=4)
    (carry / "d0.safetensors").unlink()
    whole, _ = snapshots.load_latest(tmp_path / "here")
    opened = snapshots.open_run(carry)
    assert not opened.discriminators
    for name, value in opened.generator.state_dict().items():
        assert value.dtype == whole[f"average.{name}"].dtype


def test_time_limit_and_signals_stop_cleanly(tmp_path: Path) -> None:
    """`train ... && next` must not go on from half a run: an interrupted one has an exit status of its own."""
    limited = toys.arguments("teacher", tmp_path / "limit", images=10_000, max_minutes=0.03)
    assert train.run(limited) == train.INTERRUPTED
    assert toys.log(limited.out)[-1]["reason"] == "time limit"
    assert not (limited.out / "weights").exists()
    threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
    before = signal.getsignal(signal.SIGTERM)
    stopped = toys.arguments("teacher", tmp_path / "signal", images=10_000)
    assert train.train(stopped) == "SIGTERM"
    assert toys.log(stopped.out)[-1]["reason"] == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) == before
    assert snapshots.load_latest(stopped.out)[1]["images"] < 10_000
    assert train.run(toys.arguments("teacher", tmp_path / "done", images=4)) == 0


def test_divergence_is_named_and_the_last_good_snapshot_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("teacher", tmp_path, images=4)
    good = snapshots.latest(tmp_path)
    step = Trainer.step

    def poisoned(trainer: Trainer) -> None:
        step(trainer)
        with torch.no_grad():
            trainer.generator.decoder.net["0"].weight.fill_(torch.nan)

    monkeypatch.setattr(Trainer, "step", poisoned)
    with refused(r"training diverged.*last good snapshot is .*state-0000000004"):
        run("teacher", tmp_path, images=12, resume=True, report_seconds=1e9)
    assert snapshots.latest(tmp_path) == good


def test_a_refused_start_leaves_no_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    refuses(r"cannot write to .*file/run", run, "teacher", tmp_path / "file" / "run")
    refuses("device 'foo' cannot be used", run, "teacher", tmp_path / "run", device="foo")
    (tmp_path / "kept").mkdir()
    for place in ("run", "kept"):
        refuses("nothing", run, "head", tmp_path / place, teacher=tmp_path / "nothing")
        assert (tmp_path / place).exists() == (place == "kept")


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize(
    ("module", "method", "said", "event"),
    [
        (Generator, "mapping", "mode collapse", "collapse"),
        (Discriminator, "forward", "D_front tells real from generated no better than chance", "at_chance"),
    ],
)
def test_collapse_and_chance_are_noticed(
    module: Any,
    method: str,
    said: str,
    event: str,
    broken: bool,
    tmp_path: Path,
    monkeypatch: Any,
    capsys: Any,
) -> None:
    """A G that gives every z the same w, or a D that answers 0 to everything, is named once; untrained ones are not."""
    if broken:
        right = getattr(module, method)
        monkeypatch.setattr(module, method, lambda *a, **k: right(*a, **k) * 0)
    run("teacher", tmp_path, images=24 if event == "at_chance" else 4)
    assert capsys.readouterr().out.count(said) == broken
    assert len(toys.log(tmp_path, event)) == broken
    if event == "at_chance":
        stopped = toys.arguments("teacher", tmp_path / "stop", images=24, stop_at_chance=True)
        assert train.train(stopped) == ("D_front at chance" if broken else "done")


def test_metric_snapshots_show_the_trend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = {"faces": toys.faces(), "heads": toys.heads(96)}
    monkeypatch.setattr(stages, "load_images", lambda source, *_: sets[source])
    teacher = run("teacher", tmp_path / "t", images=4)
    run("head", tmp_path / "h", heads="heads", teacher=teacher, metric_minutes=60.0, metric_images=16)
    (line,) = toys.log(tmp_path / "h", "metrics")
    assert line["KD-EffLite0_x100_back"] > 5, "noise is far from discs"
    assert "KD-EffLite0_x100_back=" in capsys.readouterr().out


def test_training_goes_on_without_the_feature_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(name: str, device: object) -> None:
        raise Head3DError("the offline features need two packages")

    monkeypatch.setattr(metric_snapshots, "feature_network", missing)
    out = run("teacher", tmp_path, metric_minutes=60.0)
    assert "note: no metric snapshots: the offline features need two packages" in capsys.readouterr().out
    assert toys.log(out)[-1]["reason"] == "done"


def test_bad_input_gets_one_sentence(tmp_path: Path) -> None:
    cases: list[tuple[str, dict[str, Any]]] = [
        ("pass --teacher RUN", {"stage": "head", "heads": "heads"}),
        ("needs the head set: pass --heads", {"stage": "head", "teacher": tmp_path / "t"}),
        ("keep must be at least 1, got 0", {"keep": 0}),
    ]
    run("teacher", tmp_path / "t", images=4)
    for match, changes in cases:
        refuses(match, run, changes.pop("stage", "teacher"), tmp_path / "x", **changes)
    refuses("already holds a run: add --resume", run, "teacher", tmp_path / "t")
    with refused(r"differs in render\.axes \(xyz and eg3d\)"):
        run("whiten", tmp_path / "y", teacher=tmp_path / "t", changes={"generator.render.axes": "eg3d"})


@pytest.mark.parametrize("where", ["pool", "step", "grid"])
def test_too_little_memory_says_what_to_lower(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures that don't fit, a step that doesn't, and the sample grid after the last step."""

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    places = {"pool": (stages.Pool, "__init__"), "step": (Trainer, "step"), "grid": (train, "sample_views")}
    monkeypatch.setattr(*places[where], full)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (0, 8 * 2**30))
    message = (
        r"the GPU \(8 GiB\) ran out of memory.*about \d+ GiB each, and 0.1 GiB for every.*--recipe.batch"
    )
    refuses(message, run, "teacher", tmp_path / "run")
    assert (tmp_path / "run").exists() == (where != "pool")
    # After the last step the state is saved before anything is drawn.
    assert (snapshots.latest(tmp_path / "run") is not None) == (where == "grid")
