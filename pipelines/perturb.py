"""Builds sets of adversarial images, to train on and to measure with.

python -m pipelines.perturb saved_models/RUN --output perturbed
python -m pipelines.train --augment-with perturbed/augmented_train.npz
python -m pipelines.evaluate saved_models/RUN --data perturbed/hold_out.npz

The five sets of the first study, each of adversarial images: made from images that the
model classifies correctly, and misclassified by it. An image that withstands the attack is
counted and left out. From train, for training and for the choice of settings:
'augmented_train' and 'perturbed_train'; from test: 'perturbed_validation' for the choice,
'hold_out', and 'pixel', made with another attack (out of distribution), to measure with.
No two sets share an image, and train and test are told apart by their pixels.
"""

from __future__ import annotations

from tfrobust.cli.perturb import COMMAND

command = COMMAND.as_module()
main, make_parser = command.main, command.parser

if __name__ == "__main__":
    raise SystemExit(main())
