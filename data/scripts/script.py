"""What the scripts of this folder share: their command line, and Markdown templates."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from string import Template

from head3d_core.utils.errors import Head3DError

TEMPLATES = Path(__file__).parent / "templates"


def main(function: Callable[..., object]) -> int:
    """Calls `function` with what the command line says for its parameters; returns the exit status.

    The help texts are those of its docstring. An error that the user can fix is one sentence on stderr and status 1.
    """
    import tyro

    try:
        result = tyro.cli(function)
    except Head3DError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return result if isinstance(result, int) else 0


def sections(template: str) -> dict[str, str]:
    """Heading -> text of every section of `templates/<template>`."""
    _, *parts = f"\n{(TEMPLATES / template).read_text(encoding='utf8')}".split("\n# ")
    return {name: text.strip() for name, _, text in (part.partition("\n") for part in parts)}


def filled(template: str, section: str | None = None, /, **parts: object) -> str:
    """The text of `templates/<template>`, or of one section of it, with every $mark replaced.

    Raises KeyError for a mark that is not among `parts`.
    """
    text = sections(template)[section] if section else (TEMPLATES / template).read_text(encoding="utf8")
    return Template(text).substitute(parts)


def between_marks(text: str, name: str, make: Callable[[], str]) -> str | None:
    """`text` with what `make` returns between `<!-- name -->` and `<!-- end of name -->`; None without such marks."""
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, opened, rest = text.partition(start)
    _, closed, after = rest.partition(end)
    return f"{before}{start}\n{make()}\n{end}{after}" if opened and closed else None
