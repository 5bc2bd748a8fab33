"""The training loop on toy data at preset tiny: stages, schedules, who learns, stopping, resuming, bad input."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import training_toys as toys

from head3d_core.checkpoints.weights import load_generator
from head3d_core.model.discriminator import Discriminator
from head3d_core.model.generator import Generator
from head3d_core.training import metric_snapshots, recipes, snapshots, stages, train
from head3d_core.training.parts import Draws, EngineOptions, Phase, Purpose, blur
from head3d_core.training.train import TrainArgs
from head3d_core.training.trainer import Engine
from head3d_core.utils.errors import Head3DError

LOAD_IMAGES = stages.load_images


@pytest.fixture(autouse=True)
def _toy_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """`train` reads the toy sets instead of folders, at a scale that is quick."""

    def load(source: str, resolution: int, cache: Path | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        return toys.heads() if "heads" in source else toys.faces()

    monkeypatch.setattr(stages, "load_images", load)
    monkeypatch.setattr(stages, "load_cameras", lambda source: load(source, toys.SIDE)[1])
    monkeypatch.setattr(train, "preset", lambda name: toys.smaller())
    monkeypatch.setattr(train, "GRID_YAWS", (0.0, 90.0))


def run(stage: str, out: Path, **changes: Any) -> Path:
    values: dict[str, Any] = {
        "preset": "tiny",
        "device": "cpu",
        "images": 8,
        "report_seconds": 0.0,
        "metric_minutes": 0.0,
        **changes,
    }
    return train.train(TrainArgs(stage, values.pop("data", "faces"), out, **values))


# -- pieces --------------------------------------------------------------------------------------------------------


def test_draws_are_the_same_for_any_number_of_processes() -> None:
    cpu = torch.device("cpu")
    whole = Draws(3, 8, 0, 1, cpu)
    whole.step.fill_(5)
    for world in (2, 4):
        for rank in range(world):
            part = Draws(3, 8, rank, world, cpu)
            part.step.fill_(5)
            a = whole.normal(Phase.G_MAIN, Purpose.Z, 16)[rank::world]
            torch.testing.assert_close(part.normal(Phase.G_MAIN, Purpose.Z, 16), a, rtol=0, atol=0)
            b = whole.uniform(Phase.D_MAIN, Purpose.CAMERA, 2, shift=-1)[rank::world]
            torch.testing.assert_close(
                part.uniform(Phase.D_MAIN, Purpose.CAMERA, 2, shift=-1), b, rtol=0, atol=0
            )


def test_draws_differ_by_seed_step_phase_purpose_and_sample() -> None:
    seen = set()
    for seed in (0, 1):
        draws = Draws(seed, 4, 0, 1, torch.device("cpu"))
        for step in (0, 1, 100_000):
            draws.step.fill_(step)
            for phase in Phase:
                for purpose in Purpose:
                    seen.update(draws.seeds(phase, purpose).tolist())
    assert len(seen) == 2 * 3 * len(Phase) * len(Purpose) * 4


def test_blur_matches_its_formula_and_fades_to_nothing() -> None:
    x = torch.zeros(1, 3, 33, 33)
    x[..., 16, 16] = 1
    y = blur(x, torch.tensor(2.0), largest=4.0)
    assert y.sum().item() == pytest.approx(3.0, abs=1e-5)
    assert (y[0, 0, 16, 18] / y[0, 0, 16, 16]).item() == pytest.approx(0.5, abs=1e-5), "2^-(2/2)^2"
    assert y[0, 0, 16, 23].item() == 0, "cut at 3 sigma"
    torch.testing.assert_close(blur(x, torch.tensor(1e-6), largest=4.0), x)


def test_schedules_at_their_ends() -> None:
    how = toys.toy_recipe("teacher", batch=4, blur_sigma=2.0, blur_images=32, gpc=0.8, gpc_images=32,
                          neural_resolution=4, neural_images=32, ema_images=16.0, ema_rampup=0.05)  # fmt: skip
    engine = toys.engine(how)
    assert (engine.blur_sigma(), engine.swap_probability(), engine.neural_resolution()) == (2.0, 1.0, 4)
    assert engine.ema_beta() < 1e-6, "the average starts as a copy"
    engine.step_count = 4
    assert engine.blur_sigma() == pytest.approx(1.0)
    assert engine.swap_probability() == pytest.approx(0.9)
    assert engine.neural_resolution() == 6
    engine.step_count = 1000
    assert (engine.blur_sigma(), engine.neural_resolution()) == (0.0, 8)
    assert engine.swap_probability() == pytest.approx(0.8)
    assert engine.ema_beta() == pytest.approx(0.5 ** (4 / 16))


def test_the_weight_of_backs_can_be_tuned() -> None:
    def weights(**changed: object) -> list[float]:
        args = TrainArgs("distill", "synth:faces:8", Path("run"), **changed)  # type: ignore[arg-type]
        return [d.weight for d in train.resolve(args)[1].domains]

    assert (weights(preset="paper"), weights(preset="classroom")) == ([1, 10], [1, 1])
    assert (weights(gan_back=2.0), weights(gan_back=0.0)) == ([1, 2], [1, 0])
    args = TrainArgs("distill", "synth:faces:8", Path("run"), side_views=True, gan_back=1.0)
    back = train.resolve(args)[1].domains[1]
    assert (back.sources, back.weight) == (("heads_side",), 1)
    with pytest.raises(Head3DError, match="side_views needs a discriminator of backs"):
        weights(row="single-d", side_views=True)
    with pytest.raises(Head3DError, match="gan_back needs a discriminator of backs, and single-d has none"):
        weights(gan_back=2.0, row="single-d")


def test_two_domains_alternate_and_keep_their_share() -> None:
    how = recipes.recipe("distill", "tiny")
    assert [how.domain_at(k) for k in range(6)] == [0, 1, 0, 1, 0, 1]
    uneven = dataclasses.replace(how, back_share=0.25)
    assert sum(uneven.domain_at(k) for k in range(400)) == 100


def test_the_papers_numbers() -> None:
    head, distill = recipes.recipe("head", "paper"), recipes.recipe("distill", "paper")
    assert (head.batch, head.lr_g, head.lr_d, head.domains[0].gamma) == (16, 0.0025, 0.002, 20)
    front, back = distill.domains
    assert (distill.lr_g, distill.lr_d, front.gamma, back.gamma) == (0.001, 0.0005, 1, 20)
    assert (front.weight, back.weight) == (1, 10)
    assert dataclasses.astuple(distill.losses) == (0.5, 1, 1, 1)
    assert distill.tau == pytest.approx(torch.pi / 4)
    assert distill.distil_planes == (0,)


def test_every_row_is_a_change_of_configuration() -> None:
    full = recipes.recipe("distill", "classroom", "head3d")
    rows = {name: recipes.recipe("distill", "classroom", name) for name in recipes.ROWS}
    assert rows["head3d"] == recipes.recipe("distill", "classroom") == full
    assert rows["no-kd"].losses == dataclasses.replace(full.losses, kd=0)
    assert rows["no-rgb-lpips"].losses == dataclasses.replace(full.losses, rgb=0, lpips=0)
    assert [d.weight for d in rows["no-gan-front"].domains] == [0, 1]
    assert rows["all-planes"].distil_planes == (0, 1, 2)
    assert [d.sources for d in rows["single-d"].domains] == [("faces", "heads_back")]
    assert rows["single-d"].losses == full.losses
    for name, start in (("dft", "teacher"), ("fh", "head")):
        assert (rows[name].start, rows[name].losses.any) == (start, False)
        assert [d.sources for d in rows[name].domains] == [("faces", "heads")]
    assert rows["plane-swap"].images == 0


# -- one step ------------------------------------------------------------------------------------------------------


def test_each_phase_moves_its_own_network_only() -> None:
    engine = toys.engine(toys.toy_recipe("teacher"))
    g, d = toys.weights(engine.generator), toys.weights(engine.discriminators[0])

    def changed(net: torch.nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
        return {k for k, v in net.state_dict().items() if not torch.equal(v, before[k])}

    engine.run_phase(Phase.G_MAIN, 0)
    assert not changed(engine.discriminators[0], d)
    moved = changed(engine.generator, g)
    assert {"backbone.mapping.w_avg", "decoder.net.0.weight", "superresolution.block1.torgb.weight"} <= moved
    assert all(k in moved for k in g if k.endswith("conv1.weight")), "every convolution learns"
    g = toys.weights(engine.generator)
    engine.run_phase(Phase.G_REG, 0)
    moved = changed(engine.generator, g)
    assert "decoder.net.0.weight" in moved
    assert not any(torch.equal(p.grad, torch.zeros_like(p)) for n, p in engine.generator.named_parameters()
                   if n == "backbone.synthesis.b32.conv1.weight" and p.grad is not None)  # fmt: skip
    assert not any(p.grad.any() for n, p in engine.generator.named_parameters()
                   if n.startswith("superresolution") and p.grad is not None), "density knows no pictures"  # fmt: skip
    g = toys.weights(engine.generator)
    for phase in (Phase.D_MAIN, Phase.D_REG):
        d = toys.weights(engine.discriminators[0])
        engine.run_phase(phase, 0)
        assert not changed(engine.generator, g)
        assert {"b64.fromrgb.weight", "b4.out.weight", "mapping.embed.weight"} <= changed(
            engine.discriminators[0], d
        )


def test_one_pass_of_d_equals_two() -> None:
    engine = toys.engine(toys.toy_recipe("teacher", batch=8))
    fake, real = ((torch.randn(8, 3, 64, 64), torch.randn(8, 3, 8, 8), toys.faces(8)[1]) for _ in range(2))
    together = engine._judge_both(0, fake, real)
    for a, b in zip(together, (engine._judge(0, *fake), engine._judge(0, *real)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_step_repeats_exactly() -> None:
    runs = []
    for _ in range(2):
        engine = toys.engine(toys.toy_recipe("teacher"))
        engine.step()
        runs.append(toys.weights(engine.generator))
    for name, value in runs[0].items():
        assert torch.equal(value, runs[1][name]), name


def test_d_learns_to_tell_and_g_moves_towards_the_data() -> None:
    """A fixed toy problem: discs on white. D separates untrained pictures, then G's pictures approach the real mean."""
    how = toys.toy_recipe("teacher", batch=8, density_weight=0.0, noise="const")
    engine = toys.engine(how)

    def colour_gap() -> float:
        real = toys.faces()[0].float().mean([0, 2, 3]) / 127.5 - 1
        fake = train.sample_views(engine.average, range(32), (0.0,), psi=1.0).mean([0, 2, 3])
        return float((fake - real).abs().mean())

    for _ in range(6):
        engine.run_phase(Phase.D_MAIN, 0)
        engine.step_count += 1
    first = engine.read_metrics()["d_loss_front"]
    for _ in range(4):
        engine.run_phase(Phase.D_MAIN, 0)
        engine.step_count += 1
    assert engine.read_metrics()["d_loss_front"] < first
    before = colour_gap()
    for _ in range(32):  # it overshoots at first: step 12 is farther away than the start
        engine.step()
    assert colour_gap() < before


def test_not_finite_gradients_are_counted_and_do_no_harm() -> None:
    engine = toys.engine(toys.toy_recipe("teacher", density_weight=0.0))
    engine.g.descend((next(iter(engine.g.parameters)) * torch.tensor(float("nan"))).sum())
    before = toys.weights(engine.generator)
    engine.g.update(engine.bad)
    assert engine.read_metrics()["bad_gradients"] == next(iter(engine.g.parameters)).numel()
    assert all(torch.equal(v, before[k]) for k, v in engine.generator.state_dict().items())


# -- whole runs ----------------------------------------------------------------------------------------------------


def test_every_stage_runs_and_feeds_the_next(tmp_path: Path) -> None:
    scenes = run("teacher", tmp_path / "scenes", white_back=False)
    teacher = run("whiten", tmp_path / "teacher", teacher=scenes)
    head = run("head", tmp_path / "head", heads="heads", teacher=teacher)
    out = run("distill", tmp_path / "head3d", heads="heads", teacher=teacher, head=head)
    for folder in (scenes, teacher, head, out):
        lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        assert [lines[0]["event"], lines[-1]["event"], lines[-1]["reason"]] == ["start", "end", "done"]
        assert any("rate" in line for line in lines)
        assert (folder / "grid-0000000008.png").is_file()
        assert load_generator(folder / "weights").num_ws
    names = {k for line in lines for k in line}
    assert {"kd", "map", "rgb", "lpips", "g_gan_front", "g_gan_back", "d_loss_front", "d_loss_back"} <= names
    assert lines[0]["perceptual"] == "lpips_randvgg16(seed=0)"
    assert {"date", "commit"} <= lines[0].keys()


def assert_same_state(a: Path, b: Path) -> None:
    (one, meta_one), (two, meta_two) = snapshots.load_latest(a), snapshots.load_latest(b)
    assert meta_one["step"] == meta_two["step"]
    assert one.keys() == two.keys()
    differing = [k for k in one if not torch.equal(one[k], two[k])]
    assert not differing, differing[:5]


def test_resume_is_bit_exact(tmp_path: Path) -> None:
    run("teacher", tmp_path / "whole", images=24)
    run("teacher", tmp_path / "parts", images=12)
    run("teacher", tmp_path / "parts", images=24, resume=True)
    assert_same_state(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 5}, "another seed (seed was 0, is 5)"),
        ({"batch": 8}, "another batch (batch was 4, is 8)"),
    ],
)
def test_resume_refuses_another_run(tmp_path: Path, changes: dict[str, int], named: str) -> None:
    run("teacher", tmp_path, images=4)
    before = snapshots.latest(tmp_path)
    with pytest.raises(Head3DError, match=re.escape(named)):
        run("teacher", tmp_path, images=16, resume=True, **changes)
    assert snapshots.latest(tmp_path) == before


def test_resume_compares_the_whole_recipe(tmp_path: Path) -> None:
    run("teacher", tmp_path, images=4)
    meta = snapshots.load_latest(tmp_path)[1]
    args = TrainArgs("teacher", "faces", tmp_path, preset="tiny", device="cpu", images=8)
    how = train.resolve(args)[1]
    domains = tuple(dataclasses.replace(d, gamma=2 * d.gamma) for d in how.domains)
    cure = dataclasses.replace(how, lr_g=how.lr_g / 2, domains=domains)
    other = dataclasses.replace(how, tau=0.1, mirror=not how.mirror)
    for recipe, expected in ((how, []), (cure, []), (other, ["mirror", "tau"])):
        same = train.Run.__new__(train.Run)
        same.args, same.how = args, recipe
        assert list(same._changed_since(meta)) == expected


def test_a_carried_run_goes_on(tmp_path: Path) -> None:
    run("teacher", tmp_path, images=8, carry=True)
    tensors, meta = snapshots.load_latest(tmp_path)
    assert tensors["generator.decoder.net.0.weight"].dtype == torch.float16
    assert not any(k.startswith("adam") for k in tensors)
    run("teacher", tmp_path, images=16, carry=True, resume=True)
    assert snapshots.load_latest(tmp_path)[1]["warm_from"] == 2
    assert meta["warm_from"] == 0


def test_time_limit_and_signals_stop_cleanly(tmp_path: Path) -> None:
    out = run("teacher", tmp_path / "limit", images=10_000, max_minutes=0.03)
    assert json.loads((out / "log.jsonl").read_text().splitlines()[-1])["reason"] == "time limit"
    threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
    before = signal.getsignal(signal.SIGTERM)
    out = run("teacher", tmp_path / "signal", images=10_000)
    assert json.loads((out / "log.jsonl").read_text().splitlines()[-1])["reason"] == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) == before
    assert snapshots.load_latest(out)[1]["images"] < 10_000


def test_divergence_is_named_and_the_last_good_snapshot_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("teacher", tmp_path, images=4)
    good = snapshots.latest(tmp_path)
    step = Engine.step

    def poisoned(engine: Engine) -> None:
        step(engine)
        with torch.no_grad():
            engine.generator.decoder.net["0"].weight.fill_(torch.nan)

    monkeypatch.setattr(Engine, "step", poisoned)
    with pytest.raises(Head3DError, match=r"training diverged.*last good snapshot is .*state-0000000004"):
        run("teacher", tmp_path, images=12, resume=True, report_seconds=1e9)
    assert snapshots.latest(tmp_path) == good


def test_an_unwritable_place_and_an_unknown_device_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(Head3DError, match="choose another --out"):
        run("teacher", tmp_path / "file" / "run")
    with pytest.raises(Head3DError, match="device 'foo' cannot be used"):
        run("teacher", tmp_path / "run", device="foo")
    assert not (tmp_path / "run").exists()


def test_a_refused_start_leaves_no_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(Head3DError):
        run("head", tmp_path / "run", teacher=tmp_path / "nothing")
    assert not (tmp_path / "run").exists()
    (tmp_path / "kept").mkdir()
    with pytest.raises(Head3DError):
        run("head", tmp_path / "kept", teacher=tmp_path / "nothing")
    assert (tmp_path / "kept").is_dir()


@pytest.mark.parametrize("collapsed", [False, True])
def test_collapse_is_noticed(
    collapsed: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A generator that gives every z the same w is named; one that merely is untrained is not."""
    if collapsed:
        mapping = Generator.mapping
        monkeypatch.setattr(Generator, "mapping", lambda *a, **k: mapping(*a, **k) * 0)
    run("teacher", tmp_path, images=4)
    assert ("samples look all alike" in capsys.readouterr().out) == collapsed
    assert ('"collapse"' in (tmp_path / "log.jsonl").read_text()) == collapsed


@pytest.mark.parametrize("blind", [False, True])
def test_a_discriminator_at_chance_is_named(
    blind: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that answers 0 to everything is named once, with where to read on; a seeing one is not."""
    if blind:
        forward = Discriminator.forward
        monkeypatch.setattr(Discriminator, "forward", lambda *a, **k: forward(*a, **k) * 0)
    run("teacher", tmp_path, images=24, report_seconds=0.0)
    assert capsys.readouterr().out.count("D_front tells real from generated no better than chance") == blind
    assert (tmp_path / "log.jsonl").read_text().count('"at_chance"') == blind


def test_metric_snapshots_show_the_trend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        stages, "load_images", lambda source, *_: toys.heads(96) if "heads" in source else toys.faces()
    )
    teacher = run("teacher", tmp_path / "t", images=4)
    run("head", tmp_path / "h", heads="heads", teacher=teacher, metric_minutes=60.0, metric_images=16)
    found = [json.loads(line) for line in (tmp_path / "h" / "log.jsonl").read_text().splitlines()]
    (line,) = [line for line in found if line["event"] == "metrics"]
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
    assert json.loads((out / "log.jsonl").read_text().splitlines()[-1])["reason"] == "done"


def test_bad_input_gets_one_sentence(tmp_path: Path) -> None:
    cases: list[tuple[str, dict[str, Any]]] = [
        ("no stage called 'studnet'", {"stage": "studnet"}),
        ("no row called", {"stage": "distill", "row": "nothing"}),
        ("belongs to stage 'distill'", {"row": "no-kd"}),
        ("is not trained", {"stage": "distill", "row": "plane-swap"}),
        ("pass --teacher RUN", {"stage": "head", "heads": "heads"}),
        ("needs the head set: pass --heads", {"stage": "head", "teacher": tmp_path / "t"}),
        ("precision must be", {"precision": "int8"}),
        ("keep counts the snapshots", {"keep": 0}),
    ]
    run("teacher", tmp_path / "t", images=4)
    for match, changes in cases:
        with pytest.raises(Head3DError, match=match) as caught:
            run(changes.pop("stage", "teacher"), tmp_path / "x", **changes)
        assert "\n" not in str(caught.value)
    with pytest.raises(Head3DError, match="already holds a run: add --resume"):
        run("teacher", tmp_path / "t")
    with pytest.raises(Head3DError, match=r"differs in render\.axes \(xyz and eg3d\)"):
        run("whiten", tmp_path / "y", teacher=tmp_path / "t", axes="eg3d")
    with pytest.raises(Head3DError, match="synth:NAME:COUNT"):
        LOAD_IMAGES("synth:faces", 64)


def test_kept_renders_are_taken_only_if_they_are_whole_and_of_this_sampler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def render(name: str, which: range, resolution: int) -> tuple[np.ndarray, np.ndarray]:
        calls.append(name)
        return np.full((len(which), 3, resolution, resolution), 7, np.uint8), np.ones(
            (len(which), 25), np.float32
        )

    monkeypatch.setattr("head3d_core.synth.make_data.render_set", render)
    for _ in range(2):
        images, labels = LOAD_IMAGES("synth:faces:20", 8, tmp_path)
        assert images.shape == (20, 3, 8, 8)
        assert labels.shape == (20, 25)
    assert len(calls) == 1
    monkeypatch.setattr("head3d_core.synth.draws.SAMPLER_VERSION", 10**6)
    LOAD_IMAGES("synth:faces:20", 8, tmp_path)
    assert len(calls) == 2, "another sampler draws other people"
    kept = next(tmp_path.glob("*-v1000000.images.npy"))
    np.save(kept, np.zeros((19, 3, 8, 8), np.uint8))
    with pytest.raises(
        Head3DError, match=r"hold \[19, 3, 8, 8\] and \[20, 25\], not 20 pictures of 8²: delete both"
    ):
        LOAD_IMAGES("synth:faces:20", 8, tmp_path)
    kept.write_bytes(kept.read_bytes()[:100])
    with pytest.raises(Head3DError, match=r"cannot be read .* delete both"):
        LOAD_IMAGES("synth:faces:20", 8, tmp_path)
    assert not list(tmp_path.glob(".*")), "no temporary file stays"


def test_wrong_sizes_and_batches_are_refused() -> None:
    how = toys.toy_recipe("teacher", batch=6)
    with pytest.raises(Head3DError, match="multiple of the minibatch-std group"):
        toys.engine(how)
    images, cameras = toys.faces()
    pools, _ = stages.make_pools(how, (images[:, :, ::2, ::2], cameras), None, torch.device("cpu"))
    with pytest.raises(Head3DError, match="training images must be 3 x 64 x 64"):
        Engine(
            toys.smaller(), dataclasses.replace(how, batch=4), pools, toys.networks()[0], [toys.networks()[1]]
        )


@pytest.mark.parametrize("where", ["pool", "step", "grid"])
def test_too_little_memory_says_what_to_lower(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures that don't fit, a step that doesn't, and the sample grid after the last step."""

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    place, name = {
        "pool": (stages.Pool, "__init__"),
        "step": (Engine, "step"),
        "grid": (train, "sample_views"),
    }[where]
    monkeypatch.setattr(place, name, full)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (0, 8 * 2**30))
    message = (
        r"the GPU \(8 GiB\) ran out of memory.*needs about \d+ GiB each, and 0.1 GiB for every.*lower --batch"
    )
    with pytest.raises(Head3DError, match=message):
        run("teacher", tmp_path / "run")
    assert (tmp_path / "run").exists() == (where != "pool")
    # After the last step the state is saved before anything is drawn.
    assert (snapshots.latest(tmp_path / "run") is not None) == (where == "grid")


def test_memory_estimate_grows_with_batch_and_scale() -> None:
    from head3d_core.config import preset

    classroom, paper = preset("classroom"), preset("paper")
    assert stages.memory_estimate(classroom, 64) > stages.memory_estimate(classroom, 16)
    assert stages.memory_estimate(paper, 8) > stages.memory_estimate(classroom, 8)


def test_pictures_may_arrive_while_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from head3d_core.synth import make_data

    def render(name: str, indices: range, resolution: int) -> tuple[Any, Any]:
        assert resolution == toys.SIDE
        images, cameras = toys.faces(64)
        return images[indices.start : indices.stop].numpy(), cameras[indices.start : indices.stop].numpy()

    monkeypatch.setattr(make_data, "render_set", render)
    monkeypatch.setattr(stages, "load_images", LOAD_IMAGES)
    out = run("teacher", tmp_path, data="synth:faces:64", stream=8, images=24)
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["real_images"] for line in lines if line["event"] == "data"][-1] == [64]
    first = [part[:8] for part in toys.faces(64)]
    pool = stages.Pool(first[0], first[1], torch.device("cpu"), capacity=64)
    thread = stages.Arriving(pool, "synth:faces:64", toys.SIDE, chunk=20)
    thread.run()
    whole = stages.Pool(*toys.faces(64), torch.device("cpu"))
    u = torch.rand(100, 2)
    for a, b in zip(pool.draw(u), whole.draw(u), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_exported_weights_start_the_next_stage(tmp_path: Path) -> None:
    run("teacher", tmp_path / "t", images=4)
    train.export(tmp_path / "t", tmp_path / "w")
    generator, discriminator = stages.starting_point(tmp_path / "w", toys.smaller())
    assert discriminator is not None
    tensors, _ = snapshots.load_latest(tmp_path / "t")
    for net, prefix in ((generator, "average."), (discriminator, "d0.")):
        for name, value in net.state_dict().items():
            torch.testing.assert_close(value, tensors[prefix + name], rtol=1e-3, atol=1e-4)
    run("head", tmp_path / "h", heads="heads", teacher=tmp_path / "w", images=4)
    with pytest.raises(Head3DError, match=r"differs in channel_base"):
        run("whiten", tmp_path / "x", teacher=tmp_path / "t", width=2.0)


def test_weights_without_a_discriminator_get_one_fitted(tmp_path: Path) -> None:
    run("teacher", tmp_path / "t", images=4)
    run("head", tmp_path / "h", heads="heads", teacher=tmp_path / "t", images=4)
    face, head = tmp_path / "t" / "weights", tmp_path / "h" / "weights"
    sets: dict[str, Any] = {"heads": "heads", "images": 8, "batch": 4}
    with pytest.raises(
        Head3DError, match=r"holds no discriminator.*train whiten --only-discriminator --teacher"
    ):
        run("distill", tmp_path / "x", teacher=face, head=head, **sets)
    with pytest.raises(Head3DError, match="goes with stage whiten"):
        run("distill", tmp_path / "x", teacher=face, head=head, only_discriminator=True, **sets)

    run("whiten", tmp_path / "df", teacher=face, only_discriminator=True, images=8)
    run("head", tmp_path / "dh", teacher=tmp_path / "df", head=head, only_discriminator=True, **sets)
    for out, source, other in ((tmp_path / "df", face, None), (tmp_path / "dh", head, tmp_path / "df")):
        given = load_generator(source)
        tensors, _ = snapshots.load_latest(out)
        for prefix in ("generator.", "average."):  # neither moved, nor did the averages of w
            for name, value in given.state_dict().items():
                torch.testing.assert_close(tensors[prefix + name], value, rtol=0, atol=0)
        start = snapshots.load_latest(other)[0] if other else None
        assert any(
            not torch.equal(v, start[k]) if start else bool(v.abs().sum() > 0)
            for k, v in tensors.items()
            if k.startswith("d0.") and k.endswith("bias")
        ), "its discriminator has learnt"
    run("distill", tmp_path / "s", teacher=tmp_path / "df", head=tmp_path / "dh", **sets)


# -- on a GPU --------------------------------------------------------------------------------------------------


def _on_gpu(stage: str, **options: Any) -> Engine:
    how = toys.toy_recipe(stage, batch=4, blur_sigma=2.0, blur_images=10_000, ada_target=0.6, ada_start=0.3)
    return toys.engine(how, device="cuda", options=EngineOptions(**options))


@pytest.mark.gpu
@pytest.mark.parametrize("stage", ["teacher", "distill"])
def test_no_step_waits_for_the_gpu(stage: str) -> None:
    engine = _on_gpu(stage, graphs=False)
    for _ in range(2):  # fills caches of constants
        engine.step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(4):
            engine.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.parametrize("stage", ["teacher", "distill"])
def test_graphs_train_like_plain_steps(stage: str) -> None:
    """Same draws, same schedules: only the order of atomic sums differs, which Adam's first steps can amplify."""
    plain, captured = (_on_gpu(stage, precision="fp32", graphs=g) for g in (False, True))
    for _ in range(12):
        plain.step()
        captured.step()
    a, b = plain.read_metrics(), captured.read_metrics()
    assert a.keys() == b.keys()
    for name in ("kd", "map", "d_loss_front", "g_gan_front"):
        if name in a:
            assert b[name] == pytest.approx(a[name], rel=0.05), name
    assert any(replay.graph is not None for replay in captured.replays.values())


@pytest.mark.gpu
def test_half_precision_follows_full_precision() -> None:
    """One G and one D step: metrics of bf16 within its rounding (8 bits) of fp32."""
    full, half = (_on_gpu("teacher", precision=p, graphs=False) for p in ("fp32", "bf16"))
    full.step()
    half.step()
    a, b = full.read_metrics(), half.read_metrics()
    for name in ("d_loss_front", "g_gan_front"):
        assert b[name] == pytest.approx(a[name], rel=0.05, abs=0.02), name
