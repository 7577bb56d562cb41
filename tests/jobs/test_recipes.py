"""Recipes are found where they lie, by name or as a file."""

from __future__ import annotations

import pytest

from tfrobust.errors import UsageError
from tfrobust.jobs.recipes import RECIPES, read_recipe, recipe_names, resolve, with_changes


def test_every_recipe_is_a_configuration():
    assert {"digits", "tiny_imagenet"} <= set(recipe_names())
    for name in recipe_names():
        assert resolve(name, {}) == resolve(str(RECIPES / f"{name}.yaml"), {})


def test_settings_are_laid_over_a_recipe():
    config = resolve("digits", {"threat": {"eps": 0.2}})
    assert config.threat.eps == 0.2
    assert config.backbone.name == read_recipe("digits")["backbone"]["name"]
    assert with_changes(config, {"seed": 5}).threat.eps == 0.2


def test_a_mistyped_recipe_suggests_the_nearest():
    with pytest.raises(UsageError, match="Did you mean 'digits'"):
        read_recipe("digitz")
