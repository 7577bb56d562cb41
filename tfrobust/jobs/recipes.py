"""Recipes: settings by name or in a YAML file, and how further settings override them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfrobust.config import BackboneConfig, RunConfig, TrainingConfig
from tfrobust.errors import UsageError, did_you_mean
from tfrobust.settings import from_dict, load_yaml, merge, to_dict

# They are in the package next to this one, in a checkout and when installed.
RECIPES = Path(__file__).resolve().parents[2] / "pipelines" / "recipes"
# What a data set is trained with where no recipe is named; for others settings are chosen.
DEFAULT_RECIPES = {"digits": "digits", "tiny_imagenet": "tiny_imagenet"}


def recipe_names() -> list[str]:
    """The recipes that come with the project."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def resolve(
    recipe: str | None, given: Mapping[str, Any], default_recipe: str | None = None
) -> RunConfig:
    """Recipe, with the given settings laid over it, checked.

    Args:
      recipe: a recipe's name or a YAML file; None takes `default_recipe`.
      given: settings, nested as in YAML.
      default_recipe: what the data set suggests, or None for the bare defaults.

    Raises:
      UsageError: an unknown recipe or setting.
    """
    name = recipe or default_recipe
    return settled(read_recipe(name) if name else {}, given, name)


def settled(values: dict[str, Any], given: Mapping[str, Any], name: str | None = None) -> RunConfig:
    """The plain values of a recipe, with the given settings laid over them, checked.

    Raises:
      UsageError: an unknown setting.
    """
    # How to search around a recipe is for pipelines.search.
    values = {key: value for key, value in values.items() if key != "search"}
    config: RunConfig = from_dict(RunConfig, merge(values, dict(given)), name or "flags")
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
            f"{did_you_mean(name, recipe_names())}"
        )
    return named


def with_changes(config: RunConfig, given: Mapping[str, Any]) -> RunConfig:
    """A run's configuration with the given settings laid over it.

    Raises:
      UsageError: an unknown setting, or a value out of its range.
    """
    changed: RunConfig = from_dict(RunConfig, merge(to_dict(config), dict(given)), "flags")
    return changed
