"""What is searched, and which points are tried: a grid, one factor at a time, a finer grid."""

from __future__ import annotations

import dataclasses
import itertools
import json
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tfrobust.config import RunConfig
from tfrobust.errors import UsageError
from tfrobust.search.space import Factor, Point, apply, base_value, spaced
from tfrobust.settings import to_dict

SAMPLERS = ("grid", "random", "tpe")
#: Objective -> its metrics (`results.METRICS`); two make a Pareto front.
OBJECTIVES = {
    "clean": ("clean",),
    "robust": ("robust",),
    "perturbed-train": ("perturbed_train",),
    "perturbed-validation": ("perturbed_validation",),
    "pareto": ("clean", "robust"),
}


@dataclass(frozen=True)
class Search:
    """The definition of a search.

    Attributes:
      space: the factors.
      config: the settings shared by all trials, except the factors.
      objective: name in `OBJECTIVES`; maximised.
      sampler: 'grid', 'random' or 'tpe'.
      trials: number of trials, for 'random' and 'tpe'.
      refine: number of finer grids to follow, each around the best point so far.
      one_at_a_time: vary each factor alone.
      cross: the factor that is combined with each of the others in that case.
      prune: stop trials that are worse than the median of the others at the same epoch.
    """

    space: tuple[Factor, ...]
    config: RunConfig
    objective: str = "clean"
    sampler: str = "grid"
    trials: int = 20
    refine: int = 0
    one_at_a_time: bool = False
    cross: str | None = None
    prune: bool = False

    def __post_init__(self) -> None:
        if self.sampler != "grid" and (self.refine or self.one_at_a_time):
            raise UsageError(
                "--refine and --one-at-a-time are for --sampler grid, found "
                f"--sampler {self.sampler}."
            )
        if self.refine and (self.one_at_a_time or self.objective == "pareto"):
            raise UsageError(
                "--refine follows the one best point of a grid: leave out --one-at-a-time and "
                "--objective pareto."
            )
        if self.cross is not None and not self.one_at_a_time:
            raise UsageError("--cross needs --one-at-a-time: a grid crosses all factors anyway.")
        measured = {"threat.norm", "threat.eps"} & {factor.setting for factor in self.space}
        if self.prune and (self.objective == "pareto" or (measured and self.objective != "clean")):
            raise UsageError(
                "--prune compares the robust accuracy of trials epoch by epoch: leave it out with "
                "--objective pareto, and where eps or norm is a factor."
            )
        if self.prune and self.objective.startswith("perturbed"):
            raise UsageError(
                "--prune compares trials epoch by epoch, but perturbed sets only after "
                f"the last one: leave it out with --objective {self.objective}."
            )
        for factor in self.space:
            for value in factor.values:
                apply(self.config, self.space, {factor.name: value})

    def first_points(self) -> list[Point]:
        """The points known before the first trial; none for 'tpe', which is guided by results."""
        if self.one_at_a_time:
            return one_at_a_time(self.space, self.config, self.cross)
        if self.sampler == "grid":
            return grid(self.space)
        if self.sampler == "random":
            return random_points(self.space, self.trials, self.config.seed)
        return []

    def spec(self) -> dict[str, Any]:
        """Plain values that identify a search; more trials or rounds may be added."""
        return {
            "space": {f.name: [f.setting, *f.values, f.low, f.high, f.log] for f in self.space},
            "objective": self.objective,
            "sampler": self.sampler,
            "one_at_a_time": self.one_at_a_time,
            "cross": self.cross,
            "config": to_dict(self.config),
        }


def grid(space: tuple[Factor, ...]) -> list[Point]:
    """Every combination of the factors' values; the last factor varies fastest."""
    names = [factor.name for factor in space]
    combinations = itertools.product(*(factor.values for factor in space))
    return [dict(zip(names, values, strict=True)) for values in combinations]


def one_at_a_time(
    space: tuple[Factor, ...], config: RunConfig, cross: str | None = None
) -> list[Point]:
    """Each factor varied alone, the others at the configuration's values.

    Args:
      space: the factors.
      config: the values of the others.
      cross: name of a factor, such as the initialisation, whose every value is combined
        with each value of each other factor.

    Returns:
      Points of all factors; a setting that two factors lead to is included once.

    Raises:
      UsageError: the factor `cross` does not exist.
    """
    names = [factor.name for factor in space]
    if cross is not None and cross not in names:
        raise UsageError(f"--cross: expected a factor of {', '.join(names)}, found {cross!r}.")
    base: Point = {factor.name: base_value(config, factor) for factor in space}
    crossed = [factor for factor in space if factor.name == cross]
    others = [factor for factor in space if factor.name != cross]
    sets = [(*crossed, factor) for factor in others] or [tuple(crossed)]
    return unique(base | point for varied in sets for point in grid(varied))


def unique(points: Iterable[Point]) -> list[Point]:
    """The points in order, without duplicates."""
    return list({key_of(point): point for point in points}.values())


def key_of(point: Point) -> str:
    """A key that depends on the values and not on their order."""
    return json.dumps(point, sort_keys=True)


def finer(space: tuple[Factor, ...], best: Point) -> tuple[Factor, ...]:
    """The space of the next, finer grid: around the best point, at half the distance.

    A factor with numbers gets its best value and those half-way to its two neighbours (in ratios
    if the values are closer to equal ratios); it never leaves the range of the given values. Any
    other factor stays at its best value.
    """
    return tuple(_finer(factor, best[factor.name]) for factor in space)


def _finer(factor: Factor, best: typing.Any) -> Factor:
    if not factor.numeric:
        return dataclasses.replace(factor, values=(best,))
    values = sorted(typing.cast(list[float], list(factor.values)))
    at = values.index(best)
    low, high = values[max(at - 1, 0)], values[min(at + 1, len(values) - 1)]
    log = factor.geometric
    found: list[float] = [best]
    if low < best:
        found.append(spaced(low, best, 3, log=log, integer=factor.integer)[1])
    if high > best:
        found.append(spaced(best, high, 3, log=log, integer=factor.integer)[1])
    return dataclasses.replace(factor, values=tuple(sorted(set(found))), log=log)


def at_the_edge(space: tuple[Factor, ...], best: Point) -> list[str]:
    """The names of the factors whose best value is the smallest or largest one tried."""
    found = []
    for factor in space:
        if factor.numeric and len(factor.values) > 1:
            values = typing.cast(list[float], list(factor.values))
            if best[factor.name] in (min(values), max(values)):
                found.append(factor.name)
    return found


def random_points(space: tuple[Factor, ...], count: int, seed: int) -> list[Point]:
    """`count` points drawn by Optuna's random sampler; a larger count extends the sequence."""
    import optuna

    sampler = optuna.samplers.RandomSampler(seed=seed)
    study = optuna.create_study(sampler=sampler)
    points = []
    for _ in range(count):
        trial = study.ask()
        points.append({factor.name: suggest(trial, factor) for factor in space})
    return points


def suggest(trial: typing.Any, factor: Factor) -> typing.Any:
    """A value of the factor chosen by the study's sampler, from its list or its range."""
    import optuna

    trial = typing.cast(optuna.trial.Trial, trial)
    if factor.low is None or factor.high is None:
        return trial.suggest_categorical(factor.name, factor.values)
    if factor.integer:
        low, high = int(factor.low), int(factor.high)
        return trial.suggest_int(factor.name, low, high, log=factor.log)
    return trial.suggest_float(factor.name, factor.low, factor.high, log=factor.log)


def record(trial: Any, search: Search, point: Point) -> None:
    """Records planned values where Optuna, and its dashboard, look for parameters."""
    for factor in search.space:
        value, values = point[factor.name], factor.values
        if search.one_at_a_time:
            # The recipe's own value is a point too; Optuna requires the same choices in each trial.
            values = tuple(dict.fromkeys((*values, base_value(search.config, factor))))
        if not dataclasses.replace(factor, values=values).numeric:
            trial.suggest_categorical(factor.name, values)
        elif factor.integer:
            trial.suggest_int(factor.name, value, value)
        else:
            trial.suggest_float(factor.name, value, value)
