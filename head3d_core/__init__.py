"""Head3D, reproduced: 3D-aware generation of full heads by tri-plane feature distillation.

>>> import head3d_core as h3d
>>> camera = h3d.cameras.orbit(0.0, 0.0)

Importing the package is light: nothing heavier than the standard library is loaded before a name is used. Every module
is reachable as an attribute (`h3d.cameras`, `h3d.planes`, ...), the names below directly.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_NAMES = {
    "Head3DError": "errors",
    "preset": "config",
    "load_generator": "checkpoint",
    "load_discriminator": "checkpoint",
    "extract_mesh": "mesh",
    "turntable": "turntables",
}
"""Public name -> the module that defines it."""

if TYPE_CHECKING:
    from head3d_core.checkpoint import load_discriminator as load_discriminator
    from head3d_core.checkpoint import load_generator as load_generator
    from head3d_core.config import preset as preset
    from head3d_core.errors import Head3DError as Head3DError
    from head3d_core.mesh import extract_mesh as extract_mesh
    from head3d_core.turntables import turntable as turntable


def _modules() -> list[str]:
    """Names of the package's modules and of its one sub-package."""
    import pkgutil

    return [m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")]


def __getattr__(name: str) -> Any:
    """Import on first use (PEP 562)."""
    if name in _NAMES:
        value = getattr(importlib.import_module(f"head3d_core.{_NAMES[name]}"), name)
    elif not name.startswith("_") and importlib.util.find_spec(f"head3d_core.{name}") is not None:
        value = importlib.import_module(f"head3d_core.{name}")
    else:
        raise AttributeError(f"module 'head3d_core' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES, *_modules()})
