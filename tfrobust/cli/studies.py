"""Studies: recipes of commands, each of which becomes a call of its job."""

from __future__ import annotations

import importlib
import os
import shlex
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tfrobust.cli.command import Command
from tfrobust.errors import UsageError, did_you_mean
from tfrobust.jobs.recipes import RECIPES
from tfrobust.jobs.studies import Step
from tfrobust.settings import load_yaml

STUDIES = RECIPES / "studies"
VERBS = ("train", "evaluate", "perturb", "explain", "export", "search", "compare", "imbalance")
# Verbs that resume what a stopped study left behind if they get --resume.
_RESUMING = ("train", "evaluate", "perturb")


def study_names() -> list[str]:
    """The studies included with the project."""
    return sorted(path.stem for path in STUDIES.glob("*.yaml"))


def study_folder(name: str, output: Path | str | None = None, *, quick: bool = False) -> Path:
    """A study's folder: as given, else saved_models/NAME."""
    return Path(output or f"saved_models/{Path(name).stem}{'-quick' if quick else ''}")


def study_steps(
    name: str, output: Path | str | None = None, *, inputs: Mapping[str, str] | None = None,
    settings: Mapping[str, str] | None = None, quick: bool = False, check_inputs: bool = True,
) -> list[Step]:  # fmt: skip
    """The steps of a study, for `jobs.study`.

    Args:
      name: one of `study_names()`, or a YAML file.
      output: folder of the study; None is saved_models/NAME.
      inputs: name -> path, for files that are not at their default place.
      settings: name -> value, of the study's settings.
      quick: run its steps on few images, which only shows that they work.
      check_inputs: reject missing files, unless `quick`.

    Raises:
      UsageError: there is no such study, input or setting.
    """
    recipe = load_yaml(_path(name))
    places = _inputs(recipe, inputs or {}, check=check_inputs and not quick)
    places |= _settings(recipe, settings or {})
    return make_steps(recipe, study_folder(name, output, quick=quick), places, quick=quick)


def make_steps(
    recipe: dict[str, Any], output: Path, inputs: Mapping[str, str], *, quick: bool
) -> list[Step]:
    """The steps of a recipe, with its folder and inputs filled in.

    A step's `run` is followed by its `quick` in a quick run and by its `whole` otherwise; 'skip'
    there skips the step.

    Raises:
      UsageError: the recipe is not a list of steps, or refers to something unknown.
    """
    steps = []
    for entry in recipe.get("steps") or ():
        if not {"name", "run"} <= entry.keys() <= {"name", "run", "whole", "quick"}:
            raise UsageError(f"A step has name, run, optionally whole and quick, found {entry}.")
        further = entry.get("quick" if quick else "whole", "")
        if further != "skip":
            steps.append(_step(entry, further, {"out": str(output), **inputs}))
    names = [step.name for step in steps]
    if not steps or len(set(names)) < len(names):
        raise UsageError(
            "A study needs different names for its steps: see pipelines/recipes/studies."
        )
    return steps


def _step(entry: dict[str, Any], further: str, places: dict[str, str]) -> Step:
    try:
        # Split before substitution: a path may contain spaces.
        words = shlex.split(f"{entry['run']} {further}")
        verb, *flags = (word.format(**places) for word in words)
    except (KeyError, IndexError, ValueError) as error:
        raise UsageError(f"Step {entry['name']}: cannot be substituted ({error!r}).") from error
    if verb not in VERBS:
        expected = ", ".join(VERBS)
        raise UsageError(f"Step {entry['name']}: expected a verb of {expected}, found {verb}.")
    return Step(entry["name"], (verb, *flags), partial(_do, entry["name"], verb, flags))


def _do(name: str, verb: str, flags: list[str]) -> None:
    """Calls the job of a command, resuming what is there."""
    command: Command = importlib.import_module(f"tfrobust.cli.{verb}").COMMAND
    words = [*flags, "--resume"] if verb in _RESUMING else flags
    try:
        args = command.parser(words).parse_args(words)
    except SystemExit as error:
        raise UsageError(f"Step {name}: its command is invalid, see above.") from error
    command.work(args)


def _path(study: str) -> Path:
    if study.endswith((".yaml", ".yml")):
        return Path(study)
    path = STUDIES / f"{study}.yaml"
    if not path.is_file():
        raise UsageError(
            f"Study {study!r}: expected one of {', '.join(study_names())}, or a YAML file."
            f"{did_you_mean(study, study_names())}"
        )
    return path


def _inputs(recipe: dict[str, Any], given: Mapping[str, str], *, check: bool) -> dict[str, str]:
    """Input -> path: as given, else the default; a quick run does not require the files."""
    folder = os.environ.get("TFROBUST_SHARED", "../shared/data")
    inputs = {k: str(v).format(shared=folder) for k, v in (recipe.get("inputs") or {}).items()}
    inputs |= _given("input", given, inputs)
    missing = [path for path in inputs.values() if not Path(path).exists()]
    if missing and check:
        raise UsageError(f"{missing[0]} not found: give it with --input NAME=PATH.")
    return inputs


def _settings(recipe: dict[str, Any], given: Mapping[str, str]) -> dict[str, str]:
    """Setting -> value: as given, else the recipe's."""
    settings = {name: str(value) for name, value in (recipe.get("settings") or {}).items()}
    return settings | _given("set", given, settings)


def _given(flag: str, values: Mapping[str, str], known: Mapping[str, str]) -> dict[str, str]:
    for name, value in values.items():
        if not value or name not in known:
            expected = f"one of {', '.join(known)}=..." if known else "none for this study"
            found = f"{name}={value}" if value else name
            raise UsageError(f"--{flag}: expected {expected}, found {found}.")
    return dict(values)
