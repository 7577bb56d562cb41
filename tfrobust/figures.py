"""Every figure of a run, by the name of its file: its title, its place, and what it depends on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """What a figure declares.

    Attributes:
      title: what the page calls it.
      of_evaluation: whether it is drawn anew, or gone, with `evaluation.json`.
      shows_attack: whether it outlives an evaluation and shows attacked images, so that the ball
        it was made with is noted.
    """

    title: str
    of_evaluation: bool = False
    shows_attack: bool = False


#: In the order of the page; others follow by name.
FIGURES = {
    "data": Figure("The images"),
    "triples": Figure("Adversarial gallery", of_evaluation=True),
    "accuracy_against_eps": Figure("Accuracy against eps", of_evaluation=True),
    "accuracy_against_steps": Figure("Accuracy against steps", of_evaluation=True),
    "per_class": Figure("By class", of_evaluation=True),
    "confusion": Figure("Confusion", of_evaluation=True),
    "path_optimised-noise": Figure("Optimised noise, step by step", of_evaluation=True),
    "path_pixel": Figure("The pixel attack, step by step", of_evaluation=True),
    "saliency": Figure("What the model looks at", shows_attack=True),
    "overlay": Figure("Where the prediction is decided", shows_attack=True),
    "top5": Figure("The five most probable classes", shows_attack=True),
    "maps": Figure("Maps, side by side", shows_attack=True),
    "faithfulness": Figure("Deletion and insertion"),
    "feature_maps": Figure("What every layer answers", shows_attack=True),
    "channels": Figure("Channels"),
    "classes": Figure("What each class asks for"),
    "curves": Figure("Training in full"),
}


def title_of(name: str) -> str:
    """A figure's title; of one that is not here, its name."""
    known = FIGURES.get(name)
    return known.title if known else name.replace("_", " ").capitalize()
