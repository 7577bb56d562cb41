"""Certifies a radius for each image within which no attack can succeed, by randomised smoothing.

python -m pipelines.certify saved_models/RUN --sigma 0.25
python -m pipelines.certify model.keras --data images.npz --sigma 0.25 --samples 10000
"""

from __future__ import annotations

from tfrobust.cli.certify import COMMAND

command = COMMAND.as_module()
main, make_parser = command.main, command.parser

if __name__ == "__main__":
    raise SystemExit(main())
