"""Exports a run's model as a SavedModel that serves without tfrobust.

python -m pipelines.export saved_models/RUN
python -m pipelines.export saved_models/RUN --formats weights,tflite,tflite-int8,onnx
"""

from __future__ import annotations

from tfrobust.cli.export import COMMAND

command = COMMAND.as_module()
main, make_parser = command.main, command.parser

if __name__ == "__main__":
    raise SystemExit(main())
