"""What one step of the optimiser does to a gradient and to the weights, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tfrobust.config import StageConfig, TrainingConfig
from tfrobust.runtime import tf
from tfrobust.training.stages import make_optimizer

STAGES = (StageConfig(learning_rate=0.1, schedule="constant"),)


def after_one_step(config, gradients):
    """Variables 1 and 2 after one step along the gradients."""
    optimizer = make_optimizer(config)
    variables = [tf.Variable(value, name=f"kernel_{value:g}") for value in (1.0, 2.0)]
    optimizer.build(variables)
    optimizer.apply_gradients(zip(map(tf.constant, gradients), variables, strict=True))
    return [float(variable.numpy()) for variable in variables]


@pytest.mark.parametrize(
    ("clip_norm", "moved"),
    [
        # The norm of (3, 4) over all variables is 5: clipped at 1 it is (.6, .8).
        (1.0, (0.06, 0.08)),
        (2.5, (0.15, 0.2)),
        # A gradient below the bound, and one without a bound, stay what they are.
        (6.0, (0.3, 0.4)),
        (None, (0.3, 0.4)),
    ],
)
def test_gradients_are_clipped_by_their_global_norm(clip_norm, moved):
    config = TrainingConfig(stages=STAGES, momentum=0.0, clip_norm=clip_norm)
    found = after_one_step(config, (3.0, 4.0))
    np.testing.assert_allclose(found, [1 - moved[0], 2 - moved[1]], rtol=1e-5)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_weight_decay_does_not_pass_through_the_gradient(name):
    config = TrainingConfig(stages=STAGES, optimizer=name, momentum=0.0, weight_decay=0.5)
    # Each weight loses .1 * .5 of itself: .95 and 1.9 are left. Then the step: SGD's is .1 times
    # the gradient, Adam's first the learning rate itself, whatever the gradient's size. As a
    # part of the gradient the decay would be lost in Adam's: .9 and 2.1.
    steps = {"sgd": (0.003, -0.4)}.get(name, (0.1, -0.1))
    found = after_one_step(config, (0.03, -4.0))
    np.testing.assert_allclose(found, [0.95 - steps[0], 1.9 - steps[1]], rtol=1e-4)
