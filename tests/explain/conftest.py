"""What the tests of figures share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
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
