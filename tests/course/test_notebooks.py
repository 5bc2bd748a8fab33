"""The committed notebooks and pages: hygiene, so that nbval compares something, and how the course is written."""

from __future__ import annotations

import ast
import base64
import configparser
import itertools
import re
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import course_pages as pages
import nbformat
import pytest
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter

from head3d_core.evaluation.tables import digest
from head3d_course import predictions, words

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


PAGES = [p for p in sorted(pages.NOTEBOOKS.glob("*.md")) if p.name != "recall.md"]
BANNED = (
    "alike", "beside", "by heart", "whom", "twin", "twins", "undecided", "decidedly", "near-repeat", "nor",
    "you should see", "talked down", "to the right is worse",
)  # fmt: skip
"""Words that our readers trip over, or that mean two things here."""
LONGEST, COLONS = 80, 2
WORDS = 1000
"""Of a notebook's prose that is read in one go."""
ENTRY = re.compile(r"- (?P<who>[^(\[]+) \((?P<year>\d{4})\), \[(?P<title>[^]]+)\]\((?P<url>[^)]+)\)\. .+\.")
"""- Author et al. (2020), [Title](address). One sentence on what to read it for."""
DRAWS = re.compile(r"\b(?:figures\.show(?:_plotly)?|show_recorded)\(")


def prose(path: Path) -> str:
    """The text of a page or a notebook."""
    return path.read_text(encoding="utf8") if path.suffix == ".md" else pages.text_of(path, "markdown")


def paragraphs(text: str) -> Iterator[str]:
    """Paragraphs and list items, without tables, formulas, code, addresses and tags."""
    made = r"<!-- begin .*?<!-- end \w+ -->"  # by tests/course_pages.py
    text = re.sub(rf"{made}|```.*?```|\$\$.*?\$\$|<[^>]+>", "", text, flags=re.DOTALL)
    text = re.sub(r"`[^`]*`|\$[^$\n]*\$", "X", text)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    for block in re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.|\|) )", text):
        if block.strip() and not block.lstrip().startswith(("|", "#")):
            yield " ".join(block.split())


@pytest.mark.parametrize("path", NOTEBOOKS + PAGES, ids=lambda path: path.name)
def test_paragraphs_are_short_and_words_plain(path: Path) -> None:
    for paragraph in paragraphs(prose(path)):
        assert len(paragraph.split()) <= LONGEST, f"{len(paragraph.split())} words: {paragraph[:80]}"
        colons = re.findall(r"(?<!X):(?=\s|$)", paragraph)  # not those after a name in code, which labels
        assert len(colons) <= COLONS, f"colons: {paragraph[:80]}"
        said = [word for word in BANNED if re.search(rf"\b{word}\b", paragraph.lower())]
        assert not said, f"{said} in: {paragraph[:120]}"


@each_notebook
def test_a_notebook_has_about_a_thousand_words(path: Path) -> None:
    """Without warm-up, exercises, tables, formulas, literature and what is folded."""
    text = prose(path).split("## Where this comes from")[0]
    text = re.sub(r"\*\*Warm-up.*?</details>|<details>.*?</details>|^### Exercise.*?(?=^#|^\*\*|\Z)", "", text,
                  flags=re.DOTALL | re.MULTILINE)  # fmt: skip
    text = re.sub(r"\$\$.*?\$\$|^\|.*?$|```.*?```", "", text, flags=re.DOTALL | re.MULTILINE)
    found = len(re.sub(r"\$[^$\n]*\$|\]\([^)]*\)", " X ", text).split())
    assert 300 < found <= WORDS, found


def said(call: ast.Call) -> Iterator[str]:
    """The words in the arguments of a call, without the keys of what is looked up."""
    places: list[ast.AST] = list(call.args[1:])
    while places:
        place = places.pop()
        if isinstance(place, ast.Constant) and isinstance(place.value, str):
            yield place.value
        places += [place.value] if isinstance(place, ast.Subscript) else ast.iter_child_nodes(place)


def test_answers_stand_in_no_cell() -> None:
    """The words of an answer are in `answers.json`; the cell, which is seen before the guess, has values alone."""
    compared: list[str] = []
    for path in NOTEBOOKS:
        tree = ast.parse(re.sub(r"^[!%].*", "pass", pages.text_of(path, "code"), flags=re.MULTILINE))
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            if ast.unparse(call.func) == "predictions.compare":
                assert isinstance(call.args[0], ast.Constant)
                compared.append(str(call.args[0].value))
                telling = [text for text in said(call) if len(re.findall(r"\w{3,}", text)) > 2]
                assert not telling, f"{compared[-1]}: {telling}"
                assert len(call.args) > 1 or compared[-1] in words("answers")
    assert set(words("answers")) <= set(compared), "answers that no cell asks for"


@each_notebook
def test_figures_are_numbered_and_captioned(path: Path) -> None:
    """Each cell that draws is followed by **Fig. NN.k.** and a sentence that anybody can see."""
    captions = []
    for cell, after in itertools.pairwise(pages.cells(path)):
        if cell.cell_type == "code" and DRAWS.search(cell.source):
            caption = re.match(r"\*\*Fig\. (\w+)\.(\d+)\.\*\* \S.{30,}", after.source)
            assert after.cell_type == "markdown", f"no caption: {cell.source[:80]}"
            assert caption, f"no caption: {cell.source[:80]} … {after.source[:60]}"
            captions.append((caption[1], int(caption[2])))
    assert captions == [(pages.number(path), k + 1) for k in range(len(captions))]


@each_notebook
def test_predictions_come_before_their_answers(path: Path) -> None:
    asked = re.findall(r'predictions\.(ask|compare)\(\s*"([\w.]+)"', pages.text_of(path, "code"))
    made = [name for kind, name in asked if kind == "ask"]
    assert len(made) == len(set(made)) >= 3, made
    assert made == [f"{pages.number(path)}.{k + 1}" for k in range(len(made))]
    for name in made:
        here = [kind for kind, other in asked if other == name]
        assert here == ["ask", "compare"] or f"(answer in notebook {LATER.get(name)})" in prose(path), name


LATER = {"00.3": "11a"}
"""A prediction that is asked in one notebook and answered in another."""


@each_notebook
def test_warm_up_exercises_and_answers(path: Path) -> None:
    text = prose(path)
    if pages.number(path) != "00":
        warm = re.search(r"\*\*Warm-up.*?\*\*.*?</details>", text, re.DOTALL)
        assert warm, "no **Warm-up**"
        questions, answers = warm[0].split("<details>")
        assert len(re.findall(r"^\d\. ", questions, re.MULTILINE)) == 3
        assert len(re.findall(r"^\d\. ", answers, re.MULTILINE)) == 3
        headings = re.findall(r"^### Exercise .*", text, re.MULTILINE)
        assert headings
        for heading in headings:
            assert re.fullmatch(r"### Exercise \d: .+ \(\d+ min, [●○]{3}\)", heading), heading
    for question in re.findall(r"\*\*What breaks if\*\*.*?(?=\*\*What breaks|\Z)", text, re.DOTALL):
        assert "<details>" in question, f"no folded answer: {question[:80]}"
    assert text.count("<details>") == text.count("</details>")


def works() -> dict[str, tuple[str, str, str]]:
    """Title -> (first author's family name, year, address) of everything in references.bib."""
    found = {}
    for entry in (pages.NOTEBOOKS / "references.bib").read_text(encoding="utf8").split("@misc")[1:]:
        field = dict(re.findall(r"^  (\w+) = \{+(.*?)\}+,$", entry, re.MULTILINE))
        place = f"arxiv.org/abs/{field['eprint']}" if "eprint" in field else f"doi.org/{field['doi']}"
        found[field["title"]] = (field["author"].split(",")[0], field["year"], f"https://{place}")
    return found


@each_notebook
def test_literature_has_its_form_and_is_in_the_bibliography(path: Path) -> None:
    sections = re.split(r"^## Where this comes from, what came after$", prose(path), flags=re.MULTILINE)
    assert len(sections) == 2, "one section of literature"
    entries = re.findall(r"^- .*", sections[1], re.MULTILINE)
    assert 3 <= len(entries) <= 6
    known = works()
    for entry in entries:
        found = ENTRY.fullmatch(entry)
        assert found, f"form: {entry}"
        assert found["title"] in known, f"not in references.bib: {found['title']}"
        who, year, address = known[found["title"]]
        assert found["who"].split()[0].rstrip(",") in who.split()[0]
        assert (found["year"], found["url"]) == (year, address)


def test_bibliography_is_whole() -> None:
    known = works()
    assert len(known) == (pages.NOTEBOOKS / "references.bib").read_text(encoding="utf8").count("@misc")
    for who, year, address in known.values():
        assert who
        assert re.fullmatch(r"(19|20)\d\d", year)
        assert re.fullmatch(r"https://arxiv\.org/abs/\d{4}\.\d{4,5}|https://doi\.org/10\.\S+", address)


def test_predictions_are_kept_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEAD3D_PREDICTIONS", str(tmp_path / "deep" / "guesses.json"))
    monkeypatch.setattr(predictions, "_session", {})
    monkeypatch.setattr(predictions, "words", lambda _: {"00.1": "hair on {:.0%}"})
    predictions.compare("00.1", 0.5)
    assert capsys.readouterr().out == "prediction 00.1 | yours: none written | answer: hair on 50%\n"
    predictions.ask("00.1", "a face")
    monkeypatch.setattr(predictions, "_session", {})  # another kernel, another day
    predictions.compare("00.1", 0.5)
    assert "yours: a face | answer: hair" in capsys.readouterr().out
    predictions.compare("00.9", "two", 3)
    assert capsys.readouterr().out.endswith("| answer: two 3\n"), "without words the values alone"
    (tmp_path / "deep" / "guesses.json").write_text("not json")
    assert predictions.kept() == {}
    monkeypatch.setenv("HEAD3D_PREDICTIONS", "")
    predictions.ask("00.2", 3)
    assert predictions.kept() == {"00.2": "3"}, "without a file a guess lasts as long as the kernel"


def test_a_field_keeps_what_is_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(predictions, "_session", {})
    monkeypatch.setattr("IPython.display.display", shown.append)
    predictions.ask("01.1")
    shown[0].value = "upside down"
    assert predictions.kept() == {"01.1": "upside down"}


def test_figures_named_on_pages_exist() -> None:
    captions = set(re.findall(r"\*\*Fig\. (\w+\.\d+)\.\*\*", "\n".join(map(prose, NOTEBOOKS))))
    named = set(re.findall(r"Fig\. (\d\d[ab]?\.\d+)", prose(pages.NOTEBOOKS / "discussion.md")))
    assert len(named) > 5
    assert named <= captions, named - captions
