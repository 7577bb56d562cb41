"""The job that runs a study: a sequence of jobs, each once, resumed where it was stopped."""

from __future__ import annotations

import fcntl
import gc
import os
import re
import shlex
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfrobust.errors import TFRobustError, UsageError
from tfrobust.io import read_json, write_json
from tfrobust.progress import Tell, clock, silent


@dataclass(frozen=True)
class Step:
    """One job of a study.

    Attributes:
      name: of the step, unique in the study.
      words: the job as a command, which identifies it: a verb and its arguments, of which
        `--output` is the file or folder that it writes.
      call: does it; after it was stopped it is called again, to go on.
    """

    name: str
    words: tuple[str, ...]
    call: Callable[[], object] = field(compare=False)

    @property
    def command(self) -> str:
        """As a user would type it."""
        verb, *flags = self.words
        return shlex.join(["python", "-m", f"pipelines.{verb}", *flags])

    @property
    def output(self) -> Path | None:
        """The file or folder that it writes; None if it adds to a run's folder."""
        if "--output" not in self.words:
            return None
        return Path(self.words[self.words.index("--output") + 1])

    def reads(self, other: Step) -> bool:
        """Whether one of its arguments is inside what another step writes."""
        made = other.output or Path(other.words[1])
        named = [Path(part) for word in self.words[1:] for part in re.split("[,=]", word)]
        return any(path == made or made in path.parents for path in named)


@dataclass(frozen=True)
class StudyResult:
    """A study that is complete.

    Attributes:
      folder: of the study, with what its steps have made.
      steps: all of them, in their order.
    """

    folder: Path
    steps: tuple[Step, ...]


def study(
    steps: Sequence[Step], folder: Path | str, *, redo: str | None = None, tell: Tell = silent
) -> StudyResult:
    """Does every step of a study that is not done yet, in this process.

    Args:
      steps: in their order, of different names.
      folder: of the study; completed steps are recorded in its `steps/`.
      redo: a step to be done again, with all that builds on it.
      tell: takes a line for each step.

    Raises:
      UsageError: there is no such step, or one was done with another command.
      TFRobustError: a step failed, after those before it; or another process runs the study.

    Examples:
      >>> draw = lambda: tr.jobs.imbalance(folder / "few.pt", counts=[3] * 10)
      >>> words = ("imbalance", "--output", str(folder / "few.pt"))
      >>> made = tr.jobs.study([tr.jobs.Step("few", words, draw)], folder)
      >>> (folder / "few.pt").is_file()
      True
    """
    folder = Path(folder)
    start, marks = time.monotonic(), _Marks(folder, steps)
    with locked(folder):
        if redo:
            tell(f"To run again: {', '.join(marks.undo(redo))}")
        for number, step in enumerate(steps, 1):
            tell(f"\n[{number}/{len(steps)}] {step.name}: {step.command}")
            if marks.is_done(step):
                tell("done before")
            else:
                marks.done(step, _seconds(step))
    tell(f"\nStudy complete in {clock(time.monotonic() - start)}: {folder}")
    return StudyResult(folder, tuple(steps))


def _seconds(step: Step) -> float:
    """Does a step; how long it took."""
    start = time.monotonic()
    try:
        step.call()
    except (TFRobustError, OSError, MemoryError) as error:
        raise TFRobustError(
            f"Step {step.name} failed: {error} Fix it and run the study again, it resumes from "
            "here."
        ) from error
    finally:
        _let_go()
    return time.monotonic() - start


def _let_go() -> None:
    """Frees the networks of a step: the next has others."""
    if "tf_keras" in sys.modules:
        from tfrobust.runtime import keras

        keras.backend.clear_session()
    gc.collect()


class _Marks:
    """Which steps of a study are done, in its folder's `steps/`.

    A mark has the step's command and the marks of the steps that it depends on: a step is
    done only as long as they are the same.
    """

    def __init__(self, folder: Path, steps: Sequence[Step]) -> None:
        self._folder, self._steps = folder / "steps", steps

    def is_done(self, step: Step) -> bool:
        """Whether it was completed with this command, from the present results of other steps.

        Raises:
          UsageError: it was done otherwise.
        """
        mark = self._read(step)
        if mark and not self._now(step).items() <= mark.items():
            raise UsageError(
                f"Step {step.name} was done with another command, or a step that it builds on has "
                f"been done again since: add --redo {step.name}, or give another --output."
            )
        return bool(mark)

    def done(self, step: Step, seconds: float) -> None:
        """Records that it is completed."""
        mark = {**self._now(step), "seconds": round(seconds, 1), "id": uuid.uuid4().hex}
        write_json(self._path(step), mark)

    def undo(self, name: str) -> list[str]:
        """Takes a step's results away, and those of all that builds on it; their names.

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

    def _now(self, step: Step) -> dict[str, Any]:
        """Its command, and the marks of the steps that it depends on."""
        earlier = self._steps[: self._steps.index(step)]
        before = {one.name: self._read(one).get("id", "") for one in earlier if step.reads(one)}
        return {"command": step.command, "after": before}

    def _read(self, step: Step) -> dict[str, Any]:
        path = self._path(step)
        return read_json(path) if path.is_file() else {}

    def _path(self, step: Step) -> Path:
        return self._folder / f"{step.name}.json"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a study's folder for this process: killed, it lets go.

    Raises:
      TFRobustError: another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise TFRobustError(
            f"Another process is at work in {folder}: wait for it or stop it, or choose another "
            "--output."
        ) from error
    finally:
        os.close(lock)
