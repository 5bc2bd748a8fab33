"""Exercises of the training notebooks (05, 07, 08, 09): the GAN game, augmentation, distillation, two judges."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from head3d_core.course.exercises import Exercise, Mistake
from head3d_core.model import cameras, stylegan2
from head3d_core.training import losses


def _random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# 05: a face generator


def _demodulation(weight: Tensor, style: Tensor) -> Tensor:
    """d [O] of one sample: weight [O, I, k, k], style [I]."""
    return stylegan2.demodulation(weight, style[None], torch.float32)[2][0]


def _energy(weight: Tensor, style: Tensor) -> Tensor:
    return (weight * style[:, None, None]).square().sum([1, 2, 3])


demodulation = Exercise(
    truth=_demodulation,
    cases=[
        (_random(0, 4, 3, 3, 3), _random(1, 3)),
        (_random(2, 2, 5, 1, 1), 3 * _random(3, 5)),
        (torch.ones(1, 2, 3, 3), torch.tensor([1.0, 0.0])),
    ],
    mistakes=[
        Mistake(
            lambda w, s: (w.square().sum([1, 2, 3]) + 1e-8).rsqrt(),
            "the style is missing: scale the weight by s first, or the output grows with the style",
        ),
        Mistake(
            lambda w, s: 1 / (_energy(w, s) + 1e-8),
            "a standard deviation is a root: d is one over the square root of the sum of squares",
        ),
        Mistake(
            lambda w, s: (_energy(w, s) + 1e-8).sqrt(),
            "that is the size of the output: d divides by it",
        ),
        Mistake(
            lambda w, s: (_energy(w, s) / w[0].numel() + 1e-8).rsqrt(),
            "sum over input channels and taps, not their mean: unit variance comes in at every one of them",
        ),
        Mistake(
            lambda w, s: ((w.square() * s[:, None, None]).sum([1, 2, 3]).abs() + 1e-8).rsqrt(),
            "the style belongs inside the square: (s w)^2, not s w^2",
        ),
    ],
)

_LOGITS = torch.tensor([[-4.0], [-0.5], [0.0], [3.0]])

generator_loss = Exercise(
    truth=losses.generator_loss,
    cases=[(_LOGITS,), (_LOGITS - 3,), (torch.zeros(2, 1),)],
    mistakes=[
        Mistake(
            lambda d: -F.softplus(d).mean(),
            "this is the saturating form: its slope vanishes exactly where D is sure that the picture is false",
        ),
        Mistake(
            lambda d: F.softplus(d).mean(),
            "the sign of the logit is wrong: this trains G to look false, as D's own loss does",
        ),
        Mistake(lambda d: -d.mean(), "that is the Wasserstein loss: here G minimises softplus(-D)"),
        Mistake(
            lambda d: F.softplus(-d).sum(), "take the mean: a sum makes the step depend on the batch size"
        ),
    ],
)


def _r1(gradient_image: Tensor, gradient_raw: Tensor, gamma: float) -> Tensor:
    """γ/2 times the batch mean of the squared norm, both inputs together."""
    both = gradient_image.square().sum([1, 2, 3]) + gradient_raw.square().sum([1, 2, 3])
    return gamma / 2 * both.mean()


r1_term = Exercise(
    truth=_r1,
    cases=[
        (_random(4, 2, 3, 4, 4), _random(5, 2, 3, 2, 2), 1.0),
        (_random(6, 4, 3, 2, 2), _random(7, 4, 3, 2, 2), 20.0),
    ],
    mistakes=[
        Mistake(lambda a, b, g: 2 * _r1(a, b, g), "half of gamma is missing: the code adds γ/2 ‖∇D‖²"),
        Mistake(
            lambda a, b, g: _r1(a, torch.zeros_like(b), g),
            "D is given two pictures: the gradient with respect to the raw image counts as well",
        ),
        Mistake(
            lambda a, b, g: g / 2 * (a.square().mean() + b.square().mean()),
            "sum over the pixels of a sample, then take the mean over samples: γ is tuned for sums",
        ),
        Mistake(
            lambda a, b, g: g / 2 * (a.square().sum([1, 2, 3]) + b.square().sum([1, 2, 3])).sqrt().mean(),
            "the norm is squared: without the square the penalty has a kink at zero",
        ),
    ],
)


# 07: fine-tuning


def _next_p(p: float, signs: Tensor, target: float, batch: int, interval: int, images: int) -> Tensor:
    step = torch.sign(signs.mean() - target) * batch * interval / images
    return (p + step).clamp(0, 1)


next_p = Exercise(
    truth=_next_p,
    cases=[
        (0.30, torch.tensor([1.0, 1.0, 1.0, -1.0, 1.0, 1.0, 1.0, 1.0]), 0.6, 16, 4, 6400),
        (0.30, torch.tensor([1.0, -1.0, 1.0, -1.0]), 0.6, 16, 4, 6400),
        (0.30, torch.tensor([1.0] * 7 + [-1.0] * 3), 0.6, 16, 4, 6400),
        (0.002, torch.tensor([-1.0, -1.0]), 0.6, 16, 4, 6400),
        (0.995, torch.tensor([1.0, 1.0]), 0.6, 16, 4, 6400),
    ],
    mistakes=[
        Mistake(
            lambda p, s, t, b, k, n: torch.tensor(p + b * k / n * float(torch.sign(s.mean() - t))),
            "p is a probability: keep it between 0 and 1",
        ),
        Mistake(
            lambda p, s, t, b, k, n: _next_p(p, -s, -t, b, k, n),
            "the direction is wrong: D that is sure of its real pictures over-fits, and needs more augmentation",
        ),
        Mistake(
            lambda p, s, t, b, k, n: _next_p(p, s, t, b, 1, n),
            "an adjustment stands for `interval` steps: batch * interval images have gone by",
        ),
        Mistake(
            lambda p, s, t, b, k, n: _next_p(p, (s + 1) / 2, t, b, k, n),
            "the target is for the mean sign, from -1 to 1, not for the share of pictures that D gets right",
        ),
        Mistake(
            lambda p, s, t, b, k, n: (p + (s.mean() - t) * b * k / n).clamp(0, 1),
            "the step has a fixed size: only the sign of (mean - target) counts",
        ),
    ],
)


def _swap(head: Tensor, face: Tensor, plane: int) -> Tensor:
    mixed = head.clone()
    mixed[:, plane] = face[:, plane]
    return mixed


swap_plane = Exercise(
    truth=_swap,
    cases=[(_random(8, 2, 3, 2, 4, 4), _random(9, 2, 3, 2, 4, 4), k) for k in (0, 1, 2)],
    mistakes=[
        Mistake(
            lambda h, f, k: _swap(f, h, k),
            "the other way round: everything but the one plane comes from the head generator",
        ),
        Mistake(
            lambda h, f, k: torch.cat([f[:1], h[1:]]),
            "the first index is the sample, the second is the plane: planes are [N, 3, C, H, W]",
        ),
        Mistake(
            lambda h, f, k: _swap(h, f, 0), "you always exchange plane 0: use the index that is asked for"
        ),
        Mistake(lambda h, f, k: h, "nothing was exchanged"),
    ],
    keeps_inputs=True,
)


# 08: distillation


def _kd(planes_t: Tensor, planes_s: Tensor) -> Tensor:
    return losses.kd_loss(planes_t, planes_s)


kd_loss = Exercise(
    truth=_kd,
    cases=[
        (_random(10, 2, 3, 4, 8, 8), _random(11, 2, 3, 4, 8, 8)),
        (_random(12, 1, 3, 2, 4, 4), 5 * _random(13, 1, 3, 2, 4, 4)),
    ],
    mistakes=[
        Mistake(
            lambda t, s: (t - s).square().mean(),
            "only F_xy is distilled, plane 0: the teacher has no use for the other two, it never saw a back",
        ),
        Mistake(
            lambda t, s: (t[:, 0] - s[:, 0]).abs().mean(),
            "that is the L1 norm: Eq. 5 takes squares (Eq. 7 and 8 the absolute value)",
        ),
        Mistake(
            lambda t, s: (t[:, 0] - s[:, 0]).square().sum(),
            "take the mean over all entries, or the weight λ_kd depends on the size of a plane",
        ),
        Mistake(
            lambda t, s: (t[0] - s[0]).square().mean(),
            "the first index is the sample, the second is the plane: planes are [N, 3, C, H, W]",
        ),
    ],
)

_CAMERAS = cameras.orbit(
    torch.tensor([0.0, 0.7, -0.7, 1.2, math.pi]), torch.tensor([0.1, 0.0, 0.5, 0.0, 0.0])
)


def _gated(image_t: Tensor, image_s: Tensor, camera: Tensor, tau: float) -> Tensor:
    difference = (image_t - image_s).abs().mean([1, 2, 3])
    return (difference * losses.front_gate(camera, tau)).mean()


def _one_sided(image_t: Tensor, image_s: Tensor, camera: Tensor, tau: float) -> Tensor:
    yaw, _ = cameras.yaw_pitch(camera)
    return ((image_t - image_s).abs().mean([1, 2, 3]) * (yaw <= tau)).mean()


def _only_inside(image_t: Tensor, image_s: Tensor, camera: Tensor, tau: float) -> Tensor:
    gate = losses.front_gate(camera, tau)
    return ((image_t - image_s).abs().mean([1, 2, 3]) * gate).sum() / gate.sum()


gated_difference = Exercise(
    truth=_gated,
    cases=[
        (_random(14, 5, 3, 4, 4), _random(15, 5, 3, 4, 4), _CAMERAS, math.pi / 4),
        (_random(16, 5, 3, 8, 8), _random(17, 5, 3, 8, 8), _CAMERAS, 0.5),
    ],
    mistakes=[
        Mistake(
            lambda t, s, c, tau: (t - s).abs().mean(),
            "the gate is missing: behind the ear the teacher's picture is nothing to learn from",
        ),
        Mistake(
            _one_sided,
            "the gate takes |yaw|: a camera at -90 degrees is as far from the front as one at +90",
        ),
        Mistake(
            _only_inside,
            "samples outside the gate count as zero in the mean (Eq. 8's indicator): divide by the whole batch",
        ),
        Mistake(
            lambda t, s, c, tau: _gated(t, s, c, math.radians(tau)),
            "tau is in radians already, like the yaw",
        ),
        Mistake(
            lambda t, s, c, tau: ((t - s).square().mean([1, 2, 3]) * losses.front_gate(c, tau)).mean(),
            "Eq. 8 takes absolute differences, not squares",
        ),
    ],
)


# 09: two discriminators


def _back_share(faces: int, backs: int, share: float, weight: float, together: bool) -> float:
    """Back views' share in what moves the generator."""
    if together:
        return backs / (faces + backs)
    return share * weight / (share * weight + (1 - share))


back_influence = Exercise(
    truth=_back_share,
    cases=[
        (20000, 2400, 0.5, 10.0, True),
        (20000, 2400, 0.5, 10.0, False),
        (1000, 1000, 0.25, 1.0, False),
        (300, 100, 0.5, 1.0, True),
    ],
    mistakes=[
        Mistake(
            lambda f, b, s, w, one: b / (f + b),
            "with two discriminators each step draws from its own set: how many pictures that has no longer counts",
        ),
        Mistake(
            lambda f, b, s, w, one: b / (f + b) if one else s,
            "the weight is missing: D_back's loss counts λ times as much as D_front's",
        ),
        Mistake(
            lambda f, b, s, w, one: b / (f + b) if one else w / (w + 1),
            "the alternation is missing: only `share` of the steps listen to D_back",
        ),
        Mistake(
            lambda f, b, s, w, one: b / f if one else _back_share(f, b, s, w, one),
            "divide by all pictures, not by the faces alone",
        ),
    ],
    tolerance=1e-6,
)


def _domain_at(step: int, share: float) -> int:
    return math.floor((step + 1) * share) - math.floor(step * share)


def _schedule(share: float, steps: int) -> Tensor:
    return torch.tensor([_domain_at(step, share) for step in range(steps)])


schedule = Exercise(
    truth=_schedule,
    cases=[(0.5, 8), (0.25, 12), (0.75, 8), (0.1, 30)],
    mistakes=[
        Mistake(
            lambda share, steps: torch.arange(steps) % 2,
            "strict alternation is only right for a share of one half",
        ),
        Mistake(
            lambda share, steps: (torch.arange(steps) >= steps * (1 - share)).long(),
            "the steps are not spread: G would forget the front while it trains on backs alone",
        ),
        Mistake(
            lambda share, steps: 1 - _schedule(share, steps),
            "0 is D_front and 1 is D_back: you have them the other way round",
        ),
        Mistake(
            lambda share, steps: torch.tensor([_domain_at(step - 1, share) for step in range(steps)]),
            "one step late: step 0 takes floor(1 share) - floor(0 share)",
        ),
    ],
)


def _d_loss(real: Tensor, fake: Tensor, gradient_norm: Tensor, gamma: float) -> Tensor:
    """Eq. 6 for one discriminator, D high for real, as a loss to minimise."""
    return losses.discriminator_loss(real, fake) + gamma / 2 * gradient_norm.square().mean()


discriminator_loss = Exercise(
    truth=_d_loss,
    cases=[
        (_random(18, 4, 1) + 1, _random(19, 4, 1) - 1, _random(20, 4).abs(), 20.0),
        (torch.zeros(2, 1), torch.zeros(2, 1), torch.ones(2), 1.0),
    ],
    mistakes=[
        Mistake(
            lambda r, f, g, gamma: _d_loss(f, r, g, gamma),
            "real and fake are exchanged: here D is high for real pictures (Eq. 6 as printed has it high for fakes)",
        ),
        Mistake(
            lambda r, f, g, gamma: -F.softplus(-f).mean() - F.softplus(r).mean() + gamma * g.square().mean(),
            "this is Eq. 6 letter by letter, which D would have to maximise: flip the signs and make it a loss",
        ),
        Mistake(
            lambda r, f, g, gamma: losses.discriminator_loss(r, f) - gamma / 2 * g.square().mean(),
            "the penalty has the wrong sign: D would be rewarded for steep slopes",
        ),
        Mistake(
            lambda r, f, g, gamma: losses.discriminator_loss(r, f) + gamma * g.square().mean(),
            "half of gamma is missing: the code adds γ/2 ‖∇D‖²",
        ),
    ],
)
