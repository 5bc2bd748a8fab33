"""For hosted notebooks: makes head3d_core importable against the torch that the host has.

    import hosted

    hosted.prepare()

Installs the package without its extension and what it needs except torch and torchvision. Does nothing where
head3d_core is installed.
"""

from __future__ import annotations

import importlib.util
import os
import re
import site
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def prepare() -> None:
    """Installs what is missing; raises CalledProcessError if pip fails."""
    if importlib.util.find_spec("head3d_core") is not None:
        return
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["project"]
    needs = [need for need in project["dependencies"] if not re.match(r"torch(vision)?\W", need)]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check"]
    subprocess.run([*pip, *needs], check=True)
    environment = {**os.environ, "HEAD3D_WITH_EXT": "0"}
    subprocess.run([*pip, "--no-deps", "--editable", str(ROOT)], check=True, env=environment)
    site.addsitedir(sysconfig.get_path("purelib"))  # this process started before the package was there
    importlib.invalidate_caches()
