"""Checks of an evaluation: what makes its robust accuracy look better than it is."""
