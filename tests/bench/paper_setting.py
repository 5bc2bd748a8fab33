r"""What the paper's setting costs here: rates and memory of a few steps of every stage, and scaling to two GPUs.

    torchrun --nproc-per-node 2 -m head3d_core train teacher --preset paper --data synth:faces:2000 \
        --recipe.images 6400 ...
    (whiten: 6,400 images, head and distill: 3,200; each 200 steps, each stage starting from the one before)
    python tests/bench/paper_setting.py RUNS --one ONE.json ... --many TWO.json --commit HASH --json OUT.json

RUNS holds the runs p_teacher, p_whiten, p_head and p_distill; ONE and TWO are written by bench_train.py.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from head3d_core.training.recipes import PAPER, STAGES
from head3d_core.utils import records

COMMAND = "python tests/bench/paper_setting.py RUNS --one ONE.json --many TWO.json --commit HASH --json FILE"
"""Of which RUNS are made by the commands above."""


def stage_cost(log: Path) -> dict[str, Any]:
    """Median rate of the second half of a run, when graphs are captured and networks warm."""
    events = [json.loads(line) for line in log.read_text(encoding="utf8").splitlines()]
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


def main() -> None:
    """Gathers logs and benchmarks into one record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--one", type=Path, nargs="+", required=True)
    parser.add_argument("--many", type=Path, required=True)
    parser.add_argument("--commit", required=True, help="of the code that ran")
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args()

    stages = [stage_cost(args.runs / f"p_{stage}" / "log.jsonl") for stage in STAGES]
    rate = {s["stage"]: s["images_per_s"] for s in stages}
    hours = {name: round(PAPER[name].images / rate[name] / 3600, 2) for name in STAGES}

    def measured(path: Path) -> dict[str, Any]:
        return dict(json.loads(path.read_text(encoding="utf8"))["results"]["512"]["graphs"])

    one = [measured(path)["images_per_s"] for path in args.one]
    many = measured(args.many)
    found = {
        "what": "preset paper, 512²: 200 steps of every stage, and throughput of one GPU against several",
        "provenance": {k: stages[0][k] for k in ("device", "torch", "date", "seed")}
        | {"commit": args.commit, "command": COMMAND},
        "stages": [
            {k: v for k, v in s.items() if k not in ("device", "torch", "date", "seed")} for s in stages
        ],
        "hours_of_our_recipe": hours,
        "scaling": {
            "setting": "512",
            "batch_per_gpu": many["batch"] // many["world"],
            "one_gpu_images_per_s": one,
            "gpus": many["world"],
            "images_per_s": many["images_per_s"],
            "efficiency": round(many["images_per_s"] / (many["world"] * statistics.mean(one)), 3),
            "memory_gib": many["memory_gib"],
        },
    }
    records.write(args.json, found)
    print(json.dumps(found, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
