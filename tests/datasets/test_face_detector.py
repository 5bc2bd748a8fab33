"""Rates with intervals, and MTCNN on pictures where the answer is known."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from head3d_core.datasets import face_detector
from head3d_core.utils.errors import Head3DError


def astronaut() -> np.ndarray:
    from skimage import data

    return data.astronaut()


def portrait() -> Tensor:
    """The astronaut's head and shoulders, [3, 256, 256]."""
    return torch.from_numpy(astronaut()[0:256, 96:352].copy()).movedim(-1, 0)


def test_a_photograph_and_pictures_without_a_face() -> None:
    noise = torch.randint(
        0, 256, (3, 256, 256), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    images = torch.stack([portrait(), torch.full((3, 256, 256), 255, dtype=torch.uint8), noise])
    probability = face_detector.face_probability(images)
    assert probability[0] > 0.99
    assert (probability[1:] < face_detector.THRESHOLD).all()
    rate = face_detector.detection_rate(images)
    assert (rate.found, rate.count) == (1, 3)
    assert face_detector.detection_rate(images[:0]).count == 0


def test_landmarks_are_on_the_face_and_in_order() -> None:
    (face,) = face_detector.find_faces(portrait()[None])[0]
    right_eye, left_eye, nose, right_mouth, left_mouth = face.landmarks
    assert face.landmarks.dtype == np.float64
    assert right_eye[0] < nose[0] < left_eye[0]
    assert right_mouth[0] < left_mouth[0]
    assert max(right_eye[1], left_eye[1]) < nose[1] < min(right_mouth[1], left_mouth[1])
    left, top, right, bottom = face.box
    assert ((face.landmarks > (left, top)) & (face.landmarks < (right, bottom))).all()


def test_sizes() -> None:
    """Arrays of several sizes go one by one; tensors of another size are judged at 256²."""
    whole, part = face_detector.find_faces([astronaut(), portrait().movedim(0, -1).numpy()])
    assert len(whole) >= 1
    assert len(part) == 1
    np.testing.assert_allclose(whole[0].landmarks - (96, 0), part[0].landmarks, atol=3)
    large = torch.nn.functional.interpolate(portrait()[None].float(), scale_factor=2, mode="nearest").byte()
    assert face_detector.face_probability(large)[0] > 0.99


def test_wrong_input() -> None:
    with pytest.raises(Head3DError, match=r"uint8 \[N, 3, H, W\]"):
        face_detector.find_faces(torch.zeros(1, 3, 256, 256))
    with pytest.raises(Head3DError, match=r"uint8 \[N, 3, H, W\]"):
        face_detector.detection_rate(torch.zeros(3, 256, 256, dtype=torch.uint8))


def test_which_renders_are_counted() -> None:
    import detector_rates
    from head3d_core.synth import sets

    faces = detector_rates.frontal_indices(40)
    assert len(faces) == 40
    for index in faces:
        yaw, pitch = sets.face_angles(sets.example("held_out_faces", index).seed)
        assert abs(math.degrees(yaw)) <= 20
        assert abs(math.degrees(pitch)) <= 15
    turn = detector_rates.turn_indices(3)
    steps = [step for _, step in turn]
    assert {steps.count(k) for k in range(9)} == {3}
    assert {steps.count(k) for k in range(9, 12)} == {6}  # back views, twice
    assert len({index for index, _ in turn}) == len(turn)


def test_rates_by_group_add_up() -> None:
    import detector_rates
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


def test_the_card_is_brought_up_to_date(tmp_path: Path) -> None:
    import detector_rates

    card = tmp_path / "CARD.md"
    start, end = "<!-- detector rates -->", "<!-- end of detector rates -->"
    card.write_text(f"# Card\n{start}\nold\n{end}\nafter\n")
    for _ in range(2):
        detector_rates.refresh_card(_found(), card)
    text = card.read_text()
    assert text == f"# Card\n{start}\n{detector_rates.table(_found())}\n{end}\nafter\n"
    assert "| frontal | gender: male | 9 of 10 | 90.0% | 60.0% to 98.0% |" in text
    card.write_text("# Card")
    with pytest.raises(Head3DError, match="needs the lines"):
        detector_rates.refresh_card(_found(), card)


def test_the_data_card_shows_the_measured_rates() -> None:
    """And they are good: fronts look like faces, backs don't."""
    import detector_rates
    from head3d_core.utils import files

    found = json.loads((files.DATA / "results" / "detector_rates.json").read_text(encoding="utf-8"))
    assert detector_rates.table(found) in (files.DATA / "DATA_CARD.md").read_text(encoding="utf-8")
    assert found["frontal"]["without heavy occlusion"]["rate"] >= 0.97
    assert found["back"]["all"]["rate"] <= 0.01


@pytest.mark.opengl
@pytest.mark.slow
def test_the_table_of_the_data_card(tmp_path: Path) -> None:
    import detector_rates

    args = detector_rates.DetectorRatesArgs(
        frontal=3, heads=1, out=tmp_path / "rates.json", card=tmp_path / "none.md", workers=1
    )
    detector_rates.run(args)
    found = json.loads(args.out.read_text())
    assert found["frontal"]["all"]["count"] == 3
    assert found["back"]["all"]["count"] == 6
    assert found["frontal"]["all"]["found"] >= 2
    assert found["back"]["all"]["found"] == 0
    assert "| frontal | all | " in detector_rates.table(found)
