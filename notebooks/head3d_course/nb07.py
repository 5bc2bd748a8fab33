"""Notebook 07: fine-tuning a head generator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from head3d_core.metrics.verification import most_alike
from head3d_core.training.recipes import Recipe, recipe
from head3d_course import figures
from head3d_course.exercises import Exercise, choice


def recipe_table(stages: Sequence[str]) -> list[str]:
    """The numbers of section 4.1 as lines of text, one column a stage; read from the recipes themselves."""

    def row(name: str, show: Any) -> str:
        return f"{name:28s}" + "".join(f"{show(recipe(s, 'classroom'))!s:>22s}" for s in stages)

    def each(how: Recipe, field: str) -> str:
        return ", ".join(f"{d.name} {getattr(d, field):g}" for d in how.domains)

    def weights(how: Recipe) -> str:
        w = how.losses
        return f"{w.kd:g} {w.map:g} {w.rgb:g} {w.lpips:g}" if w.any else "-"

    return [
        f"{'':28s}" + "".join(f"{s:>22s}" for s in stages),
        row("starts from", lambda r: r.start),
        row("real pictures of D", lambda r: ", ".join("+".join(d.sources) for d in r.domains)),
        row("real images shown", lambda r: f"{r.images:,}"),
        row("batch", lambda r: r.batch),
        row("rates of G, D", lambda r: f"{r.lr_g:g}, {r.lr_d:g}"),
        row("R1 weight γ", lambda r: each(r, "gamma")),
        row("weight of L_gan", lambda r: each(r, "weight")),
        row("λ kd, map, rgb, lpips", weights),
        row("augmentation's target", lambda r: r.ada_target or "-"),
        row("mapping camera", lambda r: "face set" if r.mapping_camera == "faces" else "rendering, swapped"),
    ]


def alike_figure(crowd: Mapping[str, Tensor], faces: Mapping[str, Tensor], count: int = 3) -> Any:
    """The pairs of samples that an identity encoder takes most for one person; a row of pairs for each generator.

    Args:
        crowd: generator -> images [N, 3, H, W] in [-1, 1].
        faces: generator -> their embeddings [N, d].
    """
    images, titles = [], []
    for name, samples in crowd.items():
        for i, j, cosine in most_alike(faces[name], count):
            images += [samples[i], samples[j]]
            titles += [f"{name} {i + 1}\ncosine {cosine:.2f} →", f"{name} {j + 1}\n← to its left"]
    return figures.image_grid(images, titles, 2 * count, 1.6)


def memory_curves(runs: Mapping[str, Mapping[str, Sequence[float]]]) -> Any:
    """Mean logits of shown, held-out and fake images against steps, one panel a run of `live_training.memorise`."""
    figure, axes = figures.panels(3.7 * len(runs), 3.1, 1, len(runs), sharey=True, squeeze=False)
    names = {"shown": "real, shown", "held out": "real, held out", "fake": "called fake"}
    for axis, (title, run) in zip(axes[0], runs.items(), strict=True):
        for k, (name, label) in enumerate(names.items()):
            figures.curve(axis, k, run["steps"], run[name], label)
        axis.axhline(0, color="#888888", linewidth=0.8)
        axis.set(title=title, xlabel="step of D")
        axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("mean logit (high: D says real)")
    axes[0, 0].legend(fontsize=9)
    return figure


# --- exercises --------------------------------------------------------------------------------------------------------


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
    mistakes={
        "p is a probability: keep it between 0 and 1": lambda p, s, *a: p + _next_p(0.5, s, *a) - 0.5,
        "the direction is wrong: a sure D over-fits": lambda p, s, t, *a: _next_p(p, -s, -t, *a),
        "an adjustment stands for `interval` steps": lambda p, s, t, b, k, n: _next_p(p, s, t, b, 1, n),
        "the target is for the mean sign": lambda p, s, *a: _next_p(p, (s + 1) / 2, *a),
        "the step has a fixed size": lambda p, s, t, b, k, n: (p + (s.mean() - t) * b * k / n).clamp(0, 1),
    },
)

read_the_gap = choice("07.read_the_gap")
people_or_time = choice("07.people_or_time")
