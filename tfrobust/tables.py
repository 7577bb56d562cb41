"""Plug-in tables: a name -> the place of a class or function, imported on first use."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from tfrobust.errors import UsageError


class Table(Mapping[str, Any]):
    """A read-only mapping from a plug-in's name to the plug-in itself.

    Entries are written as ``'package.module:attribute'`` and imported when they
    are first asked for, so that listing names (command-line help) stays fast.

    Args:
      kind: what the entries are, in the singular, for messages ('backbone').
      entries: name -> 'module:attribute'.
    """

    def __init__(self, kind: str, entries: Mapping[str, str]) -> None:
        self.kind = kind
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> Any:
        if name not in self._entries:
            raise UsageError(self._unknown(name))
        module, _, attribute = self._entries[name].partition(":")
        return getattr(importlib.import_module(module), attribute)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def _unknown(self, name: str) -> str:
        close = difflib.get_close_matches(str(name), list(self._entries), n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        return f"Unknown {self.kind} {name!r}: expected one of {', '.join(self)}.{hint}"
