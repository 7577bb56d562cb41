"""Searches for the best settings: many trainings, one table, the best settings, figures.

python -m pipelines.search --recipe digits --output searches/digits \\
    --space "batch_size=32,64,128;learning_rate=1e-3..1e-1:log:3"
"""

from __future__ import annotations

from tfrobust.cli.search import COMMAND

command = COMMAND.as_module()
main, make_parser = command.main, command.parser

if __name__ == "__main__":
    raise SystemExit(main())
