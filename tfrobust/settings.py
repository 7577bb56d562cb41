"""The building blocks of a configuration: a checked setting, and conversion to and from YAML."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from dataclasses import field
from pathlib import Path
from typing import Any

import yaml

from tfrobust.errors import UsageError
from tfrobust.io import write_text

#: Settings that are a plug-in with its own settings: a name, or {name: NAME, SETTING: VALUE}.
PLUGINS = ("method",)


def setting(default: Any, help: str, **checks: Any) -> Any:
    """A dataclass field with its help text and checks.

    Args:
      default: the default value; a callable is called for each object.
      help: one line for the command line.
      **checks: `choices`, `low`, `high` (inclusive), `above` (exclusive), `flag` (its name on the
        command line if it differs from the field's) and `alias`.
    """
    metadata = {"help": help, **checks}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def parse_number(text: str) -> float:
    """A number in the user's notation: '8/255', '0.03' or '1e-3'.

    Raises:
      UsageError: it is not a finite number.
    """
    try:
        top, _, bottom = text.partition("/")
        value = float(top) / float(bottom) if bottom else float(text)
    except (ValueError, ZeroDivisionError) as error:
        raise UsageError(f"Expected a number such as 8/255 or 0.03, found {text!r}.") from error
    if not math.isfinite(value):
        raise UsageError(f"Expected a finite number such as 8/255 or 0.03, found {text!r}.")
    return value


def format_eps(eps: float, norm: str = "linf") -> str:
    """eps in the user's notation.

    In linf a fraction of 255 if it is one ('8/255', '0.5/255') and not a short decimal ('0.1', not
    '25.5/255'), in l0 '5 pixels', else a decimal.
    """
    if norm == "l0":
        return f"{eps:g} pixels"
    if norm != "linf" or abs(float(f"{eps:.2g}") - eps) < 1e-9:
        return f"{eps:.6g}"
    levels = eps * 255
    return f"{levels:.4g}/255" if abs(levels * 2 - round(levels * 2)) < 1e-6 else f"{eps:.6g}"


class Checked:
    """Checks every field of a dataclass against its `setting` on construction."""

    def __post_init__(self) -> None:
        for item in dataclasses.fields(typing.cast(Any, self)):
            value = getattr(self, item.name)
            if value is not None:
                _check(item.name, value, item.metadata)


def _check(name: str, value: Any, checks: typing.Mapping[str, Any]) -> None:
    for one in value if isinstance(value, tuple) else (value,):
        if "choices" in checks and one not in checks["choices"]:
            expected = "one of " + ", ".join(map(str, checks["choices"]))
        elif "low" in checks and one < checks["low"]:
            expected = f"at least {checks['low']}"
        elif "above" in checks and one <= checks["above"]:
            expected = f"more than {checks['above']}"
        elif "high" in checks and one > checks["high"]:
            expected = f"at most {checks['high']}"
        else:
            continue
        raise UsageError(f"{name}: expected {expected}, found {one!r}.")


def from_dict(cls: type, values: Any, where: str = "config") -> Any:
    """Builds the dataclass `cls` from nested plain values, as in YAML.

    Raises:
      UsageError: an unknown key, a value of the wrong type or out of range.

    A class may accept further notations: its `folded(values, where)` converts them to the fields.
    A field's type with `from_plain` and `to_plain` reads and writes itself.
    """
    if not isinstance(values, dict):
        raise UsageError(f"{where}: expected settings 'name: value', found {values!r}.")
    hints = typing.get_type_hints(cls)
    if hasattr(cls, "folded"):
        values = cls.folded(values, where)
    for name in values:
        if name not in hints:
            close = difflib.get_close_matches(str(name), hints, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise UsageError(f"{where}: unknown setting {name!r}.{hint}")
    return cls(**{k: _convert(hints[k], v, f"{where}.{k}") for k, v in values.items()})


def _convert(hint: Any, value: Any, where: str) -> Any:
    options = [h for h in typing.get_args(hint) if h is not type(None)]
    if isinstance(hint, types.UnionType):
        return None if value is None else _convert(options[0], value, where)
    if hasattr(hint, "from_plain"):
        return hint.from_plain(value, where)
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(type, hint), value, where)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise UsageError(f"{where}: expected a list, found {value!r}.")
        return tuple(_convert(options[0], one, where) for one in value)
    return _scalar(hint, value, where)


def _scalar(hint: type, value: Any, where: str) -> Any:
    if hint is float and isinstance(value, str):
        return parse_number(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is str and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if type(value) is not hint:
        raise UsageError(f"{where}: expected {hint.__name__}, found {value!r}.")
    return value


def to_dict(config: Any) -> dict[str, Any]:
    """The nested plain values of a config, ready for YAML."""
    return typing.cast(dict[str, Any], _plain(config))


def _plain(value: Any) -> Any:
    if hasattr(value, "to_plain"):
        return _plain(value.to_plain())
    if dataclasses.is_dataclass(value):
        return {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def merge(base: dict[str, Any], override: dict[str, Any]) -> dict[str, Any]:
    """`base` overridden by the values of `override`, dict by dict.

    Settings do not carry over between plug-ins: if the override names another plug-in, those of
    the base are dropped.
    """
    merged = dict(base)
    for key, value in override.items():
        below = merged.get(key)
        if key in PLUGINS and below is not None:
            merged[key] = _merged_plugin(_as_mapping(below), _as_mapping(value))
            continue
        both = isinstance(value, dict) and isinstance(below, dict)
        merged[key] = merge(typing.cast(dict[str, Any], below), value) if both else value
    return merged


def _as_mapping(value: Any) -> dict[str, Any]:
    plain = _plain(value)
    return plain if isinstance(plain, dict) else {"name": plain}


def _merged_plugin(below: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    named = below.get("name"), value.get("name")
    other = None not in named and named[0] != named[1]
    return dict(value) if other else {**below, **value}


def load_yaml(path: Path) -> dict[str, Any]:
    """The settings in a YAML file.

    Raises:
      UsageError: the file is missing or is not a YAML mapping.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"Config {path} cannot be read: {error}.") from error
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise UsageError(f"Config {path} is not valid YAML: {problem}.") from error
    if not isinstance(values, dict):
        raise UsageError(f"Config {path}: expected settings 'name: value', found {values!r}.")
    return values


def save_yaml(config: Any, path: Path) -> None:
    """Writes the resolved config; running it again gives the same run.

    Raises:
      TFRobustError: the file cannot be written.
    """
    write_text(path, yaml.safe_dump(to_dict(config), sort_keys=False))
