"""A verb of the command line: parsing, work, and an exit code."""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tfrobust.cli.parser import Formatter, Parser
from tfrobust.errors import TFRobustError, UsageError

HELP = ("-h", "--help", "--help-all")


@dataclass(frozen=True)
class Command:
    """One verb.

    `tfrobust VERB --help` shows the common flags, and `--help-all` all of them; as a module
    (`python -m pipelines.VERB`) `--help` shows all of them.

    Attributes:
      name: the verb.
      summary: what it does, in one sentence.
      add_flags: (parser, command line) adds its flags; the command line may change the help.
      work: the function of the parsed flags that does the work.
      common: flags of the short help, in its order.
      brief: flag -> its text in the short help, if it differs from the full help's.
      formatter: of the full help.
      of_module: whether it runs as `python -m pipelines.VERB`.
    """

    name: str
    summary: str
    add_flags: Callable[[Parser, Sequence[str]], None]
    work: Callable[[argparse.Namespace], None]
    common: tuple[str, ...] = ()
    brief: Mapping[str, str] = field(default_factory=dict)
    formatter: Any = Formatter
    of_module: bool = False

    def as_module(self) -> Command:
        """The same verb for `python -m pipelines.VERB`."""
        return dataclasses.replace(self, of_module=True)

    def parser(self, words: Sequence[str] = ()) -> Parser:
        """The parser; its help shows the values that this command line would use."""
        parser = Parser(
            prog=f"python -m pipelines.{self.name}" if self.of_module else f"tfrobust {self.name}",
            description=self.summary, formatter_class=self.formatter, allow_abbrev=False,
            common=None if self.of_module else self.common, brief=self.brief,
        )  # fmt: skip
        parser.add_argument("--debug", action="store_true", help="show the traceback of a failure")
        self.add_flags(parser, words)
        parser.finish()
        return parser

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Parses, works, and returns the exit code."""
        words = _with_negative_numbers(sys.argv[1:] if argv is None else argv)
        return exit_code(self.work, self.parser(words).parse_args(words))


def exit_code(work: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> int:
    """Runs the work and turns errors into exit codes.

    0 is success, 2 is wrong usage, 1 is any other failure, reported in one sentence; `--debug`
    shows the traceback.
    """
    try:
        work(args)
        # A reader that closes the pipe early must not look like a failure.
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _failed("Interrupted.", 1)
    except (TFRobustError, OSError, MemoryError) as error:
        if args.debug:
            raise
        return _failed(_sentence(error), 2 if isinstance(error, UsageError) else 1)
    except Exception as error:
        if args.debug:
            raise
        text = f"{type(error).__name__}: {_sentence(error)}"
        return _failed(f"Unexpected {text} (--debug shows where it came from)", 1)
    return 0


def say(*lines: str) -> None:
    """Prints and flushes, so that pipes see it at once; commands pass it to jobs."""
    print(*lines, sep="\n", flush=True)


def _with_negative_numbers(words: Sequence[str]) -> list[str]:
    """`--flag -1,1` as `--flag=-1,1`, which argparse would otherwise read as another flag."""
    found: list[str] = []
    for word in words:
        if found and re.match(r"-[\d.]+[,/]", word) and re.fullmatch(r"--[a-z-]+", found[-1]):
            found[-1] += f"={word}"
        else:
            found.append(word)
    return found


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _failed(text: str, code: int) -> int:
    print(f"error: {text}", file=sys.stderr)
    return code
