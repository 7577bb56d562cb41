"""A parser with a short and a full help, which suggests corrections of mistyped names."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Mapping, Sequence
from typing import Any

from tfrobust.errors import did_you_mean

# Maximum number of characters of a flag's choices in the short help.
_WIDEST = 40


class Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Help with defaults, on the full width; empty defaults are not shown."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return super()._get_help_string(action) if action.default else action.help


class _HelpAll(argparse.Action):
    """Prints the full help and exits."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(argparse.ArgumentParser.format_help(parser), end="")
        parser.exit()


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose `--help` shows only the common flags.

    Args:
      common: the flags that `--help` shows, in that order; None shows all of them.
      brief: flag -> its text in the short help, if it differs from the full help's.
      options: of `ArgumentParser`.
    """

    def __init__(
        self, *, common: Sequence[str] | None = None, brief: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:  # fmt: skip
        super().__init__(**options)
        self._common, self._brief = common, dict(brief or {})
        self._shown: list[argparse.Action] = []
        shown = argparse.SUPPRESS if common is None else "show every flag, in groups"
        self.add_argument("--help-all", action=_HelpAll, nargs=0, help=shown)

    @property
    def is_short(self) -> bool:
        """Whether `--help` shows only the common flags."""
        return self._common is not None

    def finish(self) -> None:
        """Call after adding all flags: shortens the usage line and checks the common flags.

        Raises:
          KeyError: a common flag is not one of the parser's; a bug.
        """
        if self._common is None:
            return
        needed = [f"{one.option_strings[0]} {_place(one)}" for one in self._actions
                  if one.required and one.option_strings]  # fmt: skip
        places = map(_place, self._given_by_place())
        self.usage = " ".join([self.prog, *needed, "[options]", *places])
        self._shown = [self._compact(flag) for flag in (*self._common, "--help")]

    def _compact(self, flag: str) -> argparse.Action:
        """A copy of a flag for the short help, with one name."""
        action = copy.copy(self._option_string_actions[flag])
        if action.option_strings != ["-h", "--help"]:
            action.option_strings = [flag]
        what, default, rest = (action.help or "").partition(" (default: ")
        names = ", ".join(map(str, action.choices or ()))
        if len(names) > _WIDEST:
            action.metavar, what = "NAME", f"{what}: {names}"
        what = self._brief.get(flag, what)
        action.help = what if "(default: " in what else f"{what}{default}{rest}"
        return action

    def format_help(self) -> str:
        """The text of `--help`."""
        return super().format_help() if self._common is None else self._short_help()

    def _short_help(self) -> str:
        formatter = self.formatter_class(prog=self.prog)
        formatter.add_usage(self.usage, [], [])
        formatter.add_text(self.description)
        for actions in (self._given_by_place(), self._shown):
            formatter.start_section(None)
            formatter.add_arguments(actions)
            formatter.end_section()
        flags = sum(bool(one.option_strings) for one in self._actions)
        formatter.add_text(f"{flags - len(self._shown)} further flags: {self.prog} --help-all")
        return formatter.format_help()

    def _given_by_place(self) -> list[argparse.Action]:
        return [one for one in self._actions if not one.option_strings]

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As the parent's, with a suggestion for each unknown flag."""
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            flags = [word.partition("=")[0] for word in unknown if word.startswith("--")]
            near = "".join(did_you_mean(flag, self._option_string_actions) for flag in flags)
            self.error(f"unrecognized arguments: {' '.join(unknown)}{'.' if near else ''}{near}")
        return found

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            near = did_you_mean(str(value), map(str, action.choices or ()))
            error.message += f".{near}" if near else ""
            raise


def _place(action: argparse.Action) -> str:
    name = action.metavar if isinstance(action.metavar, str) else action.dest
    name = name.upper() if action.option_strings else name
    return f"{name} ..." if action.nargs == "+" else name
