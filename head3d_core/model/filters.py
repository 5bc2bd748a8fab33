"""The GAN's two small operators, in plain PyTorch: FIR resampling and bias + activation.

The reference forms are differentiable any number of times (R1 differentiates twice); the compiled forms in
csrc are too, and much faster on a GPU.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from head3d_core import ops
from head3d_core.config import Backend
from head3d_core.utils.errors import Head3DError

Activation = Literal["linear", "lrelu"]
GAIN: dict[Activation, float] = {"linear": 1.0, "lrelu": math.sqrt(2)}
"""Gain that keeps the second moment of a unit-variance input."""
_NUMBER: dict[Activation, int] = {"linear": 0, "lrelu": 1}
"""How the compiled operators name them."""
SLOPE = 0.2
"""Negative slope of the leaky ReLU."""
TAPS = (1.0, 3.0, 3.0, 1.0)
"""StyleGAN2's resampling filter before normalisation."""


@lru_cache(maxsize=32)
def _fir(device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # a cached inference tensor could not be differentiated through later
        taps = torch.tensor(TAPS, dtype=torch.float64)
        kernel = torch.outer(taps, taps)
        return (kernel / kernel.sum()).to(device=device, dtype=torch.float32)


@torch.compiler.assume_constant_result
def fir(device: torch.device) -> Tensor:
    """outer([1, 3, 3, 1]) / 64, shape [4, 4], sum 1. One tensor per device, a constant to torch.compile."""
    return _fir(device)


def bias_act(
    x: Tensor,
    bias: Tensor | None = None,
    activation: Activation = "linear",
    gain: float = 1.0,
    clamp: float | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """Bias, then activation, then its own gain times `gain`, then clamp to [-clamp, clamp].

    The clamp limit scales with `gain`: EG3D's residual branch calls with gain sqrt(1/2) and limit 256 sqrt(1/2).

    Args:
        x: [N, C, ...].
        bias: [C] or None.

    Returns:
        Same shape and dtype as x.
    """
    if bias is not None and (bias.ndim != 1 or x.ndim < 2 or bias.shape[0] != x.shape[1]):
        raise Head3DError(f"bias must be [C] for x [N, C, ...], got {list(bias.shape)} and {list(x.shape)}")
    limit = None if clamp is None else clamp * gain
    total = GAIN[activation] * gain
    if ops.use_native(backend, x):
        bias = None if bias is None else bias.to(x.dtype)
        return torch.ops.head3d.bias_act(x, bias, _NUMBER[activation], total, limit)
    if bias is not None:
        x = x + bias.to(x.dtype).reshape([1, -1] + [1] * (x.ndim - 2))
    if activation == "lrelu":
        x = F.leaky_relu(x, SLOPE)
    if total != 1:
        x = x * total
    return x if limit is None else x.clamp(-limit, limit)


def layer_epilogue(
    x: Tensor,
    scale: Tensor | None = None,
    noise: Tensor | None = None,
    strength: Tensor | None = None,
    bias: Tensor | None = None,
    activation: Activation = "linear",
    gain: float = 1.0,
    clamp: float | None = None,
    backend: Backend = "auto",
    after: Tensor | None = None,
) -> Tensor:
    """What follows a modulated convolution: bias_act(x scale + noise strength, bias) after, in one pass on a GPU.

    Args:
        x: [N, C, H, W].
        scale: [N, C] or None, for example the demodulation.
        noise: [N or 1, 1, H, W] and its strength, a scalar tensor; both or neither. No gradient reaches the noise.
        bias: [C] or None.
        activation, gain, clamp: see `bias_act`.
        after: [N, C] or None, multiplies the result: the style of the convolution that reads it.

    Returns:
        Same shape and dtype as x.
    """
    n, c, h, w = x.shape
    for name, part in (("scale", scale), ("after", after)):
        if part is not None and part.shape != (n, c):
            raise Head3DError(f"{name} must be [N, C] = [{n}, {c}], got {list(part.shape)}")
    if (noise is None) != (strength is None):
        raise Head3DError("noise and its strength come together: pass both or neither")
    if noise is not None and tuple(noise.shape) not in ((n, 1, h, w), (1, 1, h, w)):
        raise Head3DError(f"noise must be [N or 1, 1, H, W] for x {list(x.shape)}, got {list(noise.shape)}")
    if backend == "native" and not x.is_cuda:
        raise Head3DError('backend="native" has no CPU kernel for layer_epilogue: use backend="auto"')
    if x.is_cuda and ops.use_native(backend, x):
        limit = None if clamp is None else clamp * gain
        total = GAIN[activation] * gain
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32  # everything but x
        parts = [None if t is None else t.to(wide) for t in (scale, noise, strength, bias, after)]
        return torch.ops.head3d.layer_epilogue(x, *parts, _NUMBER[activation], total, limit)
    if scale is not None:
        x = x * scale.to(x.dtype)[:, :, None, None]
    if noise is not None and strength is not None:
        x = x + (noise.detach() * strength).to(x.dtype)
    if not (bias is None and activation == "linear" and gain == 1 and clamp is None):
        x = bias_act(x, bias, activation, gain, clamp, backend)
    return x if after is None else x * after.to(x.dtype)[:, :, None, None]


def scale_channels(x: Tensor, scale: Tensor, backend: Backend = "auto") -> Tensor:
    """x [N, C, H, W] times scale [N, C]; on a GPU one pass forward and one for both gradients."""
    return layer_epilogue(x, scale, backend=backend)


def upfirdn2d(
    x: Tensor,
    kernel: Tensor,
    up: int = 1,
    down: int = 1,
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    gain: float = 1.0,
    backend: Backend = "auto",
) -> Tensor:
    """Insert zeros, pad, convolve (true convolution) with gain * kernel, keep every down-th sample.

    Args:
        x: [N, C, H, W].
        kernel: [kh, kw].
        padding: left, right, top, bottom, zero or more, in up-sampled pixels.

    Returns:
        [N, C, H', W'] with W' = (W up + left + right - kw) // down + 1.
    """
    if x.ndim != 4 or kernel.ndim != 2:
        raise Head3DError(
            f"upfirdn2d takes x [N, C, H, W] and kernel [kh, kw], got {list(x.shape)} and {list(kernel.shape)}"
        )
    if ops.use_native(backend, x):
        return torch.ops.head3d.upfirdn2d(x, kernel, up, down, list(padding), float(gain), False)
    n, c, h, w = x.shape
    if up > 1:
        x = F.pad(x.reshape(n, c, h, 1, w, 1), (0, up - 1, 0, 0, 0, up - 1)).reshape(n, c, h * up, w * up)
    x = F.pad(x, padding)
    weight = (kernel * gain).flip([0, 1]).to(x.dtype).expand(c, 1, *kernel.shape)
    return F.conv2d(x, weight, stride=down, groups=c)


def upsample2d(x: Tensor, backend: Backend = "auto") -> Tensor:
    """Image up-sampling by two with the FIR kernel: [N, C, H, W] -> [N, C, 2H, 2W]."""
    return upfirdn2d(x, fir(x.device), up=2, padding=(2, 1, 2, 1), gain=4, backend=backend)


def downsample2d(x: Tensor, backend: Backend = "auto") -> Tensor:
    """Image down-sampling by two with the FIR kernel: [N, C, H, W] -> [N, C, H/2, W/2]."""
    return upfirdn2d(x, fir(x.device), down=2, padding=(1, 1, 1, 1), backend=backend)


def resize(x: Tensor, size: int, antialias: bool = True) -> Tensor:
    """Bilinear resize to [N, C, size, size] (half-pixel centres); `antialias` widens the filter when shrinking."""
    if x.shape[-1] == size and x.shape[-2] == size:
        return x
    # When enlarging, antialiasing changes nothing but costs a slower kernel.
    shrink = size < x.shape[-1] or size < x.shape[-2]
    return F.interpolate(
        x, (size, size), mode="bilinear", align_corners=False, antialias=antialias and shrink
    )
