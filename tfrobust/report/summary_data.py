"""The images of a run: data set, classes, and the number of images in each split."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tfrobust.report.runs import RunData
from tfrobust.report.summary import file_name

# Number of class names that are listed.
_NAMED = 12


def data_rows(run: RunData) -> list[tuple[str, str]]:
    """(name, value) of what is recorded about the images, the most important first.

    The sizes of the splits come from `environment.json`; if training did not record them, 'test'
    is the number of evaluated images, and the other splits are given as in the settings.
    """
    settings, sizes = run.config.get("data") or {}, run.environment.get("data") or {}
    rows = {
        "data set": file_name(settings.get("dataset") or ""),
        "size": "×".join(map(str, sizes.get("image_shape", ()))) or _size_setting(settings),
        "classes": _classes(run.evaluation),
        "train": _train(settings, sizes),
        "select": _select(settings, sizes),
        "test": _test(run.evaluation, sizes),
        "augmentation": _augmentation(run.config.get("augment") or {}),
    }
    return [(name, text) for name, text in rows.items() if text]


def _size_setting(settings: dict[str, Any]) -> str:
    side = settings.get("image_size")
    return f"{side}×{side}" if side else ""


def _classes(found: dict[str, Any]) -> str:
    names = found.get("classes") or ()
    if not names:
        seen = len(set(found["examples"]["label"])) if "examples" in found else 0
        return f"{seen:,} among the evaluated images" if seen else ""
    shown = "; ".join(name.split(",")[0] for name in names[:_NAMED])
    return f"{len(names):,}: {shown}{'; …' if len(names) > _NAMED else ''}"


def _train(settings: dict[str, Any], sizes: dict[str, Any]) -> str:
    parts = [f"{sizes['train']:,} images"] if "train" in sizes else []
    if settings.get("limit_train"):
        parts.append(f"limited to {settings['limit_train']:,}")
    if settings.get("augment_with"):
        parts.append(f"with the perturbed set {file_name(settings['augment_with'])}")
    return ", ".join(parts)


def _select(settings: dict[str, Any], sizes: dict[str, Any]) -> str:
    parts = [f"{sizes['select']:,} images"] if "select" in sizes else []
    if "select_fraction" in settings:
        parts.append(f"{settings['select_fraction']:.0%} of the training images")
    return ", ".join(parts)


def _test(found: dict[str, Any], sizes: dict[str, Any]) -> str:
    counts = Counter((found.get("examples") or {}).get("label") or ()).values()
    text = f"{found['num_examples']:,} images evaluated"
    if sizes.get("test", 0) > found["num_examples"]:
        text += f" of {sizes['test']:,}"
    return f"{text}, {min(counts):,} to {max(counts):,} per class" if counts else text


def _augmentation(settings: dict[str, Any]) -> str:
    words = [
        name.replace("_", " ") if value is True else f"{name.replace('_', ' ')} {value:g}"
        for name, value in settings.items() if value
    ]  # fmt: skip
    return ", ".join(words)
