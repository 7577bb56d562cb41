"""How close is the default suite `quick` to AutoAttack, and at which fraction of its cost?

    python -m benchmarks.quick
    python -m benchmarks.quick saved_models/digits-nsl --eps 0.03 0.05 0.1

Both suites run on the same images of a run folder's own test split, or of --data; AutoAttack is
the published one ('standard'). One row per radius: both accuracies, the number of images on which
they differ, both numbers of gradients, and both times. Goal: within a point, at an eighth.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measuring import shared_folder
from tfrobust.settings import parse_number

POINTS, PART = 0.01, 1 / 8


def main(words: Sequence[str] | None = None) -> int:
    """Prints the table; 0 if the goal is reached in each row."""
    args = _with_reference(_parser().parse_args(words))
    from tfrobust.attacks.autoattack import autoattack
    from tfrobust.attacks.quick import quick
    from tfrobust.evaluation.evaluate import cascade
    from tfrobust.evaluation.evaluator import Evaluator
    from tfrobust.jobs.images import sample
    from tfrobust.jobs.opening import open_subject
    from tfrobust.threat_model import ThreatModel

    settings = {"data": {"dataset": str(args.data)}} if args.data else {}
    subject = open_subject(args.model, settings, output=Path("build/quick"))
    images = sample(subject.test, args.images, 42)
    evaluator = Evaluator(subject.model, images)
    print(f"{args.model.name}, {len(images)} images, clean {evaluator.clean.correct.mean():.3f}")
    columns = ("eps", "quick", "AutoAttack", "images that differ", "gradients", "of AutoAttack's",
               "seconds", "of AutoAttack's")  # fmt: skip
    print(f"| {' | '.join(columns)} |")
    print("|---|---|---|---|---|---|---|---|")
    reached = True
    for eps in args.eps:
        ball, rows = ThreatModel("linf", eps), []
        for suite in (quick("linf", evaluator.classifier.classes),
                      autoattack("standard", evaluator.classifier.classes)):  # fmt: skip
            start = time.perf_counter()
            results = cascade(evaluator, suite, ball)
            cost = float(sum(result.gradient_evaluations for result in results))
            cost += sum(r.forward_evaluations - r.gradient_evaluations for r in results) / 3
            rows.append((results[-1].outcome.correct, cost, time.perf_counter() - start))
        (ours, cost, seconds), (full, full_cost, full_seconds) = rows
        apart = float(ours.mean() - full.mean())
        reached &= apart <= POINTS + 1e-9 and cost <= PART * full_cost
        cells = (ball.eps_text, f"{ours.mean():.3f}", f"{full.mean():.3f}",
                 str(int((ours != full).sum())), f"{cost:,.0f}", f"{cost / full_cost:.3f}",
                 f"{seconds:.0f}", f"{seconds / full_seconds:.3f}")  # fmt: skip
        print(f"| {' | '.join(cells)} |", flush=True)
    print(f"Goal, at most {POINTS:.0%} above AutoAttack at an eighth of its gradients (a forward "
          f"pass counts a third): {'reached' if reached else 'NOT reached'}.")  # fmt: skip
    return 0 if reached else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quick", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("model", nargs="?", type=Path, default=None, help="run folder or model file (the reference "
        "model)")  # fmt: skip
    add("--data", type=Path, default=None, help="images, if the model is not a run folder")
    add("--eps", type=parse_number, nargs="+", default=[2 / 255, 8 / 255], help="linf radii")
    add("--images", type=int, default=200, help="number of images")
    return parser


def _with_reference(args: argparse.Namespace) -> argparse.Namespace:
    if args.model is None:
        reference = shared_folder() / "reference"
        args.model, args.data = reference / "resnet2b.h5", reference / "cifar10_test_500.npz"
    return args


if __name__ == "__main__":
    sys.exit(main())
