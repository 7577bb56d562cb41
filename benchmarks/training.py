"""A training step of `--method nsl` compared with stock NSL's, same settings, side by side.

    python -m benchmarks.training

Prints milliseconds per step and the ratio for several attacks, and the peak memory of each,
measured in a separate process. Both train MobileNetV2 with the same optimiser, batches and loss
(clean + adversarial) by Keras `fit`; runs alternate, so that a busy machine slows both equally.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from typing import Any

from benchmarks.measuring import (
    memory_in_process,
    milliseconds,
    new_parser,
    peak_megabytes,
    real_batch,
)


@dataclass(frozen=True)
class Case:
    """One setting of the training attack; `shared` is for ours only: stock NSL always shares."""

    name: str
    steps: int
    random_start: bool
    shared: bool = False


CASES = (
    Case("FGSM", 1, False),
    Case("FGSM, shared gradient", 1, False, shared=True),
    Case("FGSM, random start", 1, True),
    Case("PGD-2, random start (default)", 2, True),
    Case("PGD-3", 3, False),
    Case("PGD-7, random start", 7, True),
)
EPS = 1 / 255


def main() -> int:
    """Measures and prints; see the module's docstring."""
    args = _parser().parse_args()
    if args.memory_of:
        print(json.dumps(_peak_memory(args)))
        return 0
    from tfrobust.runtime import import_quietly

    import_quietly()
    print(f"MobileNetV2, {args.image_size}x{args.image_size}, batch {args.batch_size}, "
          f"medians of {args.rounds} rounds of {args.steps} steps, alternating")  # fmt: skip
    print(f"{'attack':32}{'stock ms':>9}{'ours ms':>9}{'ratio':>7}{'stock MB':>10}{'ours MB':>9}")
    for case in [CASES[i] for i in args.cases] or CASES:
        fits = [_trainer(case, kind, args) for kind in ("stock", "ours")]
        stock, ours = (turn / args.steps for turn in milliseconds(fits, args.rounds))
        memory = [_memory_in_process(case, kind, args) for kind in ("stock", "ours")]
        print(f"{case.name:32}{stock:9.0f}{ours:9.0f}{stock / ours:7.2f}"
              f"{memory[0]:10.0f}{memory[1]:9.0f}", flush=True)  # fmt: skip
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("training", "Our NSL step compared with stock NSL's.", side=64, rounds=7)
    parser.add_argument("--steps", type=int, default=4, help="steps per round")
    parser.add_argument("--cases", type=int, nargs="*", default=[], help="only these, from 0")
    return parser


def _trainer(case: Case, kind: str, args: argparse.Namespace) -> Any:
    """A function that trains for one round."""
    from tfrobust.attacks.gradient import PGD
    from tfrobust.backbones import build
    from tfrobust.runtime import keras, nsl, tf
    from tfrobust.threat_model import ThreatModel
    from tfrobust.training.nsl import NSL, adv_config
    from tfrobust.training.recipe import Recipe

    side = args.image_size
    model = build("mobilenetv2", num_classes=200, image_shape=(side, side, 3), seed=0)
    attack = PGD(steps=case.steps, random_start=case.random_start, early_stop=False)
    recipe = Recipe(
        ThreatModel("linf", EPS), attack, batch_norm="both", shared_gradient=case.shared
    )
    optimizer = keras.optimizers.SGD(0.001, momentum=0.9)
    if kind == "ours":
        trainer = NSL(model, recipe)
        trainer.compile(optimizer)
    else:
        trainer = nsl.keras.AdversarialRegularization(
            model, label_keys=("label",), adv_config=adv_config(recipe)
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        trainer.compile(optimizer, loss=loss)
    image, label = real_batch(args.batch_size, side)
    # With autotuning, the end of each `fit` waits for the tuner's thread to wake.
    options = tf.data.Options()
    options.autotune.enabled = False
    data = (
        tf.data.Dataset.from_tensors({"image": image, "label": label})
        .repeat(args.steps)
        .with_options(options)
    )
    return lambda: trainer.fit(data, epochs=1, verbose=0)


def _memory_in_process(case: Case, kind: str, args: argparse.Namespace) -> float:
    """Peak memory in MB of a new process that trains for one round."""
    return memory_in_process(
        "benchmarks.training", f"{CASES.index(case)}:{kind}",
        image_size=args.image_size, batch_size=args.batch_size, steps=args.steps,
    )  # fmt: skip


def _peak_memory(args: argparse.Namespace) -> float:
    index, _, kind = args.memory_of.partition(":")
    fit = _trainer(CASES[int(index)], kind, args)
    fit()
    fit()
    return peak_megabytes()


if __name__ == "__main__":
    raise SystemExit(main())
