"""Flags made from the configuration, and the settings that are given as flags."""

from __future__ import annotations

import argparse
import dataclasses
import typing
from collections.abc import Callable, Sequence
from typing import Any

from tfrobust.config import RunConfig, StageConfig, parse_stages
from tfrobust.errors import UsageError
from tfrobust.settings import format_eps, parse_number
from tfrobust.tables import is_model_file, is_place


class Names(list[str]):
    """Names of a table, and beside them plug-ins and model files of the user's own."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or is_place(name) or is_model_file(name)


def add_settings(
    parser: argparse.ArgumentParser,
    groups: Sequence[str],
    choices: dict[str, Any],
    shown: Callable[[str, str], str] | None = None,
) -> None:
    """Adds a flag for every setting of the named groups of `RunConfig`.

    Flags that are not given stay out of the namespace, so that a recipe's value, or the
    default, holds.

    Args:
      parser: to add to.
      groups: names of `RunConfig` fields; '' for its own settings.
      choices: flag -> the names that are valid, from the plug-in tables.
      shown: (group, setting) -> the default that the help shows; the dataclasses' if None.
    """
    hints = typing.get_type_hints(RunConfig)
    for group in groups:
        cls = hints[group] if group else RunConfig
        section = parser.add_argument_group(f"{group or 'run'} settings")
        for item in dataclasses.fields(cls):
            if "help" in item.metadata:
                default = shown(group, item.name) if shown else show(_default_of(item))
                hint = typing.get_type_hints(cls)[item.name]
                _add_flag(section, group, item, hint, choices, default)


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
    if hint is bool:
        section.add_argument(*names, action=argparse.BooleanOptionalAction, **kwargs)
        return
    valid = choices.get(flag, item.metadata.get("choices"))
    if valid and typing.get_origin(hint) is not tuple:
        kwargs["choices"] = valid if isinstance(valid, Names) else list(valid)
    else:
        kwargs["metavar"] = flag.upper().replace("-", "_")
    section.add_argument(*names, type=_parser_of(hint), **kwargs)


def shown_setting(config: RunConfig, group: str, name: str) -> str:
    """What a configuration says of a setting, as help shows it: eps in its norm's own unit."""
    value = getattr(getattr(config, group) if group else config, name)
    if name in ("eps", "sweep"):
        values = value if isinstance(value, tuple) else (value,)
        return ",".join(format_eps(one, config.threat.norm) for one in values) or "none"
    return show(value)


def show(default: Any) -> str:
    """A setting's value as the command line takes it."""
    if default is None:
        return "none"
    if isinstance(default, tuple):
        if default and isinstance(default[0], StageConfig):
            return ",".join(f"{s.blocks}:{s.epochs}:{s.learning_rate}" for s in default)
        return ",".join(map(str, default)) or "none"
    return f"{default:.6g}" if isinstance(default, float) else str(default)


def _parser_of(hint: Any) -> Callable[[str], Any]:
    """How a flag's text becomes a value of the setting's type."""
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
    return nested
