"""The job that runs a whole study: several verbs after one another, from one recipe."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfrobust.errors import UsageError, did_you_mean
from tfrobust.jobs.recipes import RECIPES
from tfrobust.jobs.steps import Marks, Step, held, make_steps, run_step
from tfrobust.progress import Tell, clock, silent
from tfrobust.settings import load_yaml

STUDIES = RECIPES / "studies"


@dataclass(frozen=True)
class StudyResult:
    """A study that is complete.

    Attributes:
      folder: of the study, with what its steps have made.
      steps: all of them, in their order.
    """

    folder: Path
    steps: tuple[Step, ...]


def study_names() -> list[str]:
    """The studies that come with the project."""
    return sorted(path.stem for path in STUDIES.glob("*.yaml"))


def study(
    name: str, output: Path | str | None = None, *, inputs: Mapping[str, str] | None = None,
    settings: Mapping[str, str] | None = None, quick: bool = False, redo: str | None = None,
    tell: Tell = silent,
) -> StudyResult:  # fmt: skip
    """Runs every step of a study that is not done yet, each in a process of its own.

    Args:
      name: one of `study_names()`, or a YAML file.
      output: folder of the study; None is saved_models/NAME.
      inputs: name -> path, of files that are not at their usual place.
      settings: name -> value, of the study's settings.
      quick: its steps on few images, which shows that they work and no more.
      redo: a step to be done again, with all that builds on it.
      tell: is told each step.

    Raises:
      UsageError: there is no such study, input, setting or step.
      TFRobustError: a step failed; the steps before it are kept.
    """
    steps = study_steps(name, output, inputs=inputs, settings=settings, quick=quick)
    folder = _folder(name, output, quick)
    begin, marks = time.monotonic(), Marks(folder, steps)
    with held(folder) as lock:
        if redo:
            tell(f"To be done again: {', '.join(marks.undo(redo))}")
        for number, step in enumerate(steps, 1):
            tell(f"\n[{number}/{len(steps)}] {step.name}: {step.command}")
            run_step(step, marks, lock, tell)
    tell(f"\nStudy complete in {clock(time.monotonic() - begin)}: {folder}")
    return StudyResult(folder, tuple(steps))


def study_steps(
    name: str, output: Path | str | None = None, *, inputs: Mapping[str, str] | None = None,
    settings: Mapping[str, str] | None = None, quick: bool = False, check_inputs: bool = True,
) -> list[Step]:  # fmt: skip
    """The steps of a study, as `study` would run them.

    Raises:
      UsageError: there is no such study, input or setting.
    """
    recipe = load_yaml(_path(name))
    places = _inputs(recipe, inputs or {}, check=check_inputs and not quick)
    places |= _settings(recipe, settings or {})
    return make_steps(recipe, _folder(name, output, quick), places, quick=quick)


def _folder(name: str, output: Path | str | None, quick: bool) -> Path:
    return Path(output or f"saved_models/{Path(name).stem}{'-quick' if quick else ''}")


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
    """Input -> path: as given, else the usual place; for a quick run none need be there."""
    folder = os.environ.get("TFROBUST_SHARED", "../shared/data")
    inputs = {k: str(v).format(shared=folder) for k, v in (recipe.get("inputs") or {}).items()}
    inputs |= _given("input", given, inputs)
    missing = [path for path in inputs.values() if not Path(path).exists()]
    if missing and check:
        raise UsageError(f"{missing[0]} not found: name it with --input NAME=PATH.")
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
