"""What the notebooks show: figures, exercises, widgets, live training."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any


@functools.cache
def words(name: str) -> dict[str, Any]:
    """Texts that cells name by key alone: "alt_texts" of figures, "answers" of predictions, "choices" of questions."""
    return dict(json.loads(Path(__file__).with_name(f"{name}.json").read_text(encoding="utf8")))
