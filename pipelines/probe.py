"""Measures what an evaluation in a ball does not: distances, rotations, universal attacks.

python -m pipelines.probe distances saved_models/RUN --attack fmn,deepfool --norms linf,l2
python -m pipelines.probe spatial model.keras --data images.npz --degrees 30 --pixels 3
python -m pipelines.probe universal saved_models/RUN --eps 8/255
python -m pipelines.probe patch saved_models/RUN --size 8 --target cat
"""

from __future__ import annotations

from tfrobust.cli.probe import COMMAND

command = COMMAND.as_module()
main, make_parser = command.main, command.parser

if __name__ == "__main__":
    raise SystemExit(main())
