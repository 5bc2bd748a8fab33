"""Reads EG3D's network pickles without running anything that is in them.

Such a file carries the source code of its classes and runs it when `pickle` loads it. Here a restricted unpickler
(docs.python.org/3/library/pickle.html#restricting-globals) builds inert stand-ins instead: every name in the file is
looked up in the tables `CALLS` and `CLASSES`, anything else is refused by name. Before it starts, `_scan` reads the
opcodes, so that a file that asks for absurd memory is refused before it gets it.
"""

from __future__ import annotations

import copyreg
import mmap
import pickle
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from head3d_core.checkpoints.eg3d_stand_ins import CALLS, CLASSES, Module, Record, describe, refuse
from head3d_core.utils.errors import Head3DError

MAX_STEPS = 500_000
"""Opcodes in a file, each of which makes at most some hundred bytes; two networks of EG3D's have about 20,000."""
MAX_TUPLE = 256
"""Entries of a tuple and of those in it; EG3D has at most 15. Python hashes keys recursively; deep ones crash it."""
_ALLOWED = {
    "PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2",
    "LONG1", "LONG4", "BINFLOAT", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES",
    "BINBYTES8", "EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
    "APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "GLOBAL", "STACK_GLOBAL", "REDUCE", "NEWOBJ", "BUILD",
    "BINPUT", "LONG_BINPUT", "MEMOIZE", "BINGET", "LONG_BINGET",
}  # fmt: skip
"""What Python writes for such files (protocols 2 to 5). No persistent ids, no extension codes, no old instances."""
_FIRST_BYTES = {
    b"PK": "a zip archive (torch.save?), not a pickle",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself: run `git lfs pull`, or download it",
    b"<": "a web page, not a pickle: download the file itself",
}


class _Scan:
    """Follows the opcodes with a number for each object: 1, or for a tuple the entries in it and in its tuples."""

    def __init__(self, view: mmap.mmap) -> None:
        self.view = view
        self.stack: list[int] = []
        self.marks: list[int] = []
        self.memo: dict[int, int] = {}

    def run(self) -> None:
        """Raises Head3DError for opcodes outside the format, and for those that could take memory or stack."""
        opcode: pickletools.OpcodeInfo
        argument: Any
        for step, (opcode, argument, place) in enumerate(pickletools.genops(self.view)):  # type: ignore[arg-type]
            if step >= MAX_STEPS:
                raise refuse(f"a pickle of more than {MAX_STEPS} steps")
            if opcode.name not in _ALLOWED:
                raise refuse(f"the pickle opcode {opcode.name}")
            if opcode.name == "FRAME" and argument > len(self.view) - (place or 0):
                raise refuse(f"a frame of {argument} bytes in a file of {len(self.view)}")
            if opcode.name in ("LONG1", "LONG4") and argument.bit_length() > 64:
                raise refuse("a whole number of more than 64 bits")
            if opcode.name in ("BINPUT", "LONG_BINPUT") and argument > step:
                raise refuse(f"memo entry {argument} after {step} steps")
            if opcode.name == "GLOBAL":
                find(*argument.split(" ", 1))
            self.follow(opcode, argument)
        if len(self.stack) > 0:
            raise refuse("a pickle that leaves more than one object")

    def follow(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        """The stack after an opcode."""
        if opcode.name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memo[len(self.memo) if opcode.name == "MEMOIZE" else argument] = self.stack[-1]
            return
        taken = self.take(opcode)
        if opcode.name.startswith("TUPLE"):
            total = 1 + sum(taken)
            if total > MAX_TUPLE:
                raise refuse(f"a tuple of more than {MAX_TUPLE} entries")
            self.stack.append(total)
        elif opcode.name in ("BINGET", "LONG_BINGET"):
            if argument not in self.memo:
                raise refuse(f"a reference to memo entry {argument}, which was never written")
            self.stack.append(self.memo[argument])
        elif opcode.name == "MARK":
            self.marks.append(len(self.stack))
        else:
            self.stack += [1] * len(opcode.stack_after)

    def take(self, opcode: pickletools.OpcodeInfo) -> list[int]:
        """Pops what the opcode takes: everything above the mark, if it names one, and what it lists below that."""
        wanted = [item for item in opcode.stack_before if item is not pickletools.stackslice]
        taken: list[int] = []
        if pickletools.markobject in wanted:
            if not self.marks:
                raise refuse("a pickle without the stack mark that it refers to")
            taken = self.stack[self.marks[-1] :]
            del self.stack[self.marks.pop() :]
            wanted.remove(pickletools.markobject)
        for _ in wanted:
            if len(self.stack) <= (self.marks[-1] if self.marks else 0):
                if opcode.name == "POP" and self.marks:  # POP also takes a mark
                    self.marks.pop()
                    return taken
                raise refuse("a pickle that takes more from its stack than it put there")
            taken.append(self.stack.pop())
        return taken


def find(module: str, name: str = "") -> Any:
    """The entry of `CLASSES` or `CALLS` for a name; refuses those that are in neither."""
    entry = CLASSES.get((module, name)) or CALLS.get((module, name))
    if entry is None:
        raise refuse(f"the name {module[:80]}.{name[:80]}")
    return entry


class _Unpickler(pickle.Unpickler):
    """Python's unpickler, whose names are ours."""

    def __init__(self, view: mmap.mmap) -> None:
        super().__init__(view)
        self.budget = 2 * len(view)
        """Bytes that may still be made: an honest file names each storage once (and protocol 2 its text before)."""

    def find_class(self, module: str, name: str) -> Any:
        entry = find(module, name)
        return entry if isinstance(entry, type) else _Call(self, f"{module}.{name}", *entry)


@dataclass(frozen=True, eq=False)
class _Call:
    """A function that the file may name, as something that it can only call."""

    owner: _Unpickler
    name: str
    function: Callable[..., Any]
    kinds: tuple[type, ...]

    def __call__(self, *args: Any) -> Any:
        if len(args) < len(self.kinds) or not all(map(isinstance, args, self.kinds)):
            wanted = ", ".join(kind.__name__ for kind in self.kinds)
            raise refuse(f"{self.name} of {', '.join(map(describe, args)) or 'nothing'}, not of {wanted}")
        if self.kinds[0] in (str, bytes):
            self.owner.budget -= len(args[0])
        if self.owner.budget < 0:
            raise refuse("byte strings and tensor storages that add up to more than the file")
        return self.function(*args)

    def __setstate__(self, state: Any) -> None:
        raise refuse(f"a state (BUILD) for the name {self.name}")


def read_pickle(path: Path | str) -> Any:
    """The file's content, with networks as `Module` and tensors as `Record`. Runs nothing that is in it.

    Raises:
        Head3DError: missing, damaged or truncated file, or anything in it that is not part of EG3D's format; the
            message names what was refused.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            for first, what in _FIRST_BYTES.items():
                if view[: len(first)] == first:
                    raise Head3DError(f"this is {what}; give the .pkl that EG3D's training wrote")
            if view[:1] != b"\x80":
                raise Head3DError(
                    "this is not a pickle of protocol 2 or newer: give the .pkl that EG3D's training wrote"
                )
            _Scan(view).run()
            view.seek(0)
            copyreg.clear_extension_cache()  # extension codes would be answered from it without asking `find_class`
            return _Unpickler(view).load()
    except FileNotFoundError as error:
        raise Head3DError(f"there is no file {path}: give the path of an EG3D pickle") from error
    except OSError as error:
        raise Head3DError(
            f"cannot read {path} ({error.strerror}): give the path of an EG3D pickle"
        ) from error
    except Head3DError as error:
        raise Head3DError(f"{path}: {error}") from None
    except (
        ValueError, TypeError, LookupError, AttributeError, ArithmeticError, MemoryError, EOFError, RecursionError,
        pickle.UnpicklingError,
    ) as error:  # fmt: skip
        raise Head3DError(
            f"{path} is not a whole EG3D pickle ({str(error)[:80]!r}): it may be truncated; fetch it again"
        ) from error


@dataclass(frozen=True)
class Network:
    """One network of a pickle, ready for `eg3d`."""

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
    """The network `name` ("G_ema", "G" or "D") of an EG3D pickle, without running anything in it.

    Raises Head3DError for files that are something else.
    """
    content = read_pickle(path)
    try:
        if isinstance(content, tuple) and len(content) == 3:
            raise Head3DError(
                "it holds a tuple of three, the old TensorFlow StyleGAN format: only EG3D's is read"
            )
        if not isinstance(content, dict):
            raise Head3DError(f"it holds {describe(content)} where EG3D has a dictionary with G, D and G_ema")
        module = content.get(name)
        if not isinstance(module, Module):
            names = ", ".join(str(k)[:60] for k, v in content.items() if isinstance(v, Module)) or "none"
            raise Head3DError(f"it has no network {name}: its networks are {names}")
        arguments = module.state.get("_init_kwargs")
        if not isinstance(arguments, dict) or not all(isinstance(key, str) for key in arguments):
            raise Head3DError(f"{name} has no constructor arguments (_init_kwargs), so its shape is unknown")
        renderer = module.child("renderer")
        axes = renderer.state.get("plane_axes") if renderer is not None else None
        resolution = module.state.get("neural_rendering_resolution")
        return Network(
            module.class_name,
            module.tensors(),
            dict(arguments),
            axes.tensor() if isinstance(axes, Record) else None,
            resolution if type(resolution) is int else None,
        )
    except Head3DError as error:
        raise Head3DError(f"{path}: {error}") from None
