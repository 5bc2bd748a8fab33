"""Verdicts follow from the numbers: each of them turns over when the numbers do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helpers import behind, distance, estimate, identity, rate, record

import verdicts
from head3d_core.evaluation import rows
from head3d_core.evaluation.rows import Accessory, Probe, Row, Step
from verdicts import AGREES, CONTRADICTS, NOT_TESTED, UNDECIDED


def turn(kd: float) -> tuple[Step, ...]:
    return tuple(Step(15 * k, 15 * k + 15, distance(kd)) for k in range(12))


def full(seed: int, kd: float = 2.0, cosine: float = 0.8, janus: int = 10) -> Row:
    rates = {"front": rate(980), "back": rate(janus)}
    made = record(kd, seed=seed, start="fitted", identity=identity(cosine), detector=rates)
    return replace(made, by_yaw=turn(kd))


def world(**others: Row) -> dict[str, Row]:
    both = {f"head3d-seed{seed}-fitted": full(seed) for seed in (0, 1)}
    return both | {
        name.replace("_", "-"): replace(row, row=name.replace("_", "-")) for name, row in others.items()
    }


@pytest.mark.parametrize(
    ("kd", "verdict"), [((3.0, 3.0), AGREES), ((1.0, 1.0), CONTRADICTS), ((3.0, 1.0), UNDECIDED)]
)
def test_all_planes_behind(kd: tuple[float, float], verdict: str) -> None:
    records = world(all_planes=full(0, kd[0]))
    records["all-planes-seed1-fitted"] = replace(full(1, kd[1]), row="all-planes")
    assert verdicts.worse_behind("all-planes")(records)[1] == verdict


@pytest.mark.parametrize(("janus", "verdict"), [(100, AGREES), (0, UNDECIDED), (11, UNDECIDED)])
def test_one_discriminator(janus: int, verdict: str) -> None:
    text, found = verdicts.one_discriminator(world(single_d=full(0, janus=janus)))
    assert found == verdict, text


def test_order_of_identity_in_table_3() -> None:
    def found(kd: float, rgb: float) -> str:
        rows = {"no_kd": full(0, cosine=kd), "no_gan_front": full(0), "no_rgb_lpips": full(0, cosine=rgb)}
        return verdicts.distillation_matters_most(world(**rows))[1]

    assert found(0.3, 0.7) == AGREES
    assert found(0.7, 0.3) == CONTRADICTS
    assert found(0.5, 0.505) == UNDECIDED


def test_every_loss_must_cost_beside_every_run() -> None:
    def found(kd: float) -> str:
        rows = {"no_kd": full(0, kd), "no_gan_front": full(0, 3.0), "no_rgb_lpips": full(0, 3.0)}
        return verdicts.every_loss_needed(world(**rows))[1]

    assert (found(2.5), found(2.005), found(1.5)) == (AGREES, UNDECIDED, UNDECIDED)


def test_second_faces_count_against_completeness() -> None:
    real = record(0.0, row="real", behind=behind(50))
    for ghosts, verdict in ((700, CONTRADICTS), (55, AGREES)):
        records = world(head3d=record(2.0, behind=behind(ghosts))) | {"real": real}
        assert verdicts.no_second_face(records)[1] == verdict
    assert (
        verdicts.no_second_face(world(head3d=record(2.0)) | {"real": replace(real, behind=None)})[1]
        == UNDECIDED
    )


@pytest.mark.parametrize(
    ("false", "student", "verdict"), [(1, 900, AGREES), (1, 500, CONTRADICTS), (100, 900, UNDECIDED)]
)
def test_accessories_need_true_finds(false: int, student: int, verdict: str) -> None:
    hat = Accessory(
        None, Probe(rate(990), rate(false), 0.99, 0.1), rate(160), rate(880), rate(student), rate(150)
    )
    records = {"head3d": record(2.0, accessories={"hat": hat})}
    assert verdicts._kept("hat")(records)[1] == verdict


def test_a_swap_that_keeps_the_person_would_not_contradict() -> None:
    for cosine, verdict in ((0.33, CONTRADICTS), (0.8, UNDECIDED)):
        records = world(plane_swap=record(3.0, identity=identity(cosine)), head3d=full(0))
        assert verdicts.swap_keeps_identity(records)[1] == verdict


def test_what_is_not_recorded_is_not_tested() -> None:
    for claim, text, verdict in verdicts.findings({}):
        if claim.place not in ("Table 1", "Fig. 10"):
            assert verdict == NOT_TESTED, (claim.says, text)


def test_a_run_that_changed_more_than_its_row_is_marked() -> None:
    found = {claim.says: verdict for claim, _, verdict in verdicts.findings(rows.load_rows())}
    assert found["one discriminator gives two faces"].endswith("(confounded: single-d)")


def test_the_readme_has_at_most_twelve_lines() -> None:
    text = verdicts.table(rows.load_rows(), readme=True)
    assert len(text.splitlines()) <= 2 + 12


def test_lines_of_the_map_get_their_outcome() -> None:
    assert verdicts.outcome("interpolation of w", rows.load_rows()).startswith("agrees: bend")
    assert verdicts.outcome("the weighted sum", {}) == ""
    assert estimate(1.0).text() in verdicts._text([estimate(1.0)])
