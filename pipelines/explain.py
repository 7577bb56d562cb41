"""Draws what a model looks at, in clean and in adversarial images, and scores the maps.

python -m pipelines.explain saved_models/RUN
python -m pipelines.explain saved_models/ROBUST --against saved_models/STANDARD --measure 64
python -m pipelines.explain saved_models/RUN --layers block_3_expand --classes goldfish,17
"""

from __future__ import annotations

from tfrobust.cli.explain import COMMAND

command = COMMAND.as_module()
main, make_parser = command.main, command.parser

if __name__ == "__main__":
    raise SystemExit(main())
