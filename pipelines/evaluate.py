"""Evaluates the robustness of any TensorFlow classifier.

python -m pipelines.evaluate saved_models/RUN --eps 2/255 --steps 50
python -m pipelines.evaluate model.keras --data images.npz --eps 8/255 --attack autoattack
"""

from __future__ import annotations

from tfrobust.cli.evaluate import COMMAND

command = COMMAND.as_module()
main, make_parser = command.main, command.parser

if __name__ == "__main__":
    raise SystemExit(main())
