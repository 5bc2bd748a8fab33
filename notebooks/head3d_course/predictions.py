"""The reader's predictions: asked for before an output, shown beside the answer after it.

    predictions.ask("02.1")               # a field to write in
    predictions.ask("02.1", "the back")   # the same without widgets
    predictions.compare("02.1", 0.62)     # prints the guess and the answer

The words of an answer stand in `answers.json`, so that no cell gives it away. Guesses are kept in a file, so that one
made in notebook 00 is still there in notebook 11a.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from head3d_core.utils import files
from head3d_core.utils.errors import Head3DError
from head3d_course import words
from head3d_course.stills import with_stand_in

_session: dict[str, str] = {}
"""Guesses of this kernel."""


def place() -> Path | None:
    """The file of guesses: HEAD3D_PREDICTIONS, else `out/predictions.json` next to `data/`; None if that is empty."""
    named = os.environ.get("HEAD3D_PREDICTIONS")
    if named is None:
        return files.DATA.parent / "out" / "predictions.json"
    return Path(named).expanduser() if named else None


def kept() -> dict[str, str]:
    """All guesses by name, of this kernel and of earlier ones; an unreadable file counts as empty."""
    path = place()
    try:
        found = json.loads(path.read_text(encoding="utf8")) if path else {}
    except (OSError, ValueError):
        found = {}
    earlier = {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}
    return {k: v for k, v in {**earlier, **_session}.items() if v}


def keep(name: str, guess: str) -> None:
    """Keeps a guess; an empty one is forgotten. Where nothing can be written it lasts as long as the kernel."""
    _session[name] = guess.strip()
    if (path := place()) is not None:
        with contextlib.suppress(OSError, Head3DError), files.atomic(path) as partial:
            partial.write_text(json.dumps(kept(), indent=1, ensure_ascii=False), encoding="utf8")


def ask(name: str, guess: str | float | None = None) -> None:
    """Shows a field for the prediction `name`, such as "02.1"; what is typed is kept at once.

    Args:
        guess: the prediction itself, where widgets are not shown; then no field appears.
    """
    if guess is not None:
        keep(name, str(guess))
        return
    import ipywidgets as widgets
    from IPython.display import display

    field = widgets.Text(kept().get(name, ""), placeholder="your prediction", description=f"Predict {name}")
    field.layout.width, field.style.description_width = "34em", "8em"
    field.observe(lambda change: keep(name, change["new"]), names="value")
    display(
        with_stand_in(field, {"text/plain": f"Predict {name}: run this cell to get a field to write in."})
    )


def compare(name: str, *values: Any) -> None:
    """Prints the guess `name` beside the answer: its words in `answers.json` with `values`, or the values alone."""
    answer = words("answers").get(name, " ".join(["{}"] * len(values))).format(*values)
    print(f"prediction {name} | yours: {kept().get(name, 'none written')} | answer: {answer}")
