"""What all verbs share: flags made from the configuration, recipes, and exit codes."""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tfrobust.config import (
    BackboneConfig,
    RunConfig,
    StageConfig,
    TrainingConfig,
    folded_method,
    parse_stages,
)
from tfrobust.errors import TFRobustError, UsageError
from tfrobust.plugins import Choice, all_settings, choice_of, parse, takers
from tfrobust.run import doubt_of_learning
from tfrobust.settings import from_dict, load_yaml, merge, parse_number, to_dict
from tfrobust.tables import Table, imported, is_model_file, is_place

RECIPES = Path(__file__).with_name("recipes")
# What a data set is trained with where no recipe is named; for others settings are chosen.
DEFAULT_RECIPES = {"digits": "digits", "tiny_imagenet": "tiny_imagenet"}


class Names(list[str]):
    """Names of a table, and beside them plug-ins and model files of the user's own."""

    def __contains__(self, name: object) -> bool:
        if isinstance(name, str):
            name, _ = parse(name, list(self))
        return super().__contains__(name) or is_place(name) or is_model_file(name)


class Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Help with defaults, on the whole width; that nothing is given needs no saying."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return super()._get_help_string(action) if action.default else action.help


def main_of(
    work: Callable[[argparse.Namespace], None],
    parser: argparse.ArgumentParser | Callable[[Sequence[str]], argparse.ArgumentParser],
) -> Any:
    """The entry point of a verb: parse, work, turn errors into exit codes.

    A parser whose help depends on the flags beside --help is given as its maker.

    0 is success only, 2 is wrong use, 1 is a failure told in one sentence; `--debug`
    shows the traceback.
    """

    def main(argv: Sequence[str] | None = None) -> int:
        words = _with_negative_numbers(sys.argv[1:] if argv is None else argv)
        made = parser if isinstance(parser, argparse.ArgumentParser) else parser(words)
        args = made.parse_args(words)
        try:
            work(args)
            # A reader that closed the pipe early must not look like a failure of ours.
            sys.stdout.flush()
        except KeyboardInterrupt:
            return _tell("Interrupted.", 1)
        except (TFRobustError, OSError, MemoryError) as error:
            if args.debug:
                raise
            return _tell(_sentence(error), 2 if isinstance(error, UsageError) else 1)
        except Exception as error:
            if args.debug:
                raise
            text = f"{type(error).__name__}: {_sentence(error)}"
            return _tell(f"Unexpected {text} (--debug shows where it came from)", 1)
        return 0

    return main


def _with_negative_numbers(words: Sequence[str]) -> list[str]:
    """`--flag -1,1` as `--flag=-1,1`, which argparse would take for another flag."""
    found: list[str] = []
    for word in words:
        if found and re.match(r"-[\d.]+[,/]", word) and re.fullmatch(r"--[a-z-]+", found[-1]):
            found[-1] += f"={word}"
        else:
            found.append(word)
    return found


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _tell(text: str, code: int) -> int:
    print(f"error: {text}" if code else text, file=sys.stderr)
    return code


def warn_of_guessing(path: str) -> None:
    """Says on standard error that a run's model is no better than guessing, where it is."""
    if doubt := doubt_of_learning(Path(path)):
        print(f"Warning: {path}: {doubt}.", file=sys.stderr, flush=True)


def new_parser(verb: str, description: str) -> argparse.ArgumentParser:
    """A parser with what every verb has."""
    parser = argparse.ArgumentParser(
        prog=f"python -m pipelines.{verb}", description=description, formatter_class=Formatter,
        allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("--debug", action="store_true", help="show the traceback of a failure")
    return parser


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
                if hint is Choice:
                    _add_flags_of_plugins(parser, group, item, shown)


def _add_flags_of_plugins(
    parser: argparse.ArgumentParser, group: str, item: Any,
    shown: Callable[[str, str], str] | None,
) -> None:  # fmt: skip
    """A flag for each setting of the plug-ins of a table: --beta 6 is --method trades:beta=6."""
    table: Table = imported(item.metadata["table"], "table")
    section = parser.add_argument_group(f"settings of a {table.kind}")
    for name, (hint, one) in all_settings(table).items():
        if "help" not in one.metadata:
            continue
        default = (shown(group, name) if shown else "") or show(_default_of(one))
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


def show(default: Any) -> str:
    """A setting's value as the command line takes it."""
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
    if "training" in nested:
        nested["training"] = _with_method(nested["training"])
    if "backbone" in nested:
        nested["backbone"] = BackboneConfig.folded(nested["backbone"], "flags")
    return nested


def _with_method(training: dict[str, Any]) -> dict[str, Any]:
    """--method trades --beta 6 as --method trades:beta=6.

    Raises:
      UsageError: a setting is given in both ways, with other values.
    """
    choice = folded_method(training, "flags")
    fields = TrainingConfig.__dataclass_fields__
    rest = {key: value for key, value in training.items() if key in fields and key != "method"}
    return {**rest, "method": choice} if choice.name or choice.settings else rest


def recipe_names() -> list[str]:
    """The recipes that come with the project."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def resolve(recipe: str | None, given: dict[str, Any], default_recipe: str | None) -> RunConfig:
    """Recipe, with the given flags laid over it, checked.

    Args:
      recipe: a recipe's name or a YAML file; None takes `default_recipe`.
      given: settings from flags.
      default_recipe: what the data set suggests, or None for the bare defaults.

    Raises:
      UsageError: an unknown recipe or setting.
    """
    name = recipe or default_recipe
    values = read_recipe(name) if name else {}
    # How to search around a recipe is for pipelines.search.
    values.pop("search", None)
    config: RunConfig = from_dict(RunConfig, merge(values, given), name or "flags")
    return config


def read_recipe(name: str) -> dict[str, Any]:
    """The plain values of a recipe: its name, or a YAML file.

    Raises:
      UsageError: there is no such recipe, or it is not a YAML mapping.
    """
    values = load_yaml(_recipe_path(name))
    if isinstance(values.get("training"), dict):
        values["training"] = TrainingConfig.folded(values["training"], f"{name}: training")
    if isinstance(values.get("backbone"), dict):
        values["backbone"] = BackboneConfig.folded(values["backbone"], f"{name}: backbone")
    return values


def _recipe_path(name: str) -> Path:
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return path
    named = RECIPES / f"{name}.yaml"
    if not named.is_file():
        raise UsageError(
            f"Recipe {name!r}: expected one of {', '.join(recipe_names())}, or a YAML file."
        )
    return named


def with_changes(config: RunConfig, given: dict[str, Any]) -> RunConfig:
    """A run's configuration with the given flags laid over it."""
    changed: RunConfig = from_dict(RunConfig, merge(to_dict(config), given), "flags")
    return changed
