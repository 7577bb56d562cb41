"""The plan of a training: a recipe, the user's settings, and choices for the images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tfrobust.attacks.named import check_attacks
from tfrobust.config import RunConfig
from tfrobust.errors import UsageError
from tfrobust.jobs.recipes import DEFAULT_RECIPES, read_recipe, settled
from tfrobust.settings import from_dict, merge, to_dict
from tfrobust.tables import names_model_file
from tfrobust.training.defaults import AUTO, Facts, chosen_config
from tfrobust.training.from_config import check_trainable

if TYPE_CHECKING:
    from tfrobust.data.types import Splits

# Typical images, to check the settings before any are read.
SOME_IMAGES = Facts(side=32, images=4000, classes=10, tested=1000)
# The parts of a data set's recipe that hold for any network: the ball and the evaluation.
_OF_THE_DATA = ("threat", "evaluation")


@dataclass(frozen=True)
class Asked:
    """The settings that a user gave explicitly; a resumed run must have the same.

    Attributes:
      settings: of the named recipe, overridden by those given.
      length: whether epochs or a learning rate were given for the whole training.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    length: bool = False


@dataclass(frozen=True)
class Plan:
    """The settings of a training before its images are read.

    Attributes:
      config: final, or, if `chosen`, that for typical images.
      given: settings of the user, or of the data set's recipe, nested as in YAML.
      chosen: whether the other settings are chosen for the images.
      epochs: of --epochs, if given.
      learning_rate: of --learning-rate, if given.
      asked: the settings given explicitly.
    """

    config: RunConfig
    given: dict[str, Any] = field(default_factory=dict)
    chosen: bool = False
    epochs: int | None = None
    learning_rate: float | None = None
    asked: Asked = field(default_factory=Asked, compare=False)

    def settle(self, splits: Splits) -> RunConfig:
        """The configuration for these images."""
        if not self.chosen:
            return self.config
        return chosen_config(facts_of(splits), self.given, self.epochs, self.learning_rate)


def make_plan(
    settings: Mapping[str, Any] | None = None,
    recipe: str | None = None,
    *,
    epochs: int | None = None,
    learning_rate: float | None = None,
) -> Plan:
    """Recipe and settings, checked as far as they can be before the images are read.

    Args:
      settings: override the recipe's, nested as in YAML: ``{"training": {"method": "trades"}}``.
      recipe: a recipe's name or a YAML file; None takes that of the data set, if it has one, or
        else chooses settings for the images.
      epochs: of the training; None is those of the stages.
      learning_rate: the maximum; None is that of the stages.

    Raises:
      UsageError: an unknown recipe or setting, or settings that do not go together.
    """
    given = dict(settings or {})
    lengths = (epochs, learning_rate)
    if epochs is not None and given.get("training", {}).get("time_limit") is not None:
        raise UsageError("--epochs and --time-limit both end the training: give only one of them.")
    name = recipe or _default_recipe(given)
    values = read_recipe(name) if name else {}
    named = values if recipe else {}
    named = {name: value for name, value in named.items() if name not in ("search", "chosen")}
    asked = Asked(merge(named, given), lengths != (None, None))
    if name:
        if given.get("backbone", {}).get("name") == AUTO:
            raise UsageError(
                f"--backbone {AUTO}: the recipe {name} has its own network: omit one of them."
            )
        plan = Plan(_with_length(settled(values, given, name), *lengths), asked=asked)
    else:
        given = merge(_of_the_data(given), given)
        plan = Plan(chosen_config(SOME_IMAGES, given, *lengths), given, True, *lengths, asked)
    _check_backbone(plan.config.backbone.name)
    check_attacks(plan.config.evaluation)
    check_trainable(plan.config)
    return plan


def _check_backbone(name: str) -> None:
    """Rejects a model file that does not exist, before any image is read.

    Raises:
      UsageError: there is no such file.
    """
    if names_model_file(name):
        from tfrobust.backbones import BACKBONES

        # The table raises the error; whether the file can be read is seen when it is built.
        _ = BACKBONES[name]


def _default_recipe(given: dict[str, Any]) -> str | None:
    """The data set's recipe, if it is for the given network."""
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
    """The facts on which choices for the images depend."""
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


def as_plan(plan: Plan | RunConfig) -> Plan:
    """The plan itself, or that of a configuration, as if all of it was given explicitly."""
    if isinstance(plan, Plan):
        return plan
    check_attacks(plan.evaluation)
    check_trainable(plan)
    return Plan(plan, asked=Asked(to_dict(plan)))
