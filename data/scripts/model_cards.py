"""Model cards: `data/weights/<name>/README.md`, written from what is recorded and from nothing else.

    python data/scripts/model_cards.py      # make tables does the same

Each card joins the notes in the weights, the run's condensed log (`data/results/curves_<stage>.json`), the evaluation
(`data/results/evaluation/<name>.json`) and the detector's rates on real pictures. What nobody measured says so.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from head3d_core.checkpoints import weights as checkpoint
from head3d_core.config import GeneratorConfig
from head3d_core.utils import files, records
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.records import trained_on
from script import TEMPLATES, filled, main

UNKNOWN = "not measured yet"
GROUPS = ("skin tone", "age", "gender")


@dataclass(frozen=True)
class StageText:
    """What is true of every generator that comes out of one stage (templates/stages.md)."""

    what: str
    data: str
    failures: str
    """A Markdown list."""


def stage_texts() -> dict[str, StageText]:
    """Stage -> its text: a heading, two paragraphs and a list."""
    _, *parts = (TEMPLATES / "stages.md").read_text(encoding="utf8").strip().split("# ")
    split = [part.strip().split("\n\n") for part in parts]
    return {name: StageText(what, data, failures) for name, what, data, failures in split}


STAGES = stage_texts()


@dataclass(frozen=True)
class Sources:
    """Where a card's facts are read from."""

    weights: Path = files.DATA / "weights"
    """Folder of the generators' folders."""
    results: Path = files.DATA / "results"
    """Folder of the records."""

    @property
    def grids(self) -> Path:
        """Where the picture grids of the evaluation are."""
        return self.results / "evaluation"

    def table(self, name: str) -> dict[str, Any]:
        """A JSON file below `results`, or an empty one."""
        path = self.results / f"{name}.json"
        return dict(records.load(path, f"what makes {name}")) if path.is_file() else {}


def find(table: dict[str, Any], *keys: str) -> Any:
    """table[keys[0]][keys[1]]..., or None where any of them is missing."""
    value: Any = table
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            return None
        value = value[key]
    return value


def shown(figure: Any, percent: bool = False) -> str:
    """A figure with its interval and count; `UNKNOWN` for None. A recorded estimate, or a plain number."""
    if figure is None or (isinstance(figure, dict) and figure["value"] is None):
        return UNKNOWN

    def number(x: float) -> str:
        return f"{x:.1%}" if percent else f"{x:.4g}"

    if not isinstance(figure, dict):
        return number(figure)
    text = number(figure["value"])
    if figure.get("low") is not None and figure.get("high") is not None:
        text += f" ({number(figure['low'])} to {number(figure['high'])})"
    return text + (f", N = {figure['count']}" if figure.get("count") else "")


def _distance(evaluation: dict[str, Any], where: str) -> Any:
    """(name, figure) of the kernel distance, whatever features it was measured with."""
    found = find(evaluation, "distance", where)
    if not found:
        return "kernel distance x100", None
    return f"{'KID' if found['features'] == 'Inception' else 'KD-' + found['features']} x100", found["kernel"]


def _searched(evaluation: dict[str, Any]) -> str:
    """What the share of repeated people is called, with how many training pictures were looked at."""
    count = find(evaluation, "people", "nearest_training", "training")
    return "samples that repeat " + (
        "a training person" if count is None else f"someone on one of {count:,} training pictures"
    )


def metric_rows(evaluation: dict[str, Any], real: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(measure, this model, real pictures) of everything that a card reports."""

    def both(label: str, *keys: str, percent: bool = False) -> tuple[str, str, str]:
        return label, shown(find(evaluation, *keys), percent), shown(find(real, *keys), percent)

    rows = [
        both("a face is found on frontal samples", "detector", "front", percent=True),
        both("a face is found on back views (should be rare)", "detector", "back", percent=True),
    ]
    for where, label in (("front", "frontal"), ("back", "back")):
        name, figure = _distance(evaluation, where)
        rows.append((f"{name}, {label} views", shown(figure), shown(_distance(real, where)[1])))
    label, closed, _ = both("rays to the middle of the head that meet a surface", "closed", percent=True)
    rows += [
        (label, closed, "no volume"),
        both("near-duplicates among samples", "people", "near_duplicates", percent=True),
        both(_searched(evaluation), "people", "nearest_training", "repeats", percent=True),
    ]
    if is_teacher(evaluation):
        return rows
    label, cosine, _ = both("same z as the teacher: cosine", "identity", "cosine")
    median = find(real, "identity", "same_median")
    return [
        *rows,
        (
            label,
            cosine,
            UNKNOWN if median is None else f"{shown(median)}, median of two pictures of one person",
        ),
        both("same z as the teacher: AUC", "identity", "auc"),
        both("same z as the teacher: TAR at FAR 1 %", "identity", "tar_at_far_0.01", percent=True),
    ]


def is_teacher(evaluation: dict[str, Any]) -> bool:
    """Whether a record is the teacher's own: the same z was not compared, and nothing was missing for it."""
    missing = evaluation.get("missing", {})
    return bool(evaluation) and "identity" not in {*evaluation, *missing} and "same z" not in missing


def group_rows(rates: dict[str, Any]) -> list[tuple[str, str]]:
    """(group, real pictures): the detector's rate on frontal pictures."""
    rows = []
    for kind in GROUPS:
        theirs = find(rates, "frontal", kind) or {}
        rates_of = {g: {**r, "value": r["rate"]} for g, r in theirs.items()}
        rows += [(f"{kind}: {g}", shown(r, True)) for g, r in rates_of.items()] or [(kind, UNKNOWN)]
    return rows


def own_groups(evaluation: dict[str, Any]) -> str:
    """What follows for this model's groups from its rate over all frontal samples: samples carry no labels."""
    rate = find(evaluation, "detector", "front")
    text = "Samples of a generator carry no such labels, so nobody knows which of them belong to which group"
    if not rate:
        return f"{text}."
    count = rate["count"]
    missed = count - round(rate["value"] * count)
    if not missed:
        return (
            f"{text}; but a face is found in all {count:,} frontal samples of this model, so in every group."
        )
    return f"{text}: the {missed:,} of {count:,} frontal samples in which no face is found may all be of one."


def _pictures(evaluation: dict[str, Any], sources: Sources, folder: Path) -> str:
    """Links to the recorded grids of this model, with what each shows; empty without any."""
    there = {n: text for n, text in evaluation.get("pictures", {}).items() if (sources.grids / n).is_file()}
    links = [
        f"* [{name}]({Path(os.path.relpath(sources.grids / name, folder)).as_posix()}): {text}"
        for name, text in there.items()
    ]
    return "\n\nRecorded pictures:\n\n" + "\n".join(links) if links else ""


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, *rows]
    text = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([text[0], "|" + "---|" * len(head), *text[1:]])


def _training(notes: dict[str, Any], run: dict[str, Any], stage: str) -> list[tuple[str, str]]:
    about = run.get("provenance", {})
    images = notes.get("images")
    same_run = not about or images is None or about.get("images") == images
    about = about if same_run else {}

    def known(key: str) -> str:
        value = about.get(key)
        return str(value) if value is not None else "not recorded"

    seconds = about.get("seconds")
    recipe = notes.get("recipe", {})
    return [
        ("stage", stage + (f", row {notes['row']}" if notes.get("row") else "")),
        ("training data", STAGES[stage].data),
        ("real images shown", f"{images:,}" if images is not None else "not recorded"),
        ("batch", str(recipe.get("batch", "not recorded"))),
        ("preset, seed", f"{notes.get('preset', known('preset'))}, {notes.get('seed', known('seed'))}"),
        ("time", f"{seconds / 60:.1f} minutes, data included" if seconds else "not recorded"),
        ("device", trained_on(about) if "device" in about else "not recorded"),
        ("date, commit", f"{known('date')}, {known('commit')}"),
        (
            "perceptual term",
            "none" if "perceptual" in about and not about["perceptual"] else known("perceptual"),
        ),
    ]


def stage_of(notes: dict[str, Any]) -> str | None:
    """The stage that weights come from: of their notes, or of the recipe in them."""
    stage = notes.get("stage") or notes.get("recipe", {}).get("stage")
    return stage if stage in STAGES else None


def remarks_of(folder: Path, images: int | None) -> list[str]:
    """What was written about these weights; none for weights of another number of images.

    Raises Head3DError if `remarks.json` is not {"images": number, "remarks": [sentence, ...]}.
    """
    path = folder / "remarks.json"
    if not path.is_file():
        return []
    found = json.loads(path.read_text(encoding="utf8"))
    remarks = found.get("remarks") if isinstance(found, dict) else None
    if not isinstance(remarks, list) or not all(isinstance(x, str) for x in remarks):
        raise Head3DError(f'{path} must be {{"images": number, "remarks": [sentence, ...]}}')
    return remarks if found.get("images") == images else []


def _remarks(folder: Path, notes: dict[str, Any]) -> str:
    """The section "About these weights": whether the run reached its plan, and the remarks."""
    images, plan = notes.get("images"), notes.get("recipe", {}).get("images")
    lines = []
    if images is not None and plan and images < plan:
        lines = [f"**Trial weights**: {images:,} of the {plan:,} images that the recipe plans."]
    lines += remarks_of(folder, images)
    return "\n".join(["## About these weights", "", *(f"* {x}" for x in lines), "", ""]) if lines else ""


def _measured(name: str, evaluation: dict[str, Any]) -> str:
    if not evaluation:
        command = f"python -m head3d_core evaluate {name} --out data/results/evaluation"
        return f"Nothing was measured on these weights yet: run `{command}`."
    about = evaluation.get("provenance", {})
    return (
        f"Measured {about.get('date', 'on a day not recorded')} on {about.get('device', 'a device not recorded')}, "
        f"commit {about.get('commit', 'not recorded')}; 95 % intervals; the terms are in "
        f"`data/results/evaluation/{name}.json`."
    )


def card(name: str, sources: Sources) -> str:
    """The card of `weights/<name>` as Markdown.

    Raises Head3DError if the folder holds no generator, or weights that do not say which stage they come from.
    """
    folder = sources.weights / name
    notes = checkpoint.read_notes(folder)
    stage = stage_of(notes)
    if stage is None:
        raise Head3DError(
            f"{folder} does not say which stage it comes from: save it with `train` or `export`, which note it"
        )
    config = GeneratorConfig.from_dict(checkpoint.read_header(folder).config)
    run = sources.table(f"curves_{notes.get('row') or stage}")
    evaluation, real = (sources.table(f"evaluation/{row}") for row in (name, "real"))
    size = sum(p.stat().st_size for p in folder.glob("*.safetensors"))
    planes = f"{config.plane_resolution}² x {config.plane_channels} channels x 3, axes `{config.render.axes}`"
    facts = [
        *_training(notes, run, stage),
        ("picture, volume rendering", f"{config.image_resolution}², {config.neural_resolution}²"),
        ("planes", planes),
        ("size on disk", f"{size / 1e6:.1f} MB"),
    ]
    return filled(
        "model_card",
        name=name,
        what=STAGES[stage].what,
        remarks=_remarks(folder, notes),
        facts=_table(("", ""), facts),
        measured=_measured(name, evaluation),
        metrics=_table(("measure", "this model", "real pictures"), metric_rows(evaluation, real)),
        pictures=_pictures(evaluation, sources, folder),
        own_groups=own_groups(evaluation),
        groups=_table(("group", "real pictures"), group_rows(sources.table("detector_rates"))),
        failures=STAGES[stage].failures,
    )


def cards(sources: Sources) -> dict[Path, str]:
    """README.md beside every generator below `sources.weights`, and what it should say."""
    found = sorted(sources.weights.glob("*/generator.safetensors"))
    return {header.parent / "README.md": card(header.parent.name, sources) for header in found}


def run(args: Sources) -> None:
    """Writes the cards of all generators below `args.weights`."""
    written = cards(args)
    for path, text in written.items():
        with files.atomic(path) as temporary:
            temporary.write_text(text, encoding="utf8")
    print("\n".join(map(str, written)) or f"there are no generators in {args.weights}")


if __name__ == "__main__":
    raise SystemExit(main(Sources, run))
