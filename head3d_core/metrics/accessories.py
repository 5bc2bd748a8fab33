"""Accessories: a linear probe for hats and glasses, and whether the student keeps the teacher's (E7, Fig. 5).

Generated images have no labels, so a probe labels them: logistic regression on EfficientNet-Lite0's features of
near-frontal images, trained on training faces, whose accessories the head factory knows. The probe's limit is set on
held-out faces so that `FALSE_RATE` of the faces without the accessory pass; its recall is measured on others. The
probe has seen no generated image, so each share comes with two more: how often the teacher's own accessory is detected
again from another frontal camera (the student cannot be expected to do better), and how often any head of the student
passes (chance).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from head3d_core.synth import sets
from head3d_core.synth.identity import identity
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.estimates import Estimate, share

KINDS = ("hat", "glasses")
FALSE_RATE = {"hat": 0.001, "glasses": 0.01}
"""Share of heads without the accessory that pass: far below the share with it, so that most finds are true."""
PENALTY = 0.1
"""Of the squared weights, for standardised features."""
FEWEST = 20
"""Labelled heads of each answer below which no probe is fitted."""


def labels_of(name: str, indices: Sequence[int]) -> Tensor:
    """The accessories of people in a face set: bool [N, 2], a column for each of `KINDS`."""
    people = (identity(sets.example(name, int(i)).seed, "faces") for i in indices)
    worn = [[getattr(person, kind) is not None for kind in KINDS] for person in people]
    return torch.tensor(worn).reshape(-1, len(KINDS))


@dataclass(frozen=True)
class Probe:
    """score(x) = w · (x − mean) / spread + b; a head passes if its score exceeds `limit`."""

    weight: Tensor
    """[d] float64, already divided by the spread of each feature."""
    mean: Tensor
    """[d]"""
    limit: float
    recall: Estimate
    """True positive rate on held-out heads that did not set the limit."""
    false: Estimate
    """False positive rate on the same heads: about `FALSE_RATE`."""
    auc: float
    """On the same heads."""

    def score(self, features: Tensor) -> Tensor:
        """[N] float64 of features [N, d]."""
        return (features.double() - self.mean) @ self.weight

    def detects(self, features: Tensor) -> Tensor:
        """Bool [N]."""
        return self.score(features) > self.limit


def _logistic(x: Tensor, y: Tensor) -> Tensor:
    """Weights [d] of logistic regression with both answers counting the same, by L-BFGS; x standardised."""
    weight = torch.zeros(x.shape[1], dtype=x.dtype, requires_grad=True)
    bias = torch.zeros((), dtype=x.dtype, requires_grad=True)
    balance = torch.where(y, 0.5 / y.double().mean(), 0.5 / (~y).double().mean())
    target = y.double()
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = torch.nn.functional.binary_cross_entropy_with_logits(x @ weight + bias, target, balance)
        value = value + PENALTY * weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimiser.step(loss)
    return weight.detach()


def fit_probe(
    features: Tensor, labels: Tensor, held_out: Tensor, held_out_labels: Tensor, false_rate: float = 0.01
) -> Probe:
    """Fits on `features` [N, d] with bool `labels` [N].

    The first half of the held-out rows sets the limit, the other half measures.

    Args:
        false_rate: share of bare heads that may pass.

    Raises:
        Head3DError: fewer than 20 wearers or bare heads to learn from, or 4 to test on.
    """
    counts = [int(x.sum()) for x in (labels, ~labels, held_out_labels, ~held_out_labels)]
    if min(counts[:2]) < FEWEST or min(counts[2:]) < 4:
        raise Head3DError(
            f"a probe needs {FEWEST} wearers and {FEWEST} bare heads and 4 of each to test on, got {counts}: "
            "render more faces"
        )
    x = features.double()
    mean, spread = x.mean(0), x.std(0).clamp_min(1e-6)
    weight = _logistic((x - mean) / spread, labels) / spread
    score = (held_out.double() - mean) @ weight
    half = len(score) // 2
    limit = float(torch.quantile(score[:half][~held_out_labels[:half]], 1 - false_rate))
    test, answer = score[half:], held_out_labels[half:]
    passed = test > limit
    wearers, bare = int(answer.sum()), int((~answer).sum())
    recall, false = share(int((passed & answer).sum()), wearers), share(int((passed & ~answer).sum()), bare)
    pairs = test[answer][:, None] > test[~answer]
    return Probe(weight, mean, limit, recall, false, float(pairs.sum()) / max(wearers * bare, 1))


def kept(probe: Probe, teacher: Tensor, again: Tensor, student: Tensor) -> dict[str, Estimate]:
    """What of the teacher's samples [N, d] the student's [N, d] of the same z keep.

    Args:
        again: [M, d], M <= N: the teacher's first samples from another frontal camera.

    Returns:
        Rates: `teacher` (its samples that pass), `again` (of these, those that pass from another camera), `student`
        (of these, the student's heads of the same z that pass), `chance` (of all the student's samples).
    """
    if len(teacher) != len(student) or len(again) > len(teacher):
        raise Head3DError(f"samples must be of the same z, got {len(teacher)}, {len(again)}, {len(student)}")
    theirs, ours = probe.detects(teacher), probe.detects(student)
    repeated = theirs[: len(again)]
    return {
        "teacher": share(int(theirs.sum()), len(theirs)),
        "again": share(int((probe.detects(again) & repeated).sum()), int(repeated.sum())),
        "student": share(int((ours & theirs).sum()), int(theirs.sum())),
        "chance": share(int(ours.sum()), len(ours)),
    }
