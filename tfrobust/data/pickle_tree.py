"""Reads a pickle as data: nothing that it names is imported, built or called.

A pickle is a program for a small stack machine. Python's own unpickler runs it on real objects;
this one builds a tree of inert nodes, from which a reader takes what it knows. The standard
library's `pickletools` decodes the opcodes.
"""

from __future__ import annotations

import pickletools
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

# Names of Python 2 modules that pickles of protocol 2 and below still use.
_STANDARD_MODULES = frozenset(sys.stdlib_module_names) | {"__builtin__", "copy_reg"}


class UnsafePickleError(ValueError):
    """The pickle requests something that is never done; the message names it."""


@dataclass(frozen=True)
class Global:
    """The name of a class or function, not the thing itself."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"[:100]


@dataclass(frozen=True)
class Persistent:
    """A reference to content outside of the pickle."""

    id: Any


@dataclass(eq=False, repr=False)
class Call:
    """A call of a listed function that the pickle requests; never executed here.

    Attributes:
      function: the function that it would call.
      args: its arguments.
      state: the state that it would set on the result.
      items: the items that it would set in the result, which then is a dict of some kind.
    """

    function: Global
    args: tuple[Any, ...]
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)


@dataclass(eq=False, repr=False)
class Record:
    """A stand-in for an object of any class, created without arguments.

    Attributes:
      type: its class's name.
      state: its attributes (a dict), or whatever the class saved.
    """

    type: Global
    state: Any = None


def parse(content: bytes, callables: Collection[str]) -> Any:
    """The tree that a pickle describes.

    Args:
      content: the pickle, of any protocol.
      callables: full names of functions, classes created with arguments, and standard-library
        names that the pickle may use; they become `Call` and `Global` nodes.

    Returns:
      Numbers, strings, bytes, bytearrays, lists, tuples and dicts themselves; other objects as
      `Call`, `Record`, `Global` and `Persistent`.

    Raises:
      UnsafePickleError: it uses a function or a standard-library name that is not listed,
        another object created with arguments, or an uncommon opcode.
      ValueError: it is broken.
    """
    machine = _Machine(callables)
    try:
        for opcode, argument, _ in pickletools.genops(content):
            machine.step(opcode.name, argument)
        return machine.stack.pop()
    except UnsafePickleError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        cause = " ".join(str(error).split())[:100]
        raise ValueError(f"a broken pickle ({type(error).__name__}: {cause})") from error


_CONSTANTS = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT UNICODE BINUNICODE "
    # Python 2's strings: text in latin-1.
    "STRING BINSTRING SHORT_BINSTRING "
    "SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8".split()
)
_FIXED: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUTS = frozenset(("PUT", "BINPUT", "LONG_BINPUT"))
_GETS = frozenset(("GET", "BINGET", "LONG_BINGET"))


class _Machine:
    """The stack machine; `step` executes one opcode."""

    def __init__(self, callables: Collection[str]) -> None:
        self.stack: list[Any] = []
        self._below: list[list[Any]] = []  # the stacks under each open mark
        self._memo: dict[int, Any] = {}
        self._callables = callables

    def step(self, opcode: str, argument: Any) -> None:
        if opcode in _CONSTANTS:
            self.stack.append(argument)
        elif opcode in _PUTS:
            self._memo[argument] = self.stack[-1]
        elif opcode in _GETS:
            self.stack.append(self._memo[argument])
        elif opcode in _FIXED:
            self.stack.append(_FIXED[opcode]())
        elif opcode in _TUPLES:
            self.stack.append(tuple(self._pop_last(_TUPLES[opcode])))
        else:
            handler = getattr(self, f"_do_{opcode.lower()}", None)
            if handler is None:
                raise UnsafePickleError(f"the opcode {opcode}")
            handler(argument)

    def _pop_last(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise IndexError("too few values on the stack")
        values = self.stack[-count:]
        del self.stack[-count:]
        return values

    def _pop_to_mark(self) -> list[Any]:
        values, self.stack = self.stack, self._below.pop()
        return values

    def _do_proto(self, _: Any) -> None:
        pass

    _do_frame = _do_stop = _do_proto

    def _do_mark(self, _: Any) -> None:
        self._below.append(self.stack)
        self.stack = []

    def _do_memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self.stack[-1]

    def _do_tuple(self, _: Any) -> None:
        values = self._pop_to_mark()
        self.stack.append(tuple(values))

    def _do_list(self, _: Any) -> None:
        values = self._pop_to_mark()
        self.stack.append(values)

    def _do_dict(self, _: Any) -> None:
        values = self._pop_to_mark()
        self.stack.append({})
        self._set_items(values)

    def _do_append(self, _: Any) -> None:
        self._extend([self.stack.pop()])

    def _do_appends(self, _: Any) -> None:
        self._extend(self._pop_to_mark())

    def _do_setitem(self, _: Any) -> None:
        self._set_items(self._pop_last(2))

    def _do_setitems(self, _: Any) -> None:
        self._set_items(self._pop_to_mark())

    def _do_global(self, argument: str) -> None:
        self._push_global(*argument.split(" ", 1))

    def _do_stack_global(self, _: Any) -> None:
        self._push_global(*self._pop_last(2))

    def _do_binpersid(self, _: Any) -> None:
        self.stack.append(Persistent(self.stack.pop()))

    def _do_reduce(self, _: Any) -> None:
        function, args = self._pop_last(2)
        if not isinstance(function, Global):
            raise UnsafePickleError("a call of something that is not a name")
        if str(function) not in self._callables:
            raise UnsafePickleError(f"a call of {function}")
        self.stack.append(Call(function, tuple(args)))

    def _do_newobj(self, _: Any) -> None:
        kind, args = self._pop_last(2)
        if not isinstance(kind, Global):
            raise UnsafePickleError("an object of something that is not a name")
        if args == ():
            self.stack.append(Record(kind))
        elif str(kind) in self._callables:
            self.stack.append(Call(kind, tuple(args)))
        else:
            raise UnsafePickleError(f"a {kind} created with arguments")

    def _do_build(self, _: Any) -> None:
        state, node = self.stack.pop(), self.stack[-1]
        if not isinstance(node, Call | Record):
            raise UnsafePickleError(f"attributes set on a {type(node).__name__}")
        node.state = state

    def _push_global(self, module: Any, name: Any) -> None:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise UnsafePickleError("a name that is not a string")
        found = Global(module, name)
        standard = found.module.split(".")[0] in _STANDARD_MODULES
        if standard and found.module != "__main__" and str(found) not in self._callables:
            raise UnsafePickleError(str(found))
        self.stack.append(found)

    def _extend(self, values: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise UnsafePickleError(f"values added to a {type(self.stack[-1]).__name__}")
        self.stack[-1].extend(values)

    def _set_items(self, values: list[Any]) -> None:
        keys, target = values[::2], self.stack[-1]
        for key in keys:
            # Hashing nested tuples, or large numbers that collide, can take forever.
            if not (isinstance(key, str | None) or isinstance(key, int) and abs(key) < 1 << 60):
                raise UnsafePickleError(f"a {type(key).__name__} as a key")
        if not isinstance(target, dict | Call):  # an OrderedDict is a call
            raise UnsafePickleError(f"items set on a {type(target).__name__}")
        items = target.items if isinstance(target, Call) else target
        items.update(zip(keys, values[1::2], strict=True))
