"""What a training will do: a recipe, the user's flags, and what is chosen for the images."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipelines.cli import DEFAULT_RECIPES, given_settings, read_recipe, resolve, show
from tfrobust.attacks.named import check_attacks
from tfrobust.config import RunConfig
from tfrobust.errors import UsageError
from tfrobust.settings import format_eps, from_dict, merge, to_dict
from tfrobust.training.defaults import AUTO, Facts, chosen_config
from tfrobust.training.recipe import check_trainable

if TYPE_CHECKING:
    from tfrobust.data.types import Splits

# Stands for images that have not been read, to check the settings before they are.
_SOME = Facts(side=32, images=4000, classes=10, tested=1000)
# What a data set's recipe says whatever the network: the ball, and how it is measured.
_OF_THE_DATA = ("threat", "evaluation")


@dataclass(frozen=True)
class Plan:
    """The settings of a training before its images are read.

    Attributes:
      config: settled, or, where `chosen`, what it would be for some images.
      given: what the user, or the data set's recipe, has settled, nested as in YAML.
      chosen: whether the rest is chosen for the images.
      epochs: the length that --epochs asks for, if any.
      learning_rate: what --learning-rate asks for, if anything.
    """

    config: RunConfig
    given: dict[str, Any] = field(default_factory=dict)
    chosen: bool = False
    epochs: int | None = None
    learning_rate: float | None = None

    def settle(self, splits: Splits) -> RunConfig:
        """The configuration for these images."""
        if not self.chosen:
            return self.config
        return chosen_config(facts_of(splits), self.given, self.epochs, self.learning_rate)


def make_plan(args: argparse.Namespace) -> Plan:
    """Recipe and flags, checked as far as they can be before the images are read.

    Raises:
      UsageError: an unknown recipe or setting, or settings that do not go together.
    """
    given = given_settings(args)
    lengths = (args.epochs, args.learning_rate)
    if args.epochs is not None and given.get("training", {}).get("time_limit") is not None:
        raise UsageError("--epochs and --time-limit both say when training ends: give one of them.")
    recipe = args.recipe or _default_recipe(given)
    if recipe:
        if given.get("backbone", {}).get("name") == AUTO:
            raise UsageError(
                f"--backbone {AUTO}: the recipe {recipe} has its own network: leave one of the two "
                "out."
            )
        plan = Plan(_with_length(resolve(recipe, given, None), *lengths))
    else:
        given = merge(_of_the_data(given), given)
        plan = Plan(chosen_config(_SOME, given, *lengths), given, True, *lengths)
    check_attacks(plan.config.evaluation)
    check_trainable(plan.config)
    return plan


def _default_recipe(given: dict[str, Any]) -> str | None:
    """The data set's recipe, where it is for the network that is asked for."""
    recipe = DEFAULT_RECIPES.get(given.get("data", {}).get("dataset", "digits"))
    named = given.get("backbone", {}).get("name")
    if recipe is None or named is None:
        return recipe
    return recipe if read_recipe(recipe)["backbone"]["name"] == named else None


def _of_the_data(given: dict[str, Any]) -> dict[str, Any]:
    recipe = DEFAULT_RECIPES.get(given.get("data", {}).get("dataset", "digits"))
    values = read_recipe(recipe) if recipe else {}
    return {name: values[name] for name in _OF_THE_DATA if name in values}


def facts_of(splits: Splits) -> Facts:
    """What `defaults.choose` has to know of the images."""
    train = splits.train
    return Facts(
        side=min(train.image_shape[:2]),
        images=len(train),
        classes=len(train.label_names),
        tested=len(splits.test),
        symbols=all(len(name) == 1 or name.isdecimal() for name in train.label_names),
    )


def _with_length(config: RunConfig, epochs: int | None, learning_rate: float | None) -> RunConfig:
    """A recipe of one stage with another length or learning rate."""
    if epochs is None and learning_rate is None:
        return config
    if len(config.training.stages) != 1:
        raise UsageError(
            f"--epochs and --learning-rate are for a run of one stage, found "
            f"{len(config.training.stages)}: give --stages BLOCKS:EPOCHS:LEARNING_RATE,..."
        )
    stage = to_dict(config)["training"]["stages"][0]
    if epochs and epochs < stage["epochs"]:
        stage["warmup_epochs"] *= epochs / stage["epochs"]
    changes = {"epochs": epochs, "learning_rate": learning_rate}
    stage.update({name: value for name, value in changes.items() if value is not None})
    values = merge(to_dict(config), {"training": {"stages": [stage]}})
    changed: RunConfig = from_dict(RunConfig, values)
    return changed


def shown_in_help(words: Sequence[str] | None) -> Callable[[str, str], str] | None:
    """(group, setting) -> the default that --help shows beside these flags.

    That is what the run would take: the recipe's value, or, where settings are chosen for the
    images, 'chosen' with the value for some images. None where no help is asked for.
    """
    if not words or not {"-h", "--help"} & set(words):
        return None
    plan = _plan_of(words)
    config = plan.config
    fixed = chosen_config(_SOME, {}) if plan.chosen else None

    def shown(group: str, name: str) -> str:
        part = getattr(config, group) if group else config
        own = None if hasattr(part, name) else config.training.method.settings
        if own is not None and name not in own:
            return ""  # of another method: its own default
        value = getattr(part, name) if own is None else own[name]
        if name in ("eps", "sweep"):
            values = value if isinstance(value, tuple) else (value,)
            text = ",".join(format_eps(one, config.threat.norm) for one in values) or "none"
        else:
            text = show(value)
        return f"chosen, such as {text}" if fixed and _is_chosen(group, name) else text

    return shown


def _is_chosen(group: str, name: str) -> bool:
    from tfrobust.training.defaults import choose

    values = choose(_SOME, {}).values.get(group, {})
    return name in values or name in values.get("method", {})


def _plan_of(words: Sequence[str]) -> Plan:
    """The plan that the flags beside --help make; of wrong flags the one without any."""
    from pipelines.train import make_parser

    parser = make_parser()
    beside = [word for word in words if word not in ("-h", "--help")]
    try:
        return make_plan(parser.parse_known_args(beside)[0])
    except (SystemExit, UsageError):
        return make_plan(parser.parse_args([]))
