"""Reads EG3D's network pickles without executing anything in them.

Such a file carries the source code of its classes and, loaded with `pickle`, runs it. Here a small machine walks the
opcodes instead. It knows a short list of names (`eg3d_names`), builds nothing but plain containers, numbers, strings,
tensors and `Module` records (a class name and a state), never imports and never calls what a file names. Everything
else is refused by name.

The format: a dictionary of networks, each a call of EG3D's persistence wrapper with one dictionary (class name, source
code, state), and tensors whose storages are byte strings in torch's legacy format. Those go to torch's own weights-only
loader.
"""

from __future__ import annotations

import mmap
import pickletools
import reprlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from head3d_core.checkpoints.eg3d_names import CALLS, CLASSES, DType, Module, Name, describe, key_of, refuse
from head3d_core.utils.errors import Head3DError

MAX_STEPS = 2_000_000
"""Opcodes in a file; EG3D's have tens of thousands. Each makes at most about 1 kB, so this bounds the memory."""


class _Mark:
    """The machine's stack marker."""


_MARK = _Mark()

_LITERALS = {
    "BININT", "BININT1", "BININT2", "BINFLOAT", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
    "SHORT_BINBYTES", "BINBYTES", "BINBYTES8",
}  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
    "EMPTY_TUPLE": tuple,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_WHY = {
    "PERSID": "a persistent id", "BINPERSID": "a persistent id", "INST": "the old instance opcode INST",
    "EXT1": "an extension code", "EXT2": "an extension code", "EXT4": "an extension code",
}  # fmt: skip


class _Machine:
    """Stack machine over the opcodes that Python writes for such files (protocols 2 to 5)."""

    def __init__(self, size: int) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.budget = size
        """Bytes of tensors that may still be decoded: an honest file names each of its storages once."""

    def pop(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise refuse("a pickle that takes more from its stack than it put there")
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is _MARK:
                items = self.stack[index + 1 :]
                del self.stack[index:]
                return items
        raise refuse("a pickle without the stack mark that it refers to")

    def top(self, kind: type, what: str) -> Any:
        value = self.stack[-1] if self.stack else None
        if type(value) is not kind:
            raise refuse(f"{what} on {describe(value)}")
        return value

    def step(self, name: str, argument: Any) -> None:
        """One opcode."""
        if name in _LITERALS:
            self.stack.append(argument)
        elif name in ("LONG1", "LONG4"):
            if argument.bit_length() > 64:
                raise refuse("a whole number of more than 64 bits")
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        elif name == "MARK":
            self.stack.append(_MARK)
        elif name in _TUPLES:
            self.stack.append(tuple(reversed([self.pop() for _ in range(_TUPLES[name])])))
        elif name == "TUPLE":
            self.stack.append(tuple(self.pop_to_mark()))
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memo[len(self.memo) if name == "MEMOIZE" else argument] = self.top_any()
        elif name in ("BINGET", "LONG_BINGET"):
            if argument not in self.memo:
                raise refuse(f"a reference to memo entry {argument}, which was never written")
            self.stack.append(self.memo[argument])
        elif name in ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS"):
            self.fill(name)
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            self.find(name, argument)
        elif name in ("REDUCE", "NEWOBJ", "BUILD"):
            self.make(name)
        elif name == "POP":
            self.stack.pop() if self.stack else self.pop()
        elif name == "POP_MARK":
            self.pop_to_mark()
        elif name not in ("PROTO", "FRAME"):
            raise refuse(
                f"{_WHY.get(name, 'the pickle opcode')} ({name})"
                if name in _WHY
                else f"the pickle opcode {name}"
            )

    def top_any(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise refuse("a memo entry for an empty stack")
        return self.stack[-1]

    def fill(self, name: str) -> None:
        """Items into the list, dictionary or set below them."""
        if name == "APPEND":
            items = [self.pop()]
        elif name == "SETITEM":
            items = [self.pop(), self.pop()][::-1]
        else:
            items = self.pop_to_mark()
        if name in ("APPEND", "APPENDS"):
            self.top(list, name).extend(items)
        elif name == "ADDITEMS":
            self.top(set, name).update(key_of(item) for item in items)
        elif len(items) % 2:
            raise refuse("a dictionary with a key but no value")
        else:
            target = self.top(dict, name)
            for key, value in zip(items[::2], items[1::2], strict=True):
                target[key_of(key)] = value

    def find(self, name: str, argument: Any) -> None:
        """A global: allowed, or refused by name. Nothing is imported."""
        if name == "GLOBAL":
            module, _, attribute = str(argument).partition(" ")
        else:
            attribute, module = self.pop(), self.pop()
        if not isinstance(module, str) or not isinstance(attribute, str):
            raise refuse(f"a global whose name is {describe(attribute)}")
        if (module, attribute) not in CALLS and (module, attribute) not in CLASSES:
            raise refuse(f"the name {module[:80]}.{attribute[:80]}")
        self.stack.append(Name(module, attribute))

    def make(self, name: str) -> None:
        """REDUCE and NEWOBJ: our answer to a call; BUILD: the state of what was made last."""
        argument = self.pop()
        if name == "BUILD":
            self.build(argument)
            return
        target = self.pop()
        if not isinstance(target, Name):
            raise refuse(f"a call of {describe(target)}")
        if type(argument) is not tuple:
            raise refuse(f"a call of {target} with {describe(argument)} for arguments")
        key = (target.module, target.name)
        if key in CALLS and name == "REDUCE":
            if key[1] == "_load_from_bytes" and argument and type(argument[0]) is bytes:
                self.budget -= len(argument[0])
                if self.budget < 0:
                    raise refuse("tensor storages that add up to more than the file")
            self.stack.append(CALLS[key](*argument))
        elif key in CLASSES and not argument:
            self.stack.append({} if target.name == "EasyDict" else Module(target.name))
        elif target.name == "OrderedDict" and not argument:
            self.stack.append({})
        else:
            raise refuse(f"{target} called with {len(argument)} arguments ({name})")

    def build(self, state: Any) -> None:
        target = self.top_any()
        if isinstance(target, Module) and type(state) is dict and not target.state:
            target.state = state
        elif (
            isinstance(target, DType)
            and type(state) is tuple
            and len(state) > 1
            and state[1] in ("<", ">", "|", "=")
        ):
            target.order = state[1]
        elif not (type(target) is dict and (state is None or (type(state) is dict and not state))):
            raise refuse(f"a state (BUILD) for {describe(target)}")


def read_pickle(path: Path | str) -> Any:
    """The file's content, with networks as `Module` records. Executes nothing.

    Raises:
        Head3DError: missing, damaged or truncated file, or anything in it that is not part of EG3D's format; the
            message names what was refused.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            return _run(view)
    except FileNotFoundError as error:
        raise Head3DError(f"there is no file {path}: give the path of an EG3D pickle") from error
    except OSError as error:
        raise Head3DError(
            f"cannot read {path} ({error.strerror}): give the path of an EG3D pickle"
        ) from error
    except Head3DError as error:
        raise Head3DError(f"{path}: {error}") from None
    except (ValueError, OverflowError, IndexError, MemoryError, struct.error) as error:
        raise Head3DError(
            f"{path} is not a whole pickle ({reprlib.repr(str(error))}): it may be truncated; fetch it again"
        ) from error


def _run(view: mmap.mmap) -> Any:
    if view[:2] == b"PK":
        raise Head3DError(
            "this is a zip archive (torch.save?), not a pickle: give the .pkl that EG3D's training wrote"
        )
    if view[:1] != b"\x80":
        raise Head3DError(
            "this is not a pickle of protocol 2 or newer: give the .pkl that EG3D's training wrote"
        )
    machine = _Machine(len(view))
    for step, (opcode, argument, _position) in enumerate(pickletools.genops(view)):  # type: ignore[arg-type]
        if opcode.name == "STOP":
            break
        if step > MAX_STEPS:
            raise refuse(f"a pickle of more than {MAX_STEPS} steps")
        machine.step(opcode.name, argument)
    result = machine.pop()
    if machine.stack:
        raise refuse("a pickle that leaves more than one object")
    return result


@dataclass(frozen=True)
class Network:
    """One network of a pickle, ready for `eg3d_format`."""

    class_name: str
    """Its class in EG3D."""
    state_dict: dict[str, Tensor]
    """Parameters and buffers."""
    init_kwargs: dict[str, Any]
    """Constructor arguments."""
    plane_axes: Tensor | None
    """[3, 3, 3], rows are axes; None if the file has none."""
    neural_resolution: int | None
    """Volume-rendering resolution of the last call in training."""


def read_network(path: Path | str, name: str = "G_ema") -> Network:
    """The network `name` ("G_ema", "G" or "D") of an EG3D pickle, without executing anything in it.

    Raises Head3DError for files that are something else.
    """
    content = read_pickle(path)
    if isinstance(content, tuple) and len(content) == 3:
        raise Head3DError(
            f"{path} holds a tuple of three, the old TensorFlow StyleGAN format: only EG3D's is read"
        )
    if not isinstance(content, dict):
        raise Head3DError(f"{path} holds {describe(content)} where EG3D has a dictionary with G, D and G_ema")
    module = content.get(name)
    if not isinstance(module, Module):
        names = ", ".join(str(k) for k, v in content.items() if isinstance(v, Module)) or "none"
        raise Head3DError(f"{path} has no network {name}: its networks are {names}")
    arguments = module.get("_init_kwargs")
    if not isinstance(arguments, dict) or not all(isinstance(key, str) for key in arguments):
        raise Head3DError(
            f"{path}: {name} carries no constructor arguments (_init_kwargs), so its shape is unknown"
        )
    renderer = module.child("renderer")
    axes = renderer.get("plane_axes") if renderer is not None else None
    resolution = module.get("neural_rendering_resolution")
    return Network(
        module.class_name,
        module.tensors(),
        {str(key): value for key, value in arguments.items()},
        axes if isinstance(axes, Tensor) else None,
        resolution if type(resolution) is int else None,
    )
