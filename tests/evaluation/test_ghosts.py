"""The sampler of the ghost measure: scores by number of the sample, real heads, figures of a group."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch

from head3d_core.config import preset
from head3d_core.evaluation import ghosts
from head3d_core.evaluation.sampling import Model
from head3d_core.metrics.ghost import SCORES, GhostScores, limits
from head3d_core.model.generator import Generator
from head3d_core.utils import records
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.estimates import Estimate


@cache
def model() -> Model:
    torch.manual_seed(0)
    return Model(Generator(preset("tiny").generator))


def test_scores_follow_the_number_of_a_sample_not_the_batch() -> None:
    whole = ghosts.model_scores(model(), range(3), batch=3)
    parts = ghosts.joined([ghosts.model_scores(model(), range(k, k + 1)) for k in range(3)])
    for name in SCORES:
        a, b = getattr(whole, name), getattr(parts, name)
        assert len(a) == 3
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3, equal_nan=True)


def test_figures_of_a_group() -> None:
    score = torch.tensor([0.0] * 6 + [2.0] * 3 + [math.nan], dtype=torch.float64)
    found = ghosts.ghost_figures(GhostScores(score, score, score), dict.fromkeys(SCORES, 1.0))
    for name in SCORES:
        assert found[name]["mean"]["value"] == pytest.approx(2 / 3)
        assert Estimate.of(found[name]["above"]).found == 3
        assert found[name]["unmeasured"]["value"] == pytest.approx(0.1)


@pytest.mark.opengl
def test_real_heads_from_behind_can_be_measured() -> None:
    scores = ghosts.real_scores("heads", range(1050, 1052), 1)
    for name in SCORES:
        assert getattr(scores, name).isfinite().all()
    assert float(scores.eye_pair.max()) < 2.5, "no eyes behind"


def test_the_record_has_the_rates_that_its_scores_have() -> None:
    record = records.read("ghost", ghosts.COMMAND)
    scores = [
        GhostScores(
            *(torch.tensor([math.nan if x is None else x for x in group["scores"][k]]) for k in SCORES)
        )
        for group in record["calibration"].values()
    ]
    assert limits(ghosts.joined(scores)) == pytest.approx(record["limits"], abs=1e-3)
    for group in record["groups"].values():
        for name in SCORES:
            known = [x for x in group["scores"][name] if x is not None]
            found = Estimate.of(group[name]["above"])
            assert abs(sum(x > record["limits"][name] for x in known) - found.found) <= 1  # rounded scores
            assert found.count == len(known)


def test_too_few_of_either_get_a_sentence() -> None:
    with pytest.raises(Head3DError, match="at least 20"):
        ghosts.run(ghosts.GhostArgs(real=3))
