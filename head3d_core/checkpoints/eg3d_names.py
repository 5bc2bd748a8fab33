"""What the names in an EG3D pickle stand for: inert records, plain containers and tensors.

`eg3d_pickle` walks the file and asks here what a name means. The list is complete for files that EG3D writes; a name
outside it is refused. Nothing here imports or calls anything that a file names.
"""

from __future__ import annotations

import io
import math
import pickletools
import reprlib
import struct
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from head3d_core.utils.errors import Head3DError

Scalar = str | int | float | bool | None
"""What may be a dictionary key or a member of a set (hashing nested tuples from a file could exhaust the stack)."""
MAX_DEPTH = 32
"""Modules inside modules; real networks stay below ten."""


@dataclass(eq=False)
class Module:
    """A network or layer as the file describes it: data only."""

    class_name: str
    """Name of its class, without the module."""
    state: dict[Scalar, Any] = field(default_factory=dict)
    """Its attributes, `_parameters`, `_buffers` and `_modules` among them."""

    def __repr__(self) -> str:
        return f"Module({self.class_name[:60]!r})"  # never its state: a hostile file could make that endless

    def tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers of it and its children under dotted names.

        Raises Head3DError for a structure that no module has (a cycle, something else in place of a tensor).
        """
        return dict(self._walk("", 0))

    def get(self, name: str, default: Any = None) -> Any:
        """The attribute `name`."""
        return self.state.get(name, default)

    def child(self, name: str) -> Module | None:
        """The direct child called `name`, or None."""
        children = self.state.get("_modules")
        found = children.get(name) if isinstance(children, dict) else None
        return found if isinstance(found, Module) else None

    def _walk(self, prefix: str, depth: int) -> Iterator[tuple[str, Tensor]]:
        if depth > MAX_DEPTH:
            raise Head3DError(
                f"the file nests modules more than {MAX_DEPTH} deep at {prefix[:60]!r}: no network does that"
            )
        for group in ("_parameters", "_buffers"):
            for name, value in self._members(group):
                if value is None:
                    continue
                if not isinstance(value, Tensor):
                    raise Head3DError(
                        f"the file holds {describe(value)} where the tensor {prefix}{name} should be"
                    )
                yield prefix + name, value
        for name, value in self._members("_modules"):
            if value is not None and not isinstance(value, Module):
                raise Head3DError(
                    f"the file holds {describe(value)} where the module {prefix}{name} should be"
                )
            if value is not None:
                yield from value._walk(f"{prefix}{name}.", depth + 1)

    def _members(self, group: str) -> list[tuple[str, Any]]:
        members = self.state.get(group) or {}
        if not isinstance(members, dict) or not all(isinstance(name, str) for name in members):
            raise Head3DError(
                f"the file holds {describe(members)} where {group} of {self.class_name} should be"
            )
        return [(str(name), value) for name, value in members.items()]


@dataclass(frozen=True)
class Name:
    """A global that the file refers to; inert."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class DType:
    """numpy.dtype of a scalar."""

    code: str
    order: str = "<"


@dataclass(frozen=True, eq=False)
class Storage:
    """One torch storage, decoded."""

    values: Tensor


def describe(value: Any) -> str:
    """A short, safe description of something from a file (nested bombs and long strings are cut)."""
    if isinstance(value, Module):
        return f"a module {value.class_name[:60]!r}"
    if isinstance(value, Tensor):
        return f"a tensor {list(value.shape)}"
    if isinstance(value, Name):
        return f"the name {str(value)[:120]}"
    return f"{type(value).__name__} {reprlib.repr(value)}"


def refuse(what: str) -> Head3DError:
    """The error for something that does not belong into such a file."""
    return Head3DError(
        f"refused {what}: nothing in the file was executed; only EG3D network pickles can be read"
    )


def key_of(value: Any) -> Scalar:
    """`value` if it may be a dictionary key or a member of a set."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    raise refuse(f"{describe(value)} as a dictionary key")


# --- what the known names stand for ---------------------------------------------------------------------------------


def _persistent(*args: Any) -> Module:
    if len(args) != 1 or not isinstance(args[0], dict):
        raise refuse("_reconstruct_persistent_obj with arguments other than one dictionary")
    meta = args[0]
    kind, name, state = meta.get("type"), meta.get("class_name"), meta.get("state")
    if kind != "class" or not isinstance(name, str) or not isinstance(state, dict):
        raise refuse(
            f"a persistent object of type {reprlib.repr(kind)} and class {reprlib.repr(name)} without a plain state"
        )
    # meta["module_src"], the source code that EG3D would run, is dropped here.
    return Module(name, state)


def _ordered_dict(*args: Any) -> dict[Scalar, Any]:
    if args:
        raise refuse("collections.OrderedDict with arguments")
    return {}


def _set(*args: Any) -> set[Scalar]:
    if len(args) > 1 or not isinstance(args[0] if args else [], list):
        raise refuse("builtins.set of something other than one list")
    items = args[0] if args else []
    if len(items) > 16:  # the same long list, named often, would fill the memory
        raise refuse(f"builtins.set of {len(items)} items")
    return {key_of(item) for item in items}


def _dtype(*args: Any) -> DType:
    if not args or not isinstance(args[0], str) or args[0] not in _SCALARS:
        raise refuse(f"numpy.dtype {reprlib.repr(args[:1])}")
    return DType(args[0])


_SCALARS = {"f8": "d", "f4": "f", "i8": "q", "i4": "i", "b1": "?"}


def _scalar(*args: Any) -> float | int | bool:
    if len(args) != 2 or not isinstance(args[0], DType) or not isinstance(args[1], bytes):
        raise refuse("a numpy scalar that is not a type and its bytes")
    order = ">" if args[0].order == ">" else "<"
    form = order + _SCALARS[args[0].code]
    if len(args[1]) != struct.calcsize(form):
        raise refuse(f"a numpy scalar of {len(args[1])} bytes for type {args[0].code}")
    number: float | int | bool = struct.unpack(form, args[1])[0]
    return number


def _storage(*args: Any) -> Storage:
    if len(args) != 1 or not isinstance(args[0], bytes):
        raise refuse("_load_from_bytes of something other than one byte string")
    return Storage(load_storage(args[0]))


def _parameter(*args: Any) -> Tensor:
    if len(args) != 3 or not isinstance(args[0], Tensor):
        raise refuse("_rebuild_parameter of something other than a tensor")
    return args[0]


def _tensor(*args: Any) -> Tensor:
    if len(args) not in (6, 7) or not isinstance(args[0], Storage):
        raise refuse("_rebuild_tensor_v2 with arguments that torch does not write")
    offset, size, stride = args[1:4]
    for numbers in ((offset,), size, stride):
        if not isinstance(numbers, tuple) or not all(type(n) is int and 0 <= n < 2**48 for n in numbers):
            raise refuse("a tensor whose offset, size or stride is not made of whole numbers")
    if len(size) != len(stride) or len(size) > 8:
        raise refuse(f"a tensor of {len(size)} sizes and {len(stride)} strides")
    values = args[0].values
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    # The product bounds copies made later: a stride of 0 could otherwise blow one number up to any size.
    count = math.prod(size)
    if count > values.numel() or (count and last >= values.numel()):
        raise refuse(f"a tensor of size {list(size)} in a storage of {values.numel()} numbers")
    return values.as_strided(size, stride, offset)


CALLS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _persistent,
    ("collections", "OrderedDict"): _ordered_dict,
    ("builtins", "set"): _set,
    ("__builtin__", "set"): _set,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy", "dtype"): _dtype,
}
"""Names that a file may "call", and the function of ours that answers."""

CLASSES = {
    ("dnnlib.util", "EasyDict"),
    ("torch.nn.modules.container", "Sequential"),
    ("torch.nn.modules.activation", "Softplus"),
    ("training.triplane", "OSGDecoder"),
    ("training.volumetric_rendering.renderer", "ImportanceRenderer"),
    ("training.volumetric_rendering.ray_marcher", "MipRayMarcher2"),
    ("training.volumetric_rendering.ray_sampler", "RaySampler"),
}
"""Classes that a file may name; an instance becomes a `Module` (EasyDict: a dict)."""


def allowed_names() -> list[str]:
    """Every name that a file may mention, for messages and for teaching."""
    return sorted(f"{module}.{name}" for module, name in {*CALLS, *CLASSES})


# --- storages ---------------------------------------------------------------------------------------------------------

_LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
"""How torch's legacy file format begins: a pickle of its magic number."""
_STORAGE_TYPES = {
    f"torch {name}Storage"
    for name in ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
}
_INNER_REFUSED = {
    "STACK_GLOBAL",
    "INST",
    "OBJ",
    "REDUCE",
    "NEWOBJ",
    "NEWOBJ_EX",
    "BUILD",
    "EXT1",
    "EXT2",
    "EXT4",
}


def load_storage(raw: bytes) -> Tensor:
    """One-dimensional tensor of a storage in torch's legacy format.

    Its opcodes are read first, so that a refusal names its reason; torch's weights-only loader then decodes it.
    """
    if not raw.startswith(_LEGACY):
        raise refuse("a tensor storage that is not in torch's legacy format")
    stream = io.BytesIO(raw)
    try:
        for _ in range(5):  # magic number, protocol, system, storage, list of keys
            for opcode, argument, _position in pickletools.genops(stream):
                if opcode.name in _INNER_REFUSED or (
                    opcode.name == "GLOBAL" and argument not in _STORAGE_TYPES
                ):
                    what = str(argument).replace(" ", ".") if opcode.name == "GLOBAL" else opcode.name
                    raise refuse(f"{what[:120]} inside a tensor storage")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # typed storages are deprecated, but these files hold them
            storage = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
            values = torch.empty(0, dtype=storage.dtype).set_(storage.untyped())
    except Head3DError:
        raise
    except Exception as error:  # torch raises many kinds for bytes that are not what they claim to be
        raise Head3DError(
            f"a tensor storage of the file is damaged ({type(error).__name__}): fetch the file again"
        ) from error
    if not isinstance(values, Tensor) or values.ndim != 1:
        raise refuse("a tensor storage that holds something else")
    return values
