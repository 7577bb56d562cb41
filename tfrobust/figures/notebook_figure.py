"""A figure that a notebook shows if it is the last value of a cell."""

from __future__ import annotations

import io

from matplotlib.figure import Figure


class NotebookFigure(Figure):
    """Like matplotlib's own, which a notebook only shows once pyplot has drawn a figure."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png", bbox_inches="tight")
        return file.getvalue()
