"""One function per term of the paper's loss (Eq. 5-10), and the two regularisers of the GAN it builds on.

All take tensors and return a scalar; weights λ are applied by the caller. Teacher t, student s.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from head3d_core.model.cameras import yaw_pitch


def generator_loss(fake_logits: Tensor) -> Tensor:
    """L_gan for the generator: mean softplus(−D(I)), the non-saturating form.

    Eq. 6 prints f(x) = −log(1 + exp(−x)) = −softplus(−x) and E[f(D(I)) + f(−D(I_gt))]. Read literally (G minimises, D
    maximises), D is high for fakes and G's term saturates. With the sign of D flipped its half is the logistic
    loss of `discriminator_loss`; for G we use the non-saturating form, as EG3D does.

    Args:
        fake_logits: [N, 1].

    >>> generator_loss(torch.zeros(4, 1))
    tensor(0.6931)
    """
    return F.softplus(-fake_logits).mean()


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """L_gan for a discriminator (Eq. 6, D high for real): mean softplus(D(I)) + mean softplus(−D(I_gt)).

    Both are [N, 1]. The two halves are means of their own batches.
    """
    return F.softplus(fake_logits).mean() + F.softplus(-real_logits).mean()


def r1_penalty(logits: Tensor, image: Tensor, raw: Tensor) -> Tensor:
    """‖∇D(I_gt)‖², Eq. 6's penalty: per sample the sum of squares of the gradient, then the mean.

    The gradient is taken with respect to what D is given: the image (blurred and augmented if it was) *and* the
    raw image before its resize (dual discrimination). Eq. 6 prints +γ‖∇D‖²; the code adds γ/2 times this value, EG3D's
    convention, and applies it every k-th step times k (lazy regularisation).

    Args:
        logits: [N, 1], computed from `image` and `raw`.
        image: [N, 3, H, W], requires grad.
        raw: [N, 3, R, R], requires grad.
    """
    gradients = torch.autograd.grad(logits.sum(), [image, raw], create_graph=True)
    return sum((g.float().square().sum([1, 2, 3]) for g in gradients), torch.zeros_like(logits[:, 0])).mean()


def density_loss(sigma: Tensor, sigma_nearby: Tensor) -> Tensor:
    """Total variation of raw sigma: mean |σ(p) − σ(p + ε)| (EG3D's density regularisation).

    Both are [N, M, 1]. Keeps the volume from growing invisible floaters.
    """
    return (sigma - sigma_nearby).abs().mean()


def kd_loss(
    planes_t: Tensor, planes_s: Tensor, planes: tuple[int, ...] = (0,), norm: Literal["mse", "l2"] = "mse"
) -> Tensor:
    """L_kd = ‖F_xy^t − F_xy^s‖₂ (Eq. 5): the student's front plane follows the frozen teacher's.

    The text below Eq. 5 swaps the two once; t is the face generator everywhere else. "mse" is the mean squared
    difference over all entries, independent of the plane's size; "l2" is the norm as printed, per sample, then the
    mean. Several planes are added up, so that each counts as much as F_xy alone does. Other planes receive no gradient.

    Args:
        planes_t, planes_s: [N, P, C, H, W]; P may differ between the two.
        planes: indices of the planes compared; (0,) is F_xy, or its front slice.
    """
    terms = []
    for k in planes:
        difference = planes_t[:, k].detach().float() - planes_s[:, k].float()
        if norm == "mse":
            terms.append(difference.square().mean())
        else:
            terms.append((difference.square().sum([1, 2, 3]) + 1e-12).sqrt().mean())
    return torch.stack(terms).sum()


def map_loss(ws_t: Tensor, ws_s: Tensor) -> Tensor:
    """L_map = ‖W^t − W^s‖₁ (Eq. 7), as the mean absolute difference. Both are [N, num_ws, w_dim]."""
    return (ws_t.detach().float() - ws_s.float()).abs().mean()


def front_gate(camera: Tensor, tau: float) -> Tensor:
    """𝕀(|Δp| ≤ τ) of Eq. 8 and 9: 1 where the camera's yaw is within `tau` radians of the front, else 0.

    Args:
        camera: [N, 25], the camera that renders.

    Returns:
        [N] float32.
    """
    yaw, _ = yaw_pitch(camera)
    return (yaw.abs() <= tau).to(torch.float32)


def rgb_loss(image_t: Tensor, image_s: Tensor, raw_t: Tensor, raw_s: Tensor, gate: Tensor) -> Tensor:
    """L_rgb = 𝕀(|Δp| ≤ τ) [‖I^t − I^s‖₁ + ‖I_raw^t − I_raw^s‖₁] (Eq. 8).

    Each norm is the mean absolute difference over an image; gated samples count as zero in the batch mean.

    Args:
        image_t, image_s: [N, 3, H, W].
        raw_t, raw_s: [N, 3, R, R].
        gate: [N] of `front_gate`.
    """
    fine = (image_t.detach().float() - image_s.float()).abs().mean([1, 2, 3])
    coarse = (raw_t.detach().float() - raw_s.float()).abs().mean([1, 2, 3])
    return _gated(fine + coarse, gate)


def lpips_loss(perceptual: nn.Module, image_t: Tensor, image_s: Tensor, gate: Tensor) -> Tensor:
    """L_lpips = 𝕀(|Δp| ≤ τ) ‖F(I^t) − F(I^s)‖₁ (Eq. 9; the paper also writes L_lips).

    Our distances F compare normalised features by squared differences, as LPIPS does, not by the L1 norm of Eq. 9.

    Args:
        perceptual: takes two [N, 3, H, W] in [-1, 1] and returns [N], see `perceptual.perceptual_distance`.
        image_t, image_s: [N, 3, H, W].
        gate: [N] of `front_gate`.
    """
    return _gated(perceptual(image_t.detach(), image_s).float(), gate)


def _gated(values: Tensor, gate: Tensor) -> Tensor:
    # where, not a product: a gated sample that is not finite must not leak in as 0 * inf.
    return torch.where(gate > 0, values * gate, torch.zeros_like(values)).mean()
