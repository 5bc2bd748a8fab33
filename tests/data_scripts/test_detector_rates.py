"""How often the detector finds faces of the factory: which renders count, groups, the data card's table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import detector_rates


def test_which_renders_are_counted() -> None:
    turn = detector_rates.turn_indices(3)
    steps = [step for _, step in turn]
    assert {steps.count(k) for k in range(9)} == {3}
    assert {steps.count(k) for k in range(9, 12)} == {6}  # back views, twice
    assert len({index for index, _ in turn}) == len(turn)


def test_rates_by_group_add_up() -> None:
    from head3d_core.synth.identity import identity

    people = [identity(seed) for seed in range(60)]
    probability = torch.linspace(0, 1, 60)
    table = detector_rates.grouped(probability, people)
    assert set(table) == {"skin tone", "age", "gender", "worn"}
    for rows in table.values():
        assert sum(r["count"] for r in rows.values()) == 60
        assert sum(r["found"] for r in rows.values()) == int((probability > 0.9).sum())
    women = torch.tensor([p.person.gender <= 0.5 for p in people])
    assert table["gender"]["female"]["found"] == int((probability[women] > 0.9).sum())


def test_the_data_card_shows_the_measured_rates() -> None:
    """And they are good: fronts look like faces, backs don't."""
    from head3d_core.utils import files

    found = json.loads((files.DATA / "results" / "detector_rates.json").read_text(encoding="utf-8"))
    assert detector_rates.table(found) in (files.DATA / "DATA_CARD.md").read_text(encoding="utf-8")
    assert found["frontal"]["without heavy occlusion"]["rate"] >= 0.97
    assert found["back"]["all"]["rate"] <= 0.01


@pytest.mark.opengl
@pytest.mark.slow
def test_the_table_of_the_data_card(tmp_path: Path) -> None:
    out = tmp_path / "rates.json"
    detector_rates.run(frontal=3, heads=1, out=out, workers=1)
    found = json.loads(out.read_text())
    assert found["frontal"]["all"]["count"] == 3
    assert found["back"]["all"]["count"] == 6
    assert found["frontal"]["all"]["found"] >= 2
    assert found["back"]["all"]["found"] == 0
    assert "| frontal | all | " in detector_rates.table(found)
