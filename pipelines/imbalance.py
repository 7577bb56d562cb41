"""Writes an imbalanced .pt data set, partly greyscale, from a balanced source.

python -m pipelines.imbalance --data ../shared/data/cifar10-images.zip --output Train.pt
"""

from __future__ import annotations

from tfrobust.cli.imbalance import COMMAND

command = COMMAND.as_module()
main, make_parser = command.main, command.parser

if __name__ == "__main__":
    raise SystemExit(main())
