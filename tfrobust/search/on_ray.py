"""Trials on a Ray cluster, each in its own process."""

from __future__ import annotations

import os
import queue
import threading
from pathlib import Path
from typing import Any

from tfrobust.cluster.connection import Ray, gpus_of, slots
from tfrobust.cluster.packing import pack, unpack
from tfrobust.cluster.worker import settle_process, versions
from tfrobust.config import RunConfig
from tfrobust.errors import TFRobustError
from tfrobust.progress import output_to
from tfrobust.run import RunFolder
from tfrobust.search.study import Lost, Objective, Pruned, Report


class OnRay:
    """An objective that runs every call in a Ray actor, on whichever node has room.

    Its output goes to `log.txt` in the run folder, which all nodes must share. If a node dies
    the trial is `Lost`: the search plans it again, and it resumes after its last complete
    epoch.

    Args:
      objective: called there; its functions are imported there by name, or sent.
      ray: the module, connected.
      cluster: the size of a worker.

    Attributes:
      at_once: number of trials that fit on the nodes present when the search starts.
    """

    def __init__(self, objective: Objective, ray: Any, cluster: Ray) -> None:
        self._ray, self._packed = ray, ray.put(pack(objective))
        self._manner = versions(), cluster.cores
        self.at_once = max(slots(ray, cluster), 1)
        # A process for each: memory that a training leaks ends with it.
        self._trial = ray.remote(
            num_cpus=cluster.cores, num_gpus=gpus_of(ray, cluster), max_restarts=0
        )(_Trial)

    def __call__(self, config: RunConfig, run: RunFolder, report: Report) -> dict[str, float]:
        """Calls the objective on the cluster, and relays its reports.

        Raises:
          Pruned: a report returned stop.
          Lost: its process or node died.
          TFRobustError: the objective failed.
        """
        path = str(run.path.resolve())
        trial = self._trial.remote(self._manner, [self._packed], config, path, os.getcwd())
        try:
            while True:
                kind, *content = self._ray.get(trial.next_message.remote())
                if kind == "done":
                    return dict(content[0])
                if kind == "failed":
                    raise TFRobustError(content[0])
                if report(*content):
                    raise Pruned
        except self._ray.exceptions.RayTaskError as error:
            raise TFRobustError(f"A worker of the cluster failed: {error.cause}") from error
        except self._ray.exceptions.RayError as error:
            raise Lost("its worker or node died") from error
        finally:
            self._ray.kill(trial)


class _Trial:
    """The main class of the process: an actor whose thread trains while it reports progress."""

    def __init__(
        self, manner: tuple[dict[str, str], int], packed: list[Any], config: RunConfig, path: str,
        folder: str,
    ) -> None:  # fmt: skip
        self._messages: queue.Queue[tuple[Any, ...]] = queue.Queue()
        what = manner, packed, config, path, folder
        threading.Thread(target=self._work, args=what, daemon=True).start()

    def next_message(self) -> tuple[Any, ...]:
        """('epoch', number, row), or the outcome; blocks until there is one."""
        return self._messages.get()

    def _work(
        self, manner: tuple[dict[str, str], int], packed: list[Any], config: RunConfig, path: str,
        folder: str,
    ) -> None:  # fmt: skip
        import ray

        run = RunFolder(Path(path))
        try:
            settle_process(*manner)
            if Path(folder).is_dir():
                # Paths of data and weights are relative to the search's folder.
                os.chdir(folder)
            with output_to(run.path / "log.txt"):
                found = unpack(ray.get(packed[0]))(config, run, self._report)
            self._messages.put(("done", found))
        except TFRobustError as error:
            self._messages.put(("failed", str(error)))
        except BaseException as error:
            text = " ".join(str(error).split())
            self._messages.put(("failed", f"{type(error).__name__}: {text}"))

    def _report(self, epoch: int, row: dict[str, Any]) -> bool:
        # The search ends the process if the trial is to be pruned.
        self._messages.put(("epoch", epoch, row))
        return False
