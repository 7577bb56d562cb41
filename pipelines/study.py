"""Runs a whole study: several verbs after one another, from one recipe.

python -m pipelines.study brittleness
python -m pipelines.study brittleness --quick
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

from pipelines.cli import RECIPES, main_of, new_parser
from pipelines.steps import Marks, held, make_steps, run_step
from tfrobust.errors import UsageError
from tfrobust.progress import clock
from tfrobust.settings import load_yaml

STUDIES = RECIPES / "studies"


def make_parser() -> argparse.ArgumentParser:
    """The flags of `pipelines.study`."""
    parser = new_parser("study", "Run a study from its first step to its tables and figures.")
    add = parser.add_argument
    add("study", metavar="STUDY", help=f"one of {', '.join(study_names())}, or a YAML file")
    add("--quick", action="store_true", help="its first steps to its table on few images and fewer "
        "models, in under 2 minutes: shows that they work, its figures mean nothing")  # fmt: skip
    add("--output", default=None, help="folder of the study (default: saved_models/STUDY)")
    add("--input", action="append", default=[], metavar="NAME=PATH",
        help="a file that the study starts from, where it is not at its usual place")  # fmt: skip
    add("--set", action="append", default=[], metavar="NAME=VALUE", dest="settings",
        help="one of the study's settings, such as recipe=brittleness_resnet18")  # fmt: skip
    add("--redo", metavar="STEP", help="do this step and all that builds on it again")
    add("--list", action="store_true", help="print the commands and stop")
    parser.epilog = "A study that was stopped goes on where it stands when run again."
    return parser


def study_names() -> list[str]:
    """The studies that come with the project."""
    return sorted(path.stem for path in STUDIES.glob("*.yaml"))


def work(args: argparse.Namespace) -> None:
    """Runs every step that is not done yet."""
    recipe = load_yaml(_path(args.study))
    name = Path(args.study).stem + ("-quick" if args.quick else "")
    output = Path(args.output or f"saved_models/{name}")
    places = {**_inputs(recipe, args), **_settings(recipe, args.settings)}
    steps = make_steps(recipe, output, places, quick=args.quick)
    if args.list:
        print("\n".join(step.command for step in steps))
        return
    begin, marks = time.monotonic(), Marks(output, steps)
    with held(output) as lock:
        if args.redo:
            print(f"To be done again: {', '.join(marks.undo(args.redo))}", flush=True)
        for number, step in enumerate(steps, 1):
            print(f"\n[{number}/{len(steps)}] {step.name}: {step.command}", flush=True)
            run_step(step, marks, lock)
    print(f"\nStudy complete in {clock(time.monotonic() - begin)}: {output}", flush=True)


def _path(study: str) -> Path:
    if study.endswith((".yaml", ".yml")):
        return Path(study)
    path = STUDIES / f"{study}.yaml"
    if not path.is_file():
        raise UsageError(
            f"Study {study!r}: expected one of {', '.join(study_names())}, or a YAML file."
        )
    return path


def _inputs(recipe: dict[str, Any], args: argparse.Namespace) -> dict[str, str]:
    """Input -> path: as given, else the usual place; for a quick run none need be there."""
    folder = os.environ.get("TFROBUST_SHARED", "../shared/data")
    inputs = {k: str(v).format(shared=folder) for k, v in (recipe.get("inputs") or {}).items()}
    inputs |= _given("input", args.input, inputs)
    missing = [path for path in inputs.values() if not Path(path).exists()]
    if missing and not args.quick and not args.list:
        raise UsageError(f"{missing[0]} not found: name it with --input NAME=PATH.")
    return inputs


def _settings(recipe: dict[str, Any], given: list[str]) -> dict[str, str]:
    """Setting -> value: as given, else the recipe's."""
    settings = {name: str(value) for name, value in (recipe.get("settings") or {}).items()}
    return settings | _given("set", given, settings)


def _given(flag: str, texts: list[str], known: dict[str, str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    for name, equals, value in pairs:
        if not equals or not value or name not in known:
            expected = f"one of {', '.join(known)}=..." if known else "none for this study"
            raise UsageError(f"--{flag}: expected {expected}, found {name}{equals}{value}.")
    return {name: value for name, _, value in pairs}


main = main_of(work, make_parser())

if __name__ == "__main__":
    raise SystemExit(main())
