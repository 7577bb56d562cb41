"""Requests that arrive together run together; what is too much is refused at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from tfrobust.serving.batcher import Batcher
from tfrobust.serving.gate import Busy, Gate


def image(value: float) -> np.ndarray:
    return np.full((1, 1, 3), value, np.float32)


def run(work: Callable[[Batcher], Awaitable[None]], **settings: int) -> list[int]:
    """The sizes of the batches that `work` made; the model answers with the first pixel."""
    sizes: list[int] = []

    def model(batch: np.ndarray) -> np.ndarray:
        sizes.append(len(batch))
        return batch[:, 0, 0, :1]

    async def main() -> None:
        batcher = Batcher(model, **settings)
        batcher.start()
        await work(batcher)
        await batcher.stop()

    asyncio.run(main())
    return sizes


def test_a_request_is_taken_whole_or_not_at_all() -> None:
    async def work(batcher: Batcher) -> None:
        with pytest.raises(Busy):
            await batcher.submit(*(image(i) for i in range(4)))
        assert batcher.waiting == 0
        rows = await batcher.submit(*(image(i) for i in range(3)))
        assert [float(row[0]) for row in rows] == [0, 1, 2]

    assert run(work, queue=3) == [3]


def test_a_batch_waits_for_one_call_only() -> None:
    order: list[str] = []

    async def work(batcher: Batcher) -> None:
        async def call(number: int) -> None:
            await batcher.call(lambda: time.sleep(0.03))
            order.append(f"call {number}")

        async def predict() -> None:
            await asyncio.sleep(0.01)
            await batcher.submit(image(0))
            order.append("batch")

        await asyncio.gather(*(call(i) for i in range(4)), predict())

    run(work)
    assert order.index("batch") in (1, 2) and len(order) == 5


def test_calls_are_counted_and_limited() -> None:
    async def work(batcher: Batcher) -> None:
        tasks = [asyncio.create_task(batcher.call(lambda: time.sleep(0.02))) for _ in range(3)]
        await asyncio.sleep(0)
        assert batcher.waiting == 2
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(one) for one in found] == [type(None), type(None), Busy]
        assert batcher.waiting == 0

    run(work, calls=2)


def test_what_alone_is_too_much_passes_alone() -> None:
    gate = Gate(10)
    with gate.holding(11):
        with pytest.raises(Busy):
            gate.take()
        assert gate.held == 11
    with gate.holding(4), gate.holding(6), pytest.raises(Busy):
        gate.take()
    assert gate.held == 0
