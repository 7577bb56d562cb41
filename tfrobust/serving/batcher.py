"""Batches requests that arrive together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias, TypeVar

import numpy as np

from tfrobust.serving.gate import Busy, Gate

Result = TypeVar("Result")
_Waiting: TypeAlias = "tuple[np.ndarray, asyncio.Future[np.ndarray]]"


class Batcher:
    """Collects single images into batches and runs the batches one after the other.

    A batch starts as soon as the model is free and `max_batch` images are queued, or the first of
    them has waited `wait` seconds. Guarantees: each image gets its own answer, whatever batch it
    runs in; an image whose batch fails gets that batch's error; after `stop` all accepted images
    have been answered.

    Args:
      run: float32 [N, H, W, 3] -> array of N rows; called in a separate thread.
      max_batch: maximum batch size.
      wait: maximum seconds that an image waits for others.
      queue: maximum number of queued images; a further one raises `Busy`.
      calls: maximum number of running and queued `call`s; a further one raises `Busy`.
      on_batch: called with the size of each batch.
    """

    def __init__(
        self,
        run: Callable[[np.ndarray], np.ndarray],
        *,
        max_batch: int = 32,
        wait: float = 0.003,
        queue: int = 512,
        calls: int = 16,
        on_batch: Callable[[int], None] | None = None,
    ) -> None:
        self._run, self._max, self._wait, self._on_batch = run, max_batch, wait, on_batch
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue(queue)
        self._calls, self._call = Gate(calls), asyncio.Lock()
        # One thread: TensorFlow uses all cores for one batch, and two would compete for them.
        self._thread = ThreadPoolExecutor(1, "model")
        self._worker: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Images in the queue, and running or queued calls."""
        return self._queue.qsize() + self._calls.held

    def start(self) -> None:
        """Starts the worker; to be called inside the event loop."""
        self._worker = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Answers everything queued, then stops."""
        await self._queue.join()
        if self._worker:
            self._worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._worker
        self._thread.shutdown()

    async def submit(self, *images: np.ndarray) -> list[np.ndarray]:
        """The model's answer for each image, float32 [H, W, 3].

        Raises:
          Busy: the queue has no room for all of them; none is accepted.
        """
        if self._queue.qsize() + len(images) > self._queue.maxsize:
            raise Busy
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[np.ndarray]] = [loop.create_future() for _ in images]
        for pair in zip(images, futures, strict=True):
            self._queue.put_nowait(pair)
        return await asyncio.gather(*futures)

    async def call(self, work: Callable[[], Result]) -> Result:
        """Runs something else on the model, between two batches.

        Raises:
          Busy: too many calls are queued.
        """
        # One by one: a batch that arrives meanwhile waits for one of them, not for all.
        with self._calls.holding():
            async with self._call:
                return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _work(self) -> None:
        while True:
            taken = [await self._queue.get()]
            await self._collect(taken)
            await self._answer(taken)
            for _ in taken:
                self._queue.task_done()

    async def _collect(self, taken: list[_Waiting]) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._wait
        while len(taken) < self._max:
            left = deadline - loop.time()
            try:
                if self._queue.empty() and left > 0:
                    taken.append(await asyncio.wait_for(self._queue.get(), left))
                else:
                    taken.append(self._queue.get_nowait())
            except (asyncio.TimeoutError, asyncio.QueueEmpty):
                return

    async def _answer(self, taken: list[_Waiting]) -> None:
        # Skip images whose client has disconnected.
        active = [(image, future) for image, future in taken if not future.cancelled()]
        if not active:
            return
        if self._on_batch:
            self._on_batch(len(active))
        batch = np.stack([image for image, _ in active])
        loop = asyncio.get_running_loop()
        try:
            rows = await loop.run_in_executor(self._thread, self._run, batch)
        # Any exception is the answer to these requests; the worker continues.
        except Exception as error:
            for _, future in active:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), row in zip(active, rows, strict=True):
            if not future.done():
                future.set_result(row)
