"""Trains a robust classifier, measures it, explains it and exports it.

python -m pipelines.train --backbone mobilenetv2
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from pipelines.attacks import check_attacks
from pipelines.cli import (
    DEFAULT_RECIPES,
    OWN_IMAGES_RECIPE,
    add_settings,
    given_settings,
    main_of,
    new_parser,
    recipe_names,
    resolve,
)
from pipelines.evaluate import REFERENCE_HELP
from tfrobust.attacks import ATTACKS, SUITES
from tfrobust.backbones import BACKBONES
from tfrobust.config import RunConfig
from tfrobust.data import DATASETS
from tfrobust.errors import UsageError
from tfrobust.run import RunFolder
from tfrobust.settings import from_dict, merge, save_yaml, to_dict
from tfrobust.training import METHODS
from tfrobust.training.recipe import check_trainable

GROUPS = ["", "data", "backbone", "threat", "training", "augment", "evaluation"]


def make_parser() -> argparse.ArgumentParser:
    """The flags of `pipelines.train`."""
    parser = new_parser(
        "train", "Train a robust classifier, measure it, explain it and export it, in one go."
    )
    parser.add_argument("--recipe", default=None, help=recipe_help())
    parser.add_argument(
        "--output", default=None, help="run folder (default: saved_models/DATASET-BACKBONE-METHOD)"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with a run that was killed or stopped"
    )
    parser.add_argument("--epochs", type=int, default=None, help="epochs of a one-stage run")
    parser.add_argument(
        "--learning-rate", type=float, default=None, help="learning rate of a one-stage run"
    )
    parser.add_argument(
        "--strategy", default="none", choices=("none", "mirrored", "multiworker"),
        help="what training is spread over: all GPUs of this machine, or the workers in TF_CONFIG",
    )  # fmt: skip
    parser.add_argument("--reference", default=None, help=REFERENCE_HELP)
    add_settings(parser, GROUPS, {"backbone": BACKBONES, "method": METHODS})
    parser.epilog = (
        f"Built-in data sets: {', '.join(DATASETS)}; or the path of a folder or zip with one "
        "folder per class, an .npz with x and y, or a .pt file. "
        f"Attacks: {', '.join([*ATTACKS, *SUITES])}."
    )
    return parser


def recipe_help() -> str:
    """The help of --recipe."""
    return (
        f"settings to start from: {', '.join(recipe_names())}, or a YAML file "
        f"(default: {', '.join(f'{k} for {k}' for k in DEFAULT_RECIPES)}, else "
        f"{OWN_IMAGES_RECIPE}); flags override it"
    )


def work(args: argparse.Namespace) -> None:
    """The whole job: train, evaluate, explain, export."""
    config = make_config(args)
    run = RunFolder(Path(args.output or default_output(config)))
    config = settle(run, config, args)
    from tfrobust.runtime import import_quietly

    import_quietly()
    finish(run, config, args)


def make_config(args: argparse.Namespace) -> RunConfig:
    """Recipe and flags as one checked configuration."""
    given = given_settings(args)
    dataset = given.get("data", {}).get("dataset", "digits")
    config = resolve(args.recipe, given, DEFAULT_RECIPES.get(dataset, OWN_IMAGES_RECIPE))
    check_attacks(config.evaluation)
    check_trainable(config)
    if args.epochs is None and args.learning_rate is None:
        return config
    if len(config.training.stages) != 1:
        raise UsageError(
            f"--epochs and --learning-rate are for a run of one stage, found "
            f"{len(config.training.stages)}: give --stages BLOCKS:EPOCHS:LEARNING_RATE,..."
        )
    changes = {"epochs": args.epochs, "learning_rate": args.learning_rate}
    stage = to_dict(config)["training"]["stages"][0]
    if args.epochs and args.epochs < stage["epochs"]:
        stage["warmup_epochs"] *= args.epochs / stage["epochs"]
    stage.update({name: value for name, value in changes.items() if value is not None})
    changed: RunConfig = from_dict(
        RunConfig, merge(to_dict(config), {"training": {"stages": [stage]}})
    )
    return changed


def default_output(config: RunConfig) -> str:
    """saved_models/<data set>-<backbone>-<method>."""
    data = Path(config.data.dataset).stem
    return f"saved_models/{data}-{config.backbone.name}-{config.training.method}"


def settle(run: RunFolder, config: RunConfig, args: argparse.Namespace) -> RunConfig:
    """The run's configuration: written for a new run, read back for one that resumes.

    Raises:
      UsageError: the folder holds a run already, or one with other settings.
    """
    if run.started() and args.resume:
        earlier = run.read_config()
        asked = bool(given_settings(args)) or args.recipe or args.epochs or args.learning_rate
        if asked and earlier != config:
            raise UsageError(
                f"--resume goes on with the settings in {run.config}, found others: leave the "
                "settings out, or start a new run in another --output."
            )
        return earlier
    if run.started():
        raise UsageError(
            f"{run.path} holds a run already: add --resume to go on with it, or choose another "
            "--output."
        )
    run.create()
    save_yaml(config, run.config)
    return config


def finish(run: RunFolder, config: RunConfig, args: argparse.Namespace) -> None:
    """Everything that needs TensorFlow."""
    from pipelines.evaluate import evaluate_run
    from pipelines.explain import explain_run
    from pipelines.export import export_run
    from pipelines.loading import load_splits
    from tfrobust.data.split import table
    from tfrobust.data.summary import describe
    from tfrobust.distribution import folder_of
    from tfrobust.evaluation.models import load_any
    from tfrobust.run import write_json
    from tfrobust.runtime import environment, setup

    strategy, worker = _join(run, config, args)
    if not worker.is_chief and strategy.num_replicas_in_sync == 1:
        print(f"Worker {worker.index} has nothing to do: training has ended.", flush=True)
        return
    setup(seed=config.seed, precision=config.training.precision)
    here = environment()
    print(f"Run folder: {run.path}\n{_machine(here, strategy, worker, args.strategy)}", flush=True)
    splits = load_splits(config.data, config.seed)
    if not worker.is_chief:
        with folder_of(worker, run) as own:
            train(own, config, splits, resume=args.resume, strategy=strategy, home=run)
        print(f"Worker {worker.index} is done; the chief goes on with the evaluation.", flush=True)
        return
    facts = {"seed": config.seed, "commit": _commit(), "data": _sizes(splits)}
    write_json(run.environment, {**here, **facts})
    print(f"{describe(splits, config.data.dataset)}\n{table(splits)}", flush=True)
    train(run, config, splits, resume=args.resume, strategy=strategy)
    setup(seed=config.seed)
    model = load_any(run.best_model)
    evaluate_run(
        model, splits.test, config, run, args.reference, run.path.name,
        trained=config, source=run.best_model, resume=args.resume,
        # The other workers have ended with the training.
        strategy="mirrored" if args.strategy == "mirrored" else "none",
    )  # fmt: skip
    if config.evaluation.figures:
        explain_run(model, splits.test, config, run)
    export_run(model, splits.test, run)


def _join(run: RunFolder, config: RunConfig, args: argparse.Namespace) -> tuple[Any, Any]:
    """The strategy, and this process's part in it.

    A chief that was killed after the training does the rest alone: the others have ended, and
    nothing would start them again.
    """
    from tfrobust.distribution import make_strategy, this_worker, worker_of

    if args.strategy == "multiworker" and args.resume and _has_trained(run, config):
        return make_strategy("none"), worker_of(os.environ.get("TF_CONFIG", ""))
    strategy = make_strategy(args.strategy)
    return strategy, this_worker(strategy)


def _has_trained(run: RunFolder, config: RunConfig) -> bool:
    try:
        stage = json.loads(run.state.read_text(encoding="utf-8"))["stage"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(stage >= len(config.training.stages))


def train(
    run: RunFolder, config: RunConfig, splits: Any, *, resume: bool, strategy: Any,
    home: RunFolder | None = None,
) -> None:  # fmt: skip
    """Builds the network, trains it and draws the curves."""
    from tfrobust.data.summary import save_figure
    from tfrobust.distribution import lost_workers, this_worker
    from tfrobust.training.curves import curves
    from tfrobust.training.fit import fit

    save_figure(splits, config.data.dataset, run.figures / "data.png")
    with strategy.scope():
        model = build_network(config, splits)
    with lost_workers(this_worker(strategy)):
        state = fit(model, splits, config, run, resume=resume, home=home)
    chosen = "the best" if config.training.choose == "best" else "the lowest loss"
    print(f"Kept the model of epoch {state.best_epoch}, {chosen} on 'select'.", flush=True)
    curves(state.rows, run.figures / "curves.png", state.elbow)


def build_network(config: RunConfig, splits: Any) -> Any:
    """The classifier that a configuration names, for the classes and images of `splits`."""
    from tfrobust.backbones import build

    backbone = config.backbone
    return build(
        backbone.name,
        num_classes=len(splits.train.label_names),
        image_shape=splits.train.image_shape,
        weights=backbone.weights,
        resize=backbone.resize,
        alpha=backbone.alpha,
        stem=backbone.stem,
        convolution=backbone.convolution,
        position_embedding=backbone.position_embedding,
        bn_momentum=backbone.bn_momentum,
        dropout=backbone.dropout,
        seed=config.seed,
    )


def _sizes(splits: Any) -> dict[str, Any]:
    sizes = {name: len(getattr(splits, name)) for name in ("train", "select", "test")}
    return {**sizes, "image_shape": list(splits.train.image_shape)}


def _machine(here: dict[str, Any], strategy: Any, worker: Any, asked: str) -> str:
    versions = here["packages"]
    gpus = ", ".join(here["gpus"]) or "no GPU"
    text = f"TensorFlow {versions['tensorflow']}, {here['cpus']} CPU cores, {gpus}."
    if strategy.num_replicas_in_sync > 1:
        text += (
            f" Worker {worker.index} of {worker.count}, {strategy.num_replicas_in_sync} replicas."
        )
    elif asked == "mirrored":
        text += " --strategy mirrored: found one device, which does all of the work."
    return text


def _commit() -> str | None:
    """The project's commit, where it is run from a checkout."""
    import subprocess

    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no git on this machine
        return None
    return found.stdout.strip() or None


main = main_of(work, make_parser())

if __name__ == "__main__":
    raise SystemExit(main())
