"""Did it reproduce? The paper's claims beside what was recorded, with a verdict that follows from the numbers.

A row is compared with the full method from the same start of the discriminators alone, so a claim has a verdict for
each start. Used by `results_page.py` (a table of README, the page `did_it_reproduce.md`) and by the map of the paper.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

from head3d_core.evaluation.rows import Row, Rows, load_rows
from head3d_core.evaluation.tables import NOT_YET, RESULTS, load_paper, markdown, rate
from head3d_core.utils import records as stored
from head3d_core.utils.estimates import NONE, Estimate
from head3d_course import ablations
from head3d_course.ablations import COSINE, FRONT, FULL, JANUS, SECOND_FACES, Measure, runs_of

AGREES, CONTRADICTS, UNDECIDED, NOT_TESTED = "agrees", "contradicts", "undecided", "not tested"
Find = Callable[[Rows, str], tuple[str, str]]
"""Of records and a start: what was found, with its numbers, and the verdict."""
EYES = SECOND_FACES[0]
OUTSIDE = Measure("silhouettes outside real ones", "low", lambda r: r.outside)
BEHIND = 120
"""Least |yaw| of steps behind, degrees."""
ALIKE = 0.95
"""Cosine from which on two images count as one person: the paper's smaller one for planes that carry none is 0.954."""


class Finding(NamedTuple):
    """What the runs from one start say about a claim."""

    start: str
    text: str
    verdict: str


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
    starts: tuple[str, ...] = ("fitted", "trained")
    """What the discriminators started from; "none" where the claim is about none. The first is the one in README."""
    readme: bool = True

    def finding(self, records: Rows, start: str) -> Finding:
        """What the runs from one start say: "not tested" where a record is not there."""
        try:
            text, verdict = self.find(records, start)
        except KeyError as error:
            return Finding(start, f"{error.args[0]}: {NOT_YET}", NOT_TESTED)
        runs = {row: runs_of(row, records, start) for row in self.rows}
        changed = [row for row, names in runs.items() if any(map(ablations.recorded_otherwise, names))]
        if changed and verdict in (AGREES, CONTRADICTS):
            verdict += f" (confounded: {', '.join(changed)})"
        return Finding(start, text, verdict)

    def findings(self, records: Rows) -> list[Finding]:
        """From its first start, and from those others of which something is recorded."""
        first, *others = (self.finding(records, start) for start in self.starts)
        return [first, *(found for found in others if found.verdict != NOT_TESTED)]


_CLAIMS: list[Claim] = []


def _claim(place: str, says: str, mapped: str, *rows: str, **more: Any) -> Callable[[Find], Find]:
    """Enters the decorated function as what decides a claim; for the arguments see `Claim`."""

    def enter(find: Find) -> Find:
        _CLAIMS.append(Claim(place, says, find, mapped, rows, **more))
        return find

    return enter


def known(found: Iterable[Estimate | None], row: str) -> list[Estimate]:
    """What was measured of a row; KeyError with the row's name where nothing was."""
    if not (estimates := [e for e in found if e is not None]):
        raise KeyError(row)
    return estimates


def values(row: str, measure: Measure, records: Rows, start: str) -> list[Estimate]:
    """A measure of every run of a row from one start; KeyError where none has it."""
    return known((measure.of(records[name]) for name in runs_of(row, records, start)), row)


def pairs(row: str, records: Rows, start: str) -> list[tuple[str, str]]:
    """(run, full method of its seed) of every run of a row from one start; a row's only run beside each full method."""
    runs, fulls = runs_of(row, records, start), runs_of(FULL, records, start)
    if runs and not fulls:
        raise KeyError(FULL)
    if len(runs) == 1:
        return [(runs[0], full) for full in fulls]
    found = [(name, ablations.reference_of(name, records)) for name in runs]
    return [(name, full) for name, full in found if records[name].seed == records[full].seed]


def costs(row: str, measure: Measure, records: Rows, start: str) -> list[Estimate]:
    """By how much a row is worse than the full method, for each of `pairs`; KeyError where that was not measured."""
    compared = pairs(row, records, start)
    return known((ablations.cost(records, name, measure, full) for name, full in compared), row)


def for_each(
    rows: Sequence[str], of: Callable[[str], list[Estimate]]
) -> tuple[dict[str, list[Estimate]], str]:
    """What `of` gives for those rows that are recorded, and words on the others; KeyError where none is."""
    found, missing = {}, {}
    for row in rows:
        try:
            found[row] = of(row)
        except KeyError as error:
            missing[row] = error
    if not found:
        raise missing[rows[0]]
    return found, f"; {', '.join(missing)}: {NOT_YET}" if missing else ""


def below(these: Sequence[Estimate], those: Sequence[Estimate]) -> bool:
    """Whether every interval of `these` lies below every one of `those`."""
    return max(e.high for e in these) < min(e.low for e in those)


def by_sign(gaps: Sequence[Estimate], above: str, below: str) -> str:
    """`above` where every interval lies above 0, `below` where every one lies below, else undecided."""
    if gaps and all(gap.decided for gap in gaps) and len({gap.low > 0 for gap in gaps}) == 1:
        return above if gaps[0].low > 0 else below
    return UNDECIDED


def _text(found: Sequence[Estimate], digits: int = 2) -> str:
    return ", ".join(e.text(digits) for e in found)


def _rates(found: Sequence[Estimate]) -> str:
    return "; ".join(map(rate, found))


GENERATORS, WITHOUT = "face generator, DFT, FH, Head3D", "without L_kd, without"
NEAR = "Head3D is near the teacher and far better than DFT and FH (KID × 100: {kids})"
SWAP, VIEWS = "the teacher's F_xy put in", "heads from three views"
EXCHANGED = "identity after each exchange"
NO_D = ("none",)


@cache
def _studies() -> dict[str, Any]:
    """Name of the axes -> the recorded study of plane exchanges."""
    files = {"true axes": "swap_study_xyz.json", "EG3D's axes": "swap_study_eg3d.json"}
    command = "python -m head3d_core swap-study"
    return {name: stored.load(RESULTS / file, command) for name, file in files.items()}


@_claim("Table 1", "F_xy carries identity", EXCHANGED, starts=NO_D)
def front_plane_leads(records: Rows, start: str) -> tuple[str, str]:
    texts, leads = [], []
    for name, study in _studies().items():
        planes = study["measures"]["identity"]["planes"].values()
        front, *others = (Estimate.of(found["carried"]) for found in planes)
        leads.append(front.low > max(e.high for e in others))
        texts.append(f"{name}: F_xy carries {front.text()}, the others {_text(others)}")
    return "; ".join(texts), AGREES if all(leads) else UNDECIDED


@_claim("Table 1", "the other planes carry none", EXCHANGED, starts=NO_D)
def other_planes_carry_none(records: Rows, start: str) -> tuple[str, str]:
    texts, kept = [], []
    for name, study in _studies().items():
        left = [Estimate.of(line["to ID 1"]) for line in study["table_1"]["identity"][1:3]]
        texts.append(f"{name}: cosine to the person left unchanged {_text(left)}")
        kept.append(min(e.high for e in left) >= ALIKE)
    return "; ".join(texts), AGREES if all(kept) else UNDECIDED if any(kept) else CONTRADICTS


@_claim("3.3", "fine-tuning on few heads costs people", "fine-tuning a head generator", starts=NO_D)
def few_heads_cost_people(records: Rows, start: str) -> tuple[str, str]:
    head, face = (records[name].people for name in ("head", "face"))
    if head is None or face is None:
        raise KeyError("head")
    text = (
        f"mean identity distance of two samples {head.diversity.text()} after fine-tuning, {face.diversity.text()} "
        f"before; near-duplicates {rate(head.near_duplicates)} and {rate(face.near_duplicates)}"
    )
    return text, AGREES if head.diversity.high < face.diversity.low else CONTRADICTS


@_claim("Table 2", NEAR, GENERATORS, "dft", "fh")
def better_than_direct(records: Rows, start: str) -> tuple[str, str]:
    ours, dft, fh = (values(row, FRONT, records, start) for row in (FULL, "dft", "fh"))
    face = values("face", FRONT, records, "none")
    text = f"KD front × 100 {_text(ours)}; DFT and FH {_text(dft + fh)}; the teacher {_text(face)}"
    return text, AGREES if below(ours, dft + fh) else UNDECIDED


@_claim("Table 2", "DFT is better than FH", GENERATORS, "dft", "fh", readme=False)
def direct_before_head(records: Rows, start: str) -> tuple[str, str]:
    runs = ([records[name] for name in runs_of(row, records, start)] for row in ("dft", "fh"))
    dft, fh = ({(run.seed, run.run): FRONT.of(run) for run in of_row} for of_row in runs)
    both = ((dft[key], fh[key]) for key in dft if key in fh)
    gaps = known((a.minus(b) for a, b in both if a and b), "dft")
    return f"KD front × 100, DFT − FH: {_text(gaps)}", by_sign(gaps, CONTRADICTS, AGREES)


@_claim("4.2", "heads are complete, without a second face", VIEWS, starts=("bundled", "fitted", "trained"))
def no_second_face(records: Rows, start: str) -> tuple[str, str]:
    if not (runs := [records[name] for name in runs_of(FULL, records, start)]):
        raise KeyError(FULL)
    eyes, janus = ([e for run in runs if (e := measure.read(run))] for measure in (EYES, JANUS))
    text = f"a detector finds a face behind in {_rates(janus) or NONE}"
    if not eyes or (real := EYES.read(records["real"])) is None:
        return f"{text}; ghost measure: {NOT_YET}", NOT_TESTED
    text = f"eyes behind in {_rates(eyes)} of heads, in {rate(real)} of real ones; {text}"
    more = {e.low > real.high for e in eyes}
    return text, UNDECIDED if len(more) > 1 else CONTRADICTS if more.pop() else AGREES


def _kept(kind: str) -> Find:
    def find(records: Rows, start: str) -> tuple[str, str]:
        worn = records[FULL].accessories
        found = worn[max((k for k in worn if k.startswith(kind)), key=len, default=kind)]
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
    _claim("Fig. 5", _says, VIEWS, starts=("bundled",), readme=False)(_kept(_kind))


@_claim("Fig. 8 a", "the teacher's F_xy put in untrained keeps identity", SWAP)
def swap_keeps_identity(records: Rows, start: str) -> tuple[str, str]:
    swap, full = (values(row, COSINE, records, start) for row in ("plane-swap", FULL))
    text = f"cosine at the same z {_text(swap)}; Head3D {_text(full)}"
    return text, CONTRADICTS if below(swap, full) else UNDECIDED


@_claim("Fig. 8 a", "and breaks the shape", SWAP, readme=False)
def swap_breaks_shape(records: Rows, start: str) -> tuple[str, str]:
    swap, full = (values(row, OUTSIDE, records, start) for row in ("plane-swap", FULL))
    text = f"silhouettes outside real ones {_rates(swap)}; Head3D {_rates(full)}"
    return text, AGREES if below(full, swap) else UNDECIDED


def farther_behind(row: Row, full: Row) -> list[Estimate]:
    """By how much a run is farther from real people than another in each step behind; where these lack, over all."""
    there = {(step.low, step.high): step.distance for step in full.by_yaw}
    both = [(a.distance, there.get((a.low, a.high))) for a in row.by_yaw if a.low >= BEHIND]
    if found := [a.kernel.minus(b.kernel) for a, b in both if a and b]:
        return found
    one, other = row.distance.get("back"), full.distance.get("back")
    same = one and other and one.real_heads == other.real_heads
    return [one.kernel.minus(other.kernel)] if one and other and same else []


@_claim("Fig. 8 b", "all planes distilled lose the back of the head", "all planes distilled", "all-planes")
def all_planes_behind(records: Rows, start: str) -> tuple[str, str]:
    texts, farther, nearer = [], [], []
    for name, full in pairs("all-planes", records, start):
        gaps = known(farther_behind(records[name], records[full]), name)
        farther.append(sum(gap.low > 0 for gap in gaps))
        nearer.append(sum(gap.high < 0 for gap in gaps))
        seeds = dict.fromkeys(records[run].seed for run in (name, full))
        most = max(gaps, key=lambda e: e.value).text()
        steps = f"farther at {farther[-1]} of {len(gaps)}, most"
        where = steps if len(gaps) > 1 else "all backs of held-out heads, farther by"
        texts.append(f"seed {' beside '.join(map(str, seeds))}: {where} {most}")
    if not texts:
        raise KeyError("all-planes")
    text = f"KD × 100 in steps of yaw from {BEHIND}° on, to real people; {'; '.join(texts)}"
    if all(farther) and not any(nearer):
        return text, AGREES
    return text, CONTRADICTS if all(nearer) and not any(farther) else UNDECIDED


TWO_FACES, EVERY = "one discriminator gives two faces", ("fitted", "trained", "bundled")


@_claim("Fig. 8 c", TWO_FACES, "one discriminator", "single-d", starts=EVERY)
def one_discriminator(records: Rows, start: str) -> tuple[str, str]:
    measures = {measure.name: measure for measure in (JANUS, *SECOND_FACES)}
    found, _ = for_each([*measures], lambda name: costs("single-d", measures[name], records, start))
    text = "; ".join(f"{name} {_text(gaps, 1)}" for name, gaps in found.items())
    said = {by_sign(gaps, AGREES, CONTRADICTS) for gaps in found.values()} - {UNDECIDED}
    of_pairs = {by_sign([gap], AGREES, CONTRADICTS) for gaps in found.values() for gap in gaps} - {UNDECIDED}
    # A pair of runs that says the opposite by another measure leaves it open.
    return f"one discriminator − two: {text}", said.pop() if said and said == of_pairs else UNDECIDED


LOSSES = ("no-kd", "no-gan-front", "no-rgb-lpips")


@_claim("Table 3", "every loss is needed (FID, KID)", WITHOUT)
def every_loss_needed(records: Rows, start: str) -> tuple[str, str]:
    gaps, missing = for_each(LOSSES, lambda row: costs(row, FRONT, records, start))
    texts = "; ".join(f"{row} {_text(found)}" for row, found in gaps.items())
    worse = not missing and all(by_sign(found, AGREES, UNDECIDED) == AGREES for found in gaps.values())
    text = f"KD front × 100 farther than each run of the full method: {texts}{missing}"
    return text, AGREES if worse else UNDECIDED


@_claim("Table 3", "L_kd matters most for identity (ID: {ids})", WITHOUT)
def distillation_matters_most(records: Rows, start: str) -> tuple[str, str]:
    found, missing = for_each(LOSSES, lambda row: values(row, COSINE, records, start))
    texts = ", ".join(f"{row} {_text(same)}" for row, same in found.items())
    text = f"cosine at the same z: {texts}{missing}"
    without = found.pop("no-kd", [])
    if without and any(below(other, without) for other in found.values()):
        return text, CONTRADICTS
    most = not missing and all(below(without, other) for other in found.values())
    return text, AGREES if most else UNDECIDED


@_claim("Table 3", "L_gan_front matters for identity", WITHOUT)
def front_gan_keeps_identity(records: Rows, start: str) -> tuple[str, str]:
    gaps = costs("no-gan-front", COSINE, records, start)
    text = f"cosine lost without it, beside each run of the full method: {_text(gaps)}"
    return text, by_sign(gaps, AGREES, UNDECIDED)


@_claim("Fig. 10", "w interpolates smoothly", "interpolation of w", starts=("bundled",))
def straight_paths(records: Rows, start: str) -> tuple[str, str]:
    models = stored.load(RESULTS / "latent.json", "python -m head3d_core walk")["models"]
    ours, theirs = (Estimate.of(models[name]["path"]["bend"]) for name in (FULL, "face"))
    text = f"bend of identity along straight paths in w {ours.text()}, the teacher's {theirs.text()}"
    return text, CONTRADICTS if ours.low > theirs.high else AGREES


@_claim("Fig. 7", "better than parametric heads", "LYHM, DECA", starts=NO_D, readme=False)
def parametric_heads(records: Rows, start: str) -> tuple[str, str]:
    return "the compared models need licences; ours of the same kinds see other data", NOT_TESTED


@_claim("4.1", "512², FFHQ", "512², four hours", starts=NO_D, readme=False)
def full_size(records: Rows, start: str) -> tuple[str, str]:
    return "procedural people at 256²", NOT_TESTED


def claims() -> tuple[Claim, ...]:
    """Every claim of the paper that an experiment of ours could bear on, in the paper's order."""
    two, three = load_paper()["table 2"], load_paper()["table 3"]
    ids = ", ".join(f"{row} {three[row]['ID']:.2f}" for row in (*LOSSES, FULL))
    kids = ", ".join(f"{row} {two[row]['KID x100']:.2f}" for row in (FULL, "dft", "fh", "face"))
    return tuple(replace(claim, says=claim.says.format(ids=ids, kids=kids)) for claim in _CLAIMS)


def findings(records: Rows | None = None) -> list[tuple[Claim, list[Finding]]]:
    """Every claim with what was found from each start."""
    rows = load_rows() if records is None else records
    return [(claim, claim.findings(rows)) for claim in claims()]


def table(records: Rows, readme: bool = False) -> str:
    """Markdown: the paper's claims, start, what was found in every run from it, verdict; a line for each start.

    For README those claims that decide most, a line each: the first start, with the verdicts from the others.
    """
    lines = []
    for claim, found in findings(records):
        cells = [(NONE if f.start == "none" else f.start, f.text, f"**{f.verdict}**") for f in found]
        if not readme:
            lines += [("" if k else claim.place, "" if k else claim.says, *c) for k, c in enumerate(cells)]
        elif claim.readme:
            (start, text, verdict), *others = cells
            verdicts = "; ".join([verdict, *(f"{of}: {said}" for of, _, said in others)])
            lines.append((claim.place, claim.says, start, text, verdicts))
    return markdown(("paper", "it says", "start", "found here", "verdict"), lines)


def outcome(what: str, records: Rows | None = None) -> str:
    """The cell of the paper map for a line that begins so, first starts alone; empty where no claim belongs to it."""
    first = (found[0] for claim, found in findings(records) if what.startswith(claim.mapped))
    return "; ".join(f"{found.verdict}: {found.text}" for found in first)
