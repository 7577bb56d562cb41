"""The search space: factors, each a setting of a run with its values or its range."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfrobust.config import RunConfig, StageConfig, TrainingConfig, methods
from tfrobust.errors import UsageError
from tfrobust.plugins import Choice, Settings, all_settings
from tfrobust.run import RunFolder
from tfrobust.settings import from_dict, merge, parse_number, to_dict

Value = bool | int | float | str | None
#: Factor name -> value: one combination of all factors.
Point = dict[str, Value]

WEIGHTS = "backbone.weights"
_STAGE = "training.stages.1."
#: Short names of the most common factors -> the setting.
NAMED = {
    "batch_size": "training.batch_size",
    "learning_rate": _STAGE + "learning_rate",
    "epochs": _STAGE + "epochs",
    "blocks": _STAGE + "blocks",
    "weights": WEIGHTS,
    "adv_weight": "training.adv_weight",
    "eps": "threat.eps",
    "steps": "training.steps",
}
# Settings that must be the same for all trials, so that they can be compared.
_FIXED = ("seed", "data.", "evaluation.", "training.select_")
_FREE = ("data.limit_train", "data.augment_with")
_POINTS = 5
_FORM = "NAME=A,B,C or NAME=LOW..HIGH[:log][:POINTS], separated by ';'"


@dataclass(frozen=True)
class Factor:
    """One setting that is varied.

    Attributes:
      name: the user's name for it; a column of the table.
      setting: its path in `RunConfig`; stages are counted from 1.
      values: the points of a grid, in order.
      low: the lower end of a range, or None for a list of values.
      high: the upper end of a range.
      log: whether the range is divided in equal ratios.
      integer: whether only whole numbers are valid.
    """

    name: str
    setting: str
    values: tuple[Value, ...]
    low: float | None = None
    high: float | None = None
    log: bool = False
    integer: bool = False

    @property
    def numeric(self) -> bool:
        """Whether its values are ordered numbers."""
        return all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in self.values)

    @property
    def geometric(self) -> bool:
        """Whether its values are closer to equal ratios than to equal steps."""
        if self.log or not self.numeric:
            return self.log
        values = sorted(typing.cast(list[float], list(self.values)))
        if len(values) < 3 or values[0] <= 0:
            return False
        pairs = list(zip(values, values[1:], strict=False))
        steps, ratios = [b - a for a, b in pairs], [math.log(b / a) for a, b in pairs]
        return max(ratios) / min(ratios) < max(steps) / min(steps)


def parse_space(space: str | Mapping[str, Any]) -> tuple[Factor, ...]:
    """The factors of a space.

    Args:
      space: 'batch_size=32,64;learning_rate=1e-5..1e-3:log:5', or, as in YAML, a mapping from
        each name to a list of values or to a text 'LOW..HIGH[:log][:POINTS]'.

    Raises:
      UsageError: a name is unknown or cannot be searched, or its values are invalid.
    """
    entries = _entries(space) if isinstance(space, str) else dict(space)
    factors = tuple(_factor(str(name), values) for name, values in entries.items())
    if not factors:
        raise UsageError(f"The space is empty: expected {_FORM}.")
    settings = [factor.setting for factor in factors]
    for setting in settings:
        if settings.count(setting) > 1:
            raise UsageError(f"The space names {setting} twice: expected each factor once.")
    return factors


def _entries(text: str) -> dict[str, str]:
    entries: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, equals, values = (piece.strip() for piece in part.partition("="))
        if not (name and equals and values):
            raise UsageError(f"Space: expected {_FORM}, found {part!r}.")
        if name in entries:
            raise UsageError(f"The space names {name} twice: expected each factor once.")
        entries[name] = values
    return entries


def _factor(name: str, values: Any) -> Factor:
    setting, hint = _find(name)
    if isinstance(values, str) and ".." in values and _kind(hint) in (int, float):
        return _range(name, setting, _kind(hint) is int, values)
    given = values.split(",") if isinstance(values, str) else values
    given = given if isinstance(given, list | tuple) else [given]
    found = tuple(_value(name, hint, value) for value in given)
    if len(set(found)) < len(found) or not found:
        raise UsageError(f"{name}: expected different values, found {values!r}.")
    return Factor(name, setting, found, integer=_kind(hint) is int)


def _range(name: str, setting: str, integer: bool, text: str) -> Factor:
    """A factor from 'LOW..HIGH[:log][:POINTS]'."""
    ends, *options = (part.strip() for part in text.split(":"))
    low, high = (_end(name, end, integer) for end in ends.split("..", 1))
    points, log = _POINTS, False
    for option in options:
        if option == "log":
            log = True
        elif option.isdecimal() and int(option) >= 2:
            points = int(option)
        else:
            raise UsageError(f"{name}: expected 'log' or a number of points, found {option!r}.")
    if low >= high or (log and low <= 0):
        raise UsageError(
            f"{name}: expected LOW below HIGH{', both above 0' if log else ''}, found {ends}."
        )
    values = spaced(low, high, points, log=log, integer=integer)
    return Factor(name, setting, values, low, high, log, integer)


def _end(name: str, text: str, integer: bool) -> float:
    try:
        number = parse_number(text)
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from error
    if integer and number != int(number):
        raise UsageError(f"{name}: expected a whole number, found {text!r}.")
    return number


def spaced(
    low: float, high: float, points: int, *, log: bool, integer: bool
) -> tuple[float | int, ...]:
    """`points` values from `low` to `high`, both exact, in equal ratios or equal steps.

    Values in between have four significant digits, or are whole; duplicates are dropped.
    """
    parts = [i / (points - 1) for i in range(points)]
    inner = [low * (high / low) ** p if log else low + (high - low) * p for p in parts[1:-1]]
    values = [low, *(float(f"{value:.4g}") for value in inner), high]
    return tuple(dict.fromkeys(int(round(v)) if integer else v for v in values))


def _value(name: str, hint: Any, value: Any) -> Value:
    """A value of a list, converted to the setting's type."""
    kind, optional = _kind(hint), isinstance(hint, types.UnionType)
    text = str(value).strip()
    if optional and (value is None or text == "none"):
        return None
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        if kind is float:
            return parse_number(text)
        return int(text) if kind is int else text
    except (ValueError, KeyError, UsageError) as error:
        words = {bool: "true or false", int: "a whole number", float: "a number"}
        raise UsageError(f"{name}: expected {words[kind]}, found {text!r}.") from error


def _kind(hint: Any) -> Any:
    options = [h for h in typing.get_args(hint) if h is not type(None)]
    return options[0] if isinstance(hint, types.UnionType) else hint


def searchable() -> dict[str, Any]:
    """Every setting that can be varied -> its type; those of a stage as 'stages.N'."""
    return {
        name: hint
        for name, hint in _settings(RunConfig, "")
        if name in _FREE or not name.startswith(_FIXED)
    }


def _settings(cls: type, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, hint in typing.get_type_hints(cls).items():
        if hint is Choice:
            # Settings of a method are searched under its name in training: training.beta.
            yield prefix + name, str
            yield from ((prefix + key, kind) for key, (kind, _) in all_settings(methods()).items())
        elif hint is Settings:
            continue  # only for users' own networks
        elif dataclasses.is_dataclass(hint):
            yield from _settings(typing.cast(type, hint), f"{prefix}{name}.")
        elif typing.get_origin(hint) is not tuple:
            yield prefix + name, hint
        elif typing.get_args(hint)[0] is StageConfig:
            yield from _settings(StageConfig, f"{prefix}{name}.N.")


def _find(name: str) -> tuple[str, Any]:
    """The setting that a name refers to, and its type."""
    known = searchable()
    setting = NAMED.get(name, name)
    setting = f"training.{setting}" if setting.startswith("stages.") else setting
    general = ".".join("N" if part.isdecimal() and part != "0" else part
                       for part in setting.split("."))  # fmt: skip
    if general in known and "N" not in setting.split("."):
        return setting, known[general]
    alike = [full for full in known if full.rpartition(".")[2] == name and ".N." not in full]
    if len(alike) == 1:
        return alike[0], known[alike[0]]
    if dict(_settings(RunConfig, "")).keys() & {general, f"training.{general}"}:
        raise UsageError(
            f"{name} cannot be searched: it would change the images or the metric by which "
            "trials are compared."
        )
    close = difflib.get_close_matches(name, [*NAMED, *known], n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise UsageError(
        f"Unknown factor {name!r}: expected one of {', '.join(NAMED)}, or a setting by its dotted "
        f"name such as training.momentum or stages.2.epochs.{hint}"
    )


def apply(config: RunConfig, space: tuple[Factor, ...], point: Point) -> RunConfig:
    """The configuration with the values of `point`; weights of a run are its kept model.

    Raises:
      UsageError: a value is out of range, or a short name of a stage's setting is used with a
        recipe of several stages.
    """
    values = to_dict(config)
    for factor in space:
        if factor.name in point:
            level, key = _place(values, factor)
            value = _resolved(factor, point[factor.name])
            level.update(merge({key: level[key]}, {key: value}) if key in level else {key: value})
    values["training"] = _with_method(values["training"])
    changed: RunConfig = from_dict(RunConfig, values, "space")
    return changed


def _with_method(training: dict[str, Any]) -> dict[str, Any]:
    """Merges method settings that were varied into the method's own settings."""
    fields = TrainingConfig.__dataclass_fields__
    varied = {key: value for key, value in training.items() if key not in fields}
    rest = {key: value for key, value in training.items() if key in fields}
    named = Choice.from_plain(rest["method"])
    kept = {key: value for key, value in named.settings.items() if key not in varied}
    return {**rest, **varied, "method": Choice(named.name, kept)}


def base_value(config: RunConfig, factor: Factor) -> Value:
    """The value that a factor has in a configuration.

    Raises:
      UsageError: the configuration has no such stage.
    """
    level, key = _place(to_dict(config), factor)
    if factor.setting == "training.method":
        return config.training.method.name
    # A method's own setting; None if another method has it.
    found = level[key] if key in level else config.training.method.settings.get(key)
    return typing.cast(Value, found)


def _place(values: dict[str, Any], factor: Factor) -> tuple[Any, str]:
    """The mapping that contains a factor's setting, and its key there."""
    stages = len(values["training"]["stages"])
    if factor.name in NAMED and factor.setting.startswith(_STAGE) and stages != 1:
        raise UsageError(
            f"{factor.name}: expected a recipe of one stage, found {stages}: write "
            f"stages.1.{factor.name}, or another stage's number."
        )
    *groups, key = factor.setting.split(".")
    level: Any = values
    for group in groups:
        if group.isdecimal() and int(group) > stages:
            raise UsageError(f"{factor.name}: the recipe has {stages} stages.")
        level = level[int(group) - 1] if group.isdecimal() else level[group]
    return level, key


def _resolved(factor: Factor, value: Value) -> Value:
    if factor.setting != WEIGHTS or value in ("none", "imagenet"):
        return value
    path = Path(str(value)).expanduser()
    file = RunFolder(path).best_model if path.is_dir() else path
    if not file.is_file():
        raise UsageError(
            f"{factor.name}: expected none, imagenet, a run folder or a file of weights, found "
            f"no {file}."
        )
    return str(file)
