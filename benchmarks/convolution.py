"""The convolution by unfolding compared with Keras's, in one run: speed and peak memory.

    python -m benchmarks.convolution

Prints, for both SimpleNets with either convolution, milliseconds of a forward pass, of the
gradient by the images (as in attacks) and of a training step, all in compiled graphs that
alternate, so that a busy machine slows both equally; and the increase of each in peak memory of a
separate process. Before that it checks that both give the same numbers.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.measuring import (
    memory_in_process,
    milliseconds,
    new_parser,
    peak_megabytes,
    real_batch,
)

NETWORKS = ("simplenet", "simplenet_plus")
KINDS = ("keras", "unfold")
WORKS = ("forward", "image gradient", "training step")

Tensor = Any
Work = Callable[[], Any]


def main() -> int:
    """Measures and prints; see the module's docstring."""
    args = _parser().parse_args()
    if args.memory_of:
        print(json.dumps(_added_memory(args)))
        return 0
    from tfrobust.runtime import import_quietly

    import_quietly()
    print(f"{args.image_size}x{args.image_size}, batch {args.batch_size}, medians of "
          f"{args.rounds} rounds, alternating")  # fmt: skip
    print(f"{'network':16}{'work':16}{'keras ms':>10}{'ours ms':>9}{'ratio':>7}"
          f"{'keras MB':>10}{'ours MB':>9}{'ratio':>7}")  # fmt: skip
    for network in args.networks or NETWORKS:
        _compare(network, args)
    return 0


def _parser() -> argparse.ArgumentParser:
    description = "Our convolution compared with Keras's."
    parser = new_parser("convolution", description, side=32, rounds=15)
    parser.add_argument("--networks", nargs="*", choices=NETWORKS, default=[], help="only these")
    return parser


def _compare(network: str, args: argparse.Namespace) -> None:
    models = {kind: _model(network, kind, args) for kind in KINDS}
    models["unfold"].set_weights(models["keras"].get_weights())
    x, y = real_batch(args.batch_size, args.image_size)
    works = {kind: _works(models[kind], x, y) for kind in KINDS}
    for name in WORKS[:2]:
        _check_same([works[kind][name]() for kind in KINDS], f"{network}, {name}")
    for name in WORKS:
        keras_ms, ours_ms = milliseconds([works[kind][name] for kind in KINDS], args.rounds)
        keras_mb, ours_mb = (_memory_in_process(network, kind, name, args) for kind in KINDS)
        print(f"{network:16}{name:16}{keras_ms:10.1f}{ours_ms:9.1f}{ours_ms / keras_ms:7.2f}"
              f"{keras_mb:10.0f}{ours_mb:9.0f}{ours_mb / keras_mb:7.2f}", flush=True)  # fmt: skip


def _model(network: str, kind: str, args: argparse.Namespace) -> Any:
    from tfrobust.backbones import build

    shape = (args.image_size, args.image_size, 3)
    return build(network, num_classes=10, image_shape=shape, convolution=kind, seed=0)


def _works(model: Any, x: Tensor, y: Tensor) -> dict[str, Work]:
    """The functions to time, ready to run."""
    from tfrobust.attacks.gradient import input_gradient
    from tfrobust.runtime import keras, tf

    optimizer = keras.optimizers.SGD(0.001)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def forward() -> Tensor:
        return model(x, training=False)

    @tf.function
    def image_gradient() -> Tensor:
        return input_gradient(lambda z: model(z, training=False), x, y, "cross_entropy")[0]

    @tf.function
    def training_step() -> Tensor:
        with tf.GradientTape() as tape:
            value = loss(y, model(x, training=True))
        variables = model.trainable_variables
        gradients = tape.gradient(value, variables)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return value

    works = (forward, image_gradient, training_step)
    return dict(zip(WORKS, (partial(_finished, work) for work in works), strict=True))


def _finished(work: Work) -> Any:
    """The result as an array: only then has the work certainly finished."""
    return work().numpy()


def _check_same(results: list[Any], what: str) -> None:
    import numpy as np

    keras_s, ours = results
    difference = float(np.abs(ours - keras_s).max() / np.abs(keras_s).max())
    if difference > 1e-4:
        raise SystemExit(f"error: {what}: the convolutions differ by {difference:.1e}.")


def _memory_in_process(network: str, kind: str, work: str, args: argparse.Namespace) -> float:
    return memory_in_process(
        "benchmarks.convolution", f"{network}:{kind}:{work}",
        image_size=args.image_size, batch_size=args.batch_size,
    )  # fmt: skip


def _added_memory(args: argparse.Namespace) -> float:
    """MB by which the work increases the peak of a process with the model and images in it."""
    network, kind, work = args.memory_of.split(":")
    model = _model(network, kind, args)
    x, y = real_batch(args.batch_size, args.image_size)
    model(x[:1])
    run = _works(model, x, y)[work]
    before = peak_megabytes()
    for _ in range(3):
        run()
    return peak_megabytes() - before


if __name__ == "__main__":
    raise SystemExit(main())
