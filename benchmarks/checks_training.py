"""Images and training for `benchmarks.checks`: networks of three convolutions, in seconds."""

from __future__ import annotations

import functools
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np

from benchmarks.measuring import shared_folder
from tfrobust.typing import Function, Tensor

# Images that are attacked, and images that a CIFAR-10 model is trained on.
ATTACKED, TRAINED = 200, 3000
EPOCHS = {"digits": 12, "cifar10": 8}
# Channels of the first convolution.
SMALL, LARGE = 12, 24
DATA = ("digits", "cifar10")


@dataclass(frozen=True)
class Images:
    """Both splits of a data set: float32 [N, H, W, C] in [0, 1], int32 [N]."""

    x: np.ndarray
    y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray


@functools.cache
def images(data: str) -> Images:
    """The images of 'digits' or 'cifar10'; the same test images for each seed of a model."""
    if data == "digits":
        import tfrobust as tr

        splits = tr.load("digits")
        test = splits.test.sample(ATTACKED, 0)
        return Images(splits.train.pixels(slice(None)), splits.train.labels,
                      test.pixels(slice(None)), test.labels)  # fmt: skip
    with zipfile.ZipFile(shared_folder() / "cifar10-images.zip") as archive:
        return Images(*_decoded(archive, "train", TRAINED), *_decoded(archive, "test", ATTACKED))


def _decoded(archive: zipfile.ZipFile, part: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Equally many of each class, in a fixed random order."""
    from PIL import Image

    names = [name for name in sorted(archive.namelist()) if f"/{part}/" in name and "." in name]
    classes = sorted({name.split("/")[2] for name in names})
    rng, chosen = np.random.default_rng(0), []
    for label, title in enumerate(classes):
        own = [name for name in names if f"/{title}/" in name]
        picked = rng.permutation(len(own))[: count // len(classes)]
        chosen += [(own[index], label) for index in picked]
    chosen = [chosen[index] for index in rng.permutation(len(chosen))]
    x = [np.asarray(Image.open(BytesIO(archive.read(name))).convert("RGB")) for name, _ in chosen]
    return np.float32(np.stack(x)) / 255, np.array([label for _, label in chosen], np.int32)


@dataclass(frozen=True)
class Task:
    """What a model is made for: a data set, a ball and a seed."""

    data: str
    seed: int

    @property
    def eps(self) -> float:
        """The radius of the L-infinity ball for training and attacks."""
        return 0.1 if self.data == "digits" else 4 / 255

    @property
    def large_eps(self) -> float:
        """The radius of the ball in which single-step training overfits."""
        return 0.2 if self.data == "digits" else 16 / 255

    @property
    def images(self) -> Images:
        """Both splits."""
        return images(self.data)


def network(
    task: Task, *, width: int = SMALL, library: Any = None, activation: Function | None = None,
    batch_norm: bool = False, scale: float = 1.0,
) -> Any:  # fmt: skip
    """Three convolutions with stride 2 and a dense layer, with logits, in either Keras."""
    library = library or _tf_keras()
    layers = library.layers
    library.utils.set_random_seed(task.seed)
    x = image = library.Input((32, 32, 3))
    for times in (1, 2, 4):
        x = layers.Conv2D(times * width, 3, 2, padding="same")(x)
        x = layers.BatchNormalization(momentum=0.9)(x) if batch_norm else x
        x = (activation or layers.ReLU())(x)
    x = layers.Dense(4 * width)(layers.Flatten()(x))
    logits = layers.Dense(10)((activation or layers.ReLU())(x))
    return library.Model(image, layers.Rescaling(scale)(logits) if scale != 1 else logits)


def _tf_keras() -> Any:
    from tfrobust.runtime import keras

    return keras


def trained(
    task: Task, method: Any, *, epochs: int = 0, eps: float | None = None, weight_decay: float = 0,
    rate: float = 2e-3, start: Any = None, build: Callable[..., Any] | None = None,
    **of_network: Any,
) -> Any:  # fmt: skip
    """A network after `tr.robust(...).fit`, starting from another's weights or from random ones."""
    import tfrobust as tr

    library = of_network.get("library") or _tf_keras()
    model = (build or network)(task, **of_network)
    if start is not None:
        model.set_weights(start.get_weights())
    robust = tr.robust(model, method, tr.Linf(eps or task.eps))
    optimizer = library.optimizers.AdamW(rate, weight_decay=weight_decay)
    robust.compile(optimizer)
    epochs = epochs or EPOCHS[task.data]
    robust.fit(task.images.x, task.images.y, batch_size=64, epochs=epochs, verbose=0)
    return model


@functools.lru_cache(maxsize=4)
def plain(task: Task, width: int = SMALL) -> Any:
    """The sound network that others start from or are derived from."""
    import tfrobust as tr

    return trained(task, tr.Standard(), weight_decay=1e-3, width=width)


def distilled(task: Task, temperature: float = 50.0) -> Any:
    """Defensive distillation, Papernot et al. (2016), https://arxiv.org/abs/1511.04508."""
    from tfrobust.runtime import keras, tf

    def loss(targets: Tensor, logits: Tensor) -> Tensor:
        return tf.nn.softmax_cross_entropy_with_logits(targets, logits / temperature)

    targets = np.eye(10, dtype=np.float32)[task.images.y]
    for _ in range(2):  # the teacher, and the student of its probabilities
        model = network(task, scale=temperature)
        model.compile(keras.optimizers.AdamW(2e-3), loss)
        epochs = EPOCHS[task.data]
        model.fit(task.images.x, targets, batch_size=64, epochs=epochs, verbose=0)
        logits = model.predict(task.images.x, verbose=0)
        targets = np.asarray(tf.nn.softmax(logits / temperature))
    return model


def winners_take_all(task: Task, share: float = 0.1) -> Any:
    """k-winners-take-all, Xiao et al. (2020), https://arxiv.org/abs/1905.10510."""
    import tfrobust as tr
    from tfrobust.runtime import keras, tf

    def keep(x: Tensor) -> Tensor:
        flat = tf.reshape(x, [-1, int(np.prod(x.shape[1:]))])
        winners = tf.math.top_k(flat, max(int(share * flat.shape[1]), 1)).values
        return tf.reshape(tf.where(flat >= winners[:, -1:], flat, 0.0), [-1, *x.shape[1:]])

    return trained(task, tr.Standard(), activation=lambda x: keras.layers.Lambda(keep)(x))


def overfitted(task: Task) -> Any:
    """Single-step training from the image itself until it overfits catastrophically.

    Wong et al. (2020), https://arxiv.org/abs/2001.03994.
    """
    import tfrobust as tr

    return trained(task, tr.Fast(noise_reach=0), eps=task.large_eps, epochs=2 * EPOCHS[task.data],
                   width=LARGE, start=plain(task, LARGE))  # fmt: skip
