"""Puts several models side by side: their evaluations, or their accuracy on sets of images.

python -m pipelines.compare saved_models/RUN saved_models/OTHER
python -m pipelines.compare RUN OTHER --set original=test --set perturbed=sets/hold-out.npz
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.cli import main_of, new_parser
from tfrobust.errors import UsageError
from tfrobust.settings import parse_number

if TYPE_CHECKING:
    from tfrobust.data.types import ImageSet
    from tfrobust.evaluation.comparison import Cell


def make_parser() -> argparse.ArgumentParser:
    """The flags of `pipelines.compare`."""
    parser = new_parser("compare", "One table and one figure of several models.")
    add = parser.add_argument
    add("models", nargs="+", metavar="[NAME=]RUN_OR_MODEL", help="run folders; with --set model "
        "files too")  # fmt: skip
    add("--set", action="append", default=[], metavar="NAME=FILE", help="measure plain accuracy "
        "on these images: an .npz, folder, zip or .pt, or 'test' for a run's own test images; may "
        "be repeated (default: show what evaluation.json of each run says)")  # fmt: skip
    add("--reported", action="append", default=[], metavar="NAME=ACCURACY",
        help="a figure from elsewhere to show in that column; may be repeated")  # fmt: skip
    add("--title", default="Models side by side", help="of the figure")
    add("--output", default="comparison", help="folder for table and figure")
    return parser


def work(args: argparse.Namespace) -> None:
    """Measures or reads, prints and writes."""
    from tfrobust.run import write_text
    from tfrobust.runtime import import_quietly

    models = {name or Path(path).name: path for name, path in map(_named, args.models)}
    if len(models) < len(args.models):
        raise UsageError("Two models have the same name: give them others, as NAME=RUN.")
    sets = dict(_pair(text, "--set") for text in args.set)
    pairs = (_pair(text, "--reported") for text in args.reported)
    reported = {name: parse_number(value) for name, value in pairs}
    if unknown := [name for name in reported if sets and name not in sets]:
        raise UsageError(f"--reported {unknown[0]}: expected one of {', '.join(sets)}.")
    import_quietly()
    from tfrobust.evaluation.comparison import (
        EVALUATION_NOTE,
        Comparison,
        comparison_figure,
        differences,
        from_evaluation,
    )

    rows: dict[str, dict[str, Cell]] = {
        name: _measured(path, sets) if sets else from_evaluation(Path(path) / "evaluation.json")
        for name, path in models.items()
    }
    columns = tuple(dict.fromkeys(column for cells in rows.values() for column in cells))
    if unknown := [name for name in reported if name not in columns]:
        raise UsageError(f"--reported {unknown[0]}: expected one of {', '.join(columns)}.")
    doubts = (
        [] if sets else differences([Path(path) / "evaluation.json" for path in models.values()])
    )
    for doubt in doubts:
        print(f"Warning: {doubt}.", flush=True)
    note = "\n".join(["" if sets else EVALUATION_NOTE, *(f"Not ranked: {one}." for one in doubts)])
    found = Comparison(columns, rows, reported, note.strip(), ranked=not doubts)
    print(found.as_text(), flush=True)
    output = Path(args.output)
    write_text(output / "comparison.csv", found.as_csv())
    write_text(output / "comparison.md", found.as_text() + "\n")
    figure = comparison_figure(found, output / "comparison.png", args.title)
    print(f"Table and figure: {figure.parent}", flush=True)


def _measured(path: str, sets: dict[str, str]) -> dict[str, Cell]:
    from tfrobust.evaluation.comparison import accuracy_on
    from tfrobust.models.opening import load_any

    model = load_any(Path(path))
    return {name: accuracy_on(model, _images(model, path, source)) for name, source in sets.items()}


def _images(model: Any, path: str, source: str) -> ImageSet:
    """The images of a set with the labels of a model, without those that its run has seen."""
    from pipelines.loading import load_splits, without_seen
    from tfrobust.data import ReadOptions, load_all
    from tfrobust.data.labels import match_labels
    from tfrobust.models.classifier import as_classifier, input_shape
    from tfrobust.run import RunFolder, class_names

    if source == "test":
        config = RunFolder(Path(path)).read_config()
        return load_splits(config.data, config.seed, augmented=False).test
    shape = input_shape(model)
    data = load_all(source, ReadOptions(channels=shape[2] if shape else None))
    try:
        data, told = without_seen(Path(path), data)
    except UsageError:
        told = ("it was trained on all of these images, or chosen by them",)
    classes = as_classifier(model, data.pixels(slice(0, 64))).classes
    data, matched = match_labels(data, class_names(Path(path)), classes)
    for line in (*told, *matched):
        print(f"Note: {path} on {source}: {line}.", flush=True)
    return data


def _named(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    # A folder may have an equals sign in its name.
    return (name, path) if equals and not Path(text).exists() else ("", text)


def _pair(text: str, flag: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise UsageError(f"{flag}: expected NAME=VALUE, found {text!r}.")
    return name, value


main = main_of(work, make_parser())

if __name__ == "__main__":
    raise SystemExit(main())
