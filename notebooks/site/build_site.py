"""`make site`: the course as static pages in out/site, from the outputs that the notebooks store, without running them.

nbconvert renders the notebooks and latex2mathml the formulas, so the pages need no network. Plotly figures stay alive:
their JSON goes into the page and the installed package's plotly.js draws it. The build checks every link.
"""

from __future__ import annotations

import argparse
import base64
import copy
import html
import io
import json
import os
import re
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
ASSETS = Path(__file__).with_name("assets")
PLOTLY = "application/vnd.plotly.v1+json"

PAGES = {
    "README.md": ("index", "Start"),
    "notebooks/README.md": ("syllabus", "Syllabus"),
    "notebooks/glossary.md": ("glossary", "Glossary"),
    "notebooks/paper_map.md": ("paper_map", "Paper map"),
    "notebooks/training_guide.md": ("training_guide", "Training guide"),
    "notebooks/instructor.md": ("instructor", "For instructors"),
    "notebooks/discussion.md": ("discussion", "A discussion in 60 minutes"),
    "notebooks/errata_of_the_paper.md": ("errata", "Errata and gaps of the paper"),
    "notebooks/what_came_after.md": ("after", "What came after"),
    "notebooks/recall.md": ("recall", "Recall"),
    "data/results/tables.md": ("tables", "Tables"),
    "data/results/did_it_reproduce.md": ("reproduced", "Did it reproduce?"),
    "data/results/LOG.md": ("log", "Lab log"),
    "data/DATA_CARD.md": ("data_card", "Data card"),
    "data/weights/face/README.md": ("weights_face", "Model card: face"),
    "data/weights/head/README.md": ("weights_head", "Model card: head"),
    "data/weights/head3d/README.md": ("weights_head3d", "Model card: head3d"),
    "data/weights/head3d-two-sided/README.md": ("weights_two_sided", "Model card: head3d-two-sided"),
    "data/weights/identity/README.md": ("weights_identity", "Model card: identity"),
    "csrc/README.md": ("csrc", "C++ and CUDA"),
}
"""Markdown pages: file -> (name of the page, title in the navigation)."""
MAIN = ("index", "syllabus", "glossary", "paper_map", "tables", "reproduced")
"""Markdown pages that the navigation shows; the others are reached by links."""


@dataclass
class Page:
    """One page of the site."""

    name: str
    title: str
    body: str
    source: Path | None = None
    anchors: set[str] = field(default_factory=set)


def notebooks() -> list[Path]:
    """The notebooks in reading order."""
    return sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))


def with_figures(notebook: Any) -> None:
    """Puts the data of Plotly figures into the page, for its plotly.js; their stills follow."""
    for data in (o.data for cell in notebook.cells for o in cell.get("outputs", []) if "data" in o):
        figure = data.pop(PLOTLY, None)
        if figure is not None:
            text = json.dumps({k: figure[k] for k in ("data", "layout") if k in figure}).replace("</", "<\\/")
            script = f'<script type="application/json">{text}</script>'
            data["text/html"] = f'<div class="plotly-figure">{script}</div>'


def launch(path: Path) -> str:
    """Buttons that open a notebook on hosted services, where the repository's public name (OWNER/NAME) is known."""
    name = os.environ.get("GITHUB_REPOSITORY")
    if not name:
        return ""
    file, folder = f"notebooks/{path.name}", name.partition("/")[2]
    services = {
        "Binder": f"https://mybinder.org/v2/gh/{name}/HEAD?labpath={file}",
        "Codespaces": f"https://codespaces.new/{name}",
        "Colab": f"https://colab.research.google.com/github/{name}/blob/main/{file}",
    }
    buttons = " ".join(f'<a class="launch" href="{url}">Open in {at}</a>' for at, url in services.items())
    first = f"!git clone --depth 1 https://github.com/{name}\n%cd {folder}/notebooks\nimport hosted; hosted.prepare()"
    return f"<p>{buttons}</p><details><summary>First cell in Colab</summary><pre>{first}</pre></details>"


def notebook_body(path: Path) -> str:
    """The notebook's cells and stored outputs as HTML."""
    import nbformat
    from nbconvert import HTMLExporter

    notebook = nbformat.read(path, as_version=4)
    with_figures(notebook)
    body, _ = HTMLExporter(template_name="basic").from_notebook_node(notebook)
    return launch(path) + str(body)


def standalone(notebook: Any) -> str:
    """A notebook as one page that needs no network: formulas are MathML, and no script is fetched."""
    from bs4 import BeautifulSoup
    from nbconvert import HTMLExporter

    notebook = copy.deepcopy(notebook)
    for cell in (c for c in notebook.cells if c.cell_type == "code"):
        # Plotly figures need scripts; their stills follow them.
        cell.outputs = [o for o in cell.outputs if list(o.get("data", {})) != [PLOTLY]]
    soup = BeautifulSoup(HTMLExporter().from_notebook_node(notebook)[0], "html.parser")
    for script in soup.find_all("script"):
        if "https://" in str(script) or "MathJax" in str(script):
            script.decompose()
    with_formulas(soup)
    return str(soup)


def markdown_body(path: Path) -> str:
    """A Markdown page as HTML."""
    from nbconvert.filters import markdown2html

    text = re.sub(r"<!--.*?-->", "", path.read_text(encoding="utf8"), flags=re.DOTALL)
    return str(markdown2html(text))


def with_formulas(soup: Any) -> None:
    """Replaces $...$ and $$...$$ outside code by MathML."""
    from bs4 import BeautifulSoup
    from latex2mathml.converter import convert

    pattern = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+?)\$", re.DOTALL)
    for text in list(soup.find_all(string=pattern)):
        if text.find_parent(["pre", "code", "script", "style"]):
            continue

        def formula(match: re.Match[str]) -> str:
            block = match[1] is not None
            return str(convert(match[1] or match[2], display="block" if block else "inline"))

        pieces, at = [], 0
        for match in pattern.finditer(str(text)):
            pieces += [html.escape(str(text)[at : match.start()]), formula(match)]
            at = match.end()
        pieces.append(html.escape(str(text)[at:]))
        text.replace_with(BeautifulSoup("".join(pieces), "html.parser"))


def slug(text: str) -> str:
    """The anchor of a heading, as code hosts make it."""
    return re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")


def reserve(image: Any, page: Page) -> None:
    """Gives a picture without a size its pixels', so that nothing on the page moves when it is loaded."""
    from PIL import Image

    source = unquote(image.get("src", ""))
    kind, _, data = source.partition(";base64,")
    if image.get("width") or kind == "data:image/svg+xml":
        return
    if kind.startswith("data:image/"):
        file: Any = io.BytesIO(base64.b64decode(data))
    elif page.source and (page.source.parent / source).is_file() and not source.endswith(".svg"):
        file = page.source.parent / source
    else:
        return
    with Image.open(file) as picture:
        image["width"], image["height"] = map(str, picture.size)


def finished(page: Page, names: dict[Path, str], out: Path) -> None:
    """Formulas, anchors and links of one page; copies what it shows or links to."""
    from bs4 import BeautifulSoup

    soup = BeautifulSoup(page.body, "html.parser")
    with_formulas(soup)
    for link in soup.select("a.anchor-link"):
        link.decompose()
    for heading in soup.find_all(re.compile("^h[1-6]$")):
        heading["id"] = slug(heading.get_text())
    for image in soup.find_all("img"):
        image["loading"] = "lazy"
        reserve(image, page)
    for table in soup.find_all("table"):
        table.wrap(soup.new_tag("div", attrs={"class": "wide"}))
    for tag, attribute in [
        *((t, "href") for t in soup.find_all("a")),
        *((t, "src") for t in soup.find_all("img")),
    ]:
        target = tag.get(attribute, "")
        parts = urlsplit(target)
        if parts.scheme or not parts.path or page.source is None:
            continue
        path = (page.source.parent / unquote(parts.path)).resolve()
        if path in names:
            tag[attribute] = (
                names[path] + ".html" + (f"#{slug(unquote(parts.fragment))}" if parts.fragment else "")
            )
        elif path.is_file() and path.is_relative_to(ROOT):
            copy = out / "files" / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
            tag[attribute] = f"files/{path.relative_to(ROOT).as_posix()}"
        elif path.is_dir():
            tag.unwrap()
    page.anchors = {tag["id"] for tag in soup.find_all(id=True)}
    page.body = str(soup)


def index_of(pages: list[Page]) -> list[dict[str, str]]:
    """The text of every section, for the search."""
    from bs4 import BeautifulSoup

    entries = []
    for page in pages:
        soup = BeautifulSoup(page.body, "html.parser")
        for script in soup.find_all(["script", "style", "math"]):
            script.decompose()
        heading, anchor, words = page.title, "", []
        for node in soup.find_all(["h1", "h2", "h3", "p", "li", "td"]):
            if node.name in ("h1", "h2", "h3"):
                entries.append(
                    {
                        "page": page.name,
                        "title": page.title,
                        "heading": heading,
                        "anchor": anchor,
                        "text": " ".join(words),
                    }
                )
                heading, anchor, words = node.get_text(" ", strip=True), str(node.get("id", "")), []
            else:
                words.append(node.get_text(" ", strip=True))
        entries.append(
            {
                "page": page.name,
                "title": page.title,
                "heading": heading,
                "anchor": anchor,
                "text": " ".join(words),
            }
        )
    return [e for e in entries if e["text"]]


def broken_links(out: Path, pages: list[Page]) -> list[str]:
    """Links and images of the finished site that lead nowhere."""
    from bs4 import BeautifulSoup

    anchors, broken = {p.name: p.anchors for p in pages}, []
    for page in pages:
        soup = BeautifulSoup((out / f"{page.name}.html").read_text(encoding="utf8"), "html.parser")
        for tag in soup.find_all(["a", "img", "script", "link"]):
            parts = urlsplit(tag.get("href") or tag.get("src") or "")
            if parts.scheme or not (parts.path or parts.fragment):
                continue
            name = Path(parts.path).stem if parts.path else page.name
            whole = not parts.path or (out / unquote(parts.path)).is_file()
            if not whole or (
                parts.fragment and name in anchors and parts.fragment not in anchors[name] | {"main"}
            ):
                broken.append(f"{page.name}.html: {tag.get('href') or tag.get('src')}")
    return broken


def navigation(pages: list[Page], current: str) -> str:
    """The list of pages, the current one marked."""
    shown = [p for p in pages if p.name in MAIN or p.name == "lab" or p.name[:2].isdigit()]
    mark = ' aria-current="page"'
    items = [
        f'<li><a href="{p.name}.html"{mark if p.name == current else ""}>{html.escape(p.title)}</a></li>'
        for p in shown
    ]
    return "\n".join(items)


def styles() -> str:
    """The style sheet, with code colours for light and dark."""
    from pygments.formatters import HtmlFormatter

    light = HtmlFormatter(style="default").get_style_defs(".highlight")
    dark = HtmlFormatter(style="github-dark").get_style_defs('[data-theme="dark"] .highlight')
    return (ASSETS / "site.css").read_text(encoding="utf8") + light + "\n" + dark


def build(out: Path, live: bool = True) -> list[Page]:
    """Writes the site; returns its pages. Raises SystemExit with the list if a link leads nowhere."""
    import plotly

    from head3d_core import __version__

    if out.exists():
        shutil.rmtree(out)
    (out / "assets").mkdir(parents=True)
    pages = []
    for file, (name, title) in PAGES.items():
        pages.append(Page(name, title, markdown_body(ROOT / file), ROOT / file))
    for path in notebooks():
        number, words = path.stem.split("_", 1)
        pages.append(
            Page(path.stem, f"{number} {words.replace('_', ' ').capitalize()}", notebook_body(path), path)
        )
    pages.append(Page("lab", "Live: the plane-swap lab", (ASSETS / "lab.html").read_text(encoding="utf8")))
    pages.sort(
        key=lambda p: (
            p.name != "index",
            p.name != "lab",
            p.name != "syllabus",
            not p.name[:2].isdigit(),
            p.name,
        )
    )
    names = {p.source.resolve(): p.name for p in pages if p.source}
    template = (ASSETS / "page.html").read_text(encoding="utf8")
    for page in pages:
        finished(page, names, out)
    for page in pages:
        text = template
        values = {
            "title": html.escape(page.title),
            "navigation": navigation(pages, page.name),
            "version": __version__,
            "body": page.body,
        }
        for key, value in values.items():
            text = text.replace("{{" + key + "}}", value)
        (out / f"{page.name}.html").write_text(text, encoding="utf8")
    (out / "assets" / "site.css").write_text(styles(), encoding="utf8")
    for name in ("site.js", "lab.js", "lab.glsl"):
        shutil.copyfile(ASSETS / name, out / "assets" / name)
    shutil.copyfile(
        Path(plotly.__file__).parent / "package_data" / "plotly.min.js", out / "assets" / "plotly.min.js"
    )
    (out / "assets" / "search.json").write_text(
        json.dumps(index_of(pages), ensure_ascii=False), encoding="utf8"
    )
    if live:
        import live_heads

        live_heads.write(out / "live")
    if broken := broken_links(out, pages):
        raise SystemExit("links that lead nowhere:\n" + "\n".join(broken))
    return pages


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Builds the course as static pages.")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "out" / "site", help="folder of the site; it is replaced"
    )
    args = parser.parse_args()
    pages = build(args.out)
    size = sum(p.stat().st_size for p in args.out.rglob("*") if p.is_file()) / 2**20
    print(
        f"{len(pages)} pages, {size:.1f} MiB in {args.out}; look at it with: python -m http.server -d {args.out}"
    )


if __name__ == "__main__":
    main()
