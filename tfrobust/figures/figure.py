"""What a figure is: a plug-in that declares what it needs and draws it."""

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
    """A picture; its fields, if it has any, are its settings.

    Attributes:
      title: how a report calls it.
      group: what it belongs to: 'data', 'training', 'evaluation', 'explanation', or that of a
        command of its own. Figures of the group 'evaluation' go when the next one begins.
      needs: the dataclass that `draw` takes.
      shows_attack: whether it outlives an evaluation and shows attacked images, so that a note
        tells which ball they are in.
      unfolded: whether the report shows it without a click.
    """

    title: ClassVar[str] = ""
    group: ClassVar[str] = ""
    needs: ClassVar[type] = object
    shows_attack: ClassVar[bool] = False
    unfolded: ClassVar[bool] = False

    def draw(self, data: Data) -> Drawing:
        """Draws it, in the theme that was entered (`tfrobust.figures.style`)."""
        raise NotImplementedError

    def save(self, data: Data, path: Path | str, *, theme: str = "light") -> Path:
        """Draws it into a file, atomically; the suffix tells the format (.png, .svg, .pdf).

        Args:
          data: what `draw` takes.
          path: the file; its folder is made where it does not exist.
          theme: 'light' or 'dark'.

        Returns:
          The path.

        Raises:
          UsageError: the data do not belong together.
          TFRobustError: the disk is full or the folder cannot be written.
        """
        path = Path(path)
        with using(THEMES[theme]):
            write_bytes(path, encoded(self.draw(data), path.suffix[1:] or "png"))
        return path

    def publish(self, data: Data, path: Path) -> Path:
        """Saves it as a run folder has it: light, and dark in the folder `dark` beside it.

        Returns:
          The path of the light one.

        Raises:
          UsageError: the data do not belong together.
          TFRobustError: the disk is full or the folder cannot be written.
        """
        self.save(data, dark_path(path), theme="dark")
        return self.save(data, path)


def dark_path(path: Path) -> Path:
    """Where the dark version of a figure lies."""
    return path.parent / "dark" / path.name


def encoded(drawing: Drawing, kind: str, dpi: int = DPI) -> bytes:
    """A drawing as a file of that kind, such as 'png'."""
    content = io.BytesIO()
    # Without a date the same figure is the same file.
    known: dict[str, Any] = {"metadata": {"Date": None}} if kind == "svg" else {}
    drawing.savefig(content, format=kind, dpi=dpi, **known)
    return content.getvalue()
