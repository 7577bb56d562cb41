"""Figures: every figure of the project, by the name of its file.

Each is a plug-in: a frozen dataclass with a title, a group, the dataclass of its data, and `draw`,
which returns a matplotlib Figure of it. The table is in the order of a report's page.

```python
from tfrobust.figures import FIGURES
from tfrobust.figures.outcomes import Outcomes

data = Outcomes(labels, clean, attacked, robust, class_names)
FIGURES["per_class"]().save(data, "per_class.svg", theme="dark")
```
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfrobust.tables import Table

if TYPE_CHECKING:
    from tfrobust.figures.figure import Figure

#: In the order of the page.
FIGURES: Table[type[Figure[Any]]] = Table(
    "figure",
    {
        "data": "tfrobust.figures.dataset:DataSet",
        "triples": "tfrobust.figures.gallery:Gallery",
        "accuracy_against_eps": "tfrobust.figures.accuracy_curves:AccuracyAgainstEps",
        "accuracy_against_steps": "tfrobust.figures.accuracy_curves:AccuracyAgainstSteps",
        "per_class": "tfrobust.figures.by_class:AccuracyByClass",
        "confusion": "tfrobust.figures.confusion:Confusion",
        "path": "tfrobust.figures.attack_path:AttackPath",
        "saliency": "tfrobust.figures.saliency:Saliency",
        "overlay": "tfrobust.figures.overlay:Overlay",
        "top5": "tfrobust.figures.top5:Top5",
        "maps": "tfrobust.figures.maps:Maps",
        "faithfulness": "tfrobust.figures.faithfulness:Faithfulness",
        "feature_maps": "tfrobust.figures.feature_maps:FeatureMaps",
        "channels": "tfrobust.figures.channels:Channels",
        "classes": "tfrobust.figures.class_images:ClassImages",
        "curves": "tfrobust.figures.training:LearningCurves",
        "runs_against_eps": "tfrobust.figures.run_lines:RunsAgainstEps",
        "run_against_epochs": "tfrobust.figures.run_lines:RunAgainstEpochs",
        "grid": "tfrobust.figures.grid:GridMaps",
        "factor": "tfrobust.figures.factor:AgainstFactor",
        "trials": "tfrobust.figures.trials:BestTrials",
        "parallel": "tfrobust.figures.trials:ParallelTrials",
        "pareto": "tfrobust.figures.trials:ParetoFront",
        "certified_accuracy": "tfrobust.figures.certificates:CertifiedAccuracy",
        "minimal_distances": "tfrobust.figures.distances:MinimalDistancesFigure",
        "robustness": "tfrobust.figures.accuracies:RobustnessBars",
        "comparison": "tfrobust.figures.accuracies:ModelsSideBySide",
    },
    group="tfrobust.figures",
)


def figure_of(stem: str) -> str | None:
    """The figure in a file, by the file's name without suffix; None if it is not in the table.

    One figure may have several files: 'path_pixel' belongs to 'path'.
    """
    fitting = [name for name in FIGURES if stem == name or stem.startswith(f"{name}_")]
    return max(fitting, key=len, default=None)


def title_of(stem: str) -> str:
    """The title of the figure in a file; for one that is not in the table, the file's name."""
    name = figure_of(stem)
    if name is None:
        return stem.replace("_", " ").capitalize()
    part = stem[len(name) + 1 :].replace("-", " ")
    return f"{FIGURES[name].title}: {part}" if part else FIGURES[name].title


def place_of(stem: str) -> tuple[int, str]:
    """The sort key of figure files: the order of the table, unknown figures last."""
    name = figure_of(stem)
    names = list(FIGURES)
    return (names.index(name) if name else len(names)), stem


def figures_for(data: Any, group: str | None = None) -> Iterator[tuple[str, Figure[Any]]]:
    """The figures, name and plug-in, that take data of this type, in the order of the table."""
    for name in FIGURES:
        figure = FIGURES[name]
        if type(data) is figure.needs and group in (None, figure.group):
            yield name, figure()


def draw_figures(data: Any, folder: Path, part: str = "", group: str | None = None) -> list[Path]:
    """Draws every figure that takes data of this type into a run's folder of figures.

    Args:
      data: an instance of a dataclass that figures declare in `needs`.
      folder: for the files, `NAME.png` or `NAME_PART.png`.
      part: distinguishes several files of one figure.
      group: of the figures; None draws all groups.

    Returns:
      The paths of the files.

    Raises:
      UsageError: the data are inconsistent.
      TFRobustError: a file cannot be written.
    """
    return [
        figure.publish(data, folder / f"{name}{f'_{part}' if part else ''}.png")
        for name, figure in figures_for(data, group)
    ]
