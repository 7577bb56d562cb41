"""Runs a whole study: several verbs in sequence, from one recipe.

python -m pipelines.study brittleness
python -m pipelines.study brittleness --quick
"""

from __future__ import annotations

from tfrobust.cli.study import COMMAND

command = COMMAND.as_module()
main, make_parser = command.main, command.parser

if __name__ == "__main__":
    raise SystemExit(main())
