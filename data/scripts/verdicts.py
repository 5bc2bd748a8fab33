"""Did it reproduce? The paper's claims beside what was recorded, with a verdict that follows from the numbers.

Used by `results_page.py` (a table of README, the page `did_it_reproduce.md`) and by the map of the paper.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from head3d_core.evaluation import ablations
from head3d_core.evaluation.ablations import COSINE, FRONT, JANUS, Measure
from head3d_core.evaluation.rows import Rows, load_rows
from head3d_core.evaluation.tables import NOT_YET, RESULTS, load_paper, rate, repetitions
from head3d_core.utils import records as stored
from head3d_core.utils.estimates import Estimate

AGREES, CONTRADICTS, UNDECIDED, NOT_TESTED = "agrees", "contradicts", "undecided", "not tested"
Finding = tuple[str, str]
"""What was found, with its numbers, and the verdict."""
FULL, BEHIND = "head3d", 120
"""Row of the full method; least |yaw| of steps behind, degrees."""
ALIKE = 0.95
"""Cosine from which on two images count as one person: the paper's smaller one for planes that carry none is 0.954."""


@dataclass(frozen=True)
class Claim:
    """What the paper says, and what was found."""

    place: str
    says: str
    find: Callable[[Rows], Finding]
    mapped: str
    """How the line of `paper_map.md` begins that shows this verdict."""
    rows: tuple[str, ...] = ()
    """Rows that it is about: a recorded run that changed more than its row does is named."""
    readme: bool = True

    def finding(self, records: Rows) -> Finding:
        """The text and the verdict; "not tested" where a record is not there."""
        try:
            text, verdict = self.find(records)
        except KeyError as error:
            return f"{error.args[0]}: {NOT_YET}", NOT_TESTED
        changed = [row for row in self.rows if ablations.recorded_otherwise(row)]
        if changed and verdict in (AGREES, CONTRADICTS):
            verdict += f" (confounded: {', '.join(changed)})"
        return text, verdict


def runs(row: str, records: Rows) -> list[str]:
    """The recorded runs of a row; KeyError where there is none."""
    found = [name for name in (row, *repetitions(row, records)) if name in records]
    if not found:
        raise KeyError(row)
    return found


def values(row: str, measure: Measure, records: Rows) -> list[Estimate]:
    """A measure of every recorded run of a row."""
    found = [measure.of(records[name]) for name in runs(row, records)]
    return [e for e in found if e is not None]


def _text(found: Sequence[Estimate], digits: int = 2) -> str:
    return ", ".join(e.text(digits) for e in found)


@cache
def _study(axes: str) -> Any:
    return stored.load(RESULTS / f"swap_study_{axes}.json", "python -m head3d_core swap-study")


def _planes(axes: str) -> dict[str, Estimate]:
    planes = _study(axes)["measures"]["identity"]["planes"]
    return {name: Estimate.of(found["carried"]) for name, found in planes.items()}


def front_plane_leads(records: Rows) -> Finding:
    texts, leads = [], []
    for axes, name in (("xyz", "true axes"), ("eg3d", "EG3D's axes")):
        front, *others = _planes(axes).values()
        leads.append(front.low > max(e.high for e in others))
        texts.append(f"{name}: F_xy carries {front.text()}, the others {_text(others)}")
    return "; ".join(texts), AGREES if all(leads) else UNDECIDED


def other_planes_carry_none(records: Rows) -> Finding:
    texts, kept = [], []
    for axes, name in (("xyz", "true axes"), ("eg3d", "EG3D's axes")):
        lines = _study(axes)["table_1"]["identity"][1:3]
        left = [Estimate.of(line["to ID 1"]) for line in lines]
        texts.append(f"{name}: cosine to the person left unchanged {_text(left)}")
        kept.append(min(e.high for e in left) >= ALIKE)
    return "; ".join(texts), AGREES if all(kept) else UNDECIDED if any(kept) else CONTRADICTS


def few_heads_cost_people(records: Rows) -> Finding:
    head, face = (records[name].people for name in ("head", "face"))
    if head is None or face is None:
        raise KeyError("head")
    text = (
        f"mean identity distance of two samples {head.diversity.text()} after fine-tuning, {face.diversity.text()} "
        f"before; near-duplicates {rate(head.near_duplicates)} and {rate(face.near_duplicates)}"
    )
    return text, AGREES if head.diversity.high < face.diversity.low else CONTRADICTS


def better_than_direct(records: Rows) -> Finding:
    ours, others = values(FULL, FRONT, records), values("dft", FRONT, records) + values("fh", FRONT, records)
    text = (
        f"KD front × 100 {_text(ours)}; DFT and FH {_text(others)}; the teacher "
        f"{_text(values('face', FRONT, records))}"
    )
    if max(e.high for e in ours) < min(e.low for e in others):
        return text, AGREES
    return text, UNDECIDED


def direct_before_head(records: Rows) -> Finding:
    pairs = zip(values("dft", FRONT, records), values("fh", FRONT, records), strict=False)
    gaps = [a.minus(b) for a, b in pairs]
    text = f"KD front × 100, DFT − FH: {_text(gaps)}"
    if all(gap.high < 0 for gap in gaps):
        return text, AGREES
    return text, CONTRADICTS if all(gap.low > 0 for gap in gaps) else UNDECIDED


def no_second_face(records: Rows) -> Finding:
    janus = [rate(records[name].detector.get("back")) for name in runs(FULL, records)]
    mine, real = (records[name].behind for name in (FULL, "real"))
    text = f"a detector finds a face behind in {'; '.join(janus)}"
    if mine is None or real is None:
        return f"{text}; ghost measure: {NOT_YET}", UNDECIDED
    eyes, backs = (found.ghost["eye_pair"].above for found in (mine, real))
    text = f"eyes behind in {rate(eyes)} of the bundled weights' heads, real heads {rate(backs)}; {text}"
    return text, CONTRADICTS if eyes.low > backs.high else AGREES


def _kept(kind: str) -> Callable[[Rows], Finding]:
    def find(records: Rows) -> Finding:
        strict = [k for k in records[FULL].accessories if k.startswith(kind)]
        found = records[FULL].accessories[max(strict, key=len) if strict else kind]
        if found.student is None or found.again is None or found.teacher is None or found.probe is None:
            raise KeyError(kind)
        false = found.probe.false.value / max(found.teacher.value, 1e-9)
        text = (
            f"{kind}: Head3D keeps {rate(found.student)}, the teacher from another camera {rate(found.again)}; "
            f"at most {min(false, 1):.0%} of the teacher's finds are false".replace("%", " %").replace(
                "  %", " %"
            )
        )
        if false > 0.2:
            return text, UNDECIDED
        return text, AGREES if found.student.high >= found.again.low else CONTRADICTS

    return find


def swap_keeps_identity(records: Rows) -> Finding:
    swap, full = values("plane-swap", COSINE, records), values(FULL, COSINE, records)
    text = f"cosine at the same z {_text(swap)}; Head3D {_text(full)}"
    return text, CONTRADICTS if max(e.high for e in swap) < min(e.low for e in full) else UNDECIDED


def swap_breaks_shape(records: Rows) -> Finding:
    worst = {}
    for name in ("plane-swap", FULL):
        worst[name] = max(records[name].silhouettes.values(), key=lambda e: e.value)
    text = f"silhouettes outside real ones {rate(worst['plane-swap'])}; Head3D {rate(worst[FULL])}"
    return text, AGREES if worst["plane-swap"].low > worst[FULL].high else UNDECIDED


def worse_behind(row: str) -> Callable[[Rows], Finding]:
    """Whether every run of a row is farther from real people behind than the full method of its seed."""

    def find(records: Rows) -> Finding:
        texts, farther, nearer = [], [], []
        for name in ablations.runs_of(row, records) or runs(row, records):
            full = records[ablations.reference_of(name, records)]
            gaps = {}
            for one, two in zip(records[name].by_yaw, full.by_yaw, strict=True):
                if one.low >= BEHIND and one.distance and two.distance:
                    gaps[one.low] = one.distance.kernel.minus(two.distance.kernel)
            farther.append(sum(gap.low > 0 for gap in gaps.values()))
            nearer.append(sum(gap.high < 0 for gap in gaps.values()))
            largest = max(gaps.values(), key=lambda e: e.value)
            texts.append(
                f"seed {records[name].seed}: farther at {farther[-1]} of {len(gaps)}, most {largest.text()}"
            )
        text = f"KD × 100 to real people in steps of yaw from {BEHIND}° on; {'; '.join(texts)}"
        if all(farther) and not any(nearer):
            return text, AGREES
        return text, CONTRADICTS if all(nearer) and not any(farther) else UNDECIDED

    return find


def one_discriminator(records: Rows) -> Finding:
    gaps = []
    for name in ablations.runs_of("single-d", records):
        one = JANUS.of(records[name])
        full = JANUS.of(records[ablations.reference_of(name, records)])
        if one and full:
            gaps.append(one.minus(full))
    text = f"faces behind, one discriminator − two, per cent: {_text(gaps, 1)}"
    if not gaps:
        raise KeyError("single-d")
    if all(gap.low > 0 for gap in gaps):
        return text, AGREES
    return text, CONTRADICTS if all(gap.high < 0 for gap in gaps) else UNDECIDED


LOSSES = ("no-kd", "no-gan-front", "no-rgb-lpips")


def every_loss_needed(records: Rows) -> Finding:
    fulls = ablations.runs_of(FULL, records)
    texts, worse = [], []
    for row in LOSSES:
        runs(row, records)
        gaps = [ablations.cost(records, row, FRONT, full) for full in fulls]
        known = [gap for gap in gaps if gap is not None]
        texts.append(f"{row} {_text(known)}")
        worse.append(bool(known) and all(gap.low > 0 for gap in known))
    text = f"KD front × 100 farther than each run of the full method: {'; '.join(texts)}"
    return text, AGREES if all(worse) else UNDECIDED


def distillation_matters_most(records: Rows) -> Finding:
    found = {row: values(row, COSINE, records)[0] for row in LOSSES}
    text = "cosine at the same z: " + ", ".join(f"{row} {e.text()}" for row, e in found.items())
    others = [e for row, e in found.items() if row != "no-kd"]
    if any(e.high < found["no-kd"].low for e in others):
        return text, CONTRADICTS
    return text, AGREES if all(found["no-kd"].high < e.low for e in others) else UNDECIDED


def front_gan_keeps_identity(records: Rows) -> Finding:
    row, fulls = "no-gan-front", ablations.runs_of(FULL, records)
    runs(row, records)
    gaps = [gap for full in fulls if (gap := ablations.cost(records, row, COSINE, full)) is not None]
    text = f"cosine lost without it, beside each run of the full method: {_text(gaps)}"
    if gaps and all(gap.low > 0 for gap in gaps):
        return text, AGREES
    return text, UNDECIDED


def straight_paths(records: Rows) -> Finding:
    models = stored.load(RESULTS / "latent.json", "python -m head3d_core walk")["models"]
    ours, theirs = (Estimate.of(models[name]["path"]["bend"]) for name in (FULL, "face"))
    text = f"bend of identity along straight paths in w {ours.text()}, the teacher's {theirs.text()}"
    return text, CONTRADICTS if ours.low > theirs.high else AGREES


def _untested(why: str) -> Callable[[Rows], Finding]:
    return lambda records: (why, NOT_TESTED)


def claims() -> tuple[Claim, ...]:
    """Every claim of the paper that an experiment of ours could bear on."""
    paper = load_paper()
    two, three = paper["table 2"], paper["table 3"]
    ids = ", ".join(f"{row} {three[row]['ID']:.2f}" for row in (*LOSSES, FULL))
    kids = ", ".join(f"{row} {two[row]['KID x100']:.2f}" for row in (FULL, "dft", "fh", "face"))
    return (
        Claim("Table 1", "F_xy carries identity", front_plane_leads, "identity after each exchange"),
        Claim(
            "Table 1",
            "the other planes carry none",
            other_planes_carry_none,
            "identity after each exchange",
        ),
        Claim(
            "3.3",
            "fine-tuning on few heads costs people",
            few_heads_cost_people,
            "fine-tuning a head generator",
        ),
        Claim(
            "Table 2",
            f"Head3D is near the teacher and far better than DFT and FH (KID × 100: {kids})",
            better_than_direct,
            "face generator, DFT, FH, Head3D",
            ("dft", "fh"),
        ),
        Claim(
            "Table 2",
            "DFT is better than FH",
            direct_before_head,
            "face generator, DFT, FH, Head3D",
            ("dft", "fh"),
            readme=False,
        ),
        Claim("4.2", "heads are complete, without a second face", no_second_face, "heads from three views"),
        Claim("Fig. 5", "glasses are kept", _kept("glasses"), "heads from three views", readme=False),
        Claim("Fig. 5", "hats are kept", _kept("hat"), "heads from three views", readme=False),
        Claim(
            "Fig. 8 a",
            "the teacher's F_xy put in untrained keeps identity",
            swap_keeps_identity,
            "the teacher's F_xy put in",
        ),
        Claim(
            "Fig. 8 a", "and breaks the shape", swap_breaks_shape, "the teacher's F_xy put in", readme=False
        ),
        Claim(
            "Fig. 8 b",
            "all planes distilled lose the back of the head",
            worse_behind("all-planes"),
            "all planes distilled",
            ("all-planes",),
        ),
        Claim(
            "Fig. 8 c",
            "one discriminator gives two faces",
            one_discriminator,
            "one discriminator",
            ("single-d",),
        ),
        Claim("Table 3", "every loss is needed (FID, KID)", every_loss_needed, "without L_kd, without"),
        Claim(
            "Table 3",
            f"L_kd matters most for identity (ID: {ids})",
            distillation_matters_most,
            "without L_kd, without",
        ),
        Claim(
            "Table 3",
            "L_gan_front matters for identity",
            front_gan_keeps_identity,
            "without L_kd, without",
        ),
        Claim("Fig. 10", "w interpolates smoothly", straight_paths, "interpolation of w"),
        Claim(
            "Fig. 7",
            "better than parametric heads",
            _untested("the compared models need licences; ours of the same kinds see other data"),
            "LYHM, DECA",
            readme=False,
        ),
        Claim("4.1", "512², FFHQ", _untested("procedural people at 256²"), "512², four hours", readme=False),
    )


def findings(records: Rows | None = None) -> list[tuple[Claim, str, str]]:
    """Every claim with what was found and the verdict."""
    known = load_rows() if records is None else records
    return [(claim, *claim.finding(known)) for claim in claims()]


def table(records: Rows, readme: bool = False) -> str:
    """Markdown: the paper's claims, what was found in every run, verdict; for README those that decide most."""
    lines = ["| paper | it says | found here | verdict |", "|---|---|---|---|"]
    for claim, text, verdict in findings(records):
        if claim.readme or not readme:
            lines.append(f"| {claim.place} | {claim.says} | {text} | **{verdict}** |")
    return "\n".join(lines)


def outcome(what: str, records: Rows | None = None) -> str:
    """The cell of the paper map for a line that begins so; empty where no claim belongs to it."""
    found = [
        f"{verdict}: {text}" for claim, text, verdict in findings(records) if what.startswith(claim.mapped)
    ]
    return "; ".join(found)
