"""For hosted notebooks: makes head3d_core and head3d_course importable against the torch that the host has.

    import hosted

    hosted.prepare()

Installs what the packages need and the notebooks use, except torch and torchvision. Both packages are used from this
clone, without the extension: nothing is built. Does nothing where both can be imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import site
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = r"(torch|torchvision|imageio-ffmpeg)\b(?!-)"
"""Not installed: what the host has, and 68 MB that only films need (a command that does asks for it)."""


def prepare() -> None:
    """Installs what is missing and puts this clone on the path; raises CalledProcessError if pip fails."""
    if all(importlib.util.find_spec(name) for name in ("head3d_core", "head3d_course")):
        return
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["project"]
    needs = [need for need in project["dependencies"] if not re.match(LEFT_OUT, need)]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check"]
    subprocess.run([*pip, *needs], check=True)
    packages = Path(sysconfig.get_path("purelib"))
    (packages / "head3d_core.pth").write_text(f"{ROOT}\n{ROOT / 'notebooks'}\n", encoding="utf8")
    site.addsitedir(str(packages))  # this process started before the packages were there
    importlib.invalidate_caches()
