"""Imports go from later folders to earlier ones: read from the source, so imports inside functions count too.

The course's code is the last: it may import the library, and nothing of the library imports the course.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import COURSE, PACKAGE, ROOT, python

ORDER = [
    *(
        "utils",
        "config",
        "ops",
        "model",
        "checkpoints",
        "datasets",
        "synth",
        "geometry",
        "metrics",
        "training",
    ),
    *("evaluation", "experiments", "doctor", "cli", "__main__", "head3d_course"),
]
"""Folders and root modules of the library, then the course. Each imports from itself and from those before it."""

PACKAGES = {path.name: path for path in (PACKAGE, COURSE)}

DRAWING = {"plotly", "ipywidgets", "anywidget", "IPython", "matplotlib"}
"""Imported by the course only, and by `doctor`, which looks whether they are there."""
LAZY = DRAWING | {"lpips", "facenet_pytorch", "moderngl", "trimesh"}
"""Imported inside functions only: absent on some machines, or slow to import."""


def sources() -> list[Path]:
    files = (p for package in PACKAGES.values() for p in package.rglob("*.py"))
    return sorted(p for p in files if p != PACKAGE / "__init__.py")


def short(path: Path) -> str:
    return str(path.relative_to(ROOT))


def dotted(path: Path) -> list[str]:
    """The parts of a module's name: head3d_core, model and planes for head3d_core/model/planes.py."""
    package = COURSE if path.is_relative_to(COURSE) else PACKAGE
    return [package.name, *path.relative_to(package).with_suffix("").parts]


def place_of(path: Path) -> str:
    """`model` for head3d_core/model/planes.py, `cli` for head3d_core/cli.py, `head3d_course` for all of the course."""
    package, first, *_ = dotted(path)
    return first if package == PACKAGE.name else package


def imports(tree: ast.AST, path: Path) -> Iterator[tuple[str, int]]:
    """(dotted name, line) of every import; relative ones made absolute, `from package import x` as package.x."""
    here = dotted(path)[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield f"{stem}.{alias.name}", node.lineno


def file_of(name: str) -> Path | None:
    """The file of ours that a dotted name is defined in, if it is ours and not `head3d_core/__init__.py`."""
    package, *parts = name.split(".")
    if package not in PACKAGES:
        return None
    for end in range(len(parts), -1, -1):
        stem = PACKAGES[package].joinpath(*parts[:end])
        for path in (stem.with_suffix(".py"), stem / "__init__.py"):
            if path.exists() and path != PACKAGE / "__init__.py":
                return path
    return None


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf8"))


def test_every_folder_has_a_place() -> None:
    assert {place_of(path) for path in sources()} == set(ORDER)


@pytest.mark.parametrize("path", sources(), ids=short)
def test_imports_go_from_later_folders_to_earlier_ones(path: Path) -> None:
    mine = place_of(path)
    for name, line in imports(tree_of(path), path):
        other = file_of(name)
        if other is not None and place_of(other) != mine:
            assert ORDER.index(place_of(other)) < ORDER.index(mine), f"{short(path)}:{line} imports {name}"
        top = name.split(".")[0]
        allowed = top not in DRAWING or mine in ("head3d_course", "doctor")
        assert allowed, f"{short(path)}:{line}: only the course imports {top}"


@pytest.mark.parametrize("path", sources(), ids=short)
def test_heavy_packages_are_imported_in_functions(path: Path) -> None:
    top_level = ast.Module(
        body=[n for n in tree_of(path).body if isinstance(n, ast.Import | ast.ImportFrom)], type_ignores=[]
    )
    eager = {name.split(".")[0] for name, _ in imports(top_level, path)} & LAZY
    assert not eager, f"{path.name} imports {sorted(eager)} at its top"


def test_no_circles_between_files() -> None:
    graph = {
        path: {
            other for name, _ in imports(tree_of(path), path) if (other := file_of(name)) and other != path
        }
        for path in sources()
    }
    done: set[Path] = set()

    def visit(node: Path, trail: tuple[Path, ...]) -> None:
        assert node not in trail, " -> ".join(map(short, [*trail, node]))
        if node not in done:
            for other in graph.get(node, ()):
                visit(other, (*trail, node))
            done.add(node)

    for node in graph:
        visit(node, ())


def test_the_library_does_not_know_the_course() -> None:
    """Not by a name in a text either: neither an import at run time nor a docstring that points there."""
    assert not [short(p) for p in PACKAGE.rglob("*.py") if COURSE.name in p.read_text(encoding="utf8")]


def test_importing_the_package_is_light() -> None:
    heavy = "{'torch', 'numpy', 'tyro', 'matplotlib'}"
    assert not python("-c", f"import sys, head3d_core; print(*({heavy} & set(sys.modules)))").stdout.strip()


def test_public_names_resolve() -> None:
    import head3d_core as h3d

    folders = set(h3d._modules())
    for name in h3d._NAMES:
        assert name not in folders, f"importing head3d_core.{name} would hide the function of that name"
        assert callable(getattr(h3d, name)), name
    for name, module in h3d._MODULES.items():
        assert getattr(h3d, name).__name__ == f"head3d_core.{module}"
    assert {*h3d._NAMES, *h3d._MODULES} <= set(dir(h3d))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = h3d.nonsense


def test_the_rules_can_fail() -> None:
    """The reader of imports sees relative, nested and aliased imports, and names of functions as their file's."""
    tree = ast.parse(
        "from . import cli\ndef f():\n    import head3d_core.training.train as t\n    from ..synth import renderer\n"
    )
    names = {name for name, _ in imports(tree, PACKAGE / "model" / "x.py")}
    assert names == {"head3d_core.model.cli", "head3d_core.training.train", "head3d_core.synth.renderer"}
    assert file_of("head3d_core.model.planes.project") == PACKAGE / "model" / "planes.py"
    assert file_of("head3d_core.model") == PACKAGE / "model" / "__init__.py"
    assert file_of("head3d_core.Head3DError") is None
    assert file_of("head3d_course.nb01.camera_position") == COURSE / "nb01.py"
    assert file_of("head3d_course.words") == COURSE / "__init__.py"
    assert place_of(COURSE / "nb01.py") == ORDER[-1]
    assert {name for name, _ in imports(ast.parse("from . import nb01"), COURSE / "x.py")} == {
        "head3d_course.nb01"
    }
