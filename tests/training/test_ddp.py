"""Two gloo processes give the gradients and running mean of w of one process at the same global batch."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import training_toys as toys
from helpers import refused

from head3d_core.training.parts import Phase
from head3d_core.training.recipes import LossWeights
from head3d_core.training.trainer import Trainer

GROUP = 4


def record(trainer: Trainer) -> dict[str, Any]:
    """Gradients of each phase with every discriminator, all before any update, and the running mean of w."""
    gradients: dict[str, torch.Tensor] = {}
    for optimiser in (trainer.generator_optimiser, *trainer.discriminator_optimisers):
        optimiser.adam.step = lambda *a, **k: None  # type: ignore[method-assign, assignment]
    for domain, judge in enumerate(trainer.discriminator_optimisers):
        for phase in Phase:
            trainer.run_phase(phase, domain)
            trained = trainer.generator_optimiser if phase in (Phase.G_MAIN, Phase.G_REG) else judge
            gradients[f"{phase.name} {domain}"] = trained.flat.clone()
    return {"gradients": gradients, "w_avg": trainer.generator.w_avg.clone()}


CASES: dict[str, dict[str, Any]] = {
    # Pose swaps, density points, blur; then augmentation, mapping cameras and distillation.
    "teacher": {"batch": 2 * GROUP, "gpc": 0.5},
    "distill": {
        "batch": 2 * GROUP,
        "ada_target": 0.6,
        "ada_start": 0.5,
        "losses": LossWeights(kd=0.5, map=1, rgb=1, lpips=0),
    },
}


def work(rank: int, port: int, out: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    found = {
        stage: record(toys.trainer(toys.toy_recipe(stage, **changes), rank=rank, world=2))
        for stage, changes in CASES.items()
    }
    if rank == 0:
        torch.save(found, out)
    dist.destroy_process_group()


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def test_two_processes_equal_one(tmp_path: Path) -> None:
    out = tmp_path / "two.pt"
    mp.start_processes(work, (free_port(), str(out)), nprocs=2, start_method="spawn")  # type: ignore[no-untyped-call]
    both = torch.load(out, weights_only=True)
    for stage, changes in CASES.items():
        how = toys.toy_recipe(stage, **changes)
        one, two = record(toys.trainer(how)), both[stage]
        assert len(one["gradients"]) == 4 * len(how.domains)
        for phase, expected in one["gradients"].items():
            assert expected.abs().max() > 0, phase
            # float32 sums in another order; measured 2e-6 of the largest gradient.
            tolerance = 5e-5 * float(expected.abs().max())
            torch.testing.assert_close(two["gradients"][phase], expected, rtol=0, atol=tolerance)
        torch.testing.assert_close(two["w_avg"], one["w_avg"])


def test_a_wrong_split_would_be_seen() -> None:
    """The minibatch-std groups and pose swaps depend on which sample sits where: another order changes gradients."""
    how = toys.toy_recipe("teacher", batch=2 * GROUP, gpc=0.5)
    right, wrong = toys.trainer(how), toys.trainer(how)
    wrong.draws.indices = torch.tensor([0, 2, 1, 3, 4, 6, 5, 7])
    a, b = record(right), record(wrong)
    gap = (a["gradients"]["D_MAIN 0"] - b["gradients"]["D_MAIN 0"]).abs().max()
    assert gap > 1e-3 * a["gradients"]["D_MAIN 0"].abs().max()


def test_a_batch_that_cannot_be_shared_out_is_refused() -> None:
    with refused("multiple of the minibatch-std group"):
        toys.trainer(toys.toy_recipe("teacher", batch=GROUP), world=2)
