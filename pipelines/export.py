"""Exports a run's model as a SavedModel that serves without tfrobust.

python -m pipelines.export saved_models/RUN
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from pipelines.cli import add_settings, main_of, new_parser

if TYPE_CHECKING:
    from pathlib import Path

    from tfrobust.data.types import ImageSet
    from tfrobust.run import RunFolder


def make_parser() -> argparse.ArgumentParser:
    """The flags of `pipelines.export`."""
    parser = new_parser("export", "Write a run's model as a SavedModel for serving.")
    parser.add_argument("model", metavar="RUN_OR_MODEL", help="run folder, .keras or .h5 file")
    parser.add_argument(
        "--output",
        default=None,
        help="folder for the SavedModel (default: the run folder, or one named after the model)",
    )
    parser.add_argument("--version", type=int, default=1, help="number of the version folder")
    add_settings(parser, ["data"], {})
    return parser


def work(args: argparse.Namespace) -> None:
    """Exports a run folder's or a bare model."""
    from pipelines.loading import open_with_images, require_keras

    opened, test = open_with_images(args)
    export_run(require_keras(opened, "export"), test, opened.run, args.version)


def export_run(model: Any, test: ImageSet, run: RunFolder, version: int = 1) -> Path:
    """Exports, checked against the model on real images, and says where to."""
    from tfrobust.export import export

    images = test.pixels(slice(0, 9))
    target = export(model, run.path, test.label_names, version=version, check_images=images)
    print(f"SavedModel: {target} (reloaded, logits equal to the trained model's)", flush=True)
    return target


main = main_of(work, make_parser())

if __name__ == "__main__":
    raise SystemExit(main())
