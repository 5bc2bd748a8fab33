"""What a stage starts from: rendered sets, pools, runs and weights of every kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import eg3d_files
import numpy as np
import pytest
import torch
import training_toys as toys
from helpers import golden, refused, refuses

from head3d_core.checkpoints.eg3d import discriminator_config, generator_config
from head3d_core.checkpoints.weights import load_generator
from head3d_core.config import preset
from head3d_core.model.discriminator import Discriminator
from head3d_core.model.generator import Generator
from head3d_core.training import snapshots, stages
from head3d_core.training.numerics import World
from head3d_core.training.options import TrainArgs
from head3d_core.utils.nested import changed


def test_kept_renders_are_taken_only_if_they_are_whole_and_of_this_sampler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def render(name: str, which: range, resolution: int) -> tuple[np.ndarray, ...]:
        calls.append(name)
        images = np.full((len(which), 3, resolution, resolution), 7, np.uint8)
        return images, np.ones((len(which), 25), np.float32), images[:, 0]

    monkeypatch.setattr("head3d_core.synth.make_data.render", render)
    for _ in range(2):
        images, labels = stages.load_images("synth:faces:20", 8, tmp_path)
        assert images.shape == (20, 3, 8, 8)
        assert labels.shape == (20, 25)
    assert len(calls) == 1
    monkeypatch.setattr("head3d_core.synth.draws.SAMPLER_VERSION", 10**6)
    stages.load_images("synth:faces:20", 8, tmp_path)
    assert len(calls) == 2, "another sampler draws other people"
    kept = next(tmp_path.glob("*-v1000000.npz"))
    kept.write_bytes(kept.read_bytes()[:100])
    refuses(r"cannot be read .* delete it", stages.load_images, "synth:faces:20", 8, tmp_path)
    assert not list(tmp_path.glob(".*")), "no temporary file stays"


def test_a_batch_that_does_not_fill_its_groups_is_refused() -> None:
    recipe = toys.toy_recipe("teacher", batch=6)
    refuses("multiple of the minibatch-std group", toys.trainer, recipe)


def test_memory_estimate_grows_with_batch_and_scale() -> None:
    classroom, paper = preset("classroom"), preset("paper")
    assert stages.memory_estimate(classroom, 64) > stages.memory_estimate(classroom, 16)
    assert stages.memory_estimate(paper, 8) > stages.memory_estimate(classroom, 8)
    shared = changed(classroom, {"generator.front_slices": 2})
    own = changed(shared, {"generator.back_blocks": 32})
    activations = [stages.memory_estimate(net, 32) - stages.memory_estimate(net, 16) for net in (shared, own)]
    assert activations[1] > activations[0], "blocks of its own have activations of their own"


def test_a_set_that_is_misspelt_is_one_sentence() -> None:
    refuses("synth:NAME:COUNT", stages.load_images, "synth:faces", 64)


@toys.with_toy_data
def test_another_architecture_is_refused_with_the_options_that_name_it(tmp_path: Path) -> None:
    wide = {"generator.channel_base": 1024, "generator.channel_max": 64}
    toys.run("teacher", tmp_path / "t", images=4, changes=wide)
    differs = r"differs in channel_base, channel_max \(1024 and 512\)"
    options = "--generator.channel-base 1024 --generator.channel-max 64"
    refuses(f"{differs}.* {options}$", toys.run, "whiten", tmp_path / "x", teacher=tmp_path / "t")
    toys.run("whiten", tmp_path / "x", images=4, teacher=tmp_path / "t", changes=wide)


@toys.with_toy_data
def test_weights_without_a_discriminator_get_one_fitted(tmp_path: Path) -> None:
    toys.run("teacher", tmp_path / "t", images=4)
    toys.run("head", tmp_path / "h", heads="heads", teacher=tmp_path / "t", images=4)
    face, head = tmp_path / "t" / "weights", tmp_path / "h" / "weights"
    sets: dict[str, Any] = {"heads": "heads"}
    fitting = {"recipe.only_discriminator": True}
    with refused(r"no discriminator.*whiten --recipe.only-discriminator --teacher"):
        toys.run("distill", tmp_path / "x", teacher=face, head=head, **sets)
    with refused("goes with stage whiten"):
        toys.run("distill", tmp_path / "x", teacher=face, head=head, changes=fitting, **sets)

    toys.run("whiten", tmp_path / "df", teacher=face, changes=fitting)
    fitting |= {"recipe.start": "head"}
    toys.run("head", tmp_path / "dh", teacher=tmp_path / "df", head=head, changes=fitting, **sets)
    for out, source, other in ((tmp_path / "df", face, None), (tmp_path / "dh", head, tmp_path / "df")):
        given = load_generator(source)
        tensors, _ = snapshots.load_latest(out)
        for prefix in ("generator.", "average."):  # neither moved, nor did the averages of w
            same = {prefix + name: value for name, value in given.state_dict().items()}
            assert toys.same(same, {name: tensors[name] for name in same})
        start = snapshots.load_latest(other)[0] if other else None
        assert any(
            not torch.equal(v, start[k]) if start else bool(v.abs().sum() > 0)
            for k, v in tensors.items()
            if k.startswith("d0.") and k.endswith("bias")
        ), "its discriminator has learnt"
    toys.run("whiten", tmp_path / "first", teacher=face, changes={"recipe.discriminator_first": 4})
    toys.run("distill", tmp_path / "s", teacher=tmp_path / "df", head=tmp_path / "dh", **sets)


SHAPENET = {"ray_start": 0.1, "ray_end": 2.6, "box_warp": 1.6, "avg_camera_radius": 1.7, "white_back": True}
"""Where the released ShapeNet models look for their objects."""


def test_eg3d_weights_start_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file with the official constructor arguments, only narrower; its ray interval and box are kept."""
    kwargs = json.loads(json.dumps(golden()["meta"]["G_init_kwargs"]))
    widths = {"channel_base": 1024, "channel_max": 16}
    kwargs |= {"z_dim": 512, "img_resolution": 512, **widths}
    kwargs["rendering_kwargs"] |= SHAPENET | {
        "superresolution_module": "training.superresolution.SuperresolutionHybrid8XDC"
    }
    judge_kwargs = {"c_dim": 25, "img_channels": 3, **{k: kwargs[k] for k in ("img_resolution", *widths)}}
    torch.manual_seed(0)
    G, D = Generator(generator_config(kwargs)), Discriminator(discriminator_config(judge_kwargs))
    path = eg3d_files.write(
        tmp_path / "official.pkl", (G.state_dict(), kwargs), (D.state_dict(), judge_kwargs)
    )
    narrow = {f"{net}.{k}": v for net in ("generator", "discriminator") for k, v in widths.items()}
    images, cameras = torch.zeros(4, 3, 512, 512, dtype=torch.uint8), toys.faces(4)[1]
    cameras[:, [3, 7, 11]] *= 1.7 / 2.7  # as far away as ShapeNet's
    monkeypatch.setattr(stages, "load_images", lambda *_: (images, cameras))
    world = World(0, 1, torch.device("cpu"))
    for stage, sets in (("whiten", {}), ("head", {"heads": "heads"})):
        args = TrainArgs.of(stage, "faces", tmp_path, "paper", narrow, teacher=path, **sets)
        if stage == "head":
            monkeypatch.setattr(stages, "load_cameras", lambda source: cameras)
        trainer = stages.build_trainer(args, world)
        render = trainer.generator.config.render
        assert (render.ray_start, render.ray_end, render.box_warp) == (0.1, 2.6, 1.6)
        for mine, theirs in ((trainer.generator, G), (trainer.discriminators[0], D)):
            assert toys.same(mine.state_dict(), theirs.state_dict())


@toys.with_toy_data
def test_wrong_cameras_stop_training_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Blank white is never trained on, and backs of heads get a warning."""
    images, cameras = toys.faces(8)
    far, backs = cameras.clone(), cameras.clone()
    far[:, [3, 7, 11]] *= 4
    backs[:, [0, 1, 2, 3, 8, 9, 10, 11]] *= -1
    for labels in (far, backs):
        monkeypatch.setattr(stages, "load_images", lambda *_, labels=labels: (images, labels))
        args = TrainArgs.of("teacher", "faces", tmp_path / "run", "tiny", {})
        if labels is far:
            with refused(r"faces cannot be trained on: .* images would stay blank"):
                stages.build_trainer(args, World(0, 1, torch.device("cpu")))
        else:
            stages.build_trainer(args, World(0, 1, torch.device("cpu")))
            assert "warning: faces: the cameras stand behind the head" in capsys.readouterr().out
    (tmp_path / "own").mkdir()
    args = TrainArgs.of("teacher", str(tmp_path / "own"), tmp_path / "own" / "run", "tiny", {})
    refuses("lies inside the data set", stages.build_trainer, args, World(0, 1, torch.device("cpu")))
