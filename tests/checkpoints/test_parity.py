"""Our numbers against EG3D's: every array of the parity file, as max |error| / max |value|.

`python tests/checkpoints/test_parity.py` prints the table as markdown.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from helpers import golden, state
from torch import Tensor

from head3d_core import ops
from head3d_core.checkpoints import eg3d
from head3d_core.model import discriminator as discriminator_module
from head3d_core.model import filters, planes, rays, stylegan2, superresolution, volume
from head3d_core.model.discriminator import Conv2d, Discriminator, minibatch_std
from head3d_core.model.generator import Generator
from head3d_core.model.stylegan2 import ToRGB, modulated_conv, scaled_conv

LIMITS = {"values": 1e-5, "rendered": 3e-4, "logits": 1e-5, "R1": 5e-5}
"""What the two systems may differ by: float32 rounding of sums in another order, and what rendering makes of it."""
Pairs = dict[str, tuple[Tensor, Tensor]]


def g(name: str) -> Tensor:
    return golden()[name]


@functools.cache
def generator() -> Generator:
    config = eg3d.generator_config(golden()["meta"]["G_init_kwargs"], neural_resolution=32)
    return eg3d.network_from_eg3d(config, state("G.")).requires_grad_(False)


@functools.cache
def discriminator() -> Discriminator:
    return eg3d.network_from_eg3d(eg3d.discriminator_config(golden()["meta"]["D_init_kwargs"]), state("D."))


@contextmanager
def reference_only() -> Iterator[None]:
    """Everything on the Python reference, also where the extension is built."""
    with mock.patch.object(ops, "use_native", return_value=False):
        yield


def error(ours: Tensor, theirs: Tensor) -> tuple[float, float]:
    """(max, mean) absolute error over the largest absolute value."""
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    difference = (ours.detach().double() - theirs.double()).abs()
    scale = theirs.double().abs().max()
    return float(difference.max() / scale), float(difference.mean() / scale)


# --- the quantities -----------------------------------------------------------------------------------------------


def mapping() -> Pairs:
    G, z, condition = generator(), g("in.z"), g("in.c_cond")
    ws = G.mapping(z, condition)
    before = G.w_avg.clone()
    G.update_w_avg(ws[:, 0])
    after = G.w_avg.clone()
    G.w_avg.copy_(before)
    return {
        "ws_psi1": (ws[:, 0], g("out.ws_psi1")),
        "ws": (ws, g("out.ws")),
        "ws_trunc05_cut8": (G.mapping(z, condition, 0.5, 8), g("out.ws_trunc05_cut8")),
        "ws_zero_label": (G.mapping(z, torch.zeros_like(condition))[:, 0], g("out.ws_zero_label")),
        "w_avg_after_update": (after, g("out.w_avg_after_update")),
    }


def backbone() -> Pairs:
    G, seen = generator(), {}
    hooks = [
        G.get_submodule(f"backbone.synthesis.b{r}").register_forward_hook(
            lambda module, inputs, output, r=r: seen.update({f"b{r}_x": output[0], f"b{r}_img": output[1]})
        )
        for r in (4, 8)
    ]
    flat = G.planes(g("in.ws_plus")).flatten(1, 2)
    for hook in hooks:
        hook.remove()
    ours = {
        **seen,
        "planes_strided": flat[:, :, 3::16, 5::16],
        "planes_corner": flat[:, :, :8, :8],
        "planes_corner_br": flat[:, :, -8:, -8:],
        "planes_mean": flat.mean([2, 3]),
        "planes_std": flat.std([2, 3], unbiased=False),
    }
    return {name: (value, g(f"out.{name}")) for name, value in ours.items()}


@functools.cache
def fixed_planes() -> Tensor:
    """The planes, computed once before anything is broken on purpose."""
    with reference_only():
        return generator().planes(g("in.ws_plus"))


def points() -> Pairs:
    G, P = generator(), fixed_planes()
    options = G.config.render
    each = planes.sample_each_plane(P, g("in.points"), options.axes, options.box_warp)
    sigma, features = G.query(P, g("in.points"))
    return {
        "point_plane_features": (each, g("out.point_plane_features")),
        "point_rgb": (features, g("out.point_rgb")),
        "point_sigma": (sigma, g("out.point_sigma")),
    }


def sampling() -> Pairs:
    """The first pass step by step; `render` runs it whole."""
    G, P = generator(), fixed_planes()
    options = G.config.render
    origins, directions = rays.camera_rays(g("in.c"), 32)
    depths = volume.stratified_depths(*rays.ray_bounds(origins, directions, options), 12)
    at = origins[..., None, :] + depths[..., None] * directions[..., None, :]
    sigma, features = G.query(P, at.flatten(1, 2))
    first = volume.march(features.unflatten(1, (1024, 12)), sigma.unflatten(1, (1024, 12)), depths)
    fine = volume.importance_depths(depths, first.weights, 12)
    return {
        "ray_origins": (origins[:, 0], g("out.ray_origins")),
        "ray_dirs": (directions, g("out.ray_dirs")),
        "depths_coarse_ray0": (depths[:, 0], g("out.depths_coarse_ray0")),
        "weights_coarse": (first.weights, g("out.weights_coarse").squeeze(-1)),
        "depths_fine": (fine, g("out.depths_fine").squeeze(-1)),
    }


def render() -> Pairs:
    G, P = generator(), fixed_planes()
    raw = G.render_raw(P, g("in.c"), 32)
    pairs = {
        "weight_sum": (raw.opacity.flatten(2).transpose(1, 2), g("out.weight_sum")),
        "feature_image": (raw.features, g("out.feature_image")),
        "image_raw": (raw.raw, g("out.image_raw")),
        "image_depth": (raw.depth, g("out.image_depth")),
    }
    whole = volume.importance_depths

    def half(depths: Tensor, weights: Tensor, count: int, u: Tensor | None = None) -> Tensor:
        return whole(depths, weights, count, torch.full((*depths.shape[:-1], count), 0.5))

    with reference_only(), mock.patch.object(volume, "importance_depths", half):
        half_raw = G.render_raw(P, g("in.c"), 32)
    pairs["u05_image_raw"] = (half_raw.raw, g("out.u05_image_raw"))
    pairs["u05_image_depth"] = (half_raw.depth, g("out.u05_image_depth"))
    out = G(g("in.z"), g("in.c"), g("in.c"), resolution=32)
    pairs["forward_image_raw"] = (out.raw, g("out.forward_image_raw"))
    pairs["forward_image_depth"] = (out.depth, g("out.forward_image_depth"))
    return pairs


def super_resolution() -> Pairs:
    G, seen = generator(), {}
    hook = G.superresolution.block0.register_forward_hook(
        lambda module, inputs, output: seen.update({"in": inputs[0], "x": output[0], "rgb": output[1]})
    )
    image = G.superresolution(g("out.feature_image"), g("out.image_raw"), g("in.ws_plus"))
    hook.remove()
    return {
        "sr_in_features_strided": (seen["in"][:, :, 1::4, 2::4], g("out.sr_in_features_strided")),
        "sr_block0_x_strided": (seen["x"][:, :, 1::8, 2::8], g("out.sr_block0_x_strided")),
        "sr_block0_rgb": (seen["rgb"], g("out.sr_block0_rgb")),
        "image": (image, g("out.image")),
    }


def discrimination() -> Pairs:
    D, camera = discriminator(), g("in.d_c")
    image = (g("in.d_image").float() / 127.5 - 1).requires_grad_()
    raw = (g("in.d_image_raw").float() / 127.5 - 1).requires_grad_()
    logits = D(image, raw, camera)
    grad_image, grad_raw = torch.autograd.grad(logits.sum(), (image, raw), create_graph=True)
    with torch.no_grad():
        return {
            "d_logits": (logits, g("out.d_logits")),
            "d_logits_first2": (D(image[:2], raw[:2], camera[:2]), g("out.d_logits_first2")),
            "d_logits_gen": (D(g("out.image"), g("out.image_raw"), g("in.c")), g("out.d_logits_gen")),
            "d_cmap": (D.mapping(None, camera), g("out.d_cmap")),
            "d_raw_resized_strided": (
                filters.resize(raw, 128)[:, :, ::4, 1::4],
                g("out.d_raw_resized_strided"),
            ),
            "d_real_raw": (filters.resize(image, 32), g("out.d_real_raw")),
            "d_grad_raw": (grad_raw, g("out.d_grad_raw")),
            "d_r1_image": (grad_image.square().sum([1, 2, 3]), g("out.d_r1_image")),
            "d_r1_raw": (grad_raw.square().sum([1, 2, 3]), g("out.d_r1_raw")),
        }


def operations() -> Pairs:
    x, w, s = g("op.mod_x"), g("op.mod_w"), g("op.mod_s")
    centre = w[:, :, 1:2, 1:2]
    kernel = filters.fir(x.device)
    blur = g("op.blur_kernel_sigma1p5")
    plain = modulated_conv(x, w, s)
    down3, down1 = Conv2d(3, 4, 3, bias=False, down=True), Conv2d(3, 4, 1, bias=False, down=True)
    with torch.no_grad():  # the operation vectors have raw weights, ours carry 1/sqrt(fan-in)
        down3.weight.copy_(w * 27**0.5)
        down1.weight.copy_(centre * 3**0.5)
    ours = {
        "fir": kernel,
        "upsample2d": filters.upsample2d(g("op.x")),
        "downsample2d": filters.downsample2d(g("op.x")),
        "filter2d": filters.upfirdn2d(g("op.x"), kernel, padding=(2, 1, 2, 1)),
        "blur_sigma1p5": filters.upfirdn2d(g("op.bx"), torch.outer(blur, blur), padding=(4, 4, 4, 4)),
        "mod_up1": plain,
        "mod_up1_noise": plain + g("op.mod_noise"),
        "mod_up2": modulated_conv(x, w, s, up=True),
        "mod_nodemod_1x1": scaled_conv(x, centre, s),
        "conv_down2": down3(x),
        "conv_down2_1x1": down1(x),
        "resize_up": filters.resize(g("op.resize_in"), 16),
        "resize_down": filters.resize(g("op.resize_in"), 4),
        "mbstd_out": minibatch_std(g("op.mbstd_in"), 4),
    }
    return {f"op.{name}": (value, g(f"op.{name}")) for name, value in ours.items()}


STAGES: dict[Callable[[], Pairs], str] = {
    mapping: "values",
    backbone: "values",
    points: "values",
    sampling: "rendered",
    render: "rendered",
    super_resolution: "rendered",
    discrimination: "logits",
    operations: "values",
}


def limit_of(name: str, stage: Callable[[], Pairs]) -> float:
    if name in ("d_grad_raw", "d_r1_image", "d_r1_raw"):
        return LIMITS["R1"]
    if name in ("ray_origins", "ray_dirs", "depths_coarse_ray0"):
        return LIMITS["values"]
    return LIMITS[STAGES[stage]]


def table() -> list[tuple[str, float, float, float]]:
    """(quantity, max, mean, limit) of everything."""
    rows = []
    for stage in STAGES:
        rows += [(name, *error(*pair), limit_of(name, stage)) for name, pair in stage().items()]
    return rows


@functools.cache
def reference_pairs(stage: Callable[[], Pairs]) -> Pairs:
    with reference_only():
        return stage()


def check(pairs: Pairs, stage: Callable[[], Pairs]) -> None:
    for name, pair in pairs.items():
        worst, _ = error(*pair)
        assert worst <= limit_of(name, stage), f"{name}: {worst:.1e} > {limit_of(name, stage):.0e}"


def test_every_output_is_compared() -> None:
    compared = {name.removeprefix("op.") for stage in STAGES for name in reference_pairs(stage)}
    listed = {k.split(".", 1)[1] for k in golden() if k.startswith("out.")}
    inputs = {"x", "bx", "blur_kernel_sigma1p5", "resize_in", "mbstd_in"}
    inputs |= {"mod_x", "mod_w", "mod_s", "mod_noise"}
    listed |= {k.split(".", 1)[1] for k in golden() if k.startswith("op.")} - inputs
    assert listed == compared


@pytest.mark.parametrize("stage", STAGES, ids=lambda f: f.__name__)
def test_reference(stage: Callable[[], Pairs]) -> None:
    check(reference_pairs(stage), stage)


@pytest.mark.native
@pytest.mark.parametrize("stage", STAGES, ids=lambda f: f.__name__)
def test_native(stage: Callable[[], Pairs]) -> None:
    check(stage(), stage)


# --- the same tests must fail when something is wrong -------------------------------------------------------------


_GRID, _MARCH, _SOFTPLUS, _BILINEAR = F.grid_sample, volume.march, F.softplus, F.interpolate
_IMPORTANCE, _BIAS_ACT, _EACH = volume.importance_depths, filters.bias_act, planes.sample_each_plane
_RAYS, _SCALED_CONV = rays.camera_rays, stylegan2.scaled_conv
_LAYER, _SR = stylegan2.SynthesisLayer.forward, superresolution.SuperResolution.forward
THIRD = planes.PROJECTION["eg3d"]


def _no_smoothing(*arguments: Any) -> Tensor:
    with mock.patch.object(torch, "maximum", lambda a, b: a):
        return _IMPORTANCE(*arguments)


def _plain_sigmoid(features: Tensor, weights: planes.DecoderWeights) -> tuple[Tensor, Tensor]:
    out = F.linear(_SOFTPLUS(F.linear(features, weights.w0, weights.b0)), weights.w1, weights.b1)
    return out[..., :1], torch.sigmoid(out[..., 1:])


def _limit_without_gain(
    x: Tensor, bias: Any, act: Any = "linear", gain: float = 1, clamp: Any = None
) -> Tensor:
    y = _BIAS_ACT(x, bias, act, gain)
    return y if clamp is None else y.clamp(-clamp, clamp)


def _rays_swapped(camera: Tensor, side: int) -> tuple[Tensor, Tensor]:
    origins, directions = _RAYS(camera, side)
    return origins, directions.unflatten(1, (side, side)).transpose(1, 2).flatten(1, 2)


def _rays_without_skew(camera: Tensor, side: int) -> tuple[Tensor, Tensor]:
    return _RAYS(torch.where(torch.arange(25) == 17, 0, camera), side)


MUTATIONS: dict[str, tuple[Callable[[], Pairs], Any, str, Any]] = {
    "third plane (z, y)": (points, planes.PROJECTION, "eg3d", (*THIRD[:2], (2, 1))),
    "third plane (y, z)": (points, planes.PROJECTION, "eg3d", (*THIRD[:2], (1, 2))),
    "third plane (x, z)": (points, planes.PROJECTION, "eg3d", (*THIRD[:2], (0, 2))),
    "align_corners": (points, F, "grid_sample", lambda *a, **k: _GRID(*a, **{**k, "align_corners": True})),
    "sum of planes": (points, planes, "sample_each_plane", lambda *a: 3 * _EACH(*a)),
    "plain sigmoid": (points, planes, "decode", _plain_sigmoid),
    "softplus without -1": (sampling, volume, "march", lambda f, sigma, *rest: _MARCH(f, sigma + 1, *rest)),
    "no smoothing of the pdf": (sampling, volume, "importance_depths", _no_smoothing),
    "rows and columns of pixels swapped": (sampling, rays, "camera_rays", _rays_swapped),
    "skew ignored": (sampling, rays, "camera_rays", _rays_without_skew),
    "noise left out": (
        backbone, stylegan2.SynthesisLayer, "forward",
        lambda self, x, w, noise, *rest, **more: _LAYER(self, x, w, "none", *rest, **more),
    ),
    "ToRGB without its gain": (
        backbone, ToRGB, "forward",
        lambda self, x, w: _BIAS_ACT(scaled_conv(x, self.weight, self.affine(w)), self.bias, clamp=self.clamp),
    ),
    "up-sampling kernel not flipped": (
        backbone, stylegan2, "scaled_conv",
        lambda x, w, s, up=False: _SCALED_CONV(x, w.flip([2, 3]) if up else w, s, up),
    ),
    "super-resolution takes an earlier code": (
        super_resolution, superresolution.SuperResolution, "forward",
        lambda self, f, rgb, ws, *rest: _SR(self, f, rgb, ws[:, :-1], *rest),
    ),
    "clamp limit without the gain": (discrimination, discriminator_module, "bias_act", _limit_without_gain),
    "no antialiasing": (
        operations, filters.F, "interpolate", lambda *a, **k: _BILINEAR(*a, **{**k, "antialias": False})
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_wrong_formula_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stage, target, attribute, value = MUTATIONS[name]
    fixed_planes()
    if isinstance(target, dict):
        monkeypatch.setitem(target, attribute, value)
    else:
        monkeypatch.setattr(target, attribute, value)
    with reference_only():
        worst = max(error(*pair)[0] / limit_of(quantity, stage) for quantity, pair in stage().items())
    assert worst > 3, f"{name} changes nothing that is compared ({worst:.2g} of the limit)"


def test_super_resolution_without_its_clamp_is_seen() -> None:
    arguments = {**golden()["meta"]["G_init_kwargs"], "sr_num_fp16_res": 0}
    free = eg3d.network_from_eg3d(eg3d.generator_config(arguments), state("G."))
    assert free.config.sr_clamp is None
    image = free.superresolution(g("out.feature_image"), g("out.image_raw"), g("in.ws_plus"))
    assert error(image, g("out.image"))[0] > 1e-3


def test_swapped_discriminator_inputs_are_seen() -> None:
    D, camera = discriminator(), g("in.d_c")
    image, raw = g("in.d_image").float() / 127.5 - 1, g("in.d_image_raw").float() / 127.5 - 1
    swapped = D(filters.resize(raw, 128), image, camera)
    assert error(swapped, g("out.d_logits"))[0] > 1e-3


def main() -> None:
    """The table as markdown."""
    print(f"torch {torch.__version__}, CPU, float32; extension {'on' if ops.available() else 'off'}\n")
    print("| quantity | max error | mean error | limit |\n|---|---|---|---|")
    for name, worst, mean, limit in table():
        print(f"| {name} | {worst:.1e} | {mean:.1e} | {limit:.0e} |{'' if worst <= limit else ' **over**'}")


if __name__ == "__main__":
    main()
