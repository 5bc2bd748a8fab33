"""Did it reproduce? The paper's claims beside what was recorded, with a verdict that follows from the numbers.

Used by `results_page.py` (a table of README, the page `did_it_reproduce.md`) and by the map of the paper.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from head3d_core.evaluation import ablations
from head3d_core.evaluation.ablations import COSINE, FRONT, JANUS, Measure
from head3d_core.evaluation.rows import Rows, load_rows
from head3d_core.evaluation.tables import NOT_YET, RESULTS, load_paper, markdown, rate, repetitions
from head3d_core.utils import records as stored
from head3d_core.utils.estimates import Estimate

AGREES, CONTRADICTS, UNDECIDED, NOT_TESTED = "agrees", "contradicts", "undecided", "not tested"
Finding = tuple[str, str]
"""What was found, with its numbers, and the verdict."""
Find = Callable[[Rows], Finding]
FULL, BEHIND = "head3d", 120
"""Row of the full method; least |yaw| of steps behind, degrees."""
ALIKE = 0.95
"""Cosine from which on two images count as one person: the paper's smaller one for planes that carry none is 0.954."""


@dataclass(frozen=True)
class Claim:
    """What the paper says, and what was found."""

    place: str
    says: str
    """May name numbers of the paper: {kids} and {ids}."""
    find: Find
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


_CLAIMS: list[Claim] = []


def _claim(place: str, says: str, mapped: str, *rows: str, readme: bool = True) -> Callable[[Find], Find]:
    """Enters the decorated function as what decides a claim; for the arguments see `Claim`."""

    def enter(find: Find) -> Find:
        _CLAIMS.append(Claim(place, says, find, mapped, rows, readme))
        return find

    return enter


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


def costs(row: str, measure: Measure, records: Rows) -> list[Estimate]:
    """By how much a row is worse than each run of the full method; KeyError where the row is not recorded."""
    runs(row, records)
    found = (ablations.cost(records, row, measure, full) for full in ablations.runs_of(FULL, records))
    return [gap for gap in found if gap is not None]


def by_sign(gaps: Sequence[Estimate], above: str, below: str) -> str:
    """`above` where every interval lies above 0, `below` where every one lies below, else undecided."""
    if gaps and all(gap.decided for gap in gaps) and len({gap.low > 0 for gap in gaps}) == 1:
        return above if gaps[0].low > 0 else below
    return UNDECIDED


def _text(found: Sequence[Estimate], digits: int = 2) -> str:
    return ", ".join(e.text(digits) for e in found)


GENERATORS, WITHOUT = "face generator, DFT, FH, Head3D", "without L_kd, without"
NEAR = "Head3D is near the teacher and far better than DFT and FH (KID × 100: {kids})"
SWAP, VIEWS = "the teacher's F_xy put in", "heads from three views"


@cache
def _studies() -> dict[str, Any]:
    """Name of the axes -> the recorded study of plane exchanges."""
    files = {"true axes": "swap_study_xyz.json", "EG3D's axes": "swap_study_eg3d.json"}
    command = "python -m head3d_core swap-study"
    return {name: stored.load(RESULTS / file, command) for name, file in files.items()}


@_claim("Table 1", "F_xy carries identity", "identity after each exchange")
def front_plane_leads(records: Rows) -> Finding:
    texts, leads = [], []
    for name, study in _studies().items():
        planes = study["measures"]["identity"]["planes"].values()
        front, *others = (Estimate.of(found["carried"]) for found in planes)
        leads.append(front.low > max(e.high for e in others))
        texts.append(f"{name}: F_xy carries {front.text()}, the others {_text(others)}")
    return "; ".join(texts), AGREES if all(leads) else UNDECIDED


@_claim("Table 1", "the other planes carry none", "identity after each exchange")
def other_planes_carry_none(records: Rows) -> Finding:
    texts, kept = [], []
    for name, study in _studies().items():
        left = [Estimate.of(line["to ID 1"]) for line in study["table_1"]["identity"][1:3]]
        texts.append(f"{name}: cosine to the person left unchanged {_text(left)}")
        kept.append(min(e.high for e in left) >= ALIKE)
    return "; ".join(texts), AGREES if all(kept) else UNDECIDED if any(kept) else CONTRADICTS


@_claim("3.3", "fine-tuning on few heads costs people", "fine-tuning a head generator")
def few_heads_cost_people(records: Rows) -> Finding:
    head, face = (records[name].people for name in ("head", "face"))
    if head is None or face is None:
        raise KeyError("head")
    text = (
        f"mean identity distance of two samples {head.diversity.text()} after fine-tuning, {face.diversity.text()} "
        f"before; near-duplicates {rate(head.near_duplicates)} and {rate(face.near_duplicates)}"
    )
    return text, AGREES if head.diversity.high < face.diversity.low else CONTRADICTS


@_claim("Table 2", NEAR, GENERATORS, "dft", "fh")
def better_than_direct(records: Rows) -> Finding:
    ours, dft, fh, face = (values(row, FRONT, records) for row in (FULL, "dft", "fh", "face"))
    text = f"KD front × 100 {_text(ours)}; DFT and FH {_text(dft + fh)}; the teacher {_text(face)}"
    return text, AGREES if max(e.high for e in ours) < min(e.low for e in dft + fh) else UNDECIDED


@_claim("Table 2", "DFT is better than FH", GENERATORS, "dft", "fh", readme=False)
def direct_before_head(records: Rows) -> Finding:
    pairs = zip(values("dft", FRONT, records), values("fh", FRONT, records), strict=False)
    gaps = [a.minus(b) for a, b in pairs]
    return f"KD front × 100, DFT − FH: {_text(gaps)}", by_sign(gaps, CONTRADICTS, AGREES)


@_claim("4.2", "heads are complete, without a second face", VIEWS)
def no_second_face(records: Rows) -> Finding:
    finds = (records[name].detector.get("back") for name in runs(FULL, records))
    janus = [rate(found) for found in finds if found is not None]
    mine, real = (records[name].behind for name in (FULL, "real"))
    text = f"a detector finds a face behind in {'; '.join(janus)}"
    if mine is None or real is None:
        return f"{text}; ghost measure: {NOT_YET}", UNDECIDED
    eyes, backs = (found.ghost["eye_pair"].above for found in (mine, real))
    text = f"eyes behind in {rate(eyes)} of the bundled weights' heads, real heads {rate(backs)}; {text}"
    return text, CONTRADICTS if eyes.low > backs.high else AGREES


def _kept(kind: str) -> Find:
    def find(records: Rows) -> Finding:
        strict = [k for k in records[FULL].accessories if k.startswith(kind)]
        found = records[FULL].accessories[max(strict, key=len) if strict else kind]
        if found.student is None or found.again is None or found.teacher is None or found.probe is None:
            raise KeyError(kind)
        false = found.probe.false.value / max(found.teacher.value, 1e-9)
        text = (
            f"{kind}: Head3D keeps {rate(found.student)}, the teacher from another camera {rate(found.again)}; "
            f"at most {100 * min(false, 1):.0f} % of the teacher's finds are false"
        )
        kept = AGREES if found.student.high >= found.again.low else CONTRADICTS
        return text, UNDECIDED if false > 0.2 else kept

    return find


for _says, _kind in (("glasses are kept", "glasses"), ("hats are kept", "hat")):
    _claim("Fig. 5", _says, VIEWS, readme=False)(_kept(_kind))


@_claim("Fig. 8 a", "the teacher's F_xy put in untrained keeps identity", SWAP)
def swap_keeps_identity(records: Rows) -> Finding:
    swap, full = values("plane-swap", COSINE, records), values(FULL, COSINE, records)
    text = f"cosine at the same z {_text(swap)}; Head3D {_text(full)}"
    return text, CONTRADICTS if max(e.high for e in swap) < min(e.low for e in full) else UNDECIDED


@_claim("Fig. 8 a", "and breaks the shape", SWAP, readme=False)
def swap_breaks_shape(records: Rows) -> Finding:
    both = (records[name].silhouettes.values() for name in ("plane-swap", FULL))
    swap, full = (max(found, key=lambda e: e.value) for found in both)
    text = f"silhouettes outside real ones {rate(swap)}; Head3D {rate(full)}"
    return text, AGREES if swap.low > full.high else UNDECIDED


def worse_behind(row: str) -> Find:
    """Whether every run of a row is farther from real people behind than the full method of its seed."""

    def find(records: Rows) -> Finding:
        texts, farther, nearer = [], [], []
        for name in ablations.runs_of(row, records) or runs(row, records):
            full = records[ablations.reference_of(name, records)]
            steps = zip(records[name].by_yaw, full.by_yaw, strict=True)
            both = [(a.distance, b.distance) for a, b in steps if a.low >= BEHIND]
            gaps = [a.kernel.minus(b.kernel) for a, b in both if a and b]
            farther.append(sum(gap.low > 0 for gap in gaps))
            nearer.append(sum(gap.high < 0 for gap in gaps))
            most = max(gaps, key=lambda e: e.value).text()
            texts.append(f"seed {records[name].seed}: farther at {farther[-1]} of {len(gaps)}, most {most}")
        text = f"KD × 100 to real people in steps of yaw from {BEHIND}° on; {'; '.join(texts)}"
        if all(farther) and not any(nearer):
            return text, AGREES
        return text, CONTRADICTS if all(nearer) and not any(farther) else UNDECIDED

    return find


_BEHIND = "all planes distilled lose the back of the head"
_claim("Fig. 8 b", _BEHIND, "all planes distilled", "all-planes")(worse_behind("all-planes"))


@_claim("Fig. 8 c", "one discriminator gives two faces", "one discriminator", "single-d")
def one_discriminator(records: Rows) -> Finding:
    pairs = [(name, ablations.reference_of(name, records)) for name in ablations.runs_of("single-d", records)]
    measured = [(JANUS.of(records[one]), JANUS.of(records[full])) for one, full in pairs]
    gaps = [one.minus(full) for one, full in measured if one and full]
    if not gaps:
        raise KeyError("single-d")
    text = f"faces behind, one discriminator − two, per cent: {_text(gaps, 1)}"
    return text, by_sign(gaps, AGREES, CONTRADICTS)


LOSSES = ("no-kd", "no-gan-front", "no-rgb-lpips")


@_claim("Table 3", "every loss is needed (FID, KID)", WITHOUT)
def every_loss_needed(records: Rows) -> Finding:
    gaps = {row: costs(row, FRONT, records) for row in LOSSES}
    texts = "; ".join(f"{row} {_text(found)}" for row, found in gaps.items())
    worse = all(by_sign(found, AGREES, UNDECIDED) == AGREES for found in gaps.values())
    text = f"KD front × 100 farther than each run of the full method: {texts}"
    return text, AGREES if worse else UNDECIDED


@_claim("Table 3", "L_kd matters most for identity (ID: {ids})", WITHOUT)
def distillation_matters_most(records: Rows) -> Finding:
    found = {row: values(row, COSINE, records)[0] for row in LOSSES}
    text = "cosine at the same z: " + ", ".join(f"{row} {e.text()}" for row, e in found.items())
    others = [e for row, e in found.items() if row != "no-kd"]
    if any(e.high < found["no-kd"].low for e in others):
        return text, CONTRADICTS
    return text, AGREES if all(found["no-kd"].high < e.low for e in others) else UNDECIDED


@_claim("Table 3", "L_gan_front matters for identity", WITHOUT)
def front_gan_keeps_identity(records: Rows) -> Finding:
    gaps = costs("no-gan-front", COSINE, records)
    text = f"cosine lost without it, beside each run of the full method: {_text(gaps)}"
    return text, by_sign(gaps, AGREES, UNDECIDED)


@_claim("Fig. 10", "w interpolates smoothly", "interpolation of w")
def straight_paths(records: Rows) -> Finding:
    models = stored.load(RESULTS / "latent.json", "python -m head3d_core walk")["models"]
    ours, theirs = (Estimate.of(models[name]["path"]["bend"]) for name in (FULL, "face"))
    text = f"bend of identity along straight paths in w {ours.text()}, the teacher's {theirs.text()}"
    return text, CONTRADICTS if ours.low > theirs.high else AGREES


@_claim("Fig. 7", "better than parametric heads", "LYHM, DECA", readme=False)
def parametric_heads(records: Rows) -> Finding:
    return "the compared models need licences; ours of the same kinds see other data", NOT_TESTED


@_claim("4.1", "512², FFHQ", "512², four hours", readme=False)
def full_size(records: Rows) -> Finding:
    return "procedural people at 256²", NOT_TESTED


def claims() -> tuple[Claim, ...]:
    """Every claim of the paper that an experiment of ours could bear on, in the paper's order."""
    two, three = load_paper()["table 2"], load_paper()["table 3"]
    ids = ", ".join(f"{row} {three[row]['ID']:.2f}" for row in (*LOSSES, FULL))
    kids = ", ".join(f"{row} {two[row]['KID x100']:.2f}" for row in (FULL, "dft", "fh", "face"))
    return tuple(replace(claim, says=claim.says.format(ids=ids, kids=kids)) for claim in _CLAIMS)


def findings(records: Rows | None = None) -> list[tuple[Claim, str, str]]:
    """Every claim with what was found and the verdict."""
    known = load_rows() if records is None else records
    return [(claim, *claim.finding(known)) for claim in claims()]


def table(records: Rows, readme: bool = False) -> str:
    """Markdown: the paper's claims, what was found in every run, verdict; for README those that decide most."""
    kept = (row for row in findings(records) if row[0].readme or not readme)
    rows = [(claim.place, claim.says, text, f"**{verdict}**") for claim, text, verdict in kept]
    return markdown(("paper", "it says", "found here", "verdict"), rows)


def outcome(what: str, records: Rows | None = None) -> str:
    """The cell of the paper map for a line that begins so; empty where no claim belongs to it."""
    known = findings(records)
    return "; ".join(f"{verdict}: {text}" for claim, text, verdict in known if what.startswith(claim.mapped))
