"""`make slides`: one deck a notebook in out/slides, each a single HTML file that needs no network.

A section or an exercise gives a slide with its heading and first paragraphs. A cell that stores images gives another.
A cell tagged `skip-slide` is left out. Turn pages with the arrow keys, print with the browser.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import nbformat

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(Path(__file__).parent))
import build_site  # noqa: E402

PAGE = Path(__file__).with_name("assets") / "slides.html"
MOST_WORDS = 80
"""A slide's text ends with the paragraph that passes so many words."""


def paragraphs(source: str) -> list[str]:
    """Blocks of a Markdown cell without its answers."""
    text = re.sub(r"<details>.*?</details>", "", source, flags=re.DOTALL)
    return [block for block in re.split(r"\n\s*\n", text) if block.strip()]


def opening(blocks: list[str]) -> str:
    """The first blocks, up to `MOST_WORDS`; a sentence that goes on in the next block is not cut."""
    kept: list[str] = []
    for block in blocks:
        kept.append(block)
        goes_on = block.rstrip().endswith((",", ":"))
        if not goes_on and sum(len(b.split()) for b in kept) >= MOST_WORDS:
            break
    return "\n\n".join(kept)


def picture(output: Any) -> str:
    """An output's image as HTML, or nothing."""
    return "".join(re.findall("<img [^>]*>", output.get("data", {}).get("text/html", "")))


def deck(path: Path) -> list[str]:
    """The slides of a notebook, as HTML."""
    from bs4 import BeautifulSoup
    from nbconvert.filters import markdown2html

    def shown(text: str) -> str:
        soup = BeautifulSoup(markdown2html(text), "html.parser")
        build_site.with_formulas(soup)
        for link in soup.select("a.anchor-link"):
            link.decompose()
        return str(soup)

    slides, heading = [], ""
    for cell in nbformat.read(path, as_version=4).cells:
        if "skip-slide" in cell.metadata.get("tags", []):
            continue
        if cell.cell_type == "markdown":
            parts = re.split(r"^(?=#{1,3} )", cell.source, flags=re.MULTILINE)
            for part in (p for p in parts if p.startswith("#")):
                first, *rest = paragraphs(part)
                heading = first.lstrip("# ").split("\n")[0]
                slides.append(shown(f"## {heading}\n\n{opening(rest)}"))
        else:
            images = "".join(filter(None, map(picture, cell.outputs)))
            if images:
                slides.append(shown(f"## {heading}") + images)
    return slides


def write(out: Path) -> list[Path]:
    """Writes all decks below `out`."""
    out.mkdir(parents=True, exist_ok=True)
    template, written = PAGE.read_text(encoding="utf8"), []
    for path in build_site.notebooks():
        body = "\n".join(f"<section>{slide}</section>" for slide in deck(path))
        target = out / f"{path.stem}.html"
        title = path.stem.split("_", 1)[1].replace("_", " ").capitalize()
        target.write_text(template.replace("{{title}}", title).replace("{{body}}", body), encoding="utf8")
        written.append(target)
    return written


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Makes a deck of slides of every notebook.")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "slides")
    written = write(parser.parse_args().out)
    print(f"{len(written)} decks in {written[0].parent}; open one in a browser")


if __name__ == "__main__":
    main()
