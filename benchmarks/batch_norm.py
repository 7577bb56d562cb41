"""Which batches should update BatchNorm's statistics? Measured on real images.

    python -m benchmarks.batch_norm

Trains MobileNetV2 on `digits` once per policy, on clean and adversarial batches of equal
weight, and prints accuracy on the test images, clean and under PGD-20.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path


def main() -> int:
    """Measures and prints; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.batch_norm", description="Compare BatchNorm policies.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--epochs", type=int, default=15, help="epochs of each training")
    parser.add_argument("--seeds", type=int, default=2, help="runs per policy")
    args = parser.parse_args()
    from tfrobust.config import BATCH_NORM
    from tfrobust.runtime import import_quietly

    import_quietly()
    print(f"{'policy':14}{'seed':>5}{'clean':>8}{'PGD-20':>8}")
    for policy in BATCH_NORM:
        for seed in range(args.seeds):
            clean, robust = measure(policy, args.epochs, seed)
            print(f"{policy:14}{seed:5}{clean:8.3f}{robust:8.3f}", flush=True)
    return 0


def measure(policy: str, epochs: int, seed: int) -> tuple[float, float]:
    """Clean and PGD-20 accuracy of a network trained with this policy."""
    from tfrobust.attacks.gradient import PGD
    from tfrobust.backbones import build
    from tfrobust.data import load
    from tfrobust.evaluation.evaluate import evaluate
    from tfrobust.jobs.recipes import resolve
    from tfrobust.plugins import Choice
    from tfrobust.run import RunFolder
    from tfrobust.runtime import keras, setup
    from tfrobust.threat_model import ThreatModel
    from tfrobust.training.fit import fit

    config = resolve("digits", {"seed": seed}, None)
    stage = dataclasses.replace(config.training.stages[0], epochs=epochs)
    method = Choice("nsl", {**config.training.method.settings, "clean_weight": 1.0})
    training = dataclasses.replace(
        config.training, batch_norm=policy, method=method, stages=(stage,)
    )
    config = dataclasses.replace(config, training=training)
    setup(seed=seed)
    splits = load("digits")
    model = build(
        "mobilenetv2", num_classes=10, image_shape=(32, 32, 3), alpha=config.backbone.alpha,
        bn_momentum=config.backbone.bn_momentum, seed=seed,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder))
        run.create()
        fit(model, splits, config, run)
        kept = keras.models.load_model(run.best_model, compile=False)
    threat_model = ThreatModel.from_config(config.threat)
    report = evaluate(kept, splits.test, threat_model, {"pgd": PGD(restarts=2)})
    return float(report.clean.correct.mean()), float(report.robust.mean())


if __name__ == "__main__":
    raise SystemExit(main())
