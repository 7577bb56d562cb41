"""Trains a robust classifier, measures it, explains it and exports it.

python -m pipelines.train --backbone mobilenetv2
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.cli import (
    DEFAULT_RECIPES,
    Names,
    add_settings,
    given_settings,
    main_of,
    new_parser,
    read_recipe,
    recipe_names,
)
from pipelines.evaluate import REFERENCE_HELP
from pipelines.plan import Plan, make_plan, shown_in_help
from tfrobust.attacks import ATTACKS, SUITES
from tfrobust.backbones import BACKBONES
from tfrobust.config import RunConfig
from tfrobust.data import DATASETS
from tfrobust.errors import TFRobustError, UsageError
from tfrobust.run import GUESSES, RunFolder
from tfrobust.settings import from_dict, merge, save_yaml, to_dict
from tfrobust.tables import is_model_file
from tfrobust.training.defaults import AUTO

GROUPS = ["", "data", "backbone", "threat", "training", "augment", "evaluation"]


def make_parser(words: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The flags of `pipelines.train`.

    Args:
      words: the command line; its help shows the values that these flags lead to.
    """
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
    parser.add_argument(
        "--epochs", type=int, default=None, help="epochs of the training (default: the stages')"
    )
    parser.add_argument(
        "--learning-rate", type=float, default=None,
        help="learning rate at its height (default: the stages')",
    )  # fmt: skip
    parser.add_argument(
        "--export-anyway", action="store_true",
        help="export a model too that is no better than guessing",
    )  # fmt: skip
    parser.add_argument(
        "--strategy", default="none", choices=("none", "mirrored", "multiworker"),
        help="what training is spread over: all GPUs of this machine, or the workers in TF_CONFIG",
    )  # fmt: skip
    parser.add_argument("--reference", default=None, help=REFERENCE_HELP)
    choices = {"backbone": Names([*BACKBONES, AUTO])}
    add_settings(parser, GROUPS, choices, shown_in_help(words))
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
        f"(default: {', '.join(f'{k} for {k}' for k in DEFAULT_RECIPES)} and its network, else "
        "settings are chosen for the images, and printed); flags override it"
    )


def work(args: argparse.Namespace) -> None:
    """The whole job: train, evaluate, explain, export."""
    plan = make_plan(args)
    run = RunFolder(Path(args.output or default_output(plan.config)))
    earlier = earlier_config(run, args)
    from tfrobust.runtime import import_quietly

    import_quietly()
    finish(run, Plan(earlier) if earlier else plan, args)


def default_output(config: RunConfig) -> str:
    """saved_models/<data set>-<backbone>-<method>."""
    data = Path(config.data.dataset).stem
    names = (config.backbone.name, config.training.method.name)
    # A plug-in or file of the user's own is called by its last part.
    network, method = (Path(name).stem.rpartition(":")[2] for name in names)
    return f"saved_models/{data.rpartition(':')[2]}-{network}-{method}"


def earlier_config(run: RunFolder, args: argparse.Namespace) -> RunConfig | None:
    """The configuration of the run that is resumed; None for a new run.

    Raises:
      UsageError: the folder holds a run already, or one with other settings.
    """
    if not run.started():
        return None
    if not args.resume:
        raise UsageError(
            f"{run.path} holds a run already: add --resume to go on with it, or choose another "
            "--output."
        )
    earlier = run.read_config()
    asked = merge(_recipe_values(args), given_settings(args))
    if asked.get("backbone", {}).get("name") == AUTO:
        del asked["backbone"]["name"]
    changed: RunConfig = from_dict(RunConfig, merge(to_dict(earlier), asked))
    if changed != earlier or args.epochs is not None or args.learning_rate is not None:
        raise UsageError(
            f"--resume goes on with the settings in {run.config}, found others: leave the "
            "settings out, or start a new run in another --output."
        )
    return earlier


def _recipe_values(args: argparse.Namespace) -> dict[str, Any]:
    values = read_recipe(args.recipe) if args.recipe else {}
    return {name: value for name, value in values.items() if name not in ("search", "chosen")}


def finish(run: RunFolder, plan: Plan, args: argparse.Namespace) -> None:
    """Everything that needs TensorFlow."""
    from pipelines.loading import load_splits
    from tfrobust.data.contents import Seen
    from tfrobust.distribution import folder_of
    from tfrobust.run import write_json
    from tfrobust.runtime import environment, native_precision, setup

    strategy, worker = _join(run, plan.config, args)
    if not worker.is_chief and strategy.num_replicas_in_sync == 1:
        print(f"Worker {worker.index} has nothing to do: training has ended.", flush=True)
        return
    setup(seed=plan.config.seed)
    here = environment()
    print(f"Run folder: {run.path}\n{_machine(here, strategy, worker, args.strategy)}", flush=True)
    splits = load_splits(plan.config.data, plan.config.seed)
    config = native_precision(plan.settle(splits))
    setup(seed=config.seed, precision=config.training.precision)
    if not worker.is_chief:
        with folder_of(worker, run) as own:
            train(own, config, splits, resume=args.resume, strategy=strategy, home=run)
        print(f"Worker {worker.index} is done; the chief goes on with the evaluation.", flush=True)
        return
    run.create()
    save_yaml(config, run.config)
    facts = {"seed": config.seed, "commit": _commit(), "data": _sizes(splits)}
    write_json(run.environment, {**here, **facts})
    Seen.of(splits).save(run.seen)
    _introduce(config, splits)
    train(run, config, splits, resume=args.resume, strategy=strategy)
    publish(run, config, splits, args)


def _introduce(config: RunConfig, splits: Any) -> None:
    """Says what the images are, and what was chosen for them."""
    from tfrobust.data.split import table
    from tfrobust.data.summary import describe, remarks

    print(f"{describe(splits, config.data.dataset)}\n{table(splits)}", flush=True)
    for line in remarks(splits):
        print(f"Note: {line}.", flush=True)
    if config.chosen:
        print("\n".join(["Chosen for these images:", *(f"- {why}" for why in config.chosen)]),
              flush=True)  # fmt: skip


def publish(run: RunFolder, config: RunConfig, splits: Any, args: argparse.Namespace) -> None:
    """Measures the kept model, explains it and exports it, unless it has learnt nothing."""
    from pipelines.evaluate import evaluate_run
    from pipelines.explain import explain_run
    from pipelines.export import export_run
    from tfrobust.models.opening import load_any
    from tfrobust.runtime import setup

    setup(seed=config.seed)
    model = load_any(run.best_model)
    test, told = _unseen(run, splits.test)
    report = evaluate_run(
        model, test, config, run, args.reference, run.path.name,
        trained=config, source=run.best_model, resume=args.resume, intake={"notes": told},
        # The other workers have ended with the training.
        strategy="mirrored" if args.strategy == "mirrored" else "none",
    )  # fmt: skip
    failure = why_it_failed(run, report, splits)
    if failure and not args.export_anyway:
        raise TFRobustError(failure)
    if config.evaluation.figures:
        explain_run(model, splits.test, config, run)
    export_run(model, splits.test, run)


def _unseen(run: RunFolder, test: Any) -> tuple[Any, tuple[str, ...]]:
    """The test images that are not in train or select by their content, and what was left out.

    Where all are, all are kept, and it is told.
    """
    from pipelines.loading import without_seen

    try:
        test, told = without_seen(run.path, test)
    except UsageError:
        told = (f"all {len(test):,} test images are in train or select too, by their content: "
                "this is no test accuracy",)  # fmt: skip
    for line in told:
        print(f"Note: {line}.", flush=True)
    return test, told


def why_it_failed(run: RunFolder, report: Any, splits: Any) -> str | None:
    """One sentence where the kept model is no better than guessing: what was reached, and why."""
    from tfrobust.training.diagnosis import diagnose
    from tfrobust.training.state import read_state

    if not any(flag["name"] == GUESSES for flag in report.flags):
        return None
    rows = read_state(run).rows
    correct, total = int(report.clean.correct.sum()), len(report.labels)
    return (
        f"The model has learnt nothing: {correct} of {total} test images right, no better than "
        f"guessing; {diagnose(rows, splits.train.labels)}. Nothing was exported (--export-anyway "
        "does it all the same)."
    )


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
    if is_model_file(backbone.name):
        return own_network(Path(backbone.name), splits, backbone.bn_momentum)
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
        **backbone.settings,
    )


def own_network(path: Path, splits: Any, bn_momentum: float | None = None) -> Any:
    """The classifier in a model file as a flat tf_keras graph of [0, 1] images -> logits.

    Raises:
      UsageError: it is no graph of Keras's own layers, or of other classes or images.
      TFRobustError: the file cannot be read.
    """
    from tfrobust.models.classifier import as_classifier, as_graph
    from tfrobust.models.opening import load_any
    from tfrobust.training.batch_norm import batch_norm_layers

    shape, classes = splits.train.image_shape, len(splits.train.label_names)
    made = as_classifier(load_any(path), splits.train.pixels(slice(0, 64)))
    graph = as_graph(made, shape)
    if graph is None:
        raise UsageError(
            f"--backbone {path}: expected a graph of Keras's own layers, found another; from "
            "Python, tfrobust.robust(model, ...) trains any."
        )
    if made.classes != classes:
        raise UsageError(
            f"--backbone {path}: the model knows {made.classes} classes, the images have {classes}."
        )
    for line in made.notes:
        print(f"Note: {line}.", flush=True)
    if bn_momentum is not None:
        for layer in batch_norm_layers(graph):
            layer.momentum = bn_momentum
    return graph


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


main = main_of(work, make_parser)

if __name__ == "__main__":
    raise SystemExit(main())
