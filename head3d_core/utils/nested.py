"""Nested dataclasses: read from JSON, and addressed by dotted name as the command line does: `domains.1.weight`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from head3d_core.utils.errors import Head3DError

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


def parsed(kind: Any, value: Any, name: str = "") -> Any:
    """`value`, as JSON gives it, as a `kind`: dataclasses from dictionaries, tuples from lists, numbers checked.

    >>> parsed(tuple[int, ...] | None, [1, 2])
    (1, 2)

    Raises:
        Head3DError: it does not fit, with the dotted name of the value that does not.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return value if isinstance(value, kind) else _dataclass(kind, value, name)
    if origin in (Union, UnionType):
        fitting = [option for option in inner if _fits(option, value)]
        if fitting:
            return parsed(fitting[0], value, name)
    elif origin is tuple and isinstance(value, list | tuple):
        kinds = [inner[0]] * len(value) if inner[1:] == (...,) else list(inner)
        if len(kinds) == len(value):
            return tuple(
                parsed(k, v, f"{name}.{i}") for i, (k, v) in enumerate(zip(kinds, value, strict=True))
            )
    elif origin is dict and isinstance(value, dict):
        return {k: parsed(inner[1], v, f"{name}.{k}") for k, v in value.items()}
    elif _fits(kind, value):
        return float(value) if kind is float else value
    raise Head3DError(f"{name} must be {_said(kind)}, got {value!r:.80}")


def _dataclass(kind: Any, value: Any, name: str) -> Any:
    if not isinstance(value, dict):
        raise Head3DError(
            f"{kind.__name__} is read from a dictionary of its fields, got {type(value).__name__}"
        )
    hints = get_type_hints(kind)
    unknown = sorted(set(value) - {f.name for f in dataclasses.fields(kind)})
    if unknown:
        raise Head3DError(
            f"{kind.__name__} has no field {', '.join(unknown)}: was the file written by a newer version of "
            "head3d_core?"
        )
    dotted = f"{name}." if name else ""
    try:
        return kind(**{key: parsed(hints[key], v, f"{dotted}{key}") for key, v in value.items()})
    except TypeError as error:
        raise Head3DError(f"{kind.__name__} lacks a field ({error})") from error


def _fits(kind: Any, value: Any) -> bool:
    """Whether a value of JSON may become a `kind`, looked at from outside."""
    origin = get_origin(kind) or kind
    if origin is Literal:
        return any(type(value) is type(option) and value == option for option in get_args(kind))
    if origin is tuple:
        return isinstance(value, list | tuple)
    if origin in (int, float):
        return not isinstance(value, bool) and isinstance(value, int if origin is int else int | float)
    return origin is Any or isinstance(value, dict if dataclasses.is_dataclass(origin) else origin)


def _said(kind: Any) -> str:
    """A type in words."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return " or ".join(map(_said, inner))
    if origin is Literal:
        return " or ".join(map(repr, inner))
    words = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "a text",
        dict: "a dictionary",
        type(None): "null",
    }
    return words.get(kind, str(kind).removeprefix("typing."))
