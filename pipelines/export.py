"""Exports a run's model as a SavedModel that serves without tfrobust.

python -m pipelines.export saved_models/RUN
python -m pipelines.export saved_models/RUN --formats weights,tflite,tflite-int8,onnx
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.cli import add_settings, main_of, new_parser
from pipelines.loading import add_intake
from tfrobust.errors import TFRobustError, UsageError
from tfrobust.export import FORMATS
from tfrobust.export.formats import format_of
from tfrobust.plugins import split
from tfrobust.run import RunFolder, doubt_of_learning

if TYPE_CHECKING:
    from tfrobust.config import BackboneConfig
    from tfrobust.data.types import ImageSet, Splits


def make_parser() -> argparse.ArgumentParser:
    """The flags of `pipelines.export`."""
    parser = new_parser("export", "Write a run's model as a SavedModel for serving.")
    add = parser.add_argument
    add("model", metavar="RUN_OR_MODEL", help="run folder, .keras or .h5 file")
    add("--output", default=None, metavar="FOLDER",
        help="for the files (default: the run folder, or MODEL-results)")  # fmt: skip
    add("--version", type=int, default=1, help="number of the version folder")
    add("--formats", default="", metavar="NAMES",
        help=f"further formats, each compared on real images: {', '.join(FORMATS)}")  # fmt: skip
    add("--images", type=int, default=500, help="test images that further formats run on")
    add("--export-anyway", action="store_true", help="also a model that is no better than guessing")
    add_intake(parser)
    add_settings(parser, ["data"], {})
    return parser


def work(args: argparse.Namespace) -> None:
    """Exports a run folder's or a bare model."""
    formats = _formats(args)
    if (doubt := doubt_of_learning(Path(args.model))) and not args.export_anyway:
        raise TFRobustError(f"{args.model} is not exported: {doubt} (--export-anyway does it).")
    from pipelines.loading import open_with_images, require_layers
    from tfrobust.models.heads import is_keras

    opened, test = open_with_images(args)
    if not is_keras(opened.model.inner):
        raise UsageError(f"{opened.source} is a SavedModel already: export takes Keras models.")
    model = require_layers(opened, test, f"--formats {args.formats}") if formats else opened.model
    export_run(model, test, opened.run, args.version)
    if formats:
        order = np.random.default_rng(opened.config.seed).permutation(len(test))
        count = _compared(len(test), args.images, opened, formats)
        images, rest = test.subset(order[:count]), test.subset(order[count:])
        needed = _calibrating(formats)
        calibration = _calibration(opened, rest, needed) if needed else None
        backbone = opened.trained.backbone if opened.trained else None
        export_portable(model, images, calibration, opened.run, formats, backbone)


def _formats(args: argparse.Namespace) -> list[str]:
    """The further formats that are asked for.

    Raises:
      UsageError: one is unknown, or cannot be made of this model; or there are no images.
    """
    formats = split(args.formats)
    forms = [format_of(text) for text in formats]
    run_folder = RunFolder(Path(args.model)).config.is_file()
    for text, form in zip(formats, forms, strict=True):
        if form.needs_backbone and not run_folder:
            raise UsageError(
                f"--formats {text}: expected a run folder, whose settings tell how the network is "
                f"built, found {args.model}: leave {text} out."
            )
    if args.images < 1:
        raise UsageError(f"--images: expected at least 1, found {args.images}.")
    return formats


def export_run(model: Any, test: ImageSet, run: RunFolder, version: int = 1) -> Path:
    """Exports, checked against the model on real images, and says where to."""
    from tfrobust.export import export

    images = test.pixels(slice(0, 9))
    target = export(model, run.path, test.label_names, version=version, check_images=images)
    print(f"SavedModel: {target} (reloaded, logits equal to the trained model's)", flush=True)
    return target


def export_portable(
    model: Any, images: ImageSet, rest: Any, run: RunFolder, formats: list[str],
    backbone: BackboneConfig | None = None,
) -> None:  # fmt: skip
    """Converts, runs each on the same images as the model, and says how they compare."""
    from tfrobust.export.portable import compare, convert

    x = images.pixels(slice(None))
    for name in formats:
        path = convert(model, name, run.path, rest, backbone)
        found = compare(name, path, lambda part: model(part, training=False), x, images.labels)
        print(found.as_text(), flush=True)


def _compared(total: int, asked: int, opened: Any, formats: list[str]) -> int:
    """How many images to compare on: an int8 model without a run takes its ranges from others."""
    needed = _calibrating(formats)
    if not needed or opened.trained is not None:
        return asked
    if total < 2:
        raise UsageError(
            f"{', '.join(formats)}: expected at least 2 images, to take ranges from and to "
            f"compare on, found {total} in --data."
        )
    return min(asked, total - max(1, min(needed, total // 4)))


def _calibrating(formats: list[str]) -> int:
    """How many images the formats take ranges from; 0 where none does."""
    forms = map(format_of, formats)
    return max((getattr(one, "images", 1) for one in forms if one.needs_images), default=0)


def _calibration(opened: Any, rest: ImageSet, count: int) -> Any:
    """Training images of the run; of a bare model test images that are not compared on."""
    from pipelines.loading import load_splits, sample

    if opened.trained is None:
        return rest.pixels(slice(0, count))
    splits: Splits = load_splits(opened.config.data, opened.config.seed, augmented=False)
    return sample(splits.train, count, opened.config.seed).pixels(slice(None))


main = main_of(work, make_parser())

if __name__ == "__main__":
    raise SystemExit(main())
