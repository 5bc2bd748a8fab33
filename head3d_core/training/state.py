"""A trainer's state as named tensors and counters, and back: what a snapshot holds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from head3d_core.training.trainer import Trainer


def tensors_of(trainer: Trainer) -> dict[str, Tensor]:
    """Networks, augmentation and Adam's moments by name."""
    tensors = {f"{n}.{k}": v for n, net in trainer.networks().items() for k, v in net.state_dict().items()}
    tensors |= {f"ada{k}": torch.cat([a.p[None], a.signs]) for k, a in enumerate(trainer.augmentations)}
    for name, optimiser in trainer.optimisers().items():
        tensors |= {f"adam.{name}.{k}": v for k, v in optimiser.moments().items()}
    return tensors


def counters_of(trainer: Trainer) -> dict[str, int | list[int]]:
    """Counters on the host."""
    return {
        "step": trainer.step_count,
        "visits": list(trainer.visits),
        "warm_from": trainer.warm_from,
        "images": trainer.images_seen,
    }


def restore(trainer: Trainer, tensors: dict[str, Tensor], counters: dict[str, Any]) -> None:
    """Inverse of `tensors_of` and `counters_of`; without Adam's moments the learning rates warm up again."""

    def part(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    for name, net in trainer.networks().items():
        net.load_state_dict(part(f"{name}."))
    for k, augmentation in enumerate(trainer.augmentations):
        augmentation.p.copy_(tensors[f"ada{k}"][0])
        augmentation.signs.copy_(tensors[f"ada{k}"][1:])
    for name, optimiser in trainer.optimisers().items():
        optimiser.set_moments(part(f"adam.{name}."))
    trainer.step_count, trainer.visits = int(counters["step"]), [int(v) for v in counters["visits"]]
    complete = any(k.startswith("adam.") for k in tensors)
    trainer.warm_from = int(counters["warm_from"]) if complete else trainer.step_count
