"""Hygiene of the committed notebooks, so that nbval compares something and readers see something."""

from __future__ import annotations

import base64
import configparser
import itertools
import re
import statistics
import time
from pathlib import Path

import course_pages as pages
import nbformat
import pytest
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter

from head3d_core.course import words
from head3d_core.evaluation.tables import digest

NOTEBOOKS = pages.notebooks()
SOLUTIONS = sorted((pages.NOTEBOOKS / "solutions").glob("*.ipynb"))
IGNORED = {
    "00_start_here.ipynb": "the doctor's list differs between machines",
    "06_plane_swap_lab.ipynb": "as many identities as the machine renders in time",
}
"""Notebooks with a cell whose output is not compared, and why."""

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)


def printed(path: Path) -> str:
    """All that a notebook's cells print."""
    outputs = (output for cell in pages.cells(path, "code") for output in cell.outputs)
    return "".join(output.text for output in outputs if output.get("name") == "stdout")


def test_notebooks_are_light() -> None:
    sizes = {path.name: path.stat().st_size for path in NOTEBOOKS + SOLUTIONS}
    assert NOTEBOOKS
    assert len(SOLUTIONS) == len(NOTEBOOKS) - 1
    assert sum(path.stat().st_size for path in NOTEBOOKS + SOLUTIONS) < 8e6
    assert not {name: size for name, size in sizes.items() if size > 1e6}


@pytest.mark.parametrize("path", NOTEBOOKS + SOLUTIONS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_executed_in_order_without_errors(path: Path) -> None:
    code = pages.cells(path, "code")
    assert [c.execution_count for c in code] == list(range(1, len(code) + 1)), "run it from a fresh kernel"
    for cell in code:
        for output in cell.outputs:
            assert output.output_type != "error", cell.source
            assert output.get("name") != "stderr", output


@each_notebook
def test_cells_are_short(path: Path) -> None:
    code = pages.cells(path, "code")
    lengths = [len([line for line in c.source.splitlines() if line.strip()]) for c in code]
    assert max(lengths) <= 30
    assert statistics.median(lengths) <= 10
    ignored = [c for c in code if {"nbval-ignore-output", "nbval-skip"} & set(c.metadata.get("tags", []))]
    assert len(ignored) <= (path.name in IGNORED)


@each_notebook
def test_headings(path: Path) -> None:
    text = pages.text_of(path, "markdown")
    levels = [len(m) for m in re.findall(r"^(#+) ", text, re.MULTILINE)]
    assert levels.count(1) == 1, "one H1, the question that the notebook answers"
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels)), "no heading level is skipped"
    assert "?" in text.splitlines()[0]
    for word in ("You will", "Before you start", "Run time", "Summary"):
        assert word in text, f"{word} is missing"


@each_notebook
def test_rendered_pictures_have_their_text_and_are_light(path: Path) -> None:
    """In the page that nbconvert makes, and so on code hosts: each picture once, JPEG or PNG, with its text."""
    page = BeautifulSoup(HTMLExporter().from_notebook_node(nbformat.read(path, 4))[0], "html.parser")
    pictures = page.select(".jp-OutputArea img")
    assert pictures
    for picture in pictures:
        assert len(picture["alt"]) > 30, picture["alt"]
        assert not picture["alt"].startswith("No description"), path.name
        assert len(base64.b64decode(picture["src"].partition(",")[2])) <= 150e3, picture["alt"]
    assert len({picture["src"] for picture in pictures}) == len(pictures), "a picture is stored twice"


@each_notebook
def test_figures_have_stills_and_a_printed_fact(path: Path) -> None:
    for cell in pages.cells(path, "code"):
        kinds = {kind for output in cell.outputs for kind in output.get("data", {})}
        still = any("<img" in output.get("data", {}).get("text/html", "") for output in cell.outputs)
        assert still or "application/vnd.plotly.v1+json" not in kinds, f"no still: {cell.source}"
        assert "application/vnd.jupyter.widget-view+json" not in kinds, "belongs to one run"
        assert not {"image/png", "image/jpeg"} & kinds, "show it with figures.show"
        if still and "widgets." not in cell.source:
            says = [output for output in cell.outputs if output.get("name") == "stdout"]
            assert says, f"a figure needs a printed fact: {cell.source}"


def test_alternative_texts_are_kept_out_of_the_cells() -> None:
    used, texts = set(), words("alt_texts")
    for path in NOTEBOOKS:
        source = pages.text_of(path, "code")
        assert not re.search(r'\balt=f?"[^"]{30,}', source), path.name
        used |= set(re.findall(r'"(\d\d[ab]?\.\w+)"', source)) & set(texts)
        for before, after in itertools.pairwise(pages.cells(path)):
            caption = re.match(r"\*\*Fig\. (\w+\.\d+)\.", after.source)
            keys = re.findall(r'show\w*\((?:.|\n)*?"(\d\d[ab]?\.\d+)[a-z]?",?\s*\)', before.source)
            assert not caption or set(keys) <= {caption[1]}, f"{keys} above {caption[1]}"
    assert used == set(texts), "texts that no cell uses"
    assert min(map(len, texts.values())) > 30


@pytest.mark.parametrize("path", NOTEBOOKS[1:], ids=lambda path: path.name)
def test_exercises_are_not_attempted_and_have_solutions(path: Path) -> None:
    called = re.compile(r"^check\.(\w+)\(", re.MULTILINE)
    exercises = [cell for cell in pages.cells(path, "code") if called.search(cell.source)]
    assert 2 <= len(exercises) <= 4
    assert {cell.outputs[0].text.strip() for cell in exercises} == {"○ not attempted"}
    solution = pages.NOTEBOOKS / "solutions" / path.name
    asked = {name for cell in exercises for name in called.findall(cell.source)}
    assert asked <= set(called.findall(pages.text_of(solution, "code")))
    assert printed(solution).count("✓") >= len(asked)
    assert "✗" not in printed(solution)


def test_figures_are_of_the_records() -> None:
    """Stored pictures are not compared when notebooks run: a notebook that prints the records' digest dates them."""
    dated = [path for path in NOTEBOOKS if "tables.digest()" in pages.text_of(path, "code")]
    for path in dated:
        assert f"records: {digest()}" in printed(path), f"{path.name} shows older records: execute it"
    assert "10a_how_far_apart.ipynb" in [path.name for path in dated]


@each_notebook
def test_notebooks_print_numbers_not_truth_values(path: Path) -> None:
    assert not re.search(r"\b(True|False)\b", printed(path))


@pytest.mark.alone
def test_stored_outputs_are_sanitized_quickly() -> None:
    """nbval applies every pattern to every output; one that tries each start of a long line takes a minute."""
    rules = configparser.RawConfigParser()
    rules.read(pages.ROOT / "tests" / "nbval_sanitize.cfg")
    output = f'<img src="data:image/png;base64,{"Aa0/" * 20_000}" alt="x">'
    start = time.perf_counter()
    for name in rules.sections():
        output = re.sub(rules[name]["regex"], rules[name]["replace"], output)
    assert output == '<img src="PICTURE" alt="x">'
    assert time.perf_counter() - start < 1
