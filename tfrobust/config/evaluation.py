"""Settings of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from tfrobust.settings import Checked, setting


@dataclass(frozen=True)
class EvaluationConfig(Checked):
    """How robustness is measured."""

    attacks: tuple[str, ...] = setting(
        lambda: ("quick",),
        "attacks, comma-separated, each with settings if need be: pgd:steps=50; quick, or, the "
        "strongest, autoattack",
        flag="attack",
    )
    steps: int = setting(20, "steps of pgd and bim", low=1)
    restarts: int = setting(2, "restarts of pgd", low=1)
    queries: int | None = setting(
        None,
        "model evaluations for an image, of attacks that see outputs alone (default: theirs)",
        low=1,
    )
    eot: int = setting(1, "attack and evaluate a randomised model as its mean over N draws", low=1)
    limit: int | None = setting(
        None, "evaluate only N of the test images, drawn by the seed", low=1
    )
    batch_size: int = setting(128, "images in a batch", low=1, flag="eval-batch-size")
    figures: bool = setting(
        True, "draw curves, classes, confusion, examples, attack paths and saliency"
    )
    corruptions: bool = setting(
        False,
        "measure mean corruption accuracy as well: on images corrupted here, or, of a folder that "
        "is named, on that copy of CIFAR-10-C, TinyImageNet-C or ImageNet-C",
        or_path="corruption_set",
    )
    #: The folder of a published set; None corrupts the images here.
    corruption_set: str | None = None
    sweep: tuple[float, ...] = setting(
        (), "further eps to run the attacks at, comma-separated, or none: 1/255,2/255", low=0
    )
