"""Serves a run's SavedModel over HTTP, with a page to try it.

python -m pipelines.serve saved_models/RUN --port 8080
"""

from __future__ import annotations

from tfrobust.cli.serve import COMMAND

command = COMMAND.as_module()
main, make_parser = command.main, command.parser

if __name__ == "__main__":
    raise SystemExit(main())
