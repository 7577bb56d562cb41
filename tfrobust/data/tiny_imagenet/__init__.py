"""Tiny ImageNet: a TFDS builder in the layout that TFDS prescribes, and its reader."""
