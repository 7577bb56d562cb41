"""Classifies individual images.

python -m pipelines.predict saved_models/RUN photo.jpg
python -m pipelines.predict saved_models/RUN folder more.png --top 3 --output predictions.csv
"""

from __future__ import annotations

from tfrobust.cli.predict import COMMAND

command = COMMAND.as_module()
main, make_parser = command.main, command.parser

if __name__ == "__main__":
    raise SystemExit(main())
