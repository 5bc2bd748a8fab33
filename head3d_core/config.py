"""Architecture as frozen dataclasses, and the three presets.

Scale is one dial: ``tiny`` (tests) -> ``classroom`` (bundled weights, laptop inference, one GPU for training)
-> ``paper`` (512², the EG3D format). Override with ``dataclasses.replace``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Self

from head3d_core.utils.errors import Head3DError
from head3d_core.utils.nested import parsed

Axes = Literal["eg3d", "xyz"]
Backend = Literal["auto", "reference", "native"]
NoiseMode = Literal["const", "random", "none"]
SuperResolutionKind = Literal["8xdc", "8x", "4x", "2x", "deepfp32"]

PLANE_NAMES: dict[Axes, tuple[str, str, str]] = {"eg3d": ("xy", "xz", "zx"), "xyz": ("xy", "xz", "yz")}
"""Names of planes 0, 1, 2 under each axes convention. EG3D as released has no (y, z) plane."""
SLICE_NAMES = ("xy_front", "xy_back")
"""Names of planes 0 and 3 where the xy plane has two slices."""


class Slices(NamedTuple):
    """Where the two slices of the xy plane lie. Planes with one slice ignore it."""

    half_distance: float = 0.10
    """h, world units: the slices lie at z = centre + h (front) and centre - h (back)."""
    centre: float = 0.0
    """z0, world units."""


SLICES = Slices()
"""Where they lie unless the rendering options say otherwise."""


_SIZE = ("a whole number of at least 1", lambda v: isinstance(v, int) and v >= 1)
_POWER_OF_TWO = ("a power of two of at least 4", lambda v: isinstance(v, int) and v >= 4 and not v & (v - 1))
_LAYERS = ("between 1 and 64", lambda v: isinstance(v, int) and 1 <= v <= 64)


def check_fields(config: Any, says: str, fits: Callable[[Any], bool], *names: str) -> None:
    """Raises Head3DError for the first of the named fields whose value does not fit."""
    for name in names:
        value = getattr(config, name)
        if not fits(value):
            raise Head3DError(f"{name} must be {says}, got {value!r}")


class _Json:
    """A configuration that weights carry in their header."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able dictionary; `from_dict` reads it back."""
        return dataclasses.asdict(self)  # type: ignore[call-overload]

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Inverse of `to_dict`. Raises Head3DError for unknown fields and values of another type."""
        config: Self = parsed(cls, data)
        return config


@dataclass(frozen=True)
class RenderOptions:
    """How rays are sampled and marched (EG3D's ``rendering_kwargs``)."""

    ray_start: float | Literal["auto"] = 2.25
    """Distance of the first sample along the ray, world units; "auto" intersects the box."""
    ray_end: float | Literal["auto"] = 3.3
    """Distance of the last sample, world units; "auto" together with ``ray_start``."""
    depth_resolution: int = 48
    """Stratified samples per ray (at least 4: the importance pdf drops both ends)."""
    depth_resolution_importance: int = 48
    """Importance samples per ray; 0 marches the stratified samples only."""
    box_warp: float = 1.0
    """Side of the cube that the planes span, world units."""
    axes: Axes = "xyz"
    """"xyz" samples (x,y), (x,z), (y,z); "eg3d" samples (x,y), (x,z), (z,x) as official weights need."""
    white_back: bool = False
    """Add 1 - opacity to every feature channel, i.e. composite over white."""
    disparity: bool = False
    """Space the stratified samples evenly in 1/depth."""
    density_noise: float = 0.0
    """Standard deviation of Gaussian noise on sigma when ``seeds`` are given (training only)."""
    slice_half_distance: float = SLICES.half_distance
    """Half the distance of the two slices of the xy plane, world units; one slice ignores it."""
    slice_centre: float = SLICES.centre
    """z half-way between the two slices of the xy plane, world units; one slice ignores it."""

    def __post_init__(self) -> None:
        if ("auto" in (self.ray_start, self.ray_end)) and self.ray_start != self.ray_end:
            raise Head3DError(
                'ray_start and ray_end must both be "auto" or both be numbers, '
                f"got {self.ray_start!r} and {self.ray_end!r}"
            )
        check_fields(self, "at least 4", lambda v: v >= 4, "depth_resolution")
        check_fields(self, "0 or more", lambda v: v >= 0, "depth_resolution_importance")
        check_fields(self, "positive", lambda v: v > 0, "box_warp")
        check_fields(self, '"eg3d" or "xyz"', PLANE_NAMES.__contains__, "axes")
        check_fields(self, "positive", lambda v: v > 0, "slice_half_distance")

    @property
    def slices(self) -> Slices:
        """Where the two slices of the xy plane lie."""
        return Slices(self.slice_half_distance, self.slice_centre)


@dataclass(frozen=True)
class GeneratorConfig(_Json):
    """Architecture of the tri-plane generator: mapping, backbone, decoder, super-resolution."""

    z_dim: int = 512
    """Length of the latent code z."""
    w_dim: int = 512
    """Length of each intermediate code in ws."""
    mapping_layers: int = 2
    """Fully connected layers of the mapping network."""
    camera_scale: float = 1.0
    """Factor on the mapping camera before it is embedded (EG3D's ``c_scale``)."""
    camera_conditioning: bool = True
    """False feeds zeros instead of the mapping camera (EG3D's ``c_gen_conditioning_zero``)."""
    camera_radius: float = 2.7
    """Distance from which it was trained to be seen, world units (EG3D's ``avg_camera_radius``)."""
    image_resolution: int = 512
    """Side of the final image, pixels (a power of two)."""
    neural_resolution: int = 128
    """Side of the volume-rendered image, pixels."""
    channel_base: int = 32768
    """Backbone width: C(r) = min(channel_base // r, channel_max)."""
    channel_max: int = 512
    """Widest layer of the backbone."""
    plane_resolution: int = 256
    """Side of a plane, texels (a power of two)."""
    plane_channels: int = 32
    """Channels of a plane."""
    front_slices: int = 1
    """Depth slices of the xy plane: 1 (tri-plane) or 2 (front and back of the head have a plane each)."""
    back_blocks: int = 0
    """With two slices: resolution of the first backbone block that xy_back has to itself, so that it can differ more
    from xy_front; 0: they share all blocks and only the output rows of ToRGB are its own."""
    decoder_hidden: int = 64
    """Hidden units of the decoder."""
    decoder_features: int = 32
    """Colour feature channels of the decoder; the first three are rgb."""
    decoder_lr_mul: float = 1.0
    """Learning-rate multiplier of the decoder's layers."""
    sr_kind: SuperResolutionKind = "8xdc"
    """Super-resolution module: input size and which blocks up-sample (spec table 1.1)."""
    sr_channels: tuple[int, int] | None = None
    """Widths of its two blocks; None: the EG3D widths of ``sr_kind``."""
    sr_w_dim: int | None = None
    """Length of the code its layers take; None: ``w_dim`` (EG3D hard-wires 512)."""
    sr_noise: NoiseMode = "none"
    """Noise mode of the super-resolution layers."""
    sr_antialias: bool = True
    """Triangle filter when features are shrunk to the module's input size."""
    sr_clamp: float | None = 256.0
    """Clamp of its activations; None: no clamp (EG3D with ``sr_num_fp16_res = 0``)."""
    render: RenderOptions = field(default_factory=RenderOptions)
    """How rays are sampled."""
    backbone_clamp: float | None = None
    """Clamp of the backbone's activations; None: no clamp, as in every official EG3D network."""

    def __post_init__(self) -> None:
        sizes = ("z_dim", "w_dim", "channel_base", "channel_max", "plane_channels", "decoder_hidden")
        check_fields(self, *_SIZE, *sizes, "neural_resolution")
        check_fields(self, *_POWER_OF_TWO, "image_resolution", "plane_resolution")
        check_fields(self, *_LAYERS, "mapping_layers")
        check_fields(self, "1 or 2", (1, 2).__contains__, "front_slices")
        sides = [2**k for k in range(3, self.plane_resolution.bit_length())]
        check_fields(self, f"0 or one of {sides}", lambda v: v == 0 or v in sides, "back_blocks")
        if self.back_blocks and self.front_slices != 2:
            raise Head3DError(f"back_blocks {self.back_blocks} needs front_slices 2, got {self.front_slices}")
        check_fields(self, "positive", lambda v: v > 0, "camera_radius")
        check_fields(self, "at least 3 (the first three are rgb)", lambda v: v >= 3, "decoder_features")

    @property
    def num_ws(self) -> int:
        """Codes that the backbone consumes: one per convolution and one for the last ToRGB."""
        return 2 * (self.plane_resolution.bit_length() - 2)

    @property
    def plane_count(self) -> int:
        """Planes of a head: 3, or 4 with two slices of the xy plane."""
        return 2 + self.front_slices


@dataclass(frozen=True)
class DiscriminatorConfig(_Json):
    """Architecture of the discriminator with dual discrimination (image and raw, 6 channels)."""

    image_resolution: int = 512
    """Side of its input image, pixels (a power of two)."""
    channel_base: int = 32768
    """Width: C(r) = min(channel_base // r, channel_max)."""
    channel_max: int = 512
    """Widest layer."""
    mapping_layers: int = 8
    """Fully connected layers of the camera embedding."""
    group_size: int = 4
    """Samples per group of the minibatch standard deviation."""
    clamp: float | None = 256.0
    """Clamp of its activations; None: no clamp."""
    camera_noise: float = 0.0
    """Noise on the camera in units of its batch standard deviation (EG3D's ``disc_c_noise``)."""

    def __post_init__(self) -> None:
        check_fields(self, *_SIZE, "channel_base", "channel_max", "group_size")
        check_fields(self, *_POWER_OF_TWO, "image_resolution")
        check_fields(self, *_LAYERS, "mapping_layers")


@dataclass(frozen=True)
class Preset:
    """A complete, named scale."""

    name: str
    """How the preset is called on the command line."""
    generator: GeneratorConfig
    """Of teacher and student."""
    discriminator: DiscriminatorConfig
    """Of D_front and D_back."""


_TINY = Preset(
    name="tiny",
    generator=GeneratorConfig(
        z_dim=32,
        w_dim=32,
        image_resolution=64,
        neural_resolution=16,
        channel_base=512,
        channel_max=32,
        plane_resolution=32,
        plane_channels=8,
        decoder_hidden=16,
        decoder_features=8,
        sr_kind="2x",
        sr_channels=(16, 8),
        render=RenderOptions(depth_resolution=8, depth_resolution_importance=8, white_back=True),
    ),
    discriminator=DiscriminatorConfig(
        image_resolution=64, channel_base=512, channel_max=32, mapping_layers=2
    ),
)
_CLASSROOM = Preset(
    name="classroom",
    generator=GeneratorConfig(
        z_dim=256,
        w_dim=256,
        image_resolution=256,
        neural_resolution=64,
        channel_base=8192,
        channel_max=184,
        plane_resolution=128,
        sr_kind="4x",
        sr_channels=(64, 32),
        render=RenderOptions(depth_resolution=24, depth_resolution_importance=24, white_back=True),
    ),
    discriminator=DiscriminatorConfig(
        image_resolution=256, channel_base=8192, channel_max=256, mapping_layers=4
    ),
)
_PAPER = Preset(
    name="paper",
    generator=GeneratorConfig(render=RenderOptions(axes="eg3d", white_back=True)),
    discriminator=DiscriminatorConfig(),
)

PRESETS: dict[str, Preset] = {p.name: p for p in (_TINY, _CLASSROOM, _PAPER)}
"""tiny: tests. classroom: 256², single GPU, bundled weights. paper: 512², EG3D's shapes and axes."""


def preset(name: str) -> Preset:
    """The preset called `name`; raises Head3DError with the list of names otherwise."""
    if name not in PRESETS:
        raise Head3DError(f"no preset called {name!r}: choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
