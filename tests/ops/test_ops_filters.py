"""The compiled FIR filter and bias + activation against their reference, through two derivatives."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ops_scene import close, draw, relative
from torch import Tensor

from head3d_core import ops
from head3d_core.model import filters

pytestmark = pytest.mark.native

# Largest difference to the float64 reference over its largest value: two roundings of each type, and CUDA's order.
TOLERANCE = {
    "cpu": {torch.float64: 1e-13, torch.float32: 5e-7, torch.float16: 1.2e-3, torch.bfloat16: 1e-2},
    "cuda": {torch.float64: 1e-12, torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.2e-2},
}
# up, down, padding, kernel size: plain, the GAN's up- and down-sampling, and odd ones
CASES = [
    (1, 1, (0, 0, 0, 0), (4, 4)),
    (1, 1, (2, 2, 1, 2), (4, 4)),
    (2, 1, (2, 1, 2, 1), (4, 4)),
    (1, 2, (1, 1, 1, 1), (4, 4)),
    (3, 2, (2, 3, 1, 0), (3, 5)),
    (2, 3, (0, 4, 5, 1), (1, 2)),
    (1, 1, (0, 0, 0, 0), (1, 1)),
    (2, 1, (1, 2, 3, 0), (4, 4)),
    (1, 2, (2, 0, 3, 1), (4, 4)),
    (2, 2, (3, 1, 1, 2), (4, 4)),
]
Case = tuple[int, int, tuple[int, int, int, int], tuple[int, int]]


every_type = pytest.mark.parametrize("dtype", TOLERANCE["cpu"], ids=str)
every_layout = pytest.mark.parametrize(
    "layout", [torch.contiguous_format, torch.channels_last], ids=["rows", "channels last"]
)
every_case = pytest.mark.parametrize("case", CASES, ids=str)


@every_type
@every_layout
@every_case
def test_upfirdn2d(case: Case, layout: torch.memory_format, dtype: torch.dtype, place: str) -> None:
    """Values and first derivative, for sizes on both sides of a strip; any kernel, and a column times a row."""
    *resampling, size = case
    exact_product = torch.outer(torch.arange(1.0, size[0] + 1), torch.arange(1.0, size[1] + 1)) / 16
    kernels = draw(*size, seed=1).float(), exact_product
    shapes = (2, 19, 11, 37), (1, 1, 5, 4), (2, 8, 40, 19), (1, 64, 70, 41), (1, 16, 9, 70), (1, 8, 9, 300)
    for shape, kernel in itertools.product(shapes, kernels):
        x = draw(*shape).to(dtype)
        mine, exact = x.to(place, memory_format=layout).requires_grad_(), x.double().requires_grad_()
        got = filters.upfirdn2d(mine, kernel.to(place), *resampling, 1.5, backend="native")
        want = filters.upfirdn2d(exact, kernel.double(), *resampling, 1.5, backend="reference")
        assert got.dtype == dtype
        assert got.is_contiguous(memory_format=layout)
        grad = draw(*want.shape, seed=2).to(dtype)
        found = (got, *torch.autograd.grad(got, mine, grad.to(place)))
        close(found, (want, *torch.autograd.grad(want, exact, grad.double())), TOLERANCE[place][dtype])


@pytest.mark.gpu
@pytest.mark.native
@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("images", [4, 8])  # blocks of 16 and of 32 rows of outputs on 132 multiprocessors
def test_images_that_fill_a_gpu(images: int) -> None:
    """Channels-last against contiguous float64, which other kernels filter."""
    x = torch.randn(images, 64, 256, 512, device="cuda").half().to(memory_format=torch.channels_last)
    for up, down, padding in ((1, 1, (2, 2, 2, 2)), (2, 1, (2, 1, 2, 1)), (1, 2, (1, 1, 1, 1))):
        part = x if up == 1 else x[..., ::2].contiguous(memory_format=torch.channels_last)
        got, want = (
            filters.upfirdn2d(y, filters.fir(x.device), up, down, padding, backend="native")
            for y in (part, part.double().contiguous())
        )
        close((got,), (want.cpu(),), TOLERANCE["cuda"][torch.float16])


@every_layout
def test_an_empty_image_with_padding_is_zeros(layout: torch.memory_format, place: str) -> None:
    x = torch.empty(1, 8, 0, 8, device=place).to(memory_format=layout)
    got = filters.upfirdn2d(x, filters.fir(x.device), padding=(2, 1, 4, 4), backend="native")
    assert got.shape == (1, 8, 5, 8)
    assert not got.any()


@every_type
@every_layout
@pytest.mark.parametrize("activation", ["linear", "lrelu"])
@pytest.mark.parametrize("clamp", [None, 0.7])
@pytest.mark.parametrize("with_bias", [True, False])
def test_bias_act(
    activation: filters.Activation,
    clamp: float | None,
    with_bias: bool,
    layout: torch.memory_format,
    dtype: torch.dtype,
    place: str,
) -> None:
    x = draw(2, 21, 7, 9).to(place, dtype, memory_format=layout)
    bias = draw(21, seed=1).to(place, dtype) if with_bias else None
    got = filters.bias_act(x, bias, activation, 0.8, clamp, backend="native")
    want = filters.bias_act(
        x.double(), None if bias is None else bias.double(), activation, 0.8, clamp, backend="reference"
    )
    assert got.dtype == dtype
    assert got.is_contiguous(memory_format=layout)
    assert relative(got, want) < TOLERANCE[place][dtype]


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 3), (1, 1, 1, 1), (3, 2, 5), (2, 4, 2, 3, 3)])
def test_bias_act_shapes(shape: tuple[int, ...]) -> None:
    x, bias = draw(*shape), draw(shape[1], seed=1)
    for b in (bias, None):
        got = filters.bias_act(x, b, "lrelu", backend="native")
        torch.testing.assert_close(got, filters.bias_act(x, b, "lrelu", backend="reference"))


def test_strides() -> None:
    """Slices and expanded tensors are read where they are."""
    whole = draw(4, 6, 12, 10)
    for x in (whole[::2, 1::2, 3:, ::2], whole[:, :1].expand(-1, 5, -1, -1), whole.transpose(2, 3)):
        for act in (
            lambda t, b: filters.bias_act(t, None, "lrelu", backend=b),
            lambda t, b: filters.downsample2d(t, b),
        ):
            torch.testing.assert_close(act(x, "native"), act(x, "reference"), rtol=1e-6, atol=1e-6)


def test_every_half_comes_back() -> None:
    """Widening and narrowing all 65,536 bit patterns; rounding and overflow as torch does them."""
    assert ops.available()
    bits = torch.arange(65536, dtype=torch.int32).to(torch.int16)
    for dtype in (torch.float16, torch.bfloat16):
        x = bits.view(dtype)
        same = torch.ops.head3d.bias_act(x, None, 0, 1.0, None)
        assert torch.equal(same.isnan(), x.isnan())
        assert torch.equal(same[~x.isnan()], x[~x.isnan()])
        third = torch.ops.head3d.bias_act(x, None, 0, 1 / 3, None)
        expected = (x.float() * torch.tensor(1 / 3)).to(dtype)
        assert torch.equal(third[~x.isnan()], expected[~x.isnan()])


@every_case
def test_upfirdn2d_gradcheck(case: Case, device: str) -> None:
    *resampling, size = case
    x, kernel = draw(1, 2, 6, 7).to(device).requires_grad_(), draw(*size, seed=1).to(device)

    def run(t: Tensor) -> Tensor:
        return filters.upfirdn2d(t, kernel, *resampling, 1.3, backend="native")

    assert torch.autograd.gradcheck(run, x)
    assert torch.autograd.gradgradcheck(run, x)


@pytest.mark.parametrize("activation", ["linear", "lrelu"])
@pytest.mark.parametrize("clamp", [None, 0.7])
@every_layout
def test_bias_act_gradcheck(
    activation: filters.Activation, clamp: float | None, layout: torch.memory_format, device: str
) -> None:
    x, bias = draw(2, 3, 4, 3).to(device, memory_format=layout), draw(3, seed=1).to(device)
    x, bias = x.requires_grad_(), bias.requires_grad_()

    def run(t: Tensor, b: Tensor) -> Tensor:
        return filters.bias_act(t, b, activation, 0.8, clamp, backend="native")

    assert torch.autograd.gradcheck(run, (x, bias))
    assert torch.autograd.gradgradcheck(run, (x, bias))


@pytest.mark.parametrize("backend", ["reference", "native"])
def test_r1_of_a_small_critic(backend: filters.Backend) -> None:
    """The gradient penalty differentiates through both operators twice; the weights' gradient agrees."""
    weight, bias = draw(4, 3, 3, 3, seed=2).requires_grad_(), draw(4, seed=3).requires_grad_()
    image = draw(2, 3, 16, 16).requires_grad_()

    def penalty(kind: filters.Backend) -> list[Tensor]:
        h = filters.bias_act(torch.conv2d(image, weight, padding=1), bias, "lrelu", clamp=2.0, backend=kind)
        h = filters.bias_act(filters.downsample2d(h, kind), None, "lrelu", backend=kind)
        (gradient,) = torch.autograd.grad(h.square().sum(), image, create_graph=True)
        return list(torch.autograd.grad(gradient.square().sum(), (weight, bias)))

    torch.testing.assert_close(penalty(backend), penalty("reference"), rtol=1e-9, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 40)),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    up=st.integers(1, 4),
    down=st.integers(1, 4),
    padding=st.tuples(*[st.integers(0, 6)] * 4),
)
def test_upfirdn2d_properties(
    size: tuple[int, int], kernel: tuple[int, int], up: int, down: int, padding: tuple[int, int, int, int]
) -> None:
    """Any sizes agree with the reference, or both refuse; and the transpose is one: <A x, y> = <x, A' y>."""
    x, taps = draw(1, 2, *size), draw(*kernel, seed=1)
    if (
        size[0] * up + padding[2] + padding[3] < kernel[0]
        or size[1] * up + padding[0] + padding[1] < kernel[1]
    ):
        with pytest.raises(RuntimeError, match="smaller than the kernel"):
            filters.upfirdn2d(x, taps, up, down, padding, backend="native")
        return
    leaf = x.requires_grad_()
    got = filters.upfirdn2d(leaf, taps, up, down, padding, backend="native")
    torch.testing.assert_close(got, filters.upfirdn2d(x, taps, up, down, padding, backend="reference"))
    y = draw(*got.shape, seed=2)
    (back,) = torch.autograd.grad(got, leaf, y)
    torch.testing.assert_close((got * y).sum(), (x * back).sum())


def test_opcheck(device: str) -> None:
    x, bias = (t.to(device).requires_grad_() for t in (draw(2, 3, 6, 5), draw(3)))
    kernel = filters.fir(x.device)
    assert ops.available()
    for image in (x, x.detach().to(memory_format=torch.channels_last).requires_grad_()):
        torch.library.opcheck(
            torch.ops.head3d.upfirdn2d.default, (image, kernel, 2, 1, [2, 1, 2, 1], 4.0, False)
        )
        torch.library.opcheck(torch.ops.head3d.bias_act.default, (image, bias, 1, 1.4, 0.9))
        torch.library.opcheck(
            torch.ops.head3d.bias_act_backward.default, (image, image.detach(), 1, 1.4, None)
        )


def test_compile() -> None:
    def layer(x: Tensor, bias: Tensor) -> Tensor:
        return filters.upsample2d(filters.bias_act(x, bias, "lrelu", backend="native"), "native")

    x, bias = draw(1, 3, 6, 5).requires_grad_(), draw(3).requires_grad_()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for a, b in zip(
        torch.autograd.grad(compiled(x, bias).square().sum(), (x, bias)),
        torch.autograd.grad(layer(x, bias).square().sum(), (x, bias)),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_wrong_inputs_are_told_in_one_sentence() -> None:
    assert ops.available()
    x = torch.zeros(1, 2, 4, 4)
    with pytest.raises(RuntimeError, match="bias_act needs a positive gain, got -1"):
        torch.ops.head3d.bias_act(x, None, 0, -1.0, None)
    with pytest.raises(
        RuntimeError, match=r"bias must be \[C\] for x \[N, C, ...\], got \[3\] and \[1, 2, 4, 4\]"
    ):
        torch.ops.head3d.bias_act(x, torch.zeros(3), 0, 1.0, None)
    with pytest.raises(RuntimeError, match="takes float32, float64, float16 or bfloat16, got Int"):
        torch.ops.head3d.upfirdn2d(x.int(), torch.ones(1, 1), 1, 1, [0] * 4, 1.0, False)
    leaf = torch.ones(4, 4, requires_grad=True)
    with pytest.raises(ValueError, match="no derivative with respect to its kernel"):
        filters.upfirdn2d(x, leaf, backend="native").sum().backward()


@pytest.mark.usefixtures("cpu_path")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_clamped_halves_pass_no_gradient(dtype: torch.dtype) -> None:
    # 256 sqrt(1/2) is no half: a clamped output is stored a little below or above the limit.
    x = torch.tensor([[1000.0, -5000.0, 3.0]], dtype=dtype, requires_grad=True)
    y = filters.bias_act(x, None, "lrelu", gain=0.5**0.5, clamp=256.0, backend="native")
    y.sum().backward()
    assert x.grad is not None
    assert x.grad[0, :2].tolist() == [0.0, 0.0]
    assert float(x.grad[0, 2]) == 1
