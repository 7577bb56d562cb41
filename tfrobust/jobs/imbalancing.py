"""The job that writes an imbalanced .pt data set, partly greyscale, from a balanced source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tfrobust.errors import UsageError


@dataclass(frozen=True)
class ImbalanceResult:
    """A data set that was written.

    Attributes:
      file: the .pt file.
      class_names: by label.
      counts: images of each class.
    """

    file: Path
    class_names: tuple[str, ...]
    counts: tuple[int, ...]


def imbalance(
    output: Path | str,
    data: str = "digits",
    *,
    counts: Sequence[int] | None = None,
    grey: float = 0.1,
    data_dir: str | None = None,
    seed: int = 42,
) -> ImbalanceResult:
    """Draws a given number of images of each class, and writes them.

    Args:
      output: the .pt file.
      data: built-in data set, folder, zip, .npz or .pt; its train images are taken.
      counts: images of each class, scaled down to the available images; None is 424 to 28,789,
        as in a 10-class task of 100,000.
      grey: part stored as greyscale, in [0, 1].
      data_dir: where a built-in data set's files are.
      seed: of the draw.

    Raises:
      UsageError: the part is none, or the counts are not one for each class.
      TFRobustError: the images cannot be read, or the file not be written.
    """
    from tfrobust.data import load
    from tfrobust.data.imbalanced import COUNTS, imbalanced, write_torch_file

    if not 0 <= grey <= 1:
        raise UsageError(f"--grey: expected a part from 0 to 1, found {grey}.")
    source = load(data, data_dir=data_dir, seed=seed)
    chosen = imbalanced(source.train, tuple(counts) if counts else COUNTS, seed)
    path = write_torch_file(chosen, Path(output), grey=grey, seed=seed)
    found = tuple(int((chosen.labels == k).sum()) for k in range(len(chosen.label_names)))
    return ImbalanceResult(path, chosen.label_names, found)
