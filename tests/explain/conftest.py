"""What the tests of figures share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures as drawn, in order; nothing is rendered, which takes long."""
    found: list[Figure] = []

    def keep(figure: Figure, file: Any, **options: Any) -> None:
        found.append(figure)
        file.write(b"a picture")

    monkeypatch.setattr(Figure, "savefig", keep)
    return found


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def images(figure: Figure) -> list[np.ndarray]:
    """What each picture of a figure shows, in the order drawn."""
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]


@pytest.fixture
def said():
    return texts


@pytest.fixture
def shown():
    return images


def beside_images(figure: Figure, words: str) -> bool:
    """Whether each text of these words ends before the pictures begin."""
    FigureCanvasAgg(figure).draw()
    ends = [t.get_window_extent().x1 for t in figure.texts if t.get_text() == words]
    return bool(ends) and max(ends) <= min(axes.get_window_extent().x0 for axes in figure.axes)


@pytest.fixture
def beside():
    return beside_images
