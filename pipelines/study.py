"""Runs a whole study: several verbs after one another, from one recipe.

python -m pipelines.study brittleness
python -m pipelines.study brittleness --quick
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.cli import RECIPES, main_of, new_parser
from tfrobust.errors import TFRobustError, UsageError
from tfrobust.progress import clock
from tfrobust.run import write_json
from tfrobust.settings import load_yaml

STUDIES = RECIPES / "studies"
VERBS = ("train", "evaluate", "perturb", "explain", "export", "search", "compare", "imbalance")


@dataclass(frozen=True)
class Step:
    """One command of a study.

    Attributes:
      name: of the step, unique in the study.
      verb: of `pipelines`.
      flags: its arguments.
    """

    name: str
    verb: str
    flags: tuple[str, ...]

    @property
    def command(self) -> str:
        """As a user would type it."""
        return shlex.join(["python", "-m", f"pipelines.{self.verb}", *self.flags])


def make_parser() -> argparse.ArgumentParser:
    """The flags of `pipelines.study`."""
    parser = new_parser("study", "Run a study from its first step to its tables and figures.")
    add = parser.add_argument
    add("study", metavar="STUDY", help=f"one of {', '.join(study_names())}, or a YAML file")
    add("--quick", action="store_true", help="the same steps on few images, in under 2 minutes: "
        "shows that all works, its figures mean nothing")  # fmt: skip
    add("--output", default=None, help="folder of the study (default: saved_models/STUDY)")
    add("--input", action="append", default=[], metavar="NAME=PATH",
        help="a file that the study starts from, where it is not at its usual place")  # fmt: skip
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
    steps = make_steps(recipe, output, _inputs(recipe, args), quick=args.quick)
    if args.list:
        print("\n".join(step.command for step in steps))
        return
    begin = time.monotonic()
    for number, step in enumerate(steps, 1):
        print(f"\n[{number}/{len(steps)}] {step.name}: {step.command}", flush=True)
        run_step(step, output)
    print(f"\nStudy complete in {clock(time.monotonic() - begin)}: {output}", flush=True)


def make_steps(
    recipe: dict[str, Any], output: Path, inputs: dict[str, str], *, quick: bool
) -> list[Step]:
    """The commands of a study, with its folder and inputs filled in.

    A step's `run` is followed by its `quick` in a quick run and by its `whole` otherwise;
    'skip' there leaves the step out.

    Raises:
      UsageError: the recipe is not a list of steps, or names what is not there.
    """
    steps = []
    for entry in recipe.get("steps") or ():
        if not {"name", "run"} <= entry.keys() <= {"name", "run", "whole", "quick"}:
            raise UsageError(f"A step has name, run, and perhaps whole and quick, found {entry}.")
        further = entry.get("quick" if quick else "whole", "")
        if further == "skip":
            continue
        text = f"{entry['run']} {further}"
        try:
            verb, *flags = shlex.split(text.format(out=output, **inputs))
        except (KeyError, IndexError, ValueError) as error:
            raise UsageError(f"Step {entry['name']}: cannot be filled in ({error!r}).") from error
        if verb not in VERBS:
            expected = ", ".join(VERBS)
            raise UsageError(f"Step {entry['name']}: expected a verb of {expected}, found {verb}.")
        steps.append(Step(entry["name"], verb, tuple(flags)))
    names = [step.name for step in steps]
    if not steps or len(set(names)) < len(names):
        raise UsageError("A study has steps of different names: see pipelines/recipes/studies.")
    return steps


def run_step(step: Step, output: Path) -> None:
    """Runs a step in a process of its own, unless it was done before with the same flags.

    Raises:
      TFRobustError: it failed; the steps before are kept.
    """
    mark = output / "steps" / f"{step.name}.json"
    if mark.is_file() and json.loads(mark.read_text(encoding="utf-8"))["command"] == step.command:
        print("done before", flush=True)
        return
    begin = time.monotonic()
    argv = [sys.executable, "-m", f"pipelines.{step.verb}", *step.flags, *_resuming(step)]
    code = subprocess.run(argv, check=False).returncode
    if code:
        raise TFRobustError(
            f"Step {step.name} failed (exit {code}, see above): mend it and run the study again, "
            "it goes on from here."
        )
    write_json(mark, {"command": step.command, "seconds": round(time.monotonic() - begin, 1)})


def _resuming(step: Step) -> list[str]:
    """What makes a verb go on with what a stopped study left behind."""
    if step.verb == "evaluate":
        return ["--resume"]
    if step.verb == "train" and "--output" in step.flags:
        state = Path(step.flags[step.flags.index("--output") + 1]) / "checkpoints" / "state.json"
        return ["--resume"] if state.is_file() else []
    return []


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
    for text in args.input:
        name, equals, path = text.partition("=")
        if not equals or name not in inputs:
            raise UsageError(f"--input: expected {'|'.join(inputs)}=PATH, found {text!r}.")
        inputs[name] = path
    missing = [path for path in inputs.values() if not Path(path).exists()]
    if missing and not args.quick and not args.list:
        raise UsageError(f"{missing[0]} not found: name it with --input NAME=PATH.")
    return inputs


main = main_of(work, make_parser())

if __name__ == "__main__":
    raise SystemExit(main())
