"""The job that searches for the best settings: many trainings, one table, the best of them."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfrobust.config import RunConfig
from tfrobust.errors import UsageError
from tfrobust.io import write_text
from tfrobust.jobs.images import load_splits
from tfrobust.jobs.plan import Plan, as_plan
from tfrobust.jobs.recipes import read_recipe
from tfrobust.progress import Tell, silent
from tfrobust.search.plan import OBJECTIVES, SAMPLERS
from tfrobust.search.trial_folder import USUAL_STUDY

if TYPE_CHECKING:
    from tfrobust.cluster import Ray
    from tfrobust.data.types import Splits
    from tfrobust.search.plan import Search
    from tfrobust.search.results import Row
    from tfrobust.search.study import Objective

#: Of the recipe's section 'search', each with its default.
SECTION: dict[str, Any] = {
    "space": None,
    "sampler": "grid",
    "trials": 20,
    "objective": "clean",
    "refine": 0,
    "one_at_a_time": False,
    "cross": None,
    "prune": False,
    "perturbed_train": None,
    "perturbed_validation": None,
    "study": USUAL_STUDY,
    "storage": None,
}
_TYPES = {"trials": int, "refine": int, "one_at_a_time": bool, "prune": bool}


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
      folder: with trials, table, best settings and figures.
      rows: one for each trial.
    """

    folder: Path
    rows: tuple[Row, ...]


def search(
    plan: Plan | RunConfig,
    section: Mapping[str, Any],
    folder: Path | str,
    *,
    isolate: bool = True,
    retry_failed: bool = False,
    on: str | Ray | None = None,
    tell: Tell = silent,
) -> SearchResult:
    """Trains with many settings, measures each on 'select', and reports the best.

    Run again with the same arguments it goes on with what is there; several processes given the
    same folder share the trials.

    Args:
      plan: the settings to search around, from `make_plan`, or a whole configuration.
      section: how to search: from `make_section`, or some of `SECTION`.
      folder: for trials, table, best settings and figures.
      isolate: a process for each trial, so that a crash costs one trial.
      retry_failed: do the trials again that failed before.
      on: do trials at the same time on a Ray cluster: 'ray', 'ray://HOST:PORT', or a
        `cluster.Ray`; each has a process of its own there, and `folder` is one that all nodes see.
      tell: takes the heading and the report.

    Raises:
      UsageError: a space, a combination of settings, or a file is wrong, or a cluster without Ray
        installed.
    """
    from tfrobust.search.objective import Training
    from tfrobust.search.report import write_report
    from tfrobust.search.study import Searcher

    folder, section = Path(folder), make_section(section)
    found, files = make_search(section, _settled(as_plan(plan)))
    if section["storage"] and ":***@" in section["storage"]:
        saved = folder / "search.yaml"
        raise UsageError(f"{saved} does not have the database's password: add --storage URL.")
    # In one process the images are read once.
    load = load_splits if isolate or on is not None else functools.lru_cache(maxsize=1)(load_splits)
    objective = Training(config=found.config, load=load, build=_build, **files)
    with _placed(objective, isolate, on) as placed:
        searcher = Searcher(
            found,
            placed,
            folder,
            name=section["study"],
            url=section["storage"],
            retry_failed=retry_failed,
        )
        write_text(folder / "search.yaml", _as_recipe(found, section))
        tell(_heading(found, folder))
        rows = searcher.run()
    tell(write_report(found, rows, folder))
    return SearchResult(folder, tuple(rows))


@contextlib.contextmanager
def _placed(objective: Objective, isolate: bool, on: str | Ray | None) -> Iterator[Objective]:
    """The objective as it runs: on a cluster, in processes of its own, or in this one."""
    from tfrobust.cluster import as_ray, connected
    from tfrobust.search.isolate import Isolated

    if on is None:
        yield Isolated(objective) if isolate else objective
        return
    from tfrobust.search.on_ray import OnRay

    cluster = as_ray(on)
    with connected(cluster) as ray:
        yield OnRay(objective, ray, cluster)


def _build(config: RunConfig, splits: Splits) -> Any:
    """The network of a trial; notes go to the log."""
    from tfrobust.jobs.network import build_network

    return build_network(config, splits, print)


def _settled(plan: Plan) -> RunConfig:
    """The settings to search around; the images are read where they are chosen for these."""
    if not plan.chosen:
        return plan.config
    from tfrobust.runtime import import_quietly

    import_quietly()
    return plan.settle(load_splits(plan.config.data, plan.config.seed))


def make_section(given: Mapping[str, Any], recipe: str | None = None) -> dict[str, Any]:
    """The search settings: those given over the recipe's section over defaults, checked.

    Args:
      given: some of `SECTION`; None omits one.
      recipe: a recipe's name or a YAML file, whose section 'search' is taken.

    Raises:
      UsageError: an unknown name, or a value of the wrong type.
    """
    values = {k: v for k, v in given.items() if v is not None}
    named = (read_recipe(recipe).get("search") or {}) if recipe else {}
    for one in (named, values):
        if not isinstance(one, dict) or not one.keys() <= SECTION.keys():
            found = ", ".join(one.keys() - SECTION.keys()) if isinstance(one, dict) else one
            raise UsageError(f"search: expected some of {', '.join(SECTION)}, found {found}.")
    section = SECTION | named | values
    for name, choices in (("sampler", SAMPLERS), ("objective", OBJECTIVES)):
        if section[name] not in choices:
            expected = ", ".join(choices)
            raise UsageError(f"{name}: expected one of {expected}, found {section[name]!r}.")
    for name, kind in _TYPES.items():
        least = 1 if name == "trials" else 0
        if type(section[name]) is not kind or section[name] < least:
            expected = "true or false" if kind is bool else f"a whole number from {least}"
            raise UsageError(f"{name}: expected {expected}, found {section[name]!r}.")
    if not section["space"]:
        raise UsageError('--space is missing, such as "batch_size=32,64;epochs=5,10": see --help.')
    return section


def make_search(
    section: Mapping[str, Any], config: RunConfig
) -> tuple[Search, dict[str, str | None]]:
    """The search, and the perturbed sets' files by the metrics' names.

    Raises:
      UsageError: a space, a combination of settings, or a file is wrong.
    """
    from tfrobust.search.plan import Search
    from tfrobust.search.space import parse_space

    files = {name: section[name] for name in ("perturbed_train", "perturbed_validation")}
    for name, file in files.items():
        if file and not Path(file).expanduser().is_file():
            raise UsageError(
                f"--{name.replace('_', '-')}: expected an .npz file of pipelines.perturb, found "
                f"no file {file}."
            )
    objective = section["objective"].replace("-", "_")
    if objective in files and not files[objective]:
        raise UsageError(f"--objective {section['objective']} needs --{section['objective']} FILE.")
    chosen = {
        k: section[k]
        for k in ("objective", "sampler", "trials", "refine", "one_at_a_time", "cross", "prune")
    }
    return Search(space=parse_space(section["space"]), config=config, **chosen), files


def _as_recipe(search: Search, section: Mapping[str, Any]) -> str:
    """The resolved settings, which --recipe takes; without a password."""
    import yaml

    from tfrobust.search.storage import address
    from tfrobust.settings import to_dict

    kept = {k: v for k, v in section.items() if v is not None}
    if section["storage"]:
        kept["storage"] = address(section["storage"])
    return yaml.safe_dump({**to_dict(search.config), "search": kept}, sort_keys=False)


def _heading(search: Search, folder: Path) -> str:
    factors = "\n".join(
        f"  {f.name}: {', '.join(map(str, f.values))}"
        if f.low is None or search.sampler == "grid"
        else f"  {f.name}: {f.low:g} to {f.high:g}{', log' if f.log else ''}"
        for f in search.space
    )
    count = len(search.first_points()) or search.trials
    kind = "one factor at a time" if search.one_at_a_time else search.sampler
    finer = f", then {search.refine} finer" if search.refine else ""
    return f"Search in {folder}: {kind}, {count} trials{finer}, by {search.objective}.\n{factors}"
