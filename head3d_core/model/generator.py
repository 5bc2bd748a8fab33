"""The tri-plane generator G: mapping -> planes -> volume rendering -> super-resolution (Eq. 1-4)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from head3d_core.config import Backend, GeneratorConfig, NoiseMode
from head3d_core.model.cameras import check_camera, check_tensor, frontal
from head3d_core.model.planes import Decoder, check_planes, query
from head3d_core.model.rays import camera_rays
from head3d_core.model.stylegan2 import Mapping, SynthesisNetwork
from head3d_core.model.superresolution import SuperResolution
from head3d_core.model.volume import render_rays
from head3d_core.utils.errors import Head3DError

_PLANE_NOISE: tuple[NoiseMode, ...] = ("const", "random", "none")


@dataclass(frozen=True)
class RawOutput:
    """The volume-rendered half of an image, R = rendering resolution."""

    features: Tensor
    """[N, F, R, R]"""
    depth: Tensor
    """[N, 1, R, R], distance along the ray, world units."""
    opacity: Tensor
    """[N, 1, R, R] in [0, 1]"""

    @property
    def raw(self) -> Tensor:
        """[N, 3, R, R] in about [-1, 1]: the first three features."""
        return self.features[:, :3]


@dataclass(frozen=True)
class RenderOutput(RawOutput):
    """A rendered image."""

    image: Tensor
    """[N, 3, image_resolution, image_resolution] in about [-1, 1], not clamped."""


class Backbone(nn.Module):
    """Mapping and synthesis network, under the names of the EG3D format."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.mapping = Mapping(config.z_dim, config.w_dim, config.mapping_layers)
        self.synthesis = SynthesisNetwork(
            config.w_dim,
            config.plane_resolution,
            config.plane_count * config.plane_channels,
            config.channel_base,
            config.channel_max,
            config.backbone_clamp,
            (config.back_blocks, config.plane_channels) if config.back_blocks else (0, 0),
        )


class Generator(nn.Module):
    """G_t and G_s: z and a camera in, an image of a head out.

    Deterministic unless `seeds` are given: backbone noise "const", stratified offset 0.5, importance
    u = (j + 0.5) / count.

    Args:
        config: architecture; kept as `.config`.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config)
        self.superresolution = SuperResolution(config)
        self.decoder = Decoder(
            config.plane_channels, config.decoder_hidden, config.decoder_features, config.decoder_lr_mul
        )

    @property
    def z_dim(self) -> int:
        """Length of z."""
        return self.config.z_dim

    @property
    def num_ws(self) -> int:
        """Codes per sample in ws."""
        return self.config.num_ws

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return self.decoder.net["0"].weight.device  # type: ignore[return-value]

    def mapping(
        self, z: Tensor, camera: Tensor, truncation_psi: float = 1.0, truncation_cutoff: int | None = None
    ) -> Tensor:
        """ws = M(z, p), repeated for every layer (Eq. 1).

        Args:
            z: [N, z_dim], standard normal.
            camera: [N, 25], the mapping camera p (not the camera that renders).
            truncation_psi: ws = w_avg + psi (ws - w_avg); 1 leaves ws alone, 0 gives the average head.
            truncation_cutoff: truncate only the first so many codes; None: all.

        Returns:
            ws [N, num_ws, w_dim].
        """
        check_tensor("z", z)
        if (type_ := self.decoder.net["0"].weight.dtype) != torch.float32:
            raise Head3DError(
                f"a generator computes in float32, got weights in {type_}: call its float(); for mixed precision use "
                "torch.autocast, for small files `convert --half`"
            )
        if z.ndim != 2 or z.shape[1] != self.z_dim:
            raise Head3DError(f"z must be [N, {self.z_dim}], got {list(z.shape)}")
        check_camera(camera)
        if len(camera) != len(z):
            raise Head3DError(f"z and camera must have one batch size, got {len(z)} and {len(camera)}")
        condition = camera * self.config.camera_scale
        if not self.config.camera_conditioning:
            condition = torch.zeros_like(condition)
        w = self.backbone.mapping(z, condition)
        ws = w[:, None].expand(-1, self.num_ws, -1)
        if not math.isfinite(truncation_psi):
            raise Head3DError(f"truncation_psi must be a number, e.g. 0.7, got {truncation_psi}")
        if truncation_psi == 1:
            return ws
        cutoff = self.num_ws if truncation_cutoff is None else truncation_cutoff
        if cutoff < 0:
            raise Head3DError(f"truncation_cutoff must be 0 or more codes, got {cutoff}")
        average = self.w_avg
        return torch.cat([torch.lerp(average, ws[:, :cutoff], truncation_psi), ws[:, cutoff:]], 1)

    @property
    def w_avg(self) -> Tensor:
        """Running mean of w, [w_dim]: where truncation pulls to."""
        average = self.backbone.mapping.w_avg
        assert isinstance(average, Tensor)
        return average

    @torch.no_grad()
    def update_w_avg(self, w: Tensor) -> None:
        """w_avg <- 0.998 w_avg + 0.002 mean(w); w is [N, w_dim]."""
        self.w_avg.lerp_(w.detach().mean(0).to(self.w_avg.dtype), 1 - 0.998)

    def planes(self, ws: Tensor, noise: NoiseMode = "const", seeds: Tensor | None = None) -> Tensor:
        """Feature planes of codes (Eq. 2).

        Args:
            ws: [N, num_ws, w_dim].
            noise: "const" (repeatable), "random" (from `seeds`, or fresh) or "none".
            seeds: [N] int64 for "random".

        Returns:
            [N, P, C, H, W], P = 3 or, with two slices of the xy plane, 4.
        """
        expected = (self.num_ws, self.config.w_dim)
        if ws.ndim != 3 or ws.shape[1:] != expected:
            raise Head3DError(f"ws must be [N, {expected[0]}, {expected[1]}], got {list(ws.shape)}")
        if noise not in _PLANE_NOISE:
            raise Head3DError(f'noise must be "const", "random" or "none", got {noise!r}')
        flat = self.backbone.synthesis(ws, noise, seeds)
        # Split with the channels last: the gradient, which comes with channels innermost, is merged in that layout too.
        split = flat.permute(0, 2, 3, 1).unflatten(-1, (-1, self.config.plane_channels))
        return split.permute(0, 3, 4, 1, 2)

    def render_raw(
        self,
        planes: Tensor,
        camera: Tensor,
        resolution: int | None = None,
        backend: Backend = "auto",
        seeds: Tensor | None = None,
    ) -> RawOutput:
        """Volume rendering alone (Eq. 3), without super-resolution.

        Args:
            planes: [N, P, C, H, W]; a generator with one slice of the xy plane renders planes with two as well.
            camera: [N, 25].
            resolution: R; None: the configuration's `neural_resolution`.
            backend: see `volume.render_rays`.
            seeds: [N] int64 for random sampling; None: deterministic.
        """
        self._check_planes(planes)
        check_camera(camera)
        if len(camera) != len(planes):
            raise Head3DError(
                f"planes and camera must have one batch size, got {len(planes)} and {len(camera)}"
            )
        size = resolution or self.config.neural_resolution
        origins, directions = camera_rays(camera, size)
        weights, options = self.decoder.weights(), self.config.render
        result = render_rays(planes, weights, origins, directions, options, seeds=seeds, backend=backend)
        features = result.features.unflatten(1, (size, size)).permute(0, 3, 1, 2)
        shape = (len(planes), 1, size, size)
        return RawOutput(features, result.depth.reshape(shape), result.opacity.reshape(shape))

    def render(
        self,
        planes: Tensor,
        ws: Tensor,
        camera: Tensor,
        resolution: int | None = None,
        backend: Backend = "auto",
        seeds: Tensor | None = None,
    ) -> RenderOutput:
        """Volume rendering and super-resolution.

        Args:
            planes: [N, P, C, H, W].
            ws: [N, num_ws, w_dim]; super-resolution takes the last code.
            camera: [N, 25], the camera that renders.
            resolution: of the volume rendering; None: the configuration's.
            backend: "auto", "reference" or "native".
            seeds: [N] int64 for random sampling, one per sample whatever the batch split; None: deterministic.

        Returns:
            RenderOutput with .image .raw .depth .opacity.
        """
        raw = self.render_raw(planes, camera, resolution, backend, seeds)
        image = self.superresolution(raw.features, raw.raw, ws, seeds)
        return RenderOutput(raw.features, raw.depth, raw.opacity, image)

    def forward(
        self,
        z: Tensor,
        camera: Tensor,
        mapping_camera: Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        resolution: int | None = None,
        backend: Backend = "auto",
        seeds: Tensor | None = None,
    ) -> RenderOutput:
        """Everything: z [N, z_dim] seen from camera [N, 25].

        `mapping_camera` [N, 25] conditions the mapping; None: the frontal camera, so that a head does not
        change with the camera that looks at it. With `seeds` the backbone noise is random too.
        """
        if mapping_camera is None:
            mapping_camera = frontal(len(z), z.device, self.config.camera_radius)
        ws = self.mapping(z, mapping_camera, truncation_psi, truncation_cutoff)
        planes = self.planes(ws, "const" if seeds is None else "random", seeds)
        return self.render(planes, ws, camera, resolution, backend, seeds=seeds)

    def query(self, planes: Tensor, points: Tensor, backend: Backend = "auto") -> tuple[Tensor, Tensor]:
        """The field at world points [N, M, 3]: raw sigma [N, M, 1] and features [N, M, F].

        features[..., :3] is rgb in [0, 1] (up to 0.001 beyond); density = softplus(sigma - 1).
        """
        self._check_planes(planes)
        options, weights = self.config.render, self.decoder.weights()
        return query(planes, weights, points, options.axes, options.box_warp, backend, options.slices)

    def widened(self, back_blocks: int = 0) -> Generator:
        """A two-slice generator that draws the same heads.

        In every ToRGB layer of the backbone the output rows of xy_back are copies of those of xy. With `back_blocks`
        the blocks from that resolution on are copies, too (their random noise has streams of its own).

        Raises:
            Head3DError: this generator has two slices already, and no blocks are asked for or xy_back has its own.
        """
        if self.config.front_slices == 2 and not back_blocks:
            raise Head3DError("only a generator with 1 slice can be widened, got 2")
        if self.config.back_blocks:
            raise Head3DError(
                f"only a generator with back_blocks 0 can be given {back_blocks}, got {self.config.back_blocks}"
            )
        channels = self.config.plane_channels
        with torch.device("meta"):  # its own weights would be drawn for nothing
            wide = Generator(replace(self.config, front_slices=2, back_blocks=back_blocks))
        state = self.state_dict()
        for name, value in wide.state_dict().items():
            own = "synthesis.own" in name
            source = state[name.replace("synthesis.own", "synthesis.b")]
            if source.shape != value.shape:  # a ToRGB layer
                four = torch.cat([source, source[:channels]]) if self.config.front_slices == 1 else source
                source = four[-channels:] if own else four[: len(value)]
            state[name] = source.clone()
        wide.load_state_dict(state, assign=True)
        return wide.train(self.training).requires_grad_(next(self.parameters()).requires_grad)

    def _check_planes(self, planes: Tensor) -> None:
        wanted, channels = self.config.plane_count, self.config.plane_channels
        check_planes(planes)
        if planes.shape[1] < wanted:
            raise Head3DError(
                f"this generator's heads have {wanted} planes, got {planes.shape[1]}: use `planes.widen`"
            )
        if planes.shape[2] != channels:
            raise Head3DError(f"planes must have {channels} channels, got {planes.shape[2]}")
