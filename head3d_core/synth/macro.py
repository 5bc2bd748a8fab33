"""MakeHuman's macro targets: the weights of a person's age, gender, ancestry, muscle and weight, and their blend."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from head3d_core.synth.identity import Person
from head3d_core.synth.subdivision import Array

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
