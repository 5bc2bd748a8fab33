"""The constants of the head factory, from `tables.toml`: colours, glasses, hats, hairstyles, beards, morph targets."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

TABLES: dict[str, Any] = tomllib.loads(Path(__file__).with_name("tables.toml").read_text(encoding="utf8"))
"""Section -> its content. The order of names matters where one of them is drawn (`Draws.choice`)."""
