"""EG3D's constructor arguments and state dicts, translated into ours.

Names and defaults are facts of EG3D's released system. An argument that this code does not know is refused rather than
ignored: a silently different network is worse than none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from head3d_core.checkpoints.eg3d_stand_ins import describe
from head3d_core.config import Axes, DiscriminatorConfig, GeneratorConfig, RenderOptions, SuperResolutionKind
from head3d_core.model.discriminator import Discriminator
from head3d_core.model.filters import fir
from head3d_core.model.generator import Generator
from head3d_core.model.planes import PROJECTION
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.nested import parsed

SUPER_RESOLUTION: dict[str, tuple[SuperResolutionKind, int]] = {
    "SuperresolutionHybrid8XDC": ("8xdc", 512),
    "SuperresolutionHybrid8X": ("8x", 512),
    "SuperresolutionHybrid4X": ("4x", 256),
    "SuperresolutionHybrid2X": ("2x", 128),
    "SuperresolutionHybridDeepfp32": ("deepfp32", 256),
}
"""EG3D's module -> ours, and the image resolution that it is made for."""


_AUTO = float | Literal["auto"]
_LRELU = Literal["lrelu"]
_RATE: Any = Literal[0.01]
_REQUIRED: Any = object()
_LARGEST = 2**20
_Table = dict[str, tuple[Any, Any]]
"""Name of an argument -> its type, as `nested.parsed` takes it, and its default."""

_MAPPING: _Table = {
    "num_layers": (int, 8), "embed_features": (type(None), None), "layer_features": (type(None), None),
    "activation": (_LRELU, "lrelu"), "lr_multiplier": (_RATE, 0.01), "w_avg_beta": (Any, None),
}  # fmt: skip
_GENERATOR: _Table = {
    "z_dim": (int, _REQUIRED), "c_dim": (Literal[25], _REQUIRED),
    "w_dim": (Literal[512], _REQUIRED),  # its super-resolution takes 512-long codes whatever w_dim says
    "img_resolution": (int, _REQUIRED), "img_channels": (Literal[3], _REQUIRED), "mapping_kwargs": (dict, {}),
    "channel_base": (int, 32768), "channel_max": (int, 512), "fused_modconv_default": (Any, None),
    "num_fp16_res": (Any, None), "conv_clamp": (float | None, None), "sr_num_fp16_res": (float, 0),
    "sr_kwargs": (Any, None), "rendering_kwargs": (dict, _REQUIRED),
}  # fmt: skip
_RENDERING: _Table = {
    "depth_resolution": (int, _REQUIRED), "depth_resolution_importance": (int, _REQUIRED),
    "ray_start": (_AUTO, _REQUIRED), "ray_end": (_AUTO, _REQUIRED), "box_warp": (float, _REQUIRED),
    "avg_camera_radius": (float, 2.7), "white_back": (bool, False), "disparity_space_sampling": (bool, _REQUIRED),
    "density_noise": (float, 0), "clamp_mode": (Literal["softplus"], _REQUIRED),
    "superresolution_module": (Any, _REQUIRED), "sr_antialias": (bool, _REQUIRED),
    "superresolution_noise_mode": (Literal["const", "random", "none"], _REQUIRED), "decoder_lr_mul": (float, 1),
    "c_gen_conditioning_zero": (bool, _REQUIRED), "c_scale": (float, 0),  # without the key the label is times 0
    # used by training and by viewers only
    "image_resolution": (Any, None), "gpc_reg_prob": (Any, None), "gpc_reg_fade_kimg": (Any, None),
    "density_reg": (Any, None), "density_reg_p_dist": (Any, None), "reg_type": (Any, None),
    "avg_camera_pivot": (Any, None), "density_reg_every": (Any, None),
}  # fmt: skip
_SAME_NAME = (
    *("ray_start", "ray_end", "depth_resolution", "depth_resolution_importance"),
    *("box_warp", "white_back", "density_noise"),
)
"""Rendering options that are called the same here."""
_DISCRIMINATOR: _Table = {
    "c_dim": (Literal[25], _REQUIRED), "img_resolution": (int, _REQUIRED), "img_channels": (Literal[3], _REQUIRED),
    "architecture": (Literal["resnet"], "resnet"), "channel_base": (int, 32768), "channel_max": (int, 512),
    "conv_clamp": (float | None, 256), "cmap_dim": (Any, None), "disc_c_noise": (float, 0),
    "block_kwargs": (dict, {}),
    "mapping_kwargs": (dict, {}), "epilogue_kwargs": (dict, {}), "num_fp16_res": (Any, None),
    "sr_upsample_factor": (Any, None),
}  # fmt: skip
_BLOCK: _Table = {"activation": (_LRELU, "lrelu"), "freeze_layers": (Any, None)}
_EPILOGUE: _Table = {
    "mbstd_group_size": (int, 4), "mbstd_num_channels": (Literal[1], 1), "activation": (_LRELU, "lrelu"),
}  # fmt: skip


def _read(what: str, arguments: Mapping[str, Any], table: _Table) -> dict[str, Any]:
    """Every argument of the table with its value or default; a sentence for what is unknown, missing or unfit."""
    unknown = sorted(map(str, set(arguments) - set(table)))
    if unknown:
        raise Head3DError(
            f"EG3D's {what} has no argument {', '.join(unknown)[:120]}: "
            "the file comes from other code, which this reader does not know"
        )
    values = {}
    for key, (kind, default) in table.items():
        if key not in arguments and default is _REQUIRED:
            raise Head3DError(f"EG3D's {what} lacks {key}: give the complete constructor arguments")
        value = arguments.get(key, default)
        if not (kind is Any or isinstance(value, dict if kind is dict else str | int | float | None)):
            value = describe(value)  # fits no kind, and can be shown
        values[key] = parsed(kind, value, f"{key} of EG3D's {what}")
        if isinstance(value, int) and not 0 <= value <= _LARGEST:
            raise Head3DError(
                f"{key} of EG3D's {what} must be a whole number from 0 to {_LARGEST}, got {value}"
            )
    return values


def generator_config(
    init_kwargs: Mapping[str, Any], axes: Axes = "eg3d", neural_resolution: int = 64
) -> GeneratorConfig:
    """Our configuration of a generator with EG3D's constructor arguments.

    Args:
        init_kwargs: arguments of TriPlaneGenerator, as its trainer passes them.
        axes: how its third plane is sampled; official weights need "eg3d".
        neural_resolution: side of the volume-rendered image (an attribute, not an argument, in EG3D).

    Raises Head3DError for arguments that are missing, unknown or outside the format.
    """
    given = _read("generator", init_kwargs, _GENERATOR)
    options = _read("rendering_kwargs", given["rendering_kwargs"], _RENDERING)
    module = str(options["superresolution_module"]).rpartition(".")[2]
    if module not in SUPER_RESOLUTION:
        raise Head3DError(
            f"superresolution_module must be one of {', '.join(SUPER_RESOLUTION)}, got {module[:80]!r}"
        )
    kind, size = SUPER_RESOLUTION[module]
    if given["img_resolution"] != size:
        raise Head3DError(f"img_resolution must be {size} with {module}, got {given['img_resolution']}")
    return GeneratorConfig(
        **{name: given[name] for name in ("z_dim", "w_dim", "channel_base", "channel_max")},
        mapping_layers=_read("mapping_kwargs", given["mapping_kwargs"], _MAPPING)["num_layers"],
        camera_scale=options["c_scale"],
        camera_conditioning=not options["c_gen_conditioning_zero"],
        camera_radius=options["avg_camera_radius"],
        image_resolution=size,
        neural_resolution=neural_resolution,
        plane_resolution=256,
        backbone_clamp=given["conv_clamp"],
        decoder_lr_mul=options["decoder_lr_mul"],
        sr_kind=kind,
        sr_noise=options["superresolution_noise_mode"],
        sr_antialias=options["sr_antialias"],
        # Any half-precision block makes EG3D clamp, also where it computes in float32.
        sr_clamp=256.0 if given["sr_num_fp16_res"] > 0 else None,
        render=RenderOptions(
            **{name: options[name] for name in _SAME_NAME},
            axes=axes,
            disparity=options["disparity_space_sampling"],
        ),
    )


def discriminator_config(init_kwargs: Mapping[str, Any]) -> DiscriminatorConfig:
    """Our configuration of a discriminator with the arguments of EG3D's DualDiscriminator.

    Raises Head3DError for arguments that are missing, unknown or outside the format.
    """
    given = _read("discriminator", init_kwargs, _DISCRIMINATOR)
    _read("block_kwargs", given["block_kwargs"], _BLOCK)
    config = DiscriminatorConfig(
        image_resolution=given["img_resolution"],
        channel_base=given["channel_base"],
        channel_max=given["channel_max"],
        mapping_layers=_read("mapping_kwargs", given["mapping_kwargs"], _MAPPING)["num_layers"],
        group_size=_read("epilogue_kwargs", given["epilogue_kwargs"], _EPILOGUE)["mbstd_group_size"],
        clamp=given["conv_clamp"],
        camera_noise=given["disc_c_noise"],
    )
    width = min(config.channel_base // 4, config.channel_max)
    if given["cmap_dim"] not in (None, width):
        raise Head3DError(
            f"cmap_dim must be {width} (the width at 4x4) or None, got {describe(given['cmap_dim'])}"
        )
    return config


def network_from_eg3d(config: GeneratorConfig | DiscriminatorConfig, state_dict: Mapping[str, Tensor]) -> Any:
    """A generator or a discriminator with EG3D's weights, in evaluation mode on the CPU.

    Args:
        config: of `generator_config` or `discriminator_config`.
        state_dict: under EG3D's names; `dataset_label_std` and resampling filters may be there.

    Raises Head3DError for tensors that do not fit, and for a filter that is not the one that ours compute with.
    """
    tensors = {name: tensor for name, tensor in state_dict.items() if name != "dataset_label_std"}
    for name in [name for name in tensors if name.rpartition(".")[2] == "resample_filter"]:
        taps = tensors.pop(name).float()
        if taps.shape != (4, 4) or not torch.allclose(taps, fir(torch.device("cpu")), atol=1e-6):
            raise Head3DError(f"{name} is not the filter outer([1, 3, 3, 1]) / 64 that all EG3D networks use")
    with torch.device("meta"):
        model = Generator(config) if isinstance(config, GeneratorConfig) else Discriminator(config)
    load_tensors(model, tensors, "the EG3D state dict")
    return model.eval()


def axes_of(plane_axes: Tensor) -> Axes:
    """Which convention the matrices [3, 3, 3] of a file mean.

    The rows of each matrix are the plane's axes, so that its first two rows say which coordinates it reads.
    Raises Head3DError for planes that are neither EG3D's nor (x,y), (x,z), (y,z), with their names.
    """
    if plane_axes.shape != (3, 3, 3) or not bool(((plane_axes == 0) | (plane_axes == 1)).all()):
        raise Head3DError(
            f"plane_axes must be three 3x3 permutation matrices, got {describe(plane_axes)}: give axes= by hand"
        )
    read = tuple((int(m[0].argmax()), int(m[1].argmax())) for m in plane_axes)
    for axes, pairs in PROJECTION.items():
        if read == pairs:
            return axes
    names = ", ".join("xyz"[u].upper() + "xyz"[v].upper() for u, v in read)
    raise Head3DError(
        f"the file samples its planes as {names}; this code reads XY, XZ, ZX (official EG3D) and XY, XZ, YZ"
    )


def load_tensors(model: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Gives `model` (built on any device, "meta" included) the tensors, which must fit it exactly.

    Raises Head3DError, naming the first names that are missing, unknown or of another shape.
    """
    expected = model.state_dict()
    for what, names in (
        ("lacks", set(expected) - set(tensors)),
        ("has unknown", set(tensors) - set(expected)),
    ):
        if names:
            shown = ", ".join(sorted(names)[:3]) + (" …" if len(names) > 3 else "")
            raise Head3DError(
                f"{where} {what} {len(names)} tensor(s) ({shown}): "
                "it belongs to another architecture than its configuration says"
            )
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise Head3DError(
                f"{name} of {where} is {list(tensor.shape)} where the configuration needs "
                f"{list(expected[name].shape)}: it belongs to another architecture"
            )
    # Copies, so that the model neither shares memory with its source nor keeps a file mapped.
    own = {
        name: tensor.detach().to(expected[name].dtype).clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    model.load_state_dict(own, assign=True)
