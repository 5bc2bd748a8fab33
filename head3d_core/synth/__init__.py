"""The procedural head factory: `identity(seed)` and `build_head(identity)` here, images in `renderer.py`."""

import tomllib
from pathlib import Path
from typing import Any

TABLES: dict[str, Any] = tomllib.loads(Path(__file__).with_name("tables.toml").read_text(encoding="utf8"))
"""The factory's constants by section: colours, glasses, hats, hairstyles, beards, morph targets. The order of names
matters where one of them is drawn (`Draws.choice`)."""
