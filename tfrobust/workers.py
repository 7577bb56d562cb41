"""Who does the batches of a long piece of work: threads of this process, or others elsewhere."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from tfrobust.runtime import tf

#: The arguments of one call.
Piece = tuple[Any, ...]


class Workers(Protocol):
    """Does many pieces of one kind of work, several at a time.

    What a piece returns may depend on its arguments alone, so that it does not matter who
    does it, nor whether it is done twice.
    """

    def map(
        self, work: Any, method: str, pieces: Iterable[Piece], shared: Piece = ()
    ) -> Generator[list[Any], None, None]:
        """What `work.method(*shared, *piece)` returns for each piece, in order, some at a time.

        Args:
          work: the object; it may be sent to other processes, once to each.
          method: the name of its method.
          pieces: the arguments that differ, taken as they are needed.
          shared: the arguments that all calls have in common, sent once too.
        """
        ...


class Threads:
    """This process's own threads.

    Args:
      devices: names of the devices that work at the same time; none leaves the choice to
        TensorFlow.
      at_once: pieces at the same time; None is what pays: one on a GPU, two on a CPU, where
        cores stand idle between small operations (two batches at once take two thirds to all
        of the time of one after the other).
    """

    def __init__(self, devices: Sequence[str] = (), at_once: int | None = None) -> None:
        # Nothing is to be spread where there is only one.
        self.devices = tuple(devices) if len(devices) > 1 else ()
        alone = at_once or (1 if tf.config.list_logical_devices("GPU") else 2)
        self._at_once = len(self.devices) or alone

    def map(
        self, work: Any, method: str, pieces: Iterable[Piece], shared: Piece = ()
    ) -> Generator[list[Any], None, None]:
        """As in `Workers`; a few pieces at once, and nothing runs while they are taken in."""
        call = getattr(work, method)

        def one(number: int, piece: Piece) -> Any:
            if not self.devices:
                return call(*shared, *piece)
            with tf.device(self.devices[number % len(self.devices)]):
                return call(*shared, *piece)

        left = iter(pieces)
        with ThreadPoolExecutor(self._at_once) as pool:
            while some := list(itertools.islice(left, self._at_once)):
                yield list(pool.map(one, range(len(some)), some))
