"""Ghost scores with forced answers: painted eyes, dented and repeated surfaces, and what must not matter."""

from __future__ import annotations

import pytest
import torch
from helpers import refuses
from torch import Tensor

from head3d_core.metrics import ghost

SIDE = ghost.SIDE
Y, X = torch.meshgrid(torch.arange(SIDE) + 0.5, torch.arange(SIDE) + 0.5, indexing="ij")
ROW, LEFT, RIGHT = ghost.EYE_ROW + 0.5, 127.5 - ghost.EYE_COLUMN, 128.5 + ghost.EYE_COLUMN


def disc() -> Tensor:
    """Opacity [1, 64, 64] of a round head."""
    y, x = torch.meshgrid(torch.arange(64) - 31.5, torch.arange(64) - 31.5, indexing="ij")
    return ((y**2 + x**2).sqrt() < 26).float()[None]


def blob(row: float, column: float, width: float = 4.0) -> Tensor:
    return torch.exp(-((Y - row) ** 2 + (X - column) ** 2) / (2 * width**2))


def hair(seed: int = 0, amount: float = 0.05) -> Tensor:
    """A plain back [256, 256] in [0, 1] with a little smooth texture."""
    rough = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(seed))
    return 0.5 + amount * torch.nn.functional.interpolate(rough, size=(SIDE, SIDE), mode="bicubic")[0, 0]


def picture(grey: Tensor) -> Tensor:
    return (grey.clamp(0, 1) * 255).round().to(torch.uint8).expand(1, 3, SIDE, SIDE)


def eyes(grey: Tensor, *places: tuple[float, float], depth: float = 0.25) -> float:
    for place in places:
        grey = grey - depth * blob(*place)
    return float(ghost.eye_pair(picture(grey), disc()))


def test_a_pair_of_dark_blobs_at_the_eyes_fires_and_others_do_not() -> None:
    pair = eyes(hair(), (ROW, LEFT), (ROW, RIGHT))
    assert pair > 5
    assert abs(eyes(hair())) < 2.5, "a plain back"
    one = eyes(hair(), (ROW, LEFT))
    assert one < 0.7 * pair, "one blob alone, of the same darkness"
    uneven = eyes(hair(), (ROW, LEFT), (ROW + 30, RIGHT))
    assert uneven < 0.7 * pair, "two blobs that are no pair"
    # A pair elsewhere is the texture of the others.
    assert eyes(hair(), (ROW + 30, LEFT), (ROW + 30, RIGHT)) < 1
    assert eyes(hair(), (ROW, LEFT), (ROW, RIGHT), depth=-0.25) < 0, "bright blobs"


def test_a_darker_pair_scores_higher() -> None:
    scores = [eyes(hair(), (ROW, LEFT), (ROW, RIGHT), depth=d) for d in (0.0, 0.05, 0.1, 0.2)]
    assert scores == sorted(scores)


def test_plain_backs_scatter_about_zero() -> None:
    grey = torch.stack([picture(hair(k))[0] for k in range(40)])
    score = ghost.eye_pair(grey, disc().expand(40, 64, 64))
    assert float(score.mean().abs()) < 0.5
    assert int((score > 3).sum()) <= 1


def test_eye_pair_does_not_change_with_mirroring_batch_light_or_background() -> None:
    grey = hair(1) - 0.1 * blob(ROW, LEFT) - 0.1 * blob(ROW, RIGHT)
    image, mask = picture(grey), disc()
    score = ghost.eye_pair(image, mask)
    torch.testing.assert_close(ghost.eye_pair(image.flip(-1), mask), score)
    many = ghost.eye_pair(torch.cat([image, picture(hair(2))]), mask.expand(2, 64, 64))
    torch.testing.assert_close(many[:1], score)
    inside = torch.nn.functional.interpolate(mask[:, None], size=SIDE)[0] > 0
    far = torch.nn.functional.max_pool2d(inside.float(), 9, 1, 4) == 0  # the mask's soft edge left out
    torch.testing.assert_close(ghost.eye_pair(torch.where(far, 0, image), mask), score)
    brighter = ghost.eye_pair(picture((grey + 0.05) * 1.3 - 0.05), mask)
    torch.testing.assert_close(brighter, score, rtol=0.1, atol=0.05)  # rounding to 256 levels


def surface(*dents: tuple[float, float], size: float = 0.01, seed: int = 0) -> Tensor:
    """Depth [1, 256, 256] of a slightly uneven sphere with dents (farther from the camera)."""
    height = 2.4 + ((Y - 128) ** 2 + (X - 128) ** 2) / 4e5 + 0.02 * (hair(seed) - 0.5)
    for place in dents:
        height = height + size * blob(*place, width=6.0)
    return height[None]


def test_relief_pair_fires_on_two_dents_and_not_on_one_or_on_bumps() -> None:
    mask = disc()
    pair = float(ghost.relief_pair(surface((ROW, LEFT), (ROW, RIGHT)), mask))
    assert pair > 5
    assert abs(float(ghost.relief_pair(surface(), mask))) < 2.5
    assert float(ghost.relief_pair(surface((ROW, LEFT)), mask)) < 0.7 * pair
    assert float(ghost.relief_pair(surface((ROW, LEFT), (ROW, RIGHT), size=-0.01), mask)) < 0
    moved = ghost.relief_pair(surface((ROW, LEFT), (ROW, RIGHT)) + 0.3, mask)
    torch.testing.assert_close(moved, moved.new_tensor([pair]), rtol=1e-3, atol=1e-3)


def test_front_relief_is_1_for_the_mirrored_front_and_near_0_for_another_surface() -> None:
    mask = disc()
    front = surface((ROW, LEFT), (ROW, RIGHT), (150, 120), seed=1)
    assert float(ghost.front_relief(front.flip(-1), mask, front, mask)) == pytest.approx(1, abs=1e-6)
    shifted = front.flip(-1).roll((3, -4), (1, 2))
    assert float(ghost.front_relief(shifted, mask, front, mask)) > 0.95, "a shift is looked for"
    assert float(ghost.front_relief(2 - shifted, mask, front, mask)) < 0.3, "hollow where the front is raised"
    others = [float(ghost.front_relief(surface(seed=k), mask, front, mask)) for k in range(2, 12)]
    assert max(others) < 0.6
    assert sum(others) / len(others) < 0.35


def test_what_cannot_be_measured_is_nan() -> None:
    nothing = torch.zeros(1, 64, 64)
    assert ghost.eye_pair(picture(hair()), nothing).isnan().all()
    assert ghost.relief_pair(surface(), nothing).isnan().all()
    assert ghost.front_relief(surface(), nothing, surface(), disc()).isnan().all()
    hole = disc()
    hole[:, 28:37, 22:31] = 0
    assert ghost.eye_pair(picture(hair()), hole).isnan().all(), "a hole at one eye"


def test_limits_are_percentiles_of_what_could_be_measured() -> None:
    score = torch.arange(100.0, dtype=torch.float64)
    scores = ghost.GhostScores(score, score + 1, torch.cat([score, score.new_tensor([float("nan")])]))
    found = ghost.limits(scores)
    assert found == {name: pytest.approx(94.05 + k) for name, k in zip(ghost.SCORES, (0, 1, 0), strict=True)}
    refuses("20 real", ghost.limits, ghost.GhostScores(score[:19], score, score))


def test_wrong_input_gets_a_sentence() -> None:
    refuses("uint8", ghost.eye_pair, torch.zeros(1, 3, 8, 8), disc())
    refuses(r"\[N, R, R\]", ghost.relief_pair, torch.zeros(1, 1, 8, 8), disc())
    refuses("finite", ghost.relief_pair, surface() * float("nan"), disc())
