"""What runs in the processes of Ray Train: a worker's part, and the judge of what went wrong."""

from __future__ import annotations

import json
import logging
import math
import os
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfrobust.cluster.worker import check_versions
from tfrobust.distribution import LostWorker
from tfrobust.errors import TFRobustError, UsageError, first_line
from tfrobust.io import read_json
from tfrobust.progress import output_to
from tfrobust.run import RunFolder

# Failures with no epoch between them, after which they are the training's own.
_TRIES = 5
# Seconds within which Ray Train tells of one failure more than once: it asks the workers every two.
_SAME = 5.0


@dataclass(frozen=True)
class Order:
    """What each worker is to do.

    Attributes:
      part: called with the name of the strategy.
      run: the folder of the run.
      batch_size: which the workers share.
      word: what `workers/word.txt` in the folder holds, if it is the same folder.
      versions: package -> version, of what results depend on.
      folder: that relative paths of the settings start from.
      most: how many workers there are to be.
      gpus: of a worker.
    """

    part: Callable[[str], None]
    run: RunFolder
    batch_size: int
    word: str
    versions: dict[str, str]
    folder: str
    most: int
    gpus: int


def take_part(config: Mapping[str, Any]) -> None:
    """A worker's part of the training, by the TF_CONFIG that Ray Train has set.

    Raises:
      UsageError: the run's folder is not to be seen from here.
      LostWorker: another worker has gone.
      TFRobustError: the training failed.
    """
    import ray.train

    # It logs, with its traceback, what the driver tells in a sentence.
    logging.getLogger("ray.train").setLevel(logging.CRITICAL)
    order: Order = config["order"]
    context = ray.train.get_context()
    rank, found = context.get_world_rank(), context.get_world_size()
    check_versions(order.versions)
    _check_folder(order)
    if Path(order.folder).is_dir():
        os.chdir(order.folder)
    with output_to(order.run.path / "workers" / f"{rank}.log"):
        count = sharing(found, order.batch_size, order.gpus)
        if rank == 0 and order.most > 1:
            idle = f", and {found - count} wait: batch_size is shared evenly" * (count < found)
            print(f"Workers: {count} of {order.most}{idle}.", flush=True)
        if rank >= count:
            return
        _leave_out_others(count)
        try:
            order.part("multiworker" if count > 1 else "mirrored" if order.gpus > 1 else "none")
        except LostWorker:
            print("Another worker is lost: the last complete epoch is kept.", flush=True)
            raise
        except TFRobustError:
            # The driver tells it.
            raise
        except BaseException:
            traceback.print_exc()
            raise


def sharing(found: int, batch_size: int, gpus: int) -> int:
    """How many of the workers that were found share each batch evenly, at least 1."""
    each = max(gpus, 1)
    return next((n for n in range(found, 1, -1) if batch_size % (n * each) == 0), 1)


def _check_folder(order: Order) -> None:
    """Refuses a node that does not see the run's folder.

    Raises:
      UsageError: it does not.
    """
    path = order.run.path / "workers" / "word.txt"
    try:
        seen = path.read_text(encoding="utf-8")
    except OSError:
        seen = ""
    if seen != order.word:
        raise UsageError(
            f"--output {order.run.path}: the node {os.uname().nodename} does not see the folder "
            "that the command has made: name one on a disk that all nodes share."
        )


def _leave_out_others(count: int) -> None:
    """Makes the first workers all that there are."""
    config = json.loads(os.environ["TF_CONFIG"])
    config["cluster"]["worker"] = config["cluster"]["worker"][:count]
    os.environ["TF_CONFIG"] = json.dumps(config)


class Watch:
    """Decides, where workers have failed, whether they are started again.

    They are where one has died, or has lost another; not where the training itself has failed,
    nor where it fails again and again with no epoch in between.

    Args:
      state: the run's file that says how many epochs are complete.
    """

    def __init__(self, state: Path) -> None:
        self._state, self._failures, self._epoch = state, 0, -1
        self._told = -math.inf

    def __call__(self, errors: Mapping[int, BaseException]) -> None:
        """Returns where they are started again.

        Raises:
          TFRobustError: they are not.
        """
        for error in errors.values():
            if not is_of_a_loss(error):
                raise _as_ours(error)
        before, self._told = self._told, time.monotonic()
        if self._told - before < _SAME:
            return
        epoch = _epochs_in(self._state)
        self._failures = self._failures + 1 if epoch == self._epoch else 1
        self._epoch = epoch
        if self._failures >= _TRIES:
            first = first_line(next(iter(errors.values())))[:200]
            raise TFRobustError(
                f"Workers failed {self._failures} times without an epoch in between ({first}), of "
                "too little memory perhaps: look into workers/*.log of the run folder, then start "
                "again with --resume."
            )


def is_of_a_loss(error: BaseException) -> bool:
    """Whether an error comes of a process or node that is gone, as far as can be told."""
    if isinstance(error, TFRobustError):
        return isinstance(error, LostWorker)
    # TensorFlow's operations fail in many ways where another worker has gone.
    return type(error).__module__.partition(".")[0] in ("ray", "tensorflow")


def failure_of(error: BaseException) -> TFRobustError:
    """What a training on Ray Train failed of, as one sentence."""
    cause = getattr(error, "controller_failure", error)
    return _as_ours(cause)


def _as_ours(error: BaseException) -> TFRobustError:
    if isinstance(error, TFRobustError):
        return error
    return TFRobustError(
        f"Training on the cluster failed ({type(error).__name__}: {first_line(error)[:200]}): the "
        "last complete epoch is kept, and workers/*.log of the run folder tell more."
    )


def _epochs_in(state: Path) -> int:
    try:
        return int(read_json(state)["epoch"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
