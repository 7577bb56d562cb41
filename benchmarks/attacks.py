"""Attacks compared with other libraries' and with a bare loop of gradients, in one run.

    python -m benchmarks.attacks
    python -m benchmarks.attacks --only autoattack --images 500

- pgd: seconds of PGD-10 for a batch, nothing skipped, of tfrobust, ART, Foolbox, CleverHans
  and torchattacks, each as its documentation says, on the same images and weights.
- skip: PGD on a trained model, where broken examples drop out, against the bare loop.
- keras: tfrobust's PGD on the same network and weights in tf_keras and in Keras 3.
- autoattack: standard AutoAttack, tfrobust's against torchattacks' on the same weights, at
  the published 100 steps, and for the record at the 10 that torchattacks comes with.

In pgd, skip and keras all take turns, so that a busy machine slows all alike; the figures are
medians. Torch's threads wait for each other actively, which a busy machine slows far more:
measure on a quiet one, or with OMP_WAIT_POLICY=PASSIVE in the environment.

The other libraries are not dependencies of tfrobust; a missing one is skipped. They work without
the old versions that they require, so install them without dependencies:

    pip install -c constraints.txt -e .
    pip install -c constraints.txt torch==2.13.0 --extra-index-url https://download.pytorch.org/whl/cpu
    pip install --no-deps adversarial-robustness-toolbox==1.20.1
    pip install --no-deps foolbox==3.3.4 eagerpy==0.30.0 cleverhans==4.0.0 torchattacks==3.5.1
    pip install GitPython
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.attack_libraries import (
    BARE,
    OURS,
    PGD_OF,
    Problem,
    Run,
    as_evaluated,
    bare_loop,
    classes_of,
    our_autoattack,
    tfrobust_pgd,
    torch_autoattack,
)
from tfrobust.errors import TFRobustError, UsageError

Tensor = Any
SHARED = Path(os.environ.get("TFROBUST_SHARED", Path(__file__).parents[2] / "shared" / "data"))
REFERENCE = SHARED / "reference" / "resnet2b.h5"
IMAGES = SHARED / "reference" / "cifar10_test_500.npz"
SECTIONS = ("pgd", "skip", "keras", "autoattack")
# At most so many times the seconds of tf_keras for Keras 3.
KERAS_GOAL = 1.1


class Case(NamedTuple):
    """A network of the pgd section, and the goal: its speed over the best other library's."""

    backbone: str
    side: int
    classes: int
    eps: float
    goal: float


CASES = {
    "mobilenetv2": Case("mobilenetv2", 64, 200, 4 / 255, 1.3),
    "resnet50": Case("resnet50", 32, 10, 8 / 255, 1.1),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; see the module's docstring."""
    args = _parser().parse_args(argv)
    try:
        from tfrobust.runtime import import_quietly

        import_quietly()
        _silence()
        policy = os.environ.get("OMP_WAIT_POLICY", "not set")
        print(f"{os.cpu_count()} processor cores, used by both TensorFlow and torch; "
              f"OMP_WAIT_POLICY {policy}")  # fmt: skip
        for section in args.only or SECTIONS:
            _RUN[section](args)
    except TFRobustError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    return 0


def _silence() -> None:
    """Hides TensorFlow's deprecation warnings that other libraries cause."""
    from tfrobust.runtime import tf

    tf.get_logger().setLevel("ERROR")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.attacks", description="Our attacks and other libraries'.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("--only", nargs="*", choices=SECTIONS, default=[], help="only these sections")
    add("--rounds", type=int, default=7, help="pgd, skip: rounds of each")
    add("--cases", nargs="*", choices=list(CASES), default=[], help="pgd: only these networks")
    add("--batch-size", type=int, default=64, help="pgd: images in a batch")
    add("--model", type=Path, default=REFERENCE, help="skip, autoattack: run folder or model file")
    add("--data", type=Path, help="skip, autoattack: .npz of x and y (default: a run's own test "
        f"images, {IMAGES.name} for a model file)")  # fmt: skip
    add("--images", type=int, default=100, help="skip, autoattack: number of images")
    add("--eps", type=float, nargs="*", default=[2 / 255, 8 / 255], help="skip: radii; autoattack: "
        "the first")  # fmt: skip
    add("--steps", type=int, nargs="*", default=[10, 50], help="skip: steps of PGD")
    return parser


def _pgd(args: argparse.Namespace) -> None:
    for case in [CASES[name] for name in args.cases] or CASES.values():
        problem, source = _untrained(case, args.batch_size)
        print(f"\nPGD-{problem.steps} on {case.backbone}, {case.side}x{case.side}, "
              f"{case.classes} classes, eps {case.eps * 255:g}/255, {len(problem.x)} images of "
              f"{source}, medians of {args.rounds} rounds")  # fmt: skip
        runs, made = _available(problem)
        seconds = _take_turns(runs, args.rounds)
        print(f"{'':28}{'seconds':>9}{'to ours':>9}{'fooled':>9}{'loss':>8}{'max |delta|':>14}")
        for name in runs:
            # The bare loop has no ball: its effect on the model is meaningless.
            outcome = "" if name == BARE else _outcome(problem, made[name])
            print(f"{name:28}{seconds[name]:9.3f}{seconds[name] / seconds[OURS]:9.2f}{outcome}")
        _tell_ratios(seconds, case.goal)


def _keras(args: argparse.Namespace) -> None:
    """The same MobileNetV2 of keras.applications in both, with the same random weights."""
    import keras as keras_3

    from tfrobust.runtime import keras

    given, side = (
        {"weights": None, "classes": CASES["mobilenetv2"].classes, "classifier_activation": None},
        64,
    )
    problem, source = _untrained(CASES["mobilenetv2"], args.batch_size)
    models = {
        "tf_keras": keras.applications.MobileNetV2((side, side, 3), **given),
        "Keras 3": keras_3.applications.MobileNetV2((side, side, 3), **given),
    }
    models["Keras 3"].set_weights(models["tf_keras"].get_weights())
    runs = {
        name: as_evaluated(dataclasses.replace(problem, model=model))
        for name, model in models.items()
    }
    print(f"\nPGD-{problem.steps} on MobileNetV2, {side}x{side}, {len(problem.x)} images of "
          f"{source}, medians of {args.rounds} rounds")  # fmt: skip
    made = [run() for run in runs.values()]
    seconds = _take_turns(runs, args.rounds)
    for name, value in seconds.items():
        print(f"{name:28}{value:9.3f}")
    print(f"Keras 3 takes {seconds['Keras 3'] / seconds['tf_keras']:.2f} of tf_keras' seconds "
          f"(goal at most {KERAS_GOAL}); largest difference of the images "
          f"{np.abs(made[0] - made[1]).max():.1e}", flush=True)  # fmt: skip


def _untrained(case: Case, batch_size: int) -> tuple[Problem, str]:
    """A network with random weights, to be attacked on its own predictions.

    Time does not depend on the weights. BatchNorm's statistics are those of the images,
    without which random activations would vanish, and gradients with them.
    """
    from benchmarks.data import _decode, _encoded_images
    from tfrobust.backbones import build

    files, source = _encoded_images(batch_size, case.side)
    x = (_decode(files, case.side).images / np.float32(255)).astype(np.float32)
    shape = (case.side, case.side, 3)
    model = build(
        case.backbone, num_classes=case.classes, image_shape=shape, bn_momentum=0.0, seed=0
    )
    model(x, training=True)
    y = np.asarray(model(x, training=False)).argmax(axis=1).astype(np.int32)
    problem = Problem(model=model, x=x, y=y, eps=case.eps, step_size=case.eps / 4, steps=10)
    return problem, source.partition(" (")[0]


def _available(problem: Problem) -> tuple[dict[str, Run], dict[str, np.ndarray]]:
    """The attacks that can run here, and the images of each from a first, untimed run."""
    runs, made = {}, {}
    for name, make in PGD_OF.items():
        try:
            run = make(problem)
            made[name] = run()
            runs[name] = run
        except Exception as error:
            # Another library may fail in any way with this TensorFlow, NumPy or torch.
            if name in (OURS, BARE):
                raise
            print(f"{name} is skipped: {_sentence(error)}")
    return runs, made


def _sentence(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed (see the top of benchmarks/attacks.py)."
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _take_turns(runs: Mapping[str, Run], rounds: int) -> dict[str, float]:
    """Median seconds of each; each has already run once."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(seen) for name, seen in times.items()}


def _outcome(problem: Problem, x_adv: np.ndarray) -> str:
    """Shows that all computed the same attack: its effect on the model, and its largest change."""
    from tfrobust.runtime import tf

    logits = tf.constant(problem.model(x_adv, training=False))
    fooled = float(np.mean(np.argmax(logits, axis=1) != problem.y))
    loss = float(np.mean(tf.nn.sparse_softmax_cross_entropy_with_logits(problem.y, logits)))
    distance = float(np.abs(x_adv - problem.x).max()) * 255
    return f"{fooled:9.3f}{loss:8.3f}{distance:10.3f}/255"


def _tell_ratios(seconds: Mapping[str, float], goal: float) -> None:
    ours = seconds[OURS]
    print(f"{OURS} is {seconds[BARE] / ours:.2f} times as fast as the bare loop", end="")
    others = {name: value for name, value in seconds.items() if name not in (OURS, BARE)}
    if others:
        best = min(others, key=lambda name: others[name])
        print(f", {others[best] / ours:.2f} times as fast as the best library, {best} "
              f"(goal {goal:g})", end="")  # fmt: skip
    print(".", flush=True)


def _skip(args: argparse.Namespace) -> None:
    if not (given := _trained(args, "skip")):
        return
    model, x, y, shown = given
    print(f"\nPGD that drops broken images, on {shown}, compared with as many gradients of all")
    print(f"{'':20}{'eps':>9}{'ours s':>9}{'bare s':>9}{'ratio':>7}{'standing at end':>17}")
    for steps in args.steps:
        for eps in args.eps:
            size = 2.5 * eps / steps
            problem = Problem(model=model, x=x, y=y, eps=eps, step_size=size, steps=steps)
            runs = {OURS: tfrobust_pgd(problem, early_stop=True), BARE: bare_loop(problem)}
            made = {name: run() for name, run in runs.items()}
            seconds = _take_turns(runs, args.rounds)
            standing = np.mean(classes_of(model, made[OURS]) == y)
            print(f"{f'PGD-{steps}':20}{eps * 255:5.3g}/255{seconds[OURS]:9.3f}"
                  f"{seconds[BARE]:9.3f}{seconds[BARE] / seconds[OURS]:7.2f}{standing:17.3f}",
                  flush=True)  # fmt: skip


def _trained(
    args: argparse.Namespace, section: str
) -> tuple[Any, np.ndarray, np.ndarray, str] | None:
    """The model, its images and labels, and a description; None if there is no model."""
    from tfrobust.models.opening import load_any

    if args.model == REFERENCE and not REFERENCE.is_file():
        print(f"\n{section} is skipped: {REFERENCE} does not exist; give a model by --model.")
        return None
    model = load_any(args.model)
    x, y = _images(args)
    x = (x / np.float32(255) if x.dtype == np.uint8 else x).astype(np.float32)
    accuracy = np.mean(classes_of(model, x) == y)
    return model, x, y, f"{args.model.name}, {len(x)} images (clean accuracy {accuracy:.3f})"


def _images(args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """The images and labels of the file, or of the run's own test split."""
    if args.data is None and args.model.is_dir():
        from tfrobust.jobs.images import load_splits
        from tfrobust.run import RunFolder

        config = RunFolder(args.model).read_config()
        test = load_splits(config.data, config.seed).test
        return test.images[: args.images], test.labels[: args.images].astype(np.int32)
    path = args.data or IMAGES
    if not path.is_file():
        raise UsageError(f"{path} not found: expected an .npz file of x and y; give it by --data.")
    with np.load(path) as content:
        return content["x"][: args.images], content["y"][: args.images].astype(np.int32)


def _autoattack(args: argparse.Namespace) -> None:
    if not (given := _trained(args, "autoattack")):
        return
    model, x, y, shown = given
    eps = args.eps[0]
    print(f"\nStandard AutoAttack on {shown}, linf, eps {eps * 255:g}/255", flush=True)
    ours, our_seconds = our_autoattack(model, x, y, eps)
    print(f"{OURS:26}{our_seconds:9.1f} s{ours.mean():9.4f} robust accuracy", flush=True)
    for steps, name in ((100, "torchattacks, 100 steps"), (None, "torchattacks' defaults")):
        try:
            theirs, seconds = torch_autoattack(model, x, y, eps, steps)
        except ImportError as error:
            print(f"torchattacks is skipped: {_sentence(error)}")
            return
        differ = int((ours != theirs).sum())
        print(f"{name:26}{seconds:9.1f} s{theirs.mean():9.4f} robust accuracy; tfrobust takes "
              f"{our_seconds / seconds:.2f} of its seconds (goal 0.5), and judges {differ} of "
              f"{len(y)} images differently", flush=True)  # fmt: skip


_RUN = {"pgd": _pgd, "skip": _skip, "keras": _keras, "autoattack": _autoattack}

if __name__ == "__main__":
    sys.exit(main())
