"""Parts of the trainer: counter-based draws, images on the device, networks with their optimiser, the fading blur."""

from __future__ import annotations

import enum
import math

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from head3d_core.model.cameras import mirror
from head3d_core.ops import random
from head3d_core.utils.images import from_uint8


class Purpose(enum.IntEnum):
    """What a random number is for; each phase adds its own multiple of 16."""

    Z = 0
    CAMERA = 1
    MAPPING = 2
    SWAP = 3
    RENDER = 4
    DENSITY = 5
    REAL = 6
    AUGMENT_FAKE = 7
    AUGMENT_REAL = 8
    WRONG_CAMERA = 9


class Phase(enum.IntEnum):
    """The four parts of an iteration."""

    G_MAIN = 0
    G_REG = 1
    D_MAIN = 2
    D_REG = 3


class Draws:
    """Counter-based random numbers for the samples of one process: global indices rank, rank + world, ...

    Args:
        seed: of the run.
        batch: global batch.
    """

    def __init__(self, seed: int, batch: int, rank: int, world: int, device: torch.device) -> None:
        self.base = (seed * 0x9E3779B97F4A7C15 + 0x1234567) % 2**61
        self.batch = batch
        self.indices = torch.arange(rank, batch, world, device=device)
        self.step = torch.zeros((), dtype=torch.int64, device=device)

    def seeds(self, phase: Phase, purpose: Purpose, shift: int = 0) -> Tensor:
        """[n] int64; `shift` -1 gives those of the previous sample of the global batch."""
        index = (self.indices + shift) % self.batch
        return self.base + (self.step * 64 + (16 * phase + purpose)) * 2**16 + index

    def uniform(self, phase: Phase, purpose: Purpose, columns: int, shift: int = 0) -> Tensor:
        """[n, columns] in [0, 1)."""
        return random.uniform(self.seeds(phase, purpose, shift), 1, columns)[:, 0]

    def normal(self, phase: Phase, purpose: Purpose, columns: int) -> Tensor:
        """[n, columns], standard normal."""
        return random.normal(self.seeds(phase, purpose), 1, columns, 0)[:, 0]


class Pool:
    """Images and cameras of one data source on the device.

    Args:
        images: [N, 3, R, R] uint8; [N, 0, 0, 0] where only cameras are drawn.
        cameras: [N, 25].
        flips: also show everything mirrored.
    """

    def __init__(self, images: Tensor, cameras: Tensor, device: torch.device, flips: bool = True) -> None:
        self.images = images.to(device)
        # [2, N, 25]: mirrored cameras are looked up, not computed, so that drawing stays on the device.
        self.cameras = torch.stack([cameras, mirror(cameras)]).float().to(device)
        self.flips = flips

    def __len__(self) -> int:
        return len(self.images)

    def _pick(self, u: Tensor) -> tuple[Tensor, Tensor]:
        index = (u[:, 0].double() * len(self)).long()
        return index, (u[:, 1] < 0.5) & self.flips

    def draw_cameras(self, u: Tensor) -> Tensor:
        """Cameras [n, 25] of uniformly drawn images; u is [n, 2]."""
        index, flipped = self._pick(u)
        return self.cameras[flipped.long(), index]

    def draw(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Images [n, 3, R, R] in [-1, 1] and their cameras [n, 25]."""
        index, flipped = self._pick(u)
        image = from_uint8(self.images[index])
        image = torch.where(flipped[:, None, None, None], image.flip(-1), image)
        return image, self.cameras[flipped.long(), index]


class Optimiser:
    """Adam of one network, with all gradients in one flat buffer.

    The flat buffer makes clearing, averaging over processes and cleaning of gradients one kernel each.
    """

    def __init__(self, module: nn.Module, rate: float, beta2: float, interval: int) -> None:
        self.parameters = list(module.parameters())
        device = self.parameters[0].device
        self.flat = torch.zeros(sum(p.numel() for p in self.parameters), device=device)
        self.bad = torch.zeros((), dtype=torch.int64, device=device)
        offset = 0
        for p in self.parameters:
            # Gradients take the parameter's own strides (channels-last weights), as fused Adam wants.
            p.grad = self.flat[offset : offset + p.numel()].as_strided(p.shape, p.stride())
            offset += p.numel()
        # Lazy regularisation: k + 1 optimiser steps replace k (StyleGAN2, appendix B).
        share = interval / (interval + 1) if interval else 1.0
        self.rate = rate * share
        cuda = device.type == "cuda"
        self.lr = torch.tensor(self.rate, device=device) if cuda else self.rate
        self.adam = torch.optim.Adam(
            self.parameters, lr=self.lr, betas=(0.0, beta2**share), eps=1e-8,
            **({"fused": True, "capturable": True} if cuda else {}),
        )  # fmt: skip

    def set_rate(self, factor: float) -> None:
        """Scales the learning rate (warm-up)."""
        if isinstance(self.lr, Tensor):
            self.lr.fill_(self.rate * factor)
        else:
            self.adam.param_groups[0]["lr"] = self.rate * factor

    def minimise(self, loss: Tensor) -> None:
        """One Adam step on `loss`, for this network only, whatever else the graph holds.

        Gradients are averaged over processes; values that are not finite are counted and cleaned.
        """
        self.flat.zero_()
        torch.autograd.backward(loss, inputs=self.parameters)
        if dist.is_initialized():
            dist.all_reduce(self.flat)
            self.flat /= dist.get_world_size()
        self.bad += torch.count_nonzero(self.flat * 0)  # NaN and infinities times 0 are NaN
        torch.nan_to_num_(self.flat, nan=0.0, posinf=1e5, neginf=-1e5)
        self.adam.step()

    def read_bad(self) -> int:
        """How many gradient values were not finite since the last call."""
        count = int(self.bad)
        self.bad.zero_()
        return count

    def moments(self) -> dict[str, Tensor]:
        """Adam's state by parameter index: second moment and step (the first is the last gradient: β1 = 0)."""
        names = {"v": "exp_avg_sq", "step": "step"}
        known = ((k, self.adam.state[p]) for k, p in enumerate(self.parameters) if p in self.adam.state)
        return {f"{k}.{name}": state[own] for k, state in known for name, own in names.items()}

    def set_moments(self, moments: dict[str, Tensor]) -> None:
        """Inverse of `moments`."""
        for k, p in enumerate(self.parameters):
            if f"{k}.v" in moments:
                second = torch.empty_like(p).copy_(moments[f"{k}.v"])
                step = moments[f"{k}.step"].to(p.device if p.is_cuda else "cpu", torch.float32, copy=True)
                self.adam.state[p] = {"step": step, "exp_avg": torch.zeros_like(p), "exp_avg_sq": second}


def blur(x: Tensor, sigma: Tensor, largest: float) -> Tensor:
    """Separable blur with the kernel 2^(−(i/σ)²), zero padding.

    Args:
        x: [N, C, H, W].
        sigma: scalar tensor, pixels; may change without changing the kernel's size.
        largest: the kernel covers ±⌊3 largest⌋ pixels (at most the image's side less one).
    """
    reach = min(math.floor(3 * largest), x.shape[-1] - 1)
    if reach < 1:
        return x
    offset = torch.arange(-reach, reach + 1, device=x.device, dtype=torch.float32)
    taps = torch.exp2(-((offset / sigma) ** 2))
    # EG3D cuts the kernel at ±⌊3σ⌋ of the current σ.
    taps = torch.where(offset.abs() <= torch.floor(3 * sigma), taps, 0.0)
    taps = (taps / taps.sum()).to(x.dtype)
    n, c, h, w = x.shape
    flat = x.reshape(n * c, 1, h, w)
    flat = F.conv2d(flat, taps.reshape(1, 1, 1, -1), padding=(0, reach))
    return F.conv2d(flat, taps.reshape(1, 1, -1, 1), padding=(reach, 0)).reshape(n, c, h, w)
