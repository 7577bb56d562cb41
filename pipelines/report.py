"""Builds one self-contained page for a run, or for several side by side.

python -m pipelines.report saved_models/RUN
python -m pipelines.report saved_models/ROBUST saved_models/STANDARD --output report.html
"""

from __future__ import annotations

from tfrobust.cli.report import COMMAND

command = COMMAND.as_module()
main, make_parser = command.main, command.parser

if __name__ == "__main__":
    raise SystemExit(main())
