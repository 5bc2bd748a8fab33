"""`make handouts`: what students get, as out/handouts/head3d-VERSION.zip and its checksum.

Notebooks without stored outputs, without folded answers and without solutions, beside the glossary and the syllabus.
They run wherever the project is installed, which provides head3d_core and head3d_course; the archive holds no code.
The archive is the same, byte for byte, whenever the notebooks are.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
import zipfile
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
PAGES = ("README.md", "glossary.md")
_ANSWERS = re.compile(r"<details>\s*<summary>[^<]*[Aa]nswer[^<]*</summary>.*?</details>\s*", re.DOTALL)
_DATE = (1980, 1, 1, 0, 0, 0)


def student_copy(path: Path) -> str:
    """The notebook as a student starts it: no outputs, no counts, no answers."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        else:
            cell.source = _ANSWERS.sub("", cell.source).rstrip()
    notebook.cells = [cell for cell in notebook.cells if cell.source.strip()]
    return str(nbformat.writes(notebook)) + "\n"


def write(out: Path) -> tuple[Path, str]:
    """Writes archive and checksum below `out`; returns the archive and its sha256."""
    from head3d_core import __version__
    from head3d_core.utils.files import atomic

    out.mkdir(parents=True, exist_ok=True)
    archive = out / f"head3d-{__version__}.zip"
    sources = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
    texts = {path.name: student_copy(path) for path in sources}
    texts |= {name: (ROOT / "notebooks" / name).read_text(encoding="utf8") for name in PAGES}
    texts["LICENSE"] = (ROOT / "LICENSE").read_text(encoding="utf8")
    with atomic(archive) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in texts.items():
            file.writestr(zipfile.ZipInfo(f"head3d-{__version__}/{name}", _DATE), text, zipfile.ZIP_DEFLATED)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    archive.with_suffix(".zip.sha256").write_text(f"{digest}  {archive.name}\n", encoding="utf8")
    return archive, digest


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Packs student copies of the notebooks.")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "handouts")
    archive, digest = write(parser.parse_args().out)
    print(
        f"{archive.name}, {archive.stat().st_size / 2**20:.1f} MiB, sha256 {digest[:16]}…, in {archive.parent}"
    )


if __name__ == "__main__":
    main()
