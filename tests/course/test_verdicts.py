"""Verdicts follow from the numbers: each of them turns over when the numbers do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helpers import behind, distance, estimate, identity, rate, record

import results_page
from head3d_core.evaluation import rows, tables
from head3d_core.evaluation.rows import Accessory, Probe, Row, Step
from head3d_course import ablations, verdicts
from head3d_course.verdicts import AGREES, CONTRADICTS, NOT_TESTED, UNDECIDED


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
    assert verdicts.all_planes_behind(records, "fitted")[1] == verdict


@pytest.mark.parametrize(("janus", "verdict"), [(100, AGREES), (0, UNDECIDED), (11, UNDECIDED)])
def test_one_discriminator(janus: int, verdict: str) -> None:
    text, found = verdicts.one_discriminator(world(single_d=full(0, janus=janus)), "fitted")
    assert found == verdict, text


def test_order_of_identity_in_table_3() -> None:
    def found(kd: float, rgb: float) -> str:
        rows = {"no_kd": full(0, cosine=kd), "no_gan_front": full(0), "no_rgb_lpips": full(0, cosine=rgb)}
        return verdicts.distillation_matters_most(world(**rows), "fitted")[1]

    assert found(0.3, 0.7) == AGREES
    assert found(0.7, 0.3) == CONTRADICTS
    assert found(0.5, 0.505) == UNDECIDED


def test_every_loss_must_cost_beside_every_run() -> None:
    def found(kd: float) -> str:
        rows = {"no_kd": full(0, kd), "no_gan_front": full(0, 3.0), "no_rgb_lpips": full(0, 3.0)}
        return verdicts.every_loss_needed(world(**rows), "fitted")[1]

    assert (found(2.5), found(2.005), found(1.5)) == (AGREES, UNDECIDED, UNDECIDED)


def test_second_faces_count_against_completeness() -> None:
    real = record(0.0, row="real", behind=behind(50))
    for ghosts, verdict in ((700, CONTRADICTS), (55, AGREES)):
        records = world(head3d=record(2.0, behind=behind(ghosts))) | {"real": real}
        assert verdicts.no_second_face(records, "bundled")[1] == verdict
    records = world(head3d=record(2.0)) | {"real": replace(real, behind=None)}
    assert verdicts.no_second_face(records, "bundled")[1] == NOT_TESTED


@pytest.mark.parametrize(
    ("false", "student", "verdict"), [(1, 900, AGREES), (1, 500, CONTRADICTS), (100, 900, UNDECIDED)]
)
def test_accessories_need_true_finds(false: int, student: int, verdict: str) -> None:
    probe = Probe(rate(990), rate(false), 0.99, 0.1)
    hat = Accessory(None, probe, rate(160), rate(880), rate(student), rate(150))
    records = {"head3d": record(2.0, accessories={"hat": hat})}
    assert verdicts._kept("hat")(records, "bundled")[1] == verdict


def test_a_swap_that_keeps_the_person_would_not_contradict() -> None:
    for cosine, verdict in ((0.33, CONTRADICTS), (0.8, UNDECIDED)):
        records = world(plane_swap=record(3.0, start="untrained", identity=identity(cosine)))
        assert verdicts.swap_keeps_identity(records, "fitted")[1] == verdict


def test_what_is_not_recorded_is_not_tested() -> None:
    for claim, found in verdicts.findings({}):
        if claim.place not in ("Table 1", "Fig. 10"):
            assert [f.verdict for f in found] == [NOT_TESTED], (claim.says, found)


def test_a_run_that_changed_more_than_its_row_is_marked() -> None:
    found = {claim.says: of for claim, of in verdicts.findings(rows.load_rows())}
    fitted, trained, bundled = found["one discriminator gives two faces"]
    assert (bundled.start, bundled.verdict) == ("bundled", UNDECIDED)
    assert fitted.verdict.endswith("(confounded: single-d)")
    # Today's recipe, and two scores that oppose.
    assert (trained.start, trained.verdict) == ("trained", UNDECIDED)


def whole(row: str, seed: int, kd: float = 4.0, cosine: float = 0.7, janus: int = 17) -> Row:
    """A run from trained discriminators as it is measured whole: without steps of yaw and silhouettes."""
    made = replace(full(seed, kd, cosine, janus), row=row, start="trained", by_yaw=(), silhouettes={})
    return replace(made, distance=made.distance | {"back": distance(10 + kd, real_heads=500)})


def with_trained(**others: Row) -> dict[str, Row]:
    """The stored records, and runs from trained discriminators with made-up numbers in place of theirs."""
    stored = {name: row for name, row in rows.load_rows().items() if row.start != "trained"}
    runs = [whole("head3d", 0), whole("head3d", 1), *others.values()]
    return stored | {f"{run.row}-seed{run.seed}-trained": run for run in runs}


def found_from(start: str, records: dict[str, Row]) -> dict[str, tuple[str, str]]:
    found = [(claim, f) for claim, of in verdicts.findings(records) for f in of if f.start == start]
    return {claim.says.split(" (")[0]: (f.text, f.verdict) for claim, f in found}


def test_each_start_is_judged_by_itself() -> None:
    """Runs from trained discriminators change no figure of another start; each of their pairs gets a line."""
    worse = whole("no-kd", 0, kd=5.0, cosine=0.4)
    records = with_trained(a=worse, b=whole("all-planes", 0, kd=6.0), c=whole("single-d", 0, janus=60))
    stored = rows.load_rows()
    for start in ("none", "bundled", "fitted"):
        assert found_from(start, records) == found_from(start, stored)
    trained = found_from("trained", records)
    assert trained["every loss is needed"] == (
        "KD front × 100 farther than each run of the full method: no-kd 1.00 [0.99, 1.01], 1.00 [0.99, 1.01]; "
        "no-gan-front, no-rgb-lpips: not recorded yet",
        UNDECIDED,
    )
    assert trained["L_kd matters most for identity"][1] == UNDECIDED, "nothing to compare it with"
    text, verdict = trained["all planes distilled lose the back of the head"]
    assert "seed 0: all backs of held-out heads, farther by 2.00" in text
    # Its only run is compared with both of the full method.
    assert "seed 0 beside 1: all backs of held-out heads" in text
    assert verdict == AGREES, "its recipe is today's"
    assert trained["one discriminator gives two faces"][1] == AGREES
    assert set(trained) == {
        "heads are complete, without a second face",
        "all planes distilled lose the back of the head",
        "one discriminator gives two faces",
        "every loss is needed",
        "L_kd matters most for identity",
    }


def test_rows_with_several_runs_are_compared_by_seed() -> None:
    records = with_trained(
        a=whole("all-planes", 0, kd=6.0), b=whole("all-planes", 1, kd=3.0), c=whole("no-kd", 2, kd=5.0)
    )
    text, verdict = verdicts.all_planes_behind(records, "trained")
    assert "seed 0: all backs of held-out heads, farther by 2.00 [1.99, 2.01]; seed 1: all backs" in text
    assert verdict == UNDECIDED
    assert verdicts.pairs("no-kd", records, "trained") == [
        ("no-kd-seed2-trained", "head3d-seed0-trained"),
        ("no-kd-seed2-trained", "head3d-seed1-trained"),
    ]
    two = with_trained(a=whole("no-kd", 1), b=whole("no-kd", 2))
    # Seed 2 has no full method.
    assert verdicts.pairs("no-kd", two, "trained") == [("no-kd-seed1-trained", "head3d-seed1-trained")]
    with pytest.raises(KeyError, match="head3d"):  # what lacks is named, not the row
        verdicts.pairs("plane-swap", {"plane-swap": records["plane-swap"]}, "fitted")


def test_pages_take_runs_from_trained_discriminators() -> None:
    records = with_trained(
        a=whole("no-kd", 0), b=whole("all-planes", 0), c=whole("single-d", 0), d=whole("head3d", 2)
    )
    page = results_page.tables_page(records)
    names = [line.split(" | ")[0].strip("| ") for line in tables.table_3(records).splitlines()[2:]]
    assert names[:2] == ["without L_kd", "no-kd-seed0-trained"]
    seeds = [
        f"head3d-seed{seed}-{start}"
        for start, count in (("fitted", 2), ("trained", 3))
        for seed in range(count)
    ]
    assert [name for name in names if name.startswith("head3d-")] == seeds, "those of one start together"
    assert all(page.count(f"| {name} |") >= 3 for name in seeds)
    assert "| trained | 200,000 / 12 min |" in page
    lines = results_page.verdicts_page(records).splitlines()
    assert "|  |  | trained | one discriminator − two:" in "\n".join(lines)
    assert ablations.label("no-kd-seed0-trained", records) == "without L_kd (trained D)"
    assert ablations.reference_of("no-kd-seed0-trained", records) == "head3d-seed0-trained"
    # No repetitions of the fitted ones.
    assert ablations.repeated(records) == ablations.repeated(rows.load_rows())


def test_the_readme_has_at_most_twelve_lines() -> None:
    for records in (rows.load_rows(), with_trained(a=whole("no-kd", 0), b=whole("all-planes", 0))):
        lines = verdicts.table(records, readme=True).splitlines()
        assert len(lines) <= 2 + 12
        # Verdicts of other starts stand in one line.
        assert not [line for line in lines if "| trained |" in line]


def test_lines_of_the_map_get_their_outcome() -> None:
    assert verdicts.outcome("interpolation of w", rows.load_rows()).startswith("agrees: bend")
    assert verdicts.outcome("the weighted sum", {}) == ""
    assert estimate(1.0).text() in verdicts._text([estimate(1.0)])
