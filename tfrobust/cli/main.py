"""`tfrobust VERB`: finds the verb, and imports only that one."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import tfrobust
from tfrobust.errors import did_you_mean

#: Verb -> its description in the list; each is a file of this folder.
VERBS = {
    "train": "train a robust classifier, evaluate it, explain it and export it",
    "evaluate": "measure a model's accuracy, clean and under attack",
    "certify": "prove a radius for each image, by randomised smoothing",
    "probe": "measure minimal distances, rotations, universal perturbations and patches",
    "predict": "classify individual images",
    "explain": "draw what a model looks at, clean and under attack",
    "report": "build one HTML page for a run, or for several side by side",
    "export": "write a model as a SavedModel, TFLite or ONNX",
    "serve": "serve a SavedModel over HTTP",
    "compare": "compare several models in one table and one figure",
    "search": "search for the best settings of a training",
    "perturb": "build sets of adversarial images",
    "imbalance": "write an imbalanced data set",
    "study": "run a whole study from its first step to its tables",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a verb.

    Args:
      argv: the command line without the program; None takes the process's.

    Returns:
      The exit code: 0 is success, 2 wrong usage, 1 a failure.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    verb, *rest = words or ["--help"]
    if verb in ("-h", "--help", "--help-all"):
        print(usage())
        return 0
    if verb == "--version":
        print(f"tfrobust {tfrobust.__version__}")
        return 0
    if verb not in VERBS:
        print(
            f"error: unknown verb {verb!r}: expected one of {', '.join(VERBS)}."
            f"{did_you_mean(verb, VERBS)}",
            file=sys.stderr,
        )
        return 2
    return int(importlib.import_module(f"tfrobust.cli.{verb}").main(rest))


def usage() -> str:
    """The list of verbs."""
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:{width}}  {what}" for verb, what in VERBS.items())
    return (
        "usage: tfrobust VERB [options]\n\n"
        "Train, evaluate, explain and serve robust image classifiers.\n\n"
        f"verbs:\n{verbs}\n\n"
        "tfrobust VERB --help shows the common options, --help-all all of them;\n"
        "tfrobust --version shows the version."
    )
