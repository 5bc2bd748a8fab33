"""Nested dataclasses and tuples by dotted name, as the command line writes them: `domains.1.weight`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

_Config = TypeVar("_Config")


def changed(config: _Config, changes: Mapping[str, Any]) -> _Config:
    """A copy of nested dataclasses and tuples with other values, by dotted name.

    >>> from head3d_core.config import preset
    >>> changed(preset("tiny"), {"generator.render.axes": "eg3d"}).generator.render.axes
    'eg3d'
    """
    for name, value in changes.items():
        config = _with(config, name.split("."), value)
    return config


def _with(config: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    if isinstance(config, tuple):
        k = int(path[0])
        return (*config[:k], _with(config[k], path[1:], value), *config[k + 1 :])
    return dataclasses.replace(config, **{path[0]: _with(getattr(config, path[0]), path[1:], value)})


def flat(config: Any) -> dict[str, Any]:
    """The values of a dataclass, or of the dictionary that JSON made of one, by dotted name.

    >>> flat({"a": {"b": 1}, "c": [{"d": 2}], "e": [3, 4]})
    {'a.b': 1, 'c.0.d': 2, 'e': (3, 4)}
    """
    tree: dict[str, Any] = config if isinstance(config, dict) else dataclasses.asdict(config)
    values: dict[str, Any] = {}
    for name, value in tree.items():
        items = dict(enumerate(value)) if isinstance(value, list | tuple) else value
        nested = isinstance(items, dict) and bool(items) and isinstance(next(iter(items.values())), dict)
        if isinstance(value, dict) or nested:
            values |= {f"{name}.{inner}": v for inner, v in flat(items).items()}
        else:
            values[name] = tuple(value) if isinstance(value, list) else value
    return values


def differences(one: Any, two: Any) -> dict[str, tuple[Any, Any]]:
    """Dotted names under which two configurations differ, with both values; None where one has no such name."""
    a, b = flat(one), flat(two)
    return {k: (a.get(k), b.get(k)) for k in dict.fromkeys([*a, *b]) if a.get(k) != b.get(k)}
