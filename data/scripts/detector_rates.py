"""How often the detector finds a face in renders of the head factory: the table of the data card.

    python data/scripts/detector_rates.py, then make tables

Frontal faces should be found (a face must look like one), back views not (a head has one face), and the rate should
not depend on who is shown. Terms: frontal is |yaw| <= 20 and |pitch| <= 15 degrees, a back view |yaw| >= 135 degrees,
a detection a probability above 0.9 at 256².
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from head3d_core.datasets import face_detector
from head3d_core.evaluation.real import frontal_pictures
from head3d_core.evaluation.tables import markdown
from head3d_core.metrics.silhouettes import BACK_YAW, FRONTAL_PITCH, FRONTAL_YAW
from head3d_core.model import cameras
from head3d_core.synth import sets
from head3d_core.synth.draws import SAMPLER_VERSION
from head3d_core.synth.identity import Identity, identity
from head3d_core.synth.make_data import render
from head3d_core.utils import files, records
from head3d_core.utils.estimates import share
from head3d_core.utils.progress import bar
from script import main

COMMAND = "python data/scripts/detector_rates.py"
BIN = 15
"""Width of a step of |yaw| in the curve, degrees."""

_AGES = {"10 to 17": 18, "18 to 34": 35, "35 to 54": 55, "55 and over": math.inf}


def _accessory(person: Identity) -> str:
    if person.glasses is not None and person.glasses.kind == "sunglasses":
        return "sunglasses"
    return "hat" if person.hat is not None else "nothing" if person.glasses is None else "glasses"


GROUPS: dict[str, Callable[[Identity], str]] = {
    "skin tone": lambda p: ("light", "medium", "dark")[min(2, int(p.skin.melanin * 3))],
    "age": lambda p: next(n for n, top in _AGES.items() if p.person.years < top),
    "gender": lambda p: "male" if p.person.gender > 0.5 else "female",
    "worn": _accessory,
}
"""Name -> which group of it an identity belongs to."""


def turn_indices(heads: int, name: str = "held_out_heads") -> list[tuple[int, int]]:
    """(index, |yaw| step) of the first view of every head in every step, steps of back views twice."""
    views, taken = [], Counter[tuple[int, int]]()
    for index in range(heads * sets.HEAD_VIEWS):
        angles = cameras.yaw_pitch(torch.from_numpy(sets.example(name, index).camera)[None])
        yaw, pitch = (abs(math.degrees(float(angle))) for angle in angles)
        step = min(int(yaw) // BIN, 180 // BIN - 1)
        of = (index // sets.HEAD_VIEWS, step)
        if pitch <= FRONTAL_PITCH and taken[of] < (2 if step * BIN >= BACK_YAW else 1):
            taken[of] += 1
            views.append((index, step))
    return views


def _share(probability: Tensor) -> dict[str, float | int]:
    rate = share(int((probability > face_detector.THRESHOLD).sum()), len(probability))
    shares = {"rate": rate.value, "low": rate.low, "high": rate.high}
    return {"found": rate.found, "count": rate.count, **{k: round(v, 4) for k, v in shares.items()}}


def grouped(probability: Tensor, people: Sequence[Identity]) -> dict[str, Any]:
    """Rates of every group: {"skin tone": {"light": {...}, ...}, ...}; groups nobody belongs to are left out."""
    table: dict[str, Any] = {}
    for name, group_of in GROUPS.items():
        labels = np.array([group_of(person) for person in people])
        table[name] = {str(label): _share(probability[labels == label]) for label in np.unique(labels)}
    return table


def measure(faces: int, count: int, workers: int = 0) -> dict[str, Any]:
    """Renders `faces` frontal faces and `count` heads, detects, counts: what is written. Needs OpenGL."""
    face_detector.load()  # before OpenGL, see there

    def shown(name: str, indices: Sequence[int]) -> tuple[Tensor, list[Identity]]:
        """Probability of a face in each image, and who is shown."""
        with bar("renders") as step:
            images = render(name, indices, face_detector.SIDE, workers, progress=step).images
        examples = (sets.example(name, index) for index in indices)
        people = [identity(example.seed, example.kind) for example in examples]
        return face_detector.face_probability(torch.from_numpy(images)), people

    frontal, people = shown("held_out_faces", frontal_pictures("held_out_faces", faces))
    clear = [k for k, person in enumerate(people) if _accessory(person) != "sunglasses"]
    missed = [p.seed for p, seen in zip(people, frontal, strict=True) if seen <= face_detector.THRESHOLD]
    turn = turn_indices(count)
    around, heads = shown("held_out_heads", [index for index, _ in turn])
    steps = torch.tensor([step for _, step in turn])
    back = (steps * BIN >= BACK_YAW).nonzero()[:, 0]
    return {
        "frontal": {
            "all": _share(frontal),
            "without heavy occlusion": _share(frontal[clear]),
            "missed seeds": missed,
            **grouped(frontal, people),
        },
        "back": {"all": _share(around[back]), **grouped(around[back], [heads[k] for k in back])},
        "by |yaw|": {f"{k * BIN} to {(k + 1) * BIN}": _share(around[steps == k]) for k in range(180 // BIN)},
        "provenance": records.provenance(
            f"{COMMAND} --frontal {faces} --heads {count}",
            detector=f"MTCNN of facenet-pytorch {version('facenet-pytorch')}, defaults",
            images=f"held_out_faces and held_out_heads, {face_detector.SIDE}², sampler version {SAMPLER_VERSION}",
            terms=f"detection: probability > {face_detector.THRESHOLD}; frontal: |yaw| <= {FRONTAL_YAW:g}, "
            f"|pitch| <= {FRONTAL_PITCH:g}; back: |yaw| >= {BACK_YAW:g} degrees; heavy occlusion: sunglasses; "
            "intervals: Wilson, 95 %",
        ),
    }


def table(found: dict[str, Any]) -> str:
    """The measured rates as a Markdown table."""
    rows: list[tuple[str, str, dict[str, Any]]] = []
    for part in ("frontal", "back"):
        for name, of in found[part].items():
            if name in GROUPS:
                rows += [(part, f"{name}: {group}", rate) for group, rate in of.items()]
            elif isinstance(of, dict):
                rows.append((part, name, of))
    rows += [("heads", f"yaw {step}°", rate) for step, rate in found["by |yaw|"].items()]
    cells = []
    for part, name, r in rows:
        value, low, high = (f"{r[k]:.1%}" for k in ("rate", "low", "high"))
        cells.append((part, name, f"{r['found']} of {r['count']}", value, f"{low} to {high}"))
    return markdown(("images", "group", "found", "rate", "95 % interval"), cells)


def run(
    frontal: int = 300,
    heads: int = 50,
    out: Path = files.DATA / "results" / "detector_rates.json",
    workers: int = 0,
) -> None:
    """Renders frontal faces and heads all around, measures how often a face is found, and prints the table.

    Args:
        frontal: frontal faces, one per identity, of the held-out set.
        heads: heads seen once per 15 degrees of |yaw|, and as often again from the back.
        out: file to write.
        workers: rendering processes; 0 takes one per core.
    """
    found = measure(frontal, heads, workers)
    records.write(out, found)
    print(f"{table(found)}\nwrote {out}")


if __name__ == "__main__":
    raise SystemExit(main(run))
