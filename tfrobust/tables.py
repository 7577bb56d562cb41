"""Plug-in tables: a name -> the location of a class or function, imported on first use.

A table contains the plug-ins of this project; it also finds others: entry points of installed
packages, in the group ``tfrobust.<kind>s``, and any attribute of any module, written
``package.module:name``.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.metadata
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from tfrobust.errors import UsageError

#: The type of a table's entries.
Plugin = TypeVar("Plugin", covariant=True)
_PLACE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class Table(Mapping[str, Plugin]):
    """A read-only mapping from a plug-in's name to the plug-in itself.

    Entries are written as ``'package.module:attribute'`` and imported on first access, so that
    listing names (command-line help) stays fast.

    Args:
      kind: the kind of the entries, in the singular, for messages ('backbone').
      entries: name -> 'module:attribute'.
      group: of entry points, such as 'tfrobust.attacks'; '' for none.
    """

    def __init__(self, kind: str, entries: Mapping[str, str], group: str = "") -> None:
        self.kind, self.group = kind, group
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> Plugin:
        place = self._entries.get(name) or self._further.get(name)
        if place is None and is_place(name):
            place = name
        if place is None:
            raise UsageError(self._unknown(name))
        found: Plugin = imported(place, self.kind)
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._entries or name in self._further or is_place(name)

    def __iter__(self) -> Iterator[str]:
        return iter([*self._entries, *self._further])

    def __len__(self) -> int:
        return len(self._entries) + len(self._further)

    @property
    def built_in(self) -> tuple[str, ...]:
        """The names of the project's own entries."""
        return tuple(self._entries)

    @functools.cached_property
    def _further(self) -> dict[str, str]:
        """The plug-ins of installed packages; none may override a built-in name."""
        found = importlib.metadata.entry_points(group=self.group) if self.group else ()
        return {one.name: one.value for one in found if one.name not in self._entries}

    def _unknown(self, name: str) -> str:
        close = difflib.get_close_matches(str(name), list(self), n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        own = "; write your own as package.module:name" if self.group else ""
        return f"Unknown {self.kind} {name!r}: expected one of {', '.join(self)}{own}.{hint}"


def names_model_file(name: object) -> bool:
    """Whether a name is the path of a Keras model file by its ending, existing or not."""
    return isinstance(name, str) and name.endswith((".keras", ".h5"))


def is_model_file(name: object) -> bool:
    """Whether a name is the path of an existing Keras model file."""
    return isinstance(name, str) and names_model_file(name) and Path(name).is_file()


def is_place(name: object) -> bool:
    """Whether a name is the location of a plug-in, ``package.module:name``."""
    return isinstance(name, str) and bool(_PLACE.fullmatch(name)) and not Path(name).exists()


def imported(place: str, kind: str) -> Any:
    """The object at ``package.module:name``; the current folder is searched as well.

    Raises:
      UsageError: the module does not exist, or has no such attribute.
    """
    module, _, attribute = place.partition(":")
    # Like python -m: a user's module is in the folder where the command runs.
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        # One of its own imports may be missing.
        raise UsageError(f"{kind} {place!r}: no module {error.name!r} is found.") from error
    except AttributeError as error:
        raise UsageError(f"{kind} {place!r}: {module} has no {attribute!r}.") from error
