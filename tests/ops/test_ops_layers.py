"""`filters.layer_epilogue` and `scale_channels`: the formula on the CPU, the CUDA kernels against it in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from helpers import refused, refuses
from ops_scene import draw
from torch import Tensor

from head3d_core.model import filters

# Largest difference to the float64 reference over its largest value: one rounding of the result's type, and of the sums
# (a few hundred terms in float32).
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
LAYOUTS = {"rows": torch.contiguous_format, "channels last": torch.channels_last}
SHAPES = [
    (2, 8, 16, 16),
    (3, 5, 7, 9),  # no whole packs
    (1, 1, 1, 1),
    (2, 512, 4, 4),
    (1, 520, 3, 5),  # two tiles of channels, the last not full
    (2, 24, 65, 33),  # several chunks of pixels
    (0, 8, 4, 4),
]
PARTS = [
    "scale noise bias",
    "scale",
    "noise",
    "bias",
    "scale bias",
    "one noise",
    "scale noise bias after",
    "after",
]


def inputs(shape: tuple[int, ...], parts: str) -> dict[str, Tensor]:
    """x, upstream gradient and the named parts in float64."""
    n, c, h, w = shape
    found = {"x": draw(*shape), "grad": draw(*shape, seed=1)}
    if "scale" in parts:
        found["scale"] = draw(n, c, seed=2) + 1.5
    if "noise" in parts:
        found["noise"] = draw(1 if "one" in parts else n, 1, h, w, seed=3)
        found["strength"] = draw(1, seed=4)[0]
    if "bias" in parts:
        found["bias"] = draw(c, seed=5)
    if "after" in parts:
        found["after"] = draw(n, c, seed=6) - 0.5
    return found


def run(
    given: dict[str, Tensor], activation: filters.Activation, gain: float, clamp: float | None, backend: str
) -> dict[str, Tensor]:
    """The result and the gradient of everything but the noise."""
    leaves = {k: v.detach().clone() for k, v in given.items() if k != "grad"}
    for name, leaf in leaves.items():
        leaf.requires_grad_(name != "noise")
    settings = {"activation": activation, "gain": gain, "clamp": clamp, "backend": backend}
    out = filters.layer_epilogue(**leaves, **settings)
    out.backward(given["grad"])
    return {"out": out.detach()} | {k: v.grad for k, v in leaves.items() if v.grad is not None}


def distance(got: Tensor, want: Tensor, terms: int = 1) -> float:
    """Largest difference over the largest value, or over sqrt(terms) where a sum of that many terms cancels to less."""
    assert got.shape == want.shape
    if want.numel() == 0:
        return 0.0
    scale = max(want.abs().max().item(), math.sqrt(terms) if want.numel() == 1 else 0, 1e-3)
    return (got.double().cpu() - want).abs().max().item() / scale


# ---------------------------------------------------------------------------------------- the formula


def test_it_is_the_scalar_formula() -> None:
    given = inputs((2, 3, 4, 5), "scale noise bias after")
    parts = {k: v for k, v in given.items() if k != "grad"}
    out = filters.layer_epilogue(**parts, activation="lrelu", gain=0.8, clamp=0.9)
    for n, c, y, x in [(0, 0, 0, 0), (1, 2, 3, 4), (0, 1, 2, 3), (1, 0, 1, 4)]:
        v = float(given["x"][n, c, y, x] * given["scale"][n, c])
        v += float(given["noise"][n, 0, y, x] * given["strength"] + given["bias"][c])
        v *= (1 if v > 0 else 0.2) * math.sqrt(2) * 0.8
        v = max(-0.72, min(0.72, v)) * float(given["after"][n, c])
        assert float(out[n, c, y, x]) == pytest.approx(v, abs=1e-12)


@pytest.mark.parametrize("parts", PARTS)
def test_gradcheck_of_the_reference(parts: str) -> None:
    given = inputs((2, 3, 3, 4), parts)
    names = [k for k in given if k not in ("grad", "noise")]

    def function(*leaves: Tensor) -> Tensor:
        rest = dict(zip(names, leaves, strict=True)) | {k: given[k] for k in given if k == "noise"}
        return filters.layer_epilogue(**rest, activation="lrelu", clamp=1.5, backend="reference")

    assert torch.autograd.gradcheck(function, [given[k].requires_grad_() for k in names])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"scale": torch.ones(3, 2)}, r"scale must be \[N, C\] = \[2, 3\], got \[3, 2\]"),
        ({"after": torch.ones(2, 4)}, r"after must be \[N, C\] = \[2, 3\], got \[2, 4\]"),
        ({"noise": torch.ones(2, 1, 4, 5)}, "noise and its strength come together"),
        ({"noise": torch.ones(2, 3, 4, 5), "strength": torch.ones(())}, r"noise must be \[N or 1, 1, H, W\]"),
        ({"bias": torch.ones(4)}, r"bias must be \[C\]"),
        ({"backend": "native"}, "no CPU kernel"),
    ],
)
def test_bad_input(change: dict[str, Tensor], sentence: str) -> None:
    with refused(sentence):
        filters.layer_epilogue(torch.ones(2, 3, 4, 5), **change)  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------- CUDA


def gpu(test: Callable[..., None]) -> Callable[..., None]:
    """Marks a test that needs a GPU and an extension with CUDA kernels."""
    for mark in (pytest.mark.gpu, pytest.mark.native, pytest.mark.usefixtures("kernels")):
        test = mark(test)
    return test


def on_gpu(given: dict[str, Tensor], dtype: torch.dtype, layout: str) -> dict[str, Tensor]:
    """Images in `dtype` and the layout; the parts in float32 (float64 beside float64)."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    found = {k: v.to("cuda", wide) for k, v in given.items()}
    for k in ("x", "grad"):
        found[k] = given[k].to("cuda", dtype).contiguous(memory_format=LAYOUTS[layout])
    return found


def rounded(given: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """What the kernel is given, in float64."""
    return {k: v.to(dtype).double() if k in ("x", "grad") else v for k, v in given.items()}


@gpu
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("parts", PARTS)
def test_values_and_gradients(dtype: torch.dtype, layout: str, parts: str) -> None:
    for shape in SHAPES:
        for activation, gain, clamp in (("lrelu", 0.8, 1.1), ("linear", 1.0, None)):
            given = inputs(shape, parts)
            if dtype != torch.float64:  # parts exact in float32, so that no kink is passed
                given = {k: v.float().double() for k, v in given.items()}
            given = rounded(given, dtype)
            want = run(given, activation, gain, clamp, "reference")  # type: ignore[arg-type]
            got = run(on_gpu(given, dtype, layout), activation, gain, clamp, "native")  # type: ignore[arg-type]
            assert got.keys() == want.keys()
            assert got["out"].dtype == got["x"].dtype == dtype
            for name in got:
                error = distance(got[name], want[name], math.prod(shape))
                assert error < TOLERANCE[dtype], (name, shape, activation)
            if shape == SHAPES[0]:
                assert got["out"].is_contiguous(memory_format=LAYOUTS[layout])


@gpu
def test_equal_inputs_give_equal_bits() -> None:
    given = on_gpu(inputs((4, 64, 65, 65), "scale noise bias after"), torch.bfloat16, "channels last")
    first, second = (run(given, "lrelu", 1.0, 2.0, "native") for _ in range(2))
    for name in first:
        assert torch.equal(first[name], second[name]), name


@gpu
def test_views_are_read_where_they_are() -> None:
    whole, scale = draw(4, 6, 12, 10).cuda(), draw(2, 5, seed=1).cuda()
    for x in (whole[::2, 1:, 3:, ::2], whole[:2, :1].expand(-1, 5, -1, -1), whole[:2, :5].transpose(2, 3)):
        got, want = (filters.scale_channels(x, scale, b) for b in ("native", "reference"))  # type: ignore[arg-type]
        torch.testing.assert_close(got, want)


@gpu
def test_gradcheck_and_opcheck() -> None:
    given = on_gpu(inputs((2, 3, 3, 4), "scale noise bias after"), torch.float64, "rows")
    names = ("x", "scale", "noise", "strength", "bias", "after")
    leaves = [given[k].requires_grad_(k != "noise") for k in names]

    def function(*t: Tensor) -> Tensor:
        return filters.layer_epilogue(*t[:5], "lrelu", 1.0, 1.5, backend="native", after=t[5])

    assert torch.autograd.gradcheck(function, leaves)
    torch.library.opcheck(torch.ops.head3d.layer_epilogue, (*leaves, 1, 1.3, 2.0))
    plain = [t.detach() for t in leaves]
    torch.library.opcheck(torch.ops.head3d.layer_epilogue, (plain[0], *[None] * 5, 0, 1.0, None))
    torch.library.opcheck(
        torch.ops.head3d.layer_epilogue_backward, (torch.ones_like(plain[0]), *plain, 1, 1.3, 2.0)
    )
    out = torch.ops.head3d.bias_act(plain[0], None, 1, 1.3, 2.0)
    grad = torch.ones_like(out, requires_grad=True)
    torch.library.opcheck(torch.ops.head3d.bias_act_gradients, (grad, out, 1, 1.3, 2.0))


@gpu
def test_what_has_no_derivative_says_so() -> None:
    given = on_gpu(inputs((1, 2, 3, 3), "scale noise bias"), torch.float64, "rows")
    x = given["x"].requires_grad_()
    scaled = filters.scale_channels(x, given["scale"])
    (grad,) = torch.autograd.grad(scaled.square().sum(), x, create_graph=True)
    refuses("once only", grad.sum().backward)
    out = filters.layer_epilogue(x, None, given["noise"].requires_grad_(), given["strength"])
    refuses("with respect to its noise", out.sum().backward)


@gpu
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_bias_act_gradients(dtype: torch.dtype, layout: str) -> None:
    """Told from the output as `bias_act_backward` tells it: what is rounded onto the limit counts as clamped."""
    for shape in SHAPES:
        given = on_gpu(inputs(shape, "bias"), dtype, layout)
        x, bias = given["x"].requires_grad_(), given["bias"].to(dtype).requires_grad_()
        out = filters.bias_act(x, bias, "lrelu", 0.8, 1.5, backend="native")
        grad_x, grad_bias = torch.autograd.grad(out, [x, bias], given["grad"])
        seen = out.detach().double().cpu()
        limit = torch.tensor(1.5 * 0.8, dtype=dtype).double()
        slope = torch.where(seen > 0, torch.ones_like(seen), 0.2)
        factor = slope * math.sqrt(2) * 0.8 * (seen.abs() < limit)
        want = given["grad"].double().cpu() * factor
        assert distance(grad_x, want) < TOLERANCE[dtype], shape
        assert distance(grad_bias, want.sum([0, 2, 3])) < TOLERANCE[dtype], shape
