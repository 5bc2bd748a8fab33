"""Imports go from later folders to earlier ones: read from the source, so imports inside functions count too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import PACKAGE, python

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
    *("evaluation", "experiments", "course", "doctor", "cli", "__main__"),
]
"""Folders and root modules. Each imports from itself and from those before it, without exception."""

DRAWING = {"plotly", "ipywidgets", "anywidget", "IPython", "matplotlib"}
"""Imported in `course` only, and by `doctor`, which looks whether they are there."""
LAZY = DRAWING | {"lpips", "facenet_pytorch", "moderngl", "trimesh"}
"""Imported inside functions only: absent on some machines, or slow to import."""


def sources() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


def place_of(path: Path) -> str:
    """`model` for head3d_core/model/planes.py, `cli` for head3d_core/cli.py."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(tree: ast.AST, path: Path) -> Iterator[tuple[str, int]]:
    """(dotted name, line) of every import; relative ones made absolute, `from package import x` as package.x."""
    here = ["head3d_core", *path.relative_to(PACKAGE).parts[:-1]]
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
    parts = name.split(".")
    if parts[0] != "head3d_core":
        return None
    for end in range(len(parts), 1, -1):
        stem = PACKAGE.joinpath(*parts[1:end])
        for path in (stem.with_suffix(".py"), stem / "__init__.py"):
            if path.exists():
                return path
    return None


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf8"))


def test_every_folder_has_a_place() -> None:
    assert {place_of(path) for path in sources()} == set(ORDER)


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_from_later_folders_to_earlier_ones(path: Path) -> None:
    mine = place_of(path)
    for name, line in imports(tree_of(path), path):
        other = file_of(name)
        if other is not None and place_of(other) != mine:
            assert ORDER.index(place_of(other)) < ORDER.index(mine), (
                f"{path.relative_to(PACKAGE)}:{line} imports {name}"
            )
        top = name.split(".")[0]
        assert top not in DRAWING or mine in ("course", "doctor"), f"{path}:{line}: only course imports {top}"


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(PACKAGE)))
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
        assert node not in trail, " -> ".join(str(p.relative_to(PACKAGE)) for p in [*trail, node])
        if node not in done:
            for other in graph.get(node, ()):
                visit(other, (*trail, node))
            done.add(node)

    for node in graph:
        visit(node, ())


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
