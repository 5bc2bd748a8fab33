"""Head3D, reproduced: 3D-aware generation of full heads by tri-plane feature distillation.

>>> import head3d_core as h3d
>>> camera = h3d.cameras.orbit(0.0, 0.0)

Importing the package is light: nothing heavier than the standard library is loaded before a name is used. The folders
are reachable as attributes; the names below and the modules of the method (`h3d.cameras`, `h3d.planes`, ...) directly.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_NAMES = {
    "Head3DError": "utils.errors",
    "preset": "config",
    "load_generator": "checkpoints.weights",
    "load_discriminator": "checkpoints.weights",
    "extract_mesh": "geometry.mesh",
    "turntable": "geometry.turntable",
}
"""Public name -> the module that defines it."""

_MODULES = {
    **{
        name: f"model.{name}"
        for name in ("cameras", "planes", "volume", "generator", "discriminator", "filters", "seeds")
    },
    **{name: f"training.{name}" for name in ("losses", "recipes")},
}
"""Modules that are reachable without their folder: the ones that the equations live in."""

if TYPE_CHECKING:
    from head3d_core.checkpoints.weights import load_discriminator as load_discriminator
    from head3d_core.checkpoints.weights import load_generator as load_generator
    from head3d_core.config import preset as preset
    from head3d_core.geometry.mesh import extract_mesh as extract_mesh
    from head3d_core.geometry.turntable import turntable as turntable
    from head3d_core.model import cameras as cameras
    from head3d_core.model import discriminator as discriminator
    from head3d_core.model import filters as filters
    from head3d_core.model import generator as generator
    from head3d_core.model import planes as planes
    from head3d_core.model import seeds as seeds
    from head3d_core.model import volume as volume
    from head3d_core.training import losses as losses
    from head3d_core.training import recipes as recipes
    from head3d_core.utils.errors import Head3DError as Head3DError


def _modules() -> list[str]:
    """Names of the package's folders and of the modules at its root."""
    import pkgutil

    return [m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")]


def __getattr__(name: str) -> Any:
    """Import on first use (PEP 562)."""
    if name in _NAMES:
        value = getattr(importlib.import_module(f"head3d_core.{_NAMES[name]}"), name)
    elif name in _MODULES:
        value = importlib.import_module(f"head3d_core.{_MODULES[name]}")
    elif not name.startswith("_") and importlib.util.find_spec(f"head3d_core.{name}") is not None:
        value = importlib.import_module(f"head3d_core.{name}")
    else:
        raise AttributeError(f"module 'head3d_core' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES, *_MODULES, *_modules()})
