"""Minimal-norm attacks compared with other libraries', on the reference model, in one run.

    python -m benchmarks.minimal_norm
    python -m benchmarks.minimal_norm --images 50 --only ddn fmn-l2 --libraries tfrobust Foolbox

For each attack and library: the median distance over the correctly classified images, the share
for which an adversarial image was found, and seconds. The images of every library are checked here:
misclassified by the Keras model itself and inside [0, 1]; their distance is recomputed. All attacks
have the same steps, searches and, if decision-based, queries. Ours are timed with tracing and
verification, as in `perturb`. Both wall-clock and CPU seconds are printed: the latter compare
libraries even if the machine has other work.

Differences by design: adv-lib rounds DDN's images to 256 levels by default, which is off here;
DeepFool's steps respect bounds only in ours; Foolbox and adv-lib count single values in l0, but
their images are counted here by pixels, like ours; ART also searches the step of Carlini and
Wagner's attack by halving and doubling it. The other libraries' decision-based attacks count steps:
the queries they used are printed below their line, and each library finds the first misclassified
image in its own way.

The other libraries are not dependencies of tfrobust; a missing one is skipped, with the reason.
For torch's build without CUDA and all of them:

    pip install -c constraints.txt torch torchvision --index-url https://download.pytorch.org/whl/cpu
    pip install -c constraints.txt -e ".[benchmark]"
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.attacks import IMAGES, REFERENCE
from benchmarks.minimal_libraries import (
    Problem,
    Run,
    adv_lib,
    art,
    art_decisions,
    foolbox,
    foolbox_decisions,
    ours,
)
from tfrobust.errors import TFRobustError, UsageError

#: Attack -> (norm, library -> its attack).
CASES: dict[str, tuple[str, dict[str, Run]]] = {
    "deepfool-l2": ("l2", {
        "tfrobust": ours("deepfool", "l2"),
        "Foolbox": foolbox("L2DeepFoolAttack"),
        "ART": art("DeepFool"),
        "adv-lib": adv_lib("df", norm=2),
    }),
    "deepfool-linf": ("linf", {
        "tfrobust": ours("deepfool", "linf"),
        "Foolbox": foolbox("LinfDeepFoolAttack"),
        "adv-lib": adv_lib("df", norm=float("inf")),
    }),
    "ddn": ("l2", {
        "tfrobust": ours("ddn", "l2"),
        "Foolbox": foolbox("DDNAttack", "one"),
        "adv-lib": adv_lib("ddn", "one", levels=None),
    }),
    "fmn-linf": ("linf", {
        "tfrobust": ours("fmn", "linf"),
        "Foolbox": foolbox("LInfFMNAttack", "one"),
        "adv-lib": adv_lib("fmn", "one", norm=float("inf")),
    }),
    "fmn-l2": ("l2", {
        "tfrobust": ours("fmn", "l2"),
        "Foolbox": foolbox("L2FMNAttack", "one"),
        "adv-lib": adv_lib("fmn", "one", norm=2),
    }),
    "fmn-l1": ("l1", {
        "tfrobust": ours("fmn", "l1"),
        "Foolbox": foolbox("L1FMNAttack", "one"),
        "adv-lib": adv_lib("fmn", "one", norm=1),
    }),
    "fmn-l0": ("l0", {
        "tfrobust": ours("fmn", "l0"),
        "Foolbox": foolbox("L0FMNAttack", "one"),
        "adv-lib": adv_lib("fmn", "one", norm=0),
    }),
    "sigma-zero": ("l0", {
        "tfrobust": ours("sigma-zero", "l0"),
        "adv-lib": adv_lib("sigma_zero", "one", step_name="num_steps"),
    }),
    "cw": ("l2", {
        "tfrobust": ours("cw", "l2"),
        "Foolbox": foolbox("L2CarliniWagnerAttack", "several"),
        "ART": art("CarliniL2Method", "several", learning_rate=0.01, initial_const=1e-3),
        "adv-lib": adv_lib("carlini_wagner_l2", "several", step_name="max_iterations"),
    }),
    "ead": ("l1", {
        "tfrobust": ours("ead", "l1"),
        "Foolbox": foolbox("EADAttack", "several", decision_rule="L1"),
        "ART": art("ElasticNet", "several", decision_rule="L1", beta=1e-2),
    }),
    "boundary": ("l2", {
        "tfrobust": ours("boundary", "l2"),
        "Foolbox": foolbox_decisions("BoundaryAttack"),
        # An iteration tries up to 10 steps along the sphere; usually fewer are misclassified.
        "ART": art_decisions(
            "BoundaryAttack", each=4, targeted=False, num_trial=1, sample_size=10
        ),
    }),
    "hopskipjump-l2": ("l2", {
        "tfrobust": ours("hopskipjump", "l2"),
        "Foolbox": foolbox_decisions("HopSkipJumpAttack", constraint="l2"),
        "ART": art_decisions("HopSkipJump", norm=2),
    }),
    "hopskipjump-linf": ("linf", {
        "tfrobust": ours("hopskipjump", "linf"),
        "Foolbox": foolbox_decisions("HopSkipJumpAttack", constraint="linf"),
        "ART": art_decisions("HopSkipJump", norm=float("inf")),
    }),
    "geoda": ("l2", {
        "tfrobust": ours("geoda", "l2"),
        "ART": art_decisions("GeoDA", norm=2),
    }),
}  # fmt: skip


_LIBRARIES = ("tfrobust", "Foolbox", "ART", "adv-lib")


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; see the module's docstring."""
    args = _parser().parse_args(argv)
    try:
        problem = _problem(args)
        budget = f"{args.steps} steps, or {args.searches} searches of {args.search_steps}"
        print(
            f"{len(problem.x)} images, {budget}, or {args.queries} queries; {os.cpu_count()} cores"
        )
        print(f"{'attack':<17}{'library':<12}{'median':>10}{'found':>8}{'seconds':>10}{'cpu':>10}")
        for name in args.only or CASES:
            _measure(name, problem, args.libraries)
    except TFRobustError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    return 0


def _measure(name: str, problem: Problem, chosen: Sequence[str]) -> None:
    norm, libraries = CASES[name]
    for library, run in libraries.items():
        if chosen and library not in chosen:
            continue
        start, spent = time.perf_counter(), time.process_time()
        try:
            x_adv = run(problem)
        except ImportError as error:
            print(f"{name:<17}{library:<12}  skipped: {error}")
            continue
        # No failure of another library is a reason to stop.
        except Exception as error:
            print(f"{name:<17}{library:<12}  failed: {type(error).__name__}: {error}", flush=True)
            continue
        seconds, spent = time.perf_counter() - start, time.process_time() - spent
        found = _judged(problem, library, norm, x_adv, seconds)
        print(f"{name:<17}{library:<12}{found.median:10.5f}{found.found:8.3f}{seconds:10.1f}"
              f"{spent:10.1f}", flush=True)  # fmt: skip


def _judged(problem: Problem, library: str, norm: str, x_adv: np.ndarray, seconds: float) -> Any:
    """The distances of a library's images, according to the Keras model itself."""
    from tfrobust.radii.distances import MinimalDistances
    from tfrobust.runtime import tf
    from tfrobust.threat_model import ThreatModel

    x_adv = np.asarray(x_adv, np.float32)
    wrong, wrong_before = (
        np.asarray(problem.model(x, training=False)).argmax(axis=1) != problem.y
        for x in (x_adv, problem.x)
    )
    inside = (x_adv >= -1e-6).all(axis=(1, 2, 3)) & (x_adv <= 1 + 1e-6).all(axis=(1, 2, 3))
    distance = ThreatModel(norm).distance(tf.constant(x_adv), tf.constant(problem.x)).numpy()
    distance = np.where(wrong & inside, distance.astype(float), np.inf)
    classes = int(problem.model.output_shape[-1])
    distance = np.where(wrong_before, 0.0, distance)
    return MinimalDistances("", library, norm, problem.y, distance, classes, seconds=seconds)


def _problem(args: argparse.Namespace) -> Problem:
    from tfrobust.runtime import import_quietly, keras, tf

    import_quietly()
    tf.get_logger().setLevel("ERROR")
    if not REFERENCE.is_file():
        raise TFRobustError(f"Expected the reference model at {REFERENCE}; set TFROBUST_SHARED.")
    model = keras.models.load_model(REFERENCE, compile=False)
    with np.load(IMAGES) as content:
        x, y = content["x"][: args.images], content["y"][: args.images]
    pixels = x.astype(np.float32) / np.float32(255)
    budget = (args.steps, args.search_steps, args.searches, args.queries)
    return Problem(model, pixels, y.astype(np.int32), *budget)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.minimal_norm",
        description="Our minimal-norm attacks compared with other libraries'.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--only", nargs="*", choices=list(CASES), default=[], help="only these attacks")
    add("--libraries", nargs="*", choices=_LIBRARIES, default=[], help="only these")
    add("--images", type=int, default=200, help="number of the reference model's images")
    add("--steps", type=int, default=100, help="steps of attacks with one search")
    add("--search-steps", type=int, default=100, help="steps of each search, if there are several")
    add("--searches", type=int, default=9, help="searches for the weight of misclassification")
    add("--queries", type=int, default=1000, help="queries of decision-based attacks")
    return parser


if __name__ == "__main__":
    sys.exit(main())
