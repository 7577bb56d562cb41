"""Shows what a run's model looks at, in clean and in adversarial images.

python -m pipelines.explain saved_models/RUN
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from pipelines.cli import add_settings, main_of, new_parser
from tfrobust.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from tfrobust.config import RunConfig
    from tfrobust.data.types import ImageSet
    from tfrobust.run import RunFolder

POOL = 500


def make_parser() -> argparse.ArgumentParser:
    """The flags of `pipelines.explain`."""
    parser = new_parser("explain", "Draw saliency maps of clean and adversarial test images.")
    parser.add_argument("model", metavar="RUN_OR_MODEL", help="run folder, .keras or .h5 file")
    parser.add_argument(
        "--output",
        default=None,
        help="folder for the figures (default: the run folder, or one named after the model)",
    )
    parser.add_argument(
        "--per-group", type=int, default=3,
        help="images of each group: withstood, broken by the attack, wrong anyway",
    )  # fmt: skip
    add_settings(parser, ["", "threat", "data"], {})
    return parser


def work(args: argparse.Namespace) -> None:
    """Explains a run folder's or a bare model."""
    if args.per_group < 1:
        raise UsageError(f"--per-group: expected at least 1, found {args.per_group}.")
    from pipelines.loading import open_with_images, require_keras

    opened, test = open_with_images(args)
    explain_run(require_keras(opened, "explain"), test, opened.config, opened.run, args.per_group)


def explain_run(
    model: Any, test: ImageSet, config: RunConfig, run: RunFolder, per_group: int = 3
) -> Path:
    """Attacks a few hundred test images, picks some of each kind, and draws their maps."""
    from pipelines.loading import sample
    from tfrobust.attacks.gradient import PGD
    from tfrobust.evaluation.evaluator import Evaluator
    from tfrobust.explain.figures import Examples, pick, saliency_figure
    from tfrobust.threat_model import ThreatModel

    pool = sample(test, POOL, config.seed)
    evaluator = Evaluator(model, pool, seed=config.seed)
    attack, threat_model = PGD(steps=20), ThreatModel.from_config(config.threat)
    attacked = evaluator.run("pgd", attack, threat_model).outcome.predictions
    index = pick(pool.labels, evaluator.clean.predictions, attacked, per_group, config.seed)
    x = pool.pixels(index)
    examples = Examples(x, pool.labels[index], evaluator.craft(attack, threat_model, index))
    path = run.figures / "saliency.png"
    saliency_figure(model, examples, test.label_names, path, seed=config.seed)
    print(f"Figure: {path}", flush=True)
    return path


main = main_of(work, make_parser())

if __name__ == "__main__":
    raise SystemExit(main())
