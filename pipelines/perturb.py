"""Builds sets of adversarial images for training and measuring.

python -m pipelines.perturb saved_models/RUN --output perturbed
python -m pipelines.train --augment-with perturbed/augmented_train.npz
python -m pipelines.evaluate saved_models/RUN --data perturbed/hold_out.npz

The five sets of the first study consist of adversarial images: made from images that the
model classifies correctly, and misclassified by it. Images that withstand the attack are
counted and left out. From train, for training and for choosing settings: 'augmented_train'
and 'perturbed_train'; from test: 'perturbed_validation' for choosing settings, 'hold_out',
and 'pixel', made with another attack (out of distribution), for the final scores. No two
sets share an image, and train and test are separated by comparing pixels.
"""

from __future__ import annotations

from tfrobust.cli.perturb import COMMAND

command = COMMAND.as_module()
main, make_parser = command.main, command.parser

if __name__ == "__main__":
    raise SystemExit(main())
