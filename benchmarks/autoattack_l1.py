"""Auto-PGD in l1 side by side with adv-lib's, on the reference model, in one run.

    python -m benchmarks.autoattack_l1
    python -m benchmarks.autoattack_l1 --images 100 --eps 2 4

Both with the settings of l1-AutoAttack: cross-entropy with 5 restarts and the targeted DLR loss
with 5 targets, 100 steps, from balls of 3 and 2 times the radius. Results are judged here, by the
Keras model itself, on the images with their distance recomputed. Ours are timed with tracing and
verification.

adv-lib is not a dependency of tfrobust; if it is missing it is skipped, with the reason. Install it
as for `benchmarks.minimal_norm`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from benchmarks.attack_libraries import classes_of
from benchmarks.attacks import IMAGES, REFERENCE
from tfrobust.errors import TFRobustError, UsageError

_STEPS, _RESTARTS, _TARGETS = 100, 5, 5
_NAMES = ("apgd-ce", "apgd-t")
Runs = dict[str, Callable[[], np.ndarray]]


def ours(model: Any, x: np.ndarray, y: np.ndarray, eps: float) -> Runs:
    """Our two attacks, by name."""
    from tfrobust.attacks.autoattack import autoattack
    from tfrobust.threat_model import L1

    attacks = autoattack(classes=int(model.output_shape[-1]), norm="l1")
    return {name: partial(_perturb, attacks[name], model, x, y, L1(eps)) for name in _NAMES}


def _perturb(attack: Any, model: Any, x: np.ndarray, y: np.ndarray, ball: Any) -> np.ndarray:
    made: np.ndarray = attack.perturb(model, x, y, ball, batch_size=250)
    return made


def theirs(model: Any, x: np.ndarray, y: np.ndarray, eps: float) -> Runs:
    """adv-lib's, by the same names, on the same network in torch."""
    import torch
    from adv_lib.attacks.auto_pgd import apgd, apgd_targeted

    from benchmarks.torch_twin import twin

    torch.set_num_threads(os.cpu_count() or 1)
    pair = twin(model, x, tolerance=1e-4)
    images, labels = pair.images(x), torch.from_numpy(y.astype(np.int64))
    given = (pair.module, images, labels, eps, 1)
    same = {"n_iter": _STEPS, "use_large_reps": True}
    return {
        "apgd-ce": lambda: pair.pixels(
            apgd(*given, n_restarts=_RESTARTS, loss_function="ce", **same)
        ),
        "apgd-t": lambda: pair.pixels(apgd_targeted(*given, num_targets=_TARGETS, **same)),
    }


def measured(runs: Runs, model: Any, x: np.ndarray, y: np.ndarray, eps: float) -> np.ndarray:
    """Which images survive both attacks, bool [N]; prints one line for each."""
    standing = classes_of(model, x) == y
    for name, run in runs.items():
        start = time.perf_counter()
        x_adv = run()
        seconds = time.perf_counter() - start
        # Sums of thousands of rounded values: a hundred-thousandth of the radius is rounding.
        inside = np.abs(x_adv - x).sum(axis=(1, 2, 3), dtype=np.float64) <= eps * (1 + 1e-5)
        standing &= ~((classes_of(model, x_adv) != y) & inside)
        print(f"  {name:10}{seconds:9.1f} s, {standing.mean():.4f} left", flush=True)
    return standing


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the comparison; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.autoattack_l1", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--images", type=int, default=100, help="number of images")
    parser.add_argument("--eps", type=float, nargs="+", default=[2.0, 4.0], help="radii")
    args = parser.parse_args(argv)
    try:
        _compare(args.images, args.eps)
    except TFRobustError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _compare(count: int, radii: Sequence[float]) -> None:
    from tfrobust.runtime import keras

    for path in (REFERENCE, IMAGES):
        if not path.is_file():
            raise UsageError(f"{path} not found: it is part of the reference data.")
    model = keras.models.load_model(REFERENCE, compile=False)
    with np.load(IMAGES) as content:
        x, y = content["x"][:count], content["y"][:count].astype(np.int32)
    x = x.astype(np.float32) / 255
    for eps in radii:
        print(f"\n{len(x)} images, l1, eps {eps:g}\ntfrobust", flush=True)
        own = measured(ours(model, x, y, eps), model, x, y, eps)
        try:
            other = theirs(model, x, y, eps)
        except ImportError as error:
            print(f"adv-lib is skipped: {error}")
            continue
        print("adv-lib", flush=True)
        differ = int((measured(other, model, x, y, eps) != own).sum())
        print(f"They differ on {differ} of {len(x)} images.", flush=True)


if __name__ == "__main__":
    sys.exit(main())
