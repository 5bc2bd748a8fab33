"""The repository as a whole: sizes, places, words, and configuration that agrees with itself."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from helpers import COURSE, PACKAGE, ROOT

MIB = 2**20
CODE = (".py", ".cpp", ".h", ".cu", ".cuh")
TEXT = (*CODE, ".md", ".ipynb", ".toml", ".yml", ".yaml", ".cfg", ".txt", ".cff", ".json", ".jsonl")

BUDGETS_MIB: dict[str | tuple[str, ...], float] = {
    "": 56,
    "notebooks/": 8,
    "tests/golden/": 4,
    "data/weights/": 36,
    ("data/samples/", "data/assets/", "data/results/"): 8,
}
"""Folder, or folders together -> the most that its tracked files may weigh together."""

TOP_LEVEL = {
    *(".ci", ".devcontainer", ".gitattributes", ".github", ".gitignore", ".pre-commit-config.yaml"),
    *("CHANGELOG.md", "CITATION.cff", "LICENSE", "Makefile", "README.md"),
    *("MANIFEST.in", "environment.yml", "pyproject.toml", "requirements.txt", "setup.py"),
    *("csrc", "data", "head3d_core", "notebooks", "tests"),
}

# Word that the glossary does not use -> the one it does. Searched in code and notebooks.
VOCABULARY = {
    "triplane": "planes",
    "feature_planes": "planes",
    "c2w": "cam2world",
    "extrinsics": "cam2world",
    "rays_o": "ray_origins",
    "rays_d": "ray_directions",
    "z_vals": "depths",
    "EasyDict": "a dataclass",
}


def tracked() -> list[Path]:
    """Files under version control; the test is skipped in an unpacked archive, which has no history."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [path for name in done.stdout.split("\0")[:-1] if (path := ROOT / name).is_file()]


def hits(pattern: str, paths: list[Path]) -> list[str]:
    """file:line: what matched, for every line of the files that matches."""
    return [
        f"{path.relative_to(ROOT)}:{number}: {match[0]}"
        for path in paths
        for number, line in enumerate(path.read_text(encoding="utf8").splitlines(), 1)
        if (match := re.search(pattern, line[:20_000]))
    ]


def read(*names: str) -> str:
    """The text of a file of the repository."""
    return ROOT.joinpath(*names).read_text(encoding="utf8")


@pytest.mark.parametrize("folder", BUDGETS_MIB)
def test_size_budgets(folder: str | tuple[str, ...]) -> None:
    sizes = {p: p.stat().st_size for p in tracked() if p.relative_to(ROOT).as_posix().startswith(folder)}
    total = sum(sizes.values()) / MIB
    largest = [
        f"{p.relative_to(ROOT)} {sizes[p] / MIB:.1f}" for p in sorted(sizes, key=sizes.__getitem__)[-5:]
    ]
    assert total <= BUDGETS_MIB[folder], f"{total:.1f} MiB in {folder or 'all'}; largest: {largest}"


def test_no_tracked_file_is_over_15_mib() -> None:
    assert not [str(p.relative_to(ROOT)) for p in tracked() if p.stat().st_size > 15 * MIB]


def test_top_level_is_the_agreed_one() -> None:
    found = {p.relative_to(ROOT).parts[0] for p in tracked()}
    assert not found - TOP_LEVEL


def test_no_paths_of_one_machine() -> None:
    pattern = r"""(?<![\w.:/~$}-])/(?:work|root|home|Users|tmp)/[\w.-]+|[A-Z]:\\\\?Users"""
    texts = [p for p in tracked() if p.suffix in TEXT or p.name in ("Makefile", "run")]
    assert not hits(pattern, [p for p in texts if p != Path(__file__).resolve()])


def test_nothing_is_left_unfinished() -> None:
    pattern = r"\b(?:TODO|FIXME|XXX)\b|raise NotImplementedError|except[^:\n]*:\s*pass\b"
    folders = (PACKAGE, COURSE, ROOT / "csrc")
    ours = [p for p in tracked() if any(p.is_relative_to(folder) for folder in folders)]
    assert not hits(pattern, [p for p in ours if p.suffix in CODE])


@pytest.mark.parametrize("word", VOCABULARY)
def test_vocabulary(word: str) -> None:
    ours = [p for p in tracked() if p.suffix in (*CODE, ".ipynb") and p.relative_to(ROOT).parts[0] != "tests"]
    # Names in EG3D's own files are EG3D's.
    found = hits(rf"\b{word}\b", [p for p in ours if not p.name.startswith("eg3d_")])
    assert not found, f"say {VOCABULARY[word]}: {found}"


def test_pins_satisfy_what_the_package_asks_for() -> None:
    """Every dependency has one exact pin, and exact demands in pyproject.toml name the same version."""
    from packaging.requirements import Requirement

    pins = {}
    for line in read("requirements.txt").splitlines():
        if line and not line.startswith("#"):
            assert re.fullmatch(r"[\w.-]+==[\w.]+", line), f"not an exact pin: {line!r}"
            name, version = line.split("==")
            pins[name.lower().replace("_", "-")] = version
    project = tomllib.loads(read("pyproject.toml"))["project"]
    extras = project["optional-dependencies"]
    for text in [*project["dependencies"], *extras["lab"], *extras["dev"]]:
        need = Requirement(text)
        name = need.name.lower().replace("_", "-")
        assert name in pins, f"{need.name} has no pin in requirements.txt"
        assert need.specifier.contains(pins[name]), f"{need} against {pins[name]}"


def test_pins_install_on_every_python_3_11() -> None:
    """Debian 12 brings 3.11.2: a pin that asks for a later patch release would fail there."""
    from importlib import metadata

    from packaging.specifiers import SpecifierSet

    for line in read("requirements.txt").splitlines():
        name = line.partition("==")[0]
        try:
            needs = metadata.metadata(name)["Requires-Python"] if line and line[0] != "#" else None
        except metadata.PackageNotFoundError:
            continue  # left out on this platform
        assert SpecifierSet(needs or "").contains("3.11.0"), f"{name} needs Python {needs}"


def test_conda_environment_is_the_same_one() -> None:
    import yaml

    environment = yaml.safe_load(read("environment.yml"))
    (pip,) = [d["pip"] for d in environment["dependencies"] if isinstance(d, dict)]
    assert "-r requirements.txt" in pip


def test_version_is_said_once() -> None:
    import head3d_core

    project = tomllib.loads(read("pyproject.toml"))["project"]
    assert project["version"] == head3d_core.__version__
    assert f"version: {project['version']}" in read("CITATION.cff")
    assert f"## {project['version']}" in read("CHANGELOG.md")


def test_pre_commit_and_lock_agree_on_ruff() -> None:
    hooks = read(".pre-commit-config.yaml")
    lock = read("requirements.txt")
    (pinned,) = re.findall(r"^ruff==(.+)$", lock, re.MULTILINE)
    assert f"rev: v{pinned}" in hooks


def test_files_and_functions_stay_short() -> None:
    """A file of the library or of the course has at most 450 lines, a function 60."""
    long = []
    for path in sorted([*PACKAGE.rglob("*.py"), *COURSE.rglob("*.py")]):
        text = path.read_text(encoding="utf8")
        if (count := text.count("\n")) > 450:
            long.append(f"{path.relative_to(ROOT)}: {count} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and (count := node.end_lineno - node.lineno + 1) > 60:
                long.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {count} lines")
    assert not long, long


def test_readme_shows_the_tree() -> None:
    """One line a folder: the folders beside the notebooks, then those of the library in the order of imports."""
    from test_layers import ORDER

    tree = re.findall(r"^  (\w+)/ ", read("README.md"), re.MULTILINE)
    beside = [COURSE.name, "solutions", "site"]
    assert tree == [*beside, *(name for name in ORDER if (PACKAGE / name).is_dir())]


def test_readme_commands_exist() -> None:
    from head3d_core import cli

    readme = read("README.md")
    named = set(re.findall(r"python -m head3d_core ([a-z][\w-]*)", readme))
    assert named
    assert named <= set(cli.COMMANDS)
    rules = re.findall(r"^([a-z ]+):", read("Makefile"), re.MULTILINE)
    targets = {target for rule in rules for target in rule.split()}
    assert set(re.findall(r"(?:^|`)make ([a-z]+)\b", readme, re.MULTILINE)) <= targets


def test_syllabus_links_every_notebook_and_nothing_else() -> None:
    syllabus = read("notebooks", "README.md")
    linked = re.findall(r"^\| (\d\d[ab]?) \| \[[^]]+\]\((\w+\.ipynb)\)", syllabus, re.MULTILINE)
    there = sorted(p.name for p in (ROOT / "notebooks").glob("[0-9][0-9]*_*.ipynb"))
    assert linked == [(name.split("_")[0], name) for name in there]


def test_links_of_the_readmes_lead_somewhere() -> None:
    for readme in (ROOT / "README.md", ROOT / "notebooks" / "README.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", readme.read_text(encoding="utf8")):
            there = target.startswith("https://") or (readme.parent / target).exists()
            assert there, f"{readme.name}: {target}"
