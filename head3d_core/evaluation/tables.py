"""Tables from what was recorded, beside the paper's numbers and the limits: nothing in them is typed by hand.

`evaluate` records a row in `data/results/evaluation/<row>.json`; `paper.json` holds what the paper prints. A row that
was not run yet says so, and which command makes it.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from head3d_core.training.recipes import ROWS
from head3d_core.utils import files
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.estimates import NONE, Estimate
from head3d_core.utils.records import load

RESULTS = files.DATA / "results"
EVALUATION = RESULTS / "evaluation"
NOT_YET = "not recorded yet"
Record = Mapping[str, Any]
Records = Mapping[str, Record]

NAMES = {
    "real": "real pictures",
    "face": "EG3D on white, the teacher (face)",
    "head": "head generator, fine-tuned (head)",
    "head3d": "**Head3D**",
    "dft": "DFT",
    "fh": "FH",
    "no-kd": "without L_kd",
    "no-gan-front": "without L_gan_front",
    "no-rgb-lpips": "without L_rgb and L_lpips",
    "single-d": "one discriminator",
    "single-d-pooled": "one discriminator, one pool",
    "all-planes": "all planes distilled",
    "plane-swap": "teacher's F_xy put in, untrained",
    "two-sided": "**Head3D, two slices**",
    "two-sided-single-d": "two slices, one discriminator",
}
"""What a row is called in a table."""
TABLE_2 = ("real", "face", "head", "dft", "fh", "head3d")
TABLE_3 = ("no-kd", "no-gan-front", "no-rgb-lpips", "head3d")
FIGURE_8 = (
    *("plane-swap", "all-planes", "single-d", "single-d-pooled"),
    *("two-sided", "two-sided-single-d", "head3d"),
)


def load_records(folder: Path = EVALUATION) -> dict[str, Record]:
    """Recorded rows by name; empty where nothing was recorded."""
    return (
        {path.stem: load(path, "python -m head3d_core evaluate") for path in sorted(folder.glob("*.json"))}
        if folder.is_dir()
        else {}
    )


def load_paper(path: Path = RESULTS / "paper.json") -> dict[str, Any]:
    """The paper's numbers: "table 1", "table 2", "table 3", "cost"."""
    return dict(load(path, "git checkout data/results/paper.json"))


def command_of(row: str) -> str:
    """What records a row that is not there yet."""
    if row in ("real", "face", "head", "head3d", "plane-swap"):
        return f"python -m head3d_core evaluate {row}"
    if row not in ROWS:
        raise Head3DError(f"no row called {row!r}: choose one of {', '.join(NAMES)}")
    head = "runs/head-two-slices" if ROWS[row].generator else "runs/head"
    run = f"--data synth:faces:20000 --heads synth:heads:4800 --teacher runs/teacher --head {head} --out runs/{row}"
    return f"python -m head3d_core train distill --row {row} {run}, then evaluate runs/{row}"


def estimate(found: Mapping[str, Any] | None, digits: int = 2, percent: bool = False) -> str:
    """A recorded estimate as `Estimate.text`; a dash where there is none.

    >>> estimate({"value": 0.6149, "low": 0.55, "high": 0.699, "count": 9}), estimate(None)
    ('0.61 [0.55, 0.70]', '–')
    """
    return Estimate.of(found).text(digits, percent) if found else NONE


def share(found: Mapping[str, Any] | None) -> str:
    """A recorded rate, in per cent with its interval."""
    return estimate(found, 1, percent=True)


def kernel(record: Record, side: str = "front") -> Mapping[str, Any] | None:
    """The kernel distance × 100 of a side ("front", "back"), or None where it was not measured."""
    found = record.get("distance", {}).get(side)
    return None if found is None else found["kernel"]


def _frechet(record: Record) -> str:
    found = record.get("distance", {}).get("front", {})
    if "frechet" not in found:
        return NONE
    value, least = (
        f"{found[k]['value']:.1f} at N = {found[k]['count']:,}" for k in ("frechet", "frechet_floor")
    )
    return f"{value} (floor {least})"


def _training(record: Record) -> str:
    weights = record.get("weights", {})
    images, minutes = weights.get("images"), weights.get("minutes")
    shown = NONE if images is None else f"{images:,}"
    return shown if minutes is None else f"{shown} / {minutes:.0f} min"


Column = tuple[str, Callable[[Record], str]]
DISTANCES: tuple[Column, ...] = (
    ("KD front × 100", lambda r: estimate(kernel(r), 3)),
    ("KD back × 100", lambda r: estimate(kernel(r, "back"), 3)),
)
DETECTOR: tuple[Column, ...] = (
    ("face in front", lambda r: share(r["detector"]["front"])),
    ("face behind (Janus)", lambda r: share(r["detector"]["back"])),
)
IDENTITY: tuple[Column, ...] = (
    ("same z, cosine", lambda r: estimate(r.get("identity", {}).get("cosine"))),
    ("AUC", lambda r: estimate(r.get("identity", {}).get("auc"), 3)),
)
CLOSED: Column = ("closed", lambda r: NONE if "closed" not in r else f"{100 * r['closed']['value']:.1f} %")


def sample_counts(record: Record) -> tuple[int, int]:
    """How many samples (or real pictures or heads, if fewer) the distances, and the detector's rates, stand on."""
    sides = [found for name, found in record["distance"].items() if name in ("front", "back")]
    front = record["detector"]["front"]
    return max(found["kernel"]["count"] for found in sides), front["count"] if front else 0


def _samples(record: Record) -> str:
    return " / ".join(f"{n:,}" for n in sample_counts(record))


SAMPLES: Column = ("N: KD / detector", _samples)


def repetitions(row: str, records: Records) -> list[str]:
    """Names of the recorded repetitions of a row."""
    return sorted(name for name, record in records.items() if record["row"] == row and name != row)


def table(rows: Sequence[str], records: Records, columns: Sequence[Column], paper: Mapping[str, Any]) -> str:
    """Markdown table of rows; `paper` adds its numbers of these rows, in columns of their own.

    A row without a record keeps the paper's numbers and says "not recorded yet". Repetitions with another seed,
    recorded as `<row>-seed1` and so on, stand below their row.
    """
    printed = list(dict.fromkeys(k for row in paper.values() for k in row if k != "name"))
    heads = [
        "row",
        *(f"paper: {k.replace('x100', '× 100')}" for k in printed),
        *(name for name, _ in columns),
    ]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in itertools.chain.from_iterable((r, *repetitions(r, records)) for r in rows):
        theirs = [f"{paper[row][k]:.2f}" if k in paper.get(row, {}) else NONE for k in printed]
        ours = [show(records[row]) for _, show in columns] if row in records else [NOT_YET]
        ours += [""] * (len(columns) - len(ours))
        lines.append(f"| {' | '.join([NAMES.get(row, row), *theirs, *ours])} |")
    return "\n".join(lines)


def table_2(records: Records | None = None) -> str:
    """Table 2: the teacher, the baselines and Head3D, with what the paper does not print."""
    records = load_records() if records is None else records
    columns = (*DISTANCES, ("FD front", _frechet), *DETECTOR, CLOSED, ("images / GPU", _training), SAMPLES)
    return table(TABLE_2, records, columns, load_paper()["table 2"])


def table_3(records: Records | None = None) -> str:
    """Table 3: what each loss buys."""
    records = load_records() if records is None else records
    columns = (*DISTANCES, *IDENTITY, DETECTOR[1], ("images / GPU", _training), SAMPLES)
    return table(TABLE_3, records, columns, load_paper()["table 3"])


def figure_8(records: Records | None = None) -> str:
    """Fig. 8 in numbers: planes and discriminators."""
    records = load_records() if records is None else records
    return table(
        FIGURE_8,
        records,
        (*DISTANCES, *DETECTOR, *IDENTITY, CLOSED, ("images / GPU", _training), SAMPLES),
        {},
    )


def figure_5(records: Records | None = None) -> str:
    """E7 in numbers: hats and glasses of the teacher that the same z keeps."""
    records = load_records() if records is None else records
    found = records.get("head3d", {}).get("worn")
    left_out = records.get("head3d", {}).get("missing", {}).get("hats and glasses")
    if left_out:
        return f"Hats and glasses: left out of this record, {left_out}."
    if not found:
        return f"Hats and glasses: {NOT_YET} (`{command_of('head3d')}`)."
    lines = [
        "| | probe finds | probe is wrong | teacher wears | teacher, again | **Head3D keeps** | by chance |",
        "|---" * 7 + "|",
    ]
    for kind in ("hat", "glasses"):
        one = found[kind]
        if "probe" not in one:
            lines.append(f"| {kind} | {one['missing']} | | | | | |")
            continue
        cells = [one["probe"]["recall"], one["probe"]["false"]]
        cells += [one[k] for k in ("teacher", "again", "student", "chance")]
        lines.append(f"| {kind} | {' | '.join(map(share, cells))} |")
    return "\n".join(lines)


def parametric_data(path: Path = RESULTS / "parametric.json") -> str:
    """Fig. 7 in numbers: what data each way to a whole head was given."""
    if not path.is_file():
        return f"Parametric models: {NOT_YET} (`python -m head3d_core parametric --out data/results`)."
    columns = {
        "heads": "heads",
        "views_per_head": "views of each",
        "depth": "with depth",
        "registered_meshes": "registered meshes",
        "faces": "faces besides",
    }
    lines = [f"| | {' | '.join(columns.values())} |", "|---" * (len(columns) + 1) + "|"]
    for name, model in load(path, "python -m head3d_core parametric")["models"].items():
        given = model["data"]
        cells = (_said(given.get(key, "none")) for key in columns)
        lines.append(f"| {NAMES.get(name, name)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _said(value: Any) -> str:
    """A recorded fact in words.

    >>> _said(True), _said(0), _said(4800)
    ('yes', 'none', '4,800')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) and value else str(value or "none")


RECORDS = ("evaluation/*", "parametric*", "identity_roc.json", "cross_check.json", "detector_rates.json")
"""What the evaluation's notebook shows, below `data/results`."""


def digest(results: Path = RESULTS) -> str:
    """Eight letters that change with any record or picture of `RECORDS`: printed, they date a notebook's figures."""
    whole = hashlib.sha256()
    for path in sorted({p for pattern in RECORDS for p in results.glob(pattern)}):
        whole.update(path.name.encode() + path.read_bytes().replace(b"\r\n", b"\n"))
    return whole.hexdigest()[:8]


def disagreements(
    rows: Sequence[str], records: Records, paper: Mapping[str, Any], key: str = "KID x100"
) -> list[str]:
    """Pairs of rows that our frontal kernel distance orders otherwise than the paper's `key`, one sentence each.

    Pairs whose intervals overlap are called undecided.
    """
    there = [row for row in rows if row in records and key in paper.get(row, {})]
    found = []
    for a, b in itertools.combinations(there, 2):
        one, other = kernel(records[a]), kernel(records[b])
        if one is None or other is None:
            continue
        theirs = paper[a][key] < paper[b][key]
        overlap = one["low"] <= other["high"] and other["low"] <= one["high"]
        if overlap:
            found.append(f"{a} and {b}: undecided here, the intervals overlap")
        elif (one["value"] < other["value"]) != theirs:
            better, worse = (a, b) if one["value"] < other["value"] else (b, a)
            found.append(f"{a} and {b}: {better} is better than {worse} here, the paper has it the other way")
    return found


# --- limits ---------------------------------------------------------------------------------------------------------

Figure = Mapping[str, Any]
"""value, low, high (None where there is no interval) and count."""


BESIDE = {"real": "real", "head": "head", "single-d": "one discriminator"}
"""Rows whose numbers stand beside, and what they are called."""


@dataclass(frozen=True)
class Expectation:
    """A number with a limit."""

    what: str
    row: str
    """Whose number it is."""
    limit: float
    at_least: bool
    figure: Callable[[Records, str], Figure | None]
    """Of a row that is recorded."""
    percent: bool = False

    def verdict(self, records: Records) -> str:
        """ "met", "not met", or "not recorded yet"."""
        found = self.of(records, self.row)
        if found is None:
            return "not recorded yet"
        value = found["value"]
        return "met" if (value >= self.limit if self.at_least else value <= self.limit) else "**not met**"

    def of(self, records: Records, row: str) -> Figure | None:
        """The same number of any row; None where it is not recorded."""
        return self.figure(records, row) if row in records else None

    def line(self, records: Records) -> str:
        """A row of the table."""
        found = self.of(records, self.row)
        limit = f"{'≥' if self.at_least else '≤'} {self._shown(self.limit)}"
        count = 0 if found is None else found["count"]
        verdict = self.verdict(records)
        if verdict == "met" and found is not None and self._open(found):
            verdict = "met, but the interval spans the limit"
        beside = [self._beside(self.of(records, row), count) for row in BESIDE]
        cells = (self.what, limit, self._interval(found), f"{count:,}" if count else "–", verdict, *beside)
        return f"| {' | '.join(cells)} |"

    def _open(self, found: Figure) -> bool:
        end = found["low" if self.at_least else "high"]
        return end is not None and (end < self.limit if self.at_least else end > self.limit)

    def _interval(self, found: Figure | None) -> str:
        if found is None:
            return "–"
        text = self._shown(found["value"])
        ends = [found[k] for k in ("low", "high") if found[k] is not None]
        return f"{text} [{self._shown(ends[0])}, {self._shown(ends[1])}]" if len(ends) == 2 else text

    def _beside(self, found: Figure | None, count: int) -> str:
        """Another row's number, with how many samples it stands on where these are fewer than `count`."""
        if found is None:
            return "–"
        return self._shown(found["value"]) + (f" ({found['count']:,})" if found["count"] < count else "")

    def _shown(self, value: float) -> str:
        value = round(100 * value if self.percent else value, 3) + 0.0  # no -0
        return f"{value:.3g} %" if self.percent else f"{value:.3g}"


Reader = Callable[[Records, str], Figure | None]


def _rate(side: str) -> Reader:
    def read(records: Records, row: str) -> Figure | None:
        found = records[row]["detector"][side]
        return found

    return read


def _ratio(other: str, side: str) -> Reader:
    def read(records: Records, row: str) -> Figure | None:
        if other not in records or other == row:
            return None
        a, b = kernel(records[row], side), kernel(records[other], side)
        if a is None or b is None or b["value"] <= 0:
            return None
        count = min(a["count"], b["count"])
        # Of the ends of two 95 % intervals: wider than the ratio's own, which nobody measured.
        low = a["low"] / b["high"]
        high = a["high"] / b["low"] if b["low"] > 0 else math.inf
        return {"value": a["value"] / b["value"], "low": low, "high": high, "count": count}

    return read


def _path(*keys: str) -> Reader:
    def read(records: Records, row: str) -> Figure | None:
        found: Any = records[row]
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        return found

    return read


def _worst_silhouette(records: Records, row: str) -> Figure | None:
    rates = [r for r in records[row].get("silhouettes", {}).values() if "value" in r]
    return max(rates, key=lambda r: float(r["value"])) if rates else None


EXPECTATIONS = (
    Expectation("teacher: a face in frontal samples", "face", 0.97, True, _rate("front"), True),
    Expectation("teacher: near-duplicates", "face", 0.001, False, _path("people", "near_duplicates"), True),
    Expectation("Head3D: a face in frontal samples", "head3d", 0.94, True, _rate("front"), True),
    Expectation("Head3D: a face behind (Janus)", "head3d", 0.03, False, _rate("back"), True),
    Expectation("Head3D: frontal distance / teacher's", "head3d", 2.0, False, _ratio("face", "front")),
    Expectation("the same, both at truncation 0.7", "head3d", 2.0, False, _ratio("face", "front, truncated")),
    Expectation("Head3D: back distance / head generator's", "head3d", 1.5, False, _ratio("head", "back")),
    Expectation("Head3D: directions that are closed", "head3d", 0.99, True, _path("closed"), True),
    Expectation(
        "Head3D: silhouettes outside real ones, worst side", "head3d", 0.02, False, _worst_silhouette, True
    ),
    Expectation("same z, teacher and Head3D: AUC", "head3d", 0.95, True, _path("identity", "auc")),
    Expectation(
        "same z, teacher and Head3D: TAR at FAR 1 %",
        "head3d",
        0.80,
        True,
        _path("identity", "tar_at_far_0.01"),
        True,
    ),
)
"""The limits, as they were set before training."""


def expectations_table(records: Records | None = None) -> str:
    """Markdown: what, limit, found with its 95 % interval, of how many samples, verdict, and other rows' numbers.

    A ratio's interval reaches from one low end over the other high end to the opposite: 95 % or more.
    Where the interval spans the limit, more samples may turn the verdict over; the line says so. Real people's AUC and
    TAR are those of two pictures of one person.
    """
    records = load_records() if records is None else records
    heads = ["what", "limit", "found", "N", "", *BESIDE.values()]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    return "\n".join([*lines, *(e.line(records) for e in EXPECTATIONS)])
