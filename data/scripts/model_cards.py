"""Model cards: `data/weights/<name>/README.md`, written by `results_page.py` from the records and nothing else.

Each card joins the notes in the weights, the run's condensed log (`data/results/curves_<stage>.json`), the evaluation
(`data/results/evaluation/<name>.json`) and the detector's rates on real pictures. What nobody measured says so.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from head3d_core.checkpoints import weights as checkpoint
from head3d_core.config import GeneratorConfig
from head3d_core.evaluation.tables import GHOSTS, markdown
from head3d_core.utils import files, records
from head3d_core.utils.errors import Head3DError
from head3d_core.utils.records import trained_on
from script import filled, sections

UNKNOWN = "not measured yet"


class StageText(NamedTuple):
    """What is true of every generator that comes out of one stage; `failures` is a Markdown list."""

    what: str
    data: str
    failures: str


STAGES = {name: StageText(*text.split("\n\n")) for name, text in sections("stages.md").items()}
"""Stage -> its section of templates/stages.md: two paragraphs and a list."""


def recorded(data: Path, name: str) -> dict[str, Any]:
    """A JSON file below `data/results`, or an empty dictionary."""
    path = data / "results" / f"{name}.json"
    return dict(records.load(path, f"what makes {name}")) if path.is_file() else {}


def find(table: Any, *keys: str) -> Any:
    """table[keys[0]][keys[1]]..., or None where any of them is missing."""
    for key in keys:
        table = table.get(key) if isinstance(table, dict) else None
    return table


def shown(figure: Any, percent: bool = False) -> str:
    """A figure with its interval and count; `UNKNOWN` for None. A recorded estimate, or a plain number."""
    figure = figure if isinstance(figure, dict) else {"value": figure}
    if figure["value"] is None:
        return UNKNOWN
    spec = ".1%" if percent else ".4g"
    value, *ends = (f"{figure[k]:{spec}}" for k in ("value", "low", "high") if figure.get(k) is not None)
    count = f", N = {figure['count']}" if figure.get("count") else ""
    return value + (f" ({' to '.join(ends)})" if len(ends) == 2 else "") + count


def _distance(evaluation: dict[str, Any], where: str) -> tuple[str, Any]:
    """(name, figure) of the kernel distance, whatever features it was measured with."""
    found = find(evaluation, "distance", where)
    if not found:
        return "kernel distance x100", None
    return f"{'KID' if found['features'] == 'Inception' else 'KD-' + found['features']} x100", found["kernel"]


def metric_rows(evaluation: dict[str, Any], real: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(measure, this model, real images) of everything that a card reports."""

    def row(label: str, *keys: str, percent: bool = True) -> tuple[str, str, str]:
        return label, shown(find(evaluation, *keys), percent), shown(find(real, *keys), percent)

    searched = find(evaluation, "people", "nearest_training", "training")
    who = "a training person" if searched is None else f"someone on one of {searched:,} training pictures"
    rows = [
        row("a face is found on frontal samples", "detector", "front"),
        row("a face is found on back views (should be rare)", "detector", "back"),
    ]
    for where, label in (("front", "frontal"), ("back", "back")):
        name, figure = _distance(evaluation, where)
        rows.append((f"{name}, {label} views", shown(figure), shown(_distance(real, where)[1])))
    for score, label in GHOSTS.items():
        rows.append(row(f"{label}, above the limit of real backs", "behind", "ghost", score, "above"))
    rows += [
        row("near-duplicates among samples", "people", "near_duplicates"),
        row(f"samples that repeat {who}", "people", "nearest_training", "repeats"),
    ]
    if is_teacher(evaluation):
        return rows
    median = find(real, "identity", "same_median")
    same = UNKNOWN if median is None else f"{shown(median)}, median of two pictures of one person"
    return [
        *rows,
        (*row("same z as the teacher: cosine", "identity", "cosine", percent=False)[:2], same),
        row("same z as the teacher: AUC", "identity", "auc", percent=False),
        row("same z as the teacher: TAR at FAR 1 %", "identity", "tar"),
    ]


def is_teacher(evaluation: dict[str, Any]) -> bool:
    """Whether a record is the teacher's own: the same z was not compared, and nothing was missing for it."""
    missing = evaluation.get("missing", {})
    return bool(evaluation) and "identity" not in {*evaluation, *missing} and "same z" not in missing


def group_rows(rates: dict[str, Any]) -> list[tuple[str, str]]:
    """(group, real pictures): the detector's rate on frontal pictures."""
    rows = []
    for kind in ("skin tone", "age", "gender"):
        groups = find(rates, "frontal", kind) or {}
        rows += [(f"{kind}: {g}", shown({**r, "value": r["rate"]}, True)) for g, r in groups.items()]
        rows += [] if groups else [(kind, UNKNOWN)]
    return rows


def own_groups(evaluation: dict[str, Any]) -> str:
    """What follows for this model's groups from its rate over all frontal samples: samples carry no labels."""
    rate = find(evaluation, "detector", "front")
    text = "Samples of a generator carry no such labels, so nobody knows which of them belong to which group"
    if not rate:
        return f"{text}."
    count = rate["count"]
    if missed := count - round(rate["value"] * count):
        return f"{text}: the {missed:,} of {count:,} frontal samples in which no face is found may all be of one."
    return f"{text}; but a face is found in all {count:,} frontal samples of this model, so in every group."


def _pictures(evaluation: dict[str, Any], data: Path, folder: Path) -> str:
    """Links to the recorded grids of this model, with what each shows; empty without any."""
    grids = data / "results" / "evaluation"
    named = {grids / name: text for name, text in evaluation.get("pictures", {}).items()}
    there = {Path(os.path.relpath(p, folder)).as_posix(): text for p, text in named.items() if p.is_file()}
    links = [f"* [{Path(path).name}]({path}): {text}" for path, text in there.items()]
    return "\n\nRecorded pictures:\n\n" + "\n".join(links) if links else ""


def _training(notes: dict[str, Any], run: dict[str, Any], stage: str) -> list[tuple[str, str]]:
    about, images = run.get("provenance", {}), notes.get("images")
    if about and images is not None and about.get("images") != images:  # the record of another run
        about = {}

    def known(key: str) -> str:
        return "not recorded" if about.get(key) is None else str(about[key])

    seconds, recipe = about.get("seconds"), notes.get("recipe", {})
    unused = "perceptual" in about and not about["perceptual"]
    return [
        ("stage", stage + (f", row {notes['row']}" if notes.get("row") else "")),
        ("training data", STAGES[stage].data),
        ("real images shown", f"{images:,}" if images is not None else "not recorded"),
        ("batch", str(recipe.get("batch", "not recorded"))),
        ("preset, seed", f"{notes.get('preset', known('preset'))}, {notes.get('seed', known('seed'))}"),
        ("time", f"{seconds / 60:.1f} minutes, data included" if seconds else "not recorded"),
        ("device", trained_on(about) if "device" in about else "not recorded"),
        ("date, commit", f"{known('date')}, {known('commit')}"),
        ("perceptual term", "none" if unused else known("perceptual")),
    ]


@dataclass(frozen=True)
class Remarks:
    """What was written about weights of a number of images: `remarks.json` beside them."""

    images: int
    remarks: list[str]


def _remarks(folder: Path, notes: dict[str, Any]) -> str:
    """The section "About these weights": whether the run reached its plan, and the remarks on these weights.

    Raises Head3DError if `remarks.json` is not {"images": number, "remarks": [sentence, ...]}.
    """
    images, plan, path = notes.get("images"), notes.get("recipe", {}).get("images"), folder / "remarks.json"
    short = images is not None and plan and images < plan
    lines = [f"**Trial weights**: {images:,} of the {plan:,} images that the recipe plans."] if short else []
    found = records.load(path, "an editor", Remarks) if path.is_file() else Remarks(0, [])
    lines += found.remarks if found.images == images else []
    text = "\n".join(f"* {line}" for line in lines)
    return f"## About these weights\n\n{text}\n\n" if lines else ""


def _measured(name: str, evaluation: dict[str, Any]) -> str:
    if not evaluation:
        command = f"python -m head3d_core evaluate {name} --out data/results/evaluation"
        return f"Nothing was measured on these weights yet: run `{command}`."
    missing = {"date": "on a day not recorded", "device": "a device not recorded", "commit": "not recorded"}
    about = missing | evaluation.get("provenance", {})
    return (
        f"Measured {about['date']} on {about['device']}, commit {about['commit']}; 95 % intervals; the terms are in "
        f"`data/results/evaluation/{name}.json`."
    )


def card(name: str, data: Path = files.DATA) -> str:
    """The card of `weights/<name>` as Markdown.

    Raises Head3DError if the folder holds no generator, or weights that do not say which stage they come from.
    """
    folder = data / "weights" / name
    notes = checkpoint.read_notes(folder)
    stage = notes.get("stage") or notes.get("recipe", {}).get("stage")
    if stage not in STAGES:
        raise Head3DError(
            f"{folder} does not say which stage it comes from: save it with `train` or `export`, which note it"
        )
    config = GeneratorConfig.from_dict(checkpoint.read_header(folder).config)
    run = recorded(data, f"curves_{notes.get('row') or stage}")
    record = name if stage != "distill" else notes.get("row") or name
    evaluation, real = (recorded(data, f"evaluation/{row}") for row in (record, "real"))
    size = sum(p.stat().st_size for p in folder.glob("*.safetensors"))
    size_of_planes = f"{config.plane_resolution}² x {config.plane_channels} channels x {config.plane_count}"
    facts = [
        *_training(notes, run, stage),
        ("picture, volume rendering", f"{config.image_resolution}², {config.neural_resolution}²"),
        ("planes", f"{size_of_planes}, axes `{config.render.axes}`"),
        ("size on disk", f"{size / 1e6:.1f} MB"),
    ]
    return filled(
        "model_card.md",
        name=name,
        what=STAGES[stage].what,
        remarks=_remarks(folder, notes),
        facts=markdown(("", ""), facts),
        measured=_measured(record, evaluation),
        metrics=markdown(("measure", "this model", "real pictures"), metric_rows(evaluation, real)),
        pictures=_pictures(evaluation, data, folder),
        own_groups=own_groups(evaluation),
        groups=markdown(("group", "real pictures"), group_rows(recorded(data, "detector_rates"))),
        failures=STAGES[stage].failures,
    )


def cards(data: Path = files.DATA) -> dict[Path, str]:
    """README.md beside every generator below `data/weights`, and what it should say."""
    folders = sorted(path.parent for path in data.glob("weights/*/generator.safetensors"))
    return {folder / "README.md": card(folder.name, data) for folder in folders}
