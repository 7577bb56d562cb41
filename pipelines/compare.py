"""Compares several models: their evaluations, or their accuracy on sets of images.

python -m pipelines.compare saved_models/RUN saved_models/OTHER
python -m pipelines.compare RUN OTHER --set original=test --set perturbed=sets/hold-out.npz
"""

from __future__ import annotations

from tfrobust.cli.compare import COMMAND

command = COMMAND.as_module()
main, make_parser = command.main, command.parser

if __name__ == "__main__":
    raise SystemExit(main())
