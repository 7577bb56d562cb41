"""The plan of a training command's flags, and the defaults that its help shows."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from tfrobust.cli.command import HELP
from tfrobust.cli.flags import format_setting, given_settings
from tfrobust.errors import UsageError
from tfrobust.jobs.plan import SOME_IMAGES, Plan
from tfrobust.jobs.plan import make_plan as plan_of_settings
from tfrobust.training.defaults import choose, chosen_config


def make_plan(args: argparse.Namespace) -> Plan:
    """The plan of a command's recipe and flags.

    Raises:
      UsageError: an unknown recipe or setting, or contradictory settings.
    """
    return plan_of_settings(
        given_settings(args), args.recipe, epochs=args.epochs, learning_rate=args.learning_rate
    )


def help_defaults(
    words: Sequence[str] | None, make_parser: Callable[[], argparse.ArgumentParser]
) -> Callable[[str, str], str] | None:
    """(group, setting) -> the default that --help shows beside these flags.

    This is the value that the run would use: the recipe's, or, for settings chosen by the images,
    'chosen' with the value for some images. None without --help.

    Args:
      words: the command line.
      make_parser: returns a parser of the flags of training.
    """
    if not words or not set(HELP) & set(words):
        return None
    plan = _plan_of(words, make_parser())
    config = plan.config
    fixed = chosen_config(SOME_IMAGES, {}) if plan.chosen else None

    def shown(group: str, name: str) -> str:
        text = format_setting(config, group, name)
        if not text:
            return ""
        return f"chosen, such as {text}" if fixed and _is_chosen(group, name) else text

    return shown


def _is_chosen(group: str, name: str) -> bool:
    values = choose(SOME_IMAGES, {}).values.get(group, {})
    return name in values or name in values.get("method", {})


def _plan_of(words: Sequence[str], parser: argparse.ArgumentParser) -> Plan:
    """The plan of the flags beside --help; if they are invalid, the plan without flags."""
    beside = [word for word in words if word not in HELP]
    try:
        return make_plan(parser.parse_known_args(beside)[0])
    except (SystemExit, UsageError):
        return make_plan(parser.parse_args([]))
