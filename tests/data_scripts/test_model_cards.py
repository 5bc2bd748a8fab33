"""Model cards say what is recorded, and "not measured yet" where nothing is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import refuses

import model_cards
from head3d_core.checkpoints import weights
from head3d_core.config import preset
from head3d_core.model.generator import Generator


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """One generator called head3d, without any records."""
    torch.manual_seed(0)
    recipe = {"stage": "distill", "batch": 4}
    notes = {"images": 1234, "preset": "tiny", "seed": 7, "row": None, "recipe": recipe}
    G = Generator(preset("tiny").generator)
    weights.save_generator(G, tmp_path / "weights" / "head3d", half=True, notes=notes)
    return tmp_path


def record(data: Path, name: str, content: dict[str, Any]) -> None:
    path = data / "results" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def row_of(text: str, label: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {label}")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_without_records_everything_is_not_measured_yet(data: Path) -> None:
    text = model_cards.card("head3d", data)
    assert "# Model card: `head3d`" in text
    assert row_of(text, "real images shown")[1] == "1,234"
    assert row_of(text, "time")[1] == "not recorded"
    for label in ("a face is found on frontal", "near-duplicates", "same z as the teacher: AUC"):
        assert row_of(text, label)[1:] == ["not measured yet"] * 2
    assert row_of(text, "skin tone")[1:] == ["not measured yet"]
    assert "Recorded pictures" not in text
    assert "python -m head3d_core evaluate head3d" in text
    for word in ("Known failures", "Responsible use", "64²", "CC0"):
        assert word in text


ALL = {"count": 100, "value": 1.0, "low": 0.96, "high": 1.0}
REPEATS = {"nearest_training": {"training": 5000, "repeats": {**ALL, "value": 0.0, "low": 0.0, "high": 0.04}}}
OTHER_RUN = {"provenance": {"images": 99, "seconds": 600.0, "device": "one GPU"}}
UNUSED = {"provenance": {"images": 1234, "perceptual": None}}


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("curves_distill", UNUSED, "| perceptual term | none |"),
        ("curves_distill", OTHER_RUN, "| time | not recorded |"),
        ("curves_distill", OTHER_RUN, "| device | not recorded |"),
        ("evaluation/head3d", {"people": REPEATS}, "| samples that repeat someone on one of 5,000 training"),
        ("evaluation/head3d", {"detector": {"front": ALL}}, "found in all 100 frontal samples of this model"),
    ],
)
def test_what_one_record_says(data: Path, name: str, content: dict[str, Any], says: str) -> None:
    record(data, name, content)
    assert says in model_cards.card("head3d", data)


def test_records_are_read(data: Path) -> None:
    rate = {"count": 100, "value": 0.97, "low": 0.92, "high": 0.99}
    figure = {"value": 1.5, "low": 1.25, "high": 1.75, "count": 1000}
    measured = {
        "detector": {"front": rate, "back": {**rate, "value": 0.02, "low": 0.01, "high": 0.05}},
        "distance": {"front": {"real": 9, "features": "EffLite0", "kernel": figure}, "back": {}},
        "behind": {"ghost": {"eye_pair": {"above": {**rate, "value": 0.78}}}},
        "provenance": {"date": "2026-01-02", "device": "a GPU", "commit": "abc"},
    }
    record(data, "evaluation/head3d", measured)
    record(data, "evaluation/real", {"detector": {"front": {**rate, "value": 0.99}}})
    record(data, "detector_rates", {"frontal": {"skin tone": {"dark": {**rate, "rate": 0.97}}}})
    about = {"images": 1234, "seconds": 600.0, "device": "one GPU", "date": "2026-01-01", "commit": "def"}
    record(data, "curves_distill", {"provenance": about})
    text = model_cards.card("head3d", data)
    assert row_of(text, "a face is found on frontal")[1] == "97.0% (92.0% to 99.0%), N = 100"
    assert row_of(text, "a face is found on frontal")[2].startswith("99.0%")
    assert row_of(text, "a face is found on back")[1].startswith("2.0%")
    assert row_of(text, "KD-EffLite0 x100, frontal")[1] == "1.5 (1.25 to 1.75), N = 1000"
    assert row_of(text, "kernel distance x100, back")[1] == "not measured yet"
    assert row_of(text, "eyes behind")[1].startswith("78.0%")
    assert row_of(text, "sockets behind")[1] == "not measured yet"
    assert row_of(text, "skin tone: dark") == ["skin tone: dark", "97.0% (92.0% to 99.0%), N = 100"]
    assert "the 3 of 100 frontal samples in which no face is found may all be of one" in text
    assert row_of(text, "time")[1] == "10.0 minutes, data included"
    assert row_of(text, "device")[1] == "one GPU"
    assert "2026-01-02 on a GPU, commit abc" in text


def test_the_teacher_is_not_asked_for_its_own_twin(data: Path) -> None:
    record(data, "evaluation/head3d", {"detector": {}, "missing": {}})
    assert "same z" not in model_cards.card("head3d", data)
    record(data, "evaluation/head3d", {"detector": {}, "missing": {"same z": "no teacher"}})
    row = row_of(model_cards.card("head3d", data), "same z as the teacher: cosine")
    assert row[1] == "not measured yet"


def test_recorded_grids_are_linked(data: Path) -> None:
    record(data, "evaluation/head3d", {"pictures": {"a.jpg": "views", "gone.jpg": "not there"}})
    (data / "results" / "evaluation" / "a.jpg").write_bytes(b"")
    text = model_cards.card("head3d", data)
    link = "../../results/evaluation/a.jpg"
    assert f"* [a.jpg]({link}): views" in text
    assert (data / "weights" / "head3d" / link).is_file()
    assert "gone.jpg" not in text


def test_weights_that_do_not_say_what_they_are(data: Path) -> None:
    weights.save_generator(Generator(preset("tiny").generator), data / "weights" / "odd")
    refuses("which stage", model_cards.card, "odd", data)


def test_remarks_belong_to_their_weights(data: Path) -> None:
    path = data / "weights" / "head3d" / "remarks.json"
    assert "About these weights" not in model_cards.card("head3d", data)
    path.write_text(json.dumps({"images": 1234, "remarks": ["Noses are long."]}))
    assert "## About these weights\n\n* Noses are long.\n" in model_cards.card("head3d", data)
    path.write_text(json.dumps({"images": 99, "remarks": ["Noses are long."]}))
    assert "Noses" not in model_cards.card("head3d", data), "remarks on other weights"
    path.write_text(json.dumps(["Noses are long."]))
    refuses("remarks", model_cards.card, "head3d", data)


def test_a_run_that_stopped_early_is_called_a_trial(tmp_path: Path) -> None:
    notes = {"images": 50, "recipe": {"stage": "teacher", "images": 100}}
    G = Generator(preset("tiny").generator)
    weights.save_generator(G, tmp_path / "weights" / "face", half=True, notes=notes)
    text = model_cards.card("face", tmp_path)
    assert "**Trial weights**: 50 of the 100 images" in text


def test_bundled_cards_are_in_step_with_the_records() -> None:
    cards = model_cards.cards()
    assert {path.parent.name for path in cards} >= {"face", "head", "head3d"}
    for path, text in cards.items():
        assert path.is_file(), f"run make tables: {path} is missing"
        assert path.read_text(encoding="utf8") == text
