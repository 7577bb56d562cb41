"""Trials as tasks of a Ray cluster, each in a process of its own."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfrobust.cluster.connection import Ray, gpus_of, slots
from tfrobust.cluster.packing import pack, unpack
from tfrobust.cluster.worker import settle_process, versions
from tfrobust.config import RunConfig
from tfrobust.errors import TFRobustError
from tfrobust.run import RunFolder
from tfrobust.search.isolate import output_to
from tfrobust.search.study import Lost, Objective, Pruned, Report


class OnRay:
    """An objective whose every call is a Ray task, on whichever node has room.

    What it prints goes to `log.txt` in the run folder, which all nodes have to see. Where a
    node dies the trial is `Lost`: the search plans it again, and it goes on from its last
    epoch.

    Args:
      objective: called there; functions in it are known there by name, or sent.
      ray: the module, connected.
      cluster: how large a worker is.

    Attributes:
      at_once: how many trials fit on the nodes that are there when the search begins.
    """

    def __init__(self, objective: Objective, ray: Any, cluster: Ray) -> None:
        self._ray, self._packed = ray, ray.put(pack(objective))
        self._manner = versions(), cluster.cpus
        self.at_once = max(slots(ray, cluster), 1)
        # A process for each: memory that a training leaves behind ends with it.
        self._task = ray.remote(
            num_cpus=cluster.cpus, num_gpus=gpus_of(ray, cluster), max_retries=0, max_calls=1,
            num_returns="streaming",
        )(_trial)  # fmt: skip

    def __call__(self, config: RunConfig, run: RunFolder, report: Report) -> dict[str, float]:
        """Calls the objective on the cluster, and passes its reports on.

        Raises:
          Pruned: a report said stop.
          Lost: its process or node died.
          TFRobustError: the objective failed.
        """
        path = str(run.path.resolve())
        told = self._task.remote(self._manner, self._packed, config, path, os.getcwd())
        try:
            for reference in told:
                kind, *content = self._ray.get(reference)
                if kind == "done":
                    return dict(content[0])
                if kind == "pruned":
                    raise Pruned
                if kind == "failed":
                    raise TFRobustError(content[0])
                if report(*content):
                    self._ray.cancel(told, force=True)
                    raise Pruned
        except self._ray.exceptions.RayTaskError as error:
            raise TFRobustError(f"A worker of the cluster failed: {error.cause}") from error
        except self._ray.exceptions.RayError as error:
            raise Lost("its worker or node died") from error
        raise Lost("its worker ended without a result")


def _trial(
    manner: tuple[dict[str, str], int], packed: bytes, config: RunConfig, path: str, folder: str
) -> Iterator[tuple[Any, ...]]:
    """What the process does: ('epoch', number, row) for each epoch, and how it ended."""
    settle_process(*manner)
    if Path(folder).is_dir():
        # Paths of data and weights are those of the search.
        os.chdir(folder)
    told: queue.Queue[tuple[Any, ...]] = queue.Queue()

    def report(epoch: int, row: dict[str, Any]) -> bool:
        # The search stops the process if it is to be pruned.
        told.put(("epoch", epoch, row))
        return False

    def work() -> None:
        run = RunFolder(Path(path))
        with output_to(run):
            try:
                told.put(("done", unpack(packed)(config, run, report)))
            except Pruned:
                told.put(("pruned",))
            except TFRobustError as error:
                told.put(("failed", str(error)))
            except BaseException as error:
                text = " ".join(str(error).split())
                told.put(("failed", f"{type(error).__name__}: {text}"))

    threading.Thread(target=work, daemon=True).start()
    while True:
        found = told.get()
        yield found
        if found[0] != "epoch":
            return
