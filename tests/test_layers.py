"""Imports go down only: read from the source, so that imports inside functions count as well."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "head3d_core"

LAYERS = {
    0: "config recipes ops ops_layers seeding files snapshots errors devices",
    1: "cameras convolution conventions facepose labels planes quick raster rays volume",
    2: "stylegan2 decoder superresolution filters augment grids toys dataset dataset_writer synth",
    3: "generator discriminator losses identity_net checkpoint eg3d_names eg3d_pickle eg3d_format",
    4: "surfaces geometry latent walks inversion one_view records texture export fits engine engine_parts "
    "stages metric_snapshots train distill analysis metrics manifold mesh prepare detect detector_rates turntables "
    "frontal_people identity_uses head_scans mesh_drawing morphable implicit_heads parametric "
    "parametric_pictures colours features verification completeness cross_check identity_data identity_train "
    "generate convert references sampling worn evaluate evaluation_figures evaluation_pictures tables "
    "expectations results_page ablations live_check swap_study swap_lab curves workbench model_cards",
    5: "plots_geometry plots_latent widgets_geometry checks_geometry checks_latent __main__ cli doctor "
    "widgets swap_widgets checks_swap plots_swap plots plots_course plots_data plots_fast checks "
    "checks_metrics plots_metrics plots_ablations checks_data checks_fast checks_training plots_training",
}
"""Layer -> its modules. A new module belongs into one of them before anything may import it."""

LEVEL = {name: level for level, names in LAYERS.items() for name in names.split()}
SURFACE_ONLY = {"plotly", "ipywidgets", "anywidget", "IPython", "matplotlib"}
LAZY = {
    "plotly",
    "ipywidgets",
    "anywidget",
    "IPython",
    "matplotlib",
    "tyro",
    "lpips",
    "facenet_pytorch",
    "moderngl",
    "trimesh",
}
"""Imported inside functions only: absent on some machines, or slow to import."""


def sources() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


def module_of(path: Path) -> str:
    """`cameras` for head3d_core/cameras.py, `synth` for everything in the sub-package."""
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


def internal(name: str) -> str | None:
    """The module of ours that a dotted name refers to, if any."""
    parts = name.split(".")
    if parts[0] != "head3d_core" or len(parts) < 2:
        return None
    if parts[1] in LEVEL or (PACKAGE / f"{parts[1]}.py").exists() or (PACKAGE / parts[1]).is_dir():
        return parts[1]
    return None  # a name defined in head3d_core/__init__.py


def test_every_module_has_a_layer() -> None:
    assert len(LEVEL) == sum(len(names.split()) for names in LAYERS.values()), "a module stands in two layers"
    unknown = {module_of(path) for path in sources()} - set(LEVEL)
    assert not unknown, f"give {sorted(unknown)} a layer in tests/test_layers.py"


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf8"))
    mine = module_of(path)
    for name, line in imports(tree, path):
        other = internal(name)
        if other is not None and other != mine:
            up = f"{path.name}:{line} (layer {LEVEL.get(mine)}) imports {other} (layer {LEVEL.get(other)})"
            assert LEVEL.get(other, 5) <= LEVEL.get(mine, 5), up
        top = name.split(".")[0]
        assert top not in SURFACE_ONLY or LEVEL.get(mine, 5) == 5, (
            f"{path.name}:{line}: only layer 5 imports {top}"
        )


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_heavy_packages_are_imported_in_functions(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf8"))
    top_level = ast.Module(
        body=[n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)], type_ignores=[]
    )
    eager = {name.split(".")[0] for name, _ in imports(top_level, path)} & LAZY
    assert not eager, f"{path.name} imports {sorted(eager)} at its top"


def test_no_import_cycles() -> None:
    graph: dict[str, set[str]] = {}
    for path in sources():
        names = {internal(name) for name, _ in imports(ast.parse(path.read_text(encoding="utf8")), path)}
        graph.setdefault(module_of(path), set()).update(n for n in names if n and n != module_of(path))
    done: set[str] = set()

    def visit(node: str, trail: tuple[str, ...]) -> None:
        assert node not in trail, " -> ".join([*trail, node])
        if node not in done:
            for other in graph.get(node, ()):
                visit(other, (*trail, node))
            done.add(node)

    for node in graph:
        visit(node, ())


def test_importing_the_package_is_light() -> None:
    code = (
        "import sys, head3d_core; print(*sorted({'torch', 'numpy', 'tyro', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_public_names_resolve() -> None:
    import head3d_core as h3d

    modules = set(h3d._modules())
    for name in h3d._NAMES:
        assert name not in modules, f"importing head3d_core.{name} would hide the function of that name"
        assert callable(getattr(h3d, name)), name
    assert h3d.cameras.__name__ == "head3d_core.cameras"
    assert set(h3d._NAMES) <= set(dir(h3d))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = h3d.nonsense


def test_the_rules_can_fail(tmp_path: Path) -> None:
    """The reader of imports sees relative, nested and aliased imports."""
    tree = ast.parse(
        "from . import cli\ndef f():\n    import head3d_core.train as t\n    from ..synth import renderer\n"
    )
    names = {name for name, _ in imports(tree, PACKAGE / "synth" / "x.py")}
    assert names == {"head3d_core.synth.cli", "head3d_core.train", "head3d_core.synth.renderer"}
