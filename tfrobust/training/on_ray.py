"""Training on a Ray cluster: Ray Train places the workers, and replaces those that die.

Each start of the workers goes on from the last complete epoch in the run folder. Ray Train is
elastic: where a node is missing it starts fewer workers, and more when it is back. The batch is
the same whatever their number, which therefore divides it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfrobust.cluster.connection import Ray, alive, gpus_of, slots
from tfrobust.cluster.worker import versions
from tfrobust.config import TrainingConfig
from tfrobust.errors import UsageError
from tfrobust.io import write_text
from tfrobust.progress import Tell
from tfrobust.run import RunFolder
from tfrobust.training.ray_worker import Order, Watch, failure_of, take_part

# Seconds between two looks at what the chief has written.
_LOOK = 0.5
# For how long Ray Train waits for room that it believes to be there, before it counts the nodes
# again: a minute by itself, which is lost whenever a node is.
_PLACING = ("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "20")


@dataclass(frozen=True)
class Work:
    """What is to be done by workers.

    Attributes:
      part: called in each with the name of the strategy, trains from the last complete epoch on.
      run: the folder, on a path that all nodes and this process see.
      training: its settings.
    """

    part: Callable[[str], None]
    run: RunFolder
    training: TrainingConfig


def fit_on_ray(work: Work, ray: Any, cluster: Ray, *, most: int | None, tell: Tell) -> None:
    """Trains on a cluster, and returns when the training has ended.

    Args:
      work: what the workers do.
      ray: the module, connected.
      cluster: how large a worker is.
      most: how many workers there are where nodes suffice; None is as many as the nodes that are
        there have room for.
      tell: is told what the chief prints, a line at a time.

    Raises:
      UsageError: a time limit, which several workers cannot keep, or more workers than fit into
        a cluster that does not grow.
      TFRobustError: the training failed, or workers die again and again.
    """
    if work.training.time_limit is not None:
        raise UsageError(
            "--time-limit: several workers would not stop at the same step: give --epochs instead."
        )
    train = _ray_train()
    cluster = sized(ray, cluster, most)
    _check_room(ray, cluster, most)
    most = most or max(slots(ray, cluster), 1)
    log = _prepared(work.run)
    tell(f"Ray starts the workers, {most} at the most (cores of each: {cluster.cores}).")
    order = Order(
        work.part, work.run, work.training.batch_size, _marked(work.run), versions(), os.getcwd(),
        most, int(cluster.gpus or 0),
    )  # fmt: skip
    trainer = train.tensorflow.TensorflowTrainer(
        take_part,
        train_loop_config={"order": order},
        scaling_config=_scaling(train, cluster, most),
        run_config=_run_config(train, work.run, cluster),
    )
    try:
        with _told(log, tell), _interruptible():
            trainer.fit()
    except (train.TrainingFailedError, ray.exceptions.RayError) as error:
        raise failure_of(error) from error


def _ray_train() -> Any:
    """Ray Train for TensorFlow.

    Raises:
      UsageError: a package that it needs is not installed.
    """
    try:
        os.environ.setdefault(*_PLACING)
        import ray.train
        import ray.train.tensorflow
    except ImportError as error:
        raise UsageError(
            f"Ray Train is not installed ({error}): run 'pip install \"ray[train]\"'."
        ) from error
    return ray.train


def sized(ray: Any, cluster: Ray, most: int | None) -> Ray:
    """The cluster with the cores and GPUs of a worker settled.

    Where nothing is said there is a worker for each GPU, or else for each node, or more of them
    where `most` are more than the nodes; they share the cores of their node.
    """
    gpus = gpus_of(ray, cluster)
    if cluster.cpus is not None:
        return dataclasses.replace(cluster, gpus=gpus)
    found = [node["Resources"] for node in alive(ray)]
    fit = [one for one in found if one.get("CPU", 0) >= 1 and one.get("GPU", 0) >= gpus]
    shares = [1]
    if fit:
        each = -(-(most or 1) // len(fit))
        shares = [int(one["CPU"] // (one["GPU"] // gpus if gpus else each)) for one in fit]
    return dataclasses.replace(cluster, cpus=max(min(shares), 1), gpus=gpus)


def _check_room(ray: Any, cluster: Ray, most: int | None) -> None:
    """Refuses more workers than will ever fit: into a cluster of this machine alone.

    Raises:
      UsageError: there are more.
    """
    own = cluster.address is None and os.environ.get("RAY_ADDRESS", "") in ("", "local")
    if own and most is not None and (fit := slots(ray, cluster)) < most:
        raise UsageError(
            f"--workers {most}: this machine has room for {fit}: lower it or --worker-cpus, or "
            "name a cluster with more nodes."
        )


def _prepared(run: RunFolder) -> Path:
    """Makes the folders, and returns the chief's log."""
    run.create()
    (run.path / "workers").mkdir(exist_ok=True)
    if not run.started():
        # Of a run that was never introduced: nothing may go on from it.
        run.state.unlink(missing_ok=True)
    return run.path / "workers" / "0.log"


def _marked(run: RunFolder) -> str:
    """A word in the folder, by which workers know that they see the same."""
    word = uuid.uuid4().hex
    write_text(run.path / "workers" / "word.txt", word)
    return word


def _scaling(train: Any, cluster: Ray, most: int) -> Any:
    size: dict[str, float] = {"CPU": cluster.cores}
    if cluster.gpus:
        size["GPU"] = cluster.gpus
    return train.ScalingConfig(
        num_workers=(1, most), use_gpu=bool(cluster.gpus), resources_per_worker=size
    )


def _run_config(train: Any, run: RunFolder, cluster: Ray) -> Any:
    watch = Watch(run.state)

    class Callback(train.UserCallback):
        def after_exception(self, run_context: Any, worker_exceptions: dict[int, Any]) -> None:
            watch(worker_exceptions)

    return train.RunConfig(
        name="workers",
        storage_path=str(run.path),
        # The watch ends it.
        failure_config=train.FailureConfig(max_failures=-1),
        callbacks=[Callback()],
        worker_runtime_env={"env_vars": _environment(cluster.cores)},
    )


def _environment(threads: int) -> dict[str, str]:
    """What TensorFlow in the workers reads when it is imported, which Ray Train does."""
    found = {name: text for name, text in os.environ.items() if name.startswith("TF_")}
    found.pop("TF_CONFIG", None)
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        found[name] = str(threads)
    # What is printed goes to the worker's log, not to that of Ray, and nothing else does.
    ours = {
        f"RAY_TRAIN_ENABLE_{name}": "0" for name in ("PRINT_PATCH", "WORKER_STRUCTURED_LOGGING")
    }
    return {**found, **ours}


@contextlib.contextmanager
def _told(log: Path, tell: Tell) -> Iterator[None]:
    """Tells what is added to the log meanwhile, a line at a time."""
    done = threading.Event()
    seen = log.stat().st_size if log.is_file() else 0

    def follow() -> None:
        nonlocal seen
        while True:
            last = done.wait(_LOOK)
            if log.is_file():
                with log.open("rb") as file:
                    file.seek(seen)
                    text = file.read()
                # A line that is not complete is told later.
                whole = text if last else text[: text.rfind(b"\n") + 1]
                seen += len(whole)
                for line in whole.decode(errors="replace").splitlines():
                    tell(line)
            if last:
                return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl+C stays an interruption: Ray Train ends the workers, and with them the process."""
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        raise KeyboardInterrupt from error
    finally:
        if in_main:
            signal.signal(signal.SIGINT, before)
