"""Flags shared by verbs that open a model: its input range, and the subject of the job."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tfrobust.cli.command import HELP, say
from tfrobust.cli.flags import format_setting, given_settings
from tfrobust.cli.parser import Parser
from tfrobust.config import RunConfig
from tfrobust.run import RunFolder, doubt_of_learning

if TYPE_CHECKING:
    from tfrobust.jobs.opening import Subject
    from tfrobust.models.rest import Patience
    from tfrobust.models.views import InputView


def add_intake(parser: argparse.ArgumentParser) -> None:
    """Adds flags that adapt the model and the images to each other."""
    section = parser.add_argument_group("model and image formats")
    add = section.add_argument
    add("--input-range", default=None, metavar="LOW,HIGH",
        help="the model's values for black and white: 0,255 or -1,1 (default: detected from its "
            "first layer, else 0,1)")  # fmt: skip
    add("--input-mean", default=None, metavar="NUMBERS",
        help="mean that the model expects to be subtracted, after the range: one, or one per "
            "channel; 'imagenet' is .485,.456,.406")  # fmt: skip
    add("--input-std", default=None, metavar="NUMBERS",
        help="standard deviation to divide by; 'imagenet' is .229,.224,.225")  # fmt: skip
    add("--class-map", default=None, metavar="DATA=MODEL,...",
        help="maps classes of the images to classes of the model, by name or number")  # fmt: skip


def run_defaults(parser: Parser, words: Sequence[str]) -> Callable[[str, str], str] | None:
    """(group, setting) -> the default that help shows: the named run's, if any.

    None without --help, and for the module's help, which shows the defaults of a bare model.
    """
    if not parser.is_short or not set(HELP) & set(words):
        return None
    runs = [run for run in map(RunFolder, map(Path, words)) if run.config.is_file()]
    config = runs[0].read_config() if runs else RunConfig()

    def shown(group: str, name: str) -> str:
        text = format_setting(config, group, name)
        if runs:
            return text
        return "the run's" if name == "dataset" else f"the run's, or {text}"

    return shown


def view_of(args: argparse.Namespace) -> InputView | None:
    """The input range given by the flags; None without these flags.

    Raises:
      UsageError: a flag's value is not numeric.
    """
    from tfrobust.models.views import IMAGENET, InputView
    from tfrobust.settings import parse_number

    given = [getattr(args, name, None) for name in ("input_range", "input_mean", "input_std")]
    if given == [None] * 3:
        return None
    named: list[tuple[float, ...]] = []
    for text, known in zip(given, ((), *IMAGENET), strict=True):
        if text == "imagenet":
            named.append(known)
        else:
            named.append(tuple(map(parse_number, text.split(","))) if text else ())
    low_high = named[0] or (0.0, 1.0)
    return InputView(low_high, named[1], named[2])  # type: ignore[arg-type]


def patience_of(args: argparse.Namespace) -> Patience | None:
    """The settings in --endpoint for requests to an address; None without the flag.

    Raises:
      UsageError: a setting is unknown or out of range.
    """
    from tfrobust.models.rest import Patience
    from tfrobust.plugins import configured, parse

    given = getattr(args, "endpoint", None)
    if given is None:
        return None
    _, settings = parse(f"endpoint:{given}", {"endpoint"}, "--endpoint")
    made: Patience = configured(Patience, settings, "--endpoint")
    return made


def subject_of(args: argparse.Namespace) -> Subject:
    """The model of a verb, with its images and folder.

    Raises:
      UsageError: there is no such run or model, or a bare model without `--dataset`.
      TFRobustError: model or images cannot be read.
    """
    from tfrobust import jobs
    from tfrobust.runtime import import_quietly

    # The input range is given in tensors: TensorFlow must be silenced by now.
    import_quietly()
    return jobs.open_subject(
        args.model, given_settings(args), output=args.output, view=view_of(args),
        class_map=args.class_map, patience=patience_of(args), tell=say,
    )  # fmt: skip


def warn_of_guessing(path: str) -> None:
    """Warns on standard error if a run's model is no better than guessing."""
    if doubt := doubt_of_learning(Path(path)):
        print(f"Warning: {path}: {doubt}.", file=sys.stderr, flush=True)
