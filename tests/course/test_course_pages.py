"""The pages beside the notebooks say what is there: names, places, shapes, minutes, links."""

from __future__ import annotations

import itertools
import json
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import course_pages as pages
import pytest
import torch
from helpers import COURSE, PACKAGE, ROOT

from head3d_core import cli
from head3d_core.config import DiscriminatorConfig, RenderOptions, preset
from head3d_core.model import cameras, planes, rays, volume
from head3d_core.model.generator import Generator
from head3d_core.training import recipes
from head3d_course import verdicts

WRITTEN = [*sorted(pages.NOTEBOOKS.glob("*.md")), ROOT / "README.md"]
NUMBERS = [pages.number(p) for p in pages.notebooks()]


def read(name: str) -> str:
    return (pages.NOTEBOOKS / name).read_text(encoding="utf8")


def rows(text: str) -> Iterator[list[str]]:
    """Cells of every table row, headers left out."""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if line.startswith("| ") and len(cells) > 1 and not set(cells[1]) <= {"-"}:
            yield cells


def test_pages_are_in_step() -> None:
    for path, text in pages.fresh_pages().items():
        assert path.is_file(), f"{path.name} is missing: run make pages"
        assert path.read_text(encoding="utf8") == text, f"{path.name} is out of step: run make pages"


def test_tools_notice_what_is_out_of_step() -> None:
    made = pages.with_tables("a\n<!-- begin recipes -->\nold\n<!-- end recipes -->\nz")
    assert "old" not in made
    assert "| `paper` | distill | front 1, back 20 | 16 |" in made
    row = "| Eq. 1 | what | `f` | 02 | `no-such-file.json` | run at classroom scale | agrees |\n"
    assert pages.with_status(row).endswith(f"| {pages.NOT_RECORDED} | agrees |\n")
    done = pages.with_status(row.replace("no-such-file", "fused_cpu"))
    assert done.endswith(f"| {pages.REPRODUCED} | agrees |\n")
    hats = row.replace("no-such-file", "evaluation/real").replace("`f`", "`metrics.accessories.kept`")
    assert f"| {pages.NOT_RECORDED} |" in pages.with_status(hats), "a record without hats and glasses"
    both = row.replace("`no-such-file.json`", "`fused_cpu.json`, `no-such-file.json`")
    assert pages.with_status(both).endswith("| in part: `no-such-file.json` not recorded yet | agrees |\n")
    assert pages.extent_of({"identities": 16}) == " (trial: 16 people)"
    assert pages.extent_of({"identities": 100}) == ""
    assert pages.extent_of({"distance": {"front": {"kernel": {"count": 120}}}}) == " (trial: 120 samples)"
    rows = [{"distance": {"front": {"kernel": {"count": n}}}} for n in (1000, 5000)]
    assert [pages.extent_of(row) for row in rows] == ["", ""]
    assert pages.smaller_rows(["a", "b"], rows) == " (frontal samples: 1,000 in `a`; 5,000 planned)"
    assert pages.smaller_rows(["b", "c"], [rows[1], {}]) == ""
    name = next(p.name for p in pages.notebooks() if p.name.startswith("02"))
    assert pages.linked("| a | 02 §4, 99 | 0.5 |\n") == f"| a | [02 §4]({name}), 99 | 0.5 |\n"
    assert pages.linked("| a | [98 §4](gone.ipynb) |\n") == "| a | 98 §4 |\n"
    assert pages.linked(f"## [02]({name}) Title\n") == f"## [02]({name}) Title\n"


@pytest.mark.parametrize("path", WRITTEN, ids=lambda p: p.name)
def test_links_resolve(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf8")):
        if not target.startswith(("http", "mailto")):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_syllabus_links_every_page() -> None:
    for name in (*pages.PAGES, "recall.md"):
        assert f"]({name})" in read("README.md"), f"{name} is not linked from notebooks/README.md"


def test_syllabus_has_the_time_of_every_notebook() -> None:
    """Measured, with and without the extension, and within the three minutes that the syllabus promises."""
    kept = json.loads((ROOT / "data" / "results" / "notebook_seconds.json").read_text(encoding="utf8"))
    for kind in ("extension", "without"):
        seconds = kept[kind]["seconds"]
        assert set(seconds) == {p.stem for p in pages.notebooks()}, "run tests/run_notebooks.py --record"
        assert max(seconds.values()) <= 180


@pytest.mark.parametrize("name", ["glossary.md", "paper_map.md"])
def test_places_exist(name: str) -> None:
    """ "02 §4" means that notebook 02 has a section 4; notebooks that are planned are named without a section."""
    section_of = re.compile(r"^## (\d+)\.", re.MULTILINE)
    there = {pages.number(p): section_of.findall(pages.text_of(p, "markdown")) for p in pages.notebooks()}
    column = {"glossary.md": -1, "paper_map.md": 3}[name]
    found = 0
    for cells in rows(read(name)):
        for number, section in re.findall(r"\b(\d\d[ab]?)(?: §(\d+))?\b(?!_)", cells[column]):
            assert number in NUMBERS
            assert not section or section in there[number], f"{name}: {number} §{section}"
            found += 1
    assert found > 30


def test_paper_map_names_functions_that_exist() -> None:
    functions = 0
    for cells in rows(read("paper_map.md")):
        for name in re.findall(r"`([\w.]+)`", cells[2]):
            whole = name if name.startswith("head3d_course.") else f"head3d_core.{name}"
            try:
                functions += callable(pkgutil.resolve_name(whole))
            except (ImportError, AttributeError):
                pytest.fail(f"paper_map.md names {name}, which does not exist")
    assert functions > 40


VERDICTS = (verdicts.AGREES, verdicts.CONTRADICTS, verdicts.UNDECIDED, verdicts.NOT_TESTED)


def test_paper_map_is_whole() -> None:
    """Every equation, table, figure and claim of the paper has a row; every row has a status and names sections."""
    table = [cells for cells in rows(read("paper_map.md")) if cells[0] != "Paper"]
    said = " ".join(cells[0] for cells in table)
    for kind, last in (("Eq.", 10), ("Table", 3), ("Fig.", 10)):
        for k in range(1, last + 1):
            assert re.search(rf"{re.escape(kind)} {k}\b", said), f"no row for {kind} {k}"
    for claim in verdicts.claims():
        assert any(cells[1].startswith(claim.mapped) for cells in table), claim
    allowed = (pages.REPRODUCED, pages.MEASURED, pages.NOT_RECORDED, "in part: ", "shown", "not attempted: ")
    for cells in table:
        assert len(cells) == 7, cells
        assert cells[5].startswith(allowed), cells[5]
        assert cells[6].startswith((*VERDICTS, "in part", "same direction", "differs", "–")), cells[6]
        for place in re.findall(r"\[([^]]*)\]\(\d\d[ab]?_[^)]*\)", cells[3]):
            assert "§" in place, f"{cells[0]}, {cells[1]}: which section of {place}?"


FIRST_USED = {
    "box_warp": "box_warp",
    "truncation_psi": "truncation",
    "swap": r"[Ss]wapping",
    "decoder": "decoder",
    "super-resolution": "Super-resolution",
    "domain gap": "domain gap",
    "Janus rate": "Janus",
    "carried": r"[Cc]arried\b",
    "bootstrap interval": "The intervals here redraw",
    "diversity": "diversity",
    "ROC, AUC": r"\bAUC\b",
    "TAR at FAR": r"\bTAR\b",
    "kernel distance": r"\bKD\b x",
    "identity similarity": "the cosine",
    "ablation, row": r"\*\*ablation",
    "Kendall's τ": "Kendall",
    "chamfer distance": "[Cc]hamfer",
    "closedness": "closed(?:ness)?_heads|closedness",
    "logit": "logit",
    "demodulation": "demodulat",
    "dual discrimination": "dual discrimination",
    "gate, threshold": "from the front only",
}
"""Word of the glossary -> what to look for in the notebooks; for words that mean one thing wherever they stand."""


def test_first_used_is_where_a_word_is_first_used() -> None:
    """Text, code and printed output of every section, in reading order; the title cell of a notebook doesn't count."""
    sections: dict[str, str] = {}
    for path in pages.notebooks():
        place = ""
        for cell in pages.cells(path):
            for part in re.split(r"^(?=## )", cell.source, flags=re.MULTILINE):
                if heading := re.match(r"## (\d+)\.", part):
                    place = f"{pages.number(path)} §{heading[1]}"
                elif part.startswith("## "):
                    place = ""
                if place:
                    sections[place] = sections.get(place, "") + part
            printed = [o.text for o in cell.get("outputs", []) if o.get("name") == "stdout"]
            if place:
                sections[place] += "\n".join(printed)
    said = {cells[0].strip("`"): cells[-1] for cells in rows(read("glossary.md"))}
    wrong = {}
    for word, pattern in FIRST_USED.items():
        first = next((place for place, text in sections.items() if re.search(pattern, text)), None)
        if first is None or f"[{first}]" not in said[word]:
            wrong[word] = (said[word], first)
    assert not wrong


def test_glossary_shapes_are_those_of_the_code() -> None:
    """One word for each thing, with one shape everywhere: those of tensors of the smallest preset."""
    said = {cells[0].strip("`"): cells[2] for cells in rows(read("glossary.md")) if len(cells) == 6}
    g = Generator(preset("tiny").generator).eval()
    config, options = g.config, RenderOptions(depth_resolution=5, depth_resolution_importance=0)
    z, camera = torch.randn(2, g.z_dim), cameras.orbit(torch.tensor([0.0, 0.4]))
    cam2world, intrinsics = cameras.unpack(camera)
    with torch.no_grad():
        ws = g.mapping(z, camera)
        made = g.planes(ws)
        origins, directions = rays.camera_rays(camera, 3)
        result = volume.render_rays(made, g.decoder.weights(), origins, directions, options)
        points = torch.rand(2, 7, 3) - 0.5
        sigma, _ = planes.query(made, g.decoder.weights(), points)
        near, far = torch.full((2, 9), 2.25), torch.full((2, 9), 3.3)
        depths = volume.stratified_depths(near, far, 5)
        marched = volume.march(torch.rand(2, 9, 5, 3), torch.rand(2, 9, 5, 1), depths)
    sizes = {
        "N": 2, "R": 9, "S": 5, "M": 7, "C": config.plane_channels, "H": config.plane_resolution,
        "W": config.plane_resolution, "F": config.decoder_features, "z_dim": config.z_dim,
        "w_dim": config.w_dim, "num_ws": config.num_ws, "S-1": 4,
    }  # fmt: skip
    tensors = {
        "z": z, "ws": ws, "planes": made, "cam2world": cam2world, "intrinsics": intrinsics, "camera": camera,
        "ray_origins": origins, "ray_directions": directions, "depths": depths, "weights": marched.weights,
        "points": points, "sigma": sigma, "features": result.features, "depth": result.depth,
        "opacity": result.opacity,
    }  # fmt: skip
    for word, tensor in tensors.items():
        wanted = [sizes[s] if s in sizes else int(s) for s in said[word].strip("[]").split(", ")]
        assert list(tensor.shape) == wanted, word
    assert said["alpha"] == said["transmittance"] == said["weights"], "factors of one product"


def test_instructor_has_a_plan_for_every_notebook() -> None:
    text = read("instructor.md")
    chapters = re.split(r"^## \[?(\d\d[ab]?)\b.*$", text, flags=re.MULTILINE)
    assert chapters[1::2] == NUMBERS
    modules = COURSE.glob("nb*.py")
    code = "\n".join(path.read_text(encoding="utf8") for path in modules)
    checks = set(re.findall(r"^(\w+) = (?:Exercise|choice)\(", code, re.MULTILINE))
    for path, number, chapter in zip(pages.notebooks(), chapters[1::2], chapters[2::2], strict=True):
        for part in ("**Goal.**", "**Ask.**", "**Likely wrong.**", "**Skip**"):
            assert part in chapter, f"{number}: {part} is missing"
        spans = [tuple(map(int, m)) for m in re.findall(r"^\| (\d+)–(\d+) \|", chapter, re.MULTILINE)]
        assert spans[0][0] == 0, number
        assert spans[-1][1] == 50, number
        assert all(a[1] == b[0] for a, b in itertools.pairwise(spans)), f"{number}: gap in the plan"
        named = set(re.findall(r"`check\.(\w+)`", chapter))
        assert named <= checks, f"{number} names {named - checks}"
        asked = set(re.findall(r"^check\.(\w+)\(", pages.text_of(path, "code"), re.MULTILINE))
        assert asked <= named, f"{number}: instructor.md says nothing about {asked - named}"


def test_training_guide_names_what_exists() -> None:
    """Words in `code` of the table of symptoms are of the log, a recipe, the options or a command."""
    text = read("training_guide.md")
    files = [p for of in ("config.py", "training/*.py", "datasets/*.py") for p in PACKAGE.glob(of)]
    source = "".join(path.read_text(encoding="utf8") for path in files)
    table = text[text.index("| What you see") : text.index("## γ against")]
    words = set(re.findall(r"`([^`]+)`", table))
    assert len(words) > 15
    domains = {d.name for how in recipes.PAPER.values() for d in how.domains}
    for word in words:
        stem = word.split()[0].lstrip("-").removesuffix("_*").split(".")[-1].replace("-", "_")
        for domain in domains:
            stem = stem.removesuffix(f"_{domain}")
        known = stem in cli.COMMANDS or stem in recipes.STAGES or stem.startswith("D") or stem in source
        assert known, f"training_guide.md speaks of {word}"
    assert str(DiscriminatorConfig().group_size) in re.findall(r"a multiple of (\d+)", table)


def test_syllabus_names_folders_and_modules_that_exist() -> None:
    """Every notebook says which folder of the package it is about."""
    listed = [cells for cells in rows(read("README.md")) if cells[0] in NUMBERS and cells[-1].startswith("`")]
    named = {cells[0]: cells[-1] for cells in listed}
    assert list(named) == NUMBERS
    for cell in named.values():
        for folder, _, modules in re.findall(r"`([\w.]+)`( \(([^)]*)\))?", cell):
            place = {"csrc": ROOT, COURSE.name: COURSE.parent}.get(folder, PACKAGE)
            assert (place / folder).is_dir() or (place / f"{folder}.py").is_file(), folder
            for module in filter(None, modules.split(", ")):
                assert (place / folder / f"{module}.py").is_file(), f"{folder}/{module}.py"
