"""Training over several devices or machines: strategies, workers, and helpers for both."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfrobust.errors import TFRobustError, UsageError, first_line
from tfrobust.run import RunFolder
from tfrobust.runtime import tf
from tfrobust.typing import Tensor

#: 'none': one device. 'mirrored': all GPUs of a machine. 'multiworker': the machines in
#: TF_CONFIG, each running the same command.
STRATEGIES = ("none", "mirrored", "multiworker")


class LostWorker(TFRobustError):
    """Another process of the same training has gone or cannot be reached: a new start may do."""


@dataclass(frozen=True)
class Worker:
    """This process among those that train together.

    Attributes:
      index: 0 is the chief, which writes the run folder.
      count: number of processes.
    """

    index: int = 0
    count: int = 1

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the run folder."""
        return self.index == 0


def make_strategy(name: str) -> Any:
    """The strategy of that name, set up for this process.

    Must be called before any other use of TensorFlow: collectives are set up at the start of a
    process.

    Raises:
      UsageError: the name is unknown, or TF_CONFIG does not name the workers.
      LostWorker: the other workers cannot be reached.
    """
    if name not in STRATEGIES:
        raise UsageError(f"strategy: expected one of {', '.join(STRATEGIES)}, found {name!r}.")
    if name == "none":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    worker = worker_of(os.environ.get("TF_CONFIG", ""))
    try:
        spread = tf.distribute.MultiWorkerMirroredStrategy()
    except (RuntimeError, ValueError, tf.errors.OpError) as error:
        first = first_line(error)
        raise LostWorker(
            f"Worker {worker.index} of {worker.count} cannot join the others ({first}): check the "
            "addresses in TF_CONFIG, and that no other process listens on them."
        ) from error
    _heed_sigterm()
    return spread


def _heed_sigterm() -> None:
    """Gives SIGTERM back the meaning that it had in this process.

    TensorFlow takes it for news that the machine will be taken away, of which it tells the other
    workers; nobody here listens to that, and the process would go on.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


def local_devices() -> tuple[str, ...]:
    """The devices that 'mirrored' uses: all GPUs, or the CPU if there are none."""
    found = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return tuple(device.name for device in found)


def worker_of(text: str) -> Worker:
    """This process's worker in a TF_CONFIG.

    Raises:
      UsageError: it does not list workers and this process among them.
    """
    try:
        found = json.loads(text)
        workers = found["cluster"]["worker"]
        task = found["task"]
        worker = Worker(int(task["index"]), len(workers))
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(_wanted(text)) from error
    if task.get("type", "worker") != "worker" or not 0 <= worker.index < worker.count:
        raise UsageError(_wanted(text))
    return worker


def _wanted(text: str) -> str:
    example = '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", '
    return (
        "--strategy multiworker: expected TF_CONFIG in the environment, such as "
        f'{example}"index": 0}}}}, found {text or "nothing"}.'
    )


def this_worker(strategy: Any) -> Worker:
    """This process's worker in a strategy."""
    resolver = strategy.cluster_resolver
    if resolver is None or resolver.task_id is None:
        return Worker()
    return Worker(int(resolver.task_id), len(resolver.cluster_spec().as_dict()["worker"]))


def replicas() -> int:
    """The number of replicas of the current strategy; 1 without one."""
    return int(tf.distribute.get_strategy().num_replicas_in_sync)


def own_seed(seed: Tensor) -> Tensor:
    """A seed that differs between replicas; unchanged if there is only one."""
    context = tf.distribute.get_replica_context()
    if context is None or replicas() == 1:
        return seed
    return tf.random.experimental.stateless_fold_in(seed, context.replica_id_in_sync_group)


def averaged(tensors: list[Tensor]) -> list[Tensor]:
    """The means of tensors over all replicas; unchanged if there is only one."""
    context = tf.distribute.get_replica_context()
    if context is None or replicas() == 1:
        return tensors
    return list(context.all_reduce(tf.distribute.ReduceOp.MEAN, tensors))


def agreed(strategy: Any, values: dict[str, float]) -> dict[str, float]:
    """The chief's values, for every worker; unchanged if there is only one.

    Different machines round differently: decisions on scores that each measured itself could
    differ, and the workers would wait for each other forever. All workers must call it equally
    often.
    """
    if this_worker(strategy).count == 1:
        return values
    mine = tf.constant([float(value) for value in values.values()], tf.float64)

    def of_the_first() -> Tensor:
        context = tf.distribute.get_replica_context()
        is_first = tf.equal(context.replica_id_in_sync_group, 0)
        return tf.where(is_first, mine, tf.zeros_like(mine))

    theirs = strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(of_the_first), axis=None)
    found = zip(values.items(), theirs.numpy().tolist(), strict=True)
    return {name: type(value)(chief) for (name, value), chief in found}


def assign_own(variable: Any, value: Tensor) -> None:
    """Assigns this replica's copy of a variable, which Keras rejects without the other replicas."""
    if replicas() == 1:
        variable.assign(value)
    else:
        # Inside a replica the handle is that of its own copy.
        tf.raw_ops.AssignVariableOp(resource=variable.handle, value=value)


@contextlib.contextmanager
def folder_of(worker: Worker, run: RunFolder) -> Iterator[RunFolder]:
    """A worker's output folder: the chief's is the run folder, the others' are temporary.

    All workers have to save, as reading a distributed weight involves all of them.
    """
    if worker.is_chief:
        yield run
        return
    with tempfile.TemporaryDirectory(prefix="tfrobust-worker-") as folder:
        own = RunFolder(Path(folder))
        own.create()
        yield own


@contextlib.contextmanager
def lost_workers(worker: Worker) -> Iterator[None]:
    """Turns the failure of another worker into one sentence.

    Raises:
      LostWorker: another worker has gone.
    """
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError,
            tf.errors.DeadlineExceededError) as error:  # fmt: skip
        if worker.count == 1:
            raise
        raise LostWorker(
            f"Worker {worker.index} has lost another one ({first_line(error)[:120]}): "
            "the last complete epoch is kept; start all workers again with --resume."
        ) from error
