"""The pages beside the notebooks, kept in step with what they speak of.

    python tests/course_pages.py           # rewrite what is out of step
    python tests/course_pages.py --check   # only say what is; exit status 1 if anything is

- `notebooks/recall.md` is written whole: headings, code and closing questions of all notebooks, nothing else.
- The run times in the syllabus (`notebooks/README.md`) come from `data/results/notebook_seconds.json`.
- In `training_guide.md` the tables between `<!-- begin NAME -->` and `<!-- end NAME -->` come from `data/results/` and
  from the recipes.
- In `paper_map.md` the status of a row that names a record says whether that record is there, and a row on which
  `notebooks/head3d_course/verdicts.py` has a verdict shows it.
- Tables and headings of all pages link to the notebooks that exist.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "notebooks")]

from head3d_course import verdicts  # noqa: E402 (found only now)

NOTEBOOKS = ROOT / "notebooks"
RESULTS = ROOT / "data" / "results"
NOT_RECORDED = "ready, not recorded yet"
REPRODUCED = "run at classroom scale"
MEASURED = "measured"

PLACE = r"\[?(\d\d[ab]?)((?: §\d+)?)(?:\]\([^)]*\))?"
"""A notebook and perhaps a section, linked or not: 02, 02 §4, [02 §4](02_….ipynb)."""


def notebooks() -> list[Path]:
    """The numbered notebooks that exist, in reading order."""
    return sorted(NOTEBOOKS.glob("[0-9][0-9]*_*.ipynb"))


def number(path: Path | str) -> str:
    """Of a notebook, from its file's name: "05a" of 05a_….ipynb."""
    return Path(path).name.split("_")[0]


@functools.cache
def cells(path: Path, kind: str = "") -> list[Any]:
    """The cells of a notebook that are not empty, or those of a kind ("code", "markdown")."""
    return [c for c in nbformat.read(path, 4).cells if kind in c.cell_type and c.source.strip()]


def text_of(path: Path, kind: str) -> str:
    """The sources of all cells of a kind."""
    return "\n\n".join(cell.source for cell in cells(path, kind))


# -- recall --------------------------------------------------------------------------------------------------------


def recall() -> str:
    """All notebooks as headings, code and closing questions."""
    parts = [
        "# Recall\n\nThe course without its prose: what was each cell for? Written by `make pages` from the notebooks; "
        "edit those.\n"
    ]
    for path in notebooks():
        parts.append("".join(_recalled(path, cell) for cell in cells(path)))
    return "\n".join(part.rstrip() + "\n" for part in parts)


def _recalled(path: Path, cell: Any) -> str:
    source = cell.source.strip()
    if cell.cell_type == "code":
        return f"```python\n{source}\n```\n\n"
    kept = []
    for line in source.splitlines():
        if heading := re.match(r"(#+) (.*)", line):
            title = f"[{number(path)}]({path.name}) {heading[2]}" if heading[1] == "#" else heading[2]
            kept.append(f"#{heading[1]} {title}\n\n")
        elif line.startswith("**What breaks if**"):
            kept.append(f"> {line.split('?')[0]}?\n\n")
    return "".join(text for text in kept if not text.startswith("### Summary"))


# -- tables of the training guide ----------------------------------------------------------------------------------


def _record(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf8"))


def table(header: list[str], rows: list[list[str]]) -> str:
    """A markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def throughput() -> str:
    """Speed and memory of full training steps."""
    gpu, cpu = _record("bench_train_h200"), _record("bench_train_cpu")
    rows = [
        [
            f"{row['setting']}²" if row["setting"].isdigit() else f"`{row['setting']}`",
            device,
            str(row["batch"]),
            " / ".join(f"{m:.1f} M" for m in row["parameters_m"]),
            f"{row['step_ms']:.0f} ms",
            f"{row['images_per_s']:.0f}",
            f"{row['memory_gib']:.1f} / {row['reserved_gib']:.1f} GiB"
            if "reserved_gib" in row
            else f"{row['memory_gib']:.1f} GiB",
        ]
        for device, found in (("GPU", gpu), ("CPU", cpu))
        for row in found["rows"]
    ]
    about, small = gpu["provenance"], cpu["provenance"]
    header = ["setting", "on", "batch", "G / D", "step", "images/s", "memory in use / reserved"]
    return (
        table(header, rows)
        + f"\n\nGPU: `data/results/bench_train_h200.json`, {about['device']}, torch {about['torch']}, {about['date']}, "
        + f"`{about['command']}`. One step is {gpu['what'].removeprefix('full GAN steps: ')}. CPU: "
        + f"`data/results/bench_train_cpu.json`, {small['cores']} cores, torch {small['torch']}, {small['date']}, "
        + f"`{small['command']}`; the same step in fp32; memory is the whole process, PyTorch's own 0.5 GiB included."
    )


def paper_setting() -> str:
    """The paper's own setting, 200 steps of every stage, and scaling to two GPUs."""
    found = _record("paper_setting_h100")
    about, scaling = found["provenance"], found["scaling"]
    rows = [
        [
            s["stage"],
            str(s["batch"]),
            f"{s['images_per_s']:.0f}",
            f"{s['memory_gib']:.1f} GiB",
            f"{found['hours_of_our_recipe'][s['stage']]:.1f} h",
        ]
        for s in found["stages"]
    ]
    both = sum(found["hours_of_our_recipe"][stage] for stage in ("head", "distill"))
    one = " and ".join(f"{r:.1f}" for r in scaling["one_gpu_images_per_s"])
    steps, gpus = found["stages"][0]["steps"], found["stages"][0]["processes"]
    header = ["stage", "batch", "images/s", "memory in use, a GPU", "our recipe's length at this rate"]
    return (
        table(header, rows)
        + f"\n\n`data/results/paper_setting_h100.json`: {gpus} × {about['device']}, torch {about['torch']}, "
        + f"{about['date']}, commit {about['commit']}; {steps} steps each, none trained to its end. `teacher` is timed "
        + "at the start of its schedule (64² rendering, blur). `head` and `distill` together: "
        + f"{both:.1f} h for our numbers of images (the paper: about 4 h on two A100, for an unknown number). "
        + f"Scaling at 512², batch {scaling['batch_per_gpu']} a GPU: {one} images/s alone, "
        + f"{scaling['images_per_s']:.1f} on {scaling['gpus']}: {scaling['efficiency']:.0%}. More GPUs are untested."
    )


def memory_estimates() -> str:
    """What the estimate that is printed before training says, per preset and batch."""
    from head3d_core.config import PRESETS
    from head3d_core.training import stages

    batches = (4, 8, 16, 32)
    rows = [
        [f"`{name}`", *(f"{stages.memory_estimate(scale, batch):.0f} GiB" for batch in batches)]
        for name, scale in PRESETS.items()
    ]
    measured = _record("bench_train_h200")["rows"]
    shares = [row["estimate_gib"] / row["reserved_gib"] for row in measured]
    about = (
        f"For the {len(measured)} GPU settings above, the estimate is {min(shares):.2f} to {max(shares):.2f}"
    )
    return table(["preset", *(f"batch {b}" for b in batches)], rows) + f"\n\n{about} times what was reserved."


def runs() -> str:
    """Every recorded training run."""
    from head3d_core.utils.records import trained_on

    rows = []
    for path in sorted(RESULTS.glob("curves_*.json")):
        about = json.loads(path.read_text(encoding="utf8"))["provenance"]
        rows.append(
            [
                about["stage"]
                + (f", row {about['row']}" if about.get("row") else "")
                + (f", axes {about['axes']}" if about.get("axes") else ""),
                f"`{about['preset']}`",
                f"{about['images']:,}",
                f"{about['seconds'] / 60:.0f} min",
                f"{about['images'] / max(about['seconds'], 1):.0f}",
                trained_on(about),
                f"`{path.name}`",
            ]
        )
    if not rows:
        return "No run is recorded yet: `python data/scripts/curves.py RUN --out FILE.json`."
    return table(["stage", "preset", "images", "time", "images/s, all in", "device", "record"], rows)


def recipes() -> str:
    """γ, batch, rates and length of every stage."""
    from head3d_core.training.recipes import STAGES, recipe

    rows = []
    for preset in ("classroom", "paper"):
        for stage in STAGES:
            how = recipe(stage, preset)
            gammas = ", ".join(f"{d.name} {d.gamma:g}" for d in how.domains)
            augmented = f"towards {how.ada_target:g}" if how.ada_target else "–"
            rates = f"{how.lr_g:g} / {how.lr_d:g}"
            rows.append([f"`{preset}`", stage, gammas, str(how.batch), rates, f"{how.images:,}", augmented])
    return table(["preset", "stage", "γ of each D", "batch", "rate G / D", "images", "augmentation"], rows)


LIVE = {
    "00": ("two heads, turned; checks of the machine", "ghost scores"),
    "01": ("everything", "–"),
    "02": ("everything, on two toy heads", "–"),
    "03": ("both paths at small sizes", "times and memory, CPU and GPU"),
    "04": ("shipped pictures, cameras and light", "–"),
    "05a": ("layers by hand; planes made symmetric", "–"),
    "05b": ("a `tiny` generator trained for some steps", "the teacher's run; ghost scores"),
    "06": ("swaps between a few identities; the widget", "Table 1 over more pairs"),
    "07": ("samples of both generators; a discriminator that memorises", "the head generator's run"),
    "08": ("each loss; all three stages at `tiny`", "Head3D's run; hats and glasses"),
    "09": ("losses, schedule, shares", "curves of two discriminators; distance by yaw; backs"),
    "10a": ("distances on toys and pictures", "Table 2"),
    "10b": ("eight backs and their scores", "identity, second faces, everything over yaw"),
    "11a": ("which term reaches which plane", "a card for each row"),
    "11b": ("pairs over 16 codes", "runs, starts and seeds"),
    "12": ("grid of sigma, surface, export", "error to true heads; closedness"),
    "13": ("walks, mixing, directions; an inversion; a photograph", "bend over more pairs; inversions"),
    "14": ("one texel for two points; a slice put in by hand", "second faces"),
    "15": ("200 samples of Head3D; parametric heads", "limits, a second encoder, whitening"),
}
"""What happens live in each notebook, and what it reads from a record."""


def times() -> str:
    """Run times of the notebooks with and without the extension, and what is live in each."""
    found = _record("notebook_seconds")

    rows = [
        [
            number(name),
            *(f"{found[kind]['seconds'][name]:.0f} s" for kind in ("extension", "without")),
            *LIVE[number(name)],
        ]
        for name in sorted(found["extension"]["seconds"])
        if (NOTEBOOKS / f"{name}.ipynb").is_file()
    ]
    totals = [sum(kept["seconds"].values()) / 60 for kept in (found["extension"], found["without"])]
    rows.append(["all", *(f"{minutes:.0f} min" for minutes in totals), "", ""])
    about = found["extension"]["provenance"]
    return (
        table(["", "with the extension", "without", "live", "from a record"], rows)
        + f"\n\nMeasured by `{about['command']}` on {about['cores']} cores of an {about['device']}, "
        + f"{about['date'][:10]}, torch {about['torch'].split('+')[0]}."
    )


TABLES: dict[str, Callable[[], str]] = {
    "throughput": throughput,
    "paper_setting": paper_setting,
    "memory": memory_estimates,
    "runs": runs,
    "recipes": recipes,
    "times": times,
}


def with_tables(text: str) -> str:
    """The text with every generated table made anew."""

    def fresh(match: re.Match[str]) -> str:
        return f"<!-- begin {match[1]} -->\n{TABLES[match[1]]()}\n<!-- end {match[1]} -->"

    return re.sub(r"<!-- begin (\w+) -->\n.*?<!-- end \1 -->", fresh, text, flags=re.DOTALL)


# -- status and links ----------------------------------------------------------------------------------------------


def records_in(cell: str) -> list[str]:
    """Names of record files in a cell of the paper map."""
    return re.findall(r"`([\w/-]+\.json)`", cell)


NEEDS = {"metrics.accessories.kept": "accessories"}
"""Function in a row -> what its record must hold: other figures of the same record may be there without it."""
FULL_STUDY, FULL_ROW, PLANNED_ROW = 100, 1000, 5000
"""People of the paper's Table 1; frontal samples from which on a row of Tables 2 and 3 is more than a trial, and those
that every row is to have."""


def extent_of(record: dict[str, Any]) -> str:
    """What a record is short of, in brackets; nothing where it is whole."""
    if record.get("identities", FULL_STUDY) < FULL_STUDY:
        return f" (trial: {record['identities']} people)"
    count = frontal_samples(record)
    return f" (trial: {count} samples)" if count is not None and count < FULL_ROW else ""


def frontal_samples(record: dict[str, Any]) -> int | None:
    """Samples behind the frontal distance of a row of Tables 2 and 3; None for other records."""
    found: int | None = record.get("distance", {}).get("front", {}).get("kernel", {}).get("count")
    return found


def smaller_rows(names: list[str], found: list[dict[str, Any]]) -> str:
    """Which rows were measured on fewer samples than planned, in brackets; nothing where none was."""
    counts = {name: frontal_samples(record) for name, record in zip(names, found, strict=True)}
    few = [f"{count:,} in `{name}`" for name, count in counts.items() if count and count < PLANNED_ROW]
    return f" (frontal samples: {', '.join(few)}; {PLANNED_ROW:,} planned)" if few else ""


def status_of(cells: list[str]) -> str:
    """Of a row of the paper map that names records: from what they hold, not only whether they are there."""
    names = records_in(cells[4])
    paths = [RESULTS / name for name in names]
    missing = [name for name, path in zip(names, paths, strict=True) if not path.is_file()]
    if len(missing) == len(names):
        return NOT_RECORDED
    if missing:
        return f"in part: {', '.join(f'`{name}`' for name in missing)} not recorded yet"
    found = [json.loads(path.read_text(encoding="utf8")) for path in paths]
    keys = [key for function, key in NEEDS.items() if f"`{function}`" in cells[2]]
    if not all(key in record for key in keys for record in found):
        return NOT_RECORDED
    done = MEASURED if cells[0] == "| –" else REPRODUCED
    return done + (next(filter(None, map(extent_of, found)), "") or smaller_rows(names, found))


def with_status(text: str) -> str:
    """The paper map with the status of every row that names records, and the verdict on every claim."""
    lines = []
    for line in text.splitlines():
        cells = line.removesuffix(" |").split(" | ")
        if line.startswith("| ") and len(cells) == 7 and cells[0] != "| Paper":
            status = status_of(cells) if records_in(cells[4]) else cells[5]
            agrees = verdicts.outcome(cells[1]) or cells[6]
            line = " | ".join([*cells[:5], status, f"{agrees} |"])
        lines.append(line)
    return "\n".join(lines) + "\n"


def linked(text: str) -> str:
    """Notebooks in tables and headings as links where they exist, as plain numbers where they don't."""
    files = {number(path): path.name for path in notebooks()}

    def link(match: re.Match[str]) -> str:
        label = match[1] + match[2]
        return f"[{label}]({files[match[1]]})" if match[1] in files else label

    def cell(text: str) -> str:
        alone = re.fullmatch(rf"{PLACE}(, {PLACE})*", text.strip())
        return text.replace(text.strip(), re.sub(PLACE, link, text.strip())) if alone else text

    lines = []
    for line in text.splitlines():
        if line.startswith("|"):
            line = "|".join(cell(part) for part in line.split("|"))
        elif heading := re.match(rf"## ({PLACE}) (.*)", line):
            line = f"## {re.sub(PLACE, link, heading[1])} {line[heading.end(1) + 1 :]}"
        lines.append(line)
    return "\n".join(lines) + "\n"


PAGES = ("glossary.md", "paper_map.md", "instructor.md", "training_guide.md")


def fresh_pages() -> dict[Path, str]:
    """Every page as it should be."""
    pages = {NOTEBOOKS / "recall.md": recall()}
    syllabus = NOTEBOOKS / "README.md"
    pages[syllabus] = with_tables(syllabus.read_text(encoding="utf8"))
    for name in PAGES:
        path = NOTEBOOKS / name
        text = linked(with_tables(path.read_text(encoding="utf8")))
        pages[path] = with_status(text) if name == "paper_map.md" else text
    return pages


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; say what is out of step")
    args = parser.parse_args()
    stale = [
        (path, text)
        for path, text in fresh_pages().items()
        if not path.is_file() or path.read_text(encoding="utf8") != text
    ]
    for path, text in stale:
        print(f"{path.relative_to(ROOT)}: {'out of step' if args.check else 'written'}")
        if not args.check:
            partial = path.with_name(path.name + ".partial")
            partial.write_text(text, encoding="utf8")
            os.replace(partial, path)
    if not stale:
        print("All pages are in step.")
    return 1 if stale and args.check else 0


if __name__ == "__main__":
    sys.exit(main())
