"""Requests that arrive together run through the model together."""

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
    """Collects single images into batches and runs these one after the other.

    A batch starts as soon as the model is free and `max_batch` images wait, or the first
    of them has waited `wait` seconds. Guarantees: each image gets its own answer, in
    whatever batch it runs; an image whose batch fails gets that batch's error; after `stop`
    all that were taken have been answered.

    Args:
      run: float32 [N, H, W, 3] -> array of N rows; called in a thread of its own.
      max_batch: images in a batch.
      wait: seconds that an image waits for others.
      queue: images that may wait; one more raises `Busy`.
      calls: of `call` that may run or wait; one more raises `Busy`.
      on_batch: told the size of each batch.
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
        # One thread: TensorFlow uses all cores for one batch, and two would share them.
        self._thread = ThreadPoolExecutor(1, "model")
        self._worker: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Images in the queue, and calls that run or wait."""
        return self._queue.qsize() + self._calls.held

    def start(self) -> None:
        """Begins to work; to be called inside the event loop."""
        self._worker = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Answers all that wait, then ends."""
        await self._queue.join()
        if self._worker:
            self._worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._worker
        self._thread.shutdown()

    async def submit(self, *images: np.ndarray) -> list[np.ndarray]:
        """The model's answer for each image, float32 [H, W, 3].

        Raises:
          Busy: the queue has no room for all of them; none is taken then.
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
          Busy: too many calls wait.
        """
        # One by one: a batch that comes meanwhile waits for one of them, not for all.
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
        # Those whose client has gone away need no answer.
        asked = [(image, future) for image, future in taken if not future.cancelled()]
        if not asked:
            return
        if self._on_batch:
            self._on_batch(len(asked))
        batch = np.stack([image for image, _ in asked])
        loop = asyncio.get_running_loop()
        try:
            rows = await loop.run_in_executor(self._thread, self._run, batch)
        # Whatever it is: it is the answer to these requests, and the next batch goes on.
        except Exception as error:
            for _, future in asked:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), row in zip(asked, rows, strict=True):
            if not future.done():
                future.set_result(row)
