"""Trains a robust classifier, measures it, explains it and exports it.

python -m pipelines.train --backbone mobilenetv2
"""

from __future__ import annotations

from tfrobust.cli.train import COMMAND

command = COMMAND.as_module()
main, make_parser = command.main, command.parser

if __name__ == "__main__":
    raise SystemExit(main())
