"""Adversarial training by stock NSL and ART compared with ours, at equal wall-clock time.

    python -m benchmarks.equal_time --recipe cifar10_30min --output equal-time
    python -m benchmarks.equal_time --only nsl --minutes 30 --output equal-time

Each trains the recipe's network on the recipe's batches, with its optimiser, batch size, radius,
weight decay and precision, for the same number of minutes, in a separate process; the learning rate
follows the recipe's schedule over these minutes. The last model is kept (ours: the best on
'select'), and all are attacked by the same AutoAttack on the same test images.

- tfrobust: `pipelines.train` with the recipe.
- nsl: stock `AdversarialRegularization`, clean and adversarial loss of equal weight,
  L-infinity, one step of eps from the image (`--nsl-steps` for more), clipped to [0, 1].
- art: `AdversarialTrainer` with `ProjectedGradientDescent`, 7 steps of eps / 4 from a random
  start, ratio 1, as in its `AdversarialTrainerMadryPGD`. ART is not a dependency of
  tfrobust: see benchmarks/attacks.py for how to install it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tfrobust.cli.command import exit_code
from tfrobust.config import RunConfig
from tfrobust.errors import TFRobustError
from tfrobust.jobs.recipes import resolve
from tfrobust.progress import Progress

TRAINERS = ("tfrobust", "nsl", "art")


def work(args: argparse.Namespace) -> None:
    """Trains all in turn, evaluates all in turn, and compares."""
    config = _config(args)
    output = Path(args.output)
    if args.train:
        _train_other(args.train, config, args, output / args.train)
        return
    names = args.only or list(TRAINERS)
    for name in names:
        _run(_training(name, args, output / name))
    for name in names:
        _run(_evaluation(name, args, output / name))
    models = [f"{name}={output / name}" for name in names]
    _run(["pipelines.compare", *models, "--output", str(output), "--title",
          f"{args.minutes:g} minutes of training"])  # fmt: skip


def _training(name: str, args: argparse.Namespace, run: Path) -> list[str]:
    where = ["--data", args.data] if args.data else []
    if name != "tfrobust":
        return ["benchmarks.equal_time", "--train", name, "--recipe", args.recipe, "--minutes",
                str(args.minutes), "--nsl-steps", str(args.nsl_steps), "--output",
                str(run.parent), *where]  # fmt: skip
    return ["pipelines.train", "--recipe", args.recipe, "--time-limit", str(args.minutes),
            "--output", str(run), "--limit", "500", "--no-figures", *where]  # fmt: skip


def _evaluation(name: str, args: argparse.Namespace, run: Path) -> list[str]:
    return ["pipelines.evaluate", str(run), "--attack", "pgd,autoattack", "--limit",
            str(args.images), "--eval-batch-size", "250", "--no-figures", "--resume"]  # fmt: skip


def _run(command: list[str]) -> None:
    print(f"\npython -m {' '.join(command)}", flush=True)
    if code := subprocess.run([sys.executable, "-m", *command], check=False).returncode:
        raise TFRobustError(f"{command[0]} failed (exit {code}, see above).")


def _config(args: argparse.Namespace) -> RunConfig:
    given = {"data": {"dataset": args.data}} if args.data else {}
    return resolve(args.recipe, given, None)


def _train_other(name: str, config: RunConfig, args: argparse.Namespace, run: Path) -> None:
    """Trains with another library and writes a run folder for `pipelines.evaluate`."""
    from tfrobust.backbones.precision import in_float32
    from tfrobust.jobs.images import load_splits
    from tfrobust.run import RunFolder
    from tfrobust.runtime import import_quietly
    from tfrobust.settings import save_yaml

    import_quietly()
    splits = load_splits(config.data, config.seed)
    model = _network(config, splits.train)
    step, learning_rate = {"nsl": _nsl, "art": _art}[name](model, config, args.nsl_steps)
    steps = _for_minutes(step, learning_rate, splits.train, config, args.minutes)
    print(f"{name}: {steps} steps, {steps * config.training.batch_size:,} images", flush=True)
    folder = RunFolder(run)
    folder.create()
    save_yaml(config, folder.config)
    in_float32(model).save(folder.best_model, save_format="keras")


def _network(config: RunConfig, train: Any) -> Any:
    """The recipe's network in its precision, so that all train in the same precision."""
    from tfrobust.backbones import build
    from tfrobust.runtime import setup

    setup(seed=config.seed, precision=config.training.precision)
    model = build(
        config.backbone.name, num_classes=len(train.label_names), image_shape=train.image_shape,
        **_options(config), seed=config.seed,
    )  # fmt: skip
    # NSL's wrapper would round the images under a mixed policy.
    setup(seed=config.seed)
    return model


def _options(config: RunConfig) -> dict[str, Any]:
    """The backbone's settings as arguments of `build`."""

    return {k: v for k, v in config.backbone.to_plain().items() if k != "name"}


def _for_minutes(
    step: Callable[[dict[str, Any]], None], set_rate: Callable[[float], None], train: Any,
    config: RunConfig, minutes: float,
) -> int:  # fmt: skip
    """Steps until the time is used up; the learning rate follows the schedule over it."""
    from tfrobust.training.stages import learning_rate

    stage = config.training.stages[0]
    batches = _batches(train, config)
    # Tracing is not timed: the first step runs before the clock starts.
    set_rate(learning_rate(stage, 0.0))
    step(next(batches))
    begin, done, progress = time.monotonic(), 1, Progress("training", 1000)
    while (spent := (time.monotonic() - begin) / 60 / minutes) < 1:
        set_rate(learning_rate(stage, spent * stage.epochs))
        step(next(batches))
        done += 1
        progress.update(min(int(spent * 1000), 999))
    progress.close()
    return done


def _batches(train: Any, config: RunConfig) -> Iterator[dict[str, Any]]:
    from tfrobust.data.pipeline import training_batches

    size = config.training.batch_size
    return iter(training_batches(train, batch_size=size, seed=config.seed, augment=config.augment,
                                 drop_remainder=True))  # fmt: skip


def _nsl(
    model: Any, config: RunConfig, steps: int
) -> tuple[Callable[[dict[str, Any]], None], Callable[[float], None]]:
    from tfrobust.runtime import keras, nsl
    from tfrobust.training.stages import make_optimizer

    eps = config.threat.eps
    settings = nsl.configs.make_adv_reg_config(
        multiplier=1.0, adv_grad_norm="infinity", pgd_iterations=steps, pgd_epsilon=eps,
        adv_step_size=eps if steps == 1 else 2.5 * eps / steps, random_init=steps > 1,
        clip_value_min={"image": 0.0}, clip_value_max={"image": 1.0},
    )  # fmt: skip
    trainer = nsl.keras.AdversarialRegularization(model, label_keys=("label",), adv_config=settings)
    optimizer = make_optimizer(config.training)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    trainer.compile(optimizer, loss=loss)

    def step(batch: dict[str, Any]) -> None:
        value = trainer.train_on_batch(batch)
        if not np.isfinite(np.ravel(value)[0]):
            raise TFRobustError("Stock NSL's loss is not finite.")

    return step, optimizer.learning_rate.assign


def _art(
    model: Any, config: RunConfig, steps: int
) -> tuple[Callable[[dict[str, Any]], None], Callable[[float], None]]:
    from tfrobust.runtime import keras, tf  # isort: skip  # selects Keras before ART imports it
    from art.attacks.evasion import ProjectedGradientDescent
    from art.defences.trainer import AdversarialTrainer
    from art.estimators.classification import TensorFlowV2Classifier

    from tfrobust.training.stages import make_optimizer

    optimizer, eps = make_optimizer(config.training), config.threat.eps
    classifier = TensorFlowV2Classifier(
        model=model, nb_classes=model.output_shape[-1], input_shape=model.input_shape[1:],
        loss_object=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        optimizer=optimizer, clip_values=(0.0, 1.0),
    )  # fmt: skip
    attack = ProjectedGradientDescent(
        classifier, norm=np.inf, eps=eps, eps_step=eps / 4, max_iter=7, num_random_init=1,
        batch_size=config.training.batch_size, verbose=False,
    )  # fmt: skip
    trainer = AdversarialTrainer(classifier, attack, ratio=1.0)

    def step(batch: dict[str, Any]) -> None:
        x, y = batch["image"].numpy(), tf.one_hot(batch["label"], model.output_shape[-1]).numpy()
        trainer.fit(x, y, batch_size=len(x), nb_epochs=1)

    return step, optimizer.learning_rate.assign


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.equal_time", description="Training at equal wall-clock time.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("--recipe", default="cifar10_30min", help="network, data and optimiser; of one stage")
    add("--minutes", type=float, default=30.0, help="minutes of training, each")
    add("--only", nargs="*", choices=TRAINERS, default=[], help="only these")
    add("--images", type=int, default=1000, help="test images for AutoAttack")
    add("--nsl-steps", type=int, default=1, help="attack steps of stock NSL")
    add("--data", default=None, help="the images, if not the recipe's data set")
    add("--output", default="equal-time", help="folder for the runs and the comparison")
    add("--debug", action="store_true", help="show the traceback of a failure")
    add("--train", choices=TRAINERS[1:], default=None, help=argparse.SUPPRESS)
    return parser


def main() -> int:
    """The exit code of the comparison."""
    return exit_code(work, _parser().parse_args())


if __name__ == "__main__":
    raise SystemExit(main())
