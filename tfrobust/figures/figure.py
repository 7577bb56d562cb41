"""The base of all figures: a plug-in that declares its data and draws it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from tfrobust.figures.style import DPI, THEMES, using
from tfrobust.io import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

Data = TypeVar("Data")


@dataclass(frozen=True)
class Figure(Generic[Data]):
    """A figure; its fields, if any, are its settings.

    Attributes:
      title: its title in a report.
      group: 'data', 'training', 'evaluation', 'explanation', or the name of a command. Figures of
        the group 'evaluation' are removed when the next evaluation starts.
      needs: the dataclass that `draw` takes.
      shows_attack: whether it outlives an evaluation and shows attacked images, so that a note
        on their ball is needed.
      unfolded: whether the report shows it expanded.
    """

    title: ClassVar[str] = ""
    group: ClassVar[str] = ""
    needs: ClassVar[type] = object
    shows_attack: ClassVar[bool] = False
    unfolded: ClassVar[bool] = False

    def draw(self, data: Data) -> Drawing:
        """Draws it in the active theme (`tfrobust.figures.style`)."""
        raise NotImplementedError

    def save(self, data: Data, path: Path | str, *, theme: str = "light") -> Path:
        """Draws it into a file, atomically; the suffix sets the format (.png, .svg, .pdf).

        Args:
          data: the argument of `draw`.
          path: the file; its folder is created if missing.
          theme: 'light' or 'dark'.

        Returns:
          The path.

        Raises:
          UsageError: the data are inconsistent.
          TFRobustError: the disk is full or the folder cannot be written.
        """
        path = Path(path)
        with using(THEMES[theme]):
            write_bytes(path, encoded(self.draw(data), path.suffix[1:] or "png"))
        return path

    def publish(self, data: Data, path: Path) -> Path:
        """Saves it for a run folder: light, and dark in the folder `dark` beside it.

        Returns:
          The path of the light version.

        Raises:
          UsageError: the data are inconsistent.
          TFRobustError: the disk is full or the folder cannot be written.
        """
        self.save(data, dark_path(path), theme="dark")
        return self.save(data, path)


def dark_path(path: Path) -> Path:
    """The path of a figure's dark version."""
    return path.parent / "dark" / path.name


def encoded(drawing: Drawing, kind: str, dpi: int = DPI) -> bytes:
    """A drawing encoded in a format such as 'png'."""
    content = io.BytesIO()
    # Without a date, the same figure gives the same file.
    known: dict[str, Any] = {"metadata": {"Date": None}} if kind == "svg" else {}
    drawing.savefig(content, format=kind, dpi=dpi, **known)
    return content.getvalue()
