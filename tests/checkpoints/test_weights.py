"""Weights on disk: what is saved comes back, damage is noticed, a failed save changes nothing; EG3D's arguments."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import eg3d_files
import pytest
import torch
from helpers import golden, refuses, state
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import head3d_core as h3d
import manifest
from head3d_core import config
from head3d_core.checkpoints import convert, weights
from head3d_core.checkpoints.eg3d import (
    SUPER_RESOLUTION,
    discriminator_config,
    generator_config,
    network_from_eg3d,
)
from head3d_core.model.discriminator import Discriminator
from head3d_core.model.generator import Generator
from head3d_core.utils import files

TINY = config.preset("tiny")


@pytest.fixture(scope="module")
def G() -> Generator:
    torch.manual_seed(1)
    return Generator(TINY.generator).eval()


@pytest.fixture(scope="module")
def D() -> Discriminator:
    return Discriminator(TINY.discriminator).eval()


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


# --- our own format -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["one.safetensors", "folder"])
def test_what_is_saved_comes_back(G: Generator, D: Discriminator, tmp_path: Path, name: str) -> None:
    path = weights.save_generator(G, tmp_path / name, notes={"images": 12, "licence": "CC0-1.0"})
    back = h3d.load_generator(tmp_path / name)
    assert back.config == G.config
    assert same(G, back)
    assert not back.training
    assert all(p.requires_grad for p in back.parameters())
    assert weights.read_notes(path) == {"images": 12, "licence": "CC0-1.0"}
    other = tmp_path / f"d-{name}" if name.endswith(".safetensors") else tmp_path / name
    weights.save_discriminator(D, other)
    assert same(D, h3d.load_discriminator(other))
    if name == "folder":  # both live in one folder without disturbing each other
        assert same(G, h3d.load_generator(other))
        assert path == tmp_path / name / "generator.safetensors"
        assert weights.holds_discriminator(other)
    again = weights.save_generator(G, tmp_path / "again", notes=weights.read_notes(path))
    assert again.read_bytes() == path.read_bytes(), "the same network makes the same bytes"


@pytest.mark.parametrize("changes", [
    {"front_slices": 2, "back_blocks": 16},
    {"sr_kind": "8x", "sr_channels": None, "sr_clamp": None, "backbone_clamp": 100.0,
     "render": config.RenderOptions(ray_start="auto", ray_end="auto", axes="eg3d", disparity=True)},
])  # fmt: skip
def test_every_configuration_survives(changes: dict[str, Any], tmp_path: Path) -> None:
    odd = Generator(dataclasses.replace(TINY.generator, **changes)).eval()
    back = h3d.load_generator(weights.save_generator(odd, tmp_path / "odd.safetensors"))
    assert back.config == odd.config
    assert same(back, odd)


def test_half_precision(G: Generator, tmp_path: Path) -> None:
    whole = weights.save_generator(G, tmp_path / "whole.safetensors")
    half = weights.save_generator(G, tmp_path / "half.safetensors", half=True)
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    back = weights.load_generator(half)
    torch.testing.assert_close(dict(back.state_dict()), dict(G.state_dict()), rtol=1e-3, atol=1e-6)
    big = Generator(TINY.generator)
    with torch.no_grad():
        big.decoder.get_submodule("net.0").bias[0] = 1e6
    beyond = r"decoder\.net\.0\.bias has values beyond float16"
    refuses(beyond, weights.save_generator, big, tmp_path / "big", half=True)


def test_the_export_of_a_classroom_run_stays_below_16_mib_a_network(tmp_path: Path) -> None:
    scale = config.preset("classroom")
    made = [
        weights.save_generator(Generator(scale.generator), tmp_path, half=True),
        weights.save_discriminator(Discriminator(scale.discriminator), tmp_path, half=True),
    ]
    assert [path.name for path in made] == ["generator.safetensors", "discriminator.safetensors"]
    assert max(path.stat().st_size for path in made) <= 16 * 2**20


@pytest.mark.parametrize("when", ["save_file", "replace"])
def test_a_failed_save_leaves_the_old_weights(
    G: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    path = weights.save_generator(G, tmp_path)
    names = sorted(p.name for p in tmp_path.rglob("*"))

    def fail(*args: Any, **kwargs: Any) -> None:
        if when == "save_file":
            Path(args[1]).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    other = Generator(TINY.generator)
    with monkeypatch.context() as patch:
        patch.setattr(*((weights, "save_file") if when == "save_file" else (files.os, "replace")), fail)
        refuses("No space left on device", weights.save_generator, other, tmp_path)
    assert same(G, weights.load_generator(path))
    assert sorted(p.name for p in tmp_path.rglob("*")) == names, "temporary files stay behind"


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-9] ^= 0x10
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_flip, "sha256 written in it"),
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "truncated"),
        (lambda path: path.write_bytes(b""), "truncated"),
        (lambda path: path.write_text("<html>not found</html>"), "truncated"),
    ],
)
def test_a_damaged_file(G: Generator, tmp_path: Path, damage: Callable[[Path], None], says: str) -> None:
    path = weights.save_generator(G, tmp_path / "x.safetensors")
    damage(path)
    refuses(says, weights.load_generator, path)


def _reheaded(path: Path, **changes: Any) -> None:
    """The same tensors under a changed header."""
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["head3d"])
    save_file(load_file(path), path, {"head3d": json.dumps({**header, **changes})})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format_version": 3}, "format version 3, this code reads 2: update"),
        ({"colour": 1}, "damaged or truncated"),
        ({"kind": "discriminator"}, "has discriminator weights, not generator weights: use load_discriminator"),
        ({"config": {"colour": 1}}, "has no field colour"),
        ({"config": {"mapping_layers": 10**9}}, "mapping_layers must be between 1 and 64"),
        ({"config": {"channel_max": "x"}}, "channel_max must be a whole number|cannot be built"),
        ({"config": {"z_dim": "wide"}}, "z_dim must be a whole number"),
        ({"config": {"render": 3}}, "RenderOptions is read from a dictionary"),
        ({"config": []}, "GeneratorConfig is read from a dictionary"),
        ({"config": {**TINY.generator.to_dict(), "z_dim": 31}}, "fc0.weight of .* is .* where the configuration needs"),
        ({"config": {**TINY.generator.to_dict(), "plane_resolution": 64}}, "lacks .* tensor.*another architecture"),
        ({"config": {**TINY.generator.to_dict(), "plane_resolution": 16}}, "has unknown .* tensor"),
    ],
)  # fmt: skip
def test_a_changed_header(G: Generator, tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    path = weights.save_generator(G, tmp_path / "x.safetensors")
    _reheaded(path, **changes)
    refuses(says, weights.load_generator, path)


def test_other_files_kinds_and_places(G: Generator, D: Discriminator, tmp_path: Path) -> None:
    path = weights.save_generator(G, tmp_path / "g.safetensors")
    wrong = "has generator weights, not discriminator weights: use load_generator"
    refuses(wrong, weights.load_discriminator, path)
    weights.save_discriminator(D, tmp_path / "d")
    old = tmp_path / "old" / "generator-00001.safetensors"  # what older code wrote
    old.parent.mkdir()
    save_file({"x": torch.ones(1)}, old, {"format": "head3d", "format_version": "1"})
    save_file({"x": torch.ones(1)}, tmp_path / "other.safetensors")
    (tmp_path / "x.txt").write_text("x")
    for place, says in (
        ("no-such-name", "no weights called 'no-such-name': bundled are face, head, head3d"),
        ("missing/path.safetensors", "there is no file"),
        ("missing.pkl", r"there is no file missing\.pkl"),
        (tmp_path / "d", r"holds no generator .*it has discriminator.safetensors"),
        (old, "must be exported again"),
        (old.parent, r"holds no generator .*it has generator-00001"),
        (tmp_path / "other.safetensors", "not written by this head3d_core .* must be exported again"),
        (tmp_path / "x.txt", "is not a weight file"),
        (tmp_path / "old", "holds no generator"),
    ):
        refuses(says, weights.load_generator, place)
    refuses("axes= is for EG3D pickles", weights.load_generator, path, axes="eg3d")
    refuses("cannot write to", weights.save_generator, G, tmp_path / "x.txt" / "below.safetensors")
    refuses("weights are saved as", weights.save_generator, G, tmp_path / "x.pkl")
    refuses("notes must be plain JSON", weights.save_generator, G, tmp_path / "x", notes={"a": {1, 2}})


def test_bundled_names_and_the_manifest(
    G: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "DATA", tmp_path)
    refuses(r"bundled are none in this copy .*HEAD3D_DATA", weights.load_generator, "small")
    path = weights.save_generator(G, tmp_path / "weights" / "small")
    assert same(G, weights.load_generator("small"))
    refuses("bundled are small", weights.load_generator, "large")
    manifest.register([path], "CC0-1.0", "random numbers", "pytest", data=tmp_path)
    assert same(G, weights.load_generator("small"))
    _reheaded(path, notes={"changed": True})
    refuses("does not have the sha256 that data", weights.load_generator, "small")


def test_weights_are_not_shared_with_the_file(G: Generator, tmp_path: Path) -> None:
    path = weights.save_generator(G, tmp_path / "x.safetensors")
    back = weights.load_generator(path)
    with torch.no_grad():
        for parameter in back.parameters():
            parameter.zero_()
    assert same(G, weights.load_generator(path))


# --- convert ------------------------------------------------------------------------------------------------------


def test_convert(tmp_path: Path) -> None:
    meta = golden()["meta"]
    networks = [(state(f"{name}."), meta[f"{name}_init_kwargs"]) for name in "GD"]
    source = eg3d_files.write(tmp_path / "in.pkl", *networks, axes=eg3d_files.plane_axes())
    out = convert.convert(convert.ConvertArgs(source, tmp_path / "out.safetensors"))
    back = weights.load_generator(out)
    assert same(back, weights.load_generator(source))
    assert back.config.render.axes == "eg3d"
    assert weights.read_notes(out) == {"source": "in.pkl", "source_sha256": files.sha256(source)}
    again = convert.convert(convert.ConvertArgs(out, tmp_path / "again", half=True))
    assert weights.read_notes(again) == weights.read_notes(out)
    d = convert.convert(convert.ConvertArgs(source, tmp_path / "d.safetensors", network="discriminator"))
    assert same(weights.load_discriminator(d), weights.load_discriminator(source))
    assert "resample_filter" not in " ".join(load_file(d))


# --- EG3D's arguments ---------------------------------------------------------------------------------------------


def arguments(**changes: Any) -> dict[str, Any]:
    """The fixture's constructor arguments; keys of rendering_kwargs are given as render_<key>, None removes."""
    base = json.loads(json.dumps(golden()["meta"]["G_init_kwargs"]))
    for key, value in changes.items():
        where = base["rendering_kwargs"] if key.startswith("render_") else base
        key = key.removeprefix("render_")
        if value is ...:
            where.pop(key, None)
        else:
            where[key] = value
    return base


@pytest.mark.parametrize("module", SUPER_RESOLUTION)
def test_every_super_resolution_module(module: str) -> None:
    kind, size = SUPER_RESOLUTION[module]
    full = f"training.superresolution.{module}"
    made = generator_config(arguments(img_resolution=size, render_superresolution_module=full))
    assert (made.sr_kind, made.image_resolution, made.sr_w_dim) == (kind, size, None)
    other = arguments(img_resolution=64, render_superresolution_module=module)
    refuses(f"img_resolution must be {size} with", generator_config, other)


def test_the_reference_configuration() -> None:
    """ffhq512-128, as the trainer prints it."""
    made = generator_config(
        arguments(
            z_dim=512, img_resolution=512, channel_base=32768, channel_max=512, render_depth_resolution=48,
            render_depth_resolution_importance=48,
            render_superresolution_module="training.superresolution.SuperresolutionHybrid8XDC",
        ),
        neural_resolution=128,
    )  # fmt: skip
    paper = config.preset("paper").generator
    white = dataclasses.replace(made.render, white_back=True)
    assert dataclasses.replace(made, render=white) == paper
    with torch.device("meta"):
        whole = Generator(made)
        judge = Discriminator(discriminator_config({"c_dim": 25, "img_resolution": 512, "img_channels": 3}))
    assert sum(p.numel() for p in whole.parameters()) == 30_662_136
    assert sum(p.numel() for p in judge.parameters()) == 31_359_744
    assert judge.config == config.preset("paper").discriminator


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        ({"render_c_scale": ...}, "camera_scale", 0.0),
        ({"render_c_scale": 0.5}, "camera_scale", 0.5),
        ({"render_c_gen_conditioning_zero": True}, "camera_conditioning", False),
        ({"sr_num_fp16_res": 0}, "sr_clamp", None),
        ({"sr_num_fp16_res": 1}, "sr_clamp", 256.0),
        ({"sr_num_fp16_res": ...}, "sr_clamp", None),
        ({"conv_clamp": 256}, "backbone_clamp", 256.0),
        ({"mapping_kwargs": {}}, "mapping_layers", 8),
        ({"render_decoder_lr_mul": ...}, "decoder_lr_mul", 1.0),
        ({"render_decoder_lr_mul": 0.1}, "decoder_lr_mul", 0.1),
        ({"render_sr_antialias": False}, "sr_antialias", False),
        ({"render_superresolution_noise_mode": "random"}, "sr_noise", "random"),
        ({"render_white_back": True}, "render.white_back", True),
        ({"render_ray_start": "auto", "render_ray_end": "auto"}, "render.ray_start", "auto"),
        ({"render_disparity_space_sampling": True}, "render.disparity", True),
        ({"render_density_noise": 0.5}, "render.density_noise", 0.5),
        ({"render_depth_resolution_importance": 0}, "render.depth_resolution_importance", 0),
        ({"render_box_warp": 1.6}, "render.box_warp", 1.6),
        ({"render_avg_camera_radius": 1.7}, "camera_radius", 1.7),
        ({"render_avg_camera_radius": ...}, "camera_radius", 2.7),
        ({"render_ray_start": 0.1, "render_ray_end": 2.6}, "render.ray_end", 2.6),
    ],
)
def test_arguments_reach_the_configuration(changes: dict[str, Any], field: str, value: Any) -> None:
    found: Any = generator_config(arguments(**changes))
    for part in field.split("."):
        found = getattr(found, part)
    assert found == value


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"triplane_depth": 3}, "EG3D's generator has no argument triplane_depth"),
        ({"render_decoder_activation": "none"}, "rendering_kwargs has no argument decoder_activation"),
        ({"render_box_warp": ...}, "rendering_kwargs lacks box_warp"),
        ({"render_superresolution_module": "a.Other"}, "must be one of SuperresolutionHybrid8XDC"),
        ({"c_dim": 0}, "c_dim of EG3D's generator must be 25, got 0"),
        ({"w_dim": 256}, "w_dim of .* must be 512, got 256"),
        ({"img_channels": 4}, "img_channels of .* must be 3"),
        ({"render_clamp_mode": "relu"}, "clamp_mode of .* must be 'softplus'"),
        ({"render_superresolution_noise_mode": "loud"}, "must be 'const' or 'random' or 'none'"),
        ({"render_ray_start": "auto"}, 'must both be "auto"'),
        ({"z_dim": 1.5}, "z_dim of .* must be a whole number"),
        ({"z_dim": -1}, "z_dim of .* must be a whole number"),
        ({"z_dim": "64"}, "z_dim of .* must be a whole number"),
        ({"render_sr_antialias": "yes"}, "sr_antialias of .* must be true or false"),
        ({"mapping_kwargs": 2}, "mapping_kwargs of .* must be a dictionary"),
        ({"mapping_kwargs": {"lr_multiplier": 1}}, "lr_multiplier of EG3D's mapping_kwargs must be 0.01"),
        ({"rendering_kwargs": ...}, "generator lacks rendering_kwargs"),
    ],
)
def test_arguments_that_are_refused(changes: dict[str, Any], says: str) -> None:
    refuses(says, generator_config, arguments(**changes))


def test_discriminator_arguments() -> None:
    base = golden()["meta"]["D_init_kwargs"]
    made = discriminator_config(
        {**base, "epilogue_kwargs": {"mbstd_group_size": 2}, "conv_clamp": None, "disc_c_noise": 1}
    )
    assert (made.group_size, made.clamp, made.camera_noise, made.mapping_layers) == (2, None, 1.0, 8)
    for changes, says in (
        ({"architecture": "skip"}, "architecture of .* must be"),
        ({"cmap_dim": 7}, "cmap_dim must be 32"),
        ({"colour": 1}, "no argument colour"),
        (
            {"epilogue_kwargs": {"mbstd_num_channels": 2}},
            "mbstd_num_channels of EG3D's epilogue_kwargs must be 1",
        ),
    ):
        refuses(says, discriminator_config, {**base, **changes})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s.pop("backbone.mapping.w_avg"), "lacks 1 tensor.s. .backbone.mapping.w_avg"),
        (lambda s: s.update(extra=torch.ones(1)), "has unknown 1 tensor.s. .extra"),
        (
            lambda s: s.update({"backbone.mapping.w_avg": torch.ones(3)}),
            "w_avg of the EG3D state dict is .3. where",
        ),
        (lambda s: s.update({"superresolution.resample_filter": torch.ones(4, 4)}), "is not the filter"),
        (lambda s: s.update({"superresolution.resample_filter": torch.ones(3)}), "is not the filter"),
    ],
)
def test_state_dicts_that_do_not_fit(change: Callable[[dict[str, Any]], Any], says: str) -> None:
    tensors = state("G.")
    change(tensors)
    refuses(says, network_from_eg3d, generator_config(arguments()), tensors)


def test_redundant_buffers_may_be_absent() -> None:
    lean = {k: v for k, v in state("G.").items() if not k.endswith(("resample_filter", "dataset_label_std"))}
    assert network_from_eg3d(generator_config(arguments(), axes="xyz"), lean).config.render.axes == "xyz"
    refuses('axes must be "eg3d" or "xyz"', generator_config, arguments(), axes="zyx")
