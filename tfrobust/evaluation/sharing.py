"""One evaluation by several processes: who does which batches, and what they tell each other."""

from __future__ import annotations

import hashlib
import io
import json
import os
import socket
import struct
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

import numpy as np

from tfrobust.distribution import Worker, local_devices, worker_of
from tfrobust.errors import TFRobustError
from tfrobust.runtime import tf

Arrays = list[np.ndarray]
# Seconds that a worker waits for the others to start, and for an answer: a batch of a slow
# attack takes minutes.
_JOIN, _ANSWER = 300.0, 3600.0
# Seconds that whoever connects has to say who it is, and the most bytes of one message.
_HELLO, _MOST = 10.0, 2**34


class Share:
    """One worker's part of the work; this one has all of it.

    Args:
      devices: names of the devices that work on batches at the same time; none leaves the
        choice to TensorFlow.

    Attributes:
      worker: which one this is.
    """

    worker = Worker()

    def __init__(self, devices: Sequence[str] = ()) -> None:
        self.devices = tuple(devices)

    def map(
        self, pool: Executor, work: Callable[[np.ndarray], Arrays], wave: list[np.ndarray]
    ) -> list[Arrays]:
        """What `work` returns for each batch, of which each process does every so manieth."""
        worker = self.worker
        own = wave[worker.index :: worker.count]
        mine = list(pool.map(self._on_device(work), range(len(own)), own))
        parts = self.gather([array for found in mine for array in found])
        if worker.count == 1:
            return mine
        # All batches have as many arrays, and the first process has as many batches as any.
        each = len(parts[0]) // -(-len(wave) // worker.count)
        return [
            parts[i % worker.count][i // worker.count * each : (i // worker.count + 1) * each]
            for i in range(len(wave))
        ]

    def _on_device(
        self, work: Callable[[np.ndarray], Arrays]
    ) -> Callable[[int, np.ndarray], Arrays]:
        def on_device(number: int, index: np.ndarray) -> Arrays:
            if not self.devices:
                return work(index)
            with tf.device(self.devices[number % len(self.devices)]):
                return work(index)

        return on_device

    def gather(self, arrays: Sequence[np.ndarray]) -> list[Arrays]:
        """What every worker passed, by its index; all have to call it, as often."""
        return [list(arrays)]

    def close(self) -> None:
        """Ends the work with others."""


class Workers(Share):
    """The workers of TF_CONFIG, which meet at the chief's address over TCP.

    No collective of TensorFlow is needed: a batch's outcome depends on nothing but the
    batch, and what is exchanged is small. Arrays travel as `.npz` without pickles.

    Args:
      text: a TF_CONFIG.

    Raises:
      UsageError: it does not name workers and this process among them.
      TFRobustError: the others cannot be reached.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.worker = worker_of(text)
        cluster = json.loads(text)["cluster"]["worker"]
        host, _, port = cluster[0].rpartition(":")
        address = (host, int(port))
        # Who does not know the cluster is none of its workers.
        self._cluster = hashlib.sha256(json.dumps(cluster).encode()).digest()
        try:
            if self.worker.is_chief:
                self._others = self._accept(address)
            else:
                self._others = [_connect(address)]
                self._others[0].sendall(self._cluster + struct.pack("!Q", self.worker.index))
        except OSError as error:
            raise TFRobustError(
                f"Worker {self.worker.index} of {self.worker.count} cannot meet the others at "
                f"{host}:{port} ({error}): start all of them, with the same addresses."
            ) from error

    def _accept(self, address: tuple[str, int]) -> list[socket.socket]:
        """Connections to the other workers, by their index."""
        found: dict[int, socket.socket] = {}
        with socket.create_server(address) as server:
            server.settimeout(_JOIN)
            while len(found) < self.worker.count - 1:
                other, _ = server.accept()
                index = self._who(other)
                if index is None or index in found:
                    other.close()
                else:
                    found[index] = other
        return [found[index] for index in sorted(found)]

    def _who(self, other: socket.socket) -> int | None:
        """The index of the worker that has connected; None if it is something else."""
        other.settimeout(_HELLO)
        try:
            hello = _exactly(other, len(self._cluster) + 8)
        except (OSError, EOFError):
            return None
        (index,) = struct.unpack("!Q", hello[len(self._cluster) :])
        if hello[: len(self._cluster)] != self._cluster or not 0 < index < self.worker.count:
            return None
        other.settimeout(_ANSWER)
        return int(index)

    def gather(self, arrays: Sequence[np.ndarray]) -> list[Arrays]:
        """Through the chief, who sends all to all.

        Raises:
          TFRobustError: another worker has gone.
        """
        try:
            if not self.worker.is_chief:
                _send(self._others[0], arrays)
                return [_receive(self._others[0]) for _ in range(self.worker.count)]
            parts = [list(arrays), *map(_receive, self._others)]
            for other in self._others:
                for part in parts:
                    _send(other, part)
            return parts
        except (OSError, EOFError) as error:
            raise TFRobustError(
                f"Worker {self.worker.index} has lost another one ({error}): start all again with "
                "--resume to go on."
            ) from error

    def close(self) -> None:
        """Closes the connections."""
        for other in self._others:
            other.close()


def make_share(strategy: str) -> Share:
    """The share of this process: all of the work, on one device or on all, or a worker's part.

    Raises:
      UsageError: TF_CONFIG does not name the workers.
      TFRobustError: the others cannot be reached.
    """
    if strategy == "multiworker":
        return Workers(os.environ.get("TF_CONFIG", ""))
    devices = local_devices() if strategy == "mirrored" else ()
    # Nothing is to be spread where there is only one.
    return Share(devices if len(devices) > 1 else ())


def _connect(address: tuple[str, int]) -> socket.socket:
    end = time.monotonic() + _JOIN
    while True:
        try:
            found = socket.create_connection(address, timeout=_ANSWER)
        except OSError:
            # The chief may still be importing TensorFlow.
            if time.monotonic() > end:
                raise
            time.sleep(0.2)
        else:
            return found


def _send(connection: socket.socket, arrays: Sequence[np.ndarray]) -> None:
    file = io.BytesIO()
    np.savez(file, *arrays)
    content = file.getvalue()
    connection.sendall(struct.pack("!Q", len(content)) + content)


def _receive(connection: socket.socket) -> Arrays:
    (size,) = struct.unpack("!Q", _exactly(connection, 8))
    if size > _MOST:
        raise EOFError(f"a message of {size:,} bytes was announced")
    with np.load(io.BytesIO(_exactly(connection, size)), allow_pickle=False) as found:
        return [found[f"arr_{i}"] for i in range(len(found.files))]


def _exactly(connection: socket.socket, size: int) -> bytes:
    content = bytearray()
    while len(content) < size:
        part = connection.recv(min(size - len(content), 2**20))
        if not part:
            raise EOFError("the connection was closed")
        content += part
    return bytes(content)
