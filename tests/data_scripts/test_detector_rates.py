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


def _found() -> dict[str, object]:
    row = {"found": 9, "count": 10, "rate": 0.9, "low": 0.6, "high": 0.98}
    return {
        "frontal": {"all": row, "missed seeds": [3], "gender": {"male": row}},
        "back": {"all": row},
        "by |yaw|": {"0 to 15": row},
    }


def test_the_table_counts_and_names_groups() -> None:
    assert "| frontal | gender: male | 9 of 10 | 90.0% | 60.0% to 98.0% |" in detector_rates.table(_found())


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
