"""How long work takes on many workers, simulated event by event from times that were measured.

An evaluation is list scheduling as `tfrobust.cluster.pool` does it: the driver sends batches in
order, no more than a few for each worker, and takes their results in order; the next attack
begins when the last batch of the one before is in. A training step ends with its slowest worker.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: Batches under way for each worker, as the pool has them.
AHEAD = 2


@dataclass(frozen=True)
class Phase:
    """Batches that nothing but the driver holds up; at their end all wait for the last.

    Attributes:
      name: of the attack.
      seconds: float [n], of each batch, in order, on a worker that has traced the attack.
      first: seconds more that it takes each worker to trace the attack.
    """

    name: str
    seconds: np.ndarray
    first: float = 0.0


@dataclass(frozen=True)
class Machines:
    """Workers and their driver.

    Attributes:
      workers: how many there are.
      start: seconds until a worker's process has imported TensorFlow and opened the model.
      send: seconds of the driver for a batch that it sends.
      take: seconds of the driver for a result that it takes in.
    """

    workers: int
    start: float = 0.0
    send: float = 0.0
    take: float = 0.0


@dataclass(frozen=True)
class Spent:
    """What the work took.

    Attributes:
      seconds: from its begin to its end.
      busy: seconds of all workers together in batches, without starts and traces.
      driver: the part of `seconds` in which the driver sent or took in.
      phases: seconds of each phase, in order.
    """

    seconds: float
    busy: float
    driver: float
    phases: tuple[float, ...]

    def efficiency(self, workers: int) -> float:
        """The part of the workers' time that went into batches."""
        return self.busy / (workers * self.seconds)


def evaluation(phases: Sequence[Phase], machines: Machines) -> Spent:
    """Phases one after the other on the workers, each batch on the one that is free first."""
    clock, driver = 0.0, 0.0
    free = [(machines.start, worker) for worker in range(machines.workers)]
    spent: list[float] = []
    for phase in phases:
        begin, traced, ends = clock, set[int](), list[float]()
        for taken in range(len(phase.seconds)):
            most = min(len(phase.seconds), taken + AHEAD * machines.workers)
            for seconds in phase.seconds[len(ends) : most]:
                clock, driver = clock + machines.send, driver + machines.send
                ready, worker = heapq.heappop(free)
                end = max(ready, clock) + seconds + (0 if worker in traced else phase.first)
                traced.add(worker)
                ends.append(end)
                heapq.heappush(free, (end, worker))
            # Results are taken in order: one that is late holds up those behind it.
            clock, driver = max(clock, ends[taken]) + machines.take, driver + machines.take
        spent.append(clock - begin)
    busy = float(sum(phase.seconds.sum() for phase in phases))
    return Spent(clock, busy, driver, tuple(spent))


def training_step(
    steps: np.ndarray, workers: int, exchange: float, rng: np.random.Generator, draws: int = 4096
) -> float:
    """Mean seconds of a step that all workers do together.

    Args:
      steps: float [n], measured seconds of one worker's steps, from which each draws its own.
      workers: how many there are.
      exchange: seconds in which two exchange their gradients; a ring among n takes
        2 (n - 1) / n times as long.
      rng: of the draws.
      draws: steps that are simulated.
    """
    slowest = np.zeros(draws)
    for _ in range(workers):
        np.maximum(slowest, rng.choice(steps, draws), out=slowest)
    return float(slowest.mean()) + 2 * (workers - 1) / workers * exchange
