"""What a recorded result says about itself: command, code, machine, weights."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from head3d_core.utils import files
from head3d_core.utils.errors import Head3DError


def device_name(device: torch.device | str) -> str:
    """The GPU's or the processor's name, as far as the system tells."""
    place = torch.device(device)
    if place.type == "cuda":
        return torch.cuda.get_device_name(place)
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf8").splitlines() if info.exists() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def code_commit() -> str | None:
    """Short hash of the code that runs: of its git checkout, else what HEAD3D_COMMIT says (for a copy without git)."""
    git = ["git", "rev-parse", "--short", "HEAD"]
    try:
        found = subprocess.run(git, cwd=files.DATA.parent, capture_output=True, text=True, check=False)
    except OSError:  # a machine without git
        return os.environ.get("HEAD3D_COMMIT")
    return found.stdout.strip() or os.environ.get("HEAD3D_COMMIT")


def provenance(
    command: str, device: torch.device | str = "cpu", weights: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Where numbers come from: command, date, commit, device, torch, and the notes of the weights used, by name."""
    return {
        "command": command,
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "commit": code_commit(),
        "device": device_name(device),
        "torch": str(torch.__version__),
        "weights": dict(weights or {}),
    }


def write(path: Path, content: Mapping[str, Any]) -> Path:
    """Writes a record as JSON, whole or not at all; lists and dictionaries that hold no others take one line each."""
    text = json.dumps(content, indent=1, ensure_ascii=False)
    text = re.sub(r"[\[{]\n[^\[\]{}]*[\]}]", lambda leaf: re.sub(r"\n *", " ", leaf[0]), text)
    with files.atomic(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf8")
    return path


def read(name: str, command: str) -> dict[str, Any]:
    """The record `data/results/<name>.json`.

    Args:
        command: that makes it, for the message where it is missing; ours get the record's path as their `--out`.

    Raises:
        Head3DError: it has not been recorded yet, or cannot be read.
    """
    path = files.DATA / "results" / f"{name}.json"
    if command.startswith("python -m head3d_core "):
        command += f" --out data/results/{name}.json"
    if not path.exists():
        raise Head3DError(f"{path.name} is not recorded yet: run `{command}`")
    try:
        return dict(json.loads(path.read_text(encoding="utf8")))
    except ValueError as error:
        raise Head3DError(f"{path} is damaged ({error}): run `{command}` again") from error


def trained_on(provenance: Mapping[str, Any]) -> str:
    """What a run was made on, with how many at a time where that was ever more than one.

    >>> trained_on({"device": "GPU", "processes": [1, 2]}), trained_on({"device": "GPU", "processes": [1]})
    ('1 and 2 × GPU', 'GPU')
    """
    counts = provenance.get("processes") or [1]
    several = "" if max(counts) == 1 else f"{' and '.join(map(str, sorted(counts)))} × "
    return f"{several}{provenance['device']}"
