"""One row of the tables as a dataclass: what `evaluate` writes to JSON and what tables and figures read."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from head3d_core.utils import files, records
from head3d_core.utils.estimates import Estimate
from head3d_core.utils.nested import parsed

FOLDER = files.DATA / "results" / "evaluation"
"""Where rows are recorded."""


@dataclass(frozen=True)
class Distance:
    """Distance of samples to real images."""

    features: str
    """Network whose features were compared."""
    real: int
    """Real images."""
    floor_count: int
    """Images on each side of the floor."""
    kernel: Estimate
    """Kernel distance times 100."""
    kernel_floor: Estimate
    """The same between two halves of the real set: what "equal" is."""
    real_heads: int | None = None
    """Heads that the real images show, where one shows several."""
    frechet: Estimate | None = None
    frechet_floor: Estimate | None = None
    no_frechet: str | None = None
    """Why there is none."""


@dataclass(frozen=True)
class Identity:
    """Whether two embeddings of one z (of one person, for real images) are told from those of two."""

    auc: Estimate
    tar: Estimate
    """True accept rate at a false accept rate of 1 %."""
    threshold: float
    same_median: float
    same_pairs: int
    different_pairs: int
    cosine: Estimate | None = None
    """Mean over z of teacher's and student's cosine."""
    different_z: Estimate | None = None
    seen: Estimate | None = None
    """Share of z in whose images both the encoder's own detector finds a face; None where it needs none."""
    roc: dict[str, tuple[float, ...]] | None = None
    """Of older records."""


@dataclass(frozen=True)
class OtherLooks:
    """Near-duplicates by the looser limit, of people in other looks."""

    near_duplicates: Estimate
    above: float
    pairs: Estimate | None = None
    """Of older records."""
    added_later: str | None = None


@dataclass(frozen=True)
class NearestTraining:
    """The training images most like the samples."""

    mean: Estimate
    training: int
    most_alike: float
    repeats: Estimate | None = None


@dataclass(frozen=True)
class People:
    """How many people there are among the samples."""

    diversity: Estimate
    near_duplicates: Estimate | None = None
    near_duplicate_above: float | None = None
    near_duplicate_pairs: Estimate | None = None
    """Of older records."""
    other_looks: OtherLooks | None = None
    nearest_training: NearestTraining | None = None


@dataclass(frozen=True)
class Ghost:
    """One score of the ghost measure over many backs."""

    above: Estimate
    """Share of backs above the 95th percentile of real ones."""
    unmeasured: Estimate
    mean: Estimate | None = None


@dataclass(frozen=True)
class Behind:
    """Heads seen from straight behind."""

    ghost: dict[str, Ghost] = field(default_factory=dict)
    scores: dict[str, tuple[float | None, ...]] = field(default_factory=dict)
    """Each ghost score of every head; None where it cannot be measured."""
    diversity: Estimate | None = None
    """Mean cosine distance of two backs' features."""
    hair: dict[str, Estimate] = field(default_factory=dict)
    """Correlation over heads of hair colour in front and behind, for L*, a*, b*."""
    hair_without_hats: dict[str, Estimate] = field(default_factory=dict)
    hats: Estimate | None = None
    """Share of these heads that wear a hat, and are left out of the last."""


@dataclass(frozen=True)
class Step:
    """15° of |yaw|."""

    low: int
    high: int
    distance: Distance | None = None
    detected: Estimate | None = None
    consistency: Estimate | None = None
    """Mean cosine to the own frontal view."""


@dataclass(frozen=True)
class Probe:
    """The probe for an accessory, on held-out real images that did not set its limit."""

    recall: Estimate
    false: Estimate
    auc: float
    worn_by_real: float
    """Share of real people who wear one."""


@dataclass(frozen=True)
class Accessory:
    """What the student keeps of what the teacher's samples wear; `missing` says why it was not measured."""

    missing: str | None = None
    probe: Probe | None = None
    teacher: Estimate | None = None
    again: Estimate | None = None
    student: Estimate | None = None
    chance: Estimate | None = None
    likely: float | None = None
    """Of older records."""


@dataclass(frozen=True)
class Row:
    """Everything that is said about a generator, or about real images."""

    row: str
    seed: int = 0
    start: str = "none"
    """What a distillation's discriminators started from."""
    run: int = 1
    weights: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    added: dict[str, Any] | None = None
    """Provenance of what was measured apart from the rest, and the names of it."""
    missing: dict[str, str] = field(default_factory=dict)
    distance: dict[str, Distance] = field(default_factory=dict)
    """"front", "back", "front, truncated", and "back, 500 heads" beside a "back" that has fewer; with other mapping
    cameras "front, rendering", "front, random", "back, rendering", "back, random"."""
    ratios: dict[str, Estimate] = field(default_factory=dict)
    """Paired ratios of distances: "front / face" is to the generator "face" with the same real images and z."""
    detector: dict[str, Estimate] = field(default_factory=dict)
    closed: Estimate | None = None
    """Of older records, as `profiles`."""
    behind: Behind | None = None
    behind_of: dict[str, Behind] = field(default_factory=dict)
    """Of real images, by kind."""
    limits: dict[str, float] = field(default_factory=dict)
    """Of real images: of the ghost scores, and of silhouettes by side."""
    silhouettes: dict[str, Estimate] = field(default_factory=dict)
    by_yaw: tuple[Step, ...] = ()
    profiles: Estimate | None = None
    people: People | None = None
    identity: Identity | None = None
    identity_dlib: Identity | None = None
    accessories: dict[str, Accessory] = field(default_factory=dict)
    accessories_shown: tuple[int, ...] = ()
    pictures: dict[str, str] = field(default_factory=dict)
    seconds: float | None = None

    @property
    def sampling(self) -> dict[str, Any]:
        """How many samples were asked for."""
        return dict(self.provenance.get("arguments", {}).get("sampling", {}))

    @property
    def cosine(self) -> Estimate | None:
        """Mean cosine to the teacher at the same z; None where it was not measured."""
        return self.identity.cosine if self.identity else None

    @property
    def outside(self) -> Estimate | None:
        """Silhouettes outside real ones, on the worst side; None where it was not measured."""
        return max(self.silhouettes.values(), key=lambda e: e.value, default=None)

    def second_faces(self, score: str) -> Estimate | None:
        """Share of backs above the limit of a ghost score; None where it was not measured."""
        found = self.behind.ghost.get(score) if self.behind else None
        return found.above if found else None


Rows = Mapping[str, Row]


def load_rows(folder: Path = FOLDER) -> dict[str, Row]:
    """Recorded rows by name; empty where nothing was recorded. Raises Head3DError for a file that is no row."""
    return {path.stem: load_row(path) for path in sorted(folder.glob("*.json"))}


def load_row(path: Path) -> Row:
    """One recorded row; raises Head3DError if it is not there or is no row."""
    found: Row = parsed(Row, _numbers(records.load(path, "python -m head3d_core evaluate")), path.stem)
    return found


def write_row(path: Path, row: Row) -> Row:
    """Writes a row without what was not measured, floats with six digits; returns what reading gives back."""
    records.write(path, _plain(dataclasses.asdict(row)))
    return load_row(path)


def _plain(value: Any) -> Any:
    """For JSON: no empty fields, floats with six digits (more would only differ between machines), NaN as null."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        kept = {k: _plain(v) for k, v in value.items() if v is not None}
        return {k: v for k, v in kept.items() if v not in ({}, [])}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def _numbers(value: Any) -> Any:
    """Null as NaN in estimates."""
    if isinstance(value, dict):
        estimate = {"value", "low", "high", "count"} == set(value)
        return {k: math.nan if v is None and estimate else _numbers(v) for k, v in value.items()}
    return [_numbers(v) for v in value] if isinstance(value, list) else value
