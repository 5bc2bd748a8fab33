"""What the names in an EG3D pickle mean here: inert records in place of modules, tensors and NumPy's numbers.

A pickle can call what it names, set the state of what it made, and append, add or assign items to it. So nothing here
has a method that does any of this, except where the format needs it, and `CALLS` says of which types arguments are.
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


class Record(Inert):
    """A decoded torch storage, or a tensor as a view of one, within its bounds."""

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


def _persistent(meta: dict[Any, Any]) -> Module:
    kind, name, state = (meta.get(key) for key in ("type", "class_name", "state"))
    if kind != "class" or not isinstance(name, str) or not isinstance(state, dict):
        raise refuse(
            f"a persistent object of type {describe(kind)} and class {describe(name)} without a plain state"
        )
    module = Module()  # meta["module_src"], the source code that EG3D would run, is dropped here
    module.class_name, module.state = name, state
    return module


def _set(items: list[Any]) -> set[Any]:
    if len(items) > 16:  # the same long list, named often, would fill the memory
        raise refuse(f"builtins.set of {len(items)} items")
    return set(items)


def _dtype(code: str, *_: Any) -> DType:
    if code not in _SCALARS:
        raise refuse(f"numpy.dtype of {describe(code)}")
    return DType(code)


def _scalar(dtype: DType, raw: bytes) -> float | int | bool:
    form = dtype.order + _SCALARS[dtype.code]
    if len(raw) != struct.calcsize(form):
        raise refuse(f"a numpy scalar of {len(raw)} bytes for type {dtype.code}")
    number: float | int | bool = struct.unpack(form, raw)[0]
    return number


def _bytes(text: str, encoding: str) -> bytes:
    """How protocol 2 writes a byte string."""
    if encoding != "latin1":
        raise refuse(f"_codecs.encode to {describe(encoding)}, which is not latin1")
    return text.encode("latin1")


def _parameter(tensor: Record, *_: Any) -> Record:
    return tensor


def _tensor(storage: Record, offset: int, size: tuple[Any, ...], stride: tuple[Any, ...], *_: Any) -> Record:
    if not all(type(n) is int and 0 <= n < 2**48 for n in (offset, *size, *stride)):
        raise refuse("a tensor whose offset, size or stride is not made of whole numbers")
    if len(size) != len(stride) or len(size) > 8:
        raise refuse(f"a tensor of {len(size)} sizes and {len(stride)} strides")
    values = storage.values
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
_INNER_REFUSED = {"REDUCE", "NEWOBJ", "BUILD"}
"""The rest of what could run or build something is unknown to torch's weights-only loader as well."""
_STORAGE_PART = 3
"""The legacy format is five pickles: magic number, protocol, system, storage, list of keys."""


def _storage(raw: bytes) -> Record:
    """A storage in torch's legacy format.

    Its opcodes are read first, so that a refusal names its reason; torch's weights-only loader then decodes it.
    """
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
    return Record(values, (values.numel(),), (1,), 0)


_SCALAR = (_scalar, (DType, bytes))
CALLS: dict[tuple[str, str], tuple[Callable[..., Any], tuple[type, ...]]] = {
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): (_persistent, (dict,)),
    ("builtins", "set"): (_set, (list,)),
    ("__builtin__", "set"): (_set, (list,)),
    ("_codecs", "encode"): (_bytes, (str, str)),
    ("torch._utils", "_rebuild_parameter"): (_parameter, (Record,)),
    ("torch._utils", "_rebuild_tensor_v2"): (_tensor, (Record, int, tuple, tuple)),
    ("torch.storage", "_load_from_bytes"): (_storage, (bytes,)),
    ("numpy._core.multiarray", "scalar"): _SCALAR,
    ("numpy.core.multiarray", "scalar"): _SCALAR,
    ("numpy", "dtype"): (_dtype, (str,)),
}
"""Names that a file may call, the function of ours that answers, and the types of its first arguments."""

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
