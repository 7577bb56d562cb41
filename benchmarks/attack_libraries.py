"""PGD and AutoAttack of each library, called as documented, behind one interface.

Each entry of `PGD_OF` takes a `Problem` and returns a function without arguments that attacks the
whole batch once and returns the images. Libraries are imported only by their own entry.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Tensor = Any
Run = Callable[[], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One batch to attack in L-infinity.

    Attributes:
      model: Keras classifier, [0, 1] images -> logits.
      x: images, float32 [B, H, W, 3] in [0, 1].
      y: labels, int32 [B].
      eps: the radius.
      step_size: of each step.
      steps: gradient steps.
    """

    model: Any
    x: np.ndarray
    y: np.ndarray
    eps: float
    step_size: float
    steps: int

    @property
    def num_classes(self) -> int:
        """Length of the logits."""
        return int(self.model.output_shape[-1])


def ours(problem: Problem) -> Run:
    """tfrobust's PGD on the folded model, as in its evaluation, without dropping images."""
    return tfrobust_pgd(problem, early_stop=False)


def tfrobust_pgd(problem: Problem, *, early_stop: bool) -> Run:
    """tfrobust's PGD, with or without dropping broken images."""
    from tfrobust.attacks.gradient import PGD
    from tfrobust.models.folding import fold
    from tfrobust.runtime import tf
    from tfrobust.threat_model import ThreatModel

    attack = PGD(steps=problem.steps, step_size=problem.step_size, early_stop=early_stop)
    ball = ThreatModel("linf", problem.eps)
    shape = [None, *problem.x.shape[1:]]

    @tf.function(input_signature=(tf.TensorSpec(shape), tf.TensorSpec([None], tf.int32)))
    def run(x: Tensor, y: Tensor) -> Tensor:
        return attack(fold(problem.model), x, y, ball, tf.constant([0, 0]))

    return _on_tensors(problem, run)


def as_evaluated(problem: Problem) -> Run:
    """tfrobust's PGD on a model of any kind, as in its evaluation, without dropping images."""
    from tfrobust.attacks.gradient import PGD
    from tfrobust.models.classifier import as_classifier
    from tfrobust.models.inference import attackable
    from tfrobust.runtime import tf
    from tfrobust.threat_model import ThreatModel

    attack = PGD(steps=problem.steps, step_size=problem.step_size, early_stop=False)
    seen = attackable(as_classifier(problem.model, problem.x))
    ball = ThreatModel("linf", problem.eps)
    shape = [None, *problem.x.shape[1:]]

    @tf.function(
        input_signature=(tf.TensorSpec(shape), tf.TensorSpec([None], tf.int32)), autograph=False
    )
    def run(x: Tensor, y: Tensor) -> Tensor:
        return attack(seen, x, y, ball, tf.constant([0, 0]))

    return _on_tensors(problem, run)


def bare_loop(problem: Problem) -> Run:
    """The same number of input gradients of the plain model in one compiled loop, nothing else."""
    from tfrobust.attacks.gradient import input_gradient
    from tfrobust.runtime import tf

    shape = [None, *problem.x.shape[1:]]

    @tf.function(input_signature=(tf.TensorSpec(shape), tf.TensorSpec([None], tf.int32)))
    def run(x: Tensor, y: Tensor) -> Tensor:
        def step(i: Tensor, moved: Tensor) -> tuple[Tensor, Tensor]:
            grad, _ = input_gradient(
                lambda z: problem.model(z, training=False), moved, y, "cross_entropy"
            )
            # If the gradient were unused it would not be computed.
            return i + 1, moved + problem.step_size * tf.sign(grad)

        state = (tf.constant(0), x)
        return tf.while_loop(lambda i, _: i < problem.steps, step, state, parallel_iterations=1)[1]

    return _on_tensors(problem, run)


def _on_tensors(problem: Problem, attack: Callable[[Tensor, Tensor], Tensor]) -> Run:
    from tfrobust.runtime import tf

    x, y = tf.constant(problem.x), tf.constant(problem.y)
    return lambda: np.asarray(attack(x, y))


def art(problem: Problem) -> Run:
    """Adversarial Robustness Toolbox: TensorFlowV2Classifier, ProjectedGradientDescent."""
    from tfrobust.runtime import keras, tf  # isort: skip  # selects Keras before ART imports it
    from art.attacks.evasion import ProjectedGradientDescent
    from art.estimators.classification import TensorFlowV2Classifier

    classifier = TensorFlowV2Classifier(
        model=problem.model,
        nb_classes=problem.num_classes,
        input_shape=problem.x.shape[1:],
        loss_object=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        clip_values=(0.0, 1.0),
    )
    attack = ProjectedGradientDescent(
        classifier, norm=np.inf, eps=problem.eps, eps_step=problem.step_size,
        max_iter=problem.steps, num_random_init=1, batch_size=len(problem.x), verbose=False,
    )  # fmt: skip
    # It works on one-hot labels; integers would have to be converted first.
    y = tf.one_hot(problem.y, problem.num_classes).numpy()
    return lambda: np.asarray(attack.generate(x=problem.x, y=y))


def foolbox(problem: Problem) -> Run:
    """Foolbox: TensorFlowModel, LinfPGD."""
    return _foolbox(problem, problem.model)


def foolbox_compiled(problem: Problem) -> Run:
    """The same with the model in a `tf.function`, beyond Foolbox's documentation."""
    from tfrobust.runtime import tf

    return _foolbox(problem, tf.function(lambda x: problem.model(x, training=False)))


def _foolbox(problem: Problem, model: Any) -> Run:
    from tfrobust.runtime import tf  # isort: skip  # selects Keras first
    import foolbox as library

    classifier = library.TensorFlowModel(model, bounds=(0, 1))
    attack = library.attacks.LinfPGD(
        steps=problem.steps, abs_stepsize=problem.step_size, random_start=True
    )
    # Labels of the predictions' type: for mixed types its EagerPy calls what NumPy 2 removed.
    x, y = tf.constant(problem.x), tf.constant(problem.y, tf.int64)
    return lambda: np.asarray(attack(classifier, x, y, epsilons=problem.eps)[1])


def cleverhans(problem: Problem) -> Run:
    """CleverHans 4: projected_gradient_descent of its TensorFlow 2 part."""
    from tfrobust.runtime import tf  # isort: skip  # selects Keras first
    from cleverhans.tf2.attacks.projected_gradient_descent import projected_gradient_descent

    x, y = tf.constant(problem.x), tf.constant(problem.y)
    return lambda: np.asarray(
        projected_gradient_descent(
            problem.model, x, problem.eps, problem.step_size, problem.steps, np.inf,
            clip_min=0.0, clip_max=1.0, y=y, rand_init=True,
        )
    )  # fmt: skip


def torchattacks(problem: Problem) -> Run:
    """torchattacks' PGD on the same network in torch."""
    return _torchattacks(problem, channels_last=False)


def torchattacks_channels_last(problem: Problem) -> Run:
    """The same with network and images in torch's channels-last format."""
    return _torchattacks(problem, channels_last=True)


def _torchattacks(problem: Problem, *, channels_last: bool) -> Run:
    import torch
    import torchattacks as library

    from benchmarks.torch_twin import twin

    torch.set_num_threads(os.cpu_count() or 1)
    pair = twin(problem.model, problem.x)
    order = torch.channels_last if channels_last else torch.contiguous_format
    module = pair.module.to(memory_format=order)
    images = pair.images(problem.x).contiguous(memory_format=order)
    labels = torch.from_numpy(problem.y.astype(np.int64))
    attack = library.PGD(
        module, eps=problem.eps, alpha=problem.step_size, steps=problem.steps, random_start=True
    )
    return lambda: pair.pixels(attack(images, labels))


OURS, BARE = "tfrobust", "bare loop of gradients"
PGD_OF: dict[str, Callable[[Problem], Run]] = {
    OURS: ours,
    BARE: bare_loop,
    "ART": art,
    "Foolbox": foolbox,
    "Foolbox, compiled model": foolbox_compiled,
    "CleverHans": cleverhans,
    "torchattacks": torchattacks,
    "torchattacks, channels last": torchattacks_channels_last,
}


def our_autoattack(
    model: Any, x: np.ndarray, y: np.ndarray, eps: float
) -> tuple[np.ndarray, float]:
    """Which images survive, bool [N], and seconds, with tracing and verification."""
    from tfrobust.attacks.autoattack import autoattack
    from tfrobust.data.types import ImageSet
    from tfrobust.evaluation.evaluate import evaluate
    from tfrobust.threat_model import ThreatModel

    names = tuple(str(label) for label in range(int(model.output_shape[-1])))
    start = time.perf_counter()
    attacks = autoattack("standard")
    report = evaluate(
        model, ImageSet(x, y, names), ThreatModel("linf", eps), attacks, batch_size=250
    )
    seconds = time.perf_counter() - start
    for attack in report.attacks:
        print(f"  {attack.name:18}{attack.seconds:9.1f} s{attack.outcome.correct.mean():9.4f}")
    return report.robust, seconds


def torch_autoattack(
    model: Any, x: np.ndarray, y: np.ndarray, eps: float, steps: int | None
) -> tuple[np.ndarray, float]:
    """The same for torchattacks, in batches of 250 like ours; judged by the Keras model.

    Its AutoAttack uses APGD and FAB with their default of 10 steps, where the published one uses
    100: `steps` sets them, None keeps the defaults.
    """
    import torch
    import torchattacks

    from benchmarks.torch_twin import twin

    torch.set_num_threads(os.cpu_count() or 1)
    pair = twin(model, x, tolerance=1e-4)
    images, labels = pair.images(x), torch.from_numpy(y.astype(np.int64))
    attack = torchattacks.AutoAttack(
        pair.module, norm="Linf", eps=eps, version="standard",
        n_classes=int(model.output_shape[-1]), seed=0,
    )  # fmt: skip
    for part in attack._autoattack.attacks:
        if steps is not None and hasattr(part, "steps"):
            part.steps = steps
    start = time.perf_counter()
    batches = zip(images.split(250), labels.split(250), strict=True)
    x_adv = pair.pixels(torch.cat([attack(*batch) for batch in batches]))
    seconds = time.perf_counter() - start
    broken = (classes_of(model, x_adv) != y) & (np.abs(x_adv - x).max(axis=(1, 2, 3)) <= eps + 1e-6)
    return (classes_of(model, x) == y) & ~broken, seconds


def classes_of(model: Any, x: np.ndarray) -> np.ndarray:
    """The top class of each image, int [N]."""
    return np.asarray(model(x, training=False)).argmax(axis=1)
