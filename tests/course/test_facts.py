"""A wrong picture has other facts: figure cells of the notebooks, run with pictures that are wrong on purpose."""

from __future__ import annotations

import ast
import contextlib
import io
import itertools
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import course_pages as pages
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import torch
from PIL import Image
from test_legible import pale

from head3d_core.model import seeds
from head3d_course import figures, stills

OUTDATED = "the stored image is not of today's code: execute the notebook"
SHOWN = {
    "00.1": "head3d_core.geometry.turntable.views",
    "01.3": "head3d_course.nb01.axes_view",
    "02.1": "head3d_course.nb02.ray_image",
    "04.1": "head3d_core.utils.images.from_uint8",
    "05a.1": "head3d_core.geometry.turntable.views",
    "05b.5": "head3d_course.recorded.last_cells",
    "06.3": "head3d_course.nb06.swap_row",
    "07.1": "head3d_core.geometry.turntable.views",
    "08.4": "head3d_course.recorded.recorded_picture",
    "09.3": "head3d_course.nb11a.recorded_views",
    "10a.4": "head3d_course.nb10a.damage_example",
    "10b.2": "head3d_course.recorded.recorded_picture",
    "11a.2": "head3d_course.nb11a.recorded_views",
    "12.5": "head3d_course.nb12.mesh_picture",
    "13.1": "head3d_course.nb13.views",
    "15.1": "head3d_course.recorded.last_cells",
}
"""Figure -> what makes its images: a tensor [..., 3, H, W] or list of them, or an array [H, W, 3]."""


# --- what is wrong ----------------------------------------------------------------------------------------------------


def mirrored(images: torch.Tensor) -> torch.Tensor:
    return images.flip(-1)


def black(images: torch.Tensor) -> torch.Tensor:
    return torch.full_like(images, -1)


def shifted(images: torch.Tensor) -> torch.Tensor:
    """By a quarter of the width: cells of a sheet are under the wrong titles."""
    return images.roll(images.shape[-1] // 4, -1)


def backwards(images: torch.Tensor) -> torch.Tensor:
    """Several images, such as views or people, in the other order."""
    return images.flatten(0, -4).flip(0).reshape(images.shape)


def applied(wrong: Callable[[torch.Tensor], torch.Tensor], made: Any) -> Any:
    """What a function of `SHOWN` made, with its images wrong."""
    if isinstance(made, list):
        return list(wrong(torch.stack(made)))
    if isinstance(made, np.ndarray):
        signed = wrong(torch.from_numpy(made).movedim(-1, 0) / 127.5 - 1)
        return ((signed + 1) * 127.5).round().byte().movedim(0, -1).numpy()
    return wrong(made)


# --- cells ------------------------------------------------------------------------------------------------------------


def up_to(key: str) -> list[Any]:
    """The code cells of a notebook up to that which shows a figure; predictions have numbers of their own."""
    (path,) = pages.NOTEBOOKS.glob(f"{key.partition('.')[0]}_*.ipynb")
    cells, named = pages.cells(path, "code"), re.compile(rf'(?<!ask\()(?<!compare\()"{key}"')
    return cells[: 1 + next(k for k, cell in enumerate(cells) if named.search(cell.source))]


def needed(key: str) -> list[str]:
    """The figure's cell, after the cells of its notebook that give names to what it uses."""
    sources = [cell.source for cell in up_to(key)]
    chosen, wanted = [sources[-1]], names(sources[-1])[1]
    for source in reversed(sources[:-1]):
        if "!" in source.splitlines()[-1]:  # a command of the shell
            continue
        given, used = names(source)
        if given & wanted:
            chosen.insert(0, source)
            wanted = (wanted - given) | used
    return chosen


def names(source: str) -> tuple[set[str], set[str]]:
    """The names that a cell gives, and those that it uses and does not give itself."""
    given, used = set(), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else given).add(node.id)
        elif isinstance(node, ast.FunctionDef):
            given.add(node.name)
        elif isinstance(node, ast.alias):
            given.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.arg):
            given.add(node.arg)
    return given, used - given


class Kept:
    """A function that keeps what it makes; once `wrong` is set, it gives that of the k-th kept result instead."""

    def __init__(self, patch: pytest.MonkeyPatch, path: str) -> None:
        self.real = pkgutil.resolve_name(path)
        self.made: list[Any] = []
        self.wrong: Callable[[list[Any], int], Any] | None = None
        patch.setattr(path, self.make)

    def make(self, *args: Any, **options: Any) -> Any:
        if self.wrong is not None:
            return self.wrong(self.made, next(self.calls))
        self.made.append(self.real(*args, **options))
        return self.made[-1]

    def begin(self, wrong: Callable[[list[Any], int], Any] | None) -> None:
        """Before the figure's cell runs: the first time results are kept, from now on they are given again."""
        self.wrong, self.calls = wrong, itertools.count()
        self.made = self.made if wrong else []


class Bench:
    """Runs the cells of a figure, with what makes its images in the hands of the test."""

    def __init__(self, patch: pytest.MonkeyPatch, key: str, path: str) -> None:
        self.key, self.texts = key, io.StringIO()
        self.space: dict[str, Any] = {"__name__": "__main__", "display": self.display}
        patch.chdir(pages.NOTEBOOKS)
        patch.setattr("IPython.display.display", self.display)
        patch.setattr(figures, "to_image", self.not_drawn)
        self.images, self.heads = Kept(patch, path), Kept(patch, "head3d_core.model.seeds.heads_of_seeds")
        *before, self.cell = needed(key)
        for source in before:
            self.run(source)

    def display(self, *shown: Any, raw: bool = False, **_: Any) -> None:
        if raw:
            self.texts.write(shown[0]["text/plain"] + "\n")

    @staticmethod
    def not_drawn(figure: Any) -> Image.Image:
        """Facts are read from the figure itself; its texts are looked at on the way."""
        assert pale(figure) == []
        plt.close(figure)
        return Image.new("RGB", (4, 4))

    def run(self, source: str) -> None:
        with contextlib.redirect_stdout(self.texts):
            exec(compile(source, self.key, "exec"), self.space)

    def text(self, wrong: Callable[[list[Any], int], Any] | None = None) -> str:
        """All the text of the figure's cell. `wrong`: what was made, and k -> what is taken for the k-th of it.

        A wrong image may lack a number that is printed below it.
        """
        self.images.begin(wrong)
        self.heads.begin(wrong and (lambda made, k: made[k]))
        self.texts = io.StringIO()
        lacking: tuple[type[Exception], ...] = (ArithmeticError, ValueError) if wrong else ()
        with contextlib.suppress(*lacking):
            self.run(self.cell)
        return self.texts.getvalue()


def facts_in(text: str) -> str:
    return next(line for line in text.splitlines() if line.startswith("Shown: "))


def stored_facts(key: str) -> str:
    """The facts of a figure in its committed notebook."""
    return facts_in(
        "\n".join(output.get("data", {}).get("text/plain", "") for output in up_to(key)[-1].outputs)
    )


# --- tests ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", SHOWN)
def test_a_wrong_image_changes_its_facts(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, key, SHOWN[key])
    right = facts_in(bench.text())
    made = bench.images.made
    assert made, f"{SHOWN[key]} makes nothing of figure {key}"
    assert right == stored_facts(key), OUTDATED
    wrongs = [mirrored, black]
    if isinstance(made[0], list) or made[0].ndim > 3:
        wrongs.append(backwards)
    elif len(made) == 1:
        wrongs.append(shifted)
    else:
        assert facts_in(bench.text(lambda made, k: made[-1 - k])) != right, "in the other order"
    for wrong in wrongs:
        assert facts_in(bench.text(lambda made, k, wrong=wrong: applied(wrong, made[k]))) != right, wrong


def other_models(record: dict[str, Any]) -> dict[str, Any]:
    models = record["models"]
    return record | {"models": dict(zip(models, reversed(models.values()), strict=True))}


DRAWN: dict[str, tuple[str, Callable[[list[Any], int], Any]]] = {
    "05b.6": (
        "head3d_course.recorded.second_faces",
        lambda made, k: dict(zip(made[k], reversed(made[k].values()), strict=True)),
    ),
    "10a.2": ("head3d_core.metrics.distances.kernel_distance", lambda made, k: made[-1 - k]),
    "13.2": ("head3d_core.utils.records.read", lambda made, k: other_models(made[k])),
}
"""Figure of curves or dots -> what makes its numbers, and how they get wrong: the groups' names are exchanged."""


@pytest.mark.parametrize("key", DRAWN)
def test_wrong_curves_change_what_is_compared(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path, wrong = DRAWN[key]
    bench = Bench(monkeypatch, key, path)
    right = bench.text()
    assert facts_in(right) == stored_facts(key), OUTDATED
    assert bench.text(wrong) != right


@pytest.mark.parametrize("key", ["00.1", "05a.1", "13.1"])
def test_another_person_changes_the_facts(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    of_seeds = seeds.ws_of_seeds

    def next_ones(G: Any, chosen: Sequence[int], *args: Any, **options: Any) -> torch.Tensor:
        return of_seeds(G, [k + 1 for k in chosen], *args, **options)

    monkeypatch.setattr(seeds, "ws_of_seeds", next_ones)
    assert facts_in(Bench(monkeypatch, key, SHOWN[key]).text()) != stored_facts(key)


CELL = """import torch
from head3d_course import figures
figures.show(figures.image_grid([torch.linspace(-1, 1, 48).reshape(3, 4, 4){}]), "a ramp")"""


def test_nbval_compares_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cells with the same stored image: one still shows it, the other one shows it mirrored."""
    shown: list[dict[str, str]] = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    exec(CELL.format(""), {})
    stored = [nbformat.v4.new_output("display_data", shown[0])]
    code = [CELL.format(now) for now in ("", ".flip(-1)")]
    cells = [nbformat.v4.new_code_cell(source, execution_count=1, outputs=stored) for source in code]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "ramp.ipynb")
    rules = f"--nbval-sanitize-with={pages.ROOT / 'tests' / 'nbval_sanitize.cfg'}"
    options = ("-q", "--nbval", "--nbval-current-env", rules, "-p", "no:cacheprovider")
    run = [sys.executable, "-m", "pytest", *options, str(tmp_path / "ramp.ipynb")]
    done = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert "1 failed, 1 passed" in done.stdout, done.stdout
    assert "mismatch 'text/plain'" in done.stdout


def test_every_stored_figure_has_facts() -> None:
    """All but scenes in space and the lab, whose numbers are printed, and those that are listed with a reason."""
    left_out = r"show_plotly|swap_viewer" + "".join(f'|"{key}"' for key in stills.NOT_COMPARED)
    for path in pages.notebooks():
        for cell in pages.cells(path, "code"):
            for data in (output.get("data", {}) for output in cell.outputs):
                if "<img" in data.get("text/html", "") and not re.search(left_out, cell.source):
                    assert "\nShown: " in data["text/plain"], f"{path.name}: {cell.source}"


def test_facts_tell_figures_apart() -> None:
    left, right = torch.zeros(2, 3, 8, 8)
    left[:, :, :4], right[:, :, 4:] = 1.0, 1.0
    pairs = [figures.image_grid(images) for images in ([left, right], [right, left], [left, left])]
    assert [stills.facts_of_figure(figure).rpartition(": ")[2] for figure in pairs] == [
        "255|128 128|255",
        "128|255 255|128",
        "255|128 255|128",
    ]
    curves = []
    for order in ((0, 1), (1, 0)):
        figure, axis = figures.panels(3, 2)
        for k, which in enumerate(order):
            figures.curve(axis, k, [0, 1, 2], [[3, 2, 1], [5, 5, 5]][which], "ab"[k])
        curves.append(stills.facts_of_figure(figure))
    assert curves == [
        "mean x y kx ky of each panel: 1 3.5 1.5 6",
        "mean x y kx ky of each panel: 1 3.5 1.5 4.5",
    ]
    diagram, axis = figures.canvas(4, 4, (2, 2))
    figures.box(axis, 2, 2, "mapping\nM", "red")
    assert stills.facts_of_figure(diagram) == "texts: mapping M"
    plt.close("all")
