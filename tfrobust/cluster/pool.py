"""Batches done by the workers of a Ray cluster: elsewhere if one dies, in order all the same."""

from __future__ import annotations

import contextlib
import itertools
import time
import uuid
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from typing import Any

from tfrobust.cluster.connection import Ray, as_ray, connected, gpus_of, slots
from tfrobust.cluster.packing import pack
from tfrobust.cluster.worker import Sent, do, manner_of
from tfrobust.errors import TFRobustError, first_line
from tfrobust.workers import Piece, Workers

# How often a piece is tried again whose process or node died: it may be what killed it.
_TRIES = 8
# Pieces under way for each worker: the next is there when one ends, and memory stays flat.
_AHEAD = 2
# Seconds between two looks at how many nodes there are, and without any before it is an error.
_LOOK, _PATIENCE = 5.0, 600.0


class RayWorkers:
    """The processes of a Ray cluster, each of which loads a model once.

    Pieces are Ray tasks: Ray places them, and tries those again elsewhere whose process or
    node dies; nodes that come later get their share. The driver holds no more than a few
    pieces for each worker.

    Args:
      ray: the module, connected.
      cluster: how large a worker is.
    """

    def __init__(self, ray: Any, cluster: Ray) -> None:
        self._ray, self._cluster = ray, cluster
        gpus = gpus_of(ray, cluster)
        # A process that has used a GPU ends with its task otherwise, and its model with it.
        self._task = ray.remote(
            num_cpus=cluster.cores, num_gpus=gpus, max_retries=_TRIES, max_calls=0
        )(do)
        self._slots, self._looked = slots(ray, cluster), time.monotonic()
        self._known: dict[int, tuple[Any, Sent]] = {}

    def map(
        self, work: Any, method: str, pieces: Iterable[Piece], shared: Piece = ()
    ) -> Generator[list[Any], None, None]:
        """As in `Workers`, one at a time.

        Raises:
          TFRobustError: what the piece raised, or it cannot be done: its processes die, or no
            node is left.
        """
        manner = manner_of(self._cluster.cores)
        sent, common = self._sent(work), self._pack(shared)
        left, under_way = iter(pieces), deque[Any]()
        try:
            while True:
                room = _AHEAD * self._count() - len(under_way)
                for piece in itertools.islice(left, max(room, 0 if under_way else 1)):
                    call = self._task.remote(manner, sent, common, method, piece)
                    under_way.append(call)
                if not under_way:
                    return
                yield [self._result(under_way.popleft())]
        finally:
            for reference in under_way:
                self._ray.cancel(reference)

    def _sent(self, work: Any) -> Sent:
        """The object in the cluster, packed once; it is held here, so that its id stays its own."""
        if id(work) not in self._known:
            self._known[id(work)] = work, self._pack(work)
        return self._known[id(work)][1]

    def _pack(self, value: Any) -> Sent:
        return Sent(uuid.uuid4().hex, [self._ray.put(pack(value))])

    def _count(self) -> int:
        """How many workers there are at the moment."""
        if time.monotonic() - self._looked > _LOOK:
            self._slots, self._looked = slots(self._ray, self._cluster), time.monotonic()
        return self._slots

    def _result(self, reference: Any) -> Any:
        seen = time.monotonic()
        while not self._ray.wait([reference], timeout=_LOOK)[0]:
            if self._count():
                seen = time.monotonic()
            elif time.monotonic() - seen > _PATIENCE:
                raise TFRobustError(
                    f"The cluster has had no node for a worker for {_PATIENCE:.0f} s: add one and "
                    "start again with --resume."
                )
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise _told(error.cause) from error
        except self._ray.exceptions.RayError as error:
            first = first_line(error)
            raise TFRobustError(
                f"A batch was tried {_TRIES + 1} times, and its worker died each time, of too "
                f"little memory perhaps ({first}): give workers more of a node with --worker-cpus, "
                "or take smaller batches."
            ) from error


def _told(cause: BaseException) -> TFRobustError:
    if isinstance(cause, TFRobustError):
        return cause
    if isinstance(cause, ModuleNotFoundError):
        return TFRobustError(
            f"A node of the cluster lacks a package ({cause}): install tfrobust there, with all "
            "that your own layers and attacks need."
        )
    text = " ".join(str(cause).split())
    return TFRobustError(f"A worker of the cluster failed ({type(cause).__name__}: {text}).")


@contextlib.contextmanager
def opened_workers(on: str | Ray | None) -> Iterator[Workers | None]:
    """The workers of the cluster that `on` names, as `as_ray` reads it; None for None.

    Raises:
      UsageError: Ray is not installed, `on` names no cluster, or no node is large enough.
      TFRobustError: the cluster cannot be reached.
    """
    if on is None:
        yield None
        return
    cluster = as_ray(on)
    with connected(cluster) as ray:
        yield RayWorkers(ray, cluster)
