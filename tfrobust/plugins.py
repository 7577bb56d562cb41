"""Plug-ins with their settings, in the user's notation, in one place for every kind.

On the command line ``trades:beta=6``, ``pgd:steps=50:restarts=5`` or ``smoothgrad:samples=50``
(further settings may follow a comma); in YAML ``trades`` or ``{name: trades, beta: 6}``. A plug-in
is a frozen dataclass: its fields are its settings, with their types, defaults and ranges. A
plain function is wrapped as one by `as_dataclass`.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tfrobust.errors import UsageError
from tfrobust.settings import parse_number
from tfrobust.tables import Table, is_model_file, is_place

_SCALARS = (bool, int, float, str)
_WORDS = {bool: "true or false", int: "a whole number", float: "a number such as 8/255"}


@dataclass(frozen=True)
class Choice:
    """The name of a plug-in, and its settings as far as they are given.

    Attributes:
      name: in the plug-in's table; '' if only settings are given.
      settings: name -> value.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_plain(cls, value: Any, where: str = "") -> Choice:
        """A name, 'name:key=value', or a mapping with 'name', as in YAML.

        Raises:
          UsageError: the value has another form.
        """
        if isinstance(value, Choice):
            return value
        if isinstance(value, str):
            return cls(*parse(value, what=where or "plug-in"))
        if not isinstance(value, Mapping) or not isinstance(value.get("name", ""), str):
            raise UsageError(
                f"{where}: expected a name, or {{name: NAME, SETTING: VALUE}}, found {value!r}."
            )
        return cls(value.get("name", ""), {str(k): v for k, v in value.items() if k != "name"})

    def to_plain(self) -> str | dict[str, Any]:
        """The YAML form: only the name if there are no settings."""
        named = {"name": self.name} if self.name else {}
        return {**named, **self.settings} if self.settings or not named else self.name

    def __str__(self) -> str:
        pairs = [f"{key}={shown(value)}" for key, value in self.settings.items()]
        return ":".join([self.name, *pairs])

    def __hash__(self) -> int:
        return hash(str(self))


class Settings(dict[str, Any]):
    """Settings that only some plug-ins have, name -> value; a field of a configuration."""

    @classmethod
    def from_plain(cls, value: Any, where: str = "") -> Settings:
        """A mapping, as in YAML.

        Raises:
          UsageError: the value is not a mapping.
        """
        if not isinstance(value, Mapping):
            raise UsageError(f"{where}: expected settings 'name: value', found {value!r}.")
        return cls(value)

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(str(self))


def shown(value: Any) -> str:
    """A setting's value in command-line syntax."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def split(text: str) -> list[str]:
    """Comma-separated plug-ins; a part ``key=value`` is a setting of the previous one.

    Example: ``'smoothgrad:samples=50,noise=0.1,gradcam'`` are two.
    """
    found: list[str] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        if found and re.match(r"[^:=]+=", part):
            found[-1] += f":{part}"
        else:
            found.append(part)
    return found


def parse(
    text: str, known: Container[str] = (), what: str = "plug-in"
) -> tuple[str, dict[str, str]]:
    """The name and the settings, as text, of ``name:key=value:key=value``.

    Args:
      text: the command-line form; the name may be the location ``package.module:name`` of a
        user's plug-in, or the path of a model file.
      known: names that are not modules.
      what: for the message: the flag, or the kind of plug-in.

    Raises:
      UsageError: a setting is not KEY=VALUE, or is given twice with different values.
    """
    text = text.strip()
    if is_model_file(text) or (":" not in text and "," not in text):
        return text, {}
    name, *parts = re.split("[:,]", text)
    # A user's plug-in, given by its location in a module.
    if parts and "=" not in parts[0] and name not in known and is_place(f"{name}:{parts[0]}"):
        name = f"{name}:{parts.pop(0)}"
    pairs = [(key.strip(), value.strip()) for key, _, value in (p.partition("=") for p in parts)]
    if not name or not all(key and value for key, value in pairs):
        raise UsageError(f"{what}: expected NAME or NAME:SETTING=VALUE, found {text!r}.")
    for key, value in pairs:
        if dict(pairs)[key] != value:
            raise UsageError(f"{what}: {key} is given twice in {text!r}: expected it once.")
    return name, dict(pairs)


def settings_of(plugin: Any) -> dict[str, Any]:
    """The settings of a plug-in, name -> type: its fields of type number, text and bool.

    Args:
      plugin: a dataclass, an instance of one, or a function without arguments that returns one.
    """
    cls = _class_of(plugin)
    hints = typing.get_type_hints(cls)
    return {
        item.name: hints[item.name]
        for item in dataclasses.fields(cls)
        if item.init and not item.metadata.get("shared") and _kind(hints[item.name]) in _SCALARS
    }


def values_of(plugin: Any) -> dict[str, Any]:
    """The settings of an object, name -> value."""
    return {name: getattr(plugin, name) for name in settings_of(plugin)}


def configured(plugin: Any, settings: Mapping[str, Any], what: str) -> Any:
    """A plug-in with some of its settings, given as text or values.

    Args:
      plugin: as in `settings_of`.
      settings: name -> value; all others keep their defaults.
      what: its name in messages, such as 'Attack pgd'.

    Raises:
      UsageError: a setting is unknown, or its value is of the wrong type or out of range.
    """
    made = _object_of(plugin)
    values = typed(plugin, settings, what)
    return dataclasses.replace(made, **values) if values else made


def typed(plugin: Any, settings: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Settings with their values converted to the types of the plug-in's fields.

    Raises:
      UsageError: a setting is unknown, or its value is of the wrong type.
    """
    known = settings_of(plugin)
    for key in settings:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            expected = ", ".join(known) or "none"
            raise UsageError(f"{what}: unknown setting {key!r}: expected {expected}.{hint}")
    return {key: from_text(known[key], value, f"{what}: {key}") for key, value in settings.items()}


def differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """The names that both have with different values: '6' and 6.0 are equal."""
    return [key for key in first if key in second and not _same(first[key], second[key])]


def _same(one: Any, other: Any) -> bool:
    if one == other:
        return True
    try:
        return parse_number(str(one)) == parse_number(str(other))
    except UsageError:
        return str(one).lower() == str(other).lower()


def _kind(hint: Any) -> Any:
    """The type of a setting, ignoring None."""
    options = [each for each in typing.get_args(hint) if each is not type(None)]
    optional = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
    return options[0] if optional else hint


def from_text(hint: Any, value: Any, what: str) -> Any:
    """A value of a type, from its text on the command line or its value in YAML.

    Raises:
      UsageError: it has another type.
    """
    kind = _kind(hint)
    if (value is None or value == "none") and kind is not hint:
        return None
    if kind is str and isinstance(value, str):
        return value
    found = _from_text(kind, value) if isinstance(value, str) else value
    if kind is float and type(found) is int:
        found = float(found)
    if type(found) is not kind:
        raise UsageError(f"{what}: expected {_WORDS.get(kind, 'a text')}, found {value!r}.")
    return found


def _from_text(kind: Any, text: str) -> Any:
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower())
    try:
        number = parse_number(text)
    except UsageError:
        return text  # reported with the setting's name
    return int(number) if kind is int and number == int(number) else number


def _class_of(plugin: Any) -> type:
    return plugin if isinstance(plugin, type) else type(_object_of(plugin))


def _object_of(plugin: Any) -> Any:
    """The plug-in itself, or an instance of its class, or its factory's result."""
    whole = dataclasses.is_dataclass(plugin) and not isinstance(plugin, type)
    return plugin if whole else plugin()


@functools.cache
def as_dataclass(function: Callable[..., Any], base: type = object) -> type:
    """A function as a frozen dataclass: its keyword-only arguments are the settings.

    Args:
      function: all keyword-only arguments have defaults.
      base: base class of the dataclass.

    Returns:
      The class; its instances are called like the function, without these arguments.
    """
    hints = typing.get_type_hints(function)
    fields = [
        (one.name, hints.get(one.name, type(one.default)), field(default=one.default))
        for one in inspect.signature(function).parameters.values()
        if one.kind is inspect.Parameter.KEYWORD_ONLY and one.default is not one.empty
    ]

    def call(self: Any, *args: Any) -> Any:
        return function(*args, **{name: getattr(self, name) for name, *_ in fields})

    space = {"__call__": call, "__doc__": function.__doc__}
    name = getattr(function, "__name__", "Function")
    return dataclasses.make_dataclass(
        name, fields, bases=(base,), namespace=space, frozen=True, kw_only=True,
    )  # fmt: skip


def all_settings(table: Table) -> dict[str, tuple[Any, dataclasses.Field[Any]]]:
    """The settings of all plug-ins of the project: name -> (type, field).

    If several have a setting of the same name, the first one's.
    """
    found: dict[str, tuple[Any, dataclasses.Field[Any]]] = {}
    for name in table.built_in:
        cls = _class_of(table[name])
        items = {item.name: item for item in dataclasses.fields(cls)}
        for key, hint in settings_of(cls).items():
            found.setdefault(key, (hint, items[key]))
    return found


def takers(table: Table, setting: str) -> list[str]:
    """The names of the project's own plug-ins that have a setting."""
    return [name for name in table.built_in if setting in settings_of(table[name])]


def choice_of(text: str, table: Table, what: str) -> Choice:
    """A plug-in given on the command line, validated: it exists and has these settings.

    Raises:
      UsageError: it is unknown, or a value has the wrong type or is out of range.
    """
    name, settings = parse(text, table, what)
    made = configured(table[name], settings, f"{table.kind} {name}")
    return Choice(name, {key: getattr(made, key) for key in settings})


def chosen(texts: Iterable[str], table: Table, what: str) -> dict[str, Any]:
    """Several plug-ins with their settings: the text of each -> the plug-in.

    Raises:
      UsageError: as in `choice_of`.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, settings = parse(text, table, what)
        found[str(Choice(name, settings))] = configured(
            table[name], settings, f"{table.kind} {name}"
        )
    return found
