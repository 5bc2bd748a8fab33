"""The first rung of the ladder: formulas as loops over numbers, or SciPy's plain convolution, in float64 NumPy.

Nothing here uses torch, so that a mistake in a vectorised form has nothing to hide behind.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import convolve2d, correlate2d

Array = NDArray[np.float64]
FIR = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64.0


def f64(tensor: Any) -> Array:
    """A torch tensor as a float64 array."""
    return np.asarray(tensor.detach().cpu().numpy(), dtype=np.float64)


# --- filters ------------------------------------------------------------------------------------------------------


def upfirdn2d(x: Array, kernel: Array, up: int, down: int, pad: tuple[int, ...], gain: float = 1.0) -> Array:
    """Zeros between the samples and around them, a true convolution, of which every `down`-th sample stays."""
    n, c, height, width = x.shape
    left, right, top, bottom = pad
    big = np.zeros((n, c, height * up + top + bottom, width * up + left + right))
    big[:, :, top : top + height * up : up, left : left + width * up : up] = x
    found = np.array([[convolve2d(channel, kernel, "valid") for channel in image] for image in big])
    return gain * found[:, :, ::down, ::down]


def correlate(x: Array, weight: Array, mode: str = "same") -> Array:
    """x [N, I, H, W] with weight [O, I, k, k]: sums of correlations, one for each pair of channels."""
    return np.array(
        [[sum(map(correlate2d, image, kernels, [mode] * len(image))) for kernels in weight] for image in x]
    )


def bias_act(
    x: Array, bias: Array | None, lrelu: bool, gain: float = 1.0, clamp: float | None = None
) -> Array:
    """Number by number."""
    out = np.zeros_like(x)
    for index, value in np.ndenumerate(x):
        y = float(value) + (0.0 if bias is None else float(bias[index[1]]))
        if lrelu:
            y = (y if y > 0 else 0.2 * y) * math.sqrt(2)
        y *= gain
        if clamp is not None:
            y = max(-clamp * gain, min(clamp * gain, y))
        out[index] = y
    return out


def bilinear(x: Array, size: int, antialias: bool = True) -> Array:
    """Separable resize with half-pixel centres; a triangle as wide as the scale when shrinking."""

    def matrix(length: int) -> Array:
        scale = length / size
        support = max(scale, 1.0) if antialias else 1.0
        out = np.zeros((size, length))
        for i in range(size):
            centre = (i + 0.5) * scale - 0.5
            for j in range(math.floor(centre - support), math.ceil(centre + support) + 1):
                weight = max(0.0, 1 - abs(j - centre) / support)
                if antialias and scale > 1:  # the triangle is cut off at the border and renormalised
                    if 0 <= j < length:
                        out[i, j] += weight
                else:  # the border pixel is repeated
                    out[i, min(max(j, 0), length - 1)] += weight
            out[i] /= out[i].sum()
        return out

    return np.einsum("ij,ncjk,lk->ncil", matrix(x.shape[2]), x, matrix(x.shape[3]))


# --- StyleGAN2 ----------------------------------------------------------------------------------------------------


def modulated_conv(x: Array, weight: Array, style: Array, up: bool = False, demodulate: bool = True) -> Array:
    """Per sample: scale the weights, renormalise them, correlate."""
    n, inputs, height, width = x.shape
    results = []
    for s in range(n):
        w = weight * style[s][None, :, None, None]
        if demodulate:
            w = w / np.sqrt((w**2).sum((1, 2, 3), keepdims=True) + 1e-8)
        if up:  # every input pixel stamps the kernel onto a grid twice as fine
            fine = np.zeros((1, inputs, 2 * height - 1, 2 * width - 1))
            fine[0, :, ::2, ::2] = x[s]
            y = correlate(fine, w[:, :, ::-1, ::-1], "full")
            results.append(upfirdn2d(y, FIR, 1, 1, (1, 1, 1, 1), 4.0)[0])
        else:
            results.append(correlate(x[s : s + 1], w)[0])
    return np.stack(results)


def affine(layer: Any, w: Array) -> Array:
    """The fully connected layer that turns a code into a style."""
    return w @ (f64(layer.weight) / math.sqrt(layer.weight.shape[1])).T + f64(layer.bias)


def _lrelu(x: Array, clamp: float | None) -> Array:
    y = np.where(x > 0, x, 0.2 * x) * math.sqrt(2)
    return y if clamp is None else np.clip(y, -clamp, clamp)


def synthesis_block(
    block: Any, x: Array, image: Array, w: Array, up: bool, clamp: float | None, noise: bool
) -> Any:
    """Two layers and a ToRGB, all with one code."""
    for name in ("conv0", "conv1"):
        layer = getattr(block, name)
        x = modulated_conv(x, f64(layer.weight), affine(layer.affine, w), up=up and name == "conv0")
        if noise:
            x = x + f64(layer.noise_const) * float(layer.noise_strength)
        x = _lrelu(x + f64(layer.bias)[:, None, None], clamp)
    layer = block.torgb
    style = affine(layer.affine, w) / math.sqrt(layer.weight.shape[1])
    rgb = modulated_conv(x, f64(layer.weight), style, demodulate=False) + f64(layer.bias)[:, None, None]
    rgb = rgb if clamp is None else np.clip(rgb, -clamp, clamp)
    return x, rgb + (upfirdn2d(image, FIR, 2, 1, (2, 1, 2, 1), 4.0) if up else image)


def super_resolution(
    module: Any, features: Array, rgb: Array, ws: Array, *, size: int, first_up: bool, clamp: float | None,
    noise: bool = False, antialias: bool = True,
) -> Array:  # fmt: skip
    """Resize to the input size, two blocks on the last code."""
    features, rgb = bilinear(features, size, antialias), bilinear(rgb, size, antialias)
    x, rgb = synthesis_block(module.block0, features, rgb, ws[:, -1], first_up, clamp, noise)
    result: Array = synthesis_block(module.block1, x, rgb, ws[:, -1], True, clamp, noise)[1]
    return result


# --- rays and volume rendering ------------------------------------------------------------------------------------


def pixel_ray(camera: Array, row: int, column: int, resolution: int) -> tuple[Array, Array]:
    """Origin and direction of one pixel: the intrinsic matrix is inverted rather than solved by hand."""
    pose, matrix = camera[:16].reshape(4, 4), camera[16:].reshape(3, 3)
    at = np.array([(column + 0.5) / resolution, (row + 0.5) / resolution, 1.0])
    direction = pose[:3, :3] @ np.linalg.solve(matrix, at)
    return pose[:3, 3], direction / np.linalg.norm(direction)


def box_hit(origin: Array, direction: Array, side: float) -> tuple[float, float] | None:
    """Where a ray enters and leaves the cube, face by face."""
    near, far = -math.inf, math.inf
    for axis in range(3):
        if direction[axis] == 0:
            if abs(origin[axis]) > side / 2:
                return None
            continue
        a, b = ((sign * side / 2 - origin[axis]) / direction[axis] for sign in (-1, 1))
        near, far = max(near, min(a, b)), min(far, max(a, b))
    return (near, far) if far > near else None


def read_plane(plane: Array, u: float, v: float) -> Array:
    """Bilinear reading of [C, H, W] at (u, v) in [-1, 1]; zero outside."""
    _, height, width = plane.shape
    x, y = (u + 1) * width / 2 - 0.5, (v + 1) * height / 2 - 0.5
    total = np.zeros(plane.shape[0])
    for i in (math.floor(y), math.floor(y) + 1):
        for j in (math.floor(x), math.floor(x) + 1):
            if 0 <= i < height and 0 <= j < width:
                total += plane[:, i, j] * (1 - abs(y - i)) * (1 - abs(x - j))
    return total


def point_feature(
    planes: Array, point: Array, axes: str, side: float, slices: tuple[float, float] = (0.1, 0.0)
) -> Array:
    """Mean of the readings of planes [3, C, H, W], or of [4, C, H, W] with `slices` (half distance, centre)."""
    x, y, z = point * 2 / side
    third = {"eg3d": (z, x), "xyz": (y, z)}[axes]
    pairs = ((x, y), (x, z), third)
    readings = [read_plane(planes[k], *pairs[k]) for k in range(3)]
    if len(planes) == 4:
        half_distance, centre = slices
        if point[2] <= centre - half_distance:
            readings[0] = read_plane(planes[3], x, y)
        elif point[2] < centre + half_distance:
            behind = (centre + half_distance - point[2]) / (2 * half_distance)
            readings[0] = (1 - behind) * readings[0] + behind * read_plane(planes[3], x, y)
    return sum(readings) / 3  # type: ignore[return-value]


def softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def decode(feature: Array, weights: Any) -> tuple[float, Array]:
    """sigma and colour features of one point."""
    w0, b0, w1, b1 = (f64(w) for w in weights)
    hidden = np.array([softplus(h) for h in w0 @ feature + b0])
    out = w1 @ hidden + b1
    return float(out[0]), 1.002 / (1 + np.exp(-out[1:])) - 0.001


def march(
    colours: Array, sigmas: Array, depths: Array, white: bool = False
) -> tuple[Array, float, float, list[float]]:
    """One ray: features, depth (inf for an empty ray), opacity and the weights of its intervals."""
    transmittance, total, distance = 1.0, np.zeros(colours.shape[1]), 0.0
    weights = []
    for i in range(len(depths) - 1):
        density = softplus((sigmas[i] + sigmas[i + 1]) / 2 - 1)
        alpha = 1 - math.exp(-density * (depths[i + 1] - depths[i]))
        weight = alpha * transmittance
        total = total + weight * (colours[i] + colours[i + 1]) / 2
        distance += weight * (depths[i] + depths[i + 1]) / 2
        transmittance *= 1 - alpha + 1e-10
        weights.append(weight)
    opacity = sum(weights)
    if white:
        total = total + 1 - opacity
    return 2 * total - 1, distance / opacity if opacity > 0 else math.inf, opacity, weights


def importance(depths: Array, weights: list[float], us: Array) -> list[float]:
    """Inverse-transform samples of one ray, with EG3D's shifted bins."""
    s = len(depths)
    a = [weights[0], *(max(weights[i - 1], weights[i]) for i in range(1, s - 1)), weights[-1]]
    b = [(a[i] + a[i + 1]) / 2 + 0.01 for i in range(s - 1)]
    edges = [(depths[i] + depths[i + 1]) / 2 for i in range(s - 1)]
    pdf = [v + 1e-5 for v in b[1:-1]]
    cdf = [0.0]
    for value in pdf:
        cdf.append(cdf[-1] + value / sum(pdf))
    out = []
    for u in us:
        k = sum(1 for edge in cdf if edge <= u)
        low, high = max(k - 1, 0), min(k, s - 3)
        width = cdf[high] - cdf[low]
        width = width if width >= 1e-5 else 1.0
        out.append(edges[low] + (u - cdf[low]) / width * (edges[high] - edges[low]))
    return out


def render_ray(
    planes: Array, weights: Any, origin: Array, direction: Array, near: float, far: float, options: Any
) -> tuple[Array, float, float]:
    """Both passes of one ray, deterministic sampling; depth not clamped."""
    s, fine = options.depth_resolution, options.depth_resolution_importance
    depths = []
    for i in range(s):
        t = (i + 0.5) / (s - 1)
        depths.append(1 / ((1 - t) / near + t / far) if options.disparity else near + (far - near) * t)

    def look(ts: list[float]) -> tuple[list[float], list[Array]]:
        where = (options.axes, options.box_warp, options.slices)
        seen = [decode(point_feature(planes, origin + t * direction, *where), weights) for t in ts]
        return [v[0] for v in seen], [v[1] for v in seen]

    sigmas, colours = look(depths)
    features, depth, opacity, w = march(
        np.array(colours), np.array(sigmas), np.array(depths), options.white_back
    )
    if fine:
        extra = importance(np.array(depths), w, (np.arange(fine) + 0.5) / fine)
        more_sigmas, more_colours = look(extra)
        order = np.argsort([*depths, *extra], kind="stable")
        everything = np.array([*depths, *extra])[order]
        features, depth, opacity, _ = march(
            np.array([*colours, *more_colours])[order],
            np.array([*sigmas, *more_sigmas])[order],
            everything,
            options.white_back,
        )
    return features, depth, opacity


# --- random numbers -----------------------------------------------------------------------------------------------


def mix(x: int) -> int:
    """lowbias32 on a Python integer."""
    x ^= x >> 16
    x = x * 0x7FEB352D % 2**32
    x ^= x >> 15
    x = x * 0x846CA68B % 2**32
    return x ^ (x >> 16)


def uniform(seed: int, row: int, column: int, stream: int) -> float:
    """One number of `seeding.uniform`."""
    golden = 0x9E3779B9
    key = mix(mix((seed + golden) % 2**32) ^ (seed >> 32) % 2**32)
    row_key = mix(key ^ mix((row + golden * (stream + 1)) % 2**32))
    return (mix((row_key + golden * column) % 2**32) >> 8) / 2**24
