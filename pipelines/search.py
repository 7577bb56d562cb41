"""Searches for the best settings: many trainings, one table, the best of them, figures.

python -m pipelines.search --recipe digits --output searches/digits \\
    --space "batch_size=32,64,128;learning_rate=1e-3..1e-1:log:3"
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.cli import Names, add_settings, given_settings, main_of, new_parser, read_recipe
from pipelines.plan import make_plan, shown_in_help
from pipelines.train import GROUPS, build_network, recipe_help
from tfrobust.backbones import BACKBONES
from tfrobust.config import RunConfig
from tfrobust.errors import UsageError
from tfrobust.run import write_text
from tfrobust.search.plan import OBJECTIVES, SAMPLERS
from tfrobust.search.trial_folder import USUAL_STUDY
from tfrobust.training.defaults import AUTO

SPACE_HELP = """\
spaces:
  "batch_size=32,64,128"             these values
  "learning_rate=1e-5..1e-3:log:4"   4 points in equal ratios (without :log in equal steps;
                                     5 points if none are named; random and tpe draw from
                                     the whole range)
  "blocks=0,1,2,3;weights=imagenet,saved_models/baseline"
                                     several factors; weights may be a run folder
  Named factors: batch_size, learning_rate, epochs, blocks (how many train besides the head),
  weights (the initialisation), adv_weight, eps, steps. Any other setting goes by its dotted
  name: training.momentum, augment.flip, backbone.dropout, stages.2.learning_rate.
  In a recipe:
    search:
      sampler: grid
      space: {batch_size: [32, 64], learning_rate: "1e-5..1e-3:log:4"}

A search that was killed goes on when the same command is run again, or with --output alone.
Several processes given the same --output (or the same --storage) share the trials.
"""
#: Of the recipe's section 'search', each with its default.
SECTION: dict[str, Any] = {
    "space": None, "sampler": "grid", "trials": 20, "objective": "clean", "refine": 0,
    "one_at_a_time": False, "cross": None, "prune": False, "perturbed_train": None,
    "perturbed_validation": None, "study": USUAL_STUDY, "storage": None,
}  # fmt: skip
_TYPES = {"trials": int, "refine": int, "one_at_a_time": bool, "prune": bool}


def make_parser(words: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The flags of `pipelines.search`; the help shows the values that `words` lead to."""
    parser = new_parser("search", "Search for the best settings of a training.")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = SPACE_HELP
    parser.add_argument("--recipe", default=None, help=recipe_help() + "; may hold 'search:'")
    parser.add_argument(
        "--output", required=True, help="folder for trials, table, best settings and figures"
    )
    parser.add_argument(
        "--epochs", type=int, default=None, help="epochs of the training (default: the stages')"
    )
    parser.add_argument(
        "--learning-rate", type=float, default=None,
        help="learning rate at its height (default: the stages')",
    )  # fmt: skip
    _add_search_flags(parser.add_argument_group("search settings (default: the recipe's, else)"))
    choices = {"backbone": Names([*BACKBONES, AUTO])}
    add_settings(parser, GROUPS[:-1], choices, shown_in_help(words))
    return parser


def _add_search_flags(group: Any) -> None:
    def add(name: str, help: str, **kwargs: Any) -> None:
        default = SECTION.get(name.replace("-", "_"))
        tail = "" if default in (None, False) else f" (default: {default})"
        group.add_argument(f"--{name}", default=None, help=help + tail, **kwargs)

    flag = argparse.BooleanOptionalAction
    add("space", "what is varied, see below")
    add("sampler", "grid: every combination; random; tpe: goes by the results", choices=SAMPLERS)
    add("trials", "how many trials, for random and tpe", type=int, metavar="N")
    add("objective", "accuracy to maximise: on select, under PGD, on a perturbed set, or the "
        "Pareto front of clean and robust", choices=OBJECTIVES)  # fmt: skip
    add("refine", "finer grids that follow, each around the best point", type=int, metavar="ROUNDS")
    add("one-at-a-time", "vary each factor alone, the others as in the recipe", action=flag)
    add("cross", "combine this factor with each other one, with --one-at-a-time", metavar="FACTOR")
    add("prune", "stop trials that are worse than the median of the others (objective clean or "
        "robust)", action=flag)  # fmt: skip
    add("perturbed-train", "measure every trial on this .npz file of pipelines.perturb",
        metavar="FILE")  # fmt: skip
    add("perturbed-validation", "the same for this file", metavar="FILE")
    add("study", "name of the study in the database; of another than the usual name, trials are in "
        "OUTPUT/trials/NAME-0000 and so on", metavar="NAME")  # fmt: skip
    add("storage", "database that machines share, such as postgresql://user:password@host/name "
        "(default: OUTPUT/search.db)", metavar="URL")  # fmt: skip
    group.add_argument(
        "--isolate", action=argparse.BooleanOptionalAction, default=True,
        help="a process for each trial: a crash costs one trial, and memory does not grow by some "
        "20 MB a trial, but each starts TensorFlow anew (default: yes)",
    )  # fmt: skip
    group.add_argument(
        "--retry-failed", action="store_true", help="do the trials again that failed before"
    )


def work(args: argparse.Namespace) -> None:
    """The whole search, from the flags to the figures."""
    folder = Path(args.output)
    saved = folder / "search.yaml"
    if saved.is_file() and not (args.recipe or args.space or given_settings(args)):
        args.recipe = str(saved)
    section = make_section(args)
    config = _config(args)
    search, files = make_search(section, config)
    if section["storage"] and ":***@" in section["storage"]:
        raise UsageError(f"{saved} does not hold the database's password: add --storage URL.")
    run(search, section, files, args)


def _config(args: argparse.Namespace) -> RunConfig:
    """The settings to search around; the images are read where they are chosen for these."""
    plan = make_plan(args)
    if not plan.chosen:
        return plan.config
    from pipelines.loading import load_splits
    from tfrobust.runtime import import_quietly

    import_quietly()
    return plan.settle(load_splits(plan.config.data, plan.config.seed))


def make_section(args: argparse.Namespace) -> dict[str, Any]:
    """The search settings: flags over the recipe's section over defaults, checked.

    Raises:
      UsageError: an unknown name, or a value of the wrong type.
    """
    given = (read_recipe(args.recipe).get("search") or {}) if args.recipe else {}
    if not isinstance(given, dict) or not given.keys() <= SECTION.keys():
        found = ", ".join(given.keys() - SECTION.keys()) if isinstance(given, dict) else given
        raise UsageError(f"search: expected some of {', '.join(SECTION)}, found {found}.")
    flags = {name: getattr(args, name) for name in SECTION}
    section = SECTION | given | {k: v for k, v in flags.items() if v is not None}
    for name, choices in (("sampler", SAMPLERS), ("objective", OBJECTIVES)):
        if section[name] not in choices:
            expected = ", ".join(choices)
            raise UsageError(f"{name}: expected one of {expected}, found {section[name]!r}.")
    for name, kind in _TYPES.items():
        least = 1 if name == "trials" else 0
        if type(section[name]) is not kind or section[name] < least:
            expected = "true or false" if kind is bool else f"a whole number from {least}"
            raise UsageError(f"{name}: expected {expected}, found {section[name]!r}.")
    if args.trials is not None and section["sampler"] == "grid":
        raise UsageError("--trials is for --sampler random and tpe: a grid does all its points.")
    if not section["space"]:
        raise UsageError('--space is missing, such as "batch_size=32,64;epochs=5,10": see --help.')
    return section


def make_search(section: dict[str, Any], config: RunConfig) -> tuple[Any, dict[str, str | None]]:
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
    chosen = {k: section[k] for k in ("objective", "sampler", "trials", "refine", "one_at_a_time",
                                      "cross", "prune")}  # fmt: skip
    return Search(space=parse_space(section["space"]), config=config, **chosen), files


def run(
    search: Any, section: dict[str, Any], files: dict[str, str | None], args: argparse.Namespace
) -> None:
    """Does the trials, then writes and prints what they found."""
    from pipelines.loading import load_splits
    from tfrobust.search.isolate import Isolated
    from tfrobust.search.objective import Training
    from tfrobust.search.report import write_report
    from tfrobust.search.study import Searcher

    folder = Path(args.output)
    # In one process the images are read once.
    load = load_splits if args.isolate else functools.lru_cache(maxsize=1)(load_splits)
    objective: Any = Training(config=search.config, load=load, build=build_network, **files)
    searcher = Searcher(
        search, Isolated(objective) if args.isolate else objective, folder,
        name=section["study"], url=section["storage"], retry_failed=args.retry_failed,
    )  # fmt: skip
    write_text(folder / "search.yaml", _as_recipe(search, section))
    print(_heading(search, folder), flush=True)
    rows = searcher.run()
    print(write_report(search, rows, folder), flush=True)


def _as_recipe(search: Any, section: dict[str, Any]) -> str:
    """The resolved settings, which --recipe takes; without a password."""
    import yaml

    from tfrobust.search.storage import shown
    from tfrobust.settings import to_dict

    kept = {k: v for k, v in section.items() if v is not None}
    if section["storage"]:
        kept["storage"] = shown(section["storage"])
    return yaml.safe_dump({**to_dict(search.config), "search": kept}, sort_keys=False)


def _heading(search: Any, folder: Path) -> str:
    factors = "\n".join(
        f"  {f.name}: {', '.join(map(str, f.values))}" if f.low is None or search.sampler == "grid"
        else f"  {f.name}: {f.low:g} to {f.high:g}{', log' if f.log else ''}"
        for f in search.space
    )  # fmt: skip
    count = len(search.first_points()) or search.trials
    kind = "one factor at a time" if search.one_at_a_time else search.sampler
    finer = f", then {search.refine} finer" if search.refine else ""
    return f"Search in {folder}: {kind}, {count} trials{finer}, by {search.objective}.\n{factors}"


main = main_of(work, make_parser)

if __name__ == "__main__":
    raise SystemExit(main())
