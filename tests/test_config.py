"""Configurations: presets are complete, survive JSON, and refuse what cannot work."""

from __future__ import annotations

import json
from typing import Any

import pytest
from helpers import refuses

from head3d_core import config
from head3d_core.config import DiscriminatorConfig, GeneratorConfig, RenderOptions


@pytest.mark.parametrize("name", config.PRESETS)
def test_presets_survive_json(name: str) -> None:
    p = config.preset(name)
    assert p.name == name
    assert GeneratorConfig.from_dict(json.loads(json.dumps(p.generator.to_dict()))) == p.generator
    assert DiscriminatorConfig.from_dict(json.loads(json.dumps(p.discriminator.to_dict()))) == p.discriminator
    assert p.generator.image_resolution == p.discriminator.image_resolution


def test_configurations_from_before_slices() -> None:
    """Files that say nothing of slices are tri-planes."""
    data = config.preset("tiny").generator.to_dict()
    del data["front_slices"], data["back_blocks"]
    del data["render"]["slice_half_distance"], data["render"]["slice_centre"]
    assert GeneratorConfig.from_dict(data) == config.preset("tiny").generator
    assert GeneratorConfig.from_dict(data).plane_count == 3
    assert GeneratorConfig(front_slices=2).plane_count == 4


def test_preset_names() -> None:
    assert list(config.PRESETS) == ["tiny", "classroom", "paper"]
    refuses("no preset called 'huge': choose one of tiny, classroom, paper", config.preset, "huge")


@pytest.mark.parametrize(("resolution", "count"), [(32, 8), (128, 12), (256, 14)])
def test_num_ws(resolution: int, count: int) -> None:
    assert GeneratorConfig(plane_resolution=resolution).num_ws == count


@pytest.mark.parametrize(
    ("kind", "values", "says"),
    [
        (RenderOptions, {"ray_start": "auto"}, 'must both be "auto" or both be numbers'),
        (RenderOptions, {"ray_end": "auto"}, 'must both be "auto" or both be numbers'),
        (RenderOptions, {"depth_resolution": 3}, "depth_resolution must be at least 4, got 3"),
        (RenderOptions, {"depth_resolution_importance": -1}, "depth_resolution_importance must be 0 or more"),
        (RenderOptions, {"box_warp": 0.0}, "box_warp must be positive"),
        (RenderOptions, {"box_warp": float("nan")}, "box_warp must be positive"),
        (RenderOptions, {"axes": "zyx"}, 'axes must be "eg3d" or "xyz"'),
        (RenderOptions, {"slice_half_distance": 0.0}, "slice_half_distance must be positive, got 0.0"),
        (GeneratorConfig, {"front_slices": 3}, "front_slices must be 1 or 2, got 3"),
        (GeneratorConfig, {"back_blocks": 32}, "back_blocks 32 needs front_slices 2, got 1"),
        (
            GeneratorConfig,
            {"front_slices": 2, "plane_resolution": 16, "back_blocks": 32},
            r"back_blocks must be 0 or one of \[8, 16\], got 32",
        ),
        (GeneratorConfig, {"image_resolution": 500}, "image_resolution must be a power of two"),
        (GeneratorConfig, {"plane_resolution": 2}, "plane_resolution must be a power of two of at least 4"),
        (GeneratorConfig, {"z_dim": 0}, "z_dim must be a whole number of at least 1"),
        (GeneratorConfig, {"decoder_features": 2}, "decoder_features must be at least 3"),
        (GeneratorConfig, {"mapping_layers": 0}, "mapping_layers must be between 1 and 64"),
        (DiscriminatorConfig, {"image_resolution": 96}, "image_resolution must be a power of two"),
        (DiscriminatorConfig, {"group_size": 0}, "group_size must be a whole number of at least 1"),
    ],
)
def test_what_is_refused(kind: Any, values: dict[str, Any], says: str) -> None:
    refuses(says, kind, **values)


@pytest.mark.parametrize(
    ("kind", "data", "says"),
    [
        (
            GeneratorConfig,
            {"colour": 1},
            "GeneratorConfig has no field colour: was the file written by a newer",
        ),
        (GeneratorConfig, {"render": {"speed": 1}}, "RenderOptions has no field speed"),
        (GeneratorConfig, [], "GeneratorConfig is read from a dictionary"),
        (DiscriminatorConfig, {"z_dim": 1}, "DiscriminatorConfig has no field z_dim"),
    ],
)
def test_foreign_dictionaries(kind: Any, data: Any, says: str) -> None:
    refuses(says, kind.from_dict, data)
