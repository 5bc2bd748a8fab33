r"""What the paper's setting costs here: rates and memory of a few steps of every stage, and scaling to two GPUs.

    torchrun --nproc-per-node 2 -m head3d_core train teacher --preset paper --data synth:faces:2000 \
        --recipe.images 6400 ...
    (whiten: 6,400 images, head and distill: 3,200; each 200 steps, each stage starting from the one before)
    python tests/bench/paper_setting.py RUNS --one ONE.json ... --many TWO.json --commit HASH --json OUT.json

RUNS holds the runs p_teacher, p_whiten, p_head and p_distill; ONE and TWO are written by bench_train.py.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import common  # noqa: F401
import tyro
from tyro.conf import Positional

from head3d_core.training.recipes import PAPER, STAGES
from head3d_core.training.snapshots import read_log
from head3d_core.utils import records

COMMAND = "python tests/bench/paper_setting.py RUNS --one ONE.json --many TWO.json --commit HASH --json FILE"
"""Of which RUNS are made by the commands above."""


def stage_cost(run: Path) -> dict[str, Any]:
    """Median rate of the second half of a run, when graphs are captured and networks warm."""
    events, _ = read_log(run)
    start = next(e for e in events if e["event"] == "start")
    progress = [e for e in events if e["event"] == "progress"]
    rates = [e["rate"] for e in progress[len(progress) // 2 :]]
    recipe = start["recipe"]
    return {
        "stage": recipe["stage"],
        "images": progress[-1]["images"],
        "batch": recipe["batch"],
        "steps": progress[-1]["images"] // recipe["batch"],
        "processes": start["world"],
        "images_per_s": round(statistics.median(rates), 1),
        "memory_gib": max(e["memory_gib"] for e in progress),
        "real_images": start["real_images"],
        "bad_gradients": sum(e["bad_gradients"] for e in progress),
        "device": start["device"],
        "torch": start["torch"],
        "date": start["date"],
        "seed": start["args"]["seed"],
    }


def main(runs: Positional[Path], one: tuple[Path, ...], many: Path, commit: str, json: Path) -> None:
    """Gathers logs and benchmarks into one record; `commit`: of the code that ran."""
    stages = [stage_cost(runs / f"p_{stage}") for stage in STAGES]
    rate = {s["stage"]: s["images_per_s"] for s in stages}
    hours = {name: round(PAPER[name].images / rate[name] / 3600, 2) for name in STAGES}

    def measured(path: Path) -> dict[str, Any]:
        return dict(records.load(path, "bench_train.py")["results"]["512"]["graphs"])

    alone = [measured(path)["images_per_s"] for path in one]
    together = measured(many)
    found = {
        "what": "preset paper, 512²: 200 steps of every stage, and throughput of one GPU against several",
        "provenance": {k: stages[0][k] for k in ("device", "torch", "date", "seed")}
        | {"commit": commit, "command": COMMAND},
        "stages": [
            {k: v for k, v in s.items() if k not in ("device", "torch", "date", "seed")} for s in stages
        ],
        "hours_of_our_recipe": hours,
        "scaling": {
            "setting": "512",
            "batch_per_gpu": together["batch"] // together["world"],
            "one_gpu_images_per_s": alone,
            "gpus": together["world"],
            "images_per_s": together["images_per_s"],
            "efficiency": round(together["images_per_s"] / (together["world"] * statistics.mean(alone)), 3),
            "memory_gib": together["memory_gib"],
        },
    }
    print(records.write(json, found).read_text(encoding="utf8"))


if __name__ == "__main__":
    tyro.cli(main)
