"""What the names in an EG3D pickle stand for: inert records in place of modules, tensors and NumPy's numbers.

A pickle can call what it names, set the state of what it made, and append, add or assign items to it. So nothing here
has a method that does any of this, except where the format needs it, and every function checks its arguments' types.
"""

from __future__ import annotations

import io
import math
import pickletools
import reprlib
import struct
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from head3d_core.utils.errors import Head3DError

MAX_DEPTH = 32
"""Modules inside modules; real networks stay below ten."""


def refuse(what: str) -> Head3DError:
    """The error for something that does not belong into such a file."""
    return Head3DError(
        f"refused {what}: nothing in the file was executed; only EG3D network pickles can be read"
    )


def describe(value: Any) -> str:
    """A short description of something from a file, of which nothing nested is shown."""
    if isinstance(value, Module):
        return f"a module {value.class_name[:60]!r}"
    if isinstance(value, Record | Tensor):
        return f"a tensor {list(value.size if isinstance(value, Record) else value.shape)}"
    if isinstance(value, list | tuple | set | dict):
        kind = "dict" if isinstance(value, dict) else type(value).__name__
        return f"{kind} of {len(value)}"
    return f"{type(value).__name__} {reprlib.repr(value)}"


class Inert:
    """A thing without behaviour: a file cannot set its state."""

    def __setstate__(self, state: Any) -> None:
        raise refuse(f"a state (BUILD) for {describe(self)}")

    def __repr__(self) -> str:
        return type(self).__name__  # never its content: a hostile file could make that endless


class Module(Inert):
    """A network or layer as the file describes it: the name of its class, and its attributes."""

    class_name = ""
    state: dict[Any, Any]
    """Its attributes, `_parameters`, `_buffers` and `_modules` among them."""

    def __new__(cls, *args: Any) -> Module:
        if args:
            raise refuse(f"{cls.class_name} called with {len(args)} arguments")
        made = super().__new__(cls)
        made.state = {}
        return made

    def __setstate__(self, state: Any) -> None:
        if self.state or type(state) is not dict:
            raise refuse(f"a state (BUILD) for {describe(self)}")
        self.state = state

    def child(self, name: str) -> Module | None:
        """The direct child called `name`, or None."""
        children = self.state.get("_modules")
        child = children.get(name) if isinstance(children, dict) else None
        return child if isinstance(child, Module) else None

    def tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers of it and its children under dotted names.

        Raises Head3DError for a structure that no module has (a cycle, something else in place of a tensor).
        """
        return {name: record.tensor() for name, record in self._walk("", 0)}

    def _walk(self, prefix: str, depth: int) -> Iterator[tuple[str, Record]]:
        if depth > MAX_DEPTH:
            raise Head3DError(
                f"the file nests modules more than {MAX_DEPTH} deep at {prefix[:60]!r}: no network does that"
            )
        for group in ("_parameters", "_buffers", "_modules"):
            members = self.state.get(group) or {}
            if not isinstance(members, dict) or not all(isinstance(name, str) for name in members):
                raise Head3DError(
                    f"the file holds {describe(members)} where {group} of {self.class_name[:60]} should be"
                )
            kind: Any = Module if group == "_modules" else Record
            for name, value in members.items():
                if value is not None and not isinstance(value, kind):
                    what = "module" if kind is Module else "tensor"
                    raise Head3DError(
                        f"the file holds {describe(value)} where the {what} {prefix[:60]}{name[:60]} should be"
                    )
                if isinstance(value, Module):
                    yield from value._walk(f"{prefix}{name}.", depth + 1)
                elif value is not None:
                    yield prefix + name, value


class Dictionary(dict[Any, Any]):
    """OrderedDict and EasyDict: a dictionary that is made empty and gets no attributes."""

    def __new__(cls, *args: Any) -> Dictionary:
        if args:
            raise refuse(f"a dictionary called with {len(args)} arguments")
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        if state:
            raise refuse(f"a state (BUILD) for {describe(self)}")


class Storage(Inert):
    """One torch storage, decoded."""

    def __init__(self, values: Tensor) -> None:
        self.values = values


class Record(Inert):
    """A tensor as a view of a storage, within its bounds."""

    def __init__(self, values: Tensor, size: tuple[int, ...], stride: tuple[int, ...], offset: int) -> None:
        self.values, self.size, self.stride, self.offset = values, size, stride, offset

    def tensor(self) -> Tensor:
        """The tensor, which shares the storage's memory."""
        return self.values.as_strided(self.size, self.stride, self.offset)


class DType(Inert):
    """numpy.dtype of a scalar."""

    def __init__(self, code: str) -> None:
        self.code, self.order = code, "<"

    def __setstate__(self, state: Any) -> None:
        if type(state) is not tuple or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise refuse(f"a state (BUILD) for {describe(self)}")
        self.order = ">" if state[1] == ">" else "<"


# --- the names that a file may call ---------------------------------------------------------------------------------

_SCALARS = {"f8": "d", "f4": "f", "i8": "q", "i4": "i", "b1": "?"}


def _persistent(*args: Any) -> Module:
    if len(args) != 1 or not isinstance(args[0], dict):
        raise refuse("_reconstruct_persistent_obj with arguments other than one dictionary")
    kind, name, state = (args[0].get(key) for key in ("type", "class_name", "state"))
    if kind != "class" or not isinstance(name, str) or not isinstance(state, dict):
        raise refuse(
            f"a persistent object of type {describe(kind)} and class {describe(name)} without a plain state"
        )
    module = Module()  # args[0]["module_src"], the source code that EG3D would run, is dropped here
    module.class_name, module.state = name, state
    return module


def _set(*args: Any) -> set[Any]:
    if len(args) > 1 or not isinstance(args[0] if args else [], list):
        raise refuse("builtins.set of something other than one list")
    items = args[0] if args else []
    if len(items) > 16:  # the same long list, named often, would fill the memory
        raise refuse(f"builtins.set of {len(items)} items")
    return set(items)


def _dtype(*args: Any) -> DType:
    if not args or not isinstance(args[0], str) or args[0] not in _SCALARS:
        raise refuse(f"numpy.dtype of {describe(args[0]) if args else 'nothing'}")
    return DType(args[0])


def _scalar(*args: Any) -> float | int | bool:
    if len(args) != 2 or not isinstance(args[0], DType) or not isinstance(args[1], bytes):
        raise refuse("a numpy scalar that is not a type and its bytes")
    form = args[0].order + _SCALARS[args[0].code]
    if len(args[1]) != struct.calcsize(form):
        raise refuse(f"a numpy scalar of {len(args[1])} bytes for type {args[0].code}")
    number: float | int | bool = struct.unpack(form, args[1])[0]
    return number


def _bytes(*args: Any) -> bytes:
    """How protocol 2 writes a byte string."""
    if len(args) != 2 or not isinstance(args[0], str) or args[1] != "latin1":
        raise refuse("_codecs.encode of something other than a text and latin1")
    return args[0].encode("latin1")


def _parameter(*args: Any) -> Record:
    if len(args) != 3 or not isinstance(args[0], Record):
        raise refuse("_rebuild_parameter of something other than a tensor")
    return args[0]


def _tensor(*args: Any) -> Record:
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
    return Record(values, size, stride, offset)


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
_STORAGE_PART = 3
"""The legacy format is five pickles: magic number, protocol, system, storage, list of keys."""


def _storage(*args: Any) -> Storage:
    """A storage in torch's legacy format.

    Its opcodes are read first, so that a refusal names its reason; torch's weights-only loader then decodes it.
    """
    if len(args) != 1 or not isinstance(args[0], bytes):
        raise refuse("_load_from_bytes of something other than one byte string")
    raw = args[0]
    if not raw.startswith(_LEGACY):
        raise refuse("a tensor storage that is not in torch's legacy format")
    stream = io.BytesIO(raw)
    try:
        for part in range(5):
            for opcode, argument, _place in pickletools.genops(stream):
                named = opcode.name == "GLOBAL" and argument not in _STORAGE_TYPES
                if opcode.name in _INNER_REFUSED or named:
                    what = str(argument).replace(" ", ".") if named else opcode.name
                    raise refuse(f"{what[:120]} inside a tensor storage")
                if part == _STORAGE_PART and isinstance(argument, int) and argument > len(raw):
                    raise refuse(f"a tensor storage of {argument} numbers in {len(raw)} bytes")
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
    return Storage(values)


CALLS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _persistent,
    ("builtins", "set"): _set,
    ("__builtin__", "set"): _set,
    ("_codecs", "encode"): _bytes,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy", "dtype"): _dtype,
}
"""Names that a file may call, and the function of ours that answers."""

CLASSES: dict[tuple[str, str], type] = {
    ("collections", "OrderedDict"): Dictionary,
    ("dnnlib.util", "EasyDict"): Dictionary,
    **{
        (module, name): type(name, (Module,), {"class_name": name})
        for module, name in (
            ("torch.nn.modules.container", "Sequential"),
            ("torch.nn.modules.activation", "Softplus"),
            ("training.triplane", "OSGDecoder"),
            ("training.volumetric_rendering.renderer", "ImportanceRenderer"),
            ("training.volumetric_rendering.ray_marcher", "MipRayMarcher2"),
            ("training.volumetric_rendering.ray_sampler", "RaySampler"),
        )
    },
}
"""Classes that a file may name."""
