"""A figure that a notebook shows where it is what a cell ends with."""

from __future__ import annotations

import io

from matplotlib.figure import Figure


class NotebookFigure(Figure):
    """As matplotlib's own, of which a notebook shows a picture only once pyplot has drawn one."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png", bbox_inches="tight")
        return file.getvalue()
