"""Models for `benchmarks.checks`: sound ones, and ones whose score is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.checks_training import (
    DATA,
    EPOCHS,
    LARGE,
    SMALL,
    Task,
    distilled,
    network,
    overfitted,
    plain,
    trained,
    winners_take_all,
)
from benchmarks.measuring import shared_folder
from tfrobust.typing import Function, Tensor


def quantised(model: Any, levels: int = 8) -> Function:
    """Behind inputs rounded to a few levels."""
    from tfrobust.runtime import tf

    return lambda x: model(tf.round(x * (levels - 1)) / (levels - 1))


def jpeg_coded(model: Any, quality: int = 75) -> Function:
    """Behind JPEG coding of its inputs."""
    from tfrobust.runtime import tf

    def coded(image: Tensor) -> Tensor:
        encoded = tf.io.encode_jpeg(tf.cast(tf.round(image * 255), tf.uint8), quality=quality)
        return tf.cast(tf.io.decode_jpeg(encoded, 3), tf.float32) / 255

    return lambda x: model(tf.ensure_shape(tf.map_fn(coded, x), x.shape))


def randomly_resized(model: Any) -> Function:
    """Shrunk and placed at random, Xie et al. (2018), https://arxiv.org/abs/1711.01991."""
    from tfrobust.runtime import tf

    def forward(x: Tensor) -> Tensor:
        side = tf.random.uniform([], 28, 33, tf.int32)
        top, left = (tf.random.uniform([], 0, 33 - side, tf.int32) for _ in range(2))
        small = tf.image.resize(x, [side, side])
        return model(tf.ensure_shape(tf.image.pad_to_bounding_box(small, top, left, 32, 32),
                                     x.shape))  # fmt: skip

    return forward


def tempered(model: Any, seed: int) -> Function:
    """Divided by a temperature that varies rapidly with the image and affects no decision."""
    from tfrobust.runtime import tf

    pattern = np.random.default_rng(seed).choice([-1, 1], (32, 32, 3)).astype(np.float32)

    def forward(x: Tensor) -> Tensor:
        place = tf.reduce_sum(x * pattern, axis=[1, 2, 3]) / pattern.size**0.5
        return model(x) * tf.exp(3 * tf.sin(40 * place))[:, None]

    return forward


def waved(model: Any) -> Function:
    """Behind waves of imperceptible size whose slope is larger than that of the pixels."""
    from tfrobust.runtime import tf

    return lambda x: model(x + 0.002 * tf.sin(1570 * x))


def dropped(model: Any) -> Function:
    """With some pixels dropped at random."""
    from tfrobust.runtime import tf

    return lambda x: model(tf.nn.dropout(x, 0.1))


def stopped(model: Any) -> Function:
    """With its gradient stopped."""
    from tfrobust.runtime import tf

    return lambda x: model(tf.stop_gradient(x))


@dataclass(frozen=True)
class Case:
    """A model of the benchmark.

    Attributes:
      make: task -> a model or function.
      flags: any one of these is correct; none for a sound model.
      data: the data sets that it is used with.
      large: whether it is attacked in the larger ball.
      held_out: whether it was made after the checks were fixed, and so tests them.
    """

    make: Callable[[Task], Any]
    flags: tuple[str, ...] = ()
    data: tuple[str, ...] = DATA
    large: bool = False
    held_out: bool = False


def _sound(name: str, **settings: Any) -> Callable[[Task], Any]:
    def make(task: Task) -> Any:
        import tfrobust as tr

        attack = tr.PGD(steps=3)
        method = {
            "plain": lambda: tr.Standard(),
            "nsl": lambda: tr.Regularisation(attack=attack),
            "pgd": lambda: tr.AdversarialTraining(attack=attack),
            "trades": lambda: tr.Trades(attack=attack),
            "fast": lambda: tr.Fast(),
            "noise": lambda: tr.Noise(noise_std=0.1),
        }[name]()
        if not method.needs_attack:
            return trained(task, method, **settings)
        # From random weights this few steps may not leave the constant prediction.
        start = plain(task, settings.get("width", SMALL))
        return trained(task, method, start=start, epochs=EPOCHS[task.data] // 2, rate=1e-3,
                       **settings)  # fmt: skip

    return make


def _keras_3(name: str) -> Callable[[Task], Any]:
    def make(task: Task) -> Any:
        import keras

        return _sound(name, library=keras)(task)

    return make


def _of_plain(wrap: Callable[..., Any], *, seeded: bool = False) -> Callable[[Task], Any]:
    return lambda task: wrap(plain(task), *([task.seed] if seeded else []))


def _in_training_mode(task: Task) -> Function:
    import tfrobust as tr

    model = trained(task, tr.Standard(), batch_norm=True)
    return lambda x: model(x, training=True)


def _smooth(task: Task) -> Any:
    import tfrobust as tr
    from tfrobust.runtime import keras, tf

    def activation(x: Tensor) -> Tensor:
        return keras.layers.Lambda(lambda x: tf.tanh(tf.nn.softplus(x)))(x)

    return trained(task, tr.Standard(), activation=activation)


def _mobilenet(task: Task) -> Any:
    import tfrobust as tr
    from tfrobust.runtime import keras

    def build(task: Task) -> Any:
        keras.utils.set_random_seed(task.seed)
        return tr.build("mobilenetv2", num_classes=10, image_shape=(32, 32, 3), alpha=0.35,
                        bn_momentum=0.9, seed=task.seed)  # fmt: skip

    return trained(task, tr.Standard(), build=build)


def _reference(task: Task) -> Any:
    """Someone else's network, adversarially trained at 2/255, whatever the seed."""
    import tfrobust as tr

    return tr.load_any(shared_folder() / "reference" / "resnet2b.h5")


def _with_other_gradient(task: Task) -> Function:
    """The logits of one network with the gradient of another, unrelated one."""
    from tfrobust.runtime import tf

    model, other = plain(task), network(Task(task.data, task.seed + 100))

    def forward(x: Tensor) -> Tensor:
        elsewhere = other(x)
        return model(tf.stop_gradient(x)) + elsewhere - tf.stop_gradient(elsewhere)

    return forward


CASES = {
    "plain": Case(plain),
    "plain, large": Case(lambda task: plain(task, LARGE), data=("digits",)),
    "plain, weight decay 0, long": Case(_sound("plain", epochs=40), data=("digits",)),
    "plain, BatchNorm": Case(_sound("plain", batch_norm=True), data=("digits",)),
    "nsl": Case(_sound("nsl"), data=("digits",)),
    "pgd": Case(_sound("pgd")),
    "pgd, large": Case(_sound("pgd", width=LARGE), data=("digits",)),
    "trades": Case(_sound("trades"), data=("digits",)),
    "fast": Case(_sound("fast"), data=("digits",)),
    "noise": Case(_sound("noise"), data=("digits",)),
    "plain, Keras 3": Case(_keras_3("plain"), data=("digits",)),
    "pgd, Keras 3": Case(_keras_3("pgd")),
    "logits x 1000": Case(_of_plain(lambda model: lambda x: 1000 * model(x)),
                          ("vanishing_gradients",)),
    "gradient stopped": Case(_of_plain(stopped), ("zero_gradients",), data=("digits",)),
    "quantised inputs": Case(_of_plain(quantised), ("zero_gradients",), data=("digits",)),
    "JPEG-coded inputs": Case(_of_plain(jpeg_coded), ("zero_gradients",)),
    "random resizing": Case(_of_plain(randomly_resized), ("randomised_outputs",), data=("digits",)),
    "defensive distillation": Case(distilled, ("vanishing_gradients",), data=("digits",)),
    "k-winners-take-all": Case(winners_take_all, ("misleading_gradients",)),
    "temperature by image": Case(_of_plain(tempered, seeded=True),
                                 ("misleading_gradients", "vanishing_gradients"), data=("digits",)),
    "BatchNorm in training mode": Case(_in_training_mode, ("batch_dependence",)),
    # Networks this small do not overfit like this to a few thousand photographs in a minute.
    "fast, overfitted": Case(overfitted, ("catastrophic_overfitting",), data=("digits",),
                             large=True),
    "guessing": Case(network, ("no_better_than_guessing", "constant_predictions"),
                     data=("digits",)),
    "tanh and softplus": Case(_smooth, data=("digits",), held_out=True),
    "mobilenetv2": Case(_mobilenet, data=("digits",), held_out=True),
    "reference ResNet": Case(_reference, data=("cifar10",), held_out=True),
    "waves on the inputs": Case(_of_plain(waved), ("misleading_gradients",), data=("digits",),
                                held_out=True),
    "gradient of another model": Case(_with_other_gradient, ("misleading_gradients",)),
    "dropout left on": Case(_of_plain(dropped), ("randomised_outputs",), data=("digits",),
                            held_out=True),
}  # fmt: skip


def cases(data: str) -> Iterator[str]:
    """The names of the models of a data set."""
    return (name for name, case in CASES.items() if data in case.data)
