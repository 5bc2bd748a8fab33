"""Records of results as JSON, with their provenance: command, code, machine, weights."""

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
from head3d_core.utils.nested import parsed


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
        done = subprocess.run(git, cwd=files.DATA.parent, capture_output=True, text=True, check=False)
    except OSError:  # a machine without git
        return os.environ.get("HEAD3D_COMMIT")
    return done.stdout.strip() or os.environ.get("HEAD3D_COMMIT")


def provenance(
    command: str | None,
    device: torch.device | str = "cpu",
    weights: Mapping[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Where numbers come from: command, date, commit, device, versions, the notes of the weights used, and `more`."""
    known = {
        "command": command,
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "commit": code_commit(),
        "device": device_name(device),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "weights": None if weights is None else dict(weights),
    }
    return {name: value for name, value in known.items() if value is not None} | more


def write(path: Path, content: Mapping[str, Any]) -> Path:
    """Writes a record as JSON, whole or not at all; lists and dictionaries that hold no others take one line each."""
    text = json.dumps(content, indent=1, ensure_ascii=False)
    text = re.sub(r"[\[{]\n[^\[\]{}]*[\]}]", lambda leaf: re.sub(r"\n *", " ", leaf[0]), text)
    files.write(path, text + "\n")
    return path


def load(path: Path, command: str, kind: Any = dict[str, Any]) -> Any:
    """The record in a file, as a dictionary or as the dataclass `kind` (see `nested.parsed`).

    Args:
        command: that makes it, for the messages.

    Raises:
        Head3DError: it is not there, cannot be read, or has other fields or types than `kind`.
    """
    if not path.exists():
        raise Head3DError(f"{path.name} is not recorded yet: run `{command}`")
    try:
        return parsed(kind, json.loads(path.read_text(encoding="utf8")), path.stem)
    except ValueError as error:
        raise Head3DError(f"{path} is damaged ({error}): run `{command}` again") from error


def read(name: str, command: str) -> dict[str, Any]:
    """The record `data/results/<name>.json`; see `load`. Our commands are named with the record's path as `--out`."""
    if command.startswith("python -m head3d_core "):
        command += f" --out data/results/{name}.json"
    return dict(load(files.DATA / "results" / f"{name}.json", command))


def trained_on(provenance: Mapping[str, Any]) -> str:
    """What a run was made on, with how many at a time where that was ever more than one.

    >>> trained_on({"device": "GPU", "processes": [1, 2]}), trained_on({"device": "GPU", "processes": [1]})
    ('1 and 2 × GPU', 'GPU')
    """
    counts = provenance.get("processes") or [1]
    several = "" if max(counts) == 1 else f"{' and '.join(map(str, sorted(counts)))} × "
    return f"{several}{provenance['device']}"
