"""Which Ray cluster, and the connection to it."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tfrobust.errors import TFRobustError, UsageError, first_line

_LOOPBACK = "127.0.0.1"
# Ray's own switch between a node that others can reach and one on the loopback device.
_REACHABLE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


@dataclass(frozen=True)
class Ray:
    """A Ray cluster, and how much of it each worker gets.

    Attributes:
      address: ``ray://HOST:PORT`` (Ray's client port), ``HOST:PORT`` from a machine of the
        cluster, or 'auto'; None is the environment's RAY_ADDRESS, or else a cluster of this
        machine's own cores that ends with the work.
      cpus: cores of a worker, which TensorFlow's threads follow; a whole number from 1. None is 1,
        and in a training a worker's part of its node.
      gpus: of a worker; None is one each where the cluster has any.

    Raises:
      UsageError: a number is out of range.
    """

    address: str | None = None
    cpus: int | None = None
    gpus: float | None = None

    def __post_init__(self) -> None:
        if self.cores < 1:
            raise UsageError(f"--worker-cpus: expected 1 or more, found {self.cpus!r}.")
        if self.gpus is not None and self.gpus < 0:
            raise UsageError(f"--worker-gpus: expected 0 or more, found {self.gpus!r}.")

    @property
    def cores(self) -> int:
        """Of a worker, of which many work at the same time."""
        return 1 if self.cpus is None else self.cpus


def as_ray(on: str | Ray) -> Ray:
    """The cluster that `on` names: 'ray', 'ray://HOST:PORT', or a `Ray`, as it is.

    Raises:
      UsageError: it names none.
    """
    if isinstance(on, Ray):
        return on
    if on == "ray":
        return Ray()
    if on.startswith("ray://") and on.rpartition(":")[2].isdigit():
        return Ray(on)
    raise UsageError(f"--on: expected ray or ray://HOST:PORT, found {on!r}.")


def import_ray() -> Any:
    """Ray, or a sentence that says how to get it.

    Raises:
      UsageError: it is not installed.
    """
    # It tells of its usage statistics and of what will change in it.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise UsageError(
            f"--on ray needs Ray, which is not installed ({error}): run "
            "'pip install tfrobust[cluster]'."
        ) from error


@contextlib.contextmanager
def connected(cluster: Ray) -> Iterator[Any]:
    """The module `ray`, connected; what this opened ends with it.

    A connection that the process has already is used, and stays.

    Raises:
      UsageError: Ray is not installed, or no node is large enough for a worker.
      TFRobustError: the cluster cannot be reached.
    """
    ray = import_ray()
    if ray.is_initialized():
        _check_size(ray, cluster)
        yield ray
        return
    address = cluster.address or os.environ.get("RAY_ADDRESS")
    try:
        _connect(ray, address)
        _check_size(ray, cluster)
        yield ray
    finally:
        ray.shutdown()


def _connect(ray: Any, address: str | None) -> None:
    quiet = {"logging_level": "error", "log_to_driver": False}
    try:
        if address in (None, "", "local"):
            with _loopback():
                ray.init(address="local", include_dashboard=False, **quiet)
            _refuse_open(ray)
        else:
            ray.init(address=address, **quiet)
    # Ray raises ConnectionError, RuntimeError, TimeoutError, and errors of gRPC.
    except Exception as error:
        if isinstance(error, TFRobustError):
            raise
        first = first_line(error)
        raise TFRobustError(
            f"The Ray cluster at {address or 'this machine'} cannot be reached ({first}): check "
            "that it runs ('ray status' there), that --on or RAY_ADDRESS is its address, and that "
            "both sides have the same Ray and Python."
        ) from error


@contextlib.contextmanager
def _loopback() -> Iterator[None]:
    """A cluster that is started meanwhile listens on the loopback device alone.

    Ray makes 127.0.0.1 the address that the network knows, unless it is told that nodes are
    not to be reached; it reads that when it is imported.
    """
    constants: Any = importlib.import_module("ray._private.ray_constants")
    kept, before = constants.ENABLE_RAY_CLUSTER, os.environ.get(_REACHABLE)
    constants.ENABLE_RAY_CLUSTER = False
    os.environ[_REACHABLE] = "0"
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = kept
        del os.environ[_REACHABLE]
        if before is not None:
            os.environ[_REACHABLE] = before


def _refuse_open(ray: Any) -> None:
    """Refuses a cluster of our own that the network can reach: who reaches it can run code.

    Raises:
      TFRobustError: it is one.
    """
    found = {node["NodeManagerAddress"] for node in ray.nodes()}
    if found != {_LOOPBACK}:
        raise TFRobustError(
            f"Ray listens at {', '.join(sorted(found))} instead of {_LOOPBACK}: this release of "
            "Ray is not known; install one that 'pip install tfrobust[cluster]' chooses."
        )


def _check_size(ray: Any, cluster: Ray) -> None:
    """Refuses workers that are larger than any node.

    A cluster whose head works on nothing may have no other node yet: it grows when work waits.

    Raises:
      UsageError: they are.
    """
    largest = max((node["Resources"].get("CPU", 0) for node in alive(ray)), default=0)
    if 0 < largest < cluster.cores:
        raise UsageError(
            f"--worker-cpus {cluster.cores}: the largest node of the cluster has {largest:g}: "
            "lower it, or add a larger node."
        )


def alive(ray: Any) -> list[dict[str, Any]]:
    """The nodes that are there."""
    return [node for node in ray.nodes() if node["Alive"]]


def gpus_of(ray: Any, cluster: Ray) -> float:
    """How many GPUs a worker gets."""
    if cluster.gpus is not None:
        return cluster.gpus
    return 1 if any(node["Resources"].get("GPU", 0) >= 1 for node in alive(ray)) else 0


def slots(ray: Any, cluster: Ray) -> int:
    """How many workers fit on the nodes that are there."""
    gpus, found = gpus_of(ray, cluster), 0
    for node in alive(ray):
        fit = node["Resources"].get("CPU", 0) // cluster.cores
        if gpus:
            fit = min(fit, node["Resources"].get("GPU", 0) // gpus)
        found += int(fit)
    return found
