"""Model cards: `data/weights/<name>/README.md`, written from what is recorded and from nothing else.

    python data/scripts/model_cards.py      # make tables does the same

Each card joins the notes in the weights, the run's condensed log (`data/results/curves_<stage>.json`), the evaluation
(`data/results/evaluation/<name>.json`) and the detector's rates on real pictures. What nobody measured says so.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from head3d_core.checkpoints import weights as checkpoint
from head3d_core.config import GeneratorConfig
from head3d_core.training.curves import trained_on
from head3d_core.utils import files
from head3d_core.utils.errors import Head3DError

UNKNOWN = "not measured yet"
GROUPS = ("skin tone", "age", "gender")


RESPONSIBLE_USE = (
    "Made for teaching and for research on 3D-aware generators. Nobody in the data or in the samples exists. "
    "Do not use it to imitate a real person, to get past a check of identity, or to judge people; the rates by group "
    "are those of a detector on drawn people and say nothing about people. Say that pictures are generated where you "
    "show them. If you train on photographs instead, you need the right to use them, and this no longer holds."
)


@dataclass(frozen=True)
class StageText:
    """What is true of every generator that comes out of one stage."""

    what: str
    data: str
    failures: tuple[str, ...]


_COMMON_FAILURES = (
    "Trained on computer-drawn people: skin, hair and light look drawn, and the variety is the sampler's.",
    "The super-resolution network paints on the rendered picture: fine texture can swim when the camera moves.",
)
STAGES: dict[str, StageText] = {
    "teacher": StageText(
        "A generator of faces, after EG3D: the teacher G_t of Head3D. It knows the front only.",
        "faces: one roughly frontal picture (|yaw| below 45°) per computer-drawn identity, on white",
        (
            "**No back of the head.** Nothing was ever asked of views beyond 45°: from behind there is a second, "
            "blurred face. This is the problem that Head3D mends, not a defect of this file.",
        ),
    ),
    "whiten": StageText(
        "The face generator after fine-tuning to a white background (section 4.1 of the paper).",
        "faces on white, after a teacher that was trained with backgrounds",
        ("**No back of the head**, as in every face generator.",),
    ),
    "head": StageText(
        "A generator of whole heads, fine-tuned from the face generator on fifty people (section 3.3).",
        "heads: 50 computer-drawn identities, 96 views each from all around, no glasses, no hats, on white",
        (
            "**Fifty identities.** Samples repeat the training people or mix them; glasses, hats and most faces of the "
            "face generator are forgotten.",
        ),
    ),
    "distill": StageText(
        "Head3D: whole heads with the face generator's variety (section 3.4), the student G_s.",
        "faces (for D_front and through the frozen teacher) and the back views of the 50 heads (for D_back)",
        (
            "Between the face set's widest view (about 45°) and 90° neither discriminator sees real pictures: "
            "ears and cheeks there are the least reliable part.",
            "Backs of heads come from fifty people: hairstyles that these lack are missing behind.",
        ),
    ),
}


@dataclass(frozen=True)
class Sources:
    """Where a card's facts are read from."""

    weights: Path = files.DATA / "weights"
    results: Path = files.DATA / "results"

    @property
    def grids(self) -> Path:
        """Where the picture grids of the evaluation are."""
        return self.results / "evaluation"

    def table(self, name: str) -> dict[str, Any]:
        """A JSON file below `results`, or an empty one."""
        path = self.results / f"{name}.json"
        return dict(json.loads(path.read_text(encoding="utf8"))) if path.is_file() else {}


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


def _pictures(evaluation: dict[str, Any], sources: Sources, folder: Path) -> list[str]:
    """Links to the recorded grids of this model, with what each shows."""
    there = {n: text for n, text in evaluation.get("pictures", {}).items() if (sources.grids / n).is_file()}
    links = [
        f"* [{name}]({Path(os.path.relpath(sources.grids / name, folder)).as_posix()}): {text}"
        for name, text in there.items()
    ]
    return ["", "Recorded pictures:", "", *links] if links else []


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    return [
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *("| " + " | ".join(r) + " |" for r in rows),
    ]


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


def _remarks(folder: Path, notes: dict[str, Any]) -> list[str]:
    """The section "About these weights": whether the run reached its plan, and the remarks."""
    images, plan = notes.get("images"), notes.get("recipe", {}).get("images")
    lines = []
    if images is not None and plan and images < plan:
        lines = [f"**Trial weights**: {images:,} of the {plan:,} images that the recipe plans."]
    lines += remarks_of(folder, images)
    return ["## About these weights", "", *(f"* {x}" for x in lines), ""] if lines else []


def _measured(name: str, evaluation: dict[str, Any]) -> str:
    if not evaluation:
        return f"Nothing was measured on these weights yet: run `python -m head3d_core evaluate {name}`."
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
    text = STAGES[stage]
    run = sources.table(f"curves_{notes.get('row') or stage}")
    evaluation, real = (sources.table(f"evaluation/{row}") for row in (name, "real"))
    rates = sources.table("detector_rates")
    size = sum(p.stat().st_size for p in folder.glob("*.safetensors"))
    measured = _measured(name, evaluation)
    facts = [
        *_training(notes, run, stage),
        ("picture, volume rendering", f"{config.image_resolution}², {config.neural_resolution}²"),
        (
            "planes",
            f"{config.plane_resolution}² x {config.plane_channels} channels x 3, axes `{config.render.axes}`",
        ),
        ("size on disk", f"{size / 1e6:.1f} MB"),
    ]
    lines = [
        f"# Model card: `{name}`",
        "",
        text.what,
        "",
        "    import head3d_core as h3d",
        f'    G = h3d.load_generator("{name}")',
        "",
        *_remarks(folder, notes),
        "## Training",
        "",
        *_table(("", ""), facts),
        "",
        "## Measured",
        "",
        measured,
        "",
        *_table(("measure", "this model", "real pictures"), metric_rows(evaluation, real)),
        *_pictures(evaluation, sources, folder),
        "",
        "## How often a face detector finds a face, by group",
        "",
        "Frontal pictures. Real: held-out pictures whose skin tone, age and gender are known from the sampler "
        f"(`data/results/detector_rates.json`). {own_groups(evaluation)}",
        "",
        *_table(("group", "real pictures"), group_rows(rates)),
        "",
        "## Known failures",
        "",
        *(f"* {failure}" for failure in (*text.failures, *_COMMON_FAILURES)),
        "",
        "## Responsible use",
        "",
        RESPONSIBLE_USE,
        "",
        "Licence: CC0 1.0, as the data (`data/LICENSE`). This page is written by "
        "`python data/scripts/model_cards.py`; change the records, not the page.",
    ]
    return "\n".join(lines) + "\n"


def cards(sources: Sources) -> dict[Path, str]:
    """README.md beside every generator below `sources.weights`, and what it should say."""
    found = sorted(sources.weights.glob("*/generator.safetensors"))
    return {header.parent / "README.md": card(header.parent.name, sources) for header in found}


def write_cards(sources: Sources | None = None) -> list[Path]:
    """Writes the cards; returns the files."""
    written = cards(sources or Sources())
    for path, text in written.items():
        with files.atomic(path) as temporary:
            temporary.write_text(text, encoding="utf8")
    return list(written)


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the cards of all bundled generators; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python data/scripts/model_cards.py",
        description="Writes data/weights/*/README.md from the records.",
    )
    parser.add_argument(
        "--weights", type=Path, default=Sources.weights, help="folder of the generators' folders"
    )
    parser.add_argument("--results", type=Path, default=Sources.results, help="folder of the records")
    args = parser.parse_args(arguments)
    try:
        written = write_cards(Sources(args.weights, args.results))
    except Head3DError as error:
        print(f"error: {error}")
        return 1
    print("\n".join(map(str, written)) or f"there are no generators in {args.weights}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
