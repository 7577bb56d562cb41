"""A parser with a short help and a whole one, which suggests the nearest of what was mistyped."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from tfrobust.errors import did_you_mean


class Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Help with defaults, on the whole width; that nothing is given needs no saying."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return super()._get_help_string(action) if action.default else action.help


class _HelpAll(argparse.Action):
    """Prints the whole help and ends."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(argparse.ArgumentParser.format_help(parser), end="")
        parser.exit()


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose `--help` shows the common flags alone.

    Args:
      common: the flags that `--help` shows, in that order; None shows all of them.
      options: of `ArgumentParser`.
    """

    def __init__(self, *, common: Sequence[str] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._common, self._shown = common, list[argparse.Action]()
        told = argparse.SUPPRESS if common is None else "show every flag, in groups"
        self.add_argument("--help-all", action=_HelpAll, nargs=0, help=told)

    def settle(self) -> None:
        """Ends the adding of flags: usage becomes short where the help is, common flags are known.

        Raises:
          KeyError: a common flag is none of the parser's, a mistake of ours.
        """
        if self._common is not None:
            self.usage = " ".join([self.prog, "[options]", *map(_place, self._positionals_added)])
            self._shown = [self._option_string_actions[flag] for flag in (*self._common, "--help")]

    def format_help(self) -> str:
        """The text of `--help`."""
        return super().format_help() if self._common is None else self._short_help()

    def _short_help(self) -> str:
        formatter = self.formatter_class(prog=self.prog)
        formatter.add_usage(self.usage, [], [])
        formatter.add_text(self.description)
        for actions in (self._positionals_added, self._shown):
            formatter.start_section(None)
            formatter.add_arguments(actions)
            formatter.end_section()
        flags = sum(bool(one.option_strings) for one in self._actions)
        formatter.add_text(f"{flags - len(self._shown)} further flags: {self.prog} --help-all")
        return formatter.format_help()

    @property
    def _positionals_added(self) -> list[argparse.Action]:
        return [one for one in self._actions if not one.option_strings]

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As the parent's, with a suggestion for each unknown flag."""
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            flags = [word.partition("=")[0] for word in unknown if word.startswith("--")]
            near = "".join(did_you_mean(flag, self._option_string_actions) for flag in flags)
            self.error(f"unrecognized arguments: {' '.join(unknown)}.{near}")
        return found

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            error.message += f".{did_you_mean(str(value), map(str, action.choices or ()))}"
            raise


def _place(action: argparse.Action) -> str:
    name = action.metavar if isinstance(action.metavar, str) else action.dest
    return f"{name} ..." if action.nargs == "+" else name
