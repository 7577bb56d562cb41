"""Makes one self-contained page of a run, or of several side by side.

python -m pipelines.report saved_models/RUN
python -m pipelines.report saved_models/ROBUST saved_models/STANDARD --output report.html
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipelines.cli import main_of, new_parser
from tfrobust.errors import UsageError


def make_parser() -> argparse.ArgumentParser:
    """The flags of `pipelines.report`."""
    parser = new_parser("report", "Make one HTML page of a run, or of several side by side.")
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="evaluated run folders, or results of bare models")
    add("--output", default=None, help="the file (default: report.html in the first run's folder)")
    add("--title", default=None, help="of the page (default: the runs' names)")
    return parser


def work(args: argparse.Namespace) -> None:
    """Reads the runs and writes the page."""
    from tfrobust.report.page import write_page
    from tfrobust.report.runs import read_run

    paths = [Path(run) for run in args.runs]
    if len({path.resolve() for path in paths}) < len(paths):
        raise UsageError("A run is named twice.")
    runs = [read_run(path) for path in paths]
    output = Path(args.output) if args.output else paths[0] / "report.html"
    if output.is_dir():
        raise UsageError(
            f"--output: expected a file such as {output / 'report.html'}, found a folder."
        )
    write_page(runs, output, title=args.title)
    size = output.stat().st_size / 2**20
    print(f"Report: {output} ({size:.1f} MB, opens without a network)", flush=True)


main = main_of(work, make_parser())

if __name__ == "__main__":
    raise SystemExit(main())
