"""TFDS's own contract for a builder, on dummy data (three classes of colour gradients)."""

import tensorflow_datasets as tfds

from tfrobust.data.tiny_imagenet import tiny_imagenet_dataset_builder


class TinyImagenetTest(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = tiny_imagenet_dataset_builder.Builder
    SPLITS = {"train": 6, "test": 3}


if __name__ == "__main__":
    tfds.testing.test_main()
