"""The steps of a study: what each runs, what it builds on, and whether it is done."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfrobust.errors import TFRobustError, UsageError
from tfrobust.progress import Tell, silent
from tfrobust.run import write_json

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

    @property
    def output(self) -> Path | None:
        """The file or folder that it makes; None where it adds to a run's folder."""
        if "--output" not in self.flags:
            return None
        return Path(self.flags[self.flags.index("--output") + 1])

    def reads(self, other: Step) -> bool:
        """Whether one of its arguments lies in what another step makes or adds to."""
        made = other.output or Path(other.flags[0])
        named = [Path(part) for flag in self.flags for part in re.split("[,=]", flag)]
        return any(path == made or made in path.parents for path in named)


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
        if further != "skip":
            steps.append(_step(entry, further, {"out": str(output), **inputs}))
    names = [step.name for step in steps]
    if not steps or len(set(names)) < len(names):
        raise UsageError("A study has steps of different names: see pipelines/recipes/studies.")
    return steps


def _step(entry: dict[str, Any], further: str, places: dict[str, str]) -> Step:
    try:
        # Split before it is filled in: a place may have spaces in its name.
        words = shlex.split(f"{entry['run']} {further}")
        verb, *flags = (word.format(**places) for word in words)
    except (KeyError, IndexError, ValueError) as error:
        raise UsageError(f"Step {entry['name']}: cannot be filled in ({error!r}).") from error
    if verb not in VERBS:
        expected = ", ".join(VERBS)
        raise UsageError(f"Step {entry['name']}: expected a verb of {expected}, found {verb}.")
    return Step(entry["name"], verb, tuple(flags))


class Marks:
    """Which steps of a study are done, in its folder's `steps/`.

    A mark holds the step's command and the marks of the steps that it builds on: a step is
    done only as long as they are the same.

    Args:
      folder: of the study.
      steps: of the study, in their order.
    """

    def __init__(self, folder: Path, steps: Sequence[Step]) -> None:
        self._folder, self._steps = folder / "steps", steps

    def is_done(self, step: Step) -> bool:
        """Whether it was done with this command, from what is there now.

        Raises:
          UsageError: it was done otherwise.
        """
        mark = self._read(step)
        if not mark:
            return False
        now = {"command": step.command, "after": self._before(step)}
        if {name: mark.get(name) for name in now} != now:
            raise UsageError(
                f"Step {step.name} was done with another command, or a step that it builds on has "
                f"been done again since: add --redo {step.name}, or give another --output."
            )
        return True

    def done(self, step: Step, seconds: float) -> None:
        """Notes that it is done."""
        mark = {"command": step.command, "after": self._before(step), "seconds": round(seconds, 1)}
        write_json(self._path(step), mark | {"id": uuid.uuid4().hex})

    def undo(self, name: str) -> list[str]:
        """Takes a step's results away, and those of all that builds on it.

        Returns:
          The names of these steps.

        Raises:
          UsageError: there is no such step, or it makes something outside of the study's folder.
        """
        found = [step for step in self._steps if step.name == name]
        if not found:
            expected = ", ".join(step.name for step in self._steps)
            raise UsageError(f"--redo: expected a step of {expected}, found {name!r}.")
        for step in self._steps:
            if step not in found and any(step.reads(other) for other in found):
                found.append(step)
        for step in found:
            self._remove(step)
        return [step.name for step in found]

    def _remove(self, step: Step) -> None:
        made = step.output
        if made and self._folder.parent.resolve() not in made.resolve().parents:
            raise UsageError(f"--redo: {made} is not in {self._folder.parent}: delete it yourself.")
        self._path(step).unlink(missing_ok=True)
        if made and made.is_dir():
            shutil.rmtree(made)
        elif made:
            made.unlink(missing_ok=True)

    def _before(self, step: Step) -> dict[str, str]:
        """Step that it builds on -> that step's mark."""
        earlier = self._steps[: self._steps.index(step)]
        return {one.name: self._read(one).get("id", "") for one in earlier if step.reads(one)}

    def _read(self, step: Step) -> dict[str, Any]:
        path = self._path(step)
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def _path(self, step: Step) -> Path:
        return self._folder / f"{step.name}.json"


@contextmanager
def held(folder: Path) -> Iterator[int]:
    """Holds a study's folder for this process and the steps that it starts.

    Yields:
      The descriptor that a step's process inherits: one that outlives a killed study goes on
      holding the folder.

    Raises:
      TFRobustError: another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield lock
    except BlockingIOError as error:
        raise TFRobustError(
            f"Another process is at work in {folder}, perhaps a step of a study that was killed: "
            "wait for it or stop it, or choose another --output."
        ) from error
    finally:
        os.close(lock)


def run_step(step: Step, marks: Marks, lock: int, tell: Tell = silent) -> None:
    """Runs a step in a process of its own, unless it is done.

    Raises:
      UsageError: it was done with another command.
      TFRobustError: it failed; the steps before are kept.
    """
    if marks.is_done(step):
        tell("done before")
        return
    begin = time.monotonic()
    argv = [sys.executable, "-m", f"pipelines.{step.verb}", *step.flags, *_resuming(step)]
    code = subprocess.run(argv, check=False, pass_fds=(lock,)).returncode
    if code:
        raise TFRobustError(
            f"Step {step.name} failed (exit {code}, see above): fix it and run the study again, "
            "it resumes from here."
        )
    marks.done(step, time.monotonic() - begin)


def _resuming(step: Step) -> list[str]:
    """What makes a verb go on with what a stopped study left behind."""
    if step.verb in ("evaluate", "perturb"):
        return ["--resume"]
    if step.verb == "train" and step.output:
        return ["--resume"] if (step.output / "checkpoints" / "state.json").is_file() else []
    return []
