"""Minimal-norm attacks of each library, called as documented, behind one interface.

Each adapter takes an attack's name and settings and returns a function of a `Problem` that returns
the images. Libraries are imported by their adapter.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Tensor = Any


@dataclass(frozen=True)
class Problem:
    """The task of all attacks.

    Attributes:
      model: Keras classifier, [0, 1] images -> logits.
      x: images, float32 [N, H, W, 3] in [0, 1].
      y: labels, int32 [N].
      steps: steps of attacks with one search.
      search_steps: steps per search of attacks with several searches.
      searches: number of searches of the latter.
      queries: model evaluations per image of decision-based attacks.
    """

    model: Any
    x: np.ndarray
    y: np.ndarray
    steps: int
    search_steps: int
    searches: int
    queries: int


Run = Callable[[Problem], np.ndarray]
DECISIONS = ("boundary", "hopskipjump", "geoda")


class Counted:
    """A model that counts the images it classifies.

    Args:
      model: Keras classifier, [0, 1] images -> logits; compiled here.
    """

    def __init__(self, model: Any) -> None:
        from tfrobust.runtime import tf

        self._run = tf.function(lambda x: model(x, training=False), reduce_retracing=True)
        self.images = 0

    def __call__(self, x: Tensor) -> Tensor:
        """Logits of images in an array or tensor."""
        from tfrobust.runtime import tf

        self.images += len(x)
        return self._run(tf.convert_to_tensor(x, tf.float32))


def told_queries(library: str, counted: Counted, problem: Problem) -> None:
    """Prints a library's queries per image, since its budget is in steps."""
    print(f"    ({library}: {counted.images / len(problem.x):,.0f} queries per image)", flush=True)


def ours(name: str, norm: str) -> Run:
    """An attack of tfrobust, by its name."""

    def run(problem: Problem) -> np.ndarray:
        from tfrobust.attacks.named import make_attack
        from tfrobust.threat_model import ThreatModel

        settings: dict[str, Any] = {"steps": problem.steps}
        if name in ("cw", "ead"):
            settings = {"steps": problem.search_steps, "searches": problem.searches}
        if name == "deepfool":
            settings = {}
        if name in DECISIONS:
            # Until the queries are spent, not until the ball is reached: it contains everything.
            settings = {"queries": problem.queries, "early_stop": False}
        attack: Any = make_attack(name, settings)
        whole = ThreatModel(norm, ThreatModel(norm, 1.0).largest_radius(problem.x.shape[1:]))
        made: np.ndarray = attack.perturb(problem.model, problem.x, problem.y, whole)
        return made

    return run


def foolbox(attack: str, kind: str = "", **settings: Any) -> Run:
    """An attack of Foolbox, by its class; `kind` selects its budget."""

    def run(problem: Problem) -> np.ndarray:
        from tfrobust.runtime import tf  # isort: skip  # selects Keras first
        import foolbox as library

        # Compiled, beyond Foolbox's documentation.
        compiled = tf.function(lambda x: problem.model(x, training=False))
        classifier = library.TensorFlowModel(compiled, bounds=(0, 1))
        budget = _budget(problem, kind, "steps", "binary_search_steps")
        made = getattr(library.attacks, attack)(**budget, **settings)
        # Labels of the predictions' type: for mixed types its EagerPy calls what NumPy 2 removed.
        x, y = tf.constant(problem.x), tf.constant(problem.y, tf.int64)
        return np.asarray(made(classifier, x, y, epsilons=None)[1])

    return run


def art(attack: str, kind: str = "", **settings: Any) -> Run:
    """An attack of the Adversarial Robustness Toolbox, by its class."""

    def run(problem: Problem) -> np.ndarray:
        from tfrobust.runtime import keras, tf  # isort: skip  # selects Keras before ART imports it
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
    """Arguments for an attack's budget: of 'one' search, of 'several', or none."""
    if kind == "one":
        return {steps: problem.steps}
    if kind == "several":
        return {steps: problem.search_steps, searches: problem.searches}
    return {}


def foolbox_decisions(attack: str, start: int = 50, **settings: Any) -> Run:
    """A decision-based attack of Foolbox, by its class, from noise blended in `start` steps."""

    def run(problem: Problem) -> np.ndarray:
        from tfrobust.runtime import tf  # isort: skip  # selects Keras first
        import foolbox as library

        counted = Counted(problem.model)
        classifier = library.TensorFlowModel(counted, bounds=(0, 1))
        begin = library.attacks.LinearSearchBlendedUniformNoiseAttack(directions=50, steps=start)
        steps = _steps_of(attack, problem.queries - start)
        made = getattr(library.attacks, attack)(init_attack=begin, steps=steps, **settings)
        x, y = tf.constant(problem.x), tf.constant(problem.y, tf.int64)
        found = np.asarray(made(classifier, x, y, epsilons=None)[1])
        told_queries("Foolbox", counted, problem)
        return found

    return run


def art_decisions(attack: str, each: int = 1, **settings: Any) -> Run:
    """A decision-based attack of ART, by its class; a step takes `each` queries."""

    def run(problem: Problem) -> np.ndarray:
        from tfrobust.runtime import tf  # isort: skip  # selects Keras before ART imports it
        from art.attacks import evasion
        from art.estimators.classification import BlackBoxClassifierNeuralNetwork

        classes, counted = int(problem.model.output_shape[-1]), Counted(problem.model)
        classifier = BlackBoxClassifierNeuralNetwork(
            lambda x: counted(x).numpy(), input_shape=problem.x.shape[1:], nb_classes=classes,
            channels_first=False, clip_values=(0.0, 1.0),
        )  # fmt: skip
        given = {**settings, "max_iter": _steps_of(attack, problem.queries, each)}
        made = getattr(evasion, attack)(classifier, verbose=False, **given)
        y = tf.one_hot(problem.y, classes).numpy()
        found = np.asarray(made.generate(x=problem.x, y=y))
        told_queries("ART", counted, problem)
        return found

    return run


def _steps_of(attack: str, queries: int, each: int = 1) -> int:
    """The steps of a decision-based attack that use at least the given queries.

    HopSkipJump's iteration i takes 100 times the root of i for the normal and about 30 for its two
    searches; a step of the others takes `each`.
    """
    if "HopSkipJump" not in attack:
        return max(1, queries // each)
    steps, left = 0, float(queries)
    while left > 0:
        steps += 1
        left -= 100 * steps**0.5 + 30
    return steps
