"""Weights of MakeHuman's morph targets: age, gender and ancestry, face shape, expression (Face Units); their blend."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from head3d_core.synth import TABLES
from head3d_core.synth.draws import Draws
from head3d_core.synth.subdivision import Array

Weights = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Person:
    """What the body follows from."""

    years: float
    """Age in years, 10 to 80."""
    gender: float
    """0 female to 1 male, as the mesh blends it."""
    ancestry: tuple[float, float, float]
    """Shares of the african, asian and caucasian meshes; sum 1."""
    muscle: float
    weight: float
    """Both in [0, 1], 0.5 average."""


TEMPLATE = Person(years=31.5, gender=0.5, ancestry=(1 / 3, 1 / 3, 1 / 3), muscle=0.5, weight=0.5)
"""The average adult on which hair is grown."""


def mesh_age(years: float) -> float:
    """Age as MakeHuman counts it: 12 years 0.1875 (child), 25 years 0.5 (young), 90 years 1 (old)."""
    if years < 25:
        return 0.5 - 0.3125 * (25 - max(years, 12)) / 13
    return 0.5 + 0.5 * min((years - 25) / 65, 1.0)


def macro_weights(person: Person) -> dict[str, float]:
    """Weights of MakeHuman's ancestry-gender-age and muscle-weight targets; they multiply (a product of hats)."""
    age = mesh_age(person.years)
    t = (0.5 - age) / 0.3125
    ages = {"child": t, "young": 1 - t} if age < 0.5 else {"young": 2 - 2 * age, "old": 2 * age - 1}
    genders = {"female": 1 - person.gender, "male": person.gender}

    def hat(x: float, name: str) -> dict[str, float]:
        return {
            f"min{name}": max(0.0, 1 - 2 * x),
            f"average{name}": 1 - abs(2 * x - 1),
            f"max{name}": max(0.0, 2 * x - 1),
        }

    weights = {}
    for a, wa in ages.items():
        for g, wg in genders.items():
            for name, share in zip(("african", "asian", "caucasian"), person.ancestry, strict=True):
                weights[f"{name}-{g}-{a}"] = wa * wg * share
            for m, wm in hat(person.muscle, "muscle").items():
                for k, wk in hat(person.weight, "weight").items():
                    weights[f"universal-{g}-{a}-{m}-{k}"] = wa * wg * wm * wk
    return weights


def blend(base: Array, targets: sp.csc_matrix, names: tuple[str, ...], weights: dict[str, float]) -> Array:
    """base [B, 3] moved by the weighted targets; names without a target (the average body) count nothing."""
    w = np.array([weights.get(name, 0.0) for name in names])
    return base + (targets @ w).reshape(base.shape)


def spread(feature: str) -> float:
    """Standard deviation of a paired feature."""
    rows = TABLES["targets"]["spreads"]
    return next((row["sd"] for row in rows if feature.startswith(tuple(row["starts"].split()))), 0.21)


def draw_features(draws: Draws, child: bool) -> Weights:
    """Face shape: one signed number per pair, some head and ear shapes, slight asymmetries. Children vary less."""
    scale = 0.6 if child else 1.0
    weights: dict[str, float] = {}
    table = TABLES["targets"]
    for pair in table["pairs"]:
        down, up = pair["ends"]
        for feature in pair["names"].split():
            x = draws.normal(feature, spread(feature) * scale)
            weights[f"{feature}-{up if x > 0 else down}"] = abs(x)
    for shape in table["head_shapes"]:
        if draws.chance(f"has {shape}", 0.25):
            weights[f"head-{shape}"] = draws.uniform(f"head {shape}", 0, 0.45) * scale
    for shape in table["ear_shapes"]:
        if draws.chance(f"ear has {shape}", 0.25):
            weights[f"l-ear-shape-{shape}"] = draws.uniform(f"ear {shape}", 0, 0.5) * scale
    weights |= {"r-" + name[2:]: w for name, w in weights.items() if name.startswith("l-")}
    for name in (f"{place}-{k + 1}" for place, count in table["one_sided"].items() for k in range(count)):
        if draws.chance(f"has {name}", 0.35):
            weights[f"asym-{name}-{draws.choice(f'side {name}', 'lr')}"] = draws.uniform(name, 0, 0.28)
    return _packed(weights)


def draw_expression(draws: Draws, strong: bool) -> Weights:
    """A mild expression. `strong` allows smiles with teeth, raised brows and the like (the face set);
    without it the mouth stays closed and the face friendly (the head set)."""
    w: dict[str, float] = {}

    def both(unit: str, x: float) -> None:
        for side in ("Left", "Right"):
            w[f"fu-{unit}{side}"] = x * draws.uniform(f"{unit}{side}", 0.88, 1.0)

    # Neutral meshes look a little sad, stern and sleepy: a trace of smile, of raised inner brow, of open lids.
    both("mouthSmile", draws.uniform("rest smile", 0.34, 0.52))
    w["fu-browInnerUp"] = draws.uniform("rest brow", 0.02, 0.12)
    both("browOuterUp", draws.uniform("rest outer brow", 0.0, 0.15))
    mood = draws.uniform("mood")
    if not strong:
        if mood < 0.55:
            both("mouthSmile", draws.uniform("smile", 0.5, 0.8))
            both("cheekSquint", draws.uniform("squint", 0.1, 0.3))
    elif mood < 0.46:
        x = draws.uniform("smile", 0.45, 0.95)
        both("mouthSmile", x)
        both("cheekSquint", x * 0.5)
        both("eyeSquint", x * 0.2)
        if draws.chance("teeth", 0.55):
            both("mouthUpperUp", draws.uniform("upper", 0.2, 0.5))
            both("mouthLowerDown", draws.uniform("lower", 0.05, 0.25))
            w["fu-jawOpen"] = draws.uniform("jaw", 0.0, 0.10)
    elif mood < 0.58:
        w["fu-jawOpen"] = draws.uniform("jaw", 0.03, 0.16)
    elif mood < 0.63:
        both("browDown", draws.uniform("frown", 0.1, 0.35))
    elif mood < 0.74:
        w["fu-browInnerUp"] = draws.uniform("inner", 0.2, 0.6)
        both("browOuterUp", draws.uniform("outer", 0.1, 0.5))
        both("eyeWide", draws.uniform("wide", 0.0, 0.3))
    elif mood < 0.79:
        w["fu-mouthPucker"] = draws.uniform("pucker", 0.15, 0.45)
    both("eyeBlink", max(0.0, draws.normal("blink", 0.05, 0.04)))
    for side in ("Left", "Right"):
        w[f"fu-eyeWide{side}"] = w.get(f"fu-eyeWide{side}", 0.0) + 0.12
    return _packed(w)


def _packed(weights: dict[str, float]) -> Weights:
    rounded = ((name, round(w, 4)) for name, w in sorted(weights.items()))
    return tuple((name, w) for name, w in rounded if w)
