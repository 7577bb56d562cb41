"""Minimal-norm attacks side by side with other libraries', on the reference model, in one run.

    python -m benchmarks.minimal_norm
    python -m benchmarks.minimal_norm --images 200 --steps 100 --only ddn fmn-l2

For each attack and library: the median distance over the rightly classified images, the share
that an adversarial image was found for, and seconds. Whatever a library returns is judged here:
misclassified by the Keras model itself, inside [0, 1], and its distance taken anew. All have the
same steps and searches. Ours are timed with tracing and verification, as `perturb` runs them.

Where they differ by design: adv-lib rounds DDN's images to 256 levels unless told not to, as here;
DeepFool's steps know no bounds but ours; Foolbox and adv-lib count single values in l0, and what
they return is counted here by pixels, as ours is; ART searches Carlini and Wagner's step by
halving and doubling it besides.

The other libraries are no dependencies of tfrobust; one that is missing is left out, with the
reason. They are installed as for `benchmarks.attacks`, and

    pip install --no-deps git+https://github.com/jeromerony/adversarial-library
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.attacks import IMAGES, REFERENCE
from tfrobust.errors import TFRobustError, UsageError

Tensor = Any


@dataclass(frozen=True)
class Problem:
    """What all attack.

    Attributes:
      model: Keras classifier, [0, 1] images -> logits.
      x: images, float32 [N, H, W, 3] in [0, 1].
      y: labels, int32 [N].
      steps: of the attacks that make one search.
      search_steps: of each search of the attacks that make several.
      searches: how many those make.
    """

    model: Any
    x: np.ndarray
    y: np.ndarray
    steps: int
    search_steps: int
    searches: int


Run = Callable[[Problem], np.ndarray]


def ours(name: str, norm: str) -> Run:
    """An attack of tfrobust, by its name."""

    def run(problem: Problem) -> np.ndarray:
        from tfrobust.attacks.named import make_attack
        from tfrobust.evaluation.curves import largest_radius
        from tfrobust.threat_model import ThreatModel

        settings: dict[str, Any] = {"steps": problem.steps}
        if name in ("cw", "ead"):
            settings = {"steps": problem.search_steps, "searches": problem.searches}
        if name == "deepfool":
            settings = {}
        attack: Any = make_attack(name, settings)
        whole = ThreatModel(norm, largest_radius(ThreatModel(norm, 1.0), problem.x.shape[1:]))
        made: np.ndarray = attack.perturb(problem.model, problem.x, problem.y, whole)
        return made

    return run


def foolbox(attack: str, kind: str = "", **settings: Any) -> Run:
    """An attack of Foolbox, by its class; `kind` says which budget it takes."""

    def run(problem: Problem) -> np.ndarray:
        from tfrobust.runtime import tf  # isort: skip  # settles Keras first
        import foolbox as library

        # Compiled, beyond what Foolbox's documentation does.
        compiled = tf.function(lambda x: problem.model(x, training=False))
        classifier = library.TensorFlowModel(compiled, bounds=(0, 1))
        budget = _budget(problem, kind, "steps", "binary_search_steps")
        made = getattr(library.attacks, attack)(**budget, **settings)
        # Labels like the predictions: mixed types lead its EagerPy to a function NumPy 2 dropped.
        x, y = tf.constant(problem.x), tf.constant(problem.y, tf.int64)
        return np.asarray(made(classifier, x, y, epsilons=None)[1])

    return run


def art(attack: str, kind: str = "", **settings: Any) -> Run:
    """An attack of the Adversarial Robustness Toolbox, by its class."""

    def run(problem: Problem) -> np.ndarray:
        from tfrobust.runtime import keras, tf  # isort: skip  # settles Keras before ART imports it
        from art.attacks import evasion
        from art.estimators.classification import TensorFlowV2Classifier

        classes = int(problem.model.output_shape[-1])
        classifier = TensorFlowV2Classifier(
            model=problem.model, nb_classes=classes, input_shape=problem.x.shape[1:],
            loss_object=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            clip_values=(0.0, 1.0),
        )  # fmt: skip
        budget = _budget(problem, kind, "max_iter", "binary_search_steps")
        made = getattr(evasion, attack)(
            classifier, batch_size=128, verbose=False, **budget, **settings
        )
        return np.asarray(made.generate(x=problem.x, y=tf.one_hot(problem.y, classes).numpy()))

    return run


def adv_lib(attack: str, kind: str = "", step_name: str = "steps", **settings: Any) -> Run:
    """An attack of the adversarial-library, by its function, on the same network in torch."""

    def run(problem: Problem) -> np.ndarray:
        import torch
        from adv_lib import attacks

        from benchmarks.torch_twin import twin

        torch.set_num_threads(os.cpu_count() or 1)
        pair = twin(problem.model, problem.x, tolerance=1e-4)
        labels = torch.from_numpy(problem.y.astype(np.int64))
        budget = _budget(problem, kind, step_name, "binary_search_steps")
        images = pair.images(problem.x).contiguous()
        return pair.pixels(
            getattr(attacks, attack)(pair.module, images, labels, **budget, **settings)
        )

    return run


def _budget(problem: Problem, kind: str, steps: str, searches: str) -> dict[str, int]:
    """What an attack's budget is called -> what it is: 'one' search, 'several', or its own."""
    if kind == "one":
        return {steps: problem.steps}
    if kind == "several":
        return {steps: problem.search_steps, searches: problem.searches}
    return {}


#: Attack -> (norm, library -> its attack).
CASES: dict[str, tuple[str, dict[str, Run]]] = {
    "deepfool-l2": ("l2", {
        "tfrobust": ours("deepfool", "l2"),
        "Foolbox": foolbox("L2DeepFoolAttack"),
        "ART": art("DeepFool"),
        "adv-lib": adv_lib("df", norm=2),
    }),
    "deepfool-linf": ("linf", {
        "tfrobust": ours("deepfool", "linf"),
        "Foolbox": foolbox("LinfDeepFoolAttack"),
        "adv-lib": adv_lib("df", norm=float("inf")),
    }),
    "ddn": ("l2", {
        "tfrobust": ours("ddn", "l2"),
        "Foolbox": foolbox("DDNAttack", "one"),
        "adv-lib": adv_lib("ddn", "one", levels=None),
    }),
    "fmn-linf": ("linf", {
        "tfrobust": ours("fmn", "linf"),
        "Foolbox": foolbox("LInfFMNAttack", "one"),
        "adv-lib": adv_lib("fmn", "one", norm=float("inf")),
    }),
    "fmn-l2": ("l2", {
        "tfrobust": ours("fmn", "l2"),
        "Foolbox": foolbox("L2FMNAttack", "one"),
        "adv-lib": adv_lib("fmn", "one", norm=2),
    }),
    "fmn-l1": ("l1", {
        "tfrobust": ours("fmn", "l1"),
        "Foolbox": foolbox("L1FMNAttack", "one"),
        "adv-lib": adv_lib("fmn", "one", norm=1),
    }),
    "fmn-l0": ("l0", {
        "tfrobust": ours("fmn", "l0"),
        "Foolbox": foolbox("L0FMNAttack", "one"),
        "adv-lib": adv_lib("fmn", "one", norm=0),
    }),
    "sigma-zero": ("l0", {
        "tfrobust": ours("sigma-zero", "l0"),
        "adv-lib": adv_lib("sigma_zero", "one", step_name="num_steps"),
    }),
    "cw": ("l2", {
        "tfrobust": ours("cw", "l2"),
        "Foolbox": foolbox("L2CarliniWagnerAttack", "several"),
        "ART": art("CarliniL2Method", "several", learning_rate=0.01, initial_const=1e-3),
        "adv-lib": adv_lib("carlini_wagner_l2", "several", step_name="max_iterations"),
    }),
    "ead": ("l1", {
        "tfrobust": ours("ead", "l1"),
        "Foolbox": foolbox("EADAttack", "several", decision_rule="L1"),
        "ART": art("ElasticNet", "several", decision_rule="L1", beta=1e-2),
    }),
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; see the module's docstring."""
    args = _parser().parse_args(argv)
    try:
        problem = _problem(args)
        print(f"{len(problem.x)} images, {args.steps} steps, or {args.searches} searches of "
              f"{args.search_steps}; {os.cpu_count()} processor cores\n")  # fmt: skip
        print(f"{'attack':<15}{'library':<12}{'median':>10}{'found':>8}{'seconds':>10}")
        for name in args.only or CASES:
            _measure(name, problem)
    except TFRobustError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    return 0


def _measure(name: str, problem: Problem) -> None:
    norm, libraries = CASES[name]
    for library, run in libraries.items():
        start = time.perf_counter()
        try:
            x_adv = run(problem)
        except ImportError as error:
            print(f"{name:<15}{library:<12}  skipped: {error}")
            continue
        seconds = time.perf_counter() - start
        found = _judged(problem, library, norm, x_adv, seconds)
        print(f"{name:<15}{library:<12}{found.median:10.5f}{found.found:8.3f}{seconds:10.1f}",
              flush=True)  # fmt: skip


def _judged(problem: Problem, library: str, norm: str, x_adv: np.ndarray, seconds: float) -> Any:
    """The distances of what a library returned, by the Keras model itself."""
    from tfrobust.evaluation.distances import MinimalDistances
    from tfrobust.runtime import tf
    from tfrobust.threat_model import ThreatModel

    x_adv = np.asarray(x_adv, np.float32)
    wrong, wrong_before = (
        np.asarray(problem.model(x, training=False)).argmax(axis=1) != problem.y
        for x in (x_adv, problem.x)
    )
    inside = (x_adv >= -1e-6).all(axis=(1, 2, 3)) & (x_adv <= 1 + 1e-6).all(axis=(1, 2, 3))
    distance = ThreatModel(norm).distance(tf.constant(x_adv), tf.constant(problem.x)).numpy()
    distance = np.where(wrong & inside, distance.astype(float), np.inf)
    classes = int(problem.model.output_shape[-1])
    distance = np.where(wrong_before, 0.0, distance)
    return MinimalDistances("", library, norm, problem.y, distance, classes, seconds=seconds)


def _problem(args: argparse.Namespace) -> Problem:
    from tfrobust.runtime import import_quietly, keras, tf

    import_quietly()
    tf.get_logger().setLevel("ERROR")
    if not REFERENCE.is_file():
        raise TFRobustError(f"Expected the reference model at {REFERENCE}; set TFROBUST_SHARED.")
    model = keras.models.load_model(REFERENCE, compile=False)
    with np.load(IMAGES) as content:
        x, y = content["x"][: args.images], content["y"][: args.images]
    pixels = x.astype(np.float32) / np.float32(255)
    return Problem(model, pixels, y.astype(np.int32), args.steps, args.search_steps, args.searches)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.minimal_norm",
        description="Our minimal-norm attacks against other libraries'.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--only", nargs="*", choices=list(CASES), default=[], help="only these attacks")
    add("--images", type=int, default=100, help="how many of the reference model's")
    add("--steps", type=int, default=100, help="of the attacks that make one search")
    add("--search-steps", type=int, default=100, help="of each of several searches")
    add("--searches", type=int, default=9, help="for the weight of misclassification")
    return parser


if __name__ == "__main__":
    sys.exit(main())
