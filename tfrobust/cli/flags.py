"""Flags generated from the configuration, and the settings given as flags."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any

from tfrobust.config import (
    BackboneConfig,
    RunConfig,
    StageConfig,
    TrainingConfig,
    folded_method,
    parse_stages,
)
from tfrobust.errors import UsageError
from tfrobust.plugins import Choice, all_settings, choice_of, parse, takers
from tfrobust.settings import format_eps, parse_number
from tfrobust.tables import Table, imported, is_place, names_model_file


class Names(list[str]):
    """Names of a table; also accepts users' own plug-ins and model files."""

    def __contains__(self, name: object) -> bool:
        if isinstance(name, str):
            name, _ = parse(name, list(self))
        return super().__contains__(name) or is_place(name) or names_model_file(name)


def add_settings(
    parser: argparse.ArgumentParser,
    groups: Sequence[str],
    choices: dict[str, Any],
    shown: Callable[[str, str], str] | None = None,
) -> None:
    """Adds a flag for every setting of the named groups of `RunConfig`.

    Flags that are not given stay out of the namespace, so that the recipe's value or the default
    applies.

    Args:
      parser: to add the flags to.
      groups: names of `RunConfig` fields; '' for its own settings.
      choices: flag -> its valid names, from the plug-in tables.
      shown: (group, setting) -> the default that the help shows; None shows the dataclasses'.
    """
    hints = typing.get_type_hints(RunConfig)
    shown = shown or of_dataclasses()
    for group in groups:
        cls = hints[group] if group else RunConfig
        section = parser.add_argument_group(f"{group or 'run'} settings")
        for item in dataclasses.fields(cls):
            if "help" in item.metadata:
                default = shown(group, item.name)
                hint = typing.get_type_hints(cls)[item.name]
                _add_flag(section, group, item, hint, choices, default)
                if hint is Choice:
                    _add_flags_of_plugins(parser, group, item, shown)


def add_setting(
    parser: argparse.ArgumentParser, group: str, name: str,
    shown: Callable[[str, str], str] | None = None,
) -> None:  # fmt: skip
    """Adds the flag of one setting; otherwise as in `add_settings`.

    Args:
      parser: to add the flag to.
      group: a name of a `RunConfig` field.
      name: a setting of that group.
      shown: as in `add_settings`.
    """
    cls = typing.get_type_hints(RunConfig)[group]
    item = cls.__dataclass_fields__[name]
    default = (shown or of_dataclasses())(group, name)
    _add_flag(parser, group, item, typing.get_type_hints(cls)[name], {}, default)


def _add_flags_of_plugins(
    parser: argparse.ArgumentParser, group: str, item: Any,
    shown: Callable[[str, str], str],
) -> None:  # fmt: skip
    """A flag for each setting of a table's plug-ins: --beta 6 is --method trades:beta=6."""
    table: Table = imported(item.metadata["table"], "table")
    section = parser.add_argument_group(f"settings of a {table.kind}")
    for name, (hint, one) in all_settings(table).items():
        if "help" not in one.metadata:
            continue
        default = shown(group, name) or show(_default_of(one))
        whose = ", ".join(takers(table, name))
        checks = {**one.metadata, "help": f"{whose}: {one.metadata['help']}"}
        named = types.SimpleNamespace(name=name, metadata=checks)
        _add_flag(section, group, named, hint, {}, default)


def _default_of(item: Any) -> Any:
    return item.default if item.default is not dataclasses.MISSING else item.default_factory()


def _add_flag(
    section: Any, group: str, item: Any, hint: Any, choices: dict[str, Any], default: str
) -> None:
    flag = item.metadata.get("flag", item.name.replace("_", "-"))
    names = [f"--{name}" for name in (flag, item.metadata.get("alias")) if name]
    kwargs: dict[str, Any] = {
        "dest": f"set:{group}.{item.name}" if group else f"set:{item.name}",
        "default": argparse.SUPPRESS,
        "help": f"{item.metadata['help']} (default: {default})".replace("%", "%%"),
    }
    if hint is bool and "or_path" in item.metadata:
        beside = f"set:{group}.{item.metadata['or_path']}"
        section.add_argument(
            *names, f"--no-{flag}", nargs="?", metavar="DIR", action=_OnOffOrPath, beside=beside,
            **kwargs,
        )  # fmt: skip
        return
    if hint is bool:
        section.add_argument(*names, action=argparse.BooleanOptionalAction, **kwargs)
        return
    if hint is Choice:
        table: Table = imported(item.metadata["table"], "table")
        kwargs["help"] = kwargs["help"].replace(" (default", f": {', '.join(table)} (default")
        parse = _usage(lambda text: choice_of(text, table, names[0]))
        section.add_argument(*names, type=parse, metavar="NAME[:SETTING=VALUE]", **kwargs)
        return
    valid = choices.get(flag, item.metadata.get("choices"))
    if valid and typing.get_origin(hint) is not tuple:
        kwargs["choices"] = valid if isinstance(valid, Names) else list(valid)
    else:
        kwargs["metavar"] = flag.upper().replace("-", "_")
    section.add_argument(*names, type=_parser_of(hint), **kwargs)


class _OnOffOrPath(argparse.Action):
    """--NAME, --no-NAME, or --NAME DIR, which sets another setting as well."""

    def __init__(self, *args: Any, beside: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.beside = beside

    def __call__(
        self, parser: Any, namespace: Any, values: Any, option_string: str | None = None
    ) -> None:
        """Sets both settings."""
        is_on = not str(option_string).startswith("--no-")
        if values is not None and not is_on:
            parser.error(f"argument {option_string}: expected no value after it, found {values!r}")
        setattr(namespace, self.dest, is_on)
        setattr(namespace, self.beside, values)


def format_setting(config: RunConfig, group: str, name: str) -> str:
    """A setting's value in a configuration, as help shows it: eps in its norm's own unit.

    Empty for a setting that belongs to another method.
    """
    part = getattr(config, group) if group else config
    own = None if hasattr(part, name) else config.training.method.settings
    if own is not None and name not in own:
        return ""
    value = getattr(part, name) if own is None else own[name]
    if name in ("eps", "sweep"):
        values = value if isinstance(value, tuple) else (value,)
        return ",".join(format_eps(one, config.threat.norm) for one in values) or "none"
    return show(value)


def of_dataclasses() -> Callable[[str, str], str]:
    """(group, setting) -> the default of the dataclasses, as help shows it."""
    return functools.partial(format_setting, RunConfig())


def show(default: Any) -> str:
    """A setting's value in command-line syntax."""
    if default is None:
        return "none"
    if isinstance(default, tuple):
        if default and isinstance(default[0], StageConfig):
            return ",".join(f"{s.blocks}:{s.epochs}:{s.learning_rate}" for s in default)
        return ",".join(map(str, default)) or "none"
    if isinstance(default, Choice):
        return default.name
    return f"{default:.6g}" if isinstance(default, float) else str(default)


def _parser_of(hint: Any) -> Callable[[str], Any]:
    """The conversion of a flag's text to the setting's type."""
    if typing.get_origin(hint) is tuple:
        inner = typing.get_args(hint)[0]
        if inner is StageConfig:
            return _usage(lambda text: [dataclasses.asdict(s) for s in parse_stages(text)])
        return _usage(lambda text: [_parser_of(inner)(part) for part in _parts(text)])
    options = [h for h in typing.get_args(hint) if h is not type(None)]
    kind = options[0] if options else hint
    return _usage(parse_number) if kind is float else typing.cast(Callable[[str], Any], kind)


def _parts(text: str) -> list[str]:
    return [] if text == "none" else text.split(",")


def _usage(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    def checked(text: str) -> Any:
        try:
            return parse(text)
        except UsageError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return checked


def given_settings(args: argparse.Namespace) -> dict[str, Any]:
    """The settings given as flags, nested as in YAML."""
    nested: dict[str, Any] = {}
    for dest, value in vars(args).items():
        if dest.startswith("set:"):
            *groups, name = dest.removeprefix("set:").split(".")
            level = nested
            for group in groups:
                level = level.setdefault(group, {})
            level[name] = value
    if "training" in nested:
        nested["training"] = _with_method(nested["training"])
    if "backbone" in nested:
        nested["backbone"] = BackboneConfig.folded(nested["backbone"], "flags")
    return nested


def _with_method(training: dict[str, Any]) -> dict[str, Any]:
    """--method trades --beta 6 as --method trades:beta=6.

    Raises:
      UsageError: a setting is given in both ways, with different values.
    """
    choice = folded_method(training, "flags")
    fields = TrainingConfig.__dataclass_fields__
    rest = {key: value for key, value in training.items() if key in fields and key != "method"}
    return {**rest, "method": choice} if choice.name or choice.settings else rest
