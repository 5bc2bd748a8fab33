"""What one part of the method buys: rows as changes to one recipe, each beside the full method from the same start.

The numbers are those that `evaluate` recorded; nothing here trains. A row is compared with `reference_of` it: rows
that start from other discriminators than the bundled weights have a full method of their own (`tables.FITTED`).
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from head3d_core.config import preset
from head3d_core.evaluation.sampling import Model
from head3d_core.evaluation.tables import (
    FIGURE_8,
    FITTED,
    NAMES,
    NOT_YET,
    TABLE_3,
    Record,
    Records,
    kernel,
    repetitions,
)
from head3d_core.geometry.turntable import views
from head3d_core.metrics.distances import Estimate
from head3d_core.model.cameras import frontal, orbit
from head3d_core.model.discriminator import Discriminator
from head3d_core.model.generator import Generator
from head3d_core.training import losses
from head3d_core.training.distillation import Sample, distillation_terms
from head3d_core.training.perceptual import RandomVGG
from head3d_core.training.recipes import ROWS, Recipe, recipe
from head3d_core.utils.nested import flat

FULLS = FULL, FULL_FITTED = "head3d", "head3d-seed0-fitted"
"""The full method: the bundled weights, and the same recipe from discriminators that were fitted anew."""
PLANES = ("xy", "xz", "yz")


# -- rows as data --------------------------------------------------------------------------------------------------


def base_of(row: str) -> str:
    """The row that a repetition repeats.

    >>> base_of("single-d-seed0-fitted")
    'single-d'
    """
    return row.partition("-seed")[0]


def label(row: str) -> str:
    """What a row is called in a figure.

    >>> label("head3d-seed0-fitted"), label("all-planes-seed1-fitted"), label("dft-seed0-first-fitted")
    ('Head3D (fitted D)', 'all planes distilled (seed 1)', 'DFT (first run)')
    """
    base = base_of(row)
    name = "teacher" if row == "face" else NAMES.get(base, row).strip("*")
    seed = re.search(r"-seed(\d+)", row)
    marks = ["fitted D"] if base in ("head3d", "single-d") and row.endswith("-fitted") else []
    marks += [f"seed {seed[1]}"] if seed and seed[1] != "0" else []
    marks += ["first run"] if "-first" in row else []
    return f"{name} ({', '.join(marks)})" if marks else name


def reference_of(row: str) -> str:
    """The full method that a row is to be compared with: from the same generators and with the same seed.

    Its discriminators come from the same commands, yet not always from the same run of them (`LOG.md` says which rows
    share one). A row without training needs no discriminators and stands beside most of the others.

    >>> reference_of("all-planes"), reference_of("all-planes-seed1-fitted")
    ('head3d-seed0-fitted', 'head3d-seed1-fitted')
    """
    fitted = row in FITTED or row.endswith("-fitted") or (row in ROWS and ROWS[row].untrained)
    seed = re.search(r"-seed\d+", row)
    return (f"{FULL}{seed[0]}-fitted" if seed else FULL_FITTED) if fitted else FULL


def runs_of(row: str, records: Records) -> list[str]:
    """The recorded runs of a row's recipe from fitted discriminators, the one that tables and figures show first."""
    again = [name for name in repetitions(row, records) if name.endswith("-fitted")]
    return [name for name in (row, *again) if name in records and reference_of(name) != FULL]


def alike(rows: Sequence[str], records: Records) -> list[str]:
    """The rows, each replaced by its repetition from fitted discriminators where that is recorded.

    Full methods that recorded rows are to be compared with, and that are not among them, follow at the end.
    """
    fitted = {row: f"{row}-seed0-fitted" for row in rows}
    found = [fitted[row] if fitted[row] in records else row for row in rows]
    full = dict.fromkeys(reference_of(row) for row in found if row in records and row not in FULLS)
    return [*found, *(row for row in full if row not in found)]


_WORDS = {
    **{f"losses.{name}": f"λ of L_{name}" for name in ("kd", "map", "rgb", "lpips")},
    "distil_planes": "planes in L_kd",
    "kd_norm": "norm in L_kd",
    "start": "G starts from",
    "one_discriminator": "one discriminator for both sides",
    "images": "real images shown",
    "lr_g": "rate of G",
    "lr_d": "rate of D",
    "ada_target": "adaptive augmentation, target",
    "back_share": "share of steps with back views",
}
"""How the tables call a field of a recipe; others keep their own name."""
_OF_DOMAIN = {
    "sources": "real images of D_{}",
    "start": "D_{} starts from",
    "gamma": "γ of D_{}",
    "weight": "λ of L_gan, D_{}",
}


def _shown(name: str, value: Any) -> str:
    if name == "distil_planes":
        return ", ".join(f"F_{PLANES[k]}" for k in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " + ".join(map(str, value))
    return (
        f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)
    )


def _in_words(how: Recipe) -> dict[str, str]:
    """Every setting of a recipe; with one domain the share of back views is that of the pooled images."""
    words: dict[str, str] = {}
    for name, value in flat(how).items():
        domain, _, field = name.rpartition(".")
        if domain.startswith("domains."):
            if field != "name":
                judge = how.domains[int(domain.removeprefix("domains."))].name
                words[_OF_DOMAIN[field].format(judge)] = _shown(field, value)
        elif name not in ("stage", "notes"):
            words[_WORDS.get(name, name)] = _shown(name, value)
    if len(how.domains) == 1:
        words[_WORDS["back_share"]] = "as in the pool"
    return words


def differences_in_words(full: Recipe, other: Recipe) -> list[tuple[str, str, str]]:
    """(setting, value of `full`, value of `other`) of everything in which two recipes differ."""
    one, two = _in_words(full), _in_words(other)
    return [
        (name, one.get(name, "–"), two.get(name, "–"))
        for name in dict.fromkeys([*one, *two])
        if one.get(name) != two.get(name)
    ]


def changes(row: str, scale: str = "classroom") -> list[tuple[str, str, str]]:
    """(setting, full method, this row) of everything in which a row's recipe differs.

    >>> changes("no-gan-front")
    [('λ of L_gan, D_front', '1', '0')]
    """
    return differences_in_words(*(recipe("distill", scale, name) for name in (FULL, base_of(row))))


def changes_table(rows: Sequence[str], scale: str = "classroom") -> str:
    """`changes` of some rows as a Markdown table."""
    lines = ["| row | `--row` | setting | full method | this row |", "|---|---|---|---|---|"]
    for row in rows:
        for k, (name, full, other) in enumerate(changes(row, scale)):
            first = f"{label(row)} | `{row}`" if k == 0 else " | "
            lines.append(f"| {first} | {name} | {full} | {other} |")
    return "\n".join(lines)


# -- who speaks ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Speakers:
    """Networks of preset `tiny`, as they are before any training: enough to see which gradients exist at all."""

    teacher: Generator
    student: Generator
    judge: Discriminator
    perceptual: nn.Module

    @classmethod
    def make(cls, seed: int = 0) -> Speakers:
        """Teacher, student and discriminator with weights of their own, and the offline substitute of LPIPS."""
        scale = preset("tiny")
        torch.manual_seed(seed)
        teacher, student = Generator(scale.generator).eval(), Generator(scale.generator).eval()
        return cls(teacher, student, Discriminator(scale.discriminator), RandomVGG())

    def pulls(self, row: str, yaw: float) -> dict[str, Tensor]:
        """Mean absolute gradient that each weighted term of Eq. 10 sends to the student's planes: [3] by term.

        Args:
            row: of the comparison.
            yaw: of the rendering camera, radians; it decides which discriminator judges and whether the gate is open.
        """
        how, camera, ahead = recipe("distill", "tiny", row), orbit(yaw), frontal(1)
        z = torch.randn(1, self.teacher.z_dim, generator=torch.Generator().manual_seed(0))
        sides = []
        for net in (self.teacher, self.student):
            with torch.no_grad():
                ws = net.mapping(z, ahead)
                planes = net.planes(ws)
            planes.requires_grad_(net is self.student)
            sides.append(Sample(ws, planes, net.render(planes, ws, camera)))
        theirs, ours = sides
        terms = distillation_terms(how, theirs, ours, camera, self.perceptual)
        judge = how.domains[-1 if abs(yaw) > how.split_angle else 0]
        if judge.weight:
            assert ours.output is not None
            logit = self.judge(ours.output.image, ours.output.raw, camera)
            name = "all" if how.one_discriminator else judge.name
            terms[f"D_{name}"] = judge.weight * losses.generator_loss(logit)
        return {name: self._at_planes(term, ours.planes) for name, term in terms.items()}

    @staticmethod
    def _at_planes(term: Tensor, planes: Tensor) -> Tensor:
        if not term.requires_grad:
            return torch.zeros(3)
        (found,) = torch.autograd.grad(term, planes, retain_graph=True, allow_unused=True)
        return torch.zeros(3) if found is None else found.abs().mean([0, 2, 3, 4])


PLACES = ("front: F_xy", "front: F_xz, F_yz", "back: F_xy", "back: F_xz, F_yz")
"""Views and planes of `speakers`."""


def speakers(row: str, nets: Speakers) -> dict[str, list[str]]:
    """Terms whose gradient is not 0 in a frontal view and in one from behind, at F_xy and at the other planes."""
    found = {}
    for side, yaw in (("front", 0.0), ("back", math.pi)):
        pulls = nets.pulls(row, yaw)
        for planes, which in (("F_xy", slice(0, 1)), ("F_xz, F_yz", slice(1, 3))):
            terms = [name for name, pull in pulls.items() if float(pull[which].max()) > 0]
            found[f"{side}: {planes}"] = [t if t.startswith("D_") else f"L_{t}" for t in terms]
    return found


def seen_from(model: Model, codes: Sequence[int], yaws: Sequence[float], psi: float = 0.7) -> Tensor:
    """Samples of a model by number, the same z in every model: [codes, V, 3, H, W] from `yaws`, degrees."""
    heads = [model.heads(range(k, k + 1), 0, psi) for k in codes]
    ws, planes = (torch.cat(parts) for parts in zip(*heads, strict=True))
    return views(model.generator, planes, ws, tuple(yaws))


# -- recorded numbers ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measure:
    """A number that every row has."""

    name: str
    better: Literal["low", "high"]
    read: Callable[[Record], Mapping[str, Any] | None]
    scale: float = 1.0
    """Units of the figures: 100 for per cent."""
    paper: str = ""
    """Its counterpart in the paper's Table 3, if there is one."""

    def of(self, record: Record) -> Estimate | None:
        """The recorded estimate, or None where it was not measured."""
        found = self.read(record)
        if not found or not found.get("count"):
            return None
        value = found["value"] if "value" in found else found["rate"]
        return Estimate(value, found["low"], found["high"], found["count"]).times(self.scale)


FRONT = Measure("KD front × 100", "low", lambda r: kernel(r), paper="KID x100")
BACK = Measure("KD back × 100", "low", lambda r: kernel(r, "back"))
COSINE = Measure("cosine, same z", "high", lambda r: r.get("identity", {}).get("cosine"), paper="ID")
JANUS = Measure("a face behind, %", "low", lambda r: r.get("detector", {}).get("back"), 100.0)
MEASURES = (FRONT, BACK, COSINE, JANUS)


def difference(one: Estimate, other: Estimate) -> Estimate:
    """one − other with a 95 % interval, from the two intervals alone (Zou and Donner 2008; for rates Newcombe 1998).

    As if both had been measured on different samples. Our rows share z, cameras and real pictures, so the true interval
    is rather narrower.

    >>> difference(Estimate(3, 2, 4, 9), Estimate(1, 1, 1, 9))
    Estimate(value=2, low=1.0, high=3.0, count=9)
    """
    value = one.value - other.value
    below = math.hypot(one.value - one.low, other.high - other.value)
    above = math.hypot(one.high - one.value, other.value - other.low)
    return Estimate(value, value - below, value + above, min(one.count, other.count))


def decided(found: Estimate) -> bool:
    """Whether a difference is on one side of 0 with its whole interval."""
    return found.low > 0 or found.high < 0


def cost(records: Records, row: str, measure: Measure, reference: str | None = None) -> Estimate | None:
    """How much worse a row is than its reference: positive where leaving the part out did harm.

    None where either is not recorded, or the row is its own reference.
    """
    against = reference or reference_of(row)
    if row not in records or against not in records or row == against:
        return None
    one, other = measure.of(records[row]), measure.of(records[against])
    if one is None or other is None:
        return None
    return difference(one, other) if measure.better == "low" else difference(other, one)


def ranks(values: Mapping[str, float], better: Literal["low", "high"]) -> dict[str, int]:
    """1 for the best; equal values share the better place.

    >>> ranks({"a": 0.10, "b": 0.45, "c": 0.45, "d": 0.65}, "high")
    {'a': 4, 'b': 2, 'c': 2, 'd': 1}
    """
    sign = 1 if better == "low" else -1
    return {row: 1 + sum(sign * v < sign * mine for v in values.values()) for row, mine in values.items()}


def printed(rows: Sequence[str], measure: Measure, paper: Mapping[str, Any]) -> dict[str, float]:
    """The paper's numbers of rows and their repetitions; rows that it does not print are left out."""
    key = measure.paper
    return {row: paper[base_of(row)][key] for row in rows if key and key in paper.get(base_of(row), {})}


def measured(rows: Sequence[str], measure: Measure, records: Records) -> dict[str, Estimate]:
    """Our numbers of the rows that are recorded."""
    found = {row: measure.of(records[row]) for row in rows if row in records}
    return {row: e for row, e in found.items() if e is not None}


def beside_the_paper(
    rows: Sequence[str], measure: Measure, records: Records, paper: Mapping[str, Any]
) -> list[str]:
    """One sentence a pair of rows: ordered as in the paper, the other way, or undecided here."""
    ours, theirs = measured(rows, measure, records), printed(rows, measure, paper)
    sign = 1 if measure.better == "low" else -1
    lines = []
    for a, b in itertools.combinations([row for row in rows if row in ours and row in theirs], 2):
        gap, printed_gap = difference(ours[a], ours[b]), theirs[a] - theirs[b]
        if printed_gap == 0:
            verdict = "equal in the paper"
        elif not decided(gap):
            verdict = "undecided here"
        else:
            verdict = (
                "as in the paper" if (gap.value > 0) == (printed_gap > 0) else "the other way in the paper"
            )
        better, worse = (a, b) if sign * gap.value < 0 else (b, a)
        lines.append(f"{label(better)} better than {label(worse)}: {verdict}")
    return lines


def as_good_by_chance(rows: int, agreement: float) -> tuple[int, int]:
    """How many of all orders of `rows` rows agree with a given one at least as well (Kendall's tau), and of how many.

    >>> as_good_by_chance(4, 1.0)
    (1, 24)
    >>> as_good_by_chance(3, 0.33333331)  # as float32 has it
    (3, 6)
    """
    orders = list(itertools.permutations(range(rows)))
    pairs = list(itertools.combinations(range(rows), 2))
    found = [sum(1 if order[a] < order[b] else -1 for a, b in pairs) / len(pairs) for order in orders]
    return sum(tau >= agreement - 1e-6 for tau in found), len(orders)


def repeated(records: Records) -> list[tuple[str, str]]:
    """Pairs of runs of one recipe of Table 3 or Fig. 8 from discriminators fitted by the same commands."""
    runs = (runs_of(row, records) for row in dict.fromkeys((*TABLE_3, *FIGURE_8)))
    return [pair for names in runs for pair in itertools.combinations(names, 2)]


def apart(records: Records, pair: tuple[str, str], measure: Measure) -> float | None:
    """How far two rows lie apart in a measure; None where one of them lacks it."""
    one, other = (measure.of(records[row]) if row in records else None for row in pair)
    return None if one is None or other is None else abs(one.value - other.value)


def run_to_run(records: Records, measure: Measure) -> float | None:
    """The largest distance between two runs of one recipe of Table 3 or Fig. 8; None where none was run twice."""
    found = [d for pair in repeated(records) if (d := apart(records, pair, measure)) is not None]
    return max(found, default=None)


def _without_record(records: Records, row: str, reference: str) -> str | None:
    """Why a row cannot be compared, as a sentence; None if both records are there."""
    if row not in records:
        return f"{label(row)}: {NOT_YET}"
    if reference not in records:
        return f"{label(row)}: nothing to compare with, {label(reference)} {NOT_YET}"
    return None


def bought(
    records: Records, row: str, measures: Sequence[Measure] = MEASURES, reference: str | None = None
) -> str:
    """One sentence: what leaving the part out changed by more than another start or another seed does.

    A change counts if its interval lies on one side of 0 and it is larger than the distance of the two full methods
    and than `run_to_run`.

    Args:
        reference: the full method to compare with; default: `reference_of` the row.
    """
    against = reference or reference_of(row)
    if (reason := _without_record(records, row, against)) is not None:
        return reason
    costs = {m: cost(records, row, m, against) for m in measures}
    words = []
    for m, found in costs.items():
        least = max(apart(records, FULLS, m) or 0.0, run_to_run(records, m) or 0.0)
        if found and decided(found) and abs(found.value) > least:
            words.append(f"{m.name} {'worse' if found.value > 0 else 'better'} by {abs(found.value):.2f}")
    return f"{label(row)}: {', '.join(words) or 'nothing that these samples can show'}"


def in_every_run(records: Records, row: str, measures: Sequence[Measure] = MEASURES) -> str:
    """One sentence: which changes a row shows in each of its runs from fitted discriminators.

    Each run stands beside the full method of the same seed. A change counts if it was measured and is decided in every
    run, always in one direction.
    """
    runs = runs_of(row, records)
    if not runs:
        return f"{label(row)}: {NOT_YET}"
    for name in runs:
        if (reason := _without_record(records, name, reference_of(name))) is not None:
            return reason
    if len(runs) == 1:
        return f"{label(row)}: trained once"
    words = []
    for m in measures:
        costs = [found for name in runs if (found := cost(records, name, m)) is not None]
        same = len({found.value > 0 for found in costs}) == 1
        if len(costs) == len(runs) and same and all(map(decided, costs)):
            sizes = " and ".join(f"{abs(found.value):.2f}" for found in costs)
            words.append(f"{m.name} {'worse' if costs[0].value > 0 else 'better'} by {sizes}")
    return f"{label(base_of(row))}: {', '.join(words) or 'nothing that holds in every run'}"


def not_recorded(rows: Sequence[str], records: Records) -> list[str]:
    """A line for each row without a record."""
    return [f"{label(row)}: {NOT_YET}" for row in rows if row not in records]
