"""Workers for the batches of long work: threads of this process, or processes elsewhere."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from tfrobust.runtime import tf

#: The arguments of one call.
Piece = tuple[Any, ...]


class Workers(Protocol):
    """Runs many pieces of one kind of work, several at a time.

    A piece's result may depend only on its arguments, so that it does not matter which worker
    runs it, nor whether it runs twice.
    """

    def map(
        self, work: Any, method: str, pieces: Iterable[Piece], shared: Piece = ()
    ) -> Generator[list[Any], None, None]:
        """The results of `work.method(*shared, *piece)` for each piece, in order.

        Args:
          work: the object; it may be sent to other processes, once to each.
          method: the name of its method.
          pieces: the arguments that differ, consumed as needed.
          shared: the arguments common to all calls, also sent once.
        """
        ...


class Threads:
    """This process's own threads.

    Args:
      devices: names of the devices that work concurrently; none leaves the choice to
        TensorFlow.
      at_once: concurrent pieces; None is one on a GPU and two on a CPU, where cores are idle
        between small operations (two concurrent batches take two thirds to all of the time of
        two in sequence).
    """

    def __init__(self, devices: Sequence[str] = (), at_once: int | None = None) -> None:
        # With a single device there is nothing to distribute.
        self.devices = tuple(devices) if len(devices) > 1 else ()
        alone = at_once or (1 if tf.config.list_logical_devices("GPU") else 2)
        self._at_once = len(self.devices) or alone

    def map(
        self, work: Any, method: str, pieces: Iterable[Piece], shared: Piece = ()
    ) -> Generator[list[Any], None, None]:
        """As in `Workers`; a few pieces at once, with no work running while results are used."""
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
