"""One example for each figure of the table: what it draws in the tests of the contract."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from tfrobust.figures.accuracies import Accuracies, Accuracy, AttackedAccuracies
from tfrobust.figures.accuracy_curves import AccuracyCurve, EpsCurves, StepsCurves
from tfrobust.figures.attack_path import RecordedPath
from tfrobust.figures.certificates import CertifiedCurves, RadiusCurve
from tfrobust.figures.channels import ChannelRows, LayerChannels
from tfrobust.figures.class_images import MaximisedImages
from tfrobust.figures.dataset import DataSummary
from tfrobust.figures.distances import DistanceCurves
from tfrobust.figures.factor import FactorScores
from tfrobust.figures.faithfulness import DeletionCurves
from tfrobust.figures.feature_maps import LayerMean, LayerMeans
from tfrobust.figures.gallery import ImagePairs
from tfrobust.figures.grid import GridScores
from tfrobust.figures.maps import MapsByModel, MapsOfMethod, MapsOfModel
from tfrobust.figures.outcomes import Outcomes
from tfrobust.figures.overlay import Overlays
from tfrobust.figures.run_lines import RunByEpoch, RunLine, RunsByEps
from tfrobust.figures.saliency import Predicted, SaliencyMaps
from tfrobust.figures.training import TrainingHistory
from tfrobust.figures.trials import Ranking, TrialAxis, TrialLines, TrialPairs

NAMES = ("plane", "$ car", "goldfish, Carassius auratus", "a class with a very long name")
RNG = np.random.default_rng(0)


def images(count: int, side: int = 8, channels: int = 3) -> np.ndarray:
    return RNG.random((count, side, side, channels), np.float32)


def probs(count: int) -> np.ndarray:
    return np.asarray(RNG.dirichlet(np.ones(len(NAMES)), count))


def pairs() -> ImagePairs:
    x = images(3)
    x_adv = np.clip(x + RNG.uniform(-0.03, 0.03, x.shape), 0, 1)
    return ImagePairs(x, x_adv, np.array([0, 1, 2]), probs(3), probs(3), NAMES)


def outcomes(classes: int = 4, count: int = 200) -> Outcomes:
    labels, clean, attacked = RNG.integers(0, classes, (3, count))
    clean = np.where(RNG.random(count) < 0.8, labels, clean)
    attacked = np.where(RNG.random(count) < 0.5, clean, attacked)
    names = [NAMES[i] if i < len(NAMES) else f"class number {i}" for i in range(classes)]
    return Outcomes(labels, clean, attacked, (clean == labels) & (attacked == labels), names)


def predicted() -> Predicted:
    return Predicted(images(3), np.array([0, 1, 3]), np.array([0.9, 0.5, 0.7]))


def signed() -> np.ndarray:
    return RNG.uniform(-1, 1, (3, 8, 8))


def curves(kind: type = EpsCurves, values: tuple[float, ...] = (0, 2, 4, 8), eps: float = 4) -> Any:
    """Two curves; as values and eps are of 255, in L-infinity."""
    scale = 255 if kind is EpsCurves else 1
    one = AccuracyCurve("PGD, 20 steps", [v / scale for v in values], [90, 70, 40, 10], 100)
    other = AccuracyCurve("worst case of 4 attacks", one.values, [90, 60, 30, 5], 500)
    return kind([one, other], "linf", eps / 255, 0.1)


def maps() -> MapsByModel:
    kinds = [MapsOfMethod(signed(), True), MapsOfMethod(np.abs(signed()), False)]
    one = MapsOfModel(predicted(), predicted(), kinds, kinds)
    return MapsByModel(
        {"robust": one, "mobilenetv2_with_a_longer-name": one}, ["SmoothGrad", "Grad-CAM"],
        np.array([0, 1, 2]), NAMES,
    )  # fmt: skip


def layers() -> LayerMeans:
    found = [LayerMean(f"block_{i}_convolution_long", (4, 4, 8), RNG.random((4, 4)))
             for i in range(9)]  # fmt: skip
    of = {"clean": found, "adversarial": found}
    return LayerMeans({"robust": of, "standard": of})


def history() -> TrainingHistory:
    rows = [
        {"epoch": k, "loss": 2 / k, "stage": 1 + (k > 3), "blocks": "all", "select_loss": 2.5 / k,
         "select_clean": 1 - 0.5 / k, "select_pgd": 0.6 - 0.5 / k}
        for k in range(1, 9)
    ]  # fmt: skip
    rows[5]["event"] = "clean accuracy collapsed"
    return TrainingHistory(rows, elbow=7)


def data_set() -> DataSummary:
    labels = {"train": RNG.integers(0, 4, 300), "select": RNG.integers(0, 4, 50),
              "test": RNG.integers(0, 4, 100)}  # fmt: skip
    examples = {label: [(255 * image).astype(np.uint8) for image in images(6)]
                for label in range(4)}  # fmt: skip
    return DataSummary("pets: 450 images of 8x8 in 4 classes", labels, examples, NAMES, 1.4,
                       Counter({"640x480": 300, "32x32": 150}), Counter(RGB=400, L=50))  # fmt: skip


def path() -> RecordedPath:
    steps = np.clip(images(1) + np.linspace(0, 0.2, 12)[:, None, None, None], 0, 1)
    return RecordedPath(steps, steps[0], 1, probs(12), NAMES, "The pixel attack, step by step")


def accuracies() -> Accuracies:
    rows = {f"model-{i}": {"clean": Accuracy(90 - i, 100), "apgd-ce 8/255": Accuracy(40 + i, 100)}
            for i in range(4)}  # fmt: skip
    return Accuracies(["clean", "apgd-ce 8/255"], rows, "Networks side by side", {"clean": 0.8})


def factor() -> FactorScores:
    lines = {"from scratch": {0: (0.3, 0.2), 1: (0.4, 0.25)}, "from ImageNet": {0: (0.6, 0.3)}}
    return FactorScores("learning_rate", "all 3 trials", ["0.0063", "0.0076"], [0.0063, 0.0076],
                        ["clean", "robust (PGD)"], lines)  # fmt: skip


def trial_lines() -> TrialLines:
    axes = [TrialAxis(name, RNG.random(6), np.array([0.0, 0.5, 1.0]), ["16", "32", "64"])
            for name in ("batch_size", "clean", "robust\n(PGD)")]  # fmt: skip
    return TrialLines(axes, "clean")


def two_radii() -> list[RadiusCurve]:
    radii = np.array([0.0, 0.01, 0.02, 0.03])
    return [RadiusCurve(name, radii, np.array([0.9, 0.6, 0.3, 0.1]) - low, 50)
            for name, low in (("robust, fmn", 0.0), ("standard, fmn", 0.05))]  # fmt: skip


#: Figure -> what makes its data.
CASES: dict[str, Callable[[], Any]] = {
    "data": data_set,
    "triples": pairs,
    "accuracy_against_eps": curves,
    "accuracy_against_steps": lambda: curves(StepsCurves, (0, 1, 10, 40)),
    "per_class": outcomes,
    "confusion": outcomes,
    "path": path,
    "saliency": lambda: SaliencyMaps(
        predicted(), predicted(), [signed()] * 3, [signed()] * 3, np.array([0, 1, 2]), NAMES
    ),
    "overlay": lambda: Overlays(
        predicted(), predicted(), images(3), images(3), np.array([0, 1, 2]), NAMES
    ),
    "top5": pairs,
    "maps": maps,
    "faithfulness": lambda: DeletionCurves(
        {"robust": {"SmoothGrad": (RNG.random((4, 11)), RNG.random((4, 11)))}}
    ),
    "feature_maps": layers,
    "channels": lambda: ChannelRows([LayerChannels("conv", (4, 4, 5), RNG.random((5, 4, 4)))]),
    "classes": lambda: MaximisedImages({"robust": images(3), "other": images(3)}, [0, 1, 3], NAMES),
    "curves": history,
    "runs_against_eps": lambda: RunsByEps(
        [RunLine(f"a-run-with-a-long-name-{i}", [0, 0.025, 0.03, 0.1], [0.9, 0.6, 0.55, 0.1], i)
         for i in range(5)], "linf",
    ),
    "run_against_epochs": lambda: RunByEpoch(
        [RunLine("select, clean", list(range(1, 41)), [0.9] * 40, 0, dashed=True),
         RunLine("select, PGD", list(range(1, 41)), [0.4] * 40)], [3.5],
    ),
    "grid": lambda: GridScores(
        "Accuracy on the grid", "batch_size", "learning_rate", ["16", "32"], ["0.001", "0.01"],
        {"clean": np.array([[0.3, 0.9], [np.nan, 0.5]]), "robust (PGD)": RNG.random((2, 2))},
    ),
    "factor": factor,
    "trials": lambda: Ranking(
        "All trials, ranked", ["batch_size 16", "batch_size 32"], "clean",
        {"clean": [0.9, 0.8], "robust (PGD)": [0.3, 0.4]},
    ),
    "parallel": trial_lines,
    "pareto": lambda: TrialPairs({3: (0.5, 0.5), 1: (0.8, 0.3), 0: (0.9, 0.1)}, [(0.7, 0.2)]),
    "certified_accuracy": lambda: CertifiedCurves(two_radii(), 0.1),
    "minimal_distances": lambda: DistanceCurves(two_radii(), [0.015, np.inf], "linf", 0.1),
    "robustness": lambda: AttackedAccuracies(
        {"clean": Accuracy(90, 100), "apgd-ce": Accuracy(30, 100), "worst case": Accuracy(0, 100)},
        "a model: 100 images, linf, eps 8/255",
    ),
    "comparison": accuracies,
}  # fmt: skip
