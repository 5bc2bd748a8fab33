"""What the benchmarks share: the package beside them, and a case in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "notebooks")]
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: waiting threads must not count as work


def fresh(script: str, *options: Any, **environment: str) -> dict[str, Any]:
    """What a benchmark prints last, as JSON, when it is run again with `options`."""
    command = [sys.executable, script, *map(str, options)]
    env = {**os.environ, **environment}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))
