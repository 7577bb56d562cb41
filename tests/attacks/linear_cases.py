"""Linear models, whose distances to the boundary are known, and attacks on them as they run."""

from __future__ import annotations

import numpy as np

from tfrobust.attacks.runner import run
from tfrobust.models.counter import Counter
from tfrobust.runtime import tf

ORDER = {"linf": 1, "l2": 2}


def case(linear_model, rows=8, seed=1, weights=None):
    """A model of two classes, images around grey, their labels, and norm -> distances."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(12, 2)) if weights is None else weights
    model = linear_model(weights, -0.5 * weights.sum(axis=0))
    x = rng.uniform(0.4, 0.6, (rows, 2, 2, 3)).astype("float32")
    w = weights[:, 1] - weights[:, 0]
    away = np.abs((x.reshape(rows, -1) - 0.5) @ w)
    y = np.argmax(model(x), axis=1).astype("int32")
    return model, x, y, {norm: away / np.linalg.norm(w, dual) for norm, dual in ORDER.items()}


def exact(model):
    """The linear model, its logits summed in float64 and so the same in a batch of any size.

    An attack that walks along the boundary turns on the last bit of a logit.
    """
    weights, bias = (tf.cast(one, tf.float64) for one in model.layers[-1].get_weights())

    def call(x):
        flat = tf.cast(tf.reshape(x, [-1, weights.shape[0]]), tf.float64)
        return tf.cast(flat @ weights + bias, tf.float32)

    return call


def attacked(attack, model, x, y, ball):
    """(images as the attack returns them, verified success, examples the model was asked for)."""
    return compiled(attack, model, x.shape[1:], ball)(x, y)


def compiled(attack, model, shape, ball):
    """(images, labels, seed) -> what `attacked` returns; traced once for all batch sizes."""
    counter = Counter()
    specs = [tf.TensorSpec([None, *shape]), tf.TensorSpec([None], tf.int32),
             tf.TensorSpec([2], tf.int32)]  # fmt: skip

    @tf.function(input_signature=specs, autograph=False)
    def step(x, y, seed):
        made = []

        def kept(*args):
            made.append(attack(*args))
            return made[0]

        found = run(kept, counter.wrap(model), model, x, y, ball, seed)
        return made[0], found.success

    def call(x, y, seed=0):
        x_adv, success = step(tf.constant(x), tf.constant(y), tf.constant([seed, 0]))
        return x_adv.numpy(), success.numpy(), counter.total()[0]

    return call
