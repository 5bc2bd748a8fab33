"""EG3D's constructor arguments and state dicts, translated into ours.

Names and defaults are facts of EG3D's released system. An argument that this code does not know is refused rather than
ignored: a silently different network is worse than none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from head3d_core.checkpoints.eg3d_stand_ins import describe
from head3d_core.config import (
    PLANE_NAMES,
    Axes,
    DiscriminatorConfig,
    GeneratorConfig,
    NoiseMode,
    RenderOptions,
    SuperResolutionKind,
)
from head3d_core.model.discriminator import Discriminator
from head3d_core.model.filters import fir
from head3d_core.model.generator import Generator
from head3d_core.model.planes import PROJECTION
from head3d_core.utils.errors import Head3DError

SUPER_RESOLUTION: dict[str, tuple[SuperResolutionKind, int]] = {
    "SuperresolutionHybrid8XDC": ("8xdc", 512),
    "SuperresolutionHybrid8X": ("8x", 512),
    "SuperresolutionHybrid4X": ("4x", 256),
    "SuperresolutionHybrid2X": ("2x", 128),
    "SuperresolutionHybridDeepfp32": ("deepfp32", 256),
}
"""EG3D's module -> ours, and the image resolution that it is made for."""

_G_KNOWN = {
    "z_dim", "c_dim", "w_dim", "img_resolution", "img_channels", "mapping_kwargs", "channel_base", "channel_max",
    "fused_modconv_default", "num_fp16_res", "conv_clamp", "sr_num_fp16_res", "sr_kwargs", "rendering_kwargs",
}  # fmt: skip
_G_RENDER_KNOWN = {
    "image_resolution", "disparity_space_sampling", "clamp_mode", "superresolution_module", "c_gen_conditioning_zero",
    "c_scale", "superresolution_noise_mode", "decoder_lr_mul", "sr_antialias", "depth_resolution",
    "depth_resolution_importance", "ray_start", "ray_end", "box_warp", "white_back", "density_noise",
    # used by training and by viewers only
    "gpc_reg_prob", "gpc_reg_fade_kimg", "density_reg", "density_reg_p_dist", "reg_type", "avg_camera_radius",
    "avg_camera_pivot", "density_reg_every",
}  # fmt: skip
_D_KNOWN = {
    "c_dim", "img_resolution", "img_channels", "block_kwargs", "mapping_kwargs", "epilogue_kwargs", "channel_base",
    "channel_max", "disc_c_noise", "num_fp16_res", "sr_upsample_factor", "conv_clamp", "architecture", "cmap_dim",
}  # fmt: skip
_MAPPING_DEFAULTS = {
    "embed_features": None,
    "layer_features": None,
    "activation": "lrelu",
    "lr_multiplier": 0.01,
}
_EPILOGUE_DEFAULTS = {"mbstd_num_channels": 1, "activation": "lrelu"}


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
    arguments = _known("generator", init_kwargs, _G_KNOWN)
    options = _known("rendering_kwargs", _mapping(arguments, "rendering_kwargs"), _G_RENDER_KNOWN)
    _expect(arguments, "c_dim", 25)
    _expect(arguments, "img_channels", 3)
    # EG3D's super-resolution takes 512-long codes whatever w_dim says.
    _expect(arguments, "w_dim", 512)
    if options.get("clamp_mode") != "softplus":
        raise Head3DError(f'clamp_mode must be "softplus", got {describe(options.get("clamp_mode"))}')
    module = str(_need(options, "superresolution_module")).rpartition(".")[2]
    if module not in SUPER_RESOLUTION:
        raise Head3DError(
            f"superresolution_module must be one of {', '.join(SUPER_RESOLUTION)}, got {module[:80]!r}"
        )
    kind, size = SUPER_RESOLUTION[module]
    _expect(arguments, "img_resolution", size)
    return GeneratorConfig(
        z_dim=_whole(arguments, "z_dim"),
        w_dim=512,
        mapping_layers=_mapping_layers(arguments),
        # EG3D multiplies the label by 0 if the key is missing.
        camera_scale=_number(options, "c_scale", 0.0),
        camera_conditioning=not _flag(options, "c_gen_conditioning_zero"),
        image_resolution=size,
        neural_resolution=neural_resolution,
        channel_base=_whole(arguments, "channel_base", 32768),
        channel_max=_whole(arguments, "channel_max", 512),
        plane_resolution=256,
        backbone_clamp=_optional_number(arguments, "conv_clamp"),
        decoder_lr_mul=_number(options, "decoder_lr_mul", 1.0),
        sr_kind=kind,
        sr_w_dim=512,
        sr_noise=_noise(options),
        sr_antialias=_flag(options, "sr_antialias"),
        # Any half-precision block makes EG3D clamp, also where it computes in float32.
        sr_clamp=256.0 if _number(arguments, "sr_num_fp16_res", 0.0) > 0 else None,
        render=RenderOptions(
            ray_start=_bound(options, "ray_start"),
            ray_end=_bound(options, "ray_end"),
            depth_resolution=_whole(options, "depth_resolution"),
            depth_resolution_importance=_whole(options, "depth_resolution_importance"),
            box_warp=_number(options, "box_warp"),
            axes=axes,
            white_back=_flag(options, "white_back", False),
            disparity=_flag(options, "disparity_space_sampling"),
            density_noise=_number(options, "density_noise", 0.0),
        ),
    )


def discriminator_config(init_kwargs: Mapping[str, Any]) -> DiscriminatorConfig:
    """Our configuration of a discriminator with the arguments of EG3D's DualDiscriminator.

    Raises Head3DError for arguments that are missing, unknown or outside the format.
    """
    arguments = _known("discriminator", init_kwargs, _D_KNOWN)
    _expect(arguments, "c_dim", 25)
    _expect(arguments, "img_channels", 3)
    if arguments.get("architecture", "resnet") != "resnet":
        raise Head3DError(f'architecture must be "resnet", got {describe(arguments["architecture"])}')
    epilogue = _mapping(arguments, "epilogue_kwargs", {})
    _defaults("epilogue_kwargs", epilogue, _EPILOGUE_DEFAULTS, {"mbstd_group_size"})
    _defaults(
        "block_kwargs", _mapping(arguments, "block_kwargs", {}), {"activation": "lrelu"}, {"freeze_layers"}
    )
    config = DiscriminatorConfig(
        image_resolution=_whole(arguments, "img_resolution"),
        channel_base=_whole(arguments, "channel_base", 32768),
        channel_max=_whole(arguments, "channel_max", 512),
        mapping_layers=_mapping_layers(arguments),
        group_size=_whole(epilogue, "mbstd_group_size", 4),
        clamp=_optional_number(arguments, "conv_clamp", 256.0),
        camera_noise=_number(arguments, "disc_c_noise", 0.0),
    )
    width = min(config.channel_base // 4, config.channel_max)
    if arguments.get("cmap_dim") not in (None, width):
        raise Head3DError(
            f"cmap_dim must be {width} (the width at 4x4) or None, got {describe(arguments['cmap_dim'])}"
        )
    return config


def generator_from_eg3d(
    state_dict: Mapping[str, Tensor],
    init_kwargs: Mapping[str, Any],
    axes: Axes = "eg3d",
    neural_resolution: int = 64,
) -> Generator:
    """A generator with EG3D's weights, in evaluation mode on the CPU.

    Args:
        state_dict: under EG3D's names; resampling filters and `dataset_label_std` may be there.
        init_kwargs: its constructor arguments, see `generator_config`.
        axes: "eg3d" for everything trained with the released code; "xyz" for planes (x,y), (x,z), (y,z).
        neural_resolution: default side of the volume-rendered image.

    Raises Head3DError for arguments or tensors that do not fit.
    """
    if axes not in PLANE_NAMES:
        raise Head3DError(f'axes must be "eg3d" or "xyz", got {axes!r}')
    with torch.device("meta"):
        model = Generator(generator_config(init_kwargs, axes, neural_resolution))
    return _fill(model, state_dict)


def discriminator_from_eg3d(
    state_dict: Mapping[str, Tensor], init_kwargs: Mapping[str, Any]
) -> Discriminator:
    """A discriminator with EG3D's weights, in evaluation mode on the CPU: D(image, raw, camera) -> [N, 1].

    Raises Head3DError for arguments or tensors that do not fit.
    """
    with torch.device("meta"):
        model = Discriminator(discriminator_config(init_kwargs))
    return _fill(model, state_dict)


def axes_of(plane_axes: Tensor) -> Axes:
    """Which convention the matrices [3, 3, 3] of a file stand for.

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
        name: tensor.detach().to(torch.float32).clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    model.load_state_dict(own, assign=True)


def _fill(model: Any, state_dict: Mapping[str, Tensor]) -> Any:
    tensors = {}
    for name, value in state_dict.items():
        tensor = torch.as_tensor(value)
        if name == "dataset_label_std":
            continue
        if re.fullmatch(r"(.*\.)?resample_filter", name):
            if tensor.shape != (4, 4) or not torch.allclose(
                tensor.float(), fir(torch.device("cpu")), atol=1e-6
            ):
                raise Head3DError(
                    f"{name} is not the filter outer([1, 3, 3, 1]) / 64 that all EG3D networks use"
                )
            continue
        tensors[name] = tensor
    load_tensors(model, tensors, "the EG3D state dict")
    return model.eval()


# --- reading arguments with a sentence for each that does not fit -----------------------------------------------------


def _known(what: str, arguments: Mapping[str, Any], known: set[str]) -> Mapping[str, Any]:
    unknown = sorted(map(str, set(arguments) - known))
    if unknown:
        raise Head3DError(
            f"EG3D's {what} has no argument {', '.join(unknown)[:120]}: "
            "the file comes from other code, which this reader does not know"
        )
    return arguments


def _need(arguments: Mapping[str, Any], key: str, default: Any = ...) -> Any:
    if key in arguments:
        return arguments[key]
    if default is ...:
        raise Head3DError(f"EG3D's arguments lack {key}: give the complete constructor arguments")
    return default


def _mapping(arguments: Mapping[str, Any], key: str, default: Any = ...) -> Mapping[str, Any]:
    value = _need(arguments, key, default)
    if not isinstance(value, Mapping):
        raise Head3DError(f"{key} must be a dictionary, got {describe(value)}")
    return value


def _number(arguments: Mapping[str, Any], key: str, default: Any = ...) -> float:
    value = _need(arguments, key, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Head3DError(f"{key} must be a number, got {describe(value)}")
    return float(value)


def _optional_number(arguments: Mapping[str, Any], key: str, default: float | None = None) -> float | None:
    return None if _need(arguments, key, default) is None else _number(arguments, key, default)


def _whole(arguments: Mapping[str, Any], key: str, default: Any = ...) -> int:
    value = _number(arguments, key, default)
    if not 0 <= value <= 2**20 or value != int(value):
        raise Head3DError(f"{key} must be a whole number, zero or more, got {value:g}")
    return int(value)


def _flag(arguments: Mapping[str, Any], key: str, default: Any = ...) -> bool:
    value = _need(arguments, key, default)
    if not isinstance(value, bool) and value not in (0, 1):
        raise Head3DError(f"{key} must be true or false, got {describe(value)}")
    return bool(value)


def _expect(arguments: Mapping[str, Any], key: str, value: int) -> None:
    if _need(arguments, key) != value:
        raise Head3DError(f"{key} must be {value} here, got {describe(arguments[key])}")


def _defaults(what: str, arguments: Mapping[str, Any], fixed: Mapping[str, Any], free: set[str]) -> None:
    _known(what, arguments, set(fixed) | free)
    for key, value in fixed.items():
        if arguments.get(key, value) != value:
            raise Head3DError(f"{key} in {what} must be {value}, got {describe(arguments[key])}")


def _mapping_layers(arguments: Mapping[str, Any]) -> int:
    options = _mapping(arguments, "mapping_kwargs", {})
    _defaults("mapping_kwargs", options, _MAPPING_DEFAULTS, {"num_layers", "w_avg_beta"})
    return _whole(options, "num_layers", 8)


def _bound(options: Mapping[str, Any], key: str) -> Any:
    return "auto" if _need(options, key) == "auto" else _number(options, key)


def _noise(options: Mapping[str, Any]) -> NoiseMode:
    mode = _need(options, "superresolution_noise_mode")
    for known in ("const", "random", "none"):
        if mode == known:
            return known
    raise Head3DError(f'superresolution_noise_mode must be "const", "random" or "none", got {describe(mode)}')
