"""Runs a trial in its own process: neither its memory nor its crash outlives it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from tfrobust.config import RunConfig
from tfrobust.errors import TFRobustError
from tfrobust.progress import output_to
from tfrobust.run import RunFolder
from tfrobust.search.study import Objective, Pruned, Report


@dataclass(frozen=True)
class Isolated:
    """An objective that runs every call in its own process.

    Its output goes to `log.txt` in the run folder. When the search is killed, the process ends
    with it.

    Attributes:
      objective: called in the process; it must be picklable.
    """

    objective: Objective

    def __call__(self, config: RunConfig, run: RunFolder, report: Report) -> dict[str, float]:
        """Calls the objective in a new process, and relays its reports.

        Raises:
          Pruned: a report returned stop.
          TFRobustError: the objective failed, or its process died.
        """
        # A fork of a process with running TensorFlow threads would hang.
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(target=_work, args=(self.objective, config, run, there))
        process.start()
        there.close()
        try:
            return _listen(here, report)
        except EOFError as error:
            process.join()
            raise TFRobustError(_how_it_died(process.exitcode)) from error
        finally:
            process.terminate()
            process.join()
            here.close()


def _listen(connection: Connection, report: Report) -> dict[str, float]:
    while True:
        kind, *content = connection.recv()
        if kind == "done":
            return dict(content[0])
        if kind == "pruned":
            raise Pruned
        if kind == "failed":
            raise TFRobustError(content[0])
        connection.send(report(*content))


def _how_it_died(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        out_of_memory = ": possibly out of memory" if -code == signal.SIGKILL else ""
        return f"The trial's process was killed by {name}{out_of_memory}."
    return f"The trial's process ended with exit code {code} and no result."


def _work(objective: Objective, config: RunConfig, run: RunFolder, connection: Any) -> None:
    """The main function of the process."""
    _end_with_parent()

    def report(epoch: int, row: dict[str, Any]) -> bool:
        connection.send(("epoch", epoch, row))
        return bool(connection.recv())

    with output_to(run.path / "log.txt"):
        try:
            answer: tuple[Any, ...] = ("done", objective(config, run, report))
        except Pruned:
            answer = ("pruned",)
        except TFRobustError as error:
            answer = ("failed", str(error))
        except Exception as error:
            answer = ("failed", f"{type(error).__name__}: {' '.join(str(error).split())}")
    connection.send(answer)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
