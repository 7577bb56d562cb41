"""The job that makes one page of a run, or of several side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tfrobust.errors import UsageError
from tfrobust.jobs.evaluation import EvaluateResult
from tfrobust.run import RunFolder

if TYPE_CHECKING:
    from tfrobust.report.runs import RunData


@dataclass(frozen=True)
class ReportResult:
    """A page that was written.

    Attributes:
      page: the file.
      megabytes: its size.
    """

    page: Path
    megabytes: float


def report(
    runs: Sequence[EvaluateResult | RunFolder | Path | str],
    output: Path | str | None = None,
    *,
    title: str | None = None,
) -> ReportResult:
    """Makes one HTML page, which opens without a network.

    Args:
      runs: results of `evaluate`, whose reports are taken as they are, or evaluated folders.
      output: the file; None is report.html in the first folder.
      title: of the page; None is the runs' names.

    Raises:
      UsageError: a run is named twice or was not evaluated, or the output is a folder.
      TFRobustError: a file cannot be read or written.
    """
    from tfrobust.report.page import write_page

    paths = [_path(run) for run in runs]
    if len({path.resolve() for path in paths}) < len(paths):
        raise UsageError("A run is named twice.")
    data = [_data(run) for run in runs]
    page = Path(output) if output else paths[0] / "report.html"
    if page.is_dir():
        raise UsageError(
            f"--output: expected a file such as {page / 'report.html'}, found a folder."
        )
    write_page(data, page, title=title)
    return ReportResult(page, page.stat().st_size / 2**20)


def _path(run: EvaluateResult | RunFolder | Path | str) -> Path:
    if isinstance(run, EvaluateResult):
        return run.run.path
    return run.path if isinstance(run, RunFolder) else Path(run)


def _data(run: EvaluateResult | RunFolder | Path | str) -> RunData:
    from tfrobust.report.runs import read_run

    return run.page_data() if isinstance(run, EvaluateResult) else read_run(_path(run))
